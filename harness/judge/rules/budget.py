"""Amounts that every single run has to stay below (budget), or to reach so that anything was seen at all (floor)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judge.amount import Amount
from harness.judge.attribution import alive_at_peak, as_multiple
from harness.judge.limits import BudgetRule
from harness.judge.rules.evidence import Evidence, limit_place, meter_words, point_place, runs_in_words, seen
from harness.judge.rules.quorum import Decision, decide
from harness.judge.verdict import Check, FindingKind
from harness.records import Point
from harness.units import format_bytes

_NOUNS = {
    "start": "begins with",
    "peak": "peaks at",
    "end": "ends with",
    "growth": "grows by",
    "retained": "keeps",
    "net_start": "begins, over what there was before the run's first phase, with",
    "net_peak": "peaks, over what there was before the run's first phase, at",
    "net_end": "ends, over what there was before the run's first phase, with",
}
_ADVICE = {
    "start": "find what is allocated before {phase} begins, outside of every phase",
    "net_start": "find what the phases before {phase} keep",
    "net_peak": "find what is alive at the peak of {phase}",
    "net_end": "find what still holds a reference when {phase} ends",
    "peak": "find what is alive at the peak of {phase}",
    "growth": "find what {phase} allocates",
    "end": "find what still holds a reference when {phase} ends",
    "retained": "find what {phase} leaves behind",
}
TRACED_METER = "device_in_use"
"""The meter whose bytes the traces of a run explain."""


_UNDECIDED = Decision(stands=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One direction of a limit: what is beyond it, and in which words."""

    rule: str
    finding: FindingKind
    sign: int
    """1 where more is beyond the limit, -1 where less is."""
    limit: str
    which: str
    shown: str
    beyond: str
    advice: str
    """What to do; empty where that depends on the field."""

    def worst(self, amounts: Sequence[int]) -> int:
        """The amount that lies furthest beyond the limit."""
        return max(amounts) if self.sign > 0 else min(amounts)


_BUDGET = _Side(
    rule="budget",
    finding=FindingKind.REGRESSION,
    sign=1,
    limit="limit",
    which="worst",
    shown="lie over it",
    beyond="over it",
    advice="",
)
_FLOOR = _Side(
    rule="floor",
    finding=FindingKind.INCOMPLETE,
    sign=-1,
    limit="at least",
    which="least",
    shown="fall short of it",
    beyond="short of it, so the meter did not see what the phase needs",
    advice="feed memory that the allocator counts (a copy, not an alias of a numpy array)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One phase of one point that a rule is about, and what was read there."""

    name: str
    rule: BudgetRule
    point: Point
    phase: str
    meter: str
    readings: Mapping[int, int]

    @property
    def amounts(self) -> tuple[int, ...]:
        return tuple(self.readings.values())

    def check(
        self,
        side: _Side,
        sentence: str,
        *,
        finding: FindingKind | None,
        measured: float | None = None,
        limit: float | None = None,
        decision: Decision = _UNDECIDED,
    ) -> Check:
        """What a rule concludes about it."""
        subject = point_place(self.point, self.phase, meter_words(self.meter))
        return Check(
            rule=side.rule,
            subject=subject,
            sentence=f"{subject}: {sentence}",
            scenario=self.point.scenario,
            point=self.point.name,
            phase=self.phase,
            meter=self.meter,
            unit="B",
            because=self.rule.because,
            points=(self.point.name,),
            readings=seen(self.point, self.readings),
            finding=finding,
            measured=measured,
            limit=limit,
            decision=decision.words,
            remeasure=decision.may_be_noise,
        )


def check_budgets(evidence: Evidence) -> Iterator[Check]:
    """The worst repeat decides; of a point that was measured again, most of them. Above the limit is a regression.

    A phase that no run finished has no check: its outcome and coverage say why.
    """
    for place in _places(evidence):
        if place.rule.at_most is not None:
            yield _check(evidence, place, place.rule.at_most, _BUDGET)


def check_floors(evidence: Evidence) -> Iterator[Check]:
    """A phase that stays below what it cannot do without was not seen by its meter: incomplete, never frugal."""
    for place in _places(evidence):
        if place.rule.at_least is not None:
            yield _check(evidence, place, place.rule.at_least, _FLOOR)


def _places(evidence: Evidence) -> Iterator[_Place]:
    for name, rule in evidence.policy.rules():
        if not isinstance(rule, BudgetRule):
            continue
        for point in evidence.run.points:
            for phase in rule.phases_of(point) if rule.matches(point) else ():
                for meter in rule.meters:
                    readings = evidence.readings.get((point.name, phase, meter, rule.field))
                    if readings:
                        yield _Place(
                            name=limit_place(evidence.policy, name, rule.because),
                            rule=rule,
                            point=point,
                            phase=phase,
                            meter=meter,
                            readings=readings,
                        )


def _check(evidence: Evidence, place: _Place, limit: Amount, side: _Side) -> Check:
    declared = evidence.declared_by(place.point)
    limit_bytes, worst = limit.in_bytes(declared), side.worst(place.amounts)
    if limit_bytes is None:
        return place.check(side, f"{limit.gap(declared)}.", finding=FindingKind.INCOMPLETE)
    found = (
        f"{_NOUNS[place.rule.field]} {format_bytes(worst)}, {side.limit} {limit.in_words(declared)} "
        f"({side.which} of {runs_in_words(place.amounts)})"
    )
    excess = [side.sign * (amount - limit_bytes) for amount in place.amounts]
    decision = decide(excess, first=max(excess) > 0, remeasured=evidence.was_remeasured(place.point.name), shown=side.shown)
    finding = None
    sentence = f"{_joined([found, decision.words])}."
    if decision.stands:
        finding = side.finding
        beyond = f"{found}: {round(max(excess)):,} B {side.beyond}"
        grown = [] if side is _FLOOR else list(_attribution(evidence, place, worst))
        advice = side.advice or _ADVICE[place.rule.field].format(phase=place.phase)
        sentence = f"{_joined([beyond, *grown, decision.words])}. To do: {advice}; the limit is {place.name}."
    return place.check(side, sentence, finding=finding, measured=float(worst), limit=limit_bytes, decision=decision)


def _joined(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part)


def _attribution(evidence: Evidence, place: _Place, worst: int) -> Iterator[str]:
    """What it is as large as, and, where it is a peak of the device, what was alive then."""
    declared = evidence.declared_by(place.point)
    like = as_multiple(worst, {name: float(amount) for name, amount in declared.items()})
    if like:
        yield f"that is {like}"
    if place.meter == TRACED_METER and place.rule.field in ("peak", "net_peak", "growth"):
        alive = alive_at_peak(evidence.traces(), (place.point,), place.phase)
        if alive:
            yield alive
