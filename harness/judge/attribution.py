"""What grew, in the user's terms: as a multiple of the arrays that the body declared, and by what was alive at the peak."""

from collections.abc import Iterator, Mapping, Sequence

from harness.judge.line import Line
from harness.judge.scaling import Series
from harness.judge.sizes import size_of
from harness.judge.traces import Alive, Trace
from harness.records import Point

MATCH_SHARE = 0.01
"""Chosen: as for allocations of a trace; arrays of a scenario differ by far more, and an allocator rounds by far less."""
MOST_MULTIPLES = 16
"""Chosen: beyond it a whole multiple of something small is found in any amount."""
MOST_NOISE_SHARE = 0.25
"""Chosen: an interval wider than a quarter of its slope holds multiples of everything."""
_MOST_NAMES = 3
_SCRAP = 100
"""What grew by less than such a part of what grew most explains nothing; chosen as in the reasons of out of memory."""
_MOST_ALIVE = 2


def as_multiple(amount_bytes: float, units: Mapping[str, float], *, within: float = 0.0) -> str:
    """``"2.00 x X"``: the smallest whole multiple of a declared array that the amount is near; empty where there is none.

    ``units`` are bytes by name, those that say most first: equals are named together, ``"1.00 x X (as large: Y_I)"``.
    ``within`` is how many bytes the amount is uncertain by, where that is more than ``MATCH_SHARE``.
    """
    found: dict[int, list[tuple[float, str]]] = {}
    for name, unit_bytes in units.items():
        ratio = amount_bytes / unit_bytes if unit_bytes > 0 else 0.0
        whole = round(ratio)
        if 1 <= whole <= MOST_MULTIPLES and abs(ratio - whole) * unit_bytes <= max(MATCH_SHARE * whole * unit_bytes, within):
            found.setdefault(whole, []).append((ratio, name))
    if not found:
        return ""
    ratio, *_ = (ratio for ratio, _ in found[min(found)])
    first, *others = [name for _, name in found[min(found)]]
    alike = f" (as large: {', '.join(others[: _MOST_NAMES - 1])})" if others else ""
    return f"{'about ' if within else ''}{ratio:.2f} x {first}{alike}"


def slope_as_multiple(line: Line, series: Series, declared: Mapping[str, Mapping[str, int]]) -> str:
    """What each further image or frame costs, as a multiple of what the bodies declared for one of it."""
    if line.slope <= 0 or line.half_width > MOST_NOISE_SHARE * line.slope:
        return ""
    exact = line.half_width <= MATCH_SHARE * line.slope
    return as_multiple(line.slope, dict(_units(series, declared)), within=0.0 if exact else line.half_width)


def alive_at_peak(traces: Mapping[str, Trace], points: Sequence[Point], phase: str) -> str:
    """What was alive at the peak of a phase, as far as traces tell: what grew most from the first of the points to the last.

    ``points`` ascend in size; of one point it is what was alive there. What was there at the peak of the phase before as
    well comes last. Empty where no trace has the phase.
    """
    traced = [(point, alive) for point in points if (alive := _alive(traces, point.name, phase)) is not None]
    if not traced:
        return ""
    (_, least), (point, most) = traced[0], traced[-1]
    smaller = _by_kind(least) if len(traced) > 1 else {}
    growth = {kind: total - smaller.get(kind, 0) for kind, total in _by_kind(most).items()}
    earlier = set(_alive(traces, point.name, _phase_before(point, phase)) or ())
    least_bytes = max(growth.values(), default=0) / _SCRAP
    grown = sorted(
        (one for one in most if growth[_kind(one)] > 0 and growth[_kind(one)] >= least_bytes),
        key=lambda one: (one in earlier, -growth[_kind(one)]),
    )
    told = "; ".join(one.short for one in grown[:_MOST_ALIVE])
    return f"alive at the peak of {point.name}: {told}" if told else ""


def _units(series: Series, declared: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, float]]:
    """Declared bytes for one image or frame: first arrays that grow with the series, then those that do not."""
    ends = sorted(series.points, key=lambda point: size_of(point, series.over))
    first, last = declared.get(ends[0].name, {}), declared.get(ends[-1].name, {})
    step = size_of(ends[-1], series.over) - size_of(ends[0], series.over)
    both = [name for name in last if name in first]
    yield from ((name, (last[name] - first[name]) / step) for name in both if last[name] > first[name])
    yield from ((name, float(last[name])) for name in both if last[name] == first[name])


def _alive(traces: Mapping[str, Trace], point: str, phase: str) -> tuple[Alive, ...] | None:
    trace = traces.get(point)
    return None if trace is None else next((traced.alive for traced in trace.phases if traced.phase == phase), None)


def _phase_before(point: Point, phase: str) -> str:
    place = point.phases.index(phase) if phase in point.phases else 0
    return point.phases[place - 1] if place else ""


def _kind(alive: Alive) -> tuple[str, str]:
    return alive.op, alive.dtype


def _by_kind(alive: Sequence[Alive]) -> dict[tuple[str, str], int]:
    totals: dict[tuple[str, str], int] = {}
    for one in alive:
        totals[_kind(one)] = totals.get(_kind(one), 0) + one.total_bytes
    return totals
