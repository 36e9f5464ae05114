"""What rules are given, and what they ask of it: readings without pages of the emulated device,
rises from phase to phase, votes of repeats, and where an amount may come from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from harness.judge import Seen
from harness.judge.advice import LESS_ON_PURPOSE, Commands
from harness.judge.baseline import Against, Baseline
from harness.judge.completeness import RunCounts
from harness.judge.growth import Fit, GrowthLimits, Line, Series, fit_series, planned_series
from harness.judge.limits import LeakRule, Tolerance
from harness.judge.policy import MARKER, Policy
from harness.judge.rules.findings import Decision, Edges
from harness.judge.table import Place, Run
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Point, size_of
from harness.rundir.traces import Alive, Trace, TracedPhase
from harness.words import MATCH_SHARE, as_multiple, largest_in_words

# Votes: a finding whose points were measured again stands only if half of all runs show it.

SETTLED_SPREADS = 16
"""How many spreads of the repeats the nearest of them is beyond the limit where measuring again
would be a waste. Computed: two repeats that lie d apart, the nearer one k x d beyond the limit,
have Student's t = 2 k + 1 with one degree of freedom, and 99 % need t = 31.8 (one-sided). Repeats
that are alike to the byte are the case d = 0."""

# Pages of the emulated device: fields of a phase that hold what was touched until it began, until
# it ended, or while it lasted.

_UNTIL_IT_BEGAN = ("start", "peak", "net_start", "net_peak")
_UNTIL_IT_ENDED = ("end", "net_end")
_WITHIN = "retained"
_WITH_PAGES = (*_UNTIL_IT_BEGAN, *_UNTIL_IT_ENDED, _WITHIN)


# Origins: multiples of declared arrays, and what a trace saw alive.

MOST_NOISE_SHARE = 0.25
"""Chosen: an interval wider than a quarter of its slope holds multiples of everything."""
_SCRAP = 100
"""What grew by less than such a part of what grew most explains nothing; chosen as in the reasons
of out of memory."""
_ACCOUNTED = 0.9
"""Chosen: what is new at a peak explains the growth where it adds up to so much of it; else what
was there before is named too."""


# Without slots, so that what is computed of it once can be kept.
@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything that rules judge by. Nothing in it depends on the order of the rows."""

    run: Run
    policy: Policy
    fits: Mapping[tuple[str, str, str, str, str], Fit]
    """By ``fit_key``."""
    readings: Mapping[Place, Mapping[int, int]]
    """By point, phase, meter and field: bytes of every repeat that finished the phase, by its
    number."""
    declared: Mapping[str, Mapping[str, int]]
    """By point: what its body said its arrays add up to; a point whose body said nothing may be
    absent."""
    census: RunCounts
    baseline: Baseline | None
    against: Against | None
    """What was measured beside the run to be compared with; then the baseline is made of it."""
    baselines_folder: Path
    traces: Callable[[], Mapping[str, Trace]]
    """The traces of the run by point, read when they are first asked for."""
    partial: bool
    """Only what the run planned is asked for."""
    commands: Commands
    """What advice may name as commands, with the arguments that the run is judged with."""

    @cached_property
    def planned_series(self) -> tuple[Series, ...]:
        """All series that the run plans, over every whole-number parameter."""
        return tuple(planned_series(self.run.points))

    @cached_property
    def without_device_pages(self) -> "Evidence":
        """The same evidence without the pages of an emulated device in what the host read; its fits
        are made anew, once.
        """
        return without_pages(self)

    def edges(
        self, point: Point, phase: str, meter: str, repeat: int, *, over_start_of_run: bool = False
    ) -> Edges | None:
        """What one repeat had at the start, the peak and the end of a phase; None where one of them
        was not read.

        ``over_start_of_run``: over what there was before the run's first phase.
        """
        start, peak, end, net_end = (
            self.readings.get((point.name, phase, meter, field), {}).get(repeat)
            for field in ("start", "peak", "end", "net_end")
        )
        if start is None or peak is None or end is None:
            return None
        before = end - net_end if over_start_of_run and net_end is not None else 0
        return Edges(start=start - before, peak=peak - before, end=end - before)

    def declared_by(self, point: Point) -> Mapping[str, int]:
        """What the body of a point declared; the least where repeats differ, so that a limit is
        never wider.
        """
        return self.declared.get(point.name, {})

    def or_less(self, because: str = "") -> str:
        """The end of ``"measure more"``: that less may have been meant.

        Nothing where the rule (``because``) is a marker's and its session left no point out: there
        nothing was meant.
        """
        left_out = self.run.manifest.settings.get("left_out")
        return "" if because.startswith(MARKER) and left_out == 0 else f", or {LESS_ON_PURPOSE}"

    def fit(self, series: Series, phase: str, meter: str, field: str) -> Fit | None:
        """The fit of a series, or None when fewer than two sizes have been read."""
        return self.fits.get(fit_key(series, phase, meter, field))

    def was_remeasured(self, *points: str) -> bool:
        """Whether any of these points was measured again, and all further repeats of all of them
        have ended.

        Until then no quorum can decide, and the rule's own verdict stands.
        """
        further = [
            (point, repeat)
            for point in points
            for repeat in self.run.repeats_of(point)[self.run.first_repeats_of(point) :]
        ]
        return bool(further) and all(run in self.census.ends for run in further)


def fit_key(series: Series, phase: str, meter: str, field: str) -> tuple[str, str, str, str, str]:
    """What tells a fit from all others: no two series over one parameter share a point."""
    return series.over, series.points[0].name, phase, meter, field


def limit_place(policy: Policy, name: str, because: str) -> str:
    """Where a limit stands: ``"slope rule 2 of scenarios/gate.toml"``, ``"the marker of
    tests/test_x.py::test_y"``.
    """
    return f"the {because}" if because.startswith(MARKER) else f"{name} of {policy.source}"


def tolerance_place(policy: Policy, tolerance: Tolerance) -> str:
    """Where a tolerance stands: ``"tolerance 2 of scenarios/gate.toml"``."""
    number = next(
        number
        for number, each in enumerate(policy.tolerance, start=1)
        if set(tolerance.fields) <= set(each.fields)
        and each.model_copy(update={"fields": tolerance.fields}) == tolerance
    )
    return f"tolerance {number} of {policy.source}"


def seen(point: Point, readings: Mapping[int, int]) -> tuple[Seen, ...]:
    """The readings of one point as a finding lists them."""
    return tuple(
        Seen(point=point.name, repeat=repeat, amount_bytes=amount)
        for repeat, amount in readings.items()
    )


def decide(excess: Sequence[float], *, first: bool, remeasured: bool) -> Decision:
    """The decision about a finding, one vote for each run; half of them are enough, so that a tie
    is no pass.

    ``excess`` is how far each run is beyond the limit; above 0 it votes for the finding. ``first``
    is the rule's own verdict; it stands until points are remeasured, and a pass is never
    overturned.
    """
    if not remeasured or not excess or not first:
        return Decision(first, may_be_noise=first and not remeasured and not is_settled(excess))

    votes = sum(amount > 0 for amount in excess)
    return Decision(stands=2 * votes >= len(excess), votes=votes, runs=len(excess))


def is_settled(excess: Sequence[float]) -> bool:
    """Whether the repeats leave no doubt: two or more, all beyond the limit, and far beyond it for
    how little they differ.
    """
    return (
        len(excess) > 1
        and min(excess) > 0
        and min(excess) >= SETTLED_SPREADS * (max(excess) - min(excess))
    )


# The host's readings without the pages of the emulated device, which stay with the process once
# they were touched. Of what a phase begins with and peaks at, that is what the device's highest
# mark rose by from the first phase's start until this phase began; of what it ends with, until
# it ended. So a phase's growth is as it was read: it has at most the device's own.


def without_pages(evidence: Evidence) -> Evidence:
    """The same evidence; on an emulated device, what the host read is without the device's pages,
    and so are its fits.
    """
    if evidence.run.manifest.device.kind != "emulated":
        return evidence
    points = {point.name: point for point in evidence.run.points}
    readings = {
        place: _without(evidence, points[place[0]], place, found)
        for place, found in evidence.readings.items()
    }

    amounts = {place: tuple(found.values()) for place, found in readings.items()}
    fits = {
        key: _refitted(fit, amounts) if _has_pages(fit.meter, fit.field) else fit
        for key, fit in evidence.fits.items()
    }
    return replace(evidence, readings=readings, fits=fits)


def highest_marks(evidence: Evidence, point: Point, phase: str, *, at_end: bool) -> dict[int, int]:
    """By repeat: the most that was in use on the device until the phase began, or ended; at least
    what the run began with.
    """
    place = point.phases.index(phase)
    marks = [_device(evidence, point, point.phases[0], "start")]
    marks += [_device(evidence, point, each, "peak") for each in point.phases[: place + at_end]]
    repeats = {repeat for each in marks for repeat in each}
    return {repeat: max(each[repeat] for each in marks if repeat in each) for repeat in repeats}


def _without(
    evidence: Evidence, point: Point, place: Place, found: Mapping[int, int]
) -> Mapping[int, int]:
    _, phase, meter, field = place
    if not _has_pages(meter, field) or phase not in point.phases:
        return found
    first = _device(evidence, point, point.phases[0], "start")
    began = highest_marks(evidence, point, phase, at_end=False)
    ended = highest_marks(evidence, point, phase, at_end=True)
    since, until = (
        (began if field == _WITHIN else first),
        (began if field in _UNTIL_IT_BEGAN else ended),
    )
    # What the device read of a repeat that lacks a reading is unknown: then nothing is taken off.
    return {
        repeat: amount - (until[repeat] - since[repeat] if repeat in first else 0)
        for repeat, amount in found.items()
    }


def _refitted(fit: Fit, amounts: Mapping[Place, tuple[int, ...]]) -> Fit:
    found = fit_series(fit.series, fit.phase, fit.meter, fit.field, amounts, {}, GrowthLimits())
    return fit if found is None else replace(found, quality=fit.quality)


def _has_pages(meter: str, field: str) -> bool:
    return meter == HOST_ANON and field in _WITH_PAGES


def _device(evidence: Evidence, point: Point, phase: str, field: str) -> Mapping[int, int]:
    return evidence.readings.get((point.name, phase, DEVICE_IN_USE, field), {})


# Rises: by how much a phase ends above the one before it: in any step, or at least in every one
# (``LeakRule.every_time``).


def judged_together(rule: LeakRule, point: Point) -> list[list[tuple[str, str]]]:
    """The steps from phase to phase, each alone or all of them as one."""
    steps = list(pairwise(rule.phases_of(point))) if rule.matches(point) else []
    return [steps] if rule.every_time and steps else [[step] for step in steps]


def least_rises(
    evidence: Evidence, point: Point, meter: str, rule: LeakRule, steps: list[tuple[str, str]]
) -> dict[int, int]:
    """By repeat, for every repeat that finished all phases: the least rise of the steps."""
    rises = [_rise(evidence, point, meter, rule, step) for step in steps]
    return {
        repeat: min(each[repeat] for each in rises)
        for repeat in rises[0]
        if all(repeat in each for each in rises)
    }


def _rise(
    evidence: Evidence, point: Point, meter: str, rule: LeakRule, step: tuple[str, str]
) -> dict[int, int]:
    earlier, later = step
    before = evidence.readings.get((point.name, earlier, meter, rule.field), {})
    after = evidence.readings.get((point.name, later, meter, rule.field), {})
    rises = {
        repeat: amount - before[repeat] for repeat, amount in after.items() if repeat in before
    }
    if (
        not rule.every_time
        or meter == DEVICE_IN_USE
        or evidence.run.manifest.device.kind != "emulated"
    ):
        return rises

    # The emulated device never gives a page back that it has touched, so that its highest mark
    # moves the host as well.
    first, second = (
        highest_marks(evidence, point, phase, at_end=True) for phase in (earlier, later)
    )
    return {
        repeat: rise - (second.get(repeat, 0) - first.get(repeat, 0))
        for repeat, rise in rises.items()
    }


# What grew, in the user's terms: as a multiple of the arrays that the body declared, and by what a
# trace lists as alive at that moment.


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveThen:
    """What a trace lists as alive at one moment."""

    words: str
    """``"alive at the peak of PHASE in POINT: A; B; and 12 others, 3.0 KiB together"``; empty where
    no trace has that moment."""
    grown_bytes: int = 0
    """What the kind that grew most grew by, from the smallest of the traced points to the largest;
    of one point, what it is."""
    points: tuple[Point, ...] = ()
    """The first and the last of the traced points; of one, that one."""


UNTRACED = AliveThen(words="")


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
    """What was alive when ``field`` of a phase was read, as far as traces show it: what grew from
    the first of the points to the last.

    ``points`` ascend in size; of one point it is what was alive there. Traces hold what was alive
    at peaks: the start is known where a phase peaked as it began, the end where the next one did;
    else nothing is said, since what another moment had may not have been made yet, or be gone.
    Named are the largest; of a growth, only what is new since the peak of the
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
        _grown_in(traces, traced, phase, moment, new_only=field in ("growth", "retained"))
        if traced
        else UNTRACED
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


def _grown_in(
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
        return UNTRACED
    names = {one.counted for one in grown}
    rest = [one for one in most if one.counted not in names]
    largest = largest_in_words(
        [*(one.counted for one in grown)], beside=[one.counted for one in rest]
    )
    when = {
        "peak": f"at the peak of {phase} in",
        "start": f"when {phase} began in",
        "end": f"when {phase} ended in",
    }[moment]
    return AliveThen(
        words=f"alive {when} {point.name}: {largest}",
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
