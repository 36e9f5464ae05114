"""Host memory of this process, from the kernel's own counters: looked at by the sampler, or,
without it, at the edges.

``host_anon``, RssAnon + RssShmem, is what the process itself allocated and holds, in private or in
shared memory, and what processes hold that it has started: the number
to gate. Its peak is bracketed (``harness.measure.host_watch`` says how, and what that takes for
granted). ``host_rss`` is the resident set with its peak, VmHWM; ``host_mapped`` the page cache that
is mapped into the process, RssFile, which the kernel can drop: part of host_rss, apart from
host_anon.

Not seen by ``host_anon``: a copy in a mapped file, whose pages count as RssFile; and what was
swapped out.
"""

import contextlib
import ctypes
import dataclasses
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.errors import MeterUnavailable
from harness.measure import (
    BeginHost,
    EndHost,
    HostSpan,
    MeterContext,
    OpenHost,
    SamplerLine,
    polled,
    read_at_edges,
)
from harness.measure.host_watch import HostWatch, begin_host, end_host
from harness.meters import HOST_ANON, HOST_MAPPED, HOST_PSS, HOST_RSS, HOST_USS
from harness.records import Quality, Reading
from harness.system.proc import (
    HostCounters,
    HostState,
    ProcCounters,
    amounts_of,
    descendants,
    dirty_and_shmem_bytes,
    sum_bytes,
)
from harness.words import count, format_bytes

# Memory of the processes that a body has started: they are part of what it takes, and no counter
# of its own has them. Looked at from outside of the phases, at their edges: what comes and goes
# within one is not seen. (RUSAGE_CHILDREN would not tell it either: its ru_maxrss has what the
# parent had when it forked.)


_ALL_CHILDREN = 0x40000000  # linux/wait.h, __WALL: whatever signal a child ends with


class Family(NamedTuple):
    """The processes that a process has started, and that have not ended."""

    number: int
    held_bytes: int
    """What they hold themselves, private (and written to) or shared."""


def family_of_this(proc: Path = Path("/proc")) -> Family:
    """The descendants of this process; nobody where there is no /proc."""
    if not _has_children():
        return Family(0, 0)
    found = descendants(proc=proc)
    return Family(len(found), dirty_and_shmem_bytes(found, proc))


def _has_children() -> bool:
    """Whether this process has started any that are not reaped yet: 1 us, where the lists of its
    threads' children in /proc take 10 us for each thread, and TensorFlow has dozens.
    """
    if sys.platform != "linux":
        return False  # nor is there a /proc to list them
    try:
        # Takes no notice of how they ended, so that whoever waits for them still learns it.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _ALL_CHILDREN)
    except ChildProcessError:
        return False
    return True


def with_family(anon: Reading, before: Family, after: Family) -> Reading:
    """``anon`` of a process together with the processes it has started, as they were at the edges
    of the phase.
    """
    if (
        not (before.number or after.number)
        or anon.start_bytes is None
        or anon.end_bytes is None
        or anon.peak_bytes is None
    ):
        return anon
    start_bytes, end_bytes = anon.start_bytes + before.held_bytes, anon.end_bytes + after.held_bytes
    throughout_bytes, most_bytes = sorted((before.held_bytes, after.held_bytes))
    peak_bytes = max(start_bytes, end_bytes, anon.peak_bytes + throughout_bytes)
    bound_bytes = (
        None
        if anon.peak_bound_bytes is None
        else max(peak_bytes, anon.peak_bound_bytes + most_bytes)
    )
    most = max(before.number, after.number)
    note = (
        f"with {count(most, 'process', 'processes')} that the body has started, as "
        "at the edges of the phase"
    )
    return dataclasses.replace(
        anon,
        start_bytes=start_bytes,
        peak_bytes=peak_bytes,
        end_bytes=end_bytes,
        peak_bound_bytes=bound_bytes,
        reason="; ".join(filter(None, [anon.reason, note])),
    )


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_THRESHOLD_BYTES = 128 * 1024
"""What glibc begins with for both (mallopt(3)); importing TensorFlow has it raise them to 64 and 32
MiB."""
_LONGEST_BLIND_S = 0.001
"""Chosen: less than half of a window. A reset usually follows its look within 10 us."""


class HostMeter:
    """``host_anon`` (the peak bounded from both sides), ``host_rss`` (exact) and ``host_mapped``
    (looked at).
    """

    names = (HOST_ANON, HOST_RSS, HOST_MAPPED)

    def __init__(
        self, context: MeterContext, *, counters: Callable[[], HostCounters] = ProcCounters
    ) -> None:
        self._sampler: SamplerLine | None = context.sampler
        self._without, self._note = context.without_sampler, context.sampler_note
        self._open_counters = counters
        self._counters: HostCounters | None = None
        self._tells_anon = True
        self._watch: HostWatch | None = None
        self._start: HostState | None = None
        self._family = Family(0, 0)

    def open(self) -> None:
        """Have the sampler watch this process, or read its files here. Raises MeterUnavailable when
        neither can.
        """
        _give_back_what_is_free()
        if self._sampler is not None:
            try:
                self._tells_anon = self._sampler.ask(OpenHost()).tells_anon
            except MeterUnavailable as reason:
                self._fall_back(str(reason))
        if self._tells_anon:
            try:
                self._counters = self._open_counters()
                self._counters.full_read()
                self._counters.reset_highest()
            except MeterUnavailable as reason:
                raise MeterUnavailable(f"{reason}; the sampler: {self._without}") from reason

    def begin(self) -> None:
        """Set VmHWM to what is resident now."""
        self._watch, self._family = None, family_of_this()
        if self._sampler is not None:
            try:
                self._start = self._sampler.ask(BeginHost())
            except MeterUnavailable as reason:
                self._fall_back(str(reason))
        if self._sampler is None and self._counters is not None:
            self._watch = begin_host(self._counters)

    def end(self) -> tuple[Reading, ...]:
        """The readings of the phase; the first is that of this process and of those it has
        started.
        """
        anon, *others = self._end_own()
        return with_family(anon, self._family, family_of_this()), *others

    def _end_own(self) -> tuple[Reading, ...]:
        if self._sampler is not None:
            try:
                span = self._sampler.ask(EndHost())
            except MeterUnavailable as reason:
                self._fall_back(str(reason))
                return self._edges_alone(str(reason))
            if not self._tells_anon:
                return resident_readings(span)
            return host_readings(span, source="VmHWM in windows, and faults", note=self._note)
        if self._counters is None:
            return tuple(Reading.unavailable(name, self._without) for name in self.names)
        if self._watch is None:
            raise MeterUnavailable("the phase was ended before it began")
        return host_readings(
            end_host(self._watch, self._counters),
            source=f"VmHWM and faults at the edges, without the sampler: {self._without}",
        )

    def _fall_back(self, reason: str) -> None:
        self._sampler, self._without = None, reason

    def _edges_alone(self, reason: str) -> tuple[Reading, ...]:
        """The sampler has gone in mid-phase, and with it what it has seen, since it has reset the
        kernel's peak as well.
        """
        if self._counters is None or self._start is None:
            return tuple(
                Reading.unavailable(name, f"{reason}, in mid-phase") for name in self.names
            )
        start, end = self._start, self._counters.full_read()
        edges = {
            HOST_ANON: (start.anon_bytes, end.anon_bytes),
            HOST_RSS: (start.resident_bytes, end.resident_bytes),
            HOST_MAPPED: (start.mapped_bytes, end.mapped_bytes),
        }
        return tuple(
            read_at_edges(
                name,
                start_bytes,
                end_bytes,
                source="the edges of the phase",
                reason=f"{reason}, in mid-phase; only its edges are known",
            )
            for name, (start_bytes, end_bytes) in edges.items()
        )


def _give_back_what_is_free() -> None:
    """Have malloc return what is free to the kernel, now and from here on, where it is glibc's.

    Pages that are free and still resident hide as much of whatever is allocated next: after the
    import of TensorFlow there are several MiB, and each array that was let go would leave up to 32
    MiB more.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)
        libc.malloc_trim(0)


def host_readings(
    span: HostSpan, *, source: str, note: str = ""
) -> tuple[Reading, Reading, Reading]:
    """The three readings of a phase."""
    blind = (
        f"the peak went unwatched for {span.blind_s * 1e3:.1f} ms"
        if span.blind_s > _LONGEST_BLIND_S
        else ""
    )
    source = f"{source}; the kernel's counters to {format_bytes(span.lag_bytes)}"
    anon = Reading(
        meter=HOST_ANON,
        quality=Quality.BOUNDED,
        start_bytes=span.start_anon_bytes,
        peak_bytes=span.low_anon_bytes,
        peak_bound_bytes=span.high_anon_bytes,
        end_bytes=span.end_anon_bytes,
        samples=span.samples,
        rate_hz=span.rate_hz,
        largest_gap_s=span.largest_gap_s,
        source=source,
        reason="; ".join(filter(None, [blind, note])),
    )
    rss = Reading(
        meter=HOST_RSS,
        quality=Quality.EXACT,
        start_bytes=span.start_resident_bytes,
        peak_bytes=span.highest_resident_bytes,
        end_bytes=span.end_resident_bytes,
        source=source,
        reason=blind,
    )
    mapped_bytes = (span.start_mapped_bytes, span.highest_mapped_bytes, span.end_mapped_bytes)
    return anon, rss, polled(HOST_MAPPED, span, mapped_bytes, source="RssFile")


def resident_readings(span: HostSpan) -> tuple[Reading, Reading, Reading]:
    """The readings where the system reports the resident set alone."""
    apart = (
        f"{sys.platform} reports the resident set alone, and does not separate the process's own "
        "memory from mapped files"
    )
    resident_bytes = (
        span.start_resident_bytes,
        span.highest_resident_bytes,
        span.end_resident_bytes,
    )
    why = "polled: the system keeps no peak that can be reset"
    return (
        Reading.unavailable(HOST_ANON, apart),
        polled(HOST_RSS, span, resident_bytes, source="psutil", reason=why),
        Reading.unavailable(HOST_MAPPED, apart),
    )


# Host memory of this process with its shared pages divided among those that share them: PSS and
# USS, at the edges of a phase. Read from /proc/self/smaps_rollup, which walks every page table:
# 16 to 40 ms at 512 MiB here. So it is for the traced run alone, begins first and ends last.
# What is read at the end of a phase is taken for the start of the next as well when this process
# has hardly faulted a page in or let one go in between (``_SAME_PAGES``): its own pages are the
# same ones then. (Another process that shares some of them may have come or gone; that moves PSS
# and USS without this one's doing, and is not asked for twice.) USS of a forked child grows as
# the pages that it has from its parent are written to, reference counts included.


_ROLLUP = Path("/proc/self/smaps_rollup")
_SHARES = {name: amounts_of(name) for name in ("Pss", "Private_Clean", "Private_Dirty")}
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
        lines = text.decode(errors="replace")
        found = {
            name: sum_bytes(lines, amounts)
            for name, amounts in _SHARES.items()
            if amounts.search(lines)
        }
        missing = sorted(_SHARES.keys() - found.keys())
        if missing:
            raise MeterUnavailable(f"{_ROLLUP} lacks {', '.join(missing)}")
        return cls(found["Pss"], found["Private_Clean"] + found["Private_Dirty"])


class SharesMeter:
    """``host_pss`` and ``host_uss``: exact at both edges, and nothing in between."""

    names = (HOST_PSS, HOST_USS)

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
        state: HostState = self._counters.full_read()
        return (
            usage.ru_minflt,
            usage.ru_majflt,
            *(amount_bytes // resource.getpagesize() for amount_bytes in state[:3]),
        )
