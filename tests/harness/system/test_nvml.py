"""``Card`` on the stub driver, in children; what it cannot read is unavailable with a reason, and
it agrees with others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.pretended import control as stub
from harness.pretended.control import StubControl

MIB, GIB = 1024**2, 1024**3
GPU = "GPU-00000000-0000-4000-8000-000000000000"

PROGRAM = """
import json, os
from pathlib import Path
from harness.errors import MeterUnavailable
from harness.system import nvml
from harness.system.nvml import Card, process_bytes
from harness.pretended.control import StubControl
driver = StubControl.open()
def said(function, *arguments):
    try:
        return function(*arguments)
    except MeterUnavailable as reason:
        return f"unavailable: {reason}"
%s
print(json.dumps(answer))
"""


@pytest.fixture
def in_child(driver_environment, project_root):
    """What a fresh process, which has this driver, assigns to ``answer`` in ``code``."""

    def in_child(code, environment=driver_environment):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM % code],
            env=environment,
            cwd=project_root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return in_child


@pytest.fixture
def card(driver):
    """40 GiB, of which the driver keeps 500 MiB and 100 MiB are in use."""
    return driver.add_device(total_bytes=40 * GIB, reserved_bytes=500 * MIB, used_bytes=100 * MIB)


def test_the_newer_query_is_used_and_named(card, in_child):
    """Without what the driver keeps for itself."""
    assert in_child(f"c = Card.open({GPU!r}); answer = [c.used_bytes(), c.source]") == [
        100 * MIB,
        "memory v2",
    ]


def test_an_old_driver_is_asked_the_older_way_and_never_mixed(old_nvml_stub, tmp_path, in_child):
    """Version 1 of memory and version 2 of the list, because the next ones do not exist; the row
    can say so.
    """
    driver = StubControl.create(tmp_path / "old", old_nvml_stub.functions)
    card = driver.add_device(total_bytes=40 * GIB, reserved_bytes=500 * MIB, used_bytes=100 * MIB)
    driver.add_process(card, 5, 7 * MIB)
    found = in_child(
        f"c = Card.open({GPU!r}); answer = [c.used_bytes(), c.source, c.processes()]",
        {**os.environ, **driver.environment(old_nvml_stub.library)},
    )
    driver.close()

    assert found == [600 * MIB, "memory v1", [[5, 7 * MIB]]]


@pytest.mark.parametrize(
    ("function", "code", "reason"),
    [
        (
            "nvmlInitWithFlags",
            stub.DRIVER_NOT_LOADED,
            "the NVIDIA driver is installed but not loaded (NVML: Driver Not Loaded)",
        ),
        (
            "nvmlInitWithFlags",
            stub.LIB_RM_VERSION_MISMATCH,
            "the kernel still runs the old one; reboot",
        ),
        (
            "nvmlInitWithFlags",
            stub.UNKNOWN,
            "the driver failed twice without saying why (NVML: Unknown Error)",
        ),
        (
            "nvmlDeviceGetHandleByUUID",
            stub.NOT_FOUND,
            "knows nothing by that name here (NVML: Not Found)",
        ),
        (
            "nvmlDeviceGetMemoryInfo_v2",
            stub.NO_PERMISSION,
            "this user may not ask the driver that",
        ),
        (
            "nvmlDeviceGetMemoryInfo_v2",
            stub.NOT_SUPPORTED,
            "no memory of its own that the driver could report",
        ),
        (
            "nvmlDeviceGetMemoryInfo_v2",
            stub.GPU_IS_LOST,
            "the card has fallen off the bus or hangs",
        ),
        ("nvmlDeviceGetMemoryInfo_v2", 16, "the card waits for a reset"),
        ("nvmlDeviceGetMemoryInfo_v2", 11, "NVML: Interrupt Request Issue"),
    ],
)
def test_a_driver_that_refuses_makes_the_meter_unavailable_with_the_reason(
    card, driver, in_child, function, code, reason
):
    """In words, and with NVML's own; never 0."""
    driver.fail(function, code)
    said = in_child(f"answer = said(Card.open, {GPU!r})")

    assert said.startswith("unavailable: ")
    assert reason in said


def test_no_driver_and_no_cards_are_reasons_too(driver, driver_environment, in_child, tmp_path):
    """A library that is not there, and one that has nothing to show."""
    assert "knows nothing by that name" in in_child(f"answer = said(Card.open, {GPU!r})")
    # An empty file under the library's name is found first, whatever this machine has.
    (tmp_path / "libnvidia-ml.so.1").touch()
    without = {**driver_environment, "LD_LIBRARY_PATH": str(tmp_path)}

    assert "no NVIDIA driver is installed here" in in_child(
        f"answer = said(Card.open, {GPU!r})", without
    )


@pytest.mark.parametrize("field", ["used_bytes", "total_bytes"])
def test_all_ones_are_not_an_amount(card, in_child, field):
    """NVML's sentinel for "not available"."""
    setattr(card, field, stub.ALL_ONES)

    assert "the driver answers 'not available' for the memory in use" in in_child(
        f"answer = said(Card.open, {GPU!r})"
    )


def test_a_failure_that_does_not_come_again_is_asked_once_more(card, driver, in_child):
    """One retry of an unknown error is enough; the third call is the next reading."""
    driver.fail("nvmlDeviceGetMemoryInfo_v2", stub.UNKNOWN, times=1)

    assert in_child(f"answer = Card.open({GPU!r}).used_bytes()") == 100 * MIB
    # refused and asked again, can it be read, the reading
    assert driver.calls("nvmlDeviceGetMemoryInfo_v2") == 4


def test_a_list_that_grew_while_it_was_read_is_read_again(card, driver, in_child):
    """A first answer of "none fits" leaves pynvml with room for five; there are six."""
    for pid in range(6):
        driver.add_process(card, pid, MIB)
    driver.fail("nvmlDeviceGetComputeRunningProcesses_v3", stub.INSUFFICIENT_SIZE, times=1)

    assert in_child(f"answer = Card.open({GPU!r}).processes()") == [[pid, MIB] for pid in range(6)]


def test_a_card_that_is_lost_in_mid_phase_is_unavailable_and_may_come_back(card, in_child):
    """With its own words each time."""
    lost, back = in_child(
        f"c = Card.open({GPU!r}); driver.state.devices[0].lost = 1; lost = said(c.used_bytes)\n"
        "driver.state.devices[0].lost = 0; answer = [lost, c.used_bytes()]"
    )

    assert lost.startswith("unavailable: the card has fallen off the bus or hangs")
    assert back == 100 * MIB


def test_compute_and_mps_processes_are_listed_once_each_and_a_desktop_is_not(
    card, driver, in_child
):
    """Under MPS a process may be in both lists, with the same memory."""
    driver.add_process(card, 5, 50 * MIB)
    driver.add_process(card, 5, 50 * MIB, kind=stub.MPS)
    driver.add_process(card, 6, 60 * MIB, kind=stub.MPS)
    driver.add_process(card, 7, 70 * MIB, kind=stub.GRAPHICS)

    assert in_child(f"answer = Card.open({GPU!r}).processes()") == [[5, 50 * MIB], [6, 60 * MIB]]


@pytest.mark.parametrize("vgpu", [False, True])
def test_an_instance_opens_through_its_card_and_has_its_own_memory_and_processes(
    card, driver, in_child, vgpu
):
    """Also where the driver does not list an instance's processes by its handle: the card's list
    says whose is whose.
    """
    for number in (1, 2):
        driver.add_instance(card, f"MIG-{number}", total_bytes=5 * GIB, used_bytes=number * MIB)
        driver.add_process(card, number, number * MIB, instance=number)
    driver.fail("nvmlDeviceGetHandleByUUID", stub.NOT_FOUND)
    if vgpu:
        driver.fail("nvmlDeviceGetComputeRunningProcesses_v3", stub.NOT_SUPPORTED, times=1)
    found = in_child(
        "c = Card.open('MIG-2'); answer = [c.used_bytes(), c.processes(), said(Card.open, 'MIG-3')]"
    )

    assert found == [
        2 * MIB,
        [[2, 2 * MIB]],
        "unavailable: no card here has a MIG instance MIG-3; nvidia-smi -L lists them",
    ]


def test_the_whole_of_a_divided_card_is_not_for_everyone(card, driver, in_child):
    """Its instances are."""
    driver.add_instance(card, "MIG-1", total_bytes=5 * GIB, used_bytes=MIB)
    card.unprivileged = 1
    whole, instance = in_child(
        f"answer = [said(Card.open, {GPU!r}), Card.open('MIG-1').used_bytes()]"
    )

    assert "a card in MIG mode answers only the users of its instances" in whole
    assert instance == MIB


def test_what_this_process_holds(card, driver, in_child):
    """By its process id."""
    driver.add_process(card, 6, 60 * MIB)
    assert in_child(f"answer = process_bytes(Card.open({GPU!r}).processes(), 6)") == 60 * MIB


@pytest.mark.parametrize(
    ("listed", "kernel", "reason"),
    [
        (
            [(7, MIB), (8, MIB)],
            "6.1",
            "not among the 2 that the driver lists, although it uses the device: in a container",
        ),
        ([(6, stub.ALL_ONES)], "6.1", "the driver lists this process, but not what it holds"),
        ([], "5.15.167.4-microsoft-standard-WSL2", "under WSL the driver lists no processes"),
        ([], "6.1", "the driver lists no process on this device, although this one uses it"),
    ],
)
def test_a_process_the_driver_does_not_tell_of_is_unavailable_not_zero(
    card, driver, in_child, tmp_path, listed, kernel, reason
):
    """Containers, WSL, and lists without amounts; then nothing is known of neighbours either,
    unless this one is listed.
    """
    for pid, held_bytes in listed:
        driver.add_process(card, pid, held_bytes)
    (tmp_path / "osrelease").write_text(kernel)
    said, others, unknown = in_child(
        f"nvml._KERNEL = Path({str(tmp_path / 'osrelease')!r}); c = Card.open({GPU!r}); n = "
        "c.neighbours([6])\nanswer = [said(process_bytes, c.processes(), 6), str(n), "
        "n.unknown]"
    )

    assert reason in said
    assert others == ""
    assert (reason in unknown) == (6 not in dict(listed))


def test_neighbours_are_named(card, driver, in_child):
    """By the driver, else by /proc; one that has gone meanwhile keeps its number."""
    driver.add_process(card, 6, 60 * MIB, name="ours")
    driver.add_process(card, 7, 120 * MIB, name="python3")
    driver.add_process(card, os.getpid(), stub.ALL_ONES)
    # above the largest process id (proc_sys_kernel(5), pid_max)
    driver.add_process(card, 2**22 + 1, 5 * GIB)
    said, unknown = in_child(
        f"n = Card.open({GPU!r}).neighbours({{6}}); answer = [str(n), n.unknown]"
    )
    own_name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    expected = {
        7: "7 (python3, 120.0 MiB)",
        os.getpid(): f"{os.getpid()} ({own_name}, unknown bytes)",
        2**22 + 1: "4194305 (name unknown, 5.0 GiB)",
    }

    assert said == ", ".join(expected[pid] for pid in sorted(expected))
    assert unknown == ""


def test_what_a_child_has_started_is_not_a_neighbour(card, driver, in_child):
    """It is in the session that the child leads."""
    others = in_child(
        f"import subprocess, sys; c = Card.open({GPU!r}); os.setsid()\nstarted = "
        "subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\nfor "
        "pid in (os.getpid(), started.pid): driver.add_process(driver.state.devices[0], "
        "pid, 1)\nn = c.neighbours([os.getpid()]); started.communicate(b'\\n'); answer = "
        "[str(n), n.unknown, len(c.processes())]"
    )

    assert others == ["", "", 2]


def test_nobody_else_is_nobody(card, driver, in_child):
    """And a list that is refused is not nobody."""
    driver.add_process(card, 6, MIB)
    assert in_child(f"n = Card.open({GPU!r}).neighbours([6]); answer = [str(n), n.unknown]") == [
        "",
        "",
    ]
    driver.fail("nvmlDeviceGetComputeRunningProcesses_v3", stub.NO_PERMISSION)
    said, unknown = in_child(
        f"n = Card.open({GPU!r}).neighbours([6]); answer = [str(n), n.unknown]"
    )

    assert said == ""
    assert unknown.startswith("its processes: this user may not ask the driver that")


@pytest.mark.parametrize(
    ("mode", "pid", "expected"),
    [
        (stub.ON, 5, 77 * MIB),
        (
            stub.ON,
            6,
            (
                "unavailable: accounting is on, but knows no process 6 (in a container it has "
                "the host's ids)"
            ),
        ),
        (stub.ON, 7, "unavailable: accounting is on, but does not report the memory of process 7"),
        (
            stub.OFF,
            5,
            (
                "unavailable: accounting is off on this card; an administrator can switch it "
                "on: nvidia-smi -am 1"
            ),
        ),
        (
            stub.ABSENT,
            5,
            (
                "unavailable: accounting: the driver does not report that for this device (NVML: "
                "Not Supported)"
            ),
        ),
    ],
)
def test_accounting_is_read_where_it_is_on_and_never_switched_on(
    card, driver, in_child, mode, pid, expected
):
    """A process that has ended still has its peak."""
    card.accounting = mode
    driver.add_process(card, 5, 0, running=0, accounted_bytes=77 * MIB)
    driver.add_process(card, 7, 0, running=0, accounted_bytes=stub.ALL_ONES)

    assert in_child(f"answer = said(Card.open({GPU!r}).accounting_peak_bytes, {pid})") == expected
    assert driver.calls("nvmlDeviceSetAccountingMode") == 0


def test_a_closed_card_leaves_the_library_as_it_was(card, driver, in_child):
    """Also one that could not be opened."""
    in_child(f"Card.open({GPU!r}).close(); said(Card.open, 'GPU-absent'); answer = 0")

    assert driver.calls("nvmlInitWithFlags") == driver.calls("nvmlShutdown") == 2


GPUSTAT = [sys.executable, "-m", "gpustat", "--json"]
NVITOP = """
import json
from nvitop import Device
answer = [[d.memory_total(), d.memory_used(), {p.pid: p.gpu_memory() \
for p in d.processes().values()}] for d in Device.all()]
print(json.dumps(answer))
"""


def test_pynvml_gpustat_and_nvitop_see_what_card_sees(driver, driver_environment, in_child):
    """Two cards; used, total and process bytes, through their own interfaces, unmodified. gpustat
    counts in MiB.
    """
    us, parent = os.getpid(), os.getppid()
    for index, used_bytes in enumerate((100 * MIB, 3 * GIB)):
        card = driver.add_device(
            total_bytes=(40 + index) * GIB, reserved_bytes=500 * MIB, used_bytes=used_bytes
        )
        driver.add_process(card, us, used_bytes // 2)
        driver.add_process(card, parent, 5 * MIB)
    ours = in_child(
        "import pynvml; pynvml.nvmlInit()\nanswer = []\n"
        "for i in range(2):\n"
        "    h = pynvml.nvmlDeviceGetHandleByIndex(i); c = Card.open(pynvml.nvmlDeviceGetUUID(h))\n"
        "    m = pynvml.nvmlDeviceGetMemoryInfo(h, version=pynvml.nvmlMemory_v2)\n"
        "    assert m.used == c.used_bytes()\n"
        "    answer.append([m.total, c.used_bytes(), c.processes()])"
    )
    gpustat = json.loads(
        subprocess.run(
            GPUSTAT, env=driver_environment, capture_output=True, check=True, timeout=60
        ).stdout
    )
    nvitop = json.loads(
        subprocess.run(
            [sys.executable, "-c", NVITOP],
            env=driver_environment,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
    )

    expected = [
        [(40 + i) * GIB, used, sorted([[us, used // 2], [parent, 5 * MIB]])]
        for i, used in enumerate((100 * MIB, 3 * GIB))
    ]
    assert ours == expected
    assert [
        [t, u, sorted([int(pid), held] for pid, held in p.items())] for t, u, p in nvitop
    ] == expected
    assert [
        [
            gpu["memory.total"] * MIB,
            gpu["memory.used"] * MIB,
            sorted([p["pid"], p["gpu_memory_usage"] * MIB] for p in gpu["processes"]),
        ]
        for gpu in gpustat["gpus"]
    ] == expected


def test_nvitop_sees_the_same_instances(card, driver, driver_environment, in_child):
    """Memory and processes of each MIG device, by its UUID."""
    us = os.getpid()
    for number in (1, 2):
        driver.add_instance(
            card,
            f"MIG-0000000{number}-0000-5000-8000-000000000000",
            total_bytes=5 * GIB,
            used_bytes=number * MIB,
        )
    driver.add_process(card, us, 77 * MIB, instance=2)
    program = (
        "import json\nfrom nvitop import Device\nprint(json.dumps([[m.uuid(), "
        "m.memory_used(), [p.gpu_memory() for p in m.processes().values()]] for m in "
        "Device(0).mig_devices()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=driver_environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    nvitop = json.loads(done.stdout)
    ours = in_child(
        f"uuids = {[uuid for uuid, _, _ in nvitop]!r}; cards = [Card.open(uuid) for uuid in "
        "uuids]\nanswer = [[u, c.used_bytes(), [p.used_bytes for p in c.processes()]] for "
        "u, c in zip(uuids, cards)]"
    )

    assert [row[1:] for row in nvitop] == [[MIB, []], [2 * MIB, [77 * MIB]]]
    assert ours == nvitop


def test_gpustat_and_nvitop_fall_back_on_an_old_driver_as_card_does(
    old_nvml_stub, tmp_path, in_child
):
    """All three by version 1, which counts what the driver keeps."""
    control = StubControl.create(tmp_path / "old", old_nvml_stub.functions)
    control.add_device(total_bytes=40 * GIB, reserved_bytes=500 * MIB, used_bytes=100 * MIB)
    environment = {**os.environ, **control.environment(old_nvml_stub.library)}
    gpustat = json.loads(
        subprocess.run(GPUSTAT, env=environment, capture_output=True, check=True, timeout=60).stdout
    )
    done = subprocess.run(
        [sys.executable, "-c", NVITOP], env=environment, capture_output=True, check=True, timeout=60
    )
    ours = in_child(f"answer = Card.open({GPU!r}).used_bytes()", environment)
    control.close()

    assert (gpustat["gpus"][0]["memory.used"] * MIB, json.loads(done.stdout)[0][1], ours) == (
        600 * MIB,
    ) * 3
