"""What the scaling plots show: an amount of each series over its sizes, what it was before, the
limit that it is held against, and the points that break it.

Only a limit on the very amount that is drawn is drawn.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from harness.judge import Check, RuleName
from harness.judge.gate import Judgement
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import NAMED_STEPS, Outcome
from harness.words import format_bytes

from .earlier import Earlier
from .frames import peak_line
from .plan import STACK, SWEPT, own_name, richest
from .view import RunView
from .words import rate

METERS: Mapping[str, str] = {DEVICE_IN_USE: "device", HOST_ANON: "host"}
"""What the plots show, in one word each: the meters that the gate judges."""
SAME = 0.1
"""A limit on an amount that lies within such a part of the one that is drawn, at every size, is
drawn with it, as far above it as it is in its own phase. Chosen: what start-up, coordinates and
scratch make up of a batch."""
_LIMITS = (RuleName.SLOPE, RuleName.BUDGET)

Amounts = tuple[tuple[int, float], ...]
"""Sizes, ascending, and an amount in bytes at each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One series."""

    series: str
    amounts: Amounts
    earlier: Amounts = ()
    limits: Amounts = ()
    """At most so much is allowed."""
    broken: frozenset[int] = frozenset()
    """Sizes at which something was found."""
    died: tuple[tuple[int, float], ...] = ()
    """Sizes at which the device ran out of memory, and its size in bytes."""
    unit: str = "image"

    @property
    def slope(self) -> float | None:
        """Bytes for each further image by a straight line; None with one size."""
        table = pd.DataFrame(self.amounts, columns=[SWEPT, "peak_bytes"])
        line = peak_line(table)
        return None if line is None else line.slope

    @property
    def words(self) -> str:
        """Everything about it in one line, for whoever does not see the plot."""
        parts = []
        if self.amounts:
            size, amount = self.amounts[-1]
            parts.append(f"{format_bytes(amount)} at {size:,}")
        slope = self.slope
        parts += [] if slope is None else [rate(slope, self.unit)]
        if self.limits:
            size, limit = self.limits[-1]
            parts.append(f"at most {format_bytes(limit)} allowed at {size:,}")
        if self.earlier:
            size, amount = self.earlier[-1]
            parts.append(f"before {format_bytes(amount)} at {size:,}")
        parts += [f"out of memory at {size:,} with {format_bytes(of)}" for size, of in self.died]
        return f"{self.series}: {', '.join(parts) or 'nothing was read'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot."""

    name: str
    """Of its file, and of its ids in the page."""
    scenario: str
    meter: str
    title: str
    over: str
    """The parameter along the x axis."""
    quantity: str
    """What the y axis shows."""
    curves: tuple[Curve, ...]
    device_bytes: int | None = None
    """Size of the device, where something came near it."""

    @property
    def is_odd(self) -> bool:
        """Whether something was found in it, or died."""
        return any(curve.broken or curve.died for curve in self.curves)

    @property
    def description(self) -> str:
        """The plot as a sentence."""
        said = "; ".join(curve.words for curve in self.curves)
        return f"{self.title}: {self.quantity}. {said}."


MOST_PANELS = 40
"""Plots of the page. Chosen: each takes some 10 kB, and nobody looks through more."""


def worth_drawing(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """As many plots as a page has room for, in their order: those in which something was found or
    died before all others.
    """
    ranked = sorted(panels, key=lambda panel: not panel.is_odd)
    chosen = {panel.name for panel in ranked[:MOST_PANELS]}
    return tuple(panel for panel in panels if panel.name in chosen)


def run_panels(view: RunView, judgement: Judgement, earlier: Earlier) -> tuple[Panel, ...]:
    """One for each scenario, meter and swept parameter: how far a whole run rises."""
    panels: list[Panel] = []
    for scenario in view.plan.scenarios:
        swept = view.plan.swept_parameters.get(scenario, "")
        for over, column in _swept(view, scenario):
            of_stack = ", larger stack" if swept and column == STACK else ""
            for meter, word in METERS.items():
                rows = _rows(view, scenario, meter, column)
                curves = tuple(_run_curves(judgement, earlier, rows, meter, column))
                if (meter, column) == (DEVICE_IN_USE, SWEPT):
                    curves = tuple(_with_deaths(curves, _deaths(view, scenario)))
                if any(curve.amounts or curve.died for curve in curves):
                    panels.append(
                        Panel(
                            name=f"scaling-{len(panels) + 1}",
                            scenario=scenario,
                            meter=meter,
                            title=f"{scenario}: {word}{of_stack}",
                            over=over,
                            quantity="peak of a run over its start",
                            curves=curves,
                            device_bytes=_near(view, curves) if meter == DEVICE_IN_USE else None,
                        )
                    )
    return tuple(panels)


def _swept(view: RunView, scenario: str) -> Iterator[tuple[str, str]]:
    """What the scenario is swept over, and its column; a larger stack is a plot of its own."""
    over = view.plan.swept_parameters.get(scenario, "")
    if over:
        yield over, SWEPT
    if len(_of_stacks(view, scenario, DEVICE_IN_USE)) or len(_of_stacks(view, scenario, HOST_ANON)):
        yield STACK, STACK


def _of_stacks(view: RunView, scenario: str, meter: str) -> pd.DataFrame:
    """Rows of several stack sizes: at the largest size of the scenario, or of one without sizes."""
    table = view.stacks
    if len(table) and (table["scenario"] == scenario).any():
        return table[(table["scenario"] == scenario) & (table["meter"] == meter)]
    table = view.peaks[meter]
    mine = table[(table["scenario"] == scenario) & table[SWEPT].isna()].dropna(subset=[STACK])
    return mine[mine.groupby("series")[STACK].transform("nunique") > 1]


def _rows(view: RunView, scenario: str, meter: str, column: str) -> pd.DataFrame:
    """Rows of ``frames.run_peaks``; where the sizes are swept, of one stack size."""
    if column == STACK:
        return _of_stacks(view, scenario, meter)
    table = view.peaks[meter]
    table = table[table["scenario"] == scenario].dropna(subset=[SWEPT])
    stack = richest(table.dropna(subset=[STACK]), STACK)
    return table if stack is None else table[table[STACK].isna() | (table[STACK] == stack)]


def _run_curves(
    judgement: Judgement,
    earlier: Earlier,
    rows: pd.DataFrame,
    meter: str,
    column: str,
) -> Iterator[Curve]:
    for name, mine in rows.sort_values(column, kind="stable").groupby("series", sort=False):
        sizes = {str(row["point"]): int(row[column]) for _, row in mine.iterrows()}
        rises = {str(row["point"]): int(row["rise_bytes"]) for _, row in mine.iterrows()}
        checks = [check for check in _about(judgement, sizes) if check.meter in (meter, "")]
        before = [
            (size, float(earlier.rises[point, meter]))
            for point, size in sizes.items()
            if (point, meter) in earlier.rises
        ]
        over = str(mine["over"].iloc[0]) if column == SWEPT else column
        yield Curve(
            series=own_name(str(mine["scenario"].iloc[0]), str(name)),
            amounts=tuple((sizes[point], float(rise)) for point, rise in rises.items()),
            earlier=tuple(before),
            limits=_limits(checks, sizes, rises),
            broken=frozenset(broken_sizes(checks, sizes)),
            unit=NAMED_STEPS.get(over, over),
        )


def _with_deaths(
    curves: Sequence[Curve], died: Mapping[str, tuple[tuple[int, float], ...]]
) -> Iterator[Curve]:
    """Each series with where it ran out of memory; also those that never did anything else."""
    for curve in curves:
        yield replace(curve, died=died.get(curve.series, ()))
    for name in sorted(died.keys() - {curve.series for curve in curves}):
        yield Curve(series=name, amounts=(), died=died[name])


def _about(judgement: Judgement, sizes: Mapping[str, int]) -> Iterator[Check]:
    """The checks that rest on points of the series alone."""
    for check in judgement.verdict.checks:
        points = set(check.points) | ({check.point} if check.point else set())
        if points and points <= set(sizes):
            yield check


def _limits(checks: Iterable[Check], sizes: Mapping[str, int], rises: Mapping[str, int]) -> Amounts:
    """The lowest upper limit at each size, of those on the amount that is drawn."""
    lowest: dict[int, float] = {}
    for check in checks:
        read = least_of(check)
        is_limit = check.rule in _LIMITS and check.bound == "upper" and check.limit is not None
        if is_limit and all(is_same(rises[point], amount) for point, amount in read.items()):
            for point, limit in allowed_of(check, sizes):
                size, over = sizes[point], rises[point] - read[point]
                lowest[size] = min(limit + over, lowest.get(size, float("inf")))
    return tuple(sorted(lowest.items()))


def is_same(drawn: float, read: float) -> bool:
    """Whether a limit on what was read may be drawn beside an amount."""
    return abs(drawn - read) <= SAME * abs(drawn)


def allowed_of(check: Check, sizes: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    """What a limit allows each point that it rests on; a slope is drawn from the smallest size."""
    read = {point: amount for point, amount in least_of(check).items() if point in sizes}
    limit = check.limit or 0.0
    if check.unit == "B":
        yield from ((point, limit) for point in read)
    elif read:
        first = min(read, key=lambda point: sizes[point])
        yield from ((point, read[first] + limit * (sizes[point] - sizes[first])) for point in read)


def least_of(check: Check) -> dict[str, int]:
    """The least reading of each point, in bytes."""
    found: dict[str, int] = {}
    for seen in check.readings:
        found[seen.point] = min(seen.amount_bytes, found.get(seen.point, seen.amount_bytes))
    return found


def broken_sizes(checks: Iterable[Check], sizes: Mapping[str, int]) -> Iterator[int]:
    """Where something was found: at its point; a slope at its largest size. What was never read has
    no place in a plot.
    """
    for check in checks:
        if check.finding is not None:
            points = [check.point] if check.point else list(check.points)
            if known := [sizes[point] for point in points if point in sizes]:
                yield max(known)


def _near(view: RunView, curves: Iterable[Curve]) -> int | None:
    """The device's size, where half of it was taken."""
    device = view.picture.device_bytes
    most = max((amount for curve in curves for _, amount in curve.amounts), default=0.0)
    return device if device and 2 * most >= device else None


def _deaths(view: RunView, scenario: str) -> dict[str, tuple[tuple[int, float], ...]]:
    """Where the device ran out of memory, by series: sizes, and the size of the device."""
    ends = view.run.ends
    died = set(ends.loc[ends["outcome"] == Outcome.DEVICE_OOM, "point"].astype(str))
    table = view.plan.table.dropna(subset=[SWEPT])
    rows = table[(table["scenario"] == scenario) & table["point"].isin(died)]
    found: dict[str, tuple[tuple[int, float], ...]] = {}
    for _, row in rows.sort_values(SWEPT).iterrows():
        budget = row["device_budget_bytes"]
        size = view.picture.device_bytes if budget is pd.NA else int(budget)
        if size:
            name = own_name(scenario, str(row["series"]))
            found[name] = (*found.get(name, ()), (int(row[SWEPT]), float(size)))
    return found
