"""The words of the whole house: what is planned, what was read, how it ended. Plain frozen records,
JSON in and out.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import MappingProxyType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Self,
    TypeGuard,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

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
THEN_FOLDER = "then"
"""The run directory of the earlier code, inside that of the later."""
MOST_REPEATS = 1000
"""Of one point. Chosen: twenty times what any spread needs. It catches a zero too many before that
costs a week, and a damaged number before it fills the memory."""
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


OUTCOME_MEANINGS: Mapping[Outcome, str] = MappingProxyType(
    {
        Outcome.OK: "the body went through all its phases",
        Outcome.DEVICE_OOM: "the device refused memory",
        Outcome.HOST_OOM: "the host's memory ran out, or the run held more of it than it may",
        Outcome.CRASHED: "a signal ended the child, for no reason that memory explains",
        Outcome.EXITED: "the child exited on its own before it had reported its end",
        Outcome.TIMED_OUT: "it took longer than it may",
        Outcome.ERROR: "the body, or its preparation, raised an exception",
        Outcome.SKIPPED: "it was never started; the reason says why",
    }
)
"""What each outcome means. The documentation and ``--help`` print it."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the parent asks of one child. With ``body`` it measures a point; with ``prepare`` alone
    it makes input files.
    """

    point: str
    repeat: int
    body: str | None
    prepare: str | None
    parameters: Mapping[str, Any]
    workspace: str
    rows_path: str
    device: Mapping[str, Any]
    host_limit_bytes: int
    import_paths: Sequence[str] = ()
    """Folders from which bodies and what they import are taken before anything else, in this order;
    then the working directory."""
    kept_out: Sequence[str] = ()
    """Packages that come with the harness and may not be imported from beside a copy of it."""
    subjects: Mapping[str, str] = field(default_factory=dict)
    """Packages under test, by name, with the one folder that each may be imported from."""
    prepare_device: str = ""
    """``"module:function"`` that starts TensorFlow on the device and gives its name; a preparation
    needs none."""
    meters: Sequence[str] = ()
    """``"module:Class"`` of each instrument, in the order in which they begin."""
    tracer: str = ""
    """``"module:Class"`` of what records every allocation; empty where nothing does."""
    trace_path: str = ""
    """The file that it writes."""
    sampler: str = ""
    """The socket of the sampler; empty when there is none."""
    sampler_note: str = ""
    """Why there is no sampler, or what became of the one before it."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The job that the parent wrote, with ``to_json``."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Ending:
    """A named outcome, and what it was named from."""

    outcome: Outcome
    cause: str = ""
    """What exactly, in one word: the limit that was met, the signal, the exit code, the type of the
    error; empty when ok."""
    reason: str = ""
    """One sentence for people."""


def to_json(record: "DataclassInstance") -> dict[str, Any]:
    """A record as plain JSON values (dataclasses, mappings, tuples and enums all the way down)."""
    plain: dict[str, Any] = _as_plain(record)
    return plain


def _as_plain(value: Any) -> Any:  # noqa: ANN401
    if type(value) in _EXPECTED:
        return value
    if isinstance(value, tuple | list):
        if _JSON_TYPES.issuperset(map(type, value)):  # long columns of numbers too
            return value
        return type(value)(map(_as_plain, value))
    if isinstance(value, Mapping):
        return {key: _as_plain(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value):
        return {f.name: _as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value  # an enum is a text


class RecordError(ValueError):
    """JSON that is not the record it should be; the message says what is wrong, ``place`` where:
    ``readings.0.start_bytes``, empty for the whole.
    """

    def __init__(self, what: str, place: str = "") -> None:
        super().__init__(f"{place}: {what}" if place else what)
        self.what = what
        self.place = place

    def inside(self, name: str | int) -> "RecordError":
        """The same one, seen from the record that holds this one under ``name``."""
        return RecordError(self.what, f"{name}.{self.place}" if self.place else str(name))


_Record = TypeVar("_Record")
_Reader = Callable[[Any], Any]
_EXPECTED: Mapping[type, str] = {
    str: "Input should be a valid string",
    int: "Input should be a valid integer",
    float: "Input should be a valid number",
    bool: "Input should be a valid boolean",
    type(None): "Input should be None",
}
"""Types that JSON has itself, with what is said where something else was found."""
_JSON_TYPES = frozenset(_EXPECTED)


def from_json(kind: type[_Record], found: object) -> _Record:
    """The record of this kind that ``to_json`` wrote. Keys that it does not have are passed over.

    Nothing is converted but whole numbers to float: a text is no number, and true is none either.
    Raises RecordError.
    """
    record: _Record = _reader_of(cast("Any", kind))(found)
    return record


@cache
def _reader_of(wanted: Any) -> _Reader:  # noqa: ANN401 - any annotation of a record's field
    """What reads a value of an annotated type."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return _bounded_reader(arguments[1])
    if origin is tuple:
        return _tuple_reader(arguments[0])
    if origin in (dict, Mapping):
        return _mapping_reader(arguments[1])
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        return _enum_reader(wanted)
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return _record_reader(wanted)
    return _union_reader(arguments or (wanted,))


def _record_reader(kind: type[Any]) -> _Reader:
    hints = get_type_hints(kind, include_extras=True)
    # A value of one of the plain types is what it should be; only any other is read.
    fields = [
        (f.name, _plain_types(hints[f.name]), _reader_of(hints[f.name]), _is_required(f))
        for f in dataclasses.fields(kind)
    ]

    def read(found: Any) -> Any:  # noqa: ANN401
        if type(found) is not dict:
            raise RecordError("Input should be an object")
        values = {}
        for name, plain, reader, required in fields:
            if name not in found:
                if required:
                    raise RecordError("Field required", name)
                continue
            value = found[name]
            if type(value) not in plain:
                try:
                    value = reader(value)
                except RecordError as error:
                    raise error.inside(name) from None
            values[name] = value
        try:
            return kind(**values)
        except ValueError as error:  # of its __post_init__
            raise RecordError(str(error)) from error

    return read


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _plain_types(wanted: Any) -> frozenset[type]:  # noqa: ANN401
    """The types of JSON that the annotation takes as they are."""
    arguments = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    return frozenset(each for each in arguments if each in _EXPECTED)


def _enum_reader(kind: type[StrEnum]) -> _Reader:
    members = {str(member): member for member in kind}
    *most, last = map(repr, members)

    def read(found: Any) -> Any:  # noqa: ANN401
        if not isinstance(found, str) or found not in members:
            raise RecordError(f"Input should be {', '.join(most)} or {last}")
        return members[found]

    return read


def _bounded_reader(bounds: range) -> _Reader:
    """Of a whole number in a range."""

    def read(found: Any) -> Any:  # noqa: ANN401
        if type(found) is not int:
            raise RecordError(_EXPECTED[int])
        if found not in bounds:
            raise RecordError(f"Input should be from {bounds.start} to {bounds.stop - 1}")
        return found

    return read


def _tuple_reader(wanted: Any) -> _Reader:  # noqa: ANN401
    reader, plain = _reader_of(wanted), _plain_types(wanted)
    bounds: range = wanted.__metadata__[0] if get_origin(wanted) is Annotated else range(0)

    def read(found: Any) -> Any:  # noqa: ANN401
        if type(found) not in (list, tuple):
            raise RecordError("Input should be a valid array")
        # Long columns of numbers are looked at as one.
        if plain.issuperset(map(type, found)):
            return tuple(found)
        whole_numbers = {int}.issuperset(map(type, found))
        if whole_numbers and min(found) in bounds and max(found) in bounds:
            return tuple(found)
        return tuple(_read_inside(reader, place, each) for place, each in enumerate(found))

    return read


def _mapping_reader(wanted: Any) -> _Reader:  # noqa: ANN401
    reader = _reader_of(wanted)

    def read(found: Any) -> Any:  # noqa: ANN401
        if type(found) is not dict:
            raise RecordError("Input should be an object")
        return {name: _read_inside(reader, name, each) for name, each in found.items()}

    return read


def _read_inside(reader: _Reader, place: str | int, found: object) -> Any:  # noqa: ANN401
    try:
        return reader(found)
    except RecordError as error:
        raise error.inside(place) from None


def _union_reader(arguments: Sequence[Any]) -> _Reader:
    """Of plain types, and at most one other."""
    plain = frozenset(each for each in arguments if each in _EXPECTED)
    other = next((_reader_of(each) for each in arguments if each not in _EXPECTED), None)

    def read(found: Any) -> Any:  # noqa: ANN401
        if type(found) in plain:
            return found
        if float in plain and type(found) is int:
            return float(found)
        if other is not None:
            return other(found)
        raise RecordError(next(words for each, words in _EXPECTED.items() if each in plain))

    return read


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
