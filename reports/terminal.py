"""What a judgement says on a terminal: the verdict, a table of what every loader took, and a
paragraph for each cause. The gate prints it, and so does a session of pytest that judges its tests.
"""

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import pandas as pd

from harness.judge import FINDINGS, Check, RuleName
from harness.judge.causes import Cause, CauseKind
from harness.judge.gate import Judgement
from harness.judge.table import Run
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Outcome, unit_of
from harness.words import count, format_bytes, format_whole, one_line, plural

from .frames import peak_line
from .plan import IMAGES, STACK, SWEPT
from .view import RunView
from .words import known, plain, time_taken, verdict_word

WIDTH = 80
"""Columns. Chosen: what a terminal has that nobody has made wider, and what the log of a CI job
shows without scrolling."""
MOST_ROWS = 40
"""Of the table. Chosen: a screen; phases.csv has all of them."""
MOST_CAUSES = 5
"""Chosen: more are read in the page; the first are the gravest."""
MOST_LOG_LINES = 3
"""Of a death. Chosen: the line that names the exception, and where it was raised; the page has
more."""
MOST_SIZES = 8
"""Of a row's bars. Chosen: no sweep of ours has more; of others every n-th is shown."""
SAME = 0.1
"""A limit on the growth of a phase stands beside the peak of the run where the two amounts differ
by no more than this part of it. Chosen: what start-up and coordinates make up of a batch."""
_BARS = "▁▂▃▄▅▆▇█"
_DIED = "x"


class Tone(StrEnum):
    """How a line is printed where there are colours; its words say the same without."""

    PLAIN = ""
    GOOD = "green"
    BAD = "red"
    ODD = "yellow"
    QUIET = "dim"


@dataclass(frozen=True, slots=True)
class Line:
    """One line."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderRow:
    """One scenario with one loader, at the largest size that it was measured at. Amounts in bytes,
    of the run as a whole, over what there was when its first phase began, the least of all repeats.
    """

    scenario: str
    series: str
    point: str
    """At which the amounts were read; of several stack sizes the one that took most."""
    size: int | None
    over: str
    """The parameter that ``size`` is of; empty where there is none."""
    device_bytes: int | None
    """None where nothing was read; ``ended`` says how the runs ended then."""
    limit_bytes: float | None
    """The lowest budget of that amount; None where it has none."""
    each_bytes: float | None
    """What each further step of ``over`` adds to the device's peak, by a straight line; None with
    one size."""
    host_bytes: int | None
    change_bytes: float | None
    """The largest change of any phase on the device since the baseline, or beside the other code;
    None where nothing was compared."""
    sizes: tuple[tuple[int, int | None], ...]
    """Each size, and the device's peak there; None where no run of it ended well."""
    ended: str
    """How its runs ended, where none was read: ``"out of memory, as expected"``."""
    finding: str
    """The gravest kind of finding about it; empty where there is none."""

    @property
    def name(self) -> str:
        """``"loading lazy"``, ``"feeds lazy hdf5"``: of texts the values are enough. On one line,
        whatever the user's texts hold.
        """
        series = self.series.removeprefix(self.scenario).removeprefix(", ")
        parts = series.split(", ") if series else []
        values = (part.rpartition("=") for part in parts)
        words = (
            value if not value[:1].isdigit() else f"{name}{sign}{value}"
            for name, sign, value in values
        )
        return one_line(" ".join([self.scenario, *words]))


class LoaderTable:
    """The rows of a run, in the order of its plan."""

    def __init__(self, view: RunView, checks: Sequence[Check] = ()) -> None:
        self._view, self._checks = view, checks

    @cached_property
    def rows(self) -> tuple[LoaderRow, ...]:
        """One for each scenario and series."""
        groups = self._view.plan.table.groupby(["scenario", "series"], sort=False)
        return tuple(
            self._row(str(scenario), str(series), planned) for (scenario, series), planned in groups
        )

    def _row(self, scenario: str, series: str, planned: pd.DataFrame) -> LoaderRow:
        names = set(planned["point"].astype(str))
        checks = [check for check in self._checks if names & {check.point, *check.points}]
        device, host = self._largest(names, DEVICE_IN_USE), self._largest(names, HOST_ANON)
        shown = device if device is not None else host
        point = "" if shown is None else str(shown["point"])
        rise = None if device is None else int(device["rise_bytes"])
        beside = self._beside(names, shown)
        return LoaderRow(
            scenario=scenario,
            series=series,
            point=point,
            size=None if shown is None or not known(shown[SWEPT]) else int(shown[SWEPT]),
            over=str(planned["over"].iloc[0]),
            device_bytes=rise,
            limit_bytes=None if rise is None else _budget(checks, point, rise),
            each_bytes=_slope(beside),
            host_bytes=None if host is None else int(host["rise_bytes"]),
            change_bytes=_change(checks, point),
            sizes=_sizes(planned, beside),
            ended="" if shown is not None else self._ended(names),
            finding=_gravest(checks),
        )

    def _largest(self, names: set[str], meter: str) -> "pd.Series[Any] | None":
        """The point of the largest size that was read; of several the one that rose most."""
        table = self._view.peaks[meter]
        mine = table[table["point"].isin(names)]
        if mine.empty:
            return None
        ordered = mine.assign(_size=mine[SWEPT].fillna(0), _stack=mine[STACK].fillna(0))
        return ordered.sort_values(["_size", "rise_bytes", "_stack"], kind="stable").iloc[-1]

    def _beside(self, names: set[str], shown: "pd.Series[Any] | None") -> pd.DataFrame:
        """The points of the sweep that the shown one is of: those of its stack size."""
        table = self._view.peaks[DEVICE_IN_USE]
        mine: pd.DataFrame = table[table["point"].isin(names)].dropna(subset=[SWEPT])
        if shown is None or not known(shown[STACK]):
            return mine
        same_stack: pd.DataFrame = mine[mine[STACK] == shown[STACK]]
        return same_stack

    def _ended(self, names: set[str]) -> str:
        ends = self._view.ends[self._view.ends["point"].isin(names)]
        found = sorted(
            {_OUTCOMES.get(str(each), plain(str(each))) for each in ends["outcome"].dropna()}
        )
        if not found:
            return "not measured"
        planned = (ends["outcome"] == ends["expected"]).all()
        return f"{', '.join(found)}{', as planned' if planned else ''}"


_OUTCOMES: Mapping[str, str] = {
    Outcome.DEVICE_OOM: "out of device memory",
    Outcome.HOST_OOM: "out of host memory",
}
"""Outcomes whose names are no words; the others are."""


def _budget(checks: Sequence[Check], point: str, rise: int) -> float | None:
    """The lowest limit in bytes on what the run of the point peaks at."""
    limits = [
        check.limit
        for check in checks
        if (check.rule, check.point, check.meter) == (RuleName.BUDGET, point, DEVICE_IN_USE)
        and check.bound == "upper"
        and check.limit is not None
        and check.measured is not None
        and abs(check.measured - rise) <= SAME * rise
    ]
    return min(limits, default=None)


def _change(checks: Sequence[Check], point: str) -> float | None:
    changes = [
        check.measured - check.earlier
        for check in checks
        if check.rule == RuleName.BASELINE
        and (check.point, check.meter, check.unit) == (point, DEVICE_IN_USE, "B")
        and check.measured is not None
        and check.earlier is not None
    ]
    return max(changes, key=abs, default=None)


def _slope(table: pd.DataFrame) -> float | None:
    line = peak_line(table, "rise_bytes")
    return None if line is None else line.slope


def _sizes(planned: pd.DataFrame, read: pd.DataFrame) -> tuple[tuple[int, int | None], ...]:
    """The sizes of the sweep that was read; of one that was not, those that were planned."""
    rises = {int(row[SWEPT]): int(row["rise_bytes"]) for _, row in read.iterrows()}
    stacks = set(read[STACK].dropna())
    mine = planned[planned[STACK].isin(stacks)] if stacks else planned
    sizes = sorted({int(size) for size in mine[SWEPT].dropna()})
    return tuple((size, rises.get(size)) for size in sizes)


def _gravest(checks: Sequence[Check]) -> str:
    found = {check.finding for check in checks}
    return next((str(kind) for kind in FINDINGS if kind in found), "")


# The whole of it.


def verdict_lines(
    run: Run,
    judgement: Judgement,
    *,
    width: int = WIDTH,
    verbose: bool = False,
    bars: bool = True,
) -> Iterator[Line]:
    """The verdict, what it was measured on, the table, and the causes.

    With ``verbose`` also every finding, in the order of the causes, and what a quorum has
    overruled or has become better. ``bars``: the reader's encoding has block characters.
    """
    verdict = judgement.verdict
    yield from _wrapped(_headline(judgement), _tone(judgement), width=width)
    yield from _wrapped(", ".join(_facts(run, judgement)), Tone.QUIET, width=width)
    table = LoaderTable(RunView(run), verdict.checks)
    yield from table_lines(table.rows, width=width, bars=bars)
    for number, cause in enumerate(judgement.causes, start=1):
        if number > MOST_CAUSES and not verbose:
            break
        yield Line("")
        yield from _cause(number, cause, width=width, verbose=verbose)
    yield from _closing(judgement, width=width, verbose=verbose)


def _tone(judgement: Judgement) -> Tone:
    code = judgement.verdict.exit_code
    if not code:
        return Tone.GOOD
    return Tone.BAD if code == 1 else Tone.ODD


def _headline(judgement: Judgement) -> str:
    verdict, causes = judgement.verdict, judgement.causes
    findings = len(verdict.findings)
    if not findings or not causes:
        return verdict.sentence
    broken = plural(findings, "does", "do")
    return (
        f"{verdict_word(verdict)}: {count(len(causes), 'cause')}; {findings:,} of "
        f"{count(len(verdict.checks), 'check')} {broken} not hold."
    )


def _facts(run: Run, judgement: Judgement) -> Iterator[str]:
    """What was measured, how long, on what, and what it is compared with."""
    manifest = run.manifest
    yield count(len(run.run_ends), "run")
    if took := time_taken(manifest.started, manifest.ended):
        yield took
    yield str(manifest.comparability.get("device") or manifest.device.name)
    code, environment = manifest.code, manifest.environment
    commit = str(environment.get("git_commit") or "") if code is None else code.commit
    if commit and not commit.startswith("unavailable"):
        changed = code is None and environment.get("git_dirty") is True
        yield f"{commit[:7]}{' with changes' if changed else ''}"
    elif code is not None:
        yield "the working tree"
    if judgement.against or not judgement.asked.by_pytest:
        yield _compared(run, judgement)


def _compared(run: Run, judgement: Judgement) -> str:
    other, commits = run.manifest.against, judgement.baseline_commits
    if judgement.against:
        name = "" if other is None else f" {other.asked or other.commit[:7]}"
        return f"beside{name}" if name else "beside another run"
    if not commits:
        return "no baseline"
    if len(commits) == 1:
        return f"baseline of {commits[0][:7]}"
    return f"baseline of {count(len(commits), 'commit')}"


def _cause(number: int, cause: Cause, *, width: int, verbose: bool) -> Iterator[Line]:
    """One paragraph, what follows, and what to type: commands are not wrapped, for they are to be
    copied.
    """
    first, tone = f"{number}. ", Tone.BAD if FINDINGS[cause.finding].exit_code == 1 else Tone.ODD
    follows = f" {cause.following[:1].upper()}{cause.following[1:]}" if cause.following else ""
    hint = " (--verbose)." if not verbose else ":"
    text = f"{cause.sentence}{follows}{hint if follows else ''}"
    yield from _wrapped(text, tone, width=width, first=first)
    for alive in cause.alive[:1]:
        text = f"alive there: {alive.words}"
        yield from _wrapped(text, Tone.PLAIN, width=width, first=" " * len(first))
    for line in cause.log_tail[-MOST_LOG_LINES:]:
        shown = f"{' ' * len(first)}| {line}"
        yield Line(shown if len(shown) <= width else f"{shown[: width - 3]}...", Tone.QUIET)
    for command in cause.commands[: None if verbose else 1]:
        yield Line(f"{' ' * len(first)}{command.purpose}:")
        yield Line(f"{' ' * len(first)}  {command.line}")
    # of memory the cause says it all; what is missing, or has died, its first finding says better
    told = cause.checks if verbose else cause.checks[: cause.kind is not CauseKind.MEMORY]
    for check in told:
        said = f"{check.finding}: {check.sentence}"
        yield from _wrapped(said, Tone.PLAIN, width=width, first=f"{' ' * len(first)}- ")


def _closing(judgement: Judgement, *, width: int, verbose: bool) -> Iterator[Line]:
    """What holds for reasons that somebody should know, and by which limits it was judged."""
    verdict = judgement.verdict
    more = len(judgement.causes) - MOST_CAUSES
    if more > 0 and not verbose:
        yield Line("")
        yield Line(f"{count(more, 'more cause')} (--verbose)")
    overruled = verdict.overruled if verbose else verdict.overruled[:MOST_CAUSES]
    better = verdict.better if verbose else ()
    for word, checks in (("overruled", overruled), ("better", better)):
        for check in checks:
            yield from _wrapped(f"{word}: {check.sentence}", Tone.PLAIN, width=width)
    if verdict.without_limits:
        yield from _wrapped(verdict.without_limits, Tone.PLAIN, width=width)
    elif judgement.asked.policy is None and not judgement.asked.by_pytest:
        yield from _wrapped(f"judged by {judgement.policy}", Tone.QUIET, width=width)
    if judgement.against:
        yield from _wrapped(judgement.against, Tone.QUIET, width=width)


def _wrapped(text: str, tone: Tone, *, width: int, first: str = "") -> Iterator[Line]:
    """The text in lines of ``width`` columns; ``first`` stands before the first of them, and the
    others are indented by as much. A command is never broken: it is to be copied.
    """
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _UNBROKEN), text)
    for line in textwrap.wrap(
        whole,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield Line(line.replace(_UNBROKEN, " "), tone)


_COMMAND = re.compile(r"`[^`]*`|(?<=: )(?:python|pytest) [^`]*$")
"""In a sentence: in backticks, or up to its end."""
_UNBROKEN = "\0"

# The table.


_HEADINGS = ("", "device peak", "limit", "per image", "host peak", "change", "")
_LEAST_NAME = 12
"""Chosen: the shortest beginning of a name that says anything."""


def table_lines(
    rows: Sequence[LoaderRow], *, width: int = WIDTH, bars: bool = True
) -> Iterator[Line]:
    """The table in ``width`` columns; nothing without rows. A column without any amount is left
    out, and names that are too long are cut. A row with a finding begins with an exclamation mark.
    """
    shown = rows[:MOST_ROWS]
    if not shown:
        return
    is_marked = any(row.finding for row in shown)
    cells = [_HEADINGS, *(_cells(row, bars=bars, marks=is_marked) for row in shown)]
    kept = [
        number
        for number, column in enumerate(zip(*cells, strict=True))
        if number < 2 or any(cell not in ("", "-") for cell in column[1:])
    ]
    widths = {number: max(len(line[number]) for line in cells) for number in kept}
    room = width - sum(widths.values()) - 2 * (len(kept) - 1)
    widths[0] = max(_LEAST_NAME, widths[0] + min(room, 0))

    yield Line(_joined(_HEADINGS, widths), Tone.QUIET)
    for row, line in zip(shown, cells[1:], strict=True):
        text = _joined(line, widths)
        if row.ended:
            text = f"{_cut(line[0], widths[0]).ljust(widths[0])}  {row.ended}"
        yield Line(text, Tone.BAD if row.finding else Tone.PLAIN)
    if len(rows) > len(shown):
        yield Line(f"... and {len(rows) - len(shown):,} more in summary.md", Tone.QUIET)


def _joined(cells: Sequence[str], widths: Mapping[int, int]) -> str:
    """A line: the name and the bars to the left, amounts to the right."""
    texts = (
        _cut(cells[number], wide).ljust(wide)
        if number in (0, len(_HEADINGS) - 1)
        else cells[number].rjust(wide)
        for number, wide in widths.items()
    )
    return "  ".join(texts).rstrip()


def _cut(name: str, width: int) -> str:
    """Out of the middle: what tells names apart stands at both ends."""
    if len(name) <= width:
        return name
    end = (width - 3) // 2
    return f"{name[: width - 3 - end]}...{name[len(name) - end :]}"


def _cells(row: LoaderRow, *, bars: bool, marks: bool) -> tuple[str, ...]:
    """The cells of a row, as texts."""
    mark = ("! " if row.finding else "  ") if marks else ""
    if row.ended:
        return (f"{mark}{row.name}", *[""] * (len(_HEADINGS) - 1))
    return (
        f"{mark}{row.name}",
        _amount(row.device_bytes),
        _amount(row.limit_bytes).replace(".0 ", " "),
        "-" if row.each_bytes is None else _rate(row.each_bytes, row.over),
        _amount(row.host_bytes),
        "-" if row.change_bytes is None else _signed(row.change_bytes),
        sparkline([amount for _, amount in row.sizes]) if bars else "",
    )


def _amount(amount_bytes: float | None) -> str:
    return "-" if amount_bytes is None else format_bytes(amount_bytes)


def _signed(amount_bytes: float) -> str:
    return f"{'+' if round(amount_bytes) > 0 else ''}{_amount(amount_bytes)}"


def _rate(each_bytes: float, over: str) -> str:
    return f"{format_whole(each_bytes)} B{'' if over == IMAGES else f'/{unit_of(over)}'}"


def sparkline(amounts: Sequence[int | None]) -> str:
    """A bar for each amount, the least one lowest, in eighths of the largest; what is not known is
    an x. Empty for a single one.

    >>> sparkline([10, 50, 100, 200]), sparkline([4, 4, 4]), sparkline([4, None, 8])
    ('▁▂▄█', '▁▁▁', '▁x▅')
    """
    read = [amount for amount in amounts if amount is not None]
    if len(amounts) < 2 or not read:
        return ""
    every = -(-len(amounts) // MOST_SIZES)
    shown = [*amounts[: (len(amounts) - 1) // every * every : every], amounts[-1]]
    least, most = min(read), max(read)
    return "".join(
        _DIED if amount is None else _BARS[round((amount - least) / max(most, 1) * 7)]
        for amount in shown
    )


def measured_lines(run: Run, *, width: int = WIDTH, bars: bool = True) -> Iterator[Line]:
    """The table of a run that nobody has judged yet: without limits, and compared with nothing."""
    yield from table_lines(LoaderTable(RunView(run)).rows, width=width, bars=bars)


# The same for programs.


def verdict_json(run: Run, judgement: Judgement) -> str:
    """The verdict as one JSON object; amounts in bytes. findings.json has every check."""
    verdict = judgement.verdict
    kind = verdict.findings[0].finding if verdict.findings else verdict.exit_code.name.lower()
    document = {
        "run": str(run.path),
        "run_id": run.manifest.run_id,
        "judgement": judgement.identity(run).id,
        "verdict": str(kind),
        "exit_code": int(verdict.exit_code),
        "sentence": verdict.sentence,
        "policy": judgement.policy,
        "against": judgement.against,
        "baseline_commits": list(judgement.baseline_commits),
        "checks": len(verdict.checks),
        "findings": len(verdict.findings),
        "causes": [_cause_json(cause) for cause in judgement.causes],
        "loaders": [
            dataclasses.asdict(row) for row in LoaderTable(RunView(run), verdict.checks).rows
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def _cause_json(cause: Cause) -> dict[str, Any]:
    """Its words and commands; of its checks, what they are about."""
    plain_cause = dataclasses.asdict(dataclasses.replace(cause, checks=()))
    return {**plain_cause, "checks": [check.subject for check in cause.checks]}
