"""The causes of a verdict as the page shows them: what, where, how much and since when, a plot with
the limit, what was alive, what to type, and what follows from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.judge import Check
from harness.judge.causes import AliveTensors, Cause, Command
from harness.judge.gate import Judgement
from harness.words import format_bytes

from .cause_panel import cause_panel
from .curves import Panel
from .data import anchors
from .header import capitalized
from .statements import Statement, statement
from .tables import Table
from .view import RunView
from .words import plain

MOST_FOLLOWING = 100
"""Checks that unfold below a cause. Chosen: nobody reads more; the table of checks has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseCard:
    """One cause; every text is plain."""

    id: str
    """Of its element: ``"cause-1c3e5a7b9d"``."""
    kind: str
    """Kind of its gravest finding, as the colours are called."""
    kind_words: str
    what: str
    where: str
    how_much: str
    since: str
    panel: Panel | None
    alive: Table | None
    commands: tuple[Command, ...]
    rule_place: str
    rule_text: str
    log_tail: tuple[str, ...]
    first: Statement
    """The check that says it best."""
    consequences: tuple[Statement, ...]
    follow: str
    """``"22 more findings follow from it"``; empty where none does."""
    left_out: int
    """Of these, those that there is no room for."""
    point: str


def cause_cards(view: RunView, judgement: Judgement) -> tuple[CauseCard, ...]:
    """A card for each cause, in their order."""
    ids = _ids(judgement)
    return tuple(
        _card(view, judgement, cause, number, ids)
        for number, cause in enumerate(judgement.causes, start=1)
    )


def other_findings(judgement: Judgement) -> tuple[Statement, ...]:
    """The findings that are in no cause, the gravest first: nothing that was found is left out."""
    told = {_key(check) for cause in judgement.causes for check in cause.checks}
    ids = _ids(judgement)
    return tuple(
        statement(check, ids(check))
        for check in judgement.verdict.findings
        if _key(check) not in told
    )


def _key(check: Check) -> tuple[object, ...]:
    return (check.rule, check.subject, check.sentence)


def _ids(judgement: Judgement) -> Callable[[Check], str]:
    """The anchor of a check of the judgement; of several that say the same each has its own."""
    checks = judgement.verdict.checks
    left: dict[tuple[object, ...], list[str]] = {}
    for check, anchor in zip(checks, anchors(checks), strict=True):
        left.setdefault(_key(check), []).append(anchor)

    def take(check: Check) -> str:
        found = left.get(_key(check))
        return found.pop(0) if found else ""

    return take


def _card(
    view: RunView,
    judgement: Judgement,
    cause: Cause,
    number: int,
    ids: Callable[[Check], str],
) -> CauseCard:
    first, *others = cause.checks
    return CauseCard(
        id=f"cause-{cause.id}",
        kind=str(cause.finding),
        kind_words=plain(str(cause.finding)),
        what=capitalized(cause),
        where=cause.where,
        how_much=cause.how_much,
        since=cause.since,
        panel=cause_panel(view, judgement, cause, f"cause-plot-{number}"),
        alive=_alive(cause.alive, cause.point, cause.phase),
        commands=cause.commands,
        rule_place=cause.rule_place,
        rule_text=cause.rule_text,
        log_tail=cause.log_tail,
        first=statement(first, ids(first)),
        consequences=tuple(statement(check, ids(check)) for check in others[:MOST_FOLLOWING]),
        left_out=max(0, len(others) - MOST_FOLLOWING),
        follow=cause.following,
        point=cause.point,
    )


def _alive(alive: Sequence[AliveTensors], point: str, phase: str) -> Table | None:
    if not alive:
        return None
    return Table(
        caption=f"Largest tensors alive at the peak of {plain(phase)}, {point}",
        columns=("tensors", "operation", "together", "as large as"),
        rows=tuple(
            (
                f"{each.count:,} x {each.dtype} {_shape(each.shape)}",
                each.operation,
                format_bytes(each.nbytes),
                each.declared or "nothing declared",
            )
            for each in alive
        ),
        amounts=frozenset({"together"}),
    )


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(f'{size:,}' for size in shape)})" if shape else "scalar"
