"""Amounts that every single run has to stay below (budget), or to reach so that anything was seen at all (floor)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
    "net_peak": "peaks, over what there was before the run's first phase, at",
    "net_end": "ends, over what there was before the run's first phase, with",
}
_ADVICE = {
    "start": "find what is allocated before {phase} begins, outside of every phase",
    "net_peak": "find what is alive at the peak of {phase}",
    "net_end": "find what still holds a reference when {phase} ends",
    "peak": "find what is alive at the peak of {phase}",
    "growth": "find what {phase} allocates",
    "end": "find what still holds a reference when {phase} ends",
    "retained": "find what {phase} leaves behind",
}
TRACED_METER = "device_in_use"
"""The meter whose bytes the traces of a run explain."""


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
        rule: str,
        sentence: str,
        *,
        finding: FindingKind | None = None,
        measured: float | None = None,
        limit: float | None = None,
        decision: str = "",
    ) -> Check:
        """What a rule concludes about it; a finding that was measured against a limit may be noise."""
        subject = point_place(self.point, self.phase, meter_words(self.meter))
        return Check(
            rule=rule,
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
            decision=decision,
            remeasure=finding is not None and measured is not None,
        )


def check_budgets(evidence: Evidence) -> Iterator[Check]:
    """The worst repeat decides; of a point that was measured again, most of them. Above the limit is a regression.

    A phase that no run finished has no check: its outcome and coverage say why.
    """
    for place in _places(evidence):
        if place.rule.at_most is not None:
            yield _check_budget(evidence, place)


def check_floors(evidence: Evidence) -> Iterator[Check]:
    """A phase that stays below what it cannot do without was not seen by its meter: incomplete, never frugal."""
    for place in _places(evidence):
        if place.rule.at_least is not None:
            yield _check_floor(evidence, place)


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


def _check_budget(evidence: Evidence, place: _Place) -> Check:
    limit, declared = place.rule.at_most, evidence.declared_by(place.point)
    assert limit is not None  # noqa: S101 - the caller has looked
    limit_bytes, worst = limit.in_bytes(declared), max(place.amounts)
    if limit_bytes is None:
        return place.check("budget", f"{limit.gap(declared)}.", finding=FindingKind.INCOMPLETE)
    found = (
        f"{_NOUNS[place.rule.field]} {format_bytes(worst)}, limit {limit.in_words(declared)} "
        f"(worst of {runs_in_words(place.amounts)})"
    )
    decision = _decide(evidence, place, [amount > limit_bytes for amount in place.amounts], "lie over it")
    if not decision.stands:
        return place.check(
            "budget", f"{_told(found, decision)}.", measured=float(worst), limit=limit_bytes, decision=decision.words
        )
    over = f"{found}: {round(worst - limit_bytes):,} B over it"
    advice = f"{_ADVICE[place.rule.field].format(phase=place.phase)}; the limit is {place.name}"
    return place.check(
        "budget",
        f"{_told('; '.join([over, *_attribution(evidence, place, worst)]), decision)}. To do: {advice}.",
        finding=FindingKind.REGRESSION,
        measured=float(worst),
        limit=limit_bytes,
        decision=decision.words,
    )


def _check_floor(evidence: Evidence, place: _Place) -> Check:
    limit, declared = place.rule.at_least, evidence.declared_by(place.point)
    assert limit is not None  # noqa: S101 - the caller has looked
    limit_bytes, worst = limit.in_bytes(declared), min(place.amounts)
    if limit_bytes is None:
        return place.check("floor", f"{limit.gap(declared)}.", finding=FindingKind.INCOMPLETE)
    found = (
        f"{_NOUNS[place.rule.field]} {format_bytes(worst)}, at least {limit.in_words(declared)} "
        f"(least of {runs_in_words(place.amounts)})"
    )
    decision = _decide(evidence, place, [amount < limit_bytes for amount in place.amounts], "fall short of it")
    if not decision.stands:
        return place.check("floor", f"{_told(found, decision)}.", measured=float(worst), limit=limit_bytes, decision=decision.words)
    short = f"{found}: {round(limit_bytes - worst):,} B short of it, so the meter did not see what the phase needs"
    advice = f"feed memory that the allocator counts (a copy, not an alias of a numpy array); the limit is {place.name}"
    return place.check(
        "floor",
        f"{_told(short, decision)}. To do: {advice}.",
        finding=FindingKind.INCOMPLETE,
        measured=float(worst),
        limit=limit_bytes,
        decision=decision.words,
    )


def _decide(evidence: Evidence, place: _Place, votes: list[bool], shown: str) -> Decision:
    return decide(votes, first=any(votes), remeasured=evidence.was_remeasured(place.point.name), shown=shown)


def _told(found: str, decision: Decision) -> str:
    return "; ".join(part for part in (found, decision.words) if part)


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
