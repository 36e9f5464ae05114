"""A straight line through whole numbers, in exact arithmetic: data without noise has an interval of width 0."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from scipy.special import stdtr, stdtrit


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Amounts against sizes by ordinary least squares. Amounts in bytes, slopes in bytes for each unit of size."""

    slope: float
    slope_low: float
    """Lower end of the confidence interval (Student's t); -inf when two runs or fewer leave no interval."""
    slope_high: float
    intercept_bytes: float
    residual_bytes: float
    """Root mean square distance of the runs from the line."""
    mean_size: float
    bend_bytes: float
    """How far a parabola through the runs bulges below its chord over the sizes; negative when it bulges above."""
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

    Fractions keep the sums exact, so that a slope of exactly the limit is not pushed over it by rounding.
    Raises ValueError for fewer than two different sizes, or sequences of different lengths.
    """
    if len(sizes) != len(amounts) or len(set(sizes)) < 2:
        raise ValueError(f"a line needs as many amounts as sizes and two different sizes; got {len(sizes)} and {len(amounts)}")
    count = len(sizes)
    mean_size, mean_amount = Fraction(sum(sizes), count), Fraction(sum(amounts), count)
    steps = [size - mean_size for size in sizes]
    spread = _squares(steps)
    slope = sum((step * amount for step, amount in zip(steps, amounts, strict=True)), Fraction()) / spread
    offsets = [amount - mean_amount - slope * step for step, amount in zip(steps, amounts, strict=True)]
    squares = _squares(offsets)
    half_width = _half_width(squares, spread, count - 2, confidence)
    bend_bytes, bend_p_value = _bend(steps, offsets, squares)
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


def _squares(values: Sequence[Fraction]) -> Fraction:
    return sum((value * value for value in values), Fraction())


def _half_width(squares: Fraction, spread: Fraction, freedom: int, confidence: float) -> float:
    if freedom < 1:
        return math.inf
    return float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(squares / freedom / spread)


def _bend(steps: Sequence[Fraction], offsets: Sequence[Fraction], squares: Fraction) -> tuple[float, float]:
    """The square term beside the line, as a bulge in bytes, and its one-sided p value (t test of the extra term)."""
    if len(set(steps)) < 3:
        return 0.0, 1.0
    count = len(steps)
    spread = _squares(steps)
    mean_square = spread / count
    tilt = sum(step**3 for step in steps) / spread
    # The part of size squared that neither a constant nor the line can take up.
    bows = [step * step - mean_square - tilt * step for step in steps]
    bow_spread = _squares(bows)
    curvature = sum((bow * offset for bow, offset in zip(bows, offsets, strict=True)), Fraction()) / bow_spread
    bulge_bytes = float(curvature * (max(steps) - min(steps)) ** 2 / 4)
    freedom = count - 3
    left = squares - curvature * curvature * bow_spread
    if freedom < 1 or curvature == 0:
        return bulge_bytes, 1.0
    if left == 0:
        return bulge_bytes, 0.0 if curvature > 0 else 1.0
    t_value = float(curvature) * math.sqrt(bow_spread) / math.sqrt(left / freedom)
    return bulge_bytes, float(stdtr(freedom, -t_value))
