"""A fixed amount that small sizes do not fill: it rises with them, and is level from some size
on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_high

from harness.judge.line import Line, fit_line

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
    runs = {
        size: [amount for other, amount in zip(sizes, amounts, strict=True) if other == size]
        for size in sorted(set(sizes))
    }
    ordered = list(runs)
    for place in range(1, len(ordered) - 1):
        level, rising = ordered[place:], ordered[:place]
        top = [amount for size in level for amount in runs[size]]
        rise = median(top) - median(runs[ordered[0]])
        straight = rise * (level[-1] - level[0]) / (level[0] - ordered[0])
        spread = max(top) - min(top)
        below = all(max(runs[size]) <= max(top) for size in rising)
        alone = len(level) < 3 and all(len(runs[size]) < 2 for size in level)
        if rise > 0 and below and not alone and spread <= LEVEL_SHARE * min(rise, straight):
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
