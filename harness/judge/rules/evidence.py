"""What a rule is given, and the words in which its checks name a place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from harness.judge.advice import LESS_ON_PURPOSE, Commands
from harness.judge.baseline import Baseline
from harness.judge.comparison import Against
from harness.judge.completeness import RunCounts
from harness.judge.growth import Fit, GrowthLimits, Series, fit_series, planned_series
from harness.judge.limits import LeakRule
from harness.judge.policy import MARKER, Policy
from harness.judge.table import Place, Run
from harness.judge.verdict import Seen
from harness.records import Point, Scalar
from harness.rundir.traces import Trace
from harness.units import format_bytes
from harness.words import one_line, shortened

_MOST_BYTES = 100
"""Of a text of the user's in a sentence. Chosen: a line of a terminal; the whole text is in
rows.jsonl."""
METER_WORDS: Mapping[str, str] = {
    "device_in_use": "device in use",
    "host_anon": "host anonymous memory",
    "host_mapped": "host memory of mapped files",
    "host_rss": "host resident memory",
    "nvml_device_used": "device used (driver)",
    "nvml_process": "process on the device (driver)",
}
"""Meters in plain words; one that is not listed is called by its name."""
TRACED_METER = "device_in_use"
"""The meter whose bytes the traces of a run explain."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
    """What advice may tell people to type, with the arguments that the run is judged with."""

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

        Until then no quorum can decide, and whatever the rule itself says stands.
        """
        owed = [
            (point, repeat)
            for point in points
            for repeat in self.run.repeats_of(point)[self.run.first_repeats_of(point) :]
        ]
        return bool(owed) and all(run in self.census.ends for run in owed)


def fit_key(series: Series, phase: str, meter: str, field: str) -> tuple[str, str, str, str, str]:
    """What tells a fit from all others: no two series over one parameter share a point."""
    return series.over, series.points[0].name, phase, meter, field


def limit_place(policy: Policy, name: str, because: str) -> str:
    """Where a limit stands: ``"slope rule 2 of scenarios/gate.toml"``, ``"the marker of
    tests/test_x.py::test_y"``.
    """
    return f"the {because}" if because.startswith(MARKER) else f"{name} of {policy.source}"


def marker_of(because: str) -> str:
    """``"the marker of tests/test_x.py::test_y"`` without what the rule says besides; empty for
    rules of a file.
    """
    return f"the {because.partition(': ')[0]}" if because.startswith(MARKER) else ""


def point_place(point: Point, *more: str) -> str:
    """``"loading / lazy / image_count=500 / stack_size=2048"`` and what follows."""
    return " / ".join([text_in_words(point.scenario), *_settings_in_words(point.parameters), *more])


def series_place(series: Series, points: tuple[Point, ...], *more: str) -> str:
    """``"loading / lazy"`` and what follows; numbers are named only where they tell two series of
    the sweep apart.
    """
    texts = _texts(series)
    twins = [
        other
        for other in planned_series(points)
        if other.over == series.over and other.scenario == series.scenario
    ]
    ambiguous = sum(_texts(twin) == texts for twin in twins) > 1
    constants = series.constants if ambiguous else texts
    return " / ".join([text_in_words(series.scenario), *_settings_in_words(constants), *more])


def text_in_words(text: str) -> str:
    """A text of the user's as sentences have it: on one line, and cut where it is long."""
    return shortened(one_line(text), _MOST_BYTES)


def meter_words(meter: str) -> str:
    """The meter in plain words."""
    return METER_WORDS.get(meter, meter)


def runs_in_words(amounts: tuple[int, ...]) -> str:
    """How many, and how far they lie apart: ``"1 run"``, ``"2 runs, all alike"``, ``"4 runs, 8.0 to
    9.0 MiB, spread 1.0 MiB"``.
    """
    if len(amounts) == 1:
        return "1 run"
    least, most = min(amounts), max(amounts)
    if least == most:
        return f"{len(amounts)} runs, all alike"
    low, high = format_bytes(least), format_bytes(most)
    span = f"all about {low}" if low == high else f"{low} to {high}"
    return f"{len(amounts)} runs, {span}, spread {format_bytes(most - least)}"


def seen(point: Point, readings: Mapping[int, int]) -> tuple[Seen, ...]:
    """The readings of one point as a check lists them."""
    return tuple(
        Seen(point=point.name, repeat=repeat, amount_bytes=amount)
        for repeat, amount in readings.items()
    )


def _texts(series: Series) -> dict[str, Scalar]:
    return {name: value for name, value in series.constants.items() if isinstance(value, str)}


def _settings_in_words(settings: Mapping[str, Scalar]) -> Iterator[str]:
    for name, value in settings.items():
        yield text_in_words(value) if isinstance(value, str) else f"{name}={value}"


# Noise: a finding whose points were measured again stands only if at least half of all runs show
# it.


SETTLED_SPREADS = 16
"""How many times the spread of the repeats the nearest of them lies beyond the limit, for measuring
again to be a waste. Computed: two repeats that lie d apart, the nearer one k x d beyond the limit,
have Student's t = 2 k + 1 with one degree of freedom, and 99 % need t = 31.8 (one-sided). Repeats
that are alike to the byte are the case d = 0."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a finding stands, and how a quorum decided; no words where nothing was measured
    again.
    """

    stands: bool
    words: str = ""
    may_be_noise: bool = False
    """Whether further repeats could overrule it: it stands on few repeats, which do not all show it
    clearly."""


def decide(excess: Sequence[float], *, first: bool, remeasured: bool, shown: str) -> Decision:
    """The decision about a finding, one vote for each run; half of them are enough, so that a tie
    is no pass.

    ``excess`` is how far each run lies beyond the limit; above 0 it votes for the finding.
    ``first`` is what the rule itself says, which holds alone until points were measured again, and
    which nothing is added to where it found nothing. ``shown`` is what a vote is for, as in "1 of 5
    runs LIES OVER IT".
    """
    if not remeasured or not excess or not first:
        return Decision(first, may_be_noise=first and not remeasured and not is_settled(excess))
    count = sum(one > 0 for one in excess)
    stands = 2 * count >= len(excess)
    needed = (len(excess) + 1) // 2
    told = f"measured again, {count} of {len(excess)} runs {shown}, and {needed} decide: "
    return Decision(
        stands, told + ("confirmed" if stands else "not confirmed, so it counts as noise")
    )


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


HOST_METER = "host_anon"
_UNTIL_IT_BEGAN = ("start", "peak", "net_start", "net_peak")
_UNTIL_IT_ENDED = ("end", "net_end")
_WITHIN = "retained"
FIELDS = (*_UNTIL_IT_BEGAN, *_UNTIL_IT_ENDED, _WITHIN)


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
    fits = {
        key: _refitted(fit, readings) if _has_pages(fit.meter, fit.field) else fit
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


def _refitted(fit: Fit, readings: Mapping[Place, Mapping[int, int]]) -> Fit:
    amounts = {place: tuple(found.values()) for place, found in readings.items()}
    found = fit_series(fit.series, fit.phase, fit.meter, fit.field, amounts, {}, GrowthLimits())
    return fit if found is None else replace(found, quality=fit.quality)


def _has_pages(meter: str, field: str) -> bool:
    return meter == HOST_METER and field in FIELDS


def _device(evidence: Evidence, point: Point, phase: str, field: str) -> Mapping[int, int]:
    return evidence.readings.get((point.name, phase, TRACED_METER, field), {})


# By how much a phase ends above the one before it: in any step, or at least in every one
# (``LeakRule.every_time``).


def judged_together(rule: LeakRule, point: Point) -> list[list[tuple[str, str]]]:
    """The steps from phase to phase, each alone or all of them as one."""
    steps = list(pairwise(rule.phases_of(point))) if rule.matches(point) else []
    return [steps] if rule.every_time and steps else [[step] for step in steps]


def least_rises(
    evidence: Evidence, point: Point, meter: str, rule: LeakRule, steps: list[tuple[str, str]]
) -> dict[int, int]:
    """By repeat, for every repeat that finished all phases: the least rise of the steps."""
    rises = [_rise(evidence, point, meter, rule, earlier, later) for earlier, later in steps]
    return {
        repeat: min(each[repeat] for each in rises)
        for repeat in rises[0]
        if all(repeat in each for each in rises)
    }


def _rise(
    evidence: Evidence, point: Point, meter: str, rule: LeakRule, earlier: str, later: str
) -> dict[int, int]:
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
