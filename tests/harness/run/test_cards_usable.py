"""Which card can be measured on: the stub driver's, and what TensorFlow (here a file that answers
in its place) says of it.
"""

import json
import os
import sys

import pytest

from harness.errors import DeviceUnavailable
from harness.pretended.control import FUNCTION_NOT_FOUND
from harness.run import cards as usable
from harness.run.cards import check_tensorflow, cuda_major_of_tensorflow
from harness.run.devices import Device
from harness.words import GIB

FIND = """
import json, sys
from pathlib import Path
from harness.errors import DeviceUnavailable
from harness.run import cards as usable
choice, answer, settings = json.loads(sys.argv[1])

def check_tensorflow(device, folder):
    if answer:
        raise DeviceUnavailable(answer)

usable.check_tensorflow = check_tensorflow
usable.cuda_major_of_tensorflow = lambda: 12
try:
    device = usable.usable_device(choice, Path(), **settings)
    print(json.dumps([device.kind, device.uuid, [equal.uuid for equal in device.equals], \
device.driver, list(device.left_out)]))
except DeviceUnavailable as reason:
    print(json.dumps(str(reason)))
"""


@pytest.fixture
def found(fresh_process):
    """What is usable where TensorFlow answers so: kind, UUID, equals, driver, left out; or the
    reason why nothing is.
    """

    def found(choice, answer="", **settings):
        return fresh_process(FIND, [choice, answer, settings])

    return found


BLIND = "TensorFlow 2.21.0 sees no GPU"


def test_a_card_that_tensorflow_does_not_see_is_for_auto_the_emulated_device_and_for_gpu_an_error(
    driver, found
):
    """The reason is TensorFlow's, in both; a card that it sees is taken."""
    driver.add_device("GPU-0", total_bytes=40 * GIB)

    assert found("auto")[:2] == found("gpu")[:2] == ["gpu", "GPU-0"]
    assert found("auto", BLIND)[0::3] == ["emulated", f"unavailable: {BLIND}"]
    assert found("gpu", BLIND) == BLIND
    assert found("auto", BLIND, ask_tensorflow=False)[0] == "gpu"


def test_tensorflow_is_not_asked_where_there_is_no_card(driver, found):
    """The driver's own reason goes before."""
    assert "it lists no card" in found("auto", BLIND)[3]
    assert found("cpu", BLIND)[3] == "unavailable: not asked: the emulated device was chosen"


@pytest.mark.parametrize(("cuda_version", "is_taken"), [(12000, True), (11080, False)])
def test_a_driver_is_too_old_below_the_major_version_of_tensorflows_cuda(
    driver, found, cuda_version, is_taken
):
    """NVML works, and CUDA would not start; the sentence has both versions and the remedy."""
    driver.add_device("GPU-0", total_bytes=40 * GIB)
    driver.state.cuda_version = cuda_version

    assert (found("auto")[0] == "gpu") is is_taken
    if not is_taken:
        said = found("gpu")
        assert said.startswith("the NVIDIA driver 575.57.08 supports CUDA 11.8, and TensorFlow ")
        assert said.endswith(" needs CUDA 12: update the driver")


def test_a_driver_that_does_not_say_which_cuda_it_supports_is_tried(driver, found):
    """TensorFlow will say whether it can use it."""
    driver.add_device("GPU-0", total_bytes=40 * GIB)
    for function in ("nvmlSystemGetCudaDriverVersion", "nvmlSystemGetCudaDriverVersion_v2"):
        driver.fail(function, FUNCTION_NOT_FOUND)

    assert found("gpu")[0] == "gpu"


def test_cards_that_somebody_else_fills_are_left_out_and_where_all_are_there_is_none(driver, found):
    """Each with its processes; the first card of those that have room is the device."""
    cards = [
        driver.add_device(f"GPU-{number}", name="A100", total_bytes=40 * GIB) for number in range(3)
    ]
    driver.add_process(cards[0], 4711, 40 * GIB, name="python3")
    cards[0].used_bytes = 40 * GIB
    kind, uuid, equals, _, left_out = found("gpu")

    assert (kind, uuid, equals, len(left_out)) == ("gpu", "GPU-1", ["GPU-2"], 1)
    assert "On the card: process 4711 (python3, 40.0 GiB)" in left_out[0]
    for card in cards:
        card.used_bytes = 40 * GIB
    assert found("gpu").count("has 0 B free of 40.0 GiB") == 3
    assert found("auto")[0] == "emulated"
    cards[1].used_bytes = 20 * GIB
    assert found("gpu", budget_bytes=30 * GIB).count("the device budget needs 30.0 GiB") == 3
    assert found("gpu", budget_bytes=10 * GIB)[:3] == ["gpu", "GPU-1", []]


CARD = Device(
    kind="gpu", name="A100", uuid="GPU-0", memory_bytes=40 * GIB, limit_bytes=None, driver="560.1"
)
SEES = {"tensorflow": "2.21.0", "is_cuda_build": True, "cards": 0, "has_libcuda": True}


@pytest.fixture
def answering(monkeypatch):
    """Have a programme answer in place of the child that asks TensorFlow."""

    def answering(output, log="", code=0):
        programme = f"import sys; print({output!r}); sys.stderr.write({log!r}); sys.exit({code})"
        monkeypatch.setattr(usable, "own_command", lambda module: [sys.executable, "-c", programme])

    return answering


@pytest.mark.parametrize(
    ("answer", "log", "why"),
    [
        (
            {"is_cuda_build": False},
            "",
            "it is a build without CUDA; pip install 'tensorflow[and-cuda]'",
        ),
        (
            {"has_libcuda": False},
            "",
            "CUDA's libraries are missing, the driver's own libcuda.so.1 among them",
        ),
        (
            {},
            "W0 gpu_device.cc] Cannot dlopen some GPU libraries. Please",
            "CUDA's libraries are missing; pip install",
        ),
        (
            {},
            (
                "E0 cuda_platform.cc:52] failed call to cuInit: "
                "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\nmore"
            ),
            "CUDA does not start (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH); update the NVIDIA driver",
        ),
        ({}, "", "it does not say why; pip install"),
    ],
)
def test_why_tensorflow_sees_no_card_is_a_sentence_with_the_remedy(
    answering, tmp_path, answer, log, why
):
    """By what it answers, and by what it logs."""
    answering(json.dumps({**SEES, **answer}), log)

    with pytest.raises(DeviceUnavailable) as raised:
        check_tensorflow(CARD, tmp_path)
    assert str(raised.value).startswith(
        f"TensorFlow 2.21.0 sees no GPU although the driver has A100: {why}"
    )


def test_a_card_that_is_seen_is_no_error_and_a_child_that_cannot_be_asked_is_one(
    answering, tmp_path
):
    """Whatever else it prints before; its last words are the reason."""
    answering("chatter\n" + json.dumps({**SEES, "cards": 1}))
    check_tensorflow(CARD, tmp_path)
    answering("nothing", "ModuleNotFoundError: No module named 'tensorflow'", code=1)

    with pytest.raises(
        DeviceUnavailable,
        match=r"could not be asked whether it sees A100: .*No module named 'tensorflow'",
    ):
        check_tensorflow(CARD, tmp_path)


def test_the_cuda_that_tensorflow_needs_is_read_from_what_its_package_asks_for(monkeypatch):
    """Nothing is imported for it; a package that asks for nothing tells nothing."""
    monkeypatch.setattr(
        usable,
        "requires",
        lambda name: ["numpy", 'nvidia-cuda-runtime-cu12<13.0,>=12.5; extra == "and-cuda"'],
    )
    assert cuda_major_of_tensorflow() == 12
    monkeypatch.setattr(usable, "requires", lambda name: None)
    assert cuda_major_of_tensorflow() is None


def test_tensorflow_itself_answers_in_a_process_of_its_own(
    driver_environment, tmp_path, monkeypatch
):
    """There is no CUDA beside the stub's NVML: the sentence says so."""
    for name in set(os.environ) - set(driver_environment):
        monkeypatch.delenv(name)
    for name, value in driver_environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(
        DeviceUnavailable,
        match="sees no GPU although the driver has A100: CUDA's libraries are missing",
    ):
        check_tensorflow(CARD, tmp_path)
