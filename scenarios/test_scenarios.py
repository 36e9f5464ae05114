"""The sweep as ordinary parametrized pytest: ``pytest scenarios -n 2 -k lazy``."""

from collections.abc import Callable

from harness.records import Point
from harness.rundir.rows import RunEnd


def test_point(point: Point, repeat: int, measure: Callable[[Point, int], RunEnd]) -> None:
    """The run ends as its scenario expects; how much memory it took is for the gate to judge."""
    end = measure(point, repeat)

    assert end.outcome is point.expected, f"{end.point} ended as {end.outcome}: {end.reason}"
