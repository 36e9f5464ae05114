"""Devices: budgets at the limit and one past it, visibility, and one lease at a time."""

import fcntl
import os

import pytest

from harness.errors import UsageError
from harness.run.devices import Device, _only_visible, check_budget, choose_device, emulated_device, lease
from harness.units import GIB, MIB


def card(uuid="GPU-aaaa"):
    return Device(kind="gpu", name="A100", uuid=uuid, memory_bytes=40 * GIB, limit_bytes=None, driver="560.1")


def test_the_smallest_budget_is_taken_and_one_byte_less_is_not():
    """16 MiB."""
    assert check_budget(16 * MIB) == 16 * MIB
    with pytest.raises(UsageError, match=r"the smallest is 16\.0 MiB"):
        check_budget(16 * MIB - 1)


def test_a_budget_of_broken_mib_is_refused():
    """TensorFlow's limit is set in whole MiB; rounding would measure something else."""
    with pytest.raises(UsageError, match="whole MiB"):
        check_budget(100 * MIB + 1)


def test_the_emulated_device_is_limited_by_the_environment():
    """The BFC allocator on the CPU, with the budget in MiB, and no card visible."""
    device = emulated_device("no driver").with_budget(256 * MIB)

    assert device.environment() == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPU_ALLOCATOR_USE_BFC": "true",
        "TF_CPU_BFC_MEM_LIMIT_IN_MB": "256",
    }
    assert device.memory_bytes == 256 * MIB


def test_a_card_is_selected_by_uuid_and_keeps_its_size_under_a_budget():
    """The index of CUDA is not the index of NVML."""
    device = card().with_budget(1 * GIB)

    assert device.environment()["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa"
    assert (device.memory_bytes, device.limit_bytes) == (40 * GIB, 1 * GIB)


def test_a_budget_above_the_card_is_refused_and_its_whole_size_is_not():
    """The message names the card and its size."""
    assert card().with_budget(40 * GIB).limit_bytes == 40 * GIB
    with pytest.raises(UsageError, match=r"A100 has 40\.0 GiB"):
        card().with_budget(40 * GIB + MIB)


def test_an_emulated_device_may_be_as_large_as_the_machine_and_no_larger(monkeypatch):
    """It lies in the machine's memory; the message names that size."""
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 8 * GIB // 4096}.__getitem__)

    assert emulated_device("no driver").with_budget(8 * GIB).limit_bytes == 8 * GIB
    with pytest.raises(UsageError, match=r"8\.0 GiB was asked for, but .* memory, which has 8\.0 GiB; ask for less"):
        emulated_device("no driver").with_budget(8 * GIB + MIB)


@pytest.mark.parametrize(
    ("variables", "visible"),
    [
        ({}, ["GPU-aaaa", "GPU-bbbb"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, ["GPU-bbbb"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}, ["GPU-bbbb", "GPU-aaaa"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ["GPU-bbbb"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb,9,GPU-aaaa"}, ["GPU-bbbb"]),
    ],
)
def test_only_what_the_caller_made_visible_is_used(variables, visible):
    """A bare index is taken only where it cannot be misread; the list ends at the first entry that names no card."""
    assert [device.uuid for device in _only_visible([card("GPU-aaaa"), card("GPU-bbbb")], variables)] == visible


def test_cpu_never_asks_the_driver():
    """And says that it was not asked."""
    assert choose_device("cpu").driver == "unavailable: not asked: the emulated device was chosen"


def test_a_leased_card_is_locked_until_the_child_has_ended_too(tmp_path, monkeypatch):
    """The descriptor is the lock: whoever inherits it holds the card."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with lease(card()) as (descriptor,):
        inherited = os.dup(descriptor)
    other = os.open(tmp_path / "memory-harness-GPU-aaaa.lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(inherited)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_the_emulated_device_needs_no_lock():
    """It belongs to its process alone."""
    with lease(emulated_device("no driver")) as inherited:
        assert inherited == ()
