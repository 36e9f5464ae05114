"""What the NVIDIA driver reports to the sampler: bytes in use on the whole card, and by one
process.

Shown beside the allocator's numbers, not gated: the card's number includes every other process, and
the pool that TensorFlow holds. NVML keeps no peak but one, that of a process since its start, where
an administrator has switched accounting on; so the card is polled, and the list of processes is
read at the edges of the phase alone.
"""

import time

from harness.errors import MeterUnavailable
from harness.measure import (
    Answer,
    BeginCard,
    CardBegun,
    CardOpened,
    CardPhase,
    CardSpan,
    Edge,
    EndCard,
    MeterContext,
    OpenCard,
    Request,
    SamplerLine,
    polled,
    read_at_edges,
)
from harness.measure.host_watch import Pace
from harness.meters import NVML_ACCOUNTING_PEAK, NVML_DEVICE_USED, NVML_PROCESS
from harness.records import Quality, Reading
from harness.system.nvml import Card, CardProcess, neighbours_among, process_bytes


class NvmlMeter:
    """``nvml_device_used`` (polled), ``nvml_process`` (at the edges) and ``nvml_accounting_peak``
    (the driver's own).
    """

    names = (NVML_DEVICE_USED, NVML_PROCESS, NVML_ACCOUNTING_PEAK)

    def __init__(self, context: MeterContext) -> None:
        self._uuid: str | None = context.device["uuid"]
        self._without = context.without_sampler
        self._sampler: SamplerLine | None = context.sampler
        self._source = ""
        self._failed = ""

    def open(self) -> None:
        """Have the sampler open the card. Raises MeterUnavailable with NVML's own words."""
        if self._uuid is None:
            raise MeterUnavailable("the device is emulated on the CPU; there is no card to ask")
        if self._sampler is None:
            raise MeterUnavailable(
                f"NVML is asked by the sampler alone, and there is none: {self._without}"
            )
        self._source = self._sampler.ask(OpenCard(uuid=self._uuid)).source

    def begin(self) -> None:
        """Start polling; a card that is lost now is reported at the end of the phase."""
        self._failed = ""
        try:
            self._ask(BeginCard())
        except MeterUnavailable as reason:
            self._failed = f"{reason}, at the start of the phase"

    def end(self) -> tuple[Reading, ...]:
        """What was seen; a lost card becomes an unavailable reading, not an error of the body."""
        if not self._failed:
            try:
                return card_readings(self._ask(EndCard()), source=self._source)
            except MeterUnavailable as reason:
                self._failed = str(reason)
        return tuple(Reading.unavailable(name, self._failed) for name in self.names)

    def _ask(self, request: Request[Answer]) -> Answer:
        assert self._sampler is not None  # noqa: S101 - open() has refused otherwise
        return self._sampler.ask(request)


def card_readings(phase: CardPhase, *, source: str) -> tuple[Reading, Reading, Reading]:
    """The readings of a phase."""
    span, edges = phase.span, (phase.start, phase.end)
    unknown = next((edge.others_unknown for edge in edges if edge.others_unknown), "")
    device = polled(
        NVML_DEVICE_USED,
        span,
        (span.start_bytes, span.peak_bytes, span.end_bytes),
        source=source,
        contended="; ".join(dict.fromkeys(edge.others for edge in edges if edge.others)),
        reason=f"whether others use the card is unknown: {unknown}" if unknown else "",
    )
    process = _process_reading(phase)
    return device, process, _accounted_reading(phase, process)


def _process_reading(phase: CardPhase) -> Reading:
    start_bytes, end_bytes = phase.start.process_bytes, phase.end.process_bytes
    if start_bytes is None or end_bytes is None:
        return Reading.unavailable(NVML_PROCESS, phase.start.not_listed or phase.end.not_listed)
    return read_at_edges(
        NVML_PROCESS,
        start_bytes,
        end_bytes,
        largest_gap_s=phase.span.duration_s,
        source="the list of processes",
        reason="read at the edges of the phase alone: the list takes milliseconds under a lock of "
        "the driver",
    )


def _accounted_reading(phase: CardPhase, process: Reading) -> Reading:
    """The highest that the process ever had, as the driver keeps it from the process's start on.

    It was reached in this phase if it has risen in it, and is then exact. If it has not, it was
    reached before, and bounds the phase from above.
    """
    name = NVML_ACCOUNTING_PEAK
    before_bytes, after_bytes = phase.start.accounted_bytes, phase.end.accounted_bytes
    if before_bytes is None or after_bytes is None:
        return Reading.unavailable(name, phase.end.not_accounted or phase.start.not_accounted)
    if process.start_bytes is None or process.peak_bytes is None:
        return Reading.unavailable(
            name,
            f"its highest is {after_bytes:,} B, but in which phase is unknown: {process.reason}",
        )
    has_risen = after_bytes > before_bytes
    highest_bytes = max(after_bytes, process.peak_bytes)
    return Reading(
        meter=name,
        quality=Quality.EXACT if has_risen else Quality.BOUNDED,
        start_bytes=process.start_bytes,
        peak_bytes=highest_bytes if has_risen else process.peak_bytes,
        peak_bound_bytes=None if has_risen else highest_bytes,
        end_bytes=process.end_bytes,
        source="accounting, since the start of the process",
        reason=""
        if has_risen
        else "its highest was reached before this phase, which it therefore only bounds",
    )


# The card as one child of the sampler sees it: bytes in use all the time, the processes on it at
# the edges of a phase. The list of processes takes milliseconds under a lock of the driver, so
# it is never asked for while a phase runs.


class CardWatch:
    """Gathers one ``CardSpan``."""

    def __init__(self, used_bytes: int, now_s: float) -> None:
        self.pace = Pace(now_s)
        self._start_bytes = self._peak_bytes = self._last_bytes = used_bytes

    def see(self, used_bytes: int, now_s: float) -> None:
        """So many bytes were in use."""
        self.pace.count(now_s)
        self._last_bytes = used_bytes
        if used_bytes > self._peak_bytes:  # noqa: PLR1730 - a call of max costs more
            self._peak_bytes = used_bytes

    def close(self) -> CardSpan:
        """The span up to the last look."""
        return CardSpan(
            start_bytes=self._start_bytes,
            peak_bytes=self._peak_bytes,
            end_bytes=self._last_bytes,
            samples=self.pace.samples,
            rate_hz=self.pace.rate_hz,
            largest_gap_s=self.pace.largest_gap_s,
            duration_s=self.pace.duration_s,
        )


class CardView:
    """Watches one card for one process."""

    def __init__(self, uuid: str, process: int) -> None:
        """Open the card. Raises MeterUnavailable with the driver's words."""
        self._process = process
        self._card = Card.open(uuid)
        self._used_bytes = self._card.quick()
        self._watch: CardWatch | None = None
        self._start = Edge()

    @property
    def opened(self) -> CardOpened:
        """What the card can tell."""
        return CardOpened(source=self._card.source)

    @property
    def is_open(self) -> bool:
        """Whether a phase is open."""
        return self._watch is not None

    def begin(self) -> CardBegun:
        """Note who and how much is there."""
        self._start = self._edge()
        used_bytes = self._card.used_bytes()
        self._watch = CardWatch(used_bytes, time.monotonic())
        return CardBegun(used_bytes=used_bytes)

    def look(self, now_s: float) -> None:
        """One look. One without an answer leaves a gap, and a card that is lost is reported at the
        end of the phase.
        """
        used_bytes = self._used_bytes()
        if used_bytes is not None and self._watch is not None:
            self._watch.see(used_bytes, now_s)

    def end(self) -> CardPhase:
        """What was seen. Raises MeterUnavailable when the card is lost."""
        watch, self._watch = self._watch, None
        if watch is None:
            raise MeterUnavailable("the phase was ended before it began")
        watch.see(self._card.used_bytes(), time.monotonic())
        return CardPhase(span=watch.close(), start=self._start, end=self._edge())

    def close(self) -> None:
        """Let go of the card."""
        self._card.close()

    def _edge(self) -> Edge:
        accounted_bytes, not_accounted = self._accounted()
        try:
            found = self._card.processes()
        except MeterUnavailable as reason:
            return Edge(
                not_listed=str(reason),
                others_unknown=str(reason),
                accounted_bytes=accounted_bytes,
                not_accounted=not_accounted,
            )
        own_bytes, not_listed = self._own(found)
        neighbours = neighbours_among(found, {self._process})
        return Edge(
            process_bytes=own_bytes,
            not_listed=not_listed,
            others=str(neighbours),
            others_unknown=neighbours.unknown,
            accounted_bytes=accounted_bytes,
            not_accounted=not_accounted,
        )

    def _own(self, found: list[CardProcess]) -> tuple[int | None, str]:
        try:
            return process_bytes(found, self._process), ""
        except MeterUnavailable as reason:
            return None, str(reason)

    def _accounted(self) -> tuple[int | None, str]:
        try:
            return self._card.accounting_peak_bytes(self._process), ""
        except MeterUnavailable as reason:
            return None, str(reason)
