"""Times of contenders in turns, so that a noisy machine is as noisy for each."""

import time
from collections.abc import Callable, Mapping
from statistics import median

Seconds = dict[str, list[float]]


def in_turns(contenders: Mapping[str, Callable[[], int]], repeats: int) -> Seconds:
    """Seconds for one group of every contender in every round; a contender returns how many groups
    it has fed.

    The first round warms up and is not counted.
    """
    seconds: Seconds = {name: [] for name in contenders}
    for round_ in range(repeats + 1):
        for name, feed in contenders.items():
            start = time.perf_counter()
            groups = feed()
            if round_:
                seconds[name].append((time.perf_counter() - start) / groups)
    return seconds


def speed_ratio(seconds: Seconds, name: str, other: str) -> float:
    """How fast ``name`` is, ``other`` being 1: the median of the rounds' own ratios."""
    return median(b / a for a, b in zip(seconds[name], seconds[other], strict=True))


def per_second(seconds: Seconds) -> dict[str, float]:
    """Groups per second, median of the rounds."""
    return {name: 1 / median(times) for name, times in seconds.items()}
