"""Amounts that every single run has to stay below, or to reach."""

from collections.abc import Iterator

from harness.judge.policy import BudgetRule
from harness.judge.rules.evidence import Evidence, meter_words, point_place, repeats_in_words
from harness.judge.verdict import Check, FindingKind
from harness.records import Point
from harness.units import format_bytes

RULE = "budget"
_NOUNS = {"peak": "peaks at", "end": "ends with", "growth": "grows by", "retained": "keeps"}


def check_budgets(evidence: Evidence) -> Iterator[Check]:
    """The worst repeat decides. Above the limit is a regression; below ``at_least`` the meter has missed something.

    A phase that no run finished has no check: its outcome and coverage say why.
    """
    for rule in evidence.policy.budget:
        for point in evidence.run.points:
            if rule.matches(point):
                for phase in rule.phases_of(point):
                    for meter in rule.meters:
                        yield from _check_budget(evidence, rule, point, phase, meter)


def _check_budget(evidence: Evidence, rule: BudgetRule, point: Point, phase: str, meter: str) -> Iterator[Check]:
    amounts = evidence.amounts.get((point.name, phase, meter, rule.field))
    if not amounts:
        return
    declared = evidence.declared(point, phase, meter)
    for limit, sign in ((rule.at_most, 1), (rule.at_least, -1)):
        if limit is None:
            continue
        limit_bytes = limit.in_bytes(declared)
        worst = max(amounts) if sign > 0 else min(amounts)
        bound = f"{'limit' if sign > 0 else 'at least'} {limit.in_words(declared)}"
        found = f"{_NOUNS[rule.field]} {format_bytes(worst)}, {bound} ({repeats_in_words(amounts)})"
        finding: FindingKind | None = None
        if limit_bytes is None:
            finding = FindingKind.INCOMPLETE
            sentence = f"the body did not declare {limit.of}, which the limit {limit.text} is a multiple of; call memory.declare()"
        elif sign * (worst - limit_bytes) <= 0:
            sentence = f"{found}."
        elif sign > 0:
            finding, sentence = FindingKind.REGRESSION, f"{found}: {round(worst - limit_bytes):,} B over it."
        else:
            finding = FindingKind.INCOMPLETE
            sentence = f"{found}: {round(limit_bytes - worst):,} B short of it, so the meter did not see what the phase needs."
        subject = point_place(point, phase, meter_words(meter))
        yield Check(
            rule=RULE,
            subject=subject,
            sentence=f"{subject}: {sentence}",
            finding=finding,
            scenario=point.scenario,
            point=point.name,
            phase=phase,
            meter=meter,
            measured=float(worst),
            limit=limit_bytes,
            unit="B",
            because=rule.because,
        )
