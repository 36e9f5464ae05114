"""A straight line through whole numbers, in exact arithmetic: data without noise has an interval of
width 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from scipy.special import stdtr, stdtrit


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
    t_value = float(curvature) * math.sqrt(bow_spread) / math.sqrt(left / freedom)
    return bulge_bytes, float(stdtr(freedom, -t_value))
