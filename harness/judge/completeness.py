"""Is the run whole? What is missing has a sentence; an empty answer is what makes a run fit to be judged or accepted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from harness.judge.rows import RunKey
from harness.judge.table import Run
from harness.records import Outcome, Point

UNMEASURED = frozenset({Outcome.CRASHED, Outcome.EXITED, Outcome.ERROR, Outcome.SKIPPED})
"""Outcomes that say nothing about memory: the run could not be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How one run ended."""

    outcome: Outcome
    reason: str
    phase: str | None
    """The phase that it died in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What each run of a run directory has, by point and repeat."""

    ends: Mapping[RunKey, End]
    entered: Mapping[RunKey, frozenset[str]]
    finished: Mapping[RunKey, frozenset[str]]


def take_census(run: Run) -> Census:
    """Count what is there, once."""
    ends = {
        (row["point"], row["repeat"]): End(
            outcome=Outcome(row["outcome"]), reason=row["reason"], phase=row["phase"] if isinstance(row["phase"], str) else None
        )
        for row in run.ends.to_dict("records")
    }
    named = run.phases[run.phases["phase"].notna()]
    return Census(ends=ends, entered=_phases_by_run(named), finished=_phases_by_run(named[named["finished"]]))


def missing_from_run(run: Run) -> Iterator[str]:
    """What the run as a whole lacks: its plan, its end, rows that could be used."""
    if not run.points:
        yield "the run planned no point at all; choose points that exist (pytest scenarios --collect-only lists them)"
    if run.manifest.ended is None:
        yield "the run has no end: it was broken off, or is still going; wait for it, or measure again"
    yield from run.problems


def missing_from_point(census: Census, point: Point, repeat: int) -> Iterator[str]:
    """What one run of a point lacks: its end, or phases that it must have gone through."""
    run = (point.name, repeat)
    end = census.ends.get(run)
    if end is None:
        yield "it was planned but has no end row: it was skipped, lost or never started; measure again"
        return
    finished = census.finished.get(run, frozenset())
    absent = [phase for phase in _owed_phases(point, end) if phase not in finished]
    if absent:
        how = "ended ok" if end.outcome is Outcome.OK else f"ended {end.outcome} in {end.phase}"
        yield f"it {how}, but {', '.join(absent)} was not measured to the end; measure again"
    strangers = sorted(census.entered.get(run, frozenset()) - set(point.phases))
    if strangers:
        yield f"it measured {', '.join(strangers)}, which its scenario does not list; add the phase to the scenario"


def _owed_phases(point: Point, end: End) -> tuple[str, ...]:
    """Every phase of a run that ended well; of one that died in a phase, those before it."""
    if end.outcome is Outcome.OK:
        return point.phases
    return point.phases[: point.phases.index(end.phase)] if end.phase in point.phases else ()


def _phases_by_run(phases: pd.DataFrame) -> dict[RunKey, frozenset[str]]:
    found: dict[RunKey, set[str]] = {}
    for point, repeat, phase in zip(phases["point"], phases["repeat"], phases["phase"], strict=True):
        found.setdefault((point, repeat), set()).add(phase)
    return {run: frozenset(names) for run, names in found.items()}
