"""The tables of the page and the summary, as text: every amount printed once, with the kind of
number it is.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Outcome, Quality, sizes_in_words, unit_of
from harness.words import count

from .frames import at_largest
from .plan import STACK, SWEPT
from .view import RunView
from .words import amount, kind_of_number, known, meter_name, plain, rate, unavailable

_COMPARED = (DEVICE_IN_USE, HOST_ANON)
"""The meters of the comparison: those that the gate judges."""
_SHARED_COLUMNS = {"scenario", "over", "phase", "meter", "quality", "field"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: every cell is text, ready to be escaped."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    amounts: frozenset[str] = frozenset()
    """Columns of numbers, set flush right."""


def comparison(view: RunView, scenario: str) -> Table | None:
    """Growth and retained bytes of each planned phase, the series side by side, at the largest
    image count that all plan.

    Of several stack sizes the first planned is shown. A phase
    without a reading says why it has none. None when the scenario has no points.
    """
    planned = view.plan.table
    planned = planned[planned["scenario"] == scenario]
    if planned.empty:
        return None
    first_stack = planned[STACK].dropna().head(1)
    planned = planned[planned[STACK].isna() | planned[STACK].isin(first_stack)]
    sizes = planned.groupby("series", sort=False)[SWEPT].apply(lambda counts: set(counts.dropna()))
    largest = max(set.intersection(*sizes), default=None)
    cells = planned[planned[SWEPT] == largest] if largest is not None else at_largest(planned)
    cells = cells.drop_duplicates("series")
    phases = next(
        point.phases for point in view.plan.points if point.name == cells["point"].iloc[0]
    )
    rows = [
        (
            plain(phase),
            meter_name(meter),
            *(
                text
                for point in cells["point"]
                for text in _compared(view.readings, str(point), phase, meter)
            ),
        )
        for phase in phases
        for meter in _COMPARED
    ]
    at = (
        f" at {sizes_in_words(str(cells['over'].iloc[0]), int(largest))}"
        if largest is not None
        else ""
    )
    headings = tuple(
        f"{name} {word}" for name in cells["series"] for word in ("growth", "retained", "kind")
    )
    return Table(
        caption=f"Growth and retained bytes of each phase, {scenario}{at}: the repeat that grew "
        "least",
        columns=("phase", "meter", *headings),
        rows=tuple(rows),
        amounts=frozenset(heading for heading in headings if not heading.endswith("kind")),
    )


def silent_meters(table: pd.DataFrame) -> list[str]:
    """A sentence for every meter that could not read a single phase, with its reasons."""
    sentences = []
    for meter, rows in table[table["meter"] != ""].groupby("meter", sort=True):
        if (rows["quality"] == Quality.UNAVAILABLE).all():
            reasons = "; ".join(sorted({str(reason) for reason in rows["reason"] if known(reason)}))
            sentences.append(f"{meter_name(str(meter))}: {unavailable(reasons)}")
    return sentences


def odd_runs(ends: pd.DataFrame) -> Table:
    """The runs that did not end ok; ``ends`` is ``frames.ends_table``."""
    odd = ends[ends["outcome"].fillna("") != Outcome.OK]
    return _runs("Runs that did not end ok", odd)


def outcomes(ends: pd.DataFrame) -> str:
    """How the runs ended, in one sentence; ``ends`` is ``frames.ends_table``."""
    if ends.empty:
        return "No run was planned."
    seen = ends["outcome"].dropna().value_counts().sort_index()
    parts = [f"{number:,} {outcome}" for outcome, number in seen.items()]
    missing = int(ends["outcome"].isna().sum())
    parts += [f"{missing:,} without a recorded end"] if missing else []
    planned = int((ends["outcome"].fillna("") == ends["expected"]).sum())
    return (
        f"{count(len(ends), 'run')} planned: {', '.join(parts)}; {planned:,} ended as the plan "
        "expects."
    )


def fits(fits_frame: pd.DataFrame, caption: str) -> Table:
    """Slopes with their confidence intervals, one row for each fit of
    ``harness.judge.growth.fits_table``.
    """
    parameters = [
        name
        for name in fits_frame.columns[1 : list(fits_frame.columns).index("over")]
        if name not in _SHARED_COLUMNS
    ]
    return Table(
        caption=caption,
        columns=(
            "series",
            "phase",
            "meter",
            "field",
            "slope",
            "95 % interval",
            "intercept",
            "residual",
            "class",
            "sizes",
            "runs",
            "kind",
        ),
        rows=tuple(_fit_row(row, parameters) for row in fits_frame.to_dict("records")),
        amounts=frozenset({"slope", "95 % interval", "intercept", "residual", "sizes", "runs"}),
    )


def main_fits(fits_frame: pd.DataFrame, scenario: str, over: str) -> pd.DataFrame:
    """The fits behind the pictures: growth over one parameter of one scenario, by the meters that
    the gate judges.
    """
    chosen = (
        (fits_frame["scenario"] == scenario)
        & (fits_frame["over"] == over)
        & (fits_frame["field"] == "growth")
    )
    return fits_frame[chosen & fits_frame["meter"].isin(_COMPARED)]


def _compared(
    read: Mapping[tuple[str, str, str], "pd.Series[str]"], point: str, phase: str, meter: str
) -> tuple[str, str, str]:
    """Growth, retained bytes and kind of number of one phase of one point."""
    row = read.get((point, phase, meter))
    if row is not None:
        return amount(row["growth_bytes"]), amount(row["retained_bytes"]), _kind(row)
    last = next(
        (row for (name, _, entered), row in read.items() if name == point and not entered), None
    )
    why = (
        "nothing was recorded"
        if last is None
        else f"{_outcome(last)} in {plain(str(last['phase']))}"
    )
    return "unavailable", "unavailable", unavailable(why)


def _outcome(row: "pd.Series[str]") -> str:
    return str(row["outcome"]) if known(row["outcome"]) else "the run ended without a recorded end"


def _kind(row: "pd.Series[str]") -> str:
    if row["quality"] == Quality.UNAVAILABLE:
        ended = (
            f"the run ended in this phase: {_ending(row)}"
            if not row["meter"]
            else str(row["reason"])
        )
        return unavailable(ended)
    cut = "" if row["finished"] else f"; cut short: {_ending(row)}"
    return kind_of_number(str(row["quality"]), row["samples"], row["largest_gap_s"]) + cut


def _ending(row: "pd.Series[str]") -> str:
    parts = [str(part) for part in (row["outcome"], row["reason"]) if known(part) and part]
    return ", ".join(parts) or "no end was recorded"


def _runs(caption: str, ends: pd.DataFrame) -> Table:
    return Table(
        caption=caption,
        columns=(
            "point",
            "repeat",
            "outcome",
            "expected",
            "phase",
            "reason",
            "duration",
            "launcher",
        ),
        rows=tuple(_run_row(row) for row in ends.to_dict("records")),
        amounts=frozenset({"repeat", "duration"}),
    )


def _run_row(row: Mapping[Hashable, object]) -> tuple[str, ...]:
    if not known(row["outcome"]):
        missing = unavailable("no end of this run was recorded")
        return (
            str(row["point"]),
            str(row["repeat"]),
            missing,
            str(row["expected"]),
            "",
            "",
            "unavailable",
            "unavailable",
        )
    return (
        str(row["point"]),
        str(row["repeat"]),
        str(row["outcome"]),
        str(row["expected"]),
        plain(str(row["phase"])) if known(row["phase"]) else "",
        str(row["reason"]) if known(row["reason"]) else "",
        f"{float(str(row['duration_s'])):.1f} s" if known(row["duration_s"]) else "unavailable",
        str(row["launcher"]) if known(row["launcher"]) else "unavailable",
    )


def _fit_row(row: Mapping[Hashable, object], parameters: Sequence[str]) -> tuple[str, ...]:
    settings = (
        f"{name}={value}" if isinstance(value, int) else str(value)
        for name in parameters
        if known(value := row[name])
    )
    unit = unit_of(str(row["over"]))
    slope = row[f"slope_bytes_per_{unit}"]
    low, high = (float(str(row[name])) for name in ("slope_low", "slope_high"))
    bounded = abs(low) < float("inf") and abs(high) < float("inf")
    return (
        " / ".join([str(row["scenario"]), *settings]),
        plain(str(row["phase"])),
        meter_name(str(row["meter"])),
        plain(str(row["field"])),
        rate(float(str(slope)), unit),
        f"{round(low):,} to {round(high):,}" if bounded else "open: too few runs",
        amount(row["intercept_bytes"]),
        amount(row["residual_bytes"]),
        str(row["growth_class"]),
        str(row["sizes"]),
        str(row["runs"]),
        str(row["quality"]),
    )
