"""What the NVIDIA driver sees, through NVML: bytes in use on the whole card, and by this process.

Shown beside the allocator's numbers, not gated: the card's number includes every other process, and the pool that
TensorFlow holds. Read at a phase's edges only, because NVML keeps no peak and the list of processes takes
milliseconds under a lock of the driver; so both readings are sampled, with two samples.

This file has been exercised without a driver only; on a real card it is written from NVML's documentation.
"""

import os
import time

from harness.errors import MeterUnavailable
from harness.measure.meters.base import MeterContext
from harness.records import Quality, Reading

_ALL_ONES = (1 << 64) - 1  # NVML's "not available" for an unsigned 64-bit amount (nvml.h, NVML_VALUE_NOT_AVAILABLE_ulonglong)


class NvmlMeter:
    """``nvml_device_used`` (version 2 of the memory query: without what the driver reserves) and ``nvml_process``."""

    names = ("nvml_device_used", "nvml_process")

    def __init__(self, context: MeterContext) -> None:
        self._uuid: str | None = context.device["uuid"]
        self._start: tuple[int, int | None] | None = None
        self._started_s = 0.0

    def open(self) -> None:
        """Load the library and find the card. Raises MeterUnavailable with NVML's own words."""
        if self._uuid is None:
            raise MeterUnavailable("the device is emulated on the CPU; there is no card to ask")
        import pynvml  # only where there is a card to ask

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            self._start = self._look()
        except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:
            raise MeterUnavailable(f"NVML: {error}") from error

    def begin(self) -> None:
        """Read both amounts; a card that is lost now is told of at the end of the phase."""
        self._started_s = time.monotonic()
        try:
            self._start = self._look()
        except self._nvml.NVMLError:
            self._start = None

    def end(self) -> tuple[Reading, ...]:
        """Both amounts at both edges; a lost card becomes an unavailable reading, not an error of the body."""
        try:
            end = self._look()
        except self._nvml.NVMLError as error:
            return tuple(Reading.unavailable(name, f"NVML: {error}") for name in self.names)
        if self._start is None:
            return tuple(Reading.unavailable(name, "NVML failed at the start of the phase") for name in self.names)
        gap_s = time.monotonic() - self._started_s
        device = _sampled(self.names[0], self._start[0], end[0], gap_s)
        if self._start[1] is None or end[1] is None:
            reason = "the driver lists no amount for this process (a container with its own process ids, WSL, or unified memory)"
            return device, Reading.unavailable(self.names[1], reason)
        return device, _sampled(self.names[1], self._start[1], end[1], gap_s)

    def _look(self) -> tuple[int, int | None]:
        nvml = self._nvml
        used = int(nvml.nvmlDeviceGetMemoryInfo(self._handle, version=nvml.nvmlMemory_v2).used)
        if used == _ALL_ONES:
            raise MeterUnavailable("NVML answers 'not available' for the memory in use")
        mine = [p for p in nvml.nvmlDeviceGetComputeRunningProcesses(self._handle) if p.pid == os.getpid()]
        amounts = [p.usedGpuMemory for p in mine if p.usedGpuMemory not in (None, _ALL_ONES)]
        return used, sum(amounts) if amounts else None


def _sampled(name: str, start_bytes: int, end_bytes: int, gap_s: float) -> Reading:
    return Reading(
        meter=name,
        quality=Quality.SAMPLED,
        start_bytes=start_bytes,
        peak_bytes=max(start_bytes, end_bytes),
        end_bytes=end_bytes,
        samples=2,
        largest_gap_s=gap_s,
    )
