"""Is the run complete? What is missing has a sentence; only a run without any can be judged or
accepted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import RunDirectoryError
from harness.judge.advice import Commands
from harness.judge.table import Run
from harness.meters import DEVICE_IN_USE, NVML_DEVICE_USED
from harness.records import TRACES_FOLDER, Outcome, Point
from harness.rundir.reading import Repeats, Rows
from harness.rundir.resume import missing_phases
from harness.rundir.rows import RunEnd, RunKey
from harness.rundir.traces import OutOfMemory, Trace, read_trace
from harness.words import ALIVE, format_bytes, handed_out, largest_in_words, with_known_use

UNMEASURED = frozenset({Outcome.CRASHED, Outcome.EXITED, Outcome.ERROR, Outcome.SKIPPED})
"""Outcomes that say nothing about memory: the run could not be measured."""

OF_THE_CARD = NVML_DEVICE_USED
"""Read by one of two queries of the driver, of which the older counts what the driver keeps for
itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCounts:
    """What each run of a run directory has, by point and repeat."""

    repeats: Repeats
    """How many of each point were planned, and how many were announced because of findings."""
    ends: Mapping[RunKey, RunEnd]
    entered: Mapping[RunKey, tuple[str, ...]]
    """The phases that it came to, in their order."""
    finished: Mapping[RunKey, frozenset[str]]
    contended: Mapping[RunKey, frozenset[str]]
    """Who else used the device during the run, by what its readings say; only runs that were not
    alone."""


def count_runs(run: Run) -> RunCounts:
    """Count what is there, once."""
    rows = run.source
    entered: dict[RunKey, dict[str, int]] = {key: dict(begun) for key, begun in rows.begun.items()}
    finished: dict[RunKey, set[str]] = {}
    contended: dict[RunKey, set[str]] = {}

    for record in rows.phases.values():
        entered.setdefault(record.run, {})[record.phase] = record.index
        if record.finished:
            finished.setdefault(record.run, set()).add(record.phase)
        others = {reading.contended for reading in record.readings if reading.contended}
        if others:
            contended.setdefault(record.run, set()).update(others)

    return RunCounts(
        repeats=rows.repeats,
        ends=rows.ends,
        entered={key: _in_order(indices) for key, indices in entered.items()},
        finished={key: frozenset(phases) for key, phases in finished.items()},
        contended={key: frozenset(who) for key, who in contended.items()},
    )


def _in_order(indices: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(indices, key=lambda phase: (indices[phase], phase)))


def missing_from_run(run: Run, commands: Commands | None = None) -> Iterator[str]:
    """What the run itself lacks: a point, its end, rows that could be used, tests that have
    measured anything.

    ``commands`` are those that bring what is missing; None: with the arguments of nobody.
    """
    commands = commands or Commands.of(run.path, run.manifest)
    silent = [test for test in run.manifest.asked if test not in run.tests]
    if not run.points and not silent:
        yield (
            "the run planned no point at all; choose points that exist (pytest --collect-only "
            "lists them)"
        )

    if run.manifest.ended is None and run.manifest.remeasured:
        yield (
            "the run has no end: it was broken off while it was measured again, or still "
            f"is; wait for it, or go on with: {commands.gate('--remeasure')}"
        )
    elif run.manifest.ended is None:
        yield (
            "the run has no end: it was broken off, or is still going; wait for it, or "
            f"measure what is missing with: {commands.resume()}"
        )
    yield from run.problems

    for test in silent:
        yield (
            f"{test} takes memory_run and measured nothing: it was skipped or never "
            "started, failed before its body was, or never calls memory_run; fix the "
            "test, or deselect it"
        )
    yield from _different_queries(run.source)


def _different_queries(rows: Rows) -> Iterator[str]:
    readings = (reading for record in rows.phases.values() for reading in record.readings)
    queries = sorted({r.source for r in readings if r.meter == OF_THE_CARD and r.source})
    if len(queries) > 1:
        yield (
            f"{OF_THE_CARD} was read by {' and by '.join(queries)}, whose bytes must not be "
            "compared; measure with one driver"
        )


def missing_from_point(
    counts: RunCounts, point: Point, repeat: int, commands: Commands
) -> Iterator[str]:
    """What one run of a point lacks: its end, phases that it must have gone through, the device to
    itself.
    """
    run = (point.name, repeat)
    end = counts.ends.get(run)
    if end is None:
        yield _without_an_end(counts.repeats, point, repeat, commands)
        return
    if not point.phases and end.outcome is Outcome.OK:
        yield (
            "its body ended without having entered a phase, so nothing was measured; put what is "
            'to be measured under memory.phase, as in: with memory.phase("load"): ...'
        )
        return

    others = sorted(counts.contended.get(run, ()))
    if others:
        yield (
            "another process used the device, on the last attempt too: "
            f"{'; '.join(others)}; measure again when it is free"
        )
    yield from _unlike_its_scenario(point, counts.entered.get(run, ()))

    absent = missing_phases(point, end, counts.finished.get(run, frozenset()))
    if absent:  # last of all: it ends with a command
        how = "ended ok" if end.outcome is Outcome.OK else f"ended {end.outcome} in {end.phase}"
        yield (
            f"it {how}, but {', '.join(absent)} was not measured to the end; a run of "
            f"{point.scenario} has to go through {', '.join(point.phases)}: fix the body, "
            f"or measure what is missing with: {commands.resume()}"
        )


def _without_an_end(repeats: Repeats, point: Point, repeat: int, commands: Commands) -> str:
    if repeat >= repeats.first_of(point.name):
        return (
            "it was announced because of a finding and not measured; go on with: "
            f"{commands.gate('--remeasure')}"
        )
    return (
        "no end of it was recorded: it was skipped, lost or never started; measure what is "
        f"missing with: {commands.resume()}"
    )


def _unlike_its_scenario(point: Point, entered: tuple[str, ...]) -> Iterator[str]:
    """Phases that the scenario does not have, or has in another order."""
    unknown = sorted(set(entered) - set(point.phases))
    if unknown:
        yield (
            f"it measured {', '.join(unknown)}, which its scenario does not list; add the "
            "phase to the scenario"
        )
    elif list(entered) != [phase for phase in point.phases if phase in entered]:
        yield (
            f"it went through its phases in the order {', '.join(entered)}, but "
            f"{point.scenario} has {', '.join(point.phases)}; amounts over what there was "
            "before the first phase would mean something else"
        )


# The traces of a run: read and checked.


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
