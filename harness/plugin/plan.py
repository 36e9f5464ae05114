"""What a collected session measures: the runs that its tests stand for, and which of them are wanted."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

import pytest

from harness.errors import UsageError
from harness.records import TRACED_REPEAT, Point

Run = tuple[Point, int]
"""A point and the number of the repeat."""


def run_of(item: pytest.Item) -> Run | None:
    """The run that the test measures, if it does: a test of a sweep, with ``point``, ``repeat`` and ``measure``."""
    callspec = getattr(item, "callspec", None)
    point = callspec.params.get("point") if callspec is not None else None
    if callspec is None or not isinstance(point, Point) or "measure" not in getattr(item, "fixturenames", ()):
        return None
    return point, callspec.params["repeat"]


def points_of(items: Iterable[pytest.Item]) -> list[Point]:
    """The points that the tests measure, each once, in order."""
    return list({run[0].name: run[0] for item in items if (run := run_of(item)) is not None}.values())


def is_left_untraced(item: pytest.Item) -> bool:
    """Whether the test is the traced run of a point that has none."""
    run = run_of(item)
    return run is not None and run[1] == TRACED_REPEAT and not run[0].traced


def any_traced(items: Iterable[pytest.Item]) -> bool:
    """Whether a traced run is among those that the tests measure."""
    return any(run is not None and run[1] == TRACED_REPEAT for run in map(run_of, items))


def is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a point's name matches one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(patterns: Sequence[str], points: Sequence[Point], option: str) -> None:
    """Raises UsageError for a pattern that no point's name matches, with the nearest name."""
    names = [point.name for point in points]
    for pattern in patterns:
        if not any(is_named(name, [pattern]) for name in names):
            raise UsageError(f"{option} {pattern!r} matches no point; {_nearest(pattern, names)}")


def _nearest(pattern: str, names: Sequence[str]) -> str:
    if not names:
        return "no collected test measures anything"
    # Cutoff 0: whatever is nearest is the best example of what names look like.
    (near,) = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
    return f"the nearest of {len(names)} is {near!r} (* stands for any letters)"
