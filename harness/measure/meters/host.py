"""Host memory of this process, from the kernel's own counters in /proc (Linux).

``host_anon``, RssAnon + RssShmem, is what the process itself allocated and holds, in private or in shared memory: the
number to gate. The kernel keeps no peak of it, only of the whole resident set (VmHWM, which writing 5 to
/proc/self/clear_refs resets; proc(5)). From VmHWM = max(anon + file) follow two bounds of its peak, with RssFile as
seen at the phase's edges: VmHWM - max(file) and VmHWM - min(file). ``host_rss`` is that resident set itself.

Not seen by ``host_anon``: a copy in a mapped file, whose pages count as RssFile; ``host_rss`` shows it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MeterUnavailable
from harness.measure.meters.base import MeterContext
from harness.records import Quality, Reading

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_FIELDS = re.compile(r"^(VmHWM|VmRSS|RssAnon|RssFile|RssShmem):\s+(\d+) kB$", re.MULTILINE)
_KIB = 1024  # /proc prints kibibytes and calls them kB (proc(5))


@dataclass(frozen=True, slots=True)
class HostState:
    """One look at /proc/self/status, in bytes."""

    anon_bytes: int
    """RssAnon + RssShmem: what only the process can give back."""
    mapped_bytes: int
    """RssFile: page cache mapped into the process, which the kernel can drop."""
    resident_bytes: int
    highest_resident_bytes: int

    @classmethod
    def from_status(cls, text: str) -> "HostState":
        """Parse the text of /proc/PID/status. Raises MeterUnavailable when a counter is missing."""
        counters = {name: int(kib) * _KIB for name, kib in _FIELDS.findall(text)}
        missing = sorted({"VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"} - counters.keys())
        if missing:
            raise MeterUnavailable(f"{_STATUS} lacks {', '.join(missing)}")
        return cls(
            anon_bytes=counters["RssAnon"] + counters["RssShmem"],
            mapped_bytes=counters["RssFile"],
            resident_bytes=counters["VmRSS"],
            highest_resident_bytes=counters["VmHWM"],
        )


class HostMeter:
    """``host_anon`` (the peak bounded from both sides) and ``host_rss`` (exact)."""

    names = ("host_anon", "host_rss")

    def __init__(self, context: MeterContext, *, status: Path = _STATUS, clear_refs: Path = _CLEAR_REFS) -> None:
        del context  # this process is the same on every device
        self._status = status
        self._clear_refs = clear_refs
        self._start: HostState | None = None

    def open(self) -> None:
        """Read and reset once. Raises MeterUnavailable where the kernel has no such files or forbids the reset."""
        try:
            self._look()
            self._clear_refs.write_text(_RESET_PEAK)
        except OSError as error:
            raise MeterUnavailable(f"needs Linux's {self._status} and {self._clear_refs}: {error}") from error

    def begin(self) -> None:
        """Set VmHWM to what is resident now."""
        self._clear_refs.write_text(_RESET_PEAK)
        self._start = self._look()

    def end(self) -> tuple[Reading, ...]:
        """Both readings of the phase."""
        if self._start is None:
            raise MeterUnavailable("the phase was ended before it began")
        return host_readings(self._start, self._look())

    def _look(self) -> HostState:
        return HostState.from_status(self._status.read_text())


def host_readings(start: HostState, end: HostState) -> tuple[Reading, Reading]:
    """The two readings of a phase from the looks at its edges; ``end`` carries the peak of the resident set."""
    highest = end.highest_resident_bytes
    edges_bytes = max(start.anon_bytes, end.anon_bytes)
    low_bytes = max(highest - max(start.mapped_bytes, end.mapped_bytes), edges_bytes)
    high_bytes = max(highest - min(start.mapped_bytes, end.mapped_bytes), low_bytes)
    anon = Reading(
        meter="host_anon",
        quality=Quality.BOUNDED,
        start_bytes=start.anon_bytes,
        peak_bytes=low_bytes,
        peak_bound_bytes=high_bytes,
        end_bytes=end.anon_bytes,
    )
    rss = Reading(
        meter="host_rss",
        quality=Quality.EXACT,
        start_bytes=start.resident_bytes,
        # The kernel batches these counters per processor, so VmHWM can lag the edges by some pages.
        peak_bytes=max(highest, start.resident_bytes, end.resident_bytes),
        end_bytes=end.resident_bytes,
    )
    return anon, rss
