"""Host memory of this process, from the kernel's own counters: looked at by the sampler, or,
without it, at the edges.

``host_anon``, RssAnon + RssShmem, is what the process itself allocated and holds, in private or in
shared memory, and what processes hold that it has started (``harness.measure.family``): the number
to gate. Its peak is bracketed (``harness.measure.host_watch`` says how, and what that takes for
granted). ``host_rss`` is the resident set with its peak, VmHWM; ``host_mapped`` the page cache that
is mapped into the process, RssFile, which the kernel can drop: part of host_rss, apart from
host_anon.

Not seen by ``host_anon``: a copy in a mapped file, whose pages count as RssFile; and what was
swapped out.
"""

import contextlib
import ctypes
import sys
from collections.abc import Callable

from harness.errors import MeterUnavailable
from harness.measure.family import Family, family_of_this, with_family
from harness.measure.host_watch import HostSpan, HostWatch, begin_host, end_host
from harness.measure.meter import MeterContext, polled, read_at_edges
from harness.measure.samplerline import SamplerLine
from harness.records import Quality, Reading
from harness.system.proc import HostCounters, HostState, ProcCounters
from harness.units import format_bytes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_THRESHOLD_BYTES = 128 * 1024
"""What glibc begins with for both (mallopt(3)); importing TensorFlow has it raise them to 64 and 32
MiB."""
_LONGEST_BLIND_S = 0.001
"""Chosen: half of a window. A reset usually follows its look within 10 us."""


class HostMeter:
    """``host_anon`` (the peak bounded from both sides), ``host_rss`` (exact) and ``host_mapped``
    (looked at).
    """

    names = ("host_anon", "host_rss", "host_mapped")

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
                self._tells_anon = bool(self._sampler.ask({"open": "host"})["tells_anon"])
            except MeterUnavailable as reason:
                self._fall_back(str(reason))
        if self._tells_anon:
            try:
                self._counters = self._open_counters()
                self._counters.look()
                self._counters.reset_highest()
            except MeterUnavailable as reason:
                raise MeterUnavailable(f"{reason}; the sampler: {self._without}") from reason

    def begin(self) -> None:
        """Set VmHWM to what is resident now."""
        self._watch, self._family = None, family_of_this()
        if self._sampler is not None:
            try:
                self._start = HostState(**self._sampler.ask({"begin": "host"}))
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
                span = HostSpan(**self._sampler.ask({"end": "host"}))
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
        start, end = self._start, self._counters.look()
        edges = {
            "host_anon": (start.anon_bytes, end.anon_bytes),
            "host_rss": (start.resident_bytes, end.resident_bytes),
            "host_mapped": (start.mapped_bytes, end.mapped_bytes),
        }
        return tuple(
            read_at_edges(
                name,
                start_bytes,
                end_bytes,
                source="the edges of the phase",
                reason=f"{reason}, in mid-phase; what is left are its edges",
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
        f"for {span.blind_s * 1e3:.1f} ms on end the peak was not watched"
        if span.blind_s > _LONGEST_BLIND_S
        else ""
    )
    source = f"{source}; the kernel's counters to {format_bytes(span.lag_bytes)}"
    anon = Reading(
        meter="host_anon",
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
        meter="host_rss",
        quality=Quality.EXACT,
        start_bytes=span.start_resident_bytes,
        peak_bytes=span.highest_resident_bytes,
        end_bytes=span.end_resident_bytes,
        source=source,
        reason=blind,
    )
    mapped_bytes = (span.start_mapped_bytes, span.highest_mapped_bytes, span.end_mapped_bytes)
    return anon, rss, polled("host_mapped", span, mapped_bytes, source="RssFile")


def resident_readings(span: HostSpan) -> tuple[Reading, Reading, Reading]:
    """The readings where the system tells the resident set alone."""
    apart = (
        f"{sys.platform} tells the resident set alone, not what is the process's own and what "
        "is mapped from files"
    )
    resident_bytes = (
        span.start_resident_bytes,
        span.highest_resident_bytes,
        span.end_resident_bytes,
    )
    why = "polled: the system keeps no peak that can be reset"
    return (
        Reading.unavailable("host_anon", apart),
        polled("host_rss", span, resident_bytes, source="psutil", reason=why),
        Reading.unavailable("host_mapped", apart),
    )
