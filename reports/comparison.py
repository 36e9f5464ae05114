"""What moved: every amount that was compared with an earlier one, the largest moves first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.judge import Check
from harness.rundir.manifest import Manifest
from harness.words import count, format_bytes

from .tables import Table
from .words import plain

MOST_MOVES = 15
"""Chosen: a table that is read without scrolling; phases.csv has all amounts."""
_MOST_PERCENT = 1000
"""Chosen: beyond it a multiple is easier to take in."""
MOST_SHOWN = 40
"""Rows of each table of the page. Chosen: more are for the table of all checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One row: an amount now and then."""

    cells: tuple[str, ...]
    """As the columns of ``COLUMNS``."""
    share: float
    """How much of its tolerance the change takes; above 1 beyond it."""
    is_worse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The amounts of a run beside earlier ones."""

    sentence: str
    """How many there are, and how many of them moved."""
    moves: Table | None
    """Those that moved most, in parts of their tolerance; None when none did."""
    worse: tuple[Move, ...] = ()
    """Of these, what takes more than before, beyond its tolerance."""
    others: tuple[Move, ...] = ()
    """What takes less, or no more than tolerance allows."""
    differences: tuple[tuple[str, str, str], ...] = ()
    """Where the two runs were measured differently: what, now, then."""


COLUMNS = (
    "where",
    "amount",
    "now",
    "then",
    "change",
    "in %",
    "tolerance",
    "of tolerance",
    "points",
    "finding",
)


def comparison_of(
    checks: Iterable[Check], *, now: Manifest | None = None, then: Manifest | None = None
) -> Comparison:
    """Compare what the checks that know an earlier amount have measured, and where two runs were
    measured.
    """
    compared = [
        check for check in checks if check.earlier is not None and check.measured is not None
    ]
    differences = tuple(_differences(now, then)) if now and then else ()
    if not compared:
        return Comparison(
            sentence="No amount was compared with an earlier one.",
            moves=None,
            differences=differences,
        )
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
    series = _series(moved)
    rows = [_move(checks[0], len(checks)) for checks in series]
    return Comparison(
        sentence=sentence,
        moves=_table(series) if moved else None,
        worse=tuple(row for row in rows if row.is_worse)[:MOST_SHOWN],
        others=tuple(row for row in rows if not row.is_worse)[:MOST_SHOWN],
        differences=differences,
    )


def _differences(now: Manifest, then: Manifest) -> Iterator[tuple[str, str, str]]:
    """What run.json says otherwise of the other run; which code it is stands in the header."""
    mine, others = _recorded(now), _recorded(then)
    for name in dict.fromkeys([*mine, *others]):
        if mine.get(name) != others.get(name):
            said = [str(side.get(name, "not recorded")) for side in (mine, others)]
            yield plain(name), said[0], said[1]


def _recorded(manifest: Manifest) -> dict[str, object]:
    environment = {
        name: value
        for name, value in manifest.environment.items()
        if not name.startswith("git_") and name != "ci_url"
    }
    device = {f"device {name}": value for name, value in manifest.device.model_dump().items()}
    code = manifest.code
    contents = (
        {}
        if code is None
        else {f"code of {name}": _short(each) for name, each in code.content.items()}
    )
    return {**environment, **device, **contents}


def _short(checksum: str) -> str:
    return checksum[:12]


def _series(moved: list[Check]) -> list[list[Check]]:
    """The checks of each phase, meter and amount of a series, the point that moved most first."""
    series: dict[tuple[str, ...], list[Check]] = {}
    for check in sorted(moved, key=lambda check: (-_parts_of_tolerance(check), check.subject)):
        series.setdefault(
            tuple(part for part in check.subject.split(" / ") if "=" not in part), []
        ).append(check)
    return list(series.values())


def _table(series: list[list[Check]]) -> Table:
    """One row for each phase, meter and amount of a series: the point of it that moved most."""
    shown = series[:MOST_MOVES]
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
        plain(what),
        format_bytes(round(check.measured or 0.0)),
        format_bytes(round(earlier)),
        f"{round(change):+,} B",
        _in_percent(change, earlier),
        format_bytes(round(_tolerance(check))),
        f"{points:,}",
        "better" if check.better else str(check.finding or "").replace("_", " "),
    )


def _in_percent(change: float, earlier: float) -> str:
    """A change as a share of what was there; of next to nothing it says nothing."""
    if not earlier:
        return "from 0 B"
    percent = 100 * change / earlier
    return (
        f"{percent:+,.1f} %"
        if abs(percent) <= _MOST_PERCENT
        else f"{change / earlier + 1:,.0f} times"
    )


def _move(check: Check, points: int) -> Move:
    share = _parts_of_tolerance(check)
    *cells, number, finding = _row(check, points)
    return Move(
        cells=(*cells, _share_in_words(share), number, finding),
        share=share,
        is_worse=_change(check) > 0 and (share > 1 or check.finding is not None),
    )


def _share_in_words(share: float) -> str:
    return f"{share:,.1f} times" if share > 1 else f"{100 * share:.0f} %"


def _change(check: Check) -> float:
    return (check.measured or 0.0) - (check.earlier or 0.0)


def _tolerance(check: Check) -> float:
    return 0.0 if check.limit is None else abs(check.limit - (check.earlier or 0.0))


def _parts_of_tolerance(check: Check) -> float:
    return abs(_change(check)) / max(_tolerance(check), 1.0)
