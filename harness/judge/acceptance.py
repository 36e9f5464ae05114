"""Whether a run may become a baseline: what ``accept`` would refuse, found before a sentence
advises it.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import BaselineError
from harness.judge.advice import LESS_ON_PURPOSE, REASON, Commands, stopped
from harness.judge.baseline import (
    BaselinePoint,
    Recorded,
    from_run,
    gaps_of,
)
from harness.judge.limits import Tolerance
from harness.judge.policy import Policy
from harness.judge.table import Run
from harness.judge.verdict import Check, FindingKind, RuleName
from harness.meters import GATED_METERS, WITNESS_METERS
from harness.units import format_bytes

_AT_FIELD = {"growth": "", "net_start": " when it begins"}
_FORBIDDING = frozenset({FindingKind.REGRESSION, FindingKind.FAILED, FindingKind.INCOMPLETE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One reason why a run cannot become a baseline."""

    place: str
    """What it is about, in a few words."""
    sentence: str


def broken_limits(
    checks: Sequence[Check], chosen: Collection[str] | None = None
) -> Iterator[Obstacle]:
    """What the policy itself forbids or could not see; distance from the earlier baseline is what
    accepting is about.

    With ``chosen`` only what concerns these points.
    """
    for check in checks:
        concerned = (
            chosen is None or not check.points or any(name in chosen for name in check.points)
        )
        if concerned and check.finding in _FORBIDDING and check.rule != RuleName.BASELINE:
            yield Obstacle(place=check.subject, sentence=check.sentence)


def unsteady(points: Mapping[str, BaselinePoint], run: Run, policy: Policy) -> Iterator[Obstacle]:
    """A baseline of repeats that differ by more than the tolerance would be a matter of luck."""
    scenarios = {point.name: point.scenario for point in run.points}
    for name, point in points.items():
        for phase, meters in point.phase.items():
            for tolerance in policy.tolerances(scenarios[name], phase):
                for field in [
                    field
                    for field in _AT_FIELD
                    if field in tolerance.fields and tolerance.meter in meters
                ]:
                    place = f"{name} / {phase} / {tolerance.meter}"
                    yield from _unsteady_amount(place, field, meters[tolerance.meter], tolerance)


def _unsteady_amount(
    place: str, field: str, recorded: Recorded, tolerance: Tolerance
) -> Iterator[Obstacle]:
    amount_bytes, spread_bytes = (
        getattr(recorded, f"{field}_bytes"),
        getattr(recorded, f"{field}_spread_bytes"),
    )
    allowed_bytes = max(amount_bytes * tolerance.percent / 100, tolerance.floor)
    if spread_bytes > allowed_bytes:
        sentence = (
            f"{place}: its repeats differ by "
            f"{format_bytes(spread_bytes)}{_AT_FIELD[field]}, tolerance "
            f"{format_bytes(allowed_bytes)}; measure again on a quieter machine"
        )
        yield Obstacle(place=place, sentence=sentence)


def gated_meters(policy: Policy) -> tuple[str, ...]:
    """The meters that a baseline keeps."""
    return tuple(
        dict.fromkeys(
            [*GATED_METERS, *WITNESS_METERS, *(tolerance.meter for tolerance in policy.tolerance)]
        )
    )


def with_possible_advice(
    checks: Sequence[Check], run: Run, policy: Policy, commands: Commands
) -> tuple[Check, ...]:
    """The same checks; where they advise to accept the run and ``accept`` would refuse it, they say
    what comes first.
    """
    advised = re.compile(
        re.escape(accept_words(commands.accept()).removesuffix(f" {REASON}"))
        + f"(?: --[a-z-]+)*? {re.escape(REASON)}"
    )
    if not any(advised.search(check.sentence) for check in checks):
        return tuple(checks)
    found = list(_obstacles(checks, run, policy))
    if not found:
        return tuple(checks)
    count = f"{len(found)} reasons, the first: " if len(found) > 1 else ""
    # The place may end with a command, so that nothing is put after it.
    first = (
        "deal first with what keeps this run from becoming a baseline: "
        f"{count}{found[0].place.rstrip('.')}"
    )
    return tuple(
        dataclasses.replace(check, sentence=stopped(advised.sub(lambda _: first, check.sentence)))
        if advised.search(check.sentence)
        else check
        for check in checks
    )


def accept_words(command: str) -> str:
    """How every sentence advises it."""
    return f"accept it with: {command}"


def _obstacles(checks: Sequence[Check], run: Run, policy: Policy) -> Iterator[Obstacle]:
    # What is missing on purpose is no obstacle: accept asks about it itself (--keep-others,
    # --forget-others).
    judged = [check for check in checks if LESS_ON_PURPOSE not in check.sentence]
    limits = list(broken_limits(judged))
    yield from limits
    gaps = list(gaps_of(run))
    if not limits:
        yield from (Obstacle(place=gap, sentence=gap) for gap in gaps)
    if gaps:
        return
    try:
        points = from_run(
            run, reason="asked beforehand", accepted="", meters=gated_meters(policy)
        ).point
    except BaselineError as error:
        yield Obstacle(place=str(error), sentence=str(error))
    else:
        yield from unsteady(points, run, policy)
