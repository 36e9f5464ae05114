"""How each gated amount moved: over every acceptance that git knows, over earlier runs that were
named, and to this run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from harness.errors import BaselineError, HarnessError
from harness.judge import Check, RuleName
from harness.judge.baseline import RECORDED_FIELDS
from harness.judge.baseline_file import (
    AmountPlace,
    History,
    amounts_of,
    file_name,
    holding,
    read_history,
)
from harness.judge.gate import Judgement
from harness.judge.table import Run, load_run, readings_by_place
from harness.meters import WITNESS_METERS
from harness.records import RUN_FILE, sizes_in_words
from harness.words import count, format_way

from .frames import at_largest
from .marks import sparkline
from .plan import STACK, SWEPT, own_name
from .view import RunView
from .words import known, meter_name, plain

MOST_RUNS = 20
"""Earlier runs that are read, the newest. Chosen: a line of more says no more, and each takes about
a second."""
_MOST_ROWS = 30
"""Amounts that are shown, those that moved most. Chosen: two screens."""
_MOST_NAMED = 6
"""Amounts that one way names; of more, the first and the last ones. Chosen: one line."""
_COMPARING = (RuleName.BASELINE, RuleName.AGAINST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One amount and how it moved."""

    where: str
    """Scenario, series and size of the point."""
    what: str
    """Phase, meter and field."""
    line: Markup
    amounts: str
    """``"4.00 -> 4.10 MiB"``, the last of them this run's."""
    change: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of the amounts of a run before it."""

    sentence: str
    """Over what they are shown, and how many never moved; what is lacking, and why."""
    ways: tuple[Way, ...] = ()


def past_of(view: RunView, judgement: Judgement, earlier_runs: Sequence[Path] = ()) -> Past:
    """The history of the points of each series at its largest size.

    ``earlier_runs`` are folders that hold run directories, or are one.
    """
    history = _accepted(view.run, judgement)
    runs, passed_over = _runs(view.run, earlier_runs)
    names = list(at_largest(view.plan.table)["point"].astype(str))
    limits = _limits(judgement.verdict.checks)
    steps = {name: [amounts_of(point) for point in history.of(name)] for name in names}
    now = _amounts(view.run, names)
    before = [_amounts(run, names) for run in runs]
    found, still = [], 0
    for name in names:
        for place, amount in now.get(name, {}).items():
            way = _way_of(place, steps[name], [each.get(name, {}) for each in before], amount)
            if len(way) < 2:
                continue
            if len(set(way)) == 1:
                still += 1
            else:
                found.append((name, place, way))
    found.sort(key=lambda each: -_moved(each[2]))
    described = {str(row["point"]): row for _, row in view.plan.table.iterrows()}
    ways = tuple(
        Way(
            where=_where(described[name]),
            what=f"{plain(place[0])}, {meter_name(place[1])}, {plain(place[2])}",
            line=sparkline(way, limits.get((name, *place))),
            amounts=_in_words(way),
            change=_change(way),
        )
        for name, place, way in found[:_MOST_ROWS]
    )
    most = max((len(each) for each in steps.values()), default=0)
    return Past(
        sentence=" ".join(_sentences(most, len(runs), len(found), still, history, passed_over)),
        ways=ways,
    )


def _accepted(run: Run, judgement: Judgement) -> History:
    """Every version of the baseline that the run is comparable with."""
    try:
        baseline = holding(judgement.asked.baselines, run.manifest.comparability)
        if baseline is None:
            return History()
        return read_history(judgement.asked.baselines / file_name(baseline.key))
    except BaselineError as error:
        return History(note=str(error))


def _runs(run: Run, folders: Sequence[Path]) -> tuple[list[Run], int]:
    """Comparable runs in the folders that started before this one, the oldest first; and how many
    others there are.
    """
    found: dict[str, Run] = {}
    passed_over = 0
    for path in _run_directories(folders):
        if path.resolve() == run.path.resolve():
            continue
        try:
            other = load_run(path)
        except HarnessError:
            passed_over += 1
            continue
        alike = other.manifest.comparability == run.manifest.comparability
        if alike and other.manifest.started < run.manifest.started:
            found[other.manifest.run_id] = other
        else:
            passed_over += 1
    ordered = sorted(found.values(), key=lambda each: each.manifest.started)
    return ordered, passed_over


def _run_directories(folders: Iterable[Path]) -> list[Path]:
    """The newest ``MOST_RUNS`` run directories that are the folders, or lie in them."""
    found = []
    for folder in folders:
        found += (
            [folder]
            if (folder / RUN_FILE).exists()
            else sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}"))
        )
    newest = sorted(found, key=lambda path: (path / RUN_FILE).stat().st_mtime)
    return newest[-MOST_RUNS:]


def _amounts(run: Run, names: Sequence[str]) -> Mapping[str, Mapping[AmountPlace, int]]:
    """The least of the repeats of each accepted field, by point and place."""
    wanted = set(names)
    found: dict[str, dict[AmountPlace, int]] = {}
    for (name, phase, meter, field), readings in readings_by_place(run).items():
        if name in wanted:
            found.setdefault(name, {})[phase, meter, field] = min(readings.values())
    return found


def _way_of(
    place: AmountPlace,
    accepted: Sequence[Mapping[AmountPlace, int]],
    before: Sequence[Mapping[AmountPlace, int]],
    now: int,
) -> list[int]:
    """All that is known of an amount, the oldest first; only what was ever accepted, or is judged,
    has one.
    """
    _, meter, field = place
    if field not in RECORDED_FIELDS or meter in WITNESS_METERS:
        return []
    return [*(each[place] for each in (*accepted, *before) if place in each), now]


def _limits(checks: Iterable[Check]) -> dict[tuple[str, str, str, str], float]:
    """The upper limits of the comparison, by point and place."""
    return {
        (check.point, check.phase, check.meter, check.subject.rpartition(" / ")[2]): check.limit
        for check in checks
        if check.rule in _COMPARING and check.limit is not None and check.bound == "upper"
    }


def _where(row: "pd.Series[str]") -> str:
    """``"loading, lazy, 2,000 images of a stack of 8,192"``."""
    scenario = str(row["scenario"])
    series = own_name(scenario, str(row["series"]))
    parts = [scenario, *([] if series == scenario else [series])]
    parts += [sizes_in_words(str(row["over"]), int(row[SWEPT]))] if known(row[SWEPT]) else []
    stack = f" of a stack of {int(row[STACK]):,}" if known(row[STACK]) else ""
    return f"{', '.join(parts)}{stack if row['over'] != STACK else ''}"


def _moved(way: Sequence[int]) -> float:
    """How far an amount went from its first, in parts of it and of a KiB."""
    return abs(way[-1] - way[0]) / (abs(way[0]) + 1024)


def _in_words(way: Sequence[int]) -> str:
    """The amounts, without those that are as the one before."""
    moved = [each for number, each in enumerate(way) if not number or each != way[number - 1]]
    if len(moved) <= _MOST_NAMED:
        return format_way(moved)
    return format_way([moved[0], *moved[1 - _MOST_NAMED :]], gap_after=1)


def _change(way: Sequence[int]) -> str:
    first, last = way[0], way[-1]
    if first == last:
        return "back where it was"
    return f"{100 * (last - first) / first:+,.1f} %" if first > 0 else f"{last - first:+,} B"


def _sentences(
    acceptances: int, runs: int, moved: int, still: int, history: History, passed_over: int
) -> Iterator[str]:
    if not acceptances and not runs:
        yield (
            "Nothing earlier is known: no baseline of this run was accepted, and no earlier run "
            "was named."
        )
    else:
        over = [count(acceptances, "acceptance")] if acceptances else []
        over += [count(runs, "earlier run")] if runs else []
        more = (
            f", of which the {_MOST_ROWS} that moved most are shown" if moved > _MOST_ROWS else ""
        )
        yield (
            f"Over {' and '.join(over)} and this run, each series at its largest size: "
            f"{count(moved, 'amount')} moved{more}, {still:,} never did."
        )
    if history.note:
        yield f"{history.note[:1].upper()}{history.note[1:]}."
    if passed_over:
        yield (
            f"{count(passed_over, 'folder')} given with --history "
            f"{'is' if passed_over == 1 else 'are'} not comparable, later, or no run."
        )
