"""What the judge says of a run directory while, and after, a session measures into it. Loads pandas."""

import dataclasses
from pathlib import Path

from harness.judge.gate import Judgement, judge
from harness.judge.policy import SCHEMA_VERSION, Policy, parse_policy
from harness.judge.table import Run, load_run
from harness.judge.verdict import Check
from harness.records import Point

OF_SERIES = frozenset({"slope", "growth_class", "arithmetic"})
"""Rules over several points, which cannot be judged before all of them are there."""
NO_BASELINES = Path("/nonexistent")
"""Markers promise limits; a baseline is for the command line (python -m harness gate)."""
RUNS_OWN = "the markers"


def policy_of(run: Run) -> Policy:
    """What the markers of the session's tests promise, as run.json has it; an empty policy where they promise nothing."""
    if run.manifest.policy is None:
        return Policy(schema_version=SCHEMA_VERSION).called(RUNS_OWN)
    return parse_policy(run.manifest.policy, RUNS_OWN)


def findings_of_point(directory: Path, point: Point) -> list[Check]:
    """What does not hold of one point, while others are still to come."""
    run = load_run(directory)
    own = tuple(one for one in run.points if one.name == point.name)
    alone = dataclasses.replace(
        run,
        points=own,
        phases=run.phases[run.phases["point"] == point.name],
        ends=run.ends[run.ends["point"] == point.name],
        problems=(),
    )
    findings = judge(alone, policy_of(run), NO_BASELINES, partial=True).verdict.findings
    return [check for check in findings if check.rule not in OF_SERIES and (check.point == point.name or check.meter)]


def judge_session(directory: Path, *, partial: bool) -> tuple[Run, Judgement]:
    """The whole run directory, by what the markers promise. ``partial``: the user has left points out on purpose."""
    run = load_run(directory)
    return run, judge(run, policy_of(run), NO_BASELINES, partial=partial)
