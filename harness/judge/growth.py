"""Memory against data size: a fit for every series, phase and meter, its class of growth, and what
would still fit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from statistics import median, median_high
from typing import TYPE_CHECKING

from harness.judge.table import Place, Run, amounts_by_place
from harness.records import (
    NAMED_STEPS,
    Point,
    Scalar,
    is_size,
    size_of,
    size_parameters,
    unit_of,
)
from harness.words import columns_of, one_line

if TYPE_CHECKING:
    import pandas as pd

# A straight line through whole numbers, in exact arithmetic: data without noise has an interval
# of width 0.


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Amounts against sizes by ordinary least squares. Amounts in bytes, slopes in bytes for each
    unit of size.
    """

    slope: float
    slope_low: float
    """Lower end of the confidence interval (Student's t); -inf when two runs or fewer leave no
    interval."""
    slope_high: float
    intercept_bytes: float
    residual_bytes: float
    """Root mean square distance of the runs from the line."""
    mean_size: float
    bend_bytes: float
    """How far a parabola through the runs bulges below its chord over the sizes; negative when it
    bulges above."""
    bend_p_value: float
    """Chance of at least such a bend by noise alone; 1 where it cannot be tested."""

    @property
    def half_width(self) -> float:
        """Half the width of the slope's interval."""
        return (self.slope_high - self.slope_low) / 2

    def at(self, size: float) -> float:
        """The line's amount at a size, in bytes."""
        return self.intercept_bytes + self.slope * size


def fit_line(sizes: Sequence[int], amounts: Sequence[int], *, confidence: float = 0.95) -> Line:
    """Fit one line; every run counts as one observation.

    Fractions keep the sums exact, so that a slope of exactly the limit is not pushed over it by
    rounding. Raises ValueError for fewer than two different sizes, or sequences of different
    lengths.
    """
    if len(sizes) != len(amounts) or len(set(sizes)) < 2:
        raise ValueError(
            "a line needs as many amounts as sizes and two different sizes; got "
            f"{len(sizes)} and {len(amounts)}"
        )
    count, total_size, total_amount = len(sizes), sum(sizes), sum(amounts)
    # Distances from the means, times the count, so that all sums are of whole numbers: Fraction
    # would cancel at each step.
    steps = [count * size - total_size for size in sizes]
    rises = [count * amount - total_amount for amount in amounts]
    spread = sum(step * step for step in steps)
    product = sum(step * rise for step, rise in zip(steps, rises, strict=True))
    # Of each run from the line, times count * spread.
    offsets = [rise * spread - product * step for step, rise in zip(steps, rises, strict=True)]
    slope = Fraction(product, spread)
    mean_size, mean_amount = Fraction(total_size, count), Fraction(total_amount, count)
    squares = Fraction(sum(offset * offset for offset in offsets), (count * spread) ** 2)
    half_width = _half_width(squares, Fraction(spread, count**2), count - 2, confidence)
    bend_bytes, bend_p_value = _bend(steps, offsets, spread, squares)
    return Line(
        slope=float(slope),
        slope_low=float(slope) - half_width,
        slope_high=float(slope) + half_width,
        intercept_bytes=float(mean_amount - slope * mean_size),
        residual_bytes=math.sqrt(squares / count),
        mean_size=float(mean_size),
        bend_bytes=bend_bytes,
        bend_p_value=bend_p_value,
    )


def _half_width(squares: Fraction, spread: Fraction, freedom: int, confidence: float) -> float:
    if freedom < 1:
        return math.inf
    from scipy.special import stdtrit  # where a line is fitted, nowhere else

    return float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(squares / freedom / spread)


def _bend(
    steps: Sequence[int], offsets: Sequence[int], spread: int, squares: Fraction
) -> tuple[float, float]:
    """The square term beside the line, as a bulge in bytes, and its one-sided p value (t test of
    the extra term).

    ``steps`` are distances from the mean size times the count, ``spread`` the sum of their squares,
    ``offsets`` distances from the line times count * spread.
    """
    if len(set(steps)) < 3:
        return 0.0, 1.0
    count = len(steps)
    cubes = sum(step**3 for step in steps)
    # The part of size squared that neither a constant nor the line can take up, times count^3 *
    # spread.
    bows = [count * step * step * spread - spread * spread - count * cubes * step for step in steps]
    unit = count**3 * spread
    bow_spread = Fraction(sum(bow * bow for bow in bows), unit**2)
    product = Fraction(
        sum(bow * offset for bow, offset in zip(bows, offsets, strict=True)), unit * count * spread
    )
    curvature = product / bow_spread
    bulge_bytes = float(curvature * Fraction(max(steps) - min(steps), count) ** 2 / 4)
    freedom = count - 3
    left = squares - curvature * curvature * bow_spread
    if freedom < 1 or curvature == 0:
        return bulge_bytes, 1.0
    if left == 0:
        return bulge_bytes, 0.0 if curvature > 0 else 1.0
    from scipy.special import stdtr

    t_value = float(curvature) * math.sqrt(bow_spread) / math.sqrt(left / freedom)
    return bulge_bytes, float(stdtr(freedom, -t_value))


# A fixed amount that small sizes do not fill: it rises with them, and is level from some size
# on.


LEVEL_SHARE = 0.1
"""Chosen: level is what differs by no more than a tenth of the rise before it, over all runs, and
by no more than a tenth of what straight growth would have added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Where an amount levels off."""

    level_bytes: int
    from_size: int
    """The smallest of the sizes that have it."""
    smallest: int
    """The smallest size, which has less."""
    smallest_bytes: int
    line: Line
    """Through the runs that have it: what is left of the slope there."""

    @property
    def rise(self) -> float:
        """What each step from the smallest size to the level adds at least, in bytes: the level may
        have been reached before.
        """
        return (self.level_bytes - self.smallest_bytes) / (self.from_size - self.smallest)

    def holds(self, *, at_most: float, resolve: float) -> bool:
        """Whether the level part alone keeps a limit of growth for each image, and is exact enough
        to show it.
        """
        return (
            abs(self.line.slope) <= at_most
            and self.line.slope_high <= resolve
            and self.line.slope_low >= -resolve
        )


def find_ceiling(sizes: Sequence[int], amounts: Sequence[int]) -> Ceiling | None:
    """The level that the amounts of the largest sizes share, where those of smaller ones rise to
    it; None where they do not.

    Two sizes at least have to share it, with two runs of one of them (or three sizes), so that it
    is no chance: straight growth would have gone on between them, by far more than they differ.
    ``sizes`` and ``amounts`` are one of each for every run.
    """
    runs: dict[int, list[int]] = {size: [] for size in sorted(set(sizes))}
    for size, amount in zip(sizes, amounts, strict=True):
        runs[size].append(amount)
    ordered = list(runs)
    most_below = max(runs[ordered[0]])

    for place in range(1, len(ordered) - 1):
        level = ordered[place:]
        top = [amount for size in level for amount in runs[size]]
        rise = median(top) - median(runs[ordered[0]])
        straight = rise * (level[-1] - level[0]) / (level[0] - ordered[0])
        spread = max(top) - min(top)
        alone = len(level) < 3 and all(len(runs[size]) < 2 for size in level)
        is_below = most_below <= max(top)
        most_below = max(most_below, *runs[ordered[place]])
        if rise > 0 and is_below and not alone and spread <= LEVEL_SHARE * min(rise, straight):
            own = [(size, amount) for size in level for amount in runs[size]]
            line = fit_line([size for size, _ in own], [amount for _, amount in own])
            return Ceiling(
                level_bytes=median_high(top),
                from_size=level[0],
                smallest=ordered[0],
                smallest_bytes=median_high(runs[ordered[0]]),
                line=line,
            )
    return None


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
    amounts = amounts_by_place(run)
    qualities = _qualities(run)
    meters = dict.fromkeys(row.reading.meter for row in run.rows if row.reading is not None)
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


def fits_table(fits: Sequence[Fit]) -> "pd.DataFrame":
    """The fits as fits.csv has them: one row each, with a column for each parameter (empty where it
    is swept).
    """
    import pandas as pd  # for people; judging needs none

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


def _qualities(run: Run) -> dict[tuple[str, str, str], str]:
    """By point, phase and meter; of several repeats the last one's."""
    return {
        (row.run[0], row.phase, row.reading.meter): str(row.reading.quality)
        for row in run.rows
        if row.finished and row.phase is not None and row.reading is not None
    }
