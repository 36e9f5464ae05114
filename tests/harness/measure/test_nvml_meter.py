"""NVML's readings against a library that answers as its documentation says; no card is needed, and none was met."""

import os
import sys
from types import SimpleNamespace

import pytest

from harness.errors import MeterUnavailable
from harness.measure.meters.base import MeterContext
from harness.measure.meters.nvml import NvmlMeter
from harness.records import Quality

MIB = 1024 * 1024
ALL_ONES = (1 << 64) - 1


def on(uuid):
    return MeterContext(device_name="GPU:0", device={"kind": "gpu", "uuid": uuid})


class FakeError(Exception):
    pass


@pytest.fixture
def card(monkeypatch):
    """A card whose answers the test sets: bytes used, and bytes by process id."""
    state = SimpleNamespace(used=100 * MIB, processes={os.getpid(): 40 * MIB}, lost=False, asked_version=None)

    def memory(handle, version):
        if state.lost:
            raise FakeError("GPU is lost")
        state.asked_version = version
        return SimpleNamespace(used=state.used)

    library = SimpleNamespace(
        NVMLError=FakeError,
        NVMLLibraryMismatchError=FakeError,
        nvmlMemory_v2=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [
            SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in state.processes.items()
        ],
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return state


@pytest.fixture
def meter(card):
    opened = NvmlMeter(on("GPU-aaaa"))
    opened.open()
    return opened


def test_both_amounts_are_read_at_the_edges_and_called_sampled(meter, card):
    """By version 2 of the query, which leaves out what the driver reserves."""
    meter.begin()
    card.used, card.processes[os.getpid()] = 160 * MIB, 90 * MIB
    device, process = meter.end()

    assert card.asked_version == 2
    assert (device.start_bytes, device.peak_bytes, device.end_bytes) == (100 * MIB, 160 * MIB, 160 * MIB)
    assert (process.start_bytes, process.peak_bytes, process.end_bytes) == (40 * MIB, 90 * MIB, 90 * MIB)
    assert {device.quality, process.quality} == {Quality.SAMPLED}
    assert device.samples == 2


@pytest.mark.parametrize("processes", [{}, {1: 5 * MIB}, {os.getpid(): None}, {os.getpid(): ALL_ONES}])
def test_a_process_the_driver_does_not_tell_of_is_unavailable_not_zero(meter, card, processes):
    """Containers, WSL and unified memory."""
    card.processes = processes
    meter.begin()
    device, process = meter.end()

    assert device.peak_bytes == 100 * MIB
    assert (process.quality, process.peak_bytes) == (Quality.UNAVAILABLE, None)
    assert "the driver lists no amount for this process" in process.reason


def test_a_card_that_is_lost_in_mid_phase_is_unavailable_with_the_drivers_words(meter, card):
    """The body's own end is not changed by it."""
    meter.begin()
    card.lost = True

    assert {reading.reason for reading in meter.end()} == {"NVML: GPU is lost"}


def test_a_card_that_is_lost_before_a_phase_is_unavailable(meter, card):
    """Although it came back."""
    card.lost = True
    meter.begin()
    card.lost = False

    assert {reading.quality for reading in meter.end()} == {Quality.UNAVAILABLE}


def test_all_ones_are_not_an_amount(meter, card):
    """NVML's sentinel for 'not available'."""
    card.used = ALL_ONES
    with pytest.raises(MeterUnavailable, match="not available"):
        NvmlMeter(on("GPU-aaaa")).open()


def test_an_emulated_device_has_no_card_to_ask():
    """And the library is not even loaded."""
    with pytest.raises(MeterUnavailable, match="no card to ask"):
        NvmlMeter(on(None)).open()
