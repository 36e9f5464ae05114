"""What rules return: small frozen records of numbers. ``sentences`` makes the words of each.

A ``Finding`` says where, which kind and by which amounts; its ``details`` are what its sentence
needs besides, one class for each kind of sentence. A finding whose ``kind`` is None is a check that
holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from harness.judge import Bound, FindingKind, RuleName, Seen
from harness.judge.growth import Ceiling, Fit, Series
from harness.judge.policy import MARKER
from harness.meters import meter_words
from harness.records import Outcome, Point, Quality, Scalar
from harness.words import one_line, shortened

_MOST_BYTES = 100
"""Of a text of the user's in a sentence. Chosen: a line of a terminal; the complete text is in
rows.jsonl."""


def text_in_words(text: str) -> str:
    """A text of the user's as sentences have it: on one line, and cut where it is long."""
    return shortened(one_line(text), _MOST_BYTES)


# Where: what a finding is about, and where its limit stands.


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a finding is about. A name is empty where the finding is about more than one."""

    words: str
    """In the user's terms: ``"loading / lazy / image_count=500 / construct / device in use"``."""
    scenario: str = ""
    point: str = ""
    phase: str = ""
    meter: str = ""
    field: str = ""
    """The number of the phase, where two findings may differ in it alone."""

    @property
    def subject(self) -> str:
        """What tells it from all other places of the same rule."""
        return f"{self.words} / {self.field}" if self.field else self.words

    @classmethod
    def of_point(cls, point: Point, *, phase: str = "", meter: str = "", field: str = "") -> Self:
        """A point, or a phase of it, or a meter there."""
        more = [*([phase] if phase else []), *([meter_words(meter)] if meter else [])]
        return cls(
            words=point_place(point, *more),
            scenario=point.scenario,
            point=point.name,
            phase=phase,
            meter=meter,
            field=field,
        )

    @classmethod
    def of_series(
        cls, series: Series, planned: Sequence[Series], *, phase: str, meter: str
    ) -> Self:
        """A phase and meter over a series; ``planned`` are all of the run."""
        swept = () if series.over == "image_count" else (series.over,)
        return cls(
            words=series_place(series, planned, *swept, phase, meter_words(meter)),
            scenario=series.scenario,
            phase=phase,
            meter=meter,
        )


def point_place(point: Point, *more: str) -> str:
    """``"loading / lazy / image_count=500 / stack_size=2048"`` and what follows."""
    return " / ".join([text_in_words(point.scenario), *_settings_in_words(point.parameters), *more])


def series_place(series: Series, planned: Sequence[Series], *more: str) -> str:
    """``"loading / lazy"`` and what follows; numbers are named only where two series of the
    sweep differ in nothing else.
    """
    texts = _texts(series)
    twins = [
        other
        for other in planned
        if other.over == series.over and other.scenario == series.scenario
    ]
    ambiguous = sum(_texts(twin) == texts for twin in twins) > 1
    constants = series.constants if ambiguous else texts
    return " / ".join([text_in_words(series.scenario), *_settings_in_words(constants), *more])


def _texts(series: Series) -> dict[str, Scalar]:
    return {name: value for name, value in series.constants.items() if isinstance(value, str)}


def _settings_in_words(settings: Mapping[str, Scalar]) -> Iterator[str]:
    for name, value in settings.items():
        yield text_in_words(value) if isinstance(value, str) else f"{name}={value}"


def marker_of(limit_place: str) -> str:
    """``"the marker of tests/test_x.py::test_y"`` without what the rule says besides; empty for
    rules of a file.
    """
    return limit_place.partition(": ")[0] if limit_place.startswith(f"the {MARKER}") else ""


# By how much: amounts and votes.


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An amount that was held against a limit; None where it could not be."""

    measured: float | None = None
    limit: float | None = None
    bound: Bound = ""
    unit: str = ""
    """``"B"``, ``"B/image"``."""
    earlier: float | None = None
    earlier_from: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a finding stands, and the votes of a quorum about it."""

    stands: bool
    votes: int = 0
    """How many of the runs show the finding."""
    runs: int = 0
    """How many runs voted; 0 where nothing was measured again, so that nobody was asked."""
    may_be_noise: bool = False
    """Whether further repeats could overrule it: it stands on few repeats, which do not all show it
    clearly."""

    @property
    def needed(self) -> int:
        """How many votes are enough; of an even number half of them, so that a tie is no pass."""
        return (self.runs + 1) // 2


UNDECIDED = Decision(stands=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What there was at the start, the peak and the end of a phase, in bytes; of a slope, what they
    come to at one size.
    """

    start: float
    peak: float
    end: float


# What each kind of sentence needs besides. Commands are to be typed; multiples ("1.00 x X") and
# what a trace lists are texts already.


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something is missing; ``reason`` says what, and what to do."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence that was complete before any rule saw it: of a run directory that is broken."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an amount may come from: what a red sentence explains, and what to look for."""

    multiple: str
    """What it is as large as: ``"2.00 x X"``; empty where sizes show nothing."""
    alive: str
    """What a trace lists as alive then; empty where no trace has that moment."""
    edges: Edges | None
    """What there was at the edges of the phase, of the run that decides; None where unknown."""
    is_first_phase: bool
    device_pages: bool = False
    """Whether most of it is pages of the emulated device, which are host memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A budget or a floor: the amount that decides, and its limit."""

    field: str
    limit: str
    """As the policy writes it, with its bytes: ``"4 batches (16.0 MiB)"``."""
    excess_bytes: float
    """How far the run that decides is beyond the limit; 0 or less: within."""
    origin: Origin | None
    """Of a budget that is broken."""
    doctor: str
    """The command to examine the meter with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """A leak: by how much a phase has more than the one before it."""

    limit: str
    excess_bytes: float
    least_decides: bool
    """Whether every repeat has to show it; else the worst decides."""
    every_step: bool
    """Whether it is the least rise of several steps."""
    steps: tuple[tuple[str, str], ...]
    """From phase to phase."""
    edges: tuple[tuple[Edges, Edges], ...]
    """Of the earlier and the later phase of each step, in the run that decides; empty where one of
    them is unknown."""
    multiple: str = ""
    alive: str = ""
    """What a trace lists that the later phase has beyond the earlier one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What other meters read of bytes that became less: they may only have been moved there."""

    others: tuple[tuple[str, int, int], ...] = ()
    """Meter, bytes now and change since the baseline; empty where nothing could be compared."""
    unlimited: tuple[str, int] | None = None
    """Meter without a limit and its bytes now, where the baseline has none of it."""

    @property
    def known(self) -> bool:
        """Whether another meter was compared; else it is only possible that the bytes are there."""
        return bool(self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """An amount beside the accepted one, or that of the other code."""

    shown_bytes: int
    """The least of the repeats; where a quorum decided, the median."""
    earlier_bytes: int
    earlier: str
    """Where that comes from: ``"accepted 2026-11-24 from run s2"``, ``"at main (abc1234)"``."""
    allowed_bytes: float
    worse: bool
    multiple: str
    moved: Moved | None
    accept: str
    """What to do where the change is meant."""
    look_at: str | None
    """Of two codes: how to see what changed between them; None: the other side is a baseline."""


WhyNotCompared = Literal["no point", "other point", "no amount", "no start", "not read there"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCompared:
    """Why an amount, or a point, has nothing that it could be compared with."""

    why: WhyNotCompared
    detail: str = ""
    """What differs, or where it was not read."""
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFit:
    """Too few values of a swept parameter to fit anything."""

    over: str
    needed: int
    planned: int
    read: int
    or_less: str
    """``", or ..."`` where less may have been measured on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSwept:
    """No two points of a scenario form a series over the parameter."""

    over: str
    needed: int
    sizes: tuple[int, ...]
    or_less: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParameter:
    """None of the points has such a parameter to sweep over."""

    over: str
    value: str
    """One of its values as Python writes it, where they are no whole numbers; else empty."""
    fixed_in: str
    """The scenario that has it as a fixed setting."""
    known: tuple[str, ...]
    """The parameters that are whole numbers."""


SlopeState = Literal["within", "rises", "levels off", "no interval", "unresolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """A slope and its limit."""

    state: SlopeState
    field: str
    fit: Fit
    largest_bytes: int
    """The amount at the largest size."""
    at_most: float
    resolve: float
    """In bytes for each step, as the policy's limits come to over these sizes."""
    resolve_over_all: int
    bound_slope: float | None
    """Slope of the upper bound of a meter that brackets its peak."""
    level: Ceiling | None
    origin: Origin | None
    """Of a slope that is broken."""
    may_repeat: bool
    """Whether more repeats of its points can be taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A class of growth and the worst one that is allowed."""

    state: Literal["allowed", "worse", "overruled", "unresolved"]
    field: str
    over: str
    fit: Fit
    largest_bytes: int
    allowed: str
    origin: Origin | None


ArithmeticState = Literal["as declared", "more", "less", "unresolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A slope and what the declared arrays add up to."""

    state: ArithmeticState
    field: str
    fit: Fit
    largest_bytes: int
    declared: str
    expected: float
    within_percent: float
    origin: Origin | None
    doctor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undeclared:
    """Nothing that arithmetic could be held against."""

    declared: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """How many points the run planned, all of which are there."""

    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRun:
    """One run of a point: what it lacks, in sentences; nothing where it is complete."""

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Why the reading of one phase cannot be judged."""

    place: str
    quality: Quality | None
    """None: there is no reading at all."""
    reason: str = ""
    samples: int | None = None
    largest_gap_s: float | None = None
    """None where it was not recorded."""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """A gated meter over all finished phases of a scenario."""

    phases: int
    unreadable: int
    first: Unreadable | None
    meter: str
    known: tuple[str, ...]
    """The meters that read here."""
    doctor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSuchPoint:
    """A rule that no planned point answers to."""

    scenarios: tuple[str, ...]
    where: tuple[tuple[str, str], ...]
    renamed: str
    """A planned scenario that may be the one that is meant."""
    or_less: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSuchPhase:
    """A rule about a phase that none of its points has."""

    phase: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleTolerance:
    """A tolerance for a scenario, or for a phase of it, that the run did not plan."""

    scenario: str
    phase: str
    """Empty: the scenario has no point."""
    or_less: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A point, or a phase of one, that the baseline has and the run has not."""

    phase: str
    """Empty: the point itself is gone."""
    renamed: str
    """What it may be called now."""
    forget: str
    """The command that takes a point out of the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended, and how it was to end."""

    outcome: Outcome
    expected: Outcome
    phase: str
    reason: str
    """As the run recorded it, with what its trace knows of what was in use."""
    cause: str
    alive: str = ""
    """Of a device out of memory, what a trace lists as alive then; empty where no run was
    traced."""
    saw_alive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Survived:
    """A run that was to run out of memory, and ended well."""

    expected: Outcome
    meter: str
    peak_bytes: int | None
    """None: the meter was not read."""
    budget_bytes: int

    @property
    def fits(self) -> bool:
        """Whether it now needs no more than the device that it was to fill."""
        return (
            self.expected is Outcome.DEVICE_OOM
            and self.peak_bytes is not None
            and self.peak_bytes <= self.budget_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFor:
    """What the baseline is for, in words."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoBaseline:
    """No baseline for what the run was measured on."""

    key: str
    path: str
    nearest: str
    """Name of the file that differs least; empty where the folder holds none."""
    differences: tuple[str, ...]
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherCounter:
    """A meter that was accepted from another counter than it is read from."""

    point: str
    meter: str
    then: tuple[str, ...]
    now: str
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedCounters:
    """A meter that was read from several counters in one run."""

    meter: str
    counters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchers:
    """How children were started, where a meter depends on it."""

    meter: str
    now: str
    then: tuple[str, ...]
    """Empty: this run alone has several."""
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRun:
    """Why nothing can be compared with the run of the other code."""

    why: Literal["unreadable", "same rows", "other machine", "points missing", "incomplete"]
    detail: str = ""
    """The problem, its path, or the point that is missing first."""
    then: str = ""
    now: str = ""
    """What each was measured on."""
    command: str = ""
    """Measures both on this machine."""
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmeasured:
    """Points that the other code could not be measured at, for one reason."""

    count: int
    of: int
    first: str
    reason: str
    logs: str
    left_empty: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongCode:
    """A side that has not measured the code that it stands for."""

    why: Literal["elsewhere", "not imported", "not recorded", "same folder"]
    side: str
    point: str = ""
    repeat: int = 0
    packages: tuple[str, ...] = ()
    taken_from: str = ""
    asked_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Both sides have measured their own code."""

    packages: tuple[str, ...]
    same_content: bool
    then: str
    now: str
    left_empty: str


Details = (
    Gap | Sentence | Amount | Rise | Distance | NotCompared
    | NoFit | NotSwept | NoParameter | Slope | Shape | Arithmetic | Undeclared
    | Planned | OneRun | Readings | NoSuchPoint | NoSuchPhase | IdleTolerance | Lost
    | Ended | Survived
    | BaselineFor | NoBaseline | OtherCounter | MixedCounters | Launchers
    | OtherRun | Unmeasured | WrongCode | Codes
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule applied to one place."""

    rule: RuleName
    place: Place
    details: Details
    kind: FindingKind | None = None
    """None: the rule holds here."""
    because: str = ""
    """Where the limit comes from, as the policy gives it."""
    limit_place: str = ""
    """Where the limit stands: ``"slope rule 2 of scenarios/gate.toml"``."""
    points: tuple[str, ...] = ()
    readings: tuple[Seen, ...] = ()
    held: Held = Held()
    decision: Decision = UNDECIDED
    better: bool = False
    remeasure: bool = False
    """Whether measuring its points again could settle it."""

    @property
    def amounts(self) -> tuple[int, ...]:
        """The readings that it rests on, in bytes."""
        return tuple(one.amount_bytes for one in self.readings)


def once_per_marker(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings; a mistake that a marker's rule shares with the rule of the host beside it is
    listed once.
    """
    listed: set[Finding] = set()
    for finding in findings:
        marker = marker_of(finding.limit_place)
        if not marker or not isinstance(
            finding.details, NotSwept | NoParameter | NoSuchPoint | NoSuchPhase
        ):
            yield finding
            continue
        # Two that differ in nothing but the words of their rule are one mistake.
        mistake = replace(finding, because="", limit_place=marker)
        if mistake not in listed:
            yield finding
        listed.add(mistake)
