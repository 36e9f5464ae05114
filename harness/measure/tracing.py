"""Record every allocation of one run through TensorFlow's profiler, and leave the replay in one
compact file.

Runs in the child, around the body. Nothing that goes wrong here changes how the run ends: the
reason is written instead of the file.
"""

import mmap
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import tensorflow as tf

from harness.errors import MeterUnavailable
from harness.measure import Emit
from harness.measure.replay import Event, PhaseReplay, Span, largest_alive, out_of_memory, replay
from harness.meters import DEVICE_IN_USE
from harness.records import TRACE_SCHEMA_VERSION, Reading
from harness.rundir.rows import Begin, Declared, PhaseRecord, Row, TraceWritten
from harness.rundir.traces import Timeline, Trace, TracedPhase, write_trace
from harness.words import COPY_TO_CARD, format_bytes

_XPLANE = "tensorflow.tsl.profiler.protobuf.xplane_pb2"
_OPTIONS = {"host_tracer_level": 2, "python_tracer_level": 0, "device_tracer_level": 0}
"""Allocations are events of level 2, TensorFlow's default: at level 1 versions 2.18.1 and 2.19.1
report none. 2.20.0 and 2.21.0 report them at any level, because they read none of these options
("host_tracer_level expects an i value") and record at the default (seen with each)."""
EDGE_EVENT = "memory_phase_edge"
"""Name of the marks between the profiler's events; their one statistic is ``edge``."""
EDGE_NUMBER = "edge"

_ALLOCATED, _FREED = "MemoryAllocation", "MemoryDeallocation"
_WANTED = frozenset({EDGE_EVENT, _ALLOCATED, _FREED})
_PICOSECONDS = 1000  # in a nanosecond; XEvent counts the former, XLine the latter (xplane.proto)
# Wire types of protocol buffers (protobuf.dev/programming-guides/encoding).
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5

# How TensorFlow 2.19 to 2.21 describe copies to a card. An eager one has the operation that wants
# the tensor there, and shape and type of the tensor before it got its memory: [0] and float,
# whatever is copied. One inside a function has its own shape.
_COPY_REGION = "dynamic"
_NO_ELEMENTS = re.compile(r"\b0\b")
_RECEIVED = "SameWorkerRecvDone"

_PIECE_BYTES = 1 << 20
"""Chosen: what is unpacked at a time, some 5,000 events; larger pieces are not faster."""
_NUMBERS = (
    "addr",
    "requested_bytes",
    "allocation_bytes",
    "bytes_allocated",
    "data_type",
    EDGE_NUMBER,
)
_TEXTS = ("allocator_name", "tf_op", "shape", "region_type")
_NO_TEXT = "(null)"
"""What TensorFlow 2.19 writes where later versions write an empty text: the C library's word for no
string."""


@dataclass(slots=True)
class Profile:
    """What one recording holds about one allocator; times in nanoseconds of the profiler's
    clock.
    """

    events: list[Event] = field(default_factory=list)
    edges: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Start and end of each mark, by its number."""
    others: Counter[str] = field(default_factory=Counter)
    """Events of other allocators, which are left out."""


@dataclass(slots=True)
class _Heard:
    """What the body has said so far, by the rows it caused."""

    phases: list[str] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    declared: dict[str, int] = field(default_factory=dict)
    grown_bytes: dict[str, int] = field(default_factory=dict)
    """By phase: how much the device's memory in use grew in it, where the meter saw that."""


class Tracer:
    """Records from ``with`` to its end. As the last meter it marks the edges of the phases, close
    around the body.

    It has no readings of its own. At the end it emits one row, ``TraceWritten``.
    """

    names: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        point: str,
        repeat: int,
        device_name: str,
        device: Mapping[str, Any],
        path: Path,
        emit: Emit,
    ) -> None:
        self._point = point
        self._repeat = repeat
        self._device_name = device_name
        self._device = device
        self._path = path
        self._emit = emit
        self._heard = _Heard()
        self._edge = 0
        self._base_bytes = 0
        self._xplane: ModuleType | None = None
        self._reason = "the recording was not started"

    def hear(self, row: Row) -> None:
        """Emit a row of the run, and remember what a trace needs of it."""
        self._emit(row)
        if isinstance(row, Begin):
            self._heard.phases.append(row.phase)
        elif isinstance(row, PhaseRecord):
            if row.finished:
                self._heard.finished.add(row.phase)
            self._heard.grown_bytes.update(_growth(row))
        elif isinstance(row, Declared):
            self._heard.declared.update(row.values)

    def open(self) -> None:
        """Nothing to check: what is missing is said with the trace."""

    def begin(self) -> None:
        """Mark the start of a phase."""
        self._mark()

    def end(self) -> tuple[Reading, ...]:
        """Mark the end of a phase."""
        self._mark()
        return ()

    def __enter__(self) -> Self:
        """Start recording; what that needs is imported before the first phase."""
        try:
            self._xplane = _xplane()
            self._base_bytes = _in_use_bytes(self._device_name)
            tf.profiler.experimental.start(
                str(self._folder), options=tf.profiler.experimental.ProfilerOptions(**_OPTIONS)
            )
        except Exception as error:  # noqa: BLE001 - the run goes on without a trace
            self._xplane = None
            self._reason = _sentence(error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, replay, write; the body's own error goes on."""
        written = False
        if self._xplane is not None:
            try:
                self._write(self._stop(self._xplane), error)
                written = True
            except Exception as failure:  # noqa: BLE001 - see above
                self._reason = _sentence(failure)
            finally:
                shutil.rmtree(self._folder, ignore_errors=True)
        self._emit(
            TraceWritten(
                point=self._point,
                repeat=self._repeat,
                file=self._path.name if written else None,
                reason="" if written else self._reason,
            )
        )

    @property
    def _folder(self) -> Path:
        """Where the profiler writes; the parent deletes it too, in case the child dies."""
        return profile_folder(self._path)

    def _mark(self) -> None:
        with tf.profiler.experimental.Trace(EDGE_EVENT, **{EDGE_NUMBER: self._edge}):
            self._edge += 1

    def _stop(self, xplane: ModuleType) -> Profile:
        tf.profiler.experimental.stop()
        found = sorted(self._folder.rglob("*.xplane.pb"))
        if len(found) != 1:
            raise MeterUnavailable(f"the profiler left {len(found)} recordings instead of one")
        profile = read_profile(found[0], device_allocator(self._device_name), xplane)
        reason = why_empty(
            profile, device_allocator(self._device_name), self._heard.grown_bytes, tf.__version__
        )
        if reason:
            raise MeterUnavailable(reason)
        return profile

    def _write(self, profile: Profile, error: BaseException | None) -> None:
        heard = self._heard
        spans = [
            Span(
                phase=phase,
                index=index,
                finished=phase in heard.finished,
                start_ns=profile.edges[2 * index][1],
                end_ns=profile.edges[2 * index + 1][0],
            )
            for index, phase in enumerate(heard.phases)
        ]
        done = replay(profile.events, spans, base_bytes=self._base_bytes, declared=heard.declared)
        origin_ns = min(
            [start for start, _ in profile.edges.values()] + [*done.timeline.time_ns[:1]], default=0
        )
        refused = (
            None
            if error is None
            else out_of_memory(done, spans, error, heard.declared, self._device)
        )
        if error is not None and refused is not None and refused.alive:
            error.add_note(largest_alive(refused.alive))
        times_ns = [time_ns - origin_ns for time_ns in done.timeline.time_ns]
        trace = Trace(
            schema_version=TRACE_SCHEMA_VERSION,
            point=self._point,
            device=self._device_name,
            allocator=device_allocator(self._device_name),
            tensorflow=tf.__version__,
            limit_bytes=self._device["limit_bytes"],
            base_bytes=done.base_bytes,
            declared=heard.declared,
            phases=tuple(_traced_phase(phase, origin_ns) for phase in done.phases),
            timeline=Timeline.of(
                times_ns, done.timeline.requested_bytes, done.timeline.allocator_bytes
            ),
            counts=replace(done.counts, other_allocators=dict(sorted(profile.others.items()))),
            out_of_memory=refused,
        )
        write_trace(self._path, trace)


def why_empty(
    profile: Profile, allocator: str, grown_bytes: Mapping[str, int], version: str
) -> str:
    """Why a recording without an allocation of ``allocator`` is none; empty where it is complete.

    ``grown_bytes`` is by how much the device's memory in use grew, by phase. A body in whose phases
    it never grew has an empty recording that is right.
    """
    if not grown_bytes or any(event.allocated for event in profile.events):
        return ""
    phase = max(grown_bytes, key=lambda name: grown_bytes[name])
    others = f", only events of {', '.join(sorted(profile.others))}" if profile.others else ""
    return (
        f"the profiler of TensorFlow {version} reported no allocation of {allocator}{others}, "
        f"though {DEVICE_IN_USE} grew by {format_bytes(grown_bytes[phase])} in {phase}"
    )


def profile_folder(path: Path) -> Path:
    """The profiler's folder beside the trace at ``path``."""
    return path.with_name(f"{path.name}.profile")


def device_allocator(device_name: str) -> str:
    """The allocator of a device as TensorFlow names it: ``"GPU_0_bfc"``, or the one the CPU borrows
    from cards.
    """
    kind, _, index = device_name.partition(":")
    return "bfc_cpu_allocator_for_gpu" if kind == "CPU" else f"{kind}_{index}_bfc"


def _xplane() -> ModuleType:
    try:
        return import_module(_XPLANE)
    except ImportError as error:
        raise MeterUnavailable(
            f"TensorFlow {tf.__version__} has no {_XPLANE} to read the profiler's file with"
        ) from error


def _in_use_bytes(device_name: str) -> int:
    return int(tf.config.experimental.get_memory_info(device_name)["current"])


def _sentence(error: Exception) -> str:
    """One line: our own errors are sentences already."""
    text = str(error).strip().partition("\n")[0][:500]
    return text if isinstance(error, MeterUnavailable) else f"{type(error).__name__}: {text}"


def _growth(record: PhaseRecord) -> dict[str, int]:
    """What the device's meter saw the phase grow by, at its peak or at its end; nothing where it
    saw none or cannot read.
    """
    grown = [
        grown_bytes
        for reading in record.readings
        if reading.meter == DEVICE_IN_USE
        for grown_bytes in (reading.growth_bytes, reading.retained_bytes)
        if grown_bytes is not None
    ]
    most_bytes = max(grown, default=0)
    return {record.phase: most_bytes} if most_bytes > 0 else {}


def _traced_phase(phase: PhaseReplay, origin_ns: int) -> TracedPhase:
    span = phase.span
    return TracedPhase(
        phase=span.phase,
        index=span.index,
        finished=span.finished,
        start_ns=span.start_ns - origin_ns,
        peak_ns=phase.peak_ns - origin_ns,
        end_ns=span.end_ns - origin_ns,
        requested=phase.requested,
        allocator=phase.allocator,
        alive=phase.alive,
    )


# The file that TensorFlow's profiler leaves (an XSpace), read piece by piece: a long run needs no
# second copy in memory.


def read_profile(path: Path, allocator: str, xplane: ModuleType) -> Profile:
    """Read the events of one allocator and the marks; ``xplane`` is TensorFlow's module of that
    name.

    Raises ValueError where the file is no XSpace, OSError where it cannot be read.
    """
    with path.open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    profile = Profile()
    for number, plane in _fields(whole):
        if number == xplane.XSpace.PLANES_FIELD_NUMBER:
            _read_plane(plane, profile, allocator, xplane)
    return profile


def _read_plane(plane: memoryview, profile: Profile, allocator: str, xplane: ModuleType) -> None:
    names: dict[int, str] = {}
    events: dict[int, str] = {}
    lines = []
    for number, content in _fields(plane):
        if number == xplane.XPlane.STAT_METADATA_FIELD_NUMBER:
            entry = xplane.XPlane.StatMetadataEntry.FromString(bytes(content))
            names[entry.key] = entry.value.name
        elif number == xplane.XPlane.EVENT_METADATA_FIELD_NUMBER:
            entry = xplane.XPlane.EventMetadataEntry.FromString(bytes(content))
            if entry.value.name in _WANTED:
                events[entry.key] = entry.value.name
        elif number == xplane.XPlane.LINES_FIELD_NUMBER:
            lines.append(content)
    for line in lines if events else ():
        start_ns = 0
        for piece in _pieces(line):
            part = xplane.XLine.FromString(piece)
            # Fields are written in the order of their numbers: the first piece has the line's
            # start, and later ones 0.
            start_ns = part.timestamp_ns or start_ns
            _read_events(part.events, start_ns, profile, allocator, _Words(events, names))


class _Words:
    """What the numbers in a plane's events mean."""

    def __init__(self, events: Mapping[int, str], names: Mapping[int, str]) -> None:
        self.events = events
        self.names = names
        self.numbers = {number: name for number, name in names.items() if name in _NUMBERS}
        self.texts = {number: name for number, name in names.items() if name in _TEXTS}


def _read_events(
    events: Any,  # noqa: ANN401 - messages
    start_ns: int,
    profile: Profile,
    allocator: str,
    words: _Words,
) -> None:
    for event in events:
        name = words.events.get(event.metadata_id)
        if name is None:
            continue
        time_ns = start_ns + event.offset_ps // _PICOSECONDS
        numbers: dict[str, int] = {}
        texts: dict[str, str] = {}
        for stat in event.stats:
            if (number := words.numbers.get(stat.metadata_id)) is not None:
                # Of the fields of a oneof all but one are 0.
                numbers[number] = stat.int64_value or stat.uint64_value
            elif (text := words.texts.get(stat.metadata_id)) is not None:
                said = words.names[stat.ref_value] if stat.ref_value else stat.str_value
                texts[text] = "" if said == _NO_TEXT else said
        if name == EDGE_EVENT:
            profile.edges[numbers[EDGE_NUMBER]] = (
                time_ns,
                time_ns + event.duration_ps // _PICOSECONDS,
            )
        elif texts["allocator_name"] == allocator:
            profile.events.append(_event(time_ns, numbers, texts, allocated=name == _ALLOCATED))
        else:
            profile.others[texts["allocator_name"]] += 1


def _event(
    time_ns: int, numbers: Mapping[str, int], texts: Mapping[str, str], *, allocated: bool
) -> Event:
    op, shape, dtype = _named(numbers, texts)
    return Event(
        time_ns=time_ns,
        allocated=allocated,
        address=numbers["addr"],
        requested_bytes=numbers["requested_bytes"],
        allocation_bytes=numbers["allocation_bytes"],
        in_use_bytes=numbers["bytes_allocated"],
        op=op,
        shape=shape,
        dtype=_dtype(dtype),
        region=texts.get("region_type", ""),
    )


def _named(numbers: Mapping[str, int], texts: Mapping[str, str]) -> tuple[str, str, int]:
    """Operation, shape and number of the type, as far as they are those of the tensor that got the
    memory.
    """
    op, shape, dtype = texts.get("tf_op", ""), texts.get("shape", ""), numbers.get("data_type", 0)
    if (
        texts.get("region_type") == _COPY_REGION
        and _NO_ELEMENTS.search(shape)
        and numbers["requested_bytes"]
    ):
        return COPY_TO_CARD, "", 0
    return COPY_TO_CARD if op == _RECEIVED else op, shape, dtype


@cache
def _dtype(number: int) -> str:
    """``"float32"`` for 1 (types.proto); empty for 0, which is no type, and for what this
    TensorFlow does not know.
    """
    try:
        return str(tf.as_dtype(number).name) if number else ""
    except TypeError:
        return ""


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of one message as they lie: number and content."""
    place = 0
    while place < len(message):
        number, start, place = _field(message, place)
        yield number, message[start:place]


def _pieces(message: memoryview) -> Iterator[bytes]:
    """The message in pieces of whole fields, each of which is a message of its own."""
    start = place = 0
    while place < len(message):
        place = _field(message, place)[2]
        if place - start >= _PIECE_BYTES or place == len(message):
            yield bytes(message[start:place])
            start = place


def _field(message: memoryview, place: int) -> tuple[int, int, int]:
    """Number of the field at ``place``, where its content starts, and where it ends."""
    key, start = _varint(message, place)
    wire_type = key & 7
    if wire_type == _DELIMITED:
        length, start = _varint(message, start)
        end = start + length
    elif wire_type == _VARINT:
        end = _varint(message, start)[1]
    elif wire_type in (_FIXED64, _FIXED32):
        end = start + (8 if wire_type == _FIXED64 else 4)
    else:
        raise ValueError(f"the profiler's file holds wire type {wire_type}, which no XSpace has")
    if end > len(message):
        raise ValueError("the profiler's file is cut short")
    return key >> 3, start, end


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number of variable length, and where it ends."""
    value = shift = 0
    while place < len(message):
        byte = message[place]
        place += 1
        if byte < 128:
            return value | byte << shift, place
        value |= (byte & 127) << shift
        shift += 7
    raise ValueError("the profiler's file is cut short")
