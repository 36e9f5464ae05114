"""Is the run whole? What is missing has a sentence; an empty answer is what makes a run fit to be
judged or accepted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.judge.advice import Commands
from harness.judge.table import Run
from harness.meters import NVML_DEVICE_USED
from harness.records import Outcome, Point
from harness.rundir.reading import RunKey
from harness.rundir.resume import owed_phases

UNMEASURED = frozenset({Outcome.CRASHED, Outcome.EXITED, Outcome.ERROR, Outcome.SKIPPED})
"""Outcomes that say nothing about memory: the run could not be measured."""


OF_THE_CARD = NVML_DEVICE_USED
"""Read by one of two queries of the driver, of which the older counts what the driver keeps for
itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How one run ended."""

    outcome: Outcome
    reason: str
    phase: str | None
    """The phase that it died in."""
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What each run of a run directory has, by point and repeat."""

    first_repeats: Mapping[str, int]
    """By point: how many repeats were planned; those beyond were announced because of findings."""
    ends: Mapping[RunKey, End]
    entered: Mapping[RunKey, tuple[str, ...]]
    """In their order."""
    finished: Mapping[RunKey, frozenset[str]]
    contended: Mapping[RunKey, frozenset[str]]
    """Who else used the device during the run, by what its readings say; only runs that were not
    alone."""


def take_census(run: Run) -> Census:
    """Count what is there, once."""
    ends = {
        (end.point, end.repeat): End(
            outcome=end.outcome, reason=end.reason, phase=end.phase, cause=end.cause
        )
        for end in run.run_ends
    }
    entered: dict[RunKey, dict[str, None]] = {}
    finished: dict[RunKey, set[str]] = {}
    contended: dict[RunKey, set[str]] = {}
    for row in run.rows:  # of each run in the order of its phases
        if row.phase is None:
            continue
        entered.setdefault(row.run, {})[row.phase] = None
        if row.finished:
            finished.setdefault(row.run, set()).add(row.phase)
        if row.reading is not None and row.reading.contended:
            contended.setdefault(row.run, set()).add(row.reading.contended)

    return Census(
        first_repeats={point.name: run.first_repeats_of(point.name) for point in run.points},
        ends=ends,
        entered={run_key: tuple(phases) for run_key, phases in entered.items()},
        finished={run_key: frozenset(phases) for run_key, phases in finished.items()},
        contended={run_key: frozenset(others) for run_key, others in contended.items()},
    )


def missing_from_run(run: Run, commands: Commands | None = None) -> Iterator[str]:
    """What the run as a whole lacks: a point, its end, rows that could be used, tests that have
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
            "started, failed before its body was, or never calls memory_run; mend the "
            "test, or deselect it"
        )
    read = [row.reading for row in run.rows if row.reading is not None]
    queries = sorted({one.source for one in read if one.meter == OF_THE_CARD and one.source})
    if len(queries) > 1:
        yield (
            f"{OF_THE_CARD} was read by {' and by '.join(queries)}, whose bytes must not be "
            "compared; measure with one driver"
        )


def missing_from_point(
    census: Census, point: Point, repeat: int, commands: Commands
) -> Iterator[str]:
    """What one run of a point lacks: its end, phases that it must have gone through, the device to
    itself.
    """
    run = (point.name, repeat)
    end = census.ends.get(run)
    if end is None and repeat >= census.first_repeats.get(point.name, repeat + 1):
        yield (
            "it was announced because of a finding and not measured; go on with: "
            f"{commands.gate('--remeasure')}"
        )
        return
    if end is None:
        yield (
            "no end of it was recorded: it was skipped, lost or never started; measure what is "
            f"missing with: {commands.resume()}"
        )
        return
    if not point.phases and end.outcome is Outcome.OK:
        yield (
            "its body ended without having entered a phase, so nothing was measured; put what is "
            'to be measured under memory.phase, as in: with memory.phase("load"): ...'
        )
        return
    finished = census.finished.get(run, frozenset())
    absent = [
        phase for phase in owed_phases(point, end.outcome, end.phase) if phase not in finished
    ]
    neighbours = sorted(census.contended.get(run, ()))
    if neighbours:
        yield (
            "it was not alone on the device, at its last attempt either: "
            f"{'; '.join(neighbours)}; measure again when it is free"
        )
    entered = census.entered.get(run, ())
    strangers = sorted(set(entered) - set(point.phases))
    if strangers:
        yield (
            f"it measured {', '.join(strangers)}, which its scenario does not list; add the "
            "phase to the scenario"
        )
    elif list(entered) != [phase for phase in point.phases if phase in entered]:
        yield (
            f"it went through its phases in the order {', '.join(entered)}, but "
            f"{point.scenario} has {', '.join(point.phases)}; amounts over what there was "
            "before the first phase would mean something else"
        )
    if absent:  # last of all: it ends with a command
        how = "ended ok" if end.outcome is Outcome.OK else f"ended {end.outcome} in {end.phase}"
        yield (
            f"it {how}, but {', '.join(absent)} was not measured to the end; a run of "
            f"{point.scenario} has to go through {', '.join(point.phases)}: mend the body, "
            f"or measure what is missing with: {commands.resume()}"
        )
