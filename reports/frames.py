"""Small tables for people, out of the phases of a run: peaks per series, phases over repeats, runs
and how they ended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.judge.growth import Line, fit_line
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Outcome, Point, is_size, size_parameters

SWEPT = "size"
"""The column of what a scenario is swept over: its numbers of images, or the values of another
parameter."""
IMAGES = "image_count"
"""The parameter that goes before all others as what a scenario is swept over."""
STACK = "stack_size"
LOADER = "loader"

_POINT_COLUMNS = [
    "point",
    "scenario",
    "series",
    "over",
    SWEPT,
    STACK,
    "device_budget_bytes",
    "expected",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakPicture:
    """What the main picture shows: one scenario at one stack size, and every point that had a
    device of its own size.

    Scenarios without loaders are beside each other.
    """

    scenarios: tuple[str, ...]
    """The main one first; none where every point has a device of its own."""
    over: str
    """The parameter that it is swept over."""
    stack_size: int | None
    peaks: pd.DataFrame
    """One row per series and size: series, size, peak_bytes, spread_bytes, runs; whole runs
    only."""
    capped: pd.DataFrame
    """The same for points with a device budget of their own, with device_budget_bytes."""
    out_of_memory: pd.DataFrame
    """Where the device ran out: series, size, device_budget_bytes (the device's size where the
    point has none)."""
    device_bytes: int | None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return self.peaks.empty and self.capped.empty and self.out_of_memory.empty


def describe_points(points: Sequence[Point]) -> pd.DataFrame:
    """One row per planned point, in the order of the plan.

    Columns: point, scenario, series (the loader, or the scenario where it has none, and any
    parameters besides the sizes), over (the parameter that the scenario is swept over, empty where
    there is none), size (its value) and stack_size (Int64, NA where the point has none),
    device_budget_bytes (Int64, NA also where all points share one: see ``common_budget_bytes``),
    expected.
    """
    swept, is_shared = swept_parameters(points), common_budget_bytes(points) is not None
    rows = [
        {
            "point": point.name,
            "scenario": point.scenario,
            "series": _series(point, swept[point.scenario]),
            "over": swept[point.scenario],
            SWEPT: _size(point, swept[point.scenario]),
            STACK: point.parameters.get(STACK),
            "device_budget_bytes": None if is_shared else point.device_budget_bytes,
            "expected": str(point.expected),
        }
        for point in points
    ]
    table = pd.DataFrame(rows, columns=_POINT_COLUMNS)
    return table.astype({SWEPT: "Int64", STACK: "Int64", "device_budget_bytes": "Int64"})


def common_budget_bytes(points: Sequence[Point]) -> int | None:
    """The device's size that every point asks for, which is then that of the run; None where they
    differ, or ask for none.
    """
    budgets = {point.device_budget_bytes for point in points}
    return budgets.pop() if len(budgets) == 1 else None


def scenarios_beside(points: Sequence[Point], scenario: str) -> tuple[str, ...]:
    """The scenario, and where it has no loaders to compare, all others without any that are swept
    over the same parameter.
    """
    swept = swept_parameters(points)
    with_loaders = {point.scenario for point in points if LOADER in point.parameters}
    others = [
        name for name in swept if name not in with_loaders and swept[name] == swept.get(scenario)
    ]
    return tuple(dict.fromkeys([scenario, *others])) if scenario in others else (scenario,)


def swept_parameters(points: Sequence[Point]) -> Mapping[str, str]:
    """What each scenario is swept over: image_count, else the whole number with the most values;
    empty where none varies.
    """
    found: dict[str, str] = {}
    for scenario in dict.fromkeys(point.scenario for point in points):
        own = [point for point in points if point.scenario == scenario]
        values = {
            name: {_size(point, name) for point in own} - {None}
            for name in size_parameters(own)
            if name != STACK
        }
        varied = {
            name: len(each) for name, each in values.items() if len(each) > 1 or name == IMAGES
        }
        found[scenario] = (
            IMAGES if IMAGES in varied else max(varied, key=lambda name: varied[name], default="")
        )
    return found


def phase_table(phases: pd.DataFrame, points: Sequence[Point]) -> pd.DataFrame:
    """One row per point, phase and meter: the repeat that grew least, and how far the repeats lie
    apart.

    The start, peak, end, growth and retained bytes of a row are one repeat's, so that they add up.
    A phase that at least one run finished is shown by finished runs alone. Columns of
    ``describe_points``, then phase, phase_index, meter, quality, the bytes, samples, largest_gap_s,
    finished, reason, runs (repeats shown) and spread_bytes (largest less smallest growth; NA where
    fewer than two repeats were read). A phase that was entered and never left has one row, whose
    meter is empty.
    """
    keys = ["point", "phase", "meter"]
    # A reading that exists comes before one that does not, a finished phase before one that was cut
    # short.
    entered = phases.dropna(subset=["phase"]).assign(meter=phases["meter"].fillna(""))
    order = entered.assign(
        _unread=entered["growth_bytes"].isna(), _cut=~entered["finished"].astype(bool)
    )
    order = order.sort_values(
        ["point", "phase_index", "phase", "meter", "_cut", "_unread", "growth_bytes", "repeat"],
        kind="stable",
    )
    first = order.groupby(keys, sort=False).head(1)
    alike = order.merge(first[[*keys, "_cut", "_unread"]], on=[*keys, "_cut", "_unread"])
    over = alike.groupby(keys, sort=False)["growth_bytes"]
    repeats = pd.DataFrame(
        {"runs": over.size(), "spread_bytes": (over.max() - over.min()).where(over.count() > 1)}
    )
    shown = [
        *[
            *keys,
            "phase_index",
            "quality",
            "start_bytes",
            "peak_bytes",
            "peak_bound_bytes",
            "end_bytes",
            "growth_bytes",
        ],
        *["retained_bytes", "samples", "largest_gap_s", "finished", "outcome", "reason"],
    ]
    table = first[shown].merge(repeats.reset_index(), on=keys, how="left")
    described = describe_points(points)
    rank = described.reset_index(names="_rank")
    table = rank.merge(table, on="point", how="inner")
    return (
        table.sort_values(["_rank", "phase_index", "meter"], kind="stable")
        .drop(columns="_rank")
        .reset_index(drop=True)
    )


def run_peaks(phases: pd.DataFrame, points: Sequence[Point], meter: str) -> pd.DataFrame:
    """One row per point whose runs ended ok: the highest reading of the meter over all phases,
    least over repeats.

    Columns of ``describe_points``, then peak_bytes, rise_bytes (peak over where the first phase
    started), spread_bytes (NA with one repeat), runs and quality.
    """
    read = phases[
        (phases["meter"] == meter)
        & (phases["outcome"] == Outcome.OK)
        & phases["peak_bytes"].notna()
    ]
    ordered = read.sort_values(["point", "repeat", "phase_index"], kind="stable")
    runs = ordered.groupby(["point", "repeat"], sort=False).agg(
        peak_bytes=("peak_bytes", "max"),
        start_bytes=("start_bytes", "first"),
        quality=("quality", "first"),
    )
    runs["rise_bytes"] = runs["peak_bytes"] - runs["start_bytes"]
    over = runs.groupby("point", sort=False)
    table = over.agg(
        peak_bytes=("peak_bytes", "min"),
        rise_bytes=("rise_bytes", "min"),
        runs=("peak_bytes", "size"),
        quality=("quality", "first"),
    )
    spread = over["peak_bytes"].max() - over["peak_bytes"].min()
    table["spread_bytes"] = spread.where(table["runs"] > 1)
    return describe_points(points).merge(table.reset_index(), on="point", how="inner")


def main_scenario(points: Sequence[Point]) -> str:
    """The scenario of the pictures: the one with the most image counts on the run's own device;
    empty when none has any.
    """
    described = describe_points(points).dropna(subset=[SWEPT])
    return str(_richest(described[described["device_budget_bytes"].isna()], "scenario") or "")


def peak_picture(
    phases: pd.DataFrame, ends: pd.DataFrame, points: Sequence[Point], device_bytes: int | None
) -> PeakPicture:
    """What the main picture shows: the scenario and stack size with the most image counts, the
    first of equals.
    """
    described, scenario = describe_points(points).dropna(subset=[SWEPT]), main_scenario(points)
    # Where every point has a device of its own, no scenario is the main one.
    over = swept_parameters(points).get(scenario, "") or str(next(iter(described["over"]), ""))
    # sizes of another parameter are on no axis of this picture
    described = described[described["over"] == over]
    shown_scenarios = scenarios_beside(points, scenario) if scenario else ()
    chosen = described[
        described["device_budget_bytes"].isna() & described["scenario"].isin(shown_scenarios)
    ]
    stack = _richest(chosen.dropna(subset=[STACK]), STACK)
    if stack is not None:
        chosen = chosen[chosen[STACK] == stack]
    peaks = run_peaks(phases, points, DEVICE_IN_USE)
    # What there was before the first phase is not the loader's: start-up's tensors, and what fills
    # the device's first region.
    peaks = peaks.assign(peak_bytes=peaks["rise_bytes"])
    died = ends.loc[ends["outcome"] == Outcome.DEVICE_OOM, ["point"]].drop_duplicates()
    # Deaths of other scenarios on the same device belong to other pictures.
    shown = described["point"].isin(chosen["point"]) | described["device_budget_bytes"].notna()
    dead = described[shown].merge(died, on="point", how="inner")
    dead["device_budget_bytes"] = (
        dead["device_budget_bytes"].fillna(device_bytes)
        if device_bytes
        else dead["device_budget_bytes"]
    )
    return PeakPicture(
        scenarios=shown_scenarios,
        over=over,
        stack_size=None if stack is None else int(str(stack)),
        peaks=peaks[peaks["point"].isin(chosen["point"])]
        .sort_values(["series", SWEPT])
        .reset_index(drop=True),
        capped=peaks[
            peaks["device_budget_bytes"].notna() & peaks["point"].isin(described["point"])
        ].reset_index(drop=True),
        out_of_memory=dead.dropna(subset=["device_budget_bytes"]).reset_index(drop=True),
        device_bytes=device_bytes,
    )


def stack_table(phases: pd.DataFrame, points: Sequence[Point]) -> pd.DataFrame:
    """The run's rise at each stack size, where a series has several at one image count; empty where
    none has.

    Columns: meter, then those of ``run_peaks``; scenarios as they are planned. Only the largest
    such image count of each is kept.
    """
    tables = [
        run_peaks(phases, points, meter).assign(meter=meter) for meter in (DEVICE_IN_USE, HOST_ANON)
    ]
    table = pd.concat(tables).dropna(subset=[STACK, SWEPT])
    table = table[table["device_budget_bytes"].isna()]
    sizes = table.groupby(["scenario", "series", SWEPT, "meter"])[STACK].transform("nunique")
    several = table[sizes > 1]
    largest = several.groupby("scenario")[SWEPT].transform("max")
    planned = {
        name: place for place, name in enumerate(dict.fromkeys(point.scenario for point in points))
    }
    shown = several[several[SWEPT] == largest].assign(_planned=several["scenario"].map(planned))
    return (
        shown.sort_values(["_planned", "meter", "series", STACK])
        .drop(columns="_planned")
        .reset_index(drop=True)
    )


def at_largest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each scenario, series and stack size at their largest image count; points without
    one stay.
    """
    keys = [
        table["scenario"],
        table["series"],
        table[STACK].astype("string").fillna(""),
        table["expected"],
    ]
    largest = table[SWEPT].groupby(keys).transform("max")
    return table[table[SWEPT].isna() | (table[SWEPT] == largest)].reset_index(drop=True)


def ends_table(
    ends: pd.DataFrame, points: Sequence[Point], repeats_of: Callable[[str], range]
) -> pd.DataFrame:
    """One row per run that a point owes, also those of which nothing was recorded (outcome NA).

    Columns of ``describe_points``, then repeat, outcome, reason, phase, launcher, duration_s.
    """
    owed = [(point.name, repeat) for point in points for repeat in repeats_of(point.name)]
    planned = describe_points(points).merge(
        pd.DataFrame(owed, columns=["point", "repeat"]), on="point"
    )
    shown = ends[["point", "repeat", "outcome", "reason", "phase", "launcher", "duration_s"]]
    return planned.merge(
        shown.drop_duplicates(["point", "repeat"], keep="last"), on=["point", "repeat"], how="left"
    )


def peak_line(table: pd.DataFrame, value: str = "peak_bytes") -> Line | None:
    """The line of bytes against the size through the rows of a table; None with fewer than two
    sizes.
    """
    if table[SWEPT].nunique() < 2:
        return None
    return fit_line([int(size) for size in table[SWEPT]], [int(amount) for amount in table[value]])


def _size(point: Point, name: str) -> int | None:
    value = point.parameters.get(name)
    return value if is_size(value) else None


def _series(point: Point, over: str) -> str:
    others = [
        f"{name}={value}"
        for name, value in point.parameters.items()
        if name not in {LOADER, over, STACK}
    ]
    return ", ".join([str(point.parameters.get(LOADER, point.scenario)), *others])


def _richest(table: pd.DataFrame, column: str) -> object | None:
    """The value of the column with the most distinct image counts; the first in the table among
    equals.
    """
    if table.empty:
        return None
    sizes = table.groupby(column, sort=False)[SWEPT].nunique()
    return sizes.index[int(np.argmax(sizes.to_numpy()))]  # type: ignore[no-any-return]
