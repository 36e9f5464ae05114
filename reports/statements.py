"""Checks in words: one sentence with its numbers, its reason, and an id that links lead to."""

from dataclasses import dataclass

from harness.judge import Check
from harness.words import format_bytes

from .words import limit_in_words, plain, rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One check in words; the empty string where there is nothing to say."""

    kind: str
    """Kind of the finding, ``"holds"`` for a check that does."""
    rule: str
    sentence: str
    measured: str
    limit: str
    """With its side: ``"at most 5.2 MiB allowed"``."""
    because: str
    subject: str
    group: tuple[str, ...]
    """What checks that say nearly the same share: kind, rule, scenario, phase and meter."""
    id: str = ""
    """Of its element in the page; empty where nothing links to it."""


def statement(check: Check, anchor: str = "") -> Statement:
    """A check in words."""
    return Statement(
        kind="holds" if check.finding is None else plain(str(check.finding)),
        rule=plain(check.rule),
        sentence=check.sentence,
        measured=with_unit(check.measured, check.unit),
        limit=limit_in_words(with_unit(check.limit, check.unit), check.bound),
        because=check.because,
        subject=check.subject,
        group=(str(check.finding), check.rule, check.scenario, check.phase, check.meter),
        id=anchor,
    )


def with_unit(value: float | None, unit: str) -> str:
    """An amount as people read it: ``"5.2 MiB"``, ``"512 B/image"``; empty for none."""
    if value is None:
        return ""
    if unit == "B":
        return format_bytes(value)
    per = unit.removeprefix("B/")
    return rate(value, per) if per != unit else f"{value:,g} {unit}".strip()
