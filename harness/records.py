"""The words of the whole house: what is planned, what was read, how it ended. Plain frozen records,
JSON in and out.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Self, TypeGuard

from harness.words import one_line, plural, shortened

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


SCHEMA_VERSION = 2
"""Version of run.json and rows.jsonl; raised whenever a reader of the old form would misread the
new one."""

RUN_FILE = "run.json"
ROWS_FILE = "rows.jsonl"
TRACES_FOLDER = "traces"
"""Folder in the run directory with one compressed JSON file per traced point, and the rows of its
run."""
TRACE_SCHEMA_VERSION = 1
"""Version of the files in it."""
TRACED_REPEAT = -1
"""Number of the extra, traced run of a point: it is none of the repeats, which are numbered from
0."""

PRETENDED = "Pretended"
"""First word of the names of pretended cards (harness.pretended), as the driver tells them."""


PRETENDED_NOTE = (
    "On a pretended card: TensorFlow's GPU device over a stub of the driver; networks run "
    "CPU algorithms, so their peaks (training, inference) are not those of a card."
)
"""What the doctor, the page and the summary say of a pretended card."""


def passed_over_in_words(why: str) -> str:
    """What the terminal, the page and the summary say where ``auto`` found a card that cannot be
    used, with what to do about it.
    """
    return f"the emulated device was measured on, and the card was passed over: {why}"


def is_pretended(device_name: str) -> bool:
    """Whether a device of this name is a pretended card."""
    return device_name.split(" ", 1)[0] == PRETENDED


Scalar = str | int | float | bool | None

# A peak that is polled fewer times, or with a gap over this share of the phase, may be a spike
# missed: a sampler at 2 ms saw all spikes of 5 ms, a starved one missed half of those of 100 ms
# (measured). Chosen with room to both.
LEAST_SAMPLES = 5
LARGEST_GAP_SHARE = 0.25


class Outcome(StrEnum):
    """How one run ended. Every run has one, with a reason; none is dropped."""

    OK = "ok"
    DEVICE_OOM = "device_oom"
    HOST_OOM = "host_oom"
    CRASHED = "crashed"
    EXITED = "exited"
    TIMED_OUT = "timed_out"
    ERROR = "error"
    SKIPPED = "skipped"


OVER_LIMIT: Final = "watchdog"
"""Cause of an end: the run held more of the host's memory than its limit."""
OVER_MACHINE: Final = "machine"
"""Cause of an end: within its limit, while the last memory of the machine, or of its cgroup, was
about to go."""
OVER_TIME: Final = "time-out"
"""Cause of an end: the run took longer than it may."""
ENDED_BY_HARNESS = frozenset({OVER_LIMIT, OVER_MACHINE, OVER_TIME})
"""Causes of ends that the harness itself has made, by a setting: no repeat that went well makes
noise of them."""


class Quality(StrEnum):
    """What kind of number a reading is."""

    EXACT = "exact"
    """Kept by the counter itself: the peak cannot be missed."""
    BOUNDED = "bounded"
    """The peak lies between peak_bytes and peak_bound_bytes, both from exact counters."""
    SAMPLED = "sampled"
    """Polled: a peak between two samples is missed; samples, rate_hz and largest_gap_s say how
    finely."""
    UNRESOLVED = "unresolved"
    """Polled too coarsely to say what the peak was; the reason says how coarsely. Shown, never
    judged."""
    UNAVAILABLE = "unavailable"
    """Nothing could be read; the reason says why. Never zero."""


class PoolKind(StrEnum):
    """How TensorFlow's allocator takes its pool of a device, which decides what a reading of it can
    tell.
    """

    RESERVED = "reserved"
    """In one region of a known size, out of which every request is cut to 256 B."""
    GROWN = "grown"
    """Region by region, on demand: a chunk is handed out whole unless it is twice the request, or
    128 MiB larger."""
    DRIVER = "driver"
    """Not BFC's but the CUDA driver's own (TF_GPU_ALLOCATOR=cuda_malloc_async), which enforces no
    limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one meter read over one phase. All amounts are bytes; None only when unavailable."""

    meter: str
    quality: Quality
    start_bytes: int | None = None
    peak_bytes: int | None = None
    end_bytes: int | None = None
    peak_bound_bytes: int | None = None
    samples: int | None = None
    rate_hz: float | None = None
    """Samples a second, over the whole phase."""
    largest_gap_s: float | None = None
    source: str = ""
    """Which counter of the instrument was read, where it has several that must not be compared with
    each other."""
    contended: str = ""
    """Who else used the device meanwhile; empty when nobody was seen. Such a run is measured
    again."""
    reason: str = ""

    @property
    def growth_bytes(self) -> int | None:
        """Peak over start."""
        return (
            None
            if self.peak_bytes is None or self.start_bytes is None
            else self.peak_bytes - self.start_bytes
        )

    @property
    def retained_bytes(self) -> int | None:
        """End over start; negative where the phase gave memory back."""
        return (
            None
            if self.end_bytes is None or self.start_bytes is None
            else self.end_bytes - self.start_bytes
        )

    @classmethod
    def unavailable(cls, meter: str, reason: str) -> Self:
        """The reading of a meter that cannot read here."""
        return cls(meter=meter, quality=Quality.UNAVAILABLE, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRecord:
    """One named span of one run. ``finished`` is False when the body died in it with an
    exception.
    """

    point: str
    repeat: int
    phase: str
    index: int
    finished: bool
    duration_s: float
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One cell of a sweep: a scenario at given parameters. Repeats of a point differ in nothing."""

    scenario: str
    body: str
    """``"package.module:function"``, imported only in the child; called with (memory,
    parameters)."""
    parameters: Mapping[str, Scalar]
    """What the sweep varies, in the order of the point's name."""
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    """What every point of the scenario shares; passed to the body together with the parameters."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Files of the user's, by name; passed to the body as well, but no part of what makes points
    comparable."""
    phases: tuple[str, ...]
    """The phases a whole run has, in order; empty where that is not known beforehand: whatever the
    runs of its scenario enter."""
    path: str = ""
    """Folder from which the body and what it imports are taken before anything else; empty: only
    the root that the children start in. A place on this machine, and no part of what makes points
    comparable."""
    prepare: str | None = None
    """``"package.module:function"`` that makes the input files, run in a child of its own,
    unmeasured."""
    expected: Outcome = Outcome.OK
    device_budget_bytes: int | None = None
    """Size of the device for this point alone; None is the run's own setting."""
    traced: bool = True
    """Whether a sweep that traces runs this point once more to record its allocations; where
    another point tells the same, no."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of this point's children, before the device's own; say in ``fixed`` what they mean
    for its numbers."""

    @property
    def name(self) -> str:
        """The point in one word, as in ``loading-lazy-image_count=500-stack_size=2048``; a long one
        ends in a digest of it.
        """
        parts = [
            self.scenario,
            *(str(v) if isinstance(v, str) else f"{k}={v}" for k, v in self.parameters.items()),
        ]
        return shortened(one_line("-".join(parts)))


@dataclass(frozen=True, slots=True)
class Ending:
    """A named outcome, and what it was named from."""

    outcome: Outcome
    cause: str = ""
    """What exactly, in one word: the limit that was met, the signal, the exit code, the type of the
    error; empty when ok."""
    reason: str = ""
    """One sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How one run ended, as its parent saw it; outcome, cause and reason are those of an
    ``Ending``.
    """

    point: str
    repeat: int
    outcome: Outcome
    cause: str
    reason: str
    phase: str | None
    """The phase it was in when it ended other than by finishing."""
    exit_code: int | None
    launcher: str
    duration_s: float
    device: str = ""
    """UUID of the card that it was measured on, one of those of the run; empty on the emulated
    device."""
    device_limit_bytes: int | None = None
    """Size of the pool that it had; None where the pool had no limit, or no child was started."""
    left_out: tuple[str, ...] = ()
    """A sentence for each equal card that could not be used this time: lost, or filled by somebody
    else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEnd:
    """How the traced run of a point ended, and where its trace is."""

    point: str
    outcome: Outcome
    cause: str
    reason: str
    """How it ended, where not ok, and why there is no trace, where there is none."""
    file: str | None
    """Name of the trace in ``TRACES_FOLDER``; None where there is none."""
    launcher: str
    duration_s: float


def to_json(record: "DataclassInstance") -> dict[str, Any]:
    """A record as plain JSON values (dataclasses, mappings, tuples and enums all the way down)."""
    plain = dataclasses.asdict(record)
    return {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in plain.items()
    }


# What memory is fitted against: parameters that are whole numbers, and the words for their
# steps.


NAMED_STEPS: Mapping[str, str] = {"image_count": "image", "stack_size": "frame"}
"""Parameters whose steps have a name of their own; those of all others are called by the
parameter."""
_MINIMUM_SIZES: Mapping[str, int] = {"stack_size": 2}
"""Two stack sizes show whether the stack matters at all."""
_USUAL_MINIMUM_SIZES = 3
"""The fewest that can show a bend."""


def unit_of(over: str) -> str:
    """The name of one step of a swept parameter, which may be the parameter's own.

    >>> unit_of("image_count"), unit_of("stack_size"), unit_of("batch_size")
    ('image', 'frame', 'batch_size')
    """
    return NAMED_STEPS.get(over, over)


def sizes_in_words(over: str, *sizes: int) -> str:
    """Sizes of a swept parameter.

    >>> sizes_in_words("image_count", 2000), sizes_in_words("image_count", 100, 2000)
    ('2,000 images', '100 to 2,000 images')
    >>> sizes_in_words("batch_size", 8, 64)
    'batch_size 8 to 64'
    """
    span = " to ".join(f"{size:,}" for size in sizes)
    return (
        f"{span} {plural(sizes[-1], NAMED_STEPS[over])}"
        if over in NAMED_STEPS
        else f"{over} {span}"
    )


def step_in_words(over: str) -> str:
    """One step of a swept parameter in the middle of a sentence.

    >>> step_in_words("image_count"), step_in_words("batch_size")
    ('image', 'step of batch_size')
    """
    return NAMED_STEPS.get(over, f"step of {over}")


def count_in_words(over: str) -> str:
    """A swept parameter as what it counts.

    >>> count_in_words("image_count"), count_in_words("batch_size")
    ('number of images', 'batch_size')
    """
    return f"number of {NAMED_STEPS[over]}s" if over in NAMED_STEPS else over


def minimum_sizes(over: str) -> int:
    """Different sizes that a gated fit over the parameter needs."""
    return _MINIMUM_SIZES.get(over, _USUAL_MINIMUM_SIZES)


def size_parameters(points: Sequence[Point]) -> tuple[str, ...]:
    """Every parameter that is a whole number in some point: what memory can be fitted against."""
    names = dict.fromkeys(
        name for point in points for name, value in point.parameters.items() if is_size(value)
    )
    return tuple(dict.fromkeys([*(name for name in NAMED_STEPS if name in names), *names]))


def is_size(value: object) -> TypeGuard[int]:
    """Whether memory can be fitted against the value: a whole number that is no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def size_of(point: Point, over: str) -> int:
    """The value of a swept parameter. Raises TypeError where it is no whole number."""
    size = point.parameters[over]
    if not is_size(size):
        raise TypeError(
            f"{point.name}: {over} is {size!r}; a size that memory is fitted against is a "
            "whole number"
        )
    return size
