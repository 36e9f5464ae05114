"""Is the run complete? What is missing has a sentence; only a run without any can be judged or
accepted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.judge.advice import Commands
from harness.judge.table import Run
from harness.meters import NVML_DEVICE_USED
from harness.records import Outcome, Point
from harness.rundir.reading import Repeats, Rows
from harness.rundir.resume import missing_phases
from harness.rundir.rows import RunEnd, RunKey

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
