"""What a run plans, in the terms of the page: which series there are, what each scenario is swept
over, and which scenario is the main one. Worked out once for each run.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from harness.records import Point, is_size, size_parameters

SWEPT = "size"
"""The column of what a scenario is swept over: its numbers of images, or the values of another
parameter."""
IMAGES = "image_count"
"""The parameter that goes before all others as what a scenario is swept over."""
STACK = "stack_size"
LOADER = "loader"

_COLUMNS = [
    "point",
    "scenario",
    "series",
    "over",
    SWEPT,
    STACK,
    "device_budget_bytes",
    "expected",
]


class Plan:
    """The planned points of a run, and what follows from them alone."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = tuple(points)

    @cached_property
    def scenarios(self) -> tuple[str, ...]:
        """Their names, in the order of the plan."""
        return tuple(dict.fromkeys(point.scenario for point in self.points))

    @cached_property
    def with_loaders(self) -> frozenset[str]:
        """The scenarios that have loaders to compare."""
        return frozenset(point.scenario for point in self.points if LOADER in point.parameters)

    @cached_property
    def shared_budget_bytes(self) -> int | None:
        """The device's size that every point asks for, which is then that of the run; None where
        they differ, or ask for none.
        """
        budgets = {point.device_budget_bytes for point in self.points}
        return budgets.pop() if len(budgets) == 1 else None

    @cached_property
    def swept_parameters(self) -> Mapping[str, str]:
        """By scenario, the parameter that it is swept over; empty where there is none.

        The number of images goes first, then the parameter of sizes with most values. A larger
        stack is another setting of the same sweep.
        """
        found = {}
        for scenario in self.scenarios:
            own = [point for point in self.points if point.scenario == scenario]
            counts = {
                name: len({_size(point, name) for point in own} - {None})
                for name in size_parameters(own)
                if name != STACK
            }
            varied = {
                name: number for name, number in counts.items() if number > 1 or name == IMAGES
            }
            most = max(varied, key=lambda name: varied[name], default="")
            found[scenario] = IMAGES if IMAGES in varied else most
        return found

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per planned point, in the order of the plan.

        Columns: point, scenario, series (the loader, or the scenario where it has none, and any
        parameters besides the sizes), over (the parameter that the scenario is swept over, empty
        where there is none), size (its value) and stack_size (Int64, NA where the point has none),
        device_budget_bytes (Int64, NA also where all points share one: see
        ``shared_budget_bytes``), expected.
        """
        is_shared = self.shared_budget_bytes is not None
        rows = [
            {
                "point": point.name,
                "scenario": point.scenario,
                "series": _series(point, over),
                "over": over,
                SWEPT: _size(point, over),
                STACK: point.parameters.get(STACK),
                "device_budget_bytes": None if is_shared else point.device_budget_bytes,
                "expected": str(point.expected),
            }
            for point in self.points
            for over in [self.swept_parameters[point.scenario]]
        ]
        table = pd.DataFrame(rows, columns=_COLUMNS)
        return table.astype({SWEPT: "Int64", STACK: "Int64", "device_budget_bytes": "Int64"})

    @cached_property
    def main_scenario(self) -> str:
        """The scenario of the pictures: the one with the most image counts on the run's own device;
        empty when none has any.
        """
        swept = self.table.dropna(subset=[SWEPT])
        return str(richest(swept[swept["device_budget_bytes"].isna()], "scenario") or "")

    def scenarios_beside(self, scenario: str) -> tuple[str, ...]:
        """The scenario, and where it has no loaders to compare, all others without any that are
        swept over the same parameter.
        """
        swept = self.swept_parameters
        others = [
            name
            for name in swept
            if name not in self.with_loaders and swept[name] == swept.get(scenario)
        ]
        return tuple(dict.fromkeys([scenario, *others])) if scenario in others else (scenario,)


def own_name(scenario: str, series: str) -> str:
    """A series without the name of its scenario, which one without a loader begins with.

    >>> own_name("feed", "feed, way=right"), own_name("feed", "feed"), own_name("feed", "lazy")
    ('way=right', 'feed', 'lazy')
    """
    return series.removeprefix(f"{scenario}, ")


def richest(table: pd.DataFrame, column: str) -> object | None:
    """The value of the column with the most distinct sizes; the first in the table among equals."""
    if table.empty:
        return None
    sizes = table.groupby(column, sort=False)[SWEPT].nunique()
    return sizes.index[int(np.argmax(sizes.to_numpy()))]  # type: ignore[no-any-return]


def _size(point: Point, name: str) -> int | None:
    value = point.parameters.get(name)
    return value if is_size(value) else None


def _series(point: Point, over: str) -> str:
    others = [
        f"{name}={value}"
        for name, value in point.parameters.items()
        if name not in {LOADER, over, STACK}
    ]
    return ", ".join([str(point.parameters.get(LOADER, point.scenario)), *others])
