"""Host memory of this process with its shared pages divided among those that share them: PSS and
USS, at the edges of a phase.

Read from /proc/self/smaps_rollup, which walks every page table: 16 to 40 ms at 512 MiB here. So it
is for the traced run alone, begins first and ends last. What is read at the end of a phase is taken
for the start of the next as well when this process has hardly faulted a page in or let one go in
between (``_SAME_PAGES``): its own pages are the same ones then. (Another process that shares some
of them may have come or gone; that moves PSS and USS without this one's doing, and is not asked for
twice.)

USS of a forked child grows as the pages that it has from its parent are written to, reference
counts included.
"""

import re
import resource
from pathlib import Path
from typing import NamedTuple

from harness.errors import MeterUnavailable
from harness.measure.meter import MeterContext, read_at_edges
from harness.records import Reading
from harness.system.proc import HostState, ProcCounters

_ROLLUP = Path("/proc/self/smaps_rollup")
_FIELD = re.compile(rb"^(Pss|Private_Clean|Private_Dirty):\s+(\d+) kB$", re.MULTILINE)
_KIB = 1024  # /proc prints kibibytes and calls them kB (proc_pid_smaps(5))
_SAME_PAGES = 64
"""Chosen: 256 KiB, a quarter of what host memory is exact to. The harness itself faults in some
tens of pages between two phases, and each further look would cost a traced run more than its trace
does."""
_REASON = "read at the edges of the phase alone: it takes tens of milliseconds"


class Shares(NamedTuple):
    """One look at smaps_rollup, in bytes."""

    pss_bytes: int
    """Every resident page, divided by how many processes have it mapped."""
    uss_bytes: int
    """The pages that nobody else has mapped: Private_Clean + Private_Dirty."""

    @classmethod
    def from_rollup(cls, text: bytes) -> "Shares":
        """Parse /proc/PID/smaps_rollup. Raises MeterUnavailable when an amount is missing."""
        found = {name.decode(): int(kib) * _KIB for name, kib in _FIELD.findall(text)}
        missing = sorted({"Pss", "Private_Clean", "Private_Dirty"} - found.keys())
        if missing:
            raise MeterUnavailable(f"{_ROLLUP} lacks {', '.join(missing)}")
        return cls(found["Pss"], found["Private_Clean"] + found["Private_Dirty"])


class SharesMeter:
    """``host_pss`` and ``host_uss``: exact at both edges, and nothing in between."""

    names = ("host_pss", "host_uss")

    def __init__(self, context: MeterContext, *, rollup: Path = _ROLLUP) -> None:
        del context  # this process is the same on every device
        self._rollup = rollup
        self._counters: ProcCounters | None = None
        self._start: Shares | None = None
        self._last: tuple[Shares, tuple[int, ...]] | None = None

    def open(self) -> None:
        """Read once. Raises MeterUnavailable where the kernel has no such file (Linux 4.14)."""
        self._counters = ProcCounters()
        try:
            self._look()
        except OSError as error:
            raise MeterUnavailable(f"needs Linux's {self._rollup}: {error}") from error

    def begin(self) -> None:
        """Note the start of a phase, read again only if more than some pages have come or gone
        since the last look.
        """
        self._start = (
            self._look() if self._last is None or self._has_moved(self._last[1]) else self._last[0]
        )

    def end(self) -> tuple[Reading, ...]:
        """Both amounts at both edges."""
        if self._start is None:
            raise MeterUnavailable("the phase was ended before it began")
        end = self._look()
        return tuple(
            read_at_edges(name, start_bytes, end_bytes, source="smaps_rollup", reason=_REASON)
            for name, start_bytes, end_bytes in zip(self.names, self._start, end, strict=True)
        )

    def _look(self) -> Shares:
        shares = Shares.from_rollup(self._rollup.read_bytes())
        self._last = shares, self._pages()
        return shares

    def _has_moved(self, before: tuple[int, ...]) -> bool:
        return any(
            abs(now - then) > _SAME_PAGES for now, then in zip(self._pages(), before, strict=True)
        )

    def _pages(self) -> tuple[int, ...]:
        """What is different once a page of this process has come or gone: its faults, and what is
        resident. In pages.
        """
        assert self._counters is not None  # noqa: S101 - open() has set it
        usage = resource.getrusage(resource.RUSAGE_SELF)
        state: HostState = self._counters.look()
        return (
            usage.ru_minflt,
            usage.ru_majflt,
            *(amount_bytes // resource.getpagesize() for amount_bytes in state[:3]),
        )
