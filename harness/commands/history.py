"""The command ``history``: how accepted amounts moved, over every version of a baseline file that
git knows and the present one.

Limits that are raised a little at a time are never raised enough to be noticed; their sum is.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.commands import add_baselines, explain, to_stdout
from harness.errors import UsageError
from harness.judge import ExitCode
from harness.judge.advice import DEFAULT_BASELINES
from harness.judge.baseline import BaselinePoint, key_in_words
from harness.judge.baseline_file import AmountPlace, History, amounts_of, read_history
from harness.words import count, existing_folder, format_bytes, format_way, natural, nearest

_LEAST_PERCENT, _MOST_PERCENT = 0.05, 1000.0
"""Chosen: a change that rounds to nothing, or is a multiple of next to nothing, is shown in
bytes."""
_LIKENESS = 0.4
"""Chosen: ``device`` is like ``device_in_use``."""
_MOST_SHOWN = 6
"""Amounts that a line lists; of more, the first and the last ones. Chosen: one line."""
_MOST_POINTS = 12
"""Names of points that begin with what was typed. Chosen: a scenario of ours has no more with one
loader."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    explain(
        parser,
        "Show how the accepted amounts of a point moved, over all versions of its baseline that "
        "git remembers: limits that are raised a little at a time are never noticed; their sum is.",
        examples=(
            "arrays-lazy-image_count=100",
            "arrays-lazy-image_count=100 epoch_0 device_in_use",
        ),
        exit_codes={
            0: "printed",
            2: "no such baseline, point, phase or meter; near ones are named",
        },
    )
    parser.add_argument("point", metavar="POINT", help="name of a point, as the baselines have it")
    parser.add_argument(
        "phase",
        metavar="PHASE",
        nargs="?",
        help="show only this phase, with the amounts that never moved",
    )
    parser.add_argument("meter", metavar="METER", nargs="?", help="show only this meter of it")
    add_baselines(parser)


def run(options: argparse.Namespace) -> int:
    """Print the history of a point."""
    folder = (
        DEFAULT_BASELINES
        if options.baselines is None
        else existing_folder(options.baselines, "--baselines")
    )
    for line in histories(folder, options.point, phase=options.phase, meter=options.meter):
        to_stdout(line)
    return ExitCode.PASS


def drift(accepted: Sequence[BaselinePoint], place: AmountPlace) -> str:
    """``"4.00 -> 4.10 -> 4.30 MiB over 3 acceptances since 2026-01-01: +7.5 %"``."""
    known = [(point, amounts_of(point)[place]) for point in accepted if place in amounts_of(point)]
    if not known:
        return "never accepted"
    amounts = [amount for _, amount in known]
    moved = [
        amount
        for number, amount in enumerate(amounts)
        if number == 0 or amount != amounts[number - 1]
    ]
    shown = moved if len(moved) <= _MOST_SHOWN else [moved[0], *moved[1 - _MOST_SHOWN :]]
    gap = 1 if len(shown) < len(moved) else None
    return (
        f"{format_way(shown, gap_after=gap)} over {count(len(known), 'acceptance')} since "
        f"{known[0][0].accepted.date}: {_change(amounts[0], amounts[-1])}"
    )


def histories(
    folder: Path, name: str, *, phase: str | None = None, meter: str | None = None
) -> Iterator[str]:
    """The history of a point in every baseline file of the folder that ever had it.

    Raises UsageError where none has the point, the phase or the meter, naming the nearest;
    BaselineError for a damaged file.
    """
    known: dict[str, None] = {}
    lines: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        history = read_history(path)
        known.update((each, None) for version in history.versions for each in version.point)
        if history.of(name):
            lines.append(f"{name}, {key_in_words(history.versions[-1].key)} ({path.name})")
            lines += history_lines(history, name, phase=phase, meter=meter)
            lines += [f"  history: {history.note}"] if history.note else []
    if not lines:
        raise UsageError(
            f"no baseline in {folder} has ever had the point {name}; {_likely(name, list(known))}"
        )
    yield from lines


def history_lines(
    history: History, name: str, *, phase: str | None = None, meter: str | None = None
) -> Iterator[str]:
    """The history of a point: its acceptances, then one line for each amount; without a phase, only
    those that moved.
    """
    accepted = history.of(name)
    for point in accepted:
        by = point.accepted
        yield f"  {by.date}  run {by.run}, commit {by.commit[:12]}, {by.device}: {by.reason}"
    places = dict.fromkeys(place for point in accepted for place in amounts_of(point))
    wanted = [place for place in places if phase in (None, place[0]) and meter in (None, place[1])]
    if not wanted:
        raise UsageError(f"{name} was never accepted with {_missing(phase, meter, list(places))}")
    moved = [place for place in wanted if phase is not None or _moved(accepted, place)]
    yield from (
        f"  {place[0]} / {place[1]} {place[2]}: {drift(accepted, place)}" for place in moved
    )
    if len(moved) < len(wanted):
        yield f"  {len(wanted) - len(moved)} of {len(wanted)} amounts never moved"


def _likely(name: str, known: Sequence[str]) -> str:
    """The points whose names begin with what was typed, or else the nearest."""
    longer = [each for each in known if each.startswith(name)]
    if not longer:
        return nearest(name, known, cutoff=_LIKENESS)
    more = f" and {len(longer) - _MOST_POINTS} more" if len(longer) > _MOST_POINTS else ""
    shown = ", ".join(sorted(longer, key=natural)[:_MOST_POINTS])
    return f"{len(longer)} begin like this: {shown}{more}"


def _missing(phase: str | None, meter: str | None, places: Sequence[AmountPlace]) -> str:
    """The one of the two that no acceptance has, with the nearest that one has."""
    phases = dict.fromkeys(place[0] for place in places)
    if phase is not None and phase not in phases:
        return f"a phase {phase}; {nearest(phase, phases, cutoff=_LIKENESS)}"
    meters = [place[1] for place in places if place[0] == phase]
    return f"a meter {meter} in {phase}; {nearest(str(meter), meters, cutoff=_LIKENESS)}"


def _moved(accepted: Sequence[BaselinePoint], place: AmountPlace) -> bool:
    return len({amounts_of(point).get(place) for point in accepted}) > 1


def _change(first: int, last: int) -> str:
    if first == last:
        return "unchanged"
    percent = (last - first) / first * 100 if first > 0 else math.inf
    if not _LEAST_PERCENT <= abs(percent) <= _MOST_PERCENT:
        return f"{'+' if last > first else ''}{format_bytes(last - first)}"
    return f"{percent:+.1f} %"
