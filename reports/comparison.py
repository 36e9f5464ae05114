"""What moved: every amount that was compared with an earlier one, the largest moves first."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.judge import Check
from harness.words import count, format_bytes

from .tables import Table

MOST_MOVES = 15
"""Chosen: a table that is read without scrolling; phases.csv has all amounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The amounts of a run beside earlier ones."""

    sentence: str
    """How many there are, and how many of them moved."""
    moves: Table | None
    """Those that moved most, in parts of their tolerance; None when none did."""


def comparison_of(checks: Iterable[Check]) -> Comparison:
    """Compare what the checks that know an earlier amount have measured."""
    compared = [
        check for check in checks if check.earlier is not None and check.measured is not None
    ]
    if not compared:
        return Comparison(sentence="No amount was compared with an earlier one.", moves=None)
    origins = sorted({check.earlier_from for check in compared})
    origin = (
        origins[0]
        if len(origins) == 1
        else f"{origins[0]}, and {count(len(origins) - 1, 'other origin')}"
    )
    moved = [check for check in compared if _change(check)]
    beyond = sum(check.finding is not None or check.better for check in moved)
    sentence = (
        f"{count(len(compared), 'amount')} compared with those {origin}: {beyond:,} moved "
        f"beyond tolerance, {len(moved) - beyond:,} within it, "
        f"{len(compared) - len(moved):,} not by a byte."
    )
    return Comparison(sentence=sentence, moves=_table(moved) if moved else None)


def _table(moved: list[Check]) -> Table:
    """One row for each phase, meter and amount of a series: the point of it that moved most."""
    series: dict[tuple[str, ...], list[Check]] = {}
    for check in sorted(moved, key=lambda check: (-_parts_of_tolerance(check), check.subject)):
        series.setdefault(
            tuple(part for part in check.subject.split(" / ") if "=" not in part), []
        ).append(check)
    shown = list(series.values())[:MOST_MOVES]
    largest = (
        "Amounts that moved"
        if len(shown) == len(series)
        else f"The {len(shown)} of {len(series):,} amounts that moved most"
    )
    return Table(
        caption=f"{largest}, each at the point where it did most, in order of their share of the "
        "tolerance",
        columns=(
            "where",
            "amount",
            "now",
            "then",
            "change",
            "in %",
            "tolerance",
            "points",
            "finding",
        ),
        rows=tuple(_row(checks[0], len(checks)) for checks in shown),
        amounts=frozenset({"now", "then", "change", "in %", "tolerance", "points"}),
    )


def _row(check: Check, points: int) -> tuple[str, ...]:
    earlier = check.earlier or 0.0
    change = _change(check)
    where, _, what = check.subject.rpartition(" / ")
    return (
        where,
        what,
        format_bytes(round(check.measured or 0.0)),
        format_bytes(round(earlier)),
        f"{round(change):+,} B",
        f"{100 * change / earlier:+,.1f} %" if earlier else "from 0 B",
        format_bytes(round(_tolerance(check))),
        f"{points:,}",
        "better" if check.better else str(check.finding or "").replace("_", " "),
    )


def _change(check: Check) -> float:
    return (check.measured or 0.0) - (check.earlier or 0.0)


def _tolerance(check: Check) -> float:
    return 0.0 if check.limit is None else abs(check.limit - (check.earlier or 0.0))


def _parts_of_tolerance(check: Check) -> float:
    return abs(_change(check)) / max(_tolerance(check), 1.0)
