"""Which points of a judgement should be measured again: those of findings that may be noise, once."""

from dataclasses import dataclass

from harness.judge.policy import Policy
from harness.judge.table import Run
from harness.judge.verdict import Verdict


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
        return {"kind": "remeasure", "point": self.point, "repeats": self.repeats, "reason": self.reason}


def offenders(run: Run, policy: Policy, verdict: Verdict) -> tuple[Offender, ...]:
    """The points of every finding that measuring again could settle, in the order of the plan.

    None where the policy does not ask for it. A point is measured again once: whatever it shows then, a quorum has decided.
    """
    if policy.remeasure is None:
        return ()
    reasons: dict[str, list[str]] = {}
    for check in verdict.findings:
        if check.remeasure:
            for point in check.points:
                reasons.setdefault(point, []).append(check.sentence)
    again = [point.name for point in run.points if point.name in reasons and not run.further.get(point.name)]
    return tuple(Offender(point=name, repeats=policy.remeasure.repeats, reason=_reason(reasons[name])) for name in again)


def _reason(sentences: list[str]) -> str:
    first, *others = sentences
    more = f" ({len(others)} more {'finding' if len(others) == 1 else 'findings'})" if others else ""
    return f"{first}{more}"
