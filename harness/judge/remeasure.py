"""Which points of a judgement should be measured again: those of findings that may be noise, once,
within a bound of time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.judge.policy import Policy
from harness.judge.table import Run
from harness.judge.verdict import Check, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Offender:
    """A point to be measured again."""

    point: str
    repeats: int
    """How many further runs, numbered after those that there are."""
    reason: str
    """The sentence of its first finding, and how many more there are."""

    def row(self) -> dict[str, str | int]:
        """What announces it in rows.jsonl; without this row its further repeats are refused."""
        return {
            "kind": "remeasure",
            "point": self.point,
            "repeats": self.repeats,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Offenders:
    """What is measured again, and which findings stand as they are because that would have taken
    too long.
    """

    points: tuple[Offender, ...]
    left: tuple[Check, ...] = ()


def offenders(run: Run, policy: Policy, verdict: Verdict) -> tuple[Offender, ...]:
    """As ``find_offenders``, without the findings that are left."""
    return find_offenders(run, policy, verdict).points


def find_offenders(run: Run, policy: Policy, verdict: Verdict) -> Offenders:
    """The points of every finding that measuring again could settle, in the order of the run's
    points.

    None where the policy does not ask for it. A point is measured again once: whatever it shows
    then, a quorum has decided. All points of a finding are, or none, for a line needs all of its
    sizes. Those of the gravest finding always are; together with those of further findings they
    take no longer than the run itself has: more is hardly noise, and a finding that is left stands
    as it is.
    """
    if policy.remeasure is None:
        return Offenders(points=())
    costs_s = _seconds_each(run)
    left_s = sum(float(seconds) for seconds in run.ends["duration_s"].dropna()) + sum(
        t.duration_s for t in run.traces.values()
    )
    reasons: dict[str, list[str]] = {}
    left = []
    for check in verdict.findings:
        if not check.remeasure:
            continue
        new = [name for name in check.points if name not in reasons and not run.further.get(name)]
        needed_s = policy.remeasure.repeats * sum(costs_s.get(name, 0.0) for name in new)
        if needed_s > left_s and reasons:
            left.append(check)
            continue
        left_s -= needed_s
        for point in check.points:
            reasons.setdefault(point, []).append(check.sentence)
    again = [
        point.name
        for point in run.points
        if point.name in reasons and not run.further.get(point.name)
    ]
    found = tuple(
        Offender(point=name, repeats=policy.remeasure.repeats, reason=_reason(reasons[name]))
        for name in again
    )
    return Offenders(points=found, left=tuple(left))


def _seconds_each(run: Run) -> Mapping[str, float]:
    """How long one run of each point has taken, on the average of its repeats."""
    return {
        str(name): float(seconds)
        for name, seconds in run.ends.groupby("point")["duration_s"].mean().items()
    }


def _reason(sentences: list[str]) -> str:
    first, *others = sentences
    more = (
        f" ({len(others)} more {'finding' if len(others) == 1 else 'findings'})" if others else ""
    )
    return f"{first}{more}"
