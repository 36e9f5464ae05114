"""What the judge says of a run directory while, and after, a session measures into it. Loads
pandas.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from harness.judge.advice import Asked
from harness.judge.comparison import load_against
from harness.judge.gate import Judgement, judge
from harness.judge.limits import Remeasure
from harness.judge.policy import SCHEMA_VERSION, Policy, parse_policy
from harness.judge.table import Run, RunReader, load_run
from harness.judge.verdict import Check, Verdict
from harness.meters import DEVICE_IN_USE
from harness.plugin.limits import REMEASURE
from harness.records import Point
from harness.remeasure import Offender, offenders
from harness.units import format_bytes
from harness.words import shortened

OF_SERIES = frozenset({"slope", "growth_class", "arithmetic"})
"""Rules over several points, which cannot be judged before all of them are there."""
NO_BASELINES = Path("/nonexistent")
"""Markers promise limits; a baseline is for the command line (python -m harness gate)."""
RUNS_OWN = "the markers"


def policy_of(run: Run) -> Policy:
    """What the markers of the session's tests promise, as run.json has it; an empty policy where
    they promise nothing.
    """
    if run.manifest.policy is None:
        return Policy(schema_version=SCHEMA_VERSION, remeasure=Remeasure(**REMEASURE)).called(
            RUNS_OWN
        )
    return parse_policy(run.manifest.policy, RUNS_OWN)


def judge_point(reader: RunReader, point: Point) -> tuple[list[Check], Offender | None]:
    """What does not hold of one point, while others are still to come; and how to measure it again,
    where that could settle it.
    """
    # the test itself has to fail, so that pytest can say that this was expected
    run = dataclasses.replace(reader.point(point.name), parked={})
    policy = policy_of(run)
    findings = judge(
        run, policy, NO_BASELINES, partial=True, asked=Asked(partial=True, by_pytest=True)
    ).verdict.findings
    own_findings = [
        check
        for check in findings
        if check.rule not in OF_SERIES and (check.point == point.name or check.meter)
    ]
    return own_findings, next(iter(offenders(run, policy, Verdict(tuple(own_findings)))), None)


def judge_session(directory: Path, *, partial: bool) -> tuple[Run, Judgement]:
    """The whole run directory, by what the markers promise. ``partial``: the user has left points
    out on purpose.
    """
    run = load_run(directory)
    asked = Asked(partial=partial, by_pytest=True)
    against = load_against(run, None)
    return run, judge(
        run, policy_of(run), NO_BASELINES, partial=partial, against=against, asked=asked
    )


MOST_NAME_BYTES = 80
"""Of a point in the table. Chosen: with the amounts beside it, a wide terminal."""
POINT_COLUMNS = ("point", "phase", "meter", "growth", "spread", "start", "peak", "end")


def point_rows(run: Run) -> Iterator[tuple[str, ...]]:
    """The least of the repeats for every point, phase and meter that some rule is about, and of the
    device in any case.
    """
    policy = policy_of(run)
    meters = {DEVICE_IN_USE, *(meter for _, rule in policy.rules() for meter in rule.meters)}
    readable = run.phases[
        run.phases["meter"].isin(sorted(meters)) & run.phases["growth_bytes"].notna()
    ]
    for (point, phase, meter), own in readable.groupby(["point", "phase", "meter"], sort=False):
        spread = int(own["growth_bytes"].max() - own["growth_bytes"].min())
        least = [int(own[f"{field}_bytes"].min()) for field in ("growth", "start", "peak", "end")]
        yield (
            shortened(str(point), MOST_NAME_BYTES),
            str(phase),
            str(meter),
            *(format_bytes(amount) for amount in (least[0], spread, *least[1:])),
        )
