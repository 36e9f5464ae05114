"""The traces of a run: read and checked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import RunDirectoryError
from harness.judge.table import Run
from harness.meters import DEVICE_IN_USE
from harness.records import TRACES_FOLDER
from harness.rundir.traces import OutOfMemory, Trace, read_trace
from harness.units import format_bytes
from harness.words import (
    ALIVE,
    handed_out,
    largest_in_words,
    with_known_use,
)


@dataclass(frozen=True, slots=True)
class Traces:
    """All traces of a run that can be read, by point, in the order of the plan; and why there is
    none of the others.
    """

    found: Mapping[str, Trace]
    absent: Mapping[str, str]
    """By point: the reason, as a clause."""

    @property
    def notes(self) -> Iterator[str]:
        """``"No trace of POINT, because ..."``, one for each reason."""
        by_reason: dict[str, list[str]] = {}
        for point, reason in self.absent.items():
            by_reason.setdefault(reason, []).append(point)
        for reason, points in by_reason.items():
            yield f"No trace of {', '.join(points)}, because {reason}"


def read_traces(run: Run) -> Traces:
    """Every trace of the run; a run that planned none has none, and none is missed."""
    found: dict[str, Trace] = {}
    absent: dict[str, str] = {}
    if not run.manifest.settings.get("traces"):
        return Traces(found, absent)
    for point in run.points:
        end = run.traces.get(point.name)
        if end is None and not point.traced:
            continue
        if end is None:
            absent[point.name] = "its traced run has no end: it was broken off, or left out"
        elif end.file is None:
            absent[point.name] = end.reason or "its child reported nothing about it"
        else:
            try:
                found[point.name] = read_trace(run.path / TRACES_FOLDER / end.file, point.name)
            except RunDirectoryError as error:
                absent[point.name] = str(error)
    return Traces(found, absent)


# Traces in sentences: what was recorded, what ran out, and whether it agrees with the
# allocator's own peaks.


ROUNDING_BYTES = 1024
"""Chosen: four of BFC's smallest chunks (256 B, kMinAllocationSize in bfc_allocator.h). Whether the
shape argument of an operation is still kept when a phase begins differs from process to process by
one or two of them."""


def agreement(trace: Trace, run: Run) -> str:
    """Whether the trace agrees with the allocator's own peaks of the untraced repeats, in one
    sentence.

    A peak agrees within the repeats' own spread and
    ``ROUNDING_BYTES``.
    """
    peaks = _untraced_peaks(run, trace.point)
    compared = [phase for phase in trace.phases if phase.finished and phase.phase in peaks]
    if not compared:
        return (
            "No untraced repeat read the allocator's peak in a phase of this trace, so the two "
            "cannot be compared."
        )
    apart = [
        phase for phase in compared if not _agrees(phase.allocator.peak_bytes, peaks[phase.phase])
    ]
    if not apart:
        largest_bytes = max(
            _distance(phase.allocator.peak_bytes, peaks[phase.phase]) for phase in compared
        )
        return (
            "The trace and the allocator's own peak in the untraced repeats agree in all "
            f"{len(compared)} "
            f"phases{f' within {largest_bytes:,} B' if largest_bytes else ' to the byte'}."
        )
    apart_in_words = [
        f"{phase.phase.replace('_', ' ')} peaked at "
        f"{format_bytes(phase.allocator.peak_bytes)} when traced, at "
        f"{_range(peaks[phase.phase])} when not"
        for phase in apart
    ]
    return (
        f"The traced run was another one in {len(apart)} of {len(compared)} phases: "
        f"{'; '.join(apart_in_words)}."
    )


def recording_in_words(trace: Trace) -> str:
    """How much was recorded, and everything in it that did not fit, in one sentence."""
    counts = trace.counts
    from_before = "deallocations of what was there before (left out of the requested bytes)"
    odd = {
        from_before: counts.from_before,
        "events put in order by the allocator's own count": counts.reordered,
        "gaps in the allocator's count (something was not recorded)": counts.jumps,
        "allocations where something lay still": counts.overwritten,
        "deallocations of another size than was allocated": counts.resized,
        **{
            f"events of {name} (left out)": number
            for name, number in counts.other_allocators.items()
        },
    }
    misfits = [f"{number:,} {words}" for words, number in odd.items() if number]
    return (
        f"{counts.allocations:,} allocations and {counts.deallocations:,} deallocations of "
        f"{trace.allocator} on {trace.device}, on top of {format_bytes(trace.base_bytes)} "
        f"from before; {', '.join(misfits) or 'every one of them fits'}."
    )


def refusal_in_words(refused: OutOfMemory, limit_bytes: int | None, *, reason: str = "") -> str:
    """What was asked for when memory ran out, and what there was, in one sentence; ``limit_bytes``
    is the device's size.

    ``reason`` is how the traced run ended; of a refused copy, which the error does not size, its
    log may have it.
    """
    where = f" in {refused.phase.replace('_', ' ')}" if refused.phase else ""
    alive = f"; {largest_alive(refused)}" if refused.alive else ""
    in_use = f"with {format_bytes(refused.allocator_bytes)} in use"
    if refused.asked_bytes is None and reason:
        return f"Memory ran out{where}: {reason.partition('; ')[0]}, {in_use}{alive}."
    asked = "an amount that the error does not tell"
    if refused.asked_bytes is not None:
        like = f" ({refused.like})" if refused.like else ""
        asked = f"{format_bytes(refused.asked_bytes)}{like} for {refused.dtype} {refused.shape}"
    full = (
        ""
        if refused.asked_bytes is None
        else handed_out(refused.asked_bytes, refused.allocator_bytes, limit_bytes)
    )
    return f"Memory ran out{where}: {asked} was asked for {in_use}{full}{alive}."


def largest_alive(refused: OutOfMemory) -> str:
    """``"the largest that were alive: A; B; and 12 others, 3.0 KiB together"``, of what was live
    when memory ran out.
    """
    return f"{ALIVE}{largest_in_words([one.counted for one in refused.alive])}"


def alive_when_refused(trace: Trace | None) -> str:
    """What the traced run of a point adds to the reason of a run that ran out of the device's
    memory, as a clause.
    """
    if trace is None:
        return "what was alive is unknown, as there is no trace of this point"
    refused = trace.out_of_memory
    if refused is None:
        return "what was alive is unknown, as the traced run did not run out of memory"
    return (
        f"in the traced run {largest_alive(refused)}"
        if refused.alive
        else "in the traced run nothing was alive then"
    )


def with_what_is_known(reason: str, trace: Trace | None) -> str:
    """The reason of a run that ran out of the device's memory, with how much was in use where the
    traced run knows it.
    """
    refused = None if trace is None else trace.out_of_memory
    return reason if refused is None else with_known_use(reason, refused.allocator_bytes)


def _untraced_peaks(run: Run, point: str) -> dict[str, list[int]]:
    """By phase, in bytes, of all repeats that finished it."""
    found: dict[str, list[int]] = {}
    for row in run.rows:
        reading = row.reading
        if reading is None or reading.meter != DEVICE_IN_USE or reading.peak_bytes is None:
            continue
        if row.finished and row.phase is not None and row.run[0] == point:
            found.setdefault(row.phase, []).append(reading.peak_bytes)
    return found


def _distance(peak_bytes: int, others: Sequence[int]) -> int:
    """How far outside the range of the others it lies."""
    return max(min(others) - peak_bytes, peak_bytes - max(others), 0)


def _agrees(peak_bytes: int, others: Sequence[int]) -> bool:
    return _distance(peak_bytes, others) <= ROUNDING_BYTES


def _range(amounts: Sequence[int]) -> str:
    low, high = format_bytes(min(amounts)), format_bytes(max(amounts))
    return low if low == high else f"{low} to {high}"
