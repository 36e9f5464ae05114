"""Small tables for people, out of the phases of a run: peaks per series, phases over repeats, runs
and how they ended.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness.judge.growth import Line, fit_line
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Outcome

from .plan import STACK, SWEPT, Plan, richest


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


def phase_table(phases: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """One row per point, phase and meter: the repeat that grew least, and how far the repeats lie
    apart.

    The start, peak, end, growth and retained bytes of a row are one repeat's, so that they add up.
    A phase that at least one run finished is shown by finished runs alone. Columns of
    ``Plan.table``, then phase, phase_index, meter, quality, the bytes, samples, largest_gap_s,
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
    described = plan.table
    rank = described.reset_index(names="_rank")
    table = rank.merge(table, on="point", how="inner")
    return (
        table.sort_values(["_rank", "phase_index", "meter"], kind="stable")
        .drop(columns="_rank")
        .reset_index(drop=True)
    )


def run_peaks(phases: pd.DataFrame, plan: Plan, meter: str) -> pd.DataFrame:
    """One row per point whose runs ended ok: the highest reading of the meter over all phases,
    least over repeats.

    Columns of ``Plan.table``, then peak_bytes, rise_bytes (peak over where the first phase
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
    return plan.table.merge(table.reset_index(), on="point", how="inner")


def peak_picture(
    plan: Plan, peaks: pd.DataFrame, ends: pd.DataFrame, device_bytes: int | None
) -> PeakPicture:
    """What the main picture shows: the scenario and stack size with the most image counts, the
    first of equals.
    """
    described, scenario = plan.table.dropna(subset=[SWEPT]), plan.main_scenario
    # Where every point has a device of its own, no scenario is the main one.
    over = plan.swept_parameters.get(scenario, "") or str(next(iter(described["over"]), ""))
    # sizes of another parameter are on no axis of this picture
    described = described[described["over"] == over]
    shown_scenarios = plan.scenarios_beside(scenario) if scenario else ()
    chosen = described[
        described["device_budget_bytes"].isna() & described["scenario"].isin(shown_scenarios)
    ]
    stack = richest(chosen.dropna(subset=[STACK]), STACK)
    if stack is not None:
        chosen = chosen[chosen[STACK] == stack]
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


def stack_table(plan: Plan, peaks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The run's rise at each stack size, where a series has several at one image count; empty where
    none has.

    Columns: meter, then those of ``run_peaks``; scenarios as they are planned. Only the largest
    such image count of each is kept.
    """
    tables = [peaks[meter].assign(meter=meter) for meter in (DEVICE_IN_USE, HOST_ANON)]
    table = pd.concat(tables).dropna(subset=[STACK, SWEPT])
    table = table[table["device_budget_bytes"].isna()]
    sizes = table.groupby(["scenario", "series", SWEPT, "meter"])[STACK].transform("nunique")
    several = table[sizes > 1]
    largest = several.groupby("scenario")[SWEPT].transform("max")
    planned = {name: place for place, name in enumerate(plan.scenarios)}
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


def ends_table(ends: pd.DataFrame, plan: Plan, repeats_of: Callable[[str], range]) -> pd.DataFrame:
    """One row per run that is required, also those of which nothing was recorded (outcome NA).

    Columns of ``Plan.table``, then repeat, outcome, reason, phase, launcher, duration_s.
    """
    required = [(point.name, repeat) for point in plan.points for repeat in repeats_of(point.name)]
    planned = plan.table.merge(pd.DataFrame(required, columns=["point", "repeat"]), on="point")
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
