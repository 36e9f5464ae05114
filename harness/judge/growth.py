"""Memory against data size: a fit for every series, phase and meter, its class of growth, and what
would still fit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from harness.judge.ceiling import Ceiling, find_ceiling
from harness.judge.line import Line, fit_line
from harness.judge.sizes import (
    NAMED_STEPS,
    count_in_words,
    is_size,
    size_of,
    size_parameters,
    unit_of,
)
from harness.judge.table import Place, Run, amounts_by_place
from harness.names import one_line
from harness.records import Point, Scalar
from harness.units import format_bytes
from harness.words import columns_of

FIELDS = ("peak", "growth", "growth_bound", "retained", "net_start", "net_end")
"""What is fitted; ``growth_bound`` is the upper bound of the growth where a meter brackets its
peak."""


class GrowthClass(StrEnum):
    """How an amount grows with the data."""

    FLAT = "flat"
    CEILING = "ceiling"
    LINEAR = "linear"
    SUPERLINEAR = "superlinear"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthLimits:
    """What separates the classes."""

    flat_bytes_per_unit: float = 1024
    """Up to here a slope is flat. Chosen: the lazy loader's budget, 1/64 of one image's X at N = 64
    with 4 channels."""
    resolution_bytes_per_unit: float = 16 * 1024
    """What the interval of a flat slope has to exclude. Chosen: one float32 frame of 64 x 64."""
    bend_share: float = 0.1
    """Bulge of a superlinear series as a share of its rise. Computed: from 100 to 2000 images, size
    squared bulges by 23 %, size to the power 1.5 by 13 %, size times its logarithm by 4 %, which no
    sweep of four sizes can tell."""
    bend_p_value: float = 0.01
    """Chance of calling noise a bend. Chosen: a sweep has about a hundred growing series; size
    alone never decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that differ in one swept parameter alone."""

    scenario: str
    over: str
    constants: Mapping[str, Scalar]
    """The other parameters, with the values they have along the series."""
    points: tuple[Point, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The planned values of the swept parameter, ascending."""
        return tuple(sorted({size_of(point, self.over) for point in self.points}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One line through the runs of a series that finished a phase."""

    series: Series
    phase: str
    meter: str
    field: str
    quality: str
    sizes: tuple[int, ...]
    """The different sizes that were read, ascending."""
    runs: int
    line: Line
    growth_class: GrowthClass
    ceiling: Ceiling | None = None
    """Where the amounts level off; whether what is left of a slope there keeps a limit is for the
    rule to say."""

    @property
    def unit(self) -> str:
        """What one step of the swept parameter is called."""
        return unit_of(self.series.over)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The largest size that fits into a capacity, by the line and by both ends of its slope's
    interval.
    """

    size: int | None
    low: int | None
    """If the slope is as steep as its interval allows."""
    high: int | None
    """If it is as flat as its interval allows; None where that has no limit."""
    reason: str
    """Why there is no size, or how it was found."""


def planned_series(points: Sequence[Point], *swept: str) -> Iterator[Series]:
    """All series of at least two sizes over the ``swept`` parameters, by default over all that are
    whole numbers.

    In the order of the parameters, and for each in that of the points.
    """
    for over in swept or size_parameters(points):
        groups: dict[object, list[Point]] = {}
        for point in points:
            if is_size(point.parameters.get(over)):
                others = tuple(
                    (name, value) for name, value in point.parameters.items() if name != over
                )
                key = (
                    point.scenario,
                    others,
                    tuple(sorted(point.fixed.items())),
                    point.device_budget_bytes,
                )
                groups.setdefault(key, []).append(point)
        for members in groups.values():
            constants = {
                name: value for name, value in members[0].parameters.items() if name != over
            }
            series = Series(
                scenario=members[0].scenario, over=over, constants=constants, points=tuple(members)
            )
            if len(series.sizes) >= 2:
                yield series


def fit_run(run: Run, limits: GrowthLimits | None = None) -> tuple[Fit, ...]:
    """Every fit that the finished phases of a run allow, from two sizes on."""
    chosen = limits or GrowthLimits()
    amounts = amounts_by_place(run.phases)
    qualities = _qualities(run.phases)
    meters = [str(meter) for meter in run.phases["meter"].dropna().unique()]
    fits = (
        fit_series(series, phase, meter, field, amounts, qualities, chosen)
        for series in planned_series(run.points)
        for phase in dict.fromkeys(phase for point in series.points for phase in point.phases)
        for meter in meters
        for field in FIELDS
    )
    return tuple(fit for fit in fits if fit is not None)


def fit_series(
    series: Series,
    phase: str,
    meter: str,
    field: str,
    amounts: Mapping[Place, Sequence[int]],
    qualities: Mapping[tuple[str, str, str], str],
    limits: GrowthLimits,
) -> Fit | None:
    """One fit, or None when fewer than two sizes have been read."""
    read = [
        (size_of(point, series.over), amount)
        for point in series.points
        for amount in amounts.get((point.name, phase, meter, field), ())
    ]
    sizes = tuple(sorted({size for size, _ in read}))
    if len(sizes) < 2:
        return None
    line = fit_line([size for size, _ in read], [amount for _, amount in read])
    ceiling = find_ceiling([size for size, _ in read], [amount for _, amount in read])
    seen = {
        qualities[place]
        for point in series.points
        if (place := (point.name, phase, meter)) in qualities
    }
    return Fit(
        series=series,
        phase=phase,
        meter=meter,
        field=field,
        quality=" or ".join(sorted(seen)),
        sizes=sizes,
        runs=len(read),
        line=line,
        growth_class=classify(line, sizes, limits, ceiling),
        ceiling=ceiling,
    )


def classify(
    line: Line, sizes: Sequence[int], limits: GrowthLimits, ceiling: Ceiling | None = None
) -> GrowthClass:
    """The class of growth of a line through ``sizes`` (the different ones), and of where its
    amounts level off, if they do.

    ``linear`` when the whole interval of the slope lies beyond flat, also where memory is given
    back in proportion; ``ceiling`` when it rises so, but is level at the largest sizes, where
    nothing is left of the slope: flat from there on; ``superlinear`` when it rises so and bends
    upward, significantly and materially; ``flat`` when the interval excludes whatever a loader
    could keep for each image; else ``unresolved``, as is growth seen at two sizes only.
    """
    flat, resolution = limits.flat_bytes_per_unit, limits.resolution_bytes_per_unit
    rises, falls = line.slope_low > flat, line.slope_high < -flat
    is_level = (
        ceiling is not None
        and ceiling.rise > flat
        and ceiling.holds(at_most=flat, resolve=resolution)
    )
    if rises or falls:
        if len(sizes) < 3:
            return GrowthClass.UNRESOLVED
        material = line.bend_bytes > material_bend_bytes(line, sizes, limits)
        if rises and material and line.bend_p_value < limits.bend_p_value:
            return GrowthClass.SUPERLINEAR
        return GrowthClass.CEILING if rises and is_level else GrowthClass.LINEAR
    if -resolution <= line.slope_low and line.slope_high <= resolution:
        return GrowthClass.FLAT
    # No line goes through what levels off, however well its runs agree.
    return GrowthClass.CEILING if is_level else GrowthClass.UNRESOLVED


def material_bend_bytes(line: Line, sizes: Sequence[int], limits: GrowthLimits) -> float:
    """The bulge up to which a line through ``sizes`` counts as straight."""
    width = max(sizes) - min(sizes)
    return max(limits.bend_share * line.slope * width, limits.flat_bytes_per_unit * width / 4)


def largest_that_fits(fit: Fit, capacity_bytes: int) -> Forecast:
    """The largest size whose amount stays within ``capacity_bytes``, extrapolated along the fit."""
    if fit.growth_class is not GrowthClass.LINEAR or fit.line.slope <= 0:
        why = {
            GrowthClass.SUPERLINEAR: (
                "it grows faster than the data, so a line would promise too much"
            ),
            GrowthClass.UNRESOLVED: "its growth is not resolved; measure more sizes or repeats",
            GrowthClass.CEILING: _level_in_words(fit),
        }.get(fit.growth_class, f"it does not grow with the {count_in_words(fit.series.over)}")
        return Forecast(
            size=None,
            low=None,
            high=None,
            reason=f"no largest {count_in_words(fit.series.over)}: {why}",
        )
    room_bytes = capacity_bytes - fit.line.at(fit.line.mean_size)

    def size_at(slope: float) -> int:
        return max(0, math.floor(fit.line.mean_size + room_bytes / slope))

    # The steeper slope promises less beyond the measured sizes, and more below their mean.
    ends = sorted(size_at(slope) for slope in (fit.line.slope_low, fit.line.slope_high))
    reason = (
        f"by the line through {len(fit.sizes)} sizes from {fit.sizes[0]:,} to {fit.sizes[-1]:,}"
    )
    return Forecast(size=size_at(fit.line.slope), low=ends[0], high=ends[1], reason=reason)


def _level_in_words(fit: Fit) -> str:
    level = fit.ceiling
    return (
        "it levels off" if level is None else f"it levels off at {format_bytes(level.level_bytes)}"
    )


def fits_table(fits: Sequence[Fit]) -> pd.DataFrame:
    """The fits as fits.csv has them: one row each, with a column for each parameter (empty where it
    is swept).
    """
    slopes = {
        f"slope_bytes_per_{unit}": "float64"
        for unit in dict.fromkeys([*NAMED_STEPS.values(), *(fit.unit for fit in fits)])
    }
    types = {"scenario": "string", **_FIT_PLACE, **slopes, **_FIT_RESULT}
    parameters = columns_of((name for fit in fits for name in fit.series.constants), types)
    table = pd.DataFrame(
        [_fit_row(fit, parameters) for fit in fits],
        columns=["scenario", *parameters.values(), *_FIT_PLACE, *slopes, *_FIT_RESULT],
    )
    integers = [
        column
        for name, column in parameters.items()
        if _all_sizes([fit.series.constants.get(name) for fit in fits])
    ]
    return table.astype(types | dict.fromkeys(integers, "Int64"))


_FIT_PLACE = {
    "over": "string",
    "phase": "string",
    "meter": "string",
    "quality": "string",
    "field": "string",
}
_FIT_RESULT = {
    "slope_low": "float64",
    "slope_high": "float64",
    "intercept_bytes": "float64",
    "residual_bytes": "float64",
    "growth_class": "string",
    "sizes": "int64",
    "smallest": "int64",
    "largest": "int64",
    "runs": "int64",
}


def _fit_row(fit: Fit, parameters: Mapping[str, str]) -> dict[str, object]:
    return {
        "scenario": fit.series.scenario,
        **{
            parameters[name]: one_line(value) if isinstance(value, str) else value
            for name, value in fit.series.constants.items()
        },
        "over": fit.series.over,
        "phase": fit.phase,
        "meter": fit.meter,
        "quality": fit.quality,
        "field": fit.field,
        f"slope_bytes_per_{fit.unit}": fit.line.slope,
        "slope_low": fit.line.slope_low,
        "slope_high": fit.line.slope_high,
        "intercept_bytes": fit.line.intercept_bytes,
        "residual_bytes": fit.line.residual_bytes,
        "growth_class": str(fit.growth_class),
        "sizes": len(fit.sizes),
        "smallest": fit.sizes[0],
        "largest": fit.sizes[-1],
        "runs": fit.runs,
    }


def _all_sizes(values: Sequence[Scalar]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(is_size(value) for value in known)


def _qualities(phases: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    finished = phases[phases["finished"] & phases["meter"].notna()]
    return {
        (row["point"], row["phase"], row["meter"]): row["quality"]
        for row in finished.to_dict("records")
    }
