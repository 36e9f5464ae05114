"""Rates with exact intervals (Clopper and Pearson, 1934): k of n says little about a rate when n is
small.
"""

from dataclasses import dataclass

from scipy.stats import binomtest

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` of ``total``."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the rate, both ends within 0..1; all of it where nothing was
        tried.
        """
        if not self.total:
            return 0.0, 1.0
        found = binomtest(self.count, self.total).proportion_ci(LEVEL, method="exact")
        return float(found.low), float(found.high)

    @property
    def in_words(self) -> str:
        """As in ``"200 of 200 (98.2 to 100 %)"``."""
        low, high = (f"{100 * end:.1f}".removesuffix(".0") for end in self.interval)
        return f"{self.count} of {self.total} ({low} to {high} %)"
