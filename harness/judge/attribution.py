"""What grew, in the user's terms: as a multiple of the arrays that the body declared, and by what
was alive at the peak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.judge.growth import Line, Series
from harness.records import Point, size_of
from harness.rundir.traces import Alive, Trace, TracedPhase
from harness.words import largest_in_words

MATCH_SHARE = 0.01
"""Chosen: as for allocations of a trace; arrays of a scenario differ by far more, and an allocator
rounds by far less."""
MOST_MULTIPLES = 16
"""Chosen: beyond it a whole multiple of something small is found in any amount."""
MOST_NOISE_SHARE = 0.25
"""Chosen: an interval wider than a quarter of its slope holds multiples of everything."""
_MOST_NAMES = 3
_MOST_SECOND = 3
"""Chosen: a second way to make up the amount is said up to so many times an array; an image is
always some frames."""
_SCRAP = 100
"""What grew by less than such a part of what grew most explains nothing; chosen as in the reasons
of out of memory."""
_ACCOUNTED = 0.9
"""Chosen: what is new at a peak explains the growth where it adds up to so much of it; else what
was there before is named too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveThen:
    """What a trace says was alive at one moment."""

    words: str
    """``"alive at the peak of PHASE in POINT: A; B; and 12 others, 3.0 KiB together"``; empty where
    no trace tells it."""
    grown_bytes: int = 0
    """What the kind that grew most grew by, from the smallest of the traced points to the largest;
    of one point, what it is."""
    points: tuple[Point, ...] = ()
    """The first and the last of the traced points; of one, that one."""


NOTHING_TOLD = AliveThen(words="")


def as_multiple(amount_bytes: float, units: Mapping[str, float], *, within: float = 0.0) -> str:
    """``"2.00 x X"``: the smallest whole multiple of a declared array that the amount is near;
    empty where there is none.

    ``units`` are bytes by name, those that say most first: equals are named together, ``"1.00 x X
    (or Y_I)"``, and a small multiple of another one beside it, ``"1.00 x Y or 2.00 x X"``: sizes
    alone do not tell which of them it is. ``within`` is how many bytes the amount is uncertain by,
    where that is more than ``MATCH_SHARE``.
    """
    found: dict[int, list[tuple[float, str]]] = {}
    for name, unit_bytes in units.items():
        ratio = amount_bytes / unit_bytes if unit_bytes > 0 else 0.0
        whole = round(ratio)
        if 1 <= whole <= MOST_MULTIPLES and abs(ratio - whole) * unit_bytes <= max(
            MATCH_SHARE * whole * unit_bytes, within
        ):
            found.setdefault(whole, []).append((ratio, name))
    if not found:
        return ""
    smallest, *others = sorted(found)
    told = [smallest, *(whole for whole in others[:1] if whole <= _MOST_SECOND)]
    return f"{'about ' if within else ''}{' or '.join(_multiple(found[whole]) for whole in told)}"


def _multiple(alike: Sequence[tuple[float, str]]) -> str:
    (ratio, first), *others = alike
    more = f" (or {', '.join(name for _, name in others[: _MOST_NAMES - 1])})" if others else ""
    return f"{ratio:.2f} x {first}{more}"


def is_explained(amount_bytes: float, one_bytes: float) -> bool:
    """Whether one kind of allocation alone makes up the amount: only then is the amount a multiple
    of one array.
    """
    return abs(amount_bytes - one_bytes) <= MATCH_SHARE * amount_bytes


def slope_as_multiple(line: Line, series: Series, declared: Mapping[str, Mapping[str, int]]) -> str:
    """What each further image or frame costs, as a multiple of what the bodies declared for one of
    it.
    """
    if line.slope <= 0 or line.half_width > MOST_NOISE_SHARE * line.slope:
        return ""
    exact = line.half_width <= MATCH_SHARE * line.slope
    growing, fixed = _units(series, declared)
    within = 0.0 if exact else line.half_width
    return as_multiple(line.slope, growing, within=within) or as_multiple(
        line.slope, fixed, within=within
    )


def alive_then(
    traces: Mapping[str, Trace], points: Sequence[Point], phase: str, field: str
) -> AliveThen:
    """What was alive when ``field`` of a phase was read, as far as traces tell: what grew from the
    first of the points to the last.

    ``points`` ascend in size; of one point it is what was alive there. Traces hold what was alive
    at peaks: the start is known where a phase peaked as it began, the end where the next one did;
    else nothing is said, since what another moment had may not have been made yet, or be gone.
    Named are the largest by their own bytes; of a growth, only what is new since the peak of the
    phase before, where that accounts for it.
    """
    moment = (
        "start"
        if field.endswith("start")
        else "end"
        if field in ("end", "retained", "net_end")
        else "peak"
    )
    traced = [
        (point, alive)
        for point in points
        if (alive := _alive(traces, point, phase, moment)) is not None
    ]
    return (
        _told(traces, traced, phase, moment, new_only=field in ("growth", "retained"))
        if traced
        else NOTHING_TOLD
    )


def risen(traces: Mapping[str, Trace], point: Point, phases: tuple[str, str], field: str) -> str:
    """What a later phase of a run had more of than an earlier one that did the same, at its end or
    its peak; empty if unknown.
    """
    earlier, later = phases
    for moment in ("end", "peak") if field == "end" else ("peak",):
        before, after = (_alive(traces, point, phase, moment) for phase in (earlier, later))
        if before is not None and after is not None:
            counts = {_group(one): one.count for one in before}
            more = [(one, one.count - counts.get(_group(one), 0)) for one in after]
            extra = [replace(one, count=number) for one, number in more if number > 0]
            what, when = (
                ("ended", "when {} ended") if moment == "end" else ("peaked", "at the peak of {}")
            )
            when = f"{when} (what both ended with is not traced)" if moment != field else when
            named = largest_in_words([one.counted for one in extra])
            return (
                f"alive {when.format(later)}, beyond what there was when {earlier} {what}: {named}"
                if extra
                else ""
            )
    return ""


def _told(
    traces: Mapping[str, Trace],
    traced: Sequence[tuple[Point, Sequence[Alive]]],
    phase: str,
    moment: str,
    *,
    new_only: bool,
) -> AliveThen:
    (first, least), (point, most) = traced[0], traced[-1]
    smaller = _by_kind(least) if len(traced) > 1 else {}
    growth = {kind: total - smaller.get(kind, 0) for kind, total in _by_kind(most).items()}
    least_bytes = max(growth.values(), default=0) / _SCRAP
    grown = [one for one in most if growth[_kind(one)] > 0 and growth[_kind(one)] >= least_bytes]
    if new_only:
        grown = _new(traces, point, phase, grown)
    if not grown:
        return NOTHING_TOLD
    names = {one.counted for one in grown}
    rest = [one for one in most if one.counted not in names]
    told = largest_in_words([*(one.counted for one in grown)], beside=[one.counted for one in rest])
    when = {
        "peak": f"at the peak of {phase} in",
        "start": f"when {phase} began in",
        "end": f"when {phase} ended in",
    }[moment]
    return AliveThen(
        words=f"alive {when} {point.name}: {told}",
        grown_bytes=max(growth[_kind(one)] for one in grown),
        points=(first, point) if len(traced) > 1 else (point,),
    )


def _new(
    traces: Mapping[str, Trace], point: Point, phase: str, grown: Sequence[Alive]
) -> list[Alive]:
    """Without what was alive at the peak of the phase before as well, where the others account for
    the growth.
    """
    earlier = set(_alive(traces, point, _phase_before(point, phase), "peak") or ())
    new = [one for one in grown if one not in earlier]
    traced = _phase(traces, point, phase)
    rise_bytes = 0 if traced is None else traced.requested.peak_bytes - traced.requested.start_bytes
    return (
        new
        if new and sum(one.total_bytes for one in new) >= _ACCOUNTED * rise_bytes
        else list(grown)
    )


def _units(
    series: Series, declared: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Declared bytes for one image or frame: arrays that grow with the series, and those that do
    not.
    """
    ends = sorted(series.points, key=lambda point: size_of(point, series.over))
    first, last = declared.get(ends[0].name, {}), declared.get(ends[-1].name, {})
    step = size_of(ends[-1], series.over) - size_of(ends[0], series.over)
    both = [name for name in last if name in first]
    growing = {name: (last[name] - first[name]) / step for name in both if last[name] > first[name]}
    return growing, {name: float(last[name]) for name in both if last[name] == first[name]}


def _alive(
    traces: Mapping[str, Trace], point: Point, phase: str, moment: str
) -> tuple[Alive, ...] | None:
    """What was alive at the start, the peak or the end of a phase; None where the trace does not
    hold it.
    """
    mine = _phase(traces, point, phase)
    if mine is None or moment == "peak":
        return None if mine is None else mine.alive
    if moment == "start":
        return mine.alive if mine.requested.peak_bytes == mine.requested.start_bytes else None
    after = _phase(traces, point, _phase_after(point, phase))
    same = (
        after is not None
        and mine.requested.end_bytes == after.requested.start_bytes == after.requested.peak_bytes
    )
    return after.alive if after is not None and same else None


def _phase(traces: Mapping[str, Trace], point: Point, phase: str) -> TracedPhase | None:
    trace = traces.get(point.name)
    return (
        None
        if trace is None
        else next((traced for traced in trace.phases if traced.phase == phase), None)
    )


def _phase_before(point: Point, phase: str) -> str:
    place = point.phases.index(phase) if phase in point.phases else 0
    return point.phases[place - 1] if place else ""


def _phase_after(point: Point, phase: str) -> str:
    place = point.phases.index(phase) + 1 if phase in point.phases else len(point.phases)
    return point.phases[place] if place < len(point.phases) else ""


def _group(alive: Alive) -> tuple[str, str, str, str, int]:
    return alive.op, alive.shape, alive.dtype, alive.region, alive.each_bytes


def _kind(alive: Alive) -> tuple[str, str]:
    return alive.op, alive.dtype


def _by_kind(alive: Sequence[Alive]) -> dict[tuple[str, str], int]:
    totals: dict[tuple[str, str], int] = {}
    for one in alive:
        totals[_kind(one)] = totals.get(_kind(one), 0) + one.total_bytes
    return totals
