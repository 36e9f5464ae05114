"""What rules are given, and what they ask of it: readings without pages of the emulated device,
rises from phase to phase, votes of repeats.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from harness.judge.advice import LESS_ON_PURPOSE, Commands
from harness.judge.baseline import Baseline
from harness.judge.comparison import Against
from harness.judge.completeness import Census
from harness.judge.growth import Fit, GrowthLimits, Series, fit_series
from harness.judge.limits import LeakRule
from harness.judge.policy import MARKER, Policy
from harness.judge.rules.findings import TRACED_METER, Decision, Edges
from harness.judge.table import Place, Run
from harness.judge.traces import Trace
from harness.judge.verdict import Seen
from harness.records import Point

HOST_METER = "host_anon"

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
    census: Census
    baseline: Baseline | None
    against: Against | None
    """What was measured beside the run to be compared with; then the baseline is made of it."""
    baselines_folder: Path
    traces: Callable[[], Mapping[str, Trace]]
    """The traces of the run by point, read when they are first asked for."""
    partial: bool
    """Only what the run planned is asked for."""
    commands: Commands
    """What advice may tell people to type, with the arguments that the run is judged with."""

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
    return meter == HOST_METER and field in _WITH_PAGES


def _device(evidence: Evidence, point: Point, phase: str, field: str) -> Mapping[int, int]:
    return evidence.readings.get((point.name, phase, TRACED_METER, field), {})


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
        or meter == TRACED_METER
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
