"""Traces for other people's viewers: timelines (Perfetto, XProf), and what was alive at the peak of
each phase (pprof, folded stacks).

Each phase has a profile of its own: peaks of two phases were never alive together, and viewers add
up what is in one file. The two formats of protocol buffers are written field by field
(protobuf.dev/programming-guides/encoding), which needs no library.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

from harness.rundir.traces import Alive, Trace, TracedPhase
from harness.words import file_stem

_NS_IN_US = 1000
_PS_IN_NS = 1000

# Chrome's trace events, which Perfetto reads as well: X is a span, C a counter, i an instant, M a
# name. Times are microseconds ("Trace Event Format").

_PROCESS = 1
_PHASES_THREAD = 1


def perfetto(trace: Trace) -> dict[str, bytes]:
    """One file of trace events: phases as spans, requested and allocator's bytes as counters."""
    document = {
        "displayTimeUnit": "ms",
        "otherData": {
            "point": trace.point,
            "device": trace.device,
            "allocator": trace.allocator,
            "tensorflow": trace.tensorflow,
        },
        "traceEvents": [*_names(trace), *_spans(trace), *_counters(trace)],
    }
    return {".perfetto.json": json.dumps(document, separators=(",", ":")).encode()}


def _names(trace: Trace) -> Iterator[dict[str, object]]:
    named = {"ph": "M", "pid": _PROCESS}
    yield {**named, "name": "process_name", "args": {"name": trace.point}}
    yield {
        **named,
        "tid": _PHASES_THREAD,
        "name": "thread_name",
        "args": {"name": "phases"},
    }


def _spans(trace: Trace) -> Iterator[dict[str, object]]:
    where = {"pid": _PROCESS, "tid": _PHASES_THREAD, "cat": "phase"}
    for phase in trace.phases:
        yield {
            **where,
            "ph": "X",
            "name": phase.phase,
            "ts": phase.start_ns / _NS_IN_US,
            "dur": (phase.end_ns - phase.start_ns) / _NS_IN_US,
            "args": {
                "finished": phase.finished,
                "requested_peak_bytes": phase.requested.peak_bytes,
                "allocator_peak_bytes": phase.allocator.peak_bytes,
            },
        }
        yield {
            **where,
            "ph": "i",
            "s": "t",
            "name": f"peak of {phase.phase}",
            "ts": phase.peak_ns / _NS_IN_US,
            "args": {"requested_bytes": phase.requested.peak_bytes},
        }


def _counters(trace: Trace) -> Iterator[dict[str, object]]:
    """One counter for each amount: values of one counter are drawn on top of each other."""
    for time_ns, requested_bytes, allocator_bytes in zip(*trace.timeline.columns(), strict=True):
        amounts = (("requested", requested_bytes), ("allocator", allocator_bytes))
        for name, amount_bytes in amounts:
            yield {
                "ph": "C",
                "pid": _PROCESS,
                "name": f"{name} bytes",
                "ts": time_ns / _NS_IN_US,
                "args": {"bytes": amount_bytes},
            }


# What was alive at the peak of a phase, as stacks: phase, the path of the operation, type and
# shape.


def collapsed(trace: Trace) -> dict[str, bytes]:
    """A file for each phase in which anything was alive: a line for each stack, with semicolons
    between its frames, then a space and bytes.
    """
    return {
        f".{file_stem(phase.phase)}.collapsed.txt": "".join(
            f"{';'.join(_in_one_frame(frame) for frame in stack)} {total_bytes}\n"
            for stack, _, total_bytes in _stacks(phase)
        ).encode()
        for phase in trace.phases
        if phase.alive
    }


def _stacks(phase: TracedPhase) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Stack with its root first, number of tensors, and their bytes in all."""
    for alive in phase.alive:
        path = tuple(part for part in alive.op.split("/") if part) or ("no operation",)
        yield (phase.phase, *path, _tensor(alive)), alive.count, alive.total_bytes


def _tensor(alive: Alive) -> str:
    named = " ".join(part for part in (alive.dtype, alive.shape) if part)
    return named or f"{alive.each_bytes:,} B"


def _in_one_frame(text: str) -> str:
    """A semicolon would end the frame, a line break the stack."""
    return " ".join(text.replace(";", ",").split())


# github.com/google/pprof/blob/main/proto/profile.proto, by the numbers of its fields.


def pprof(trace: Trace) -> dict[str, bytes]:
    """A file for each phase in which anything was alive at its peak: its tensors, with their number
    and their bytes.
    """
    return {
        f".{file_stem(phase.phase)}.pb.gz": gzip.compress(_profile(trace, phase), mtime=0)
        for phase in trace.phases
        if phase.alive
    }


class _Strings:
    """The table of texts; the first is empty."""

    def __init__(self) -> None:
        self.numbers = {"": 0}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def _profile(trace: Trace, phase: TracedPhase) -> bytes:
    text = _Strings()
    frames: dict[str, int] = {}
    samples = [
        _sample([frames.setdefault(frame, len(frames) + 1) for frame in stack], count, total_bytes)
        for stack, count, total_bytes in _stacks(phase)
    ]
    types = (("inuse_objects", "count"), ("inuse_space", "bytes"))
    comment = (
        f"{trace.point}: requested bytes of {trace.allocator} alive at the peak of {phase.phase}"
    )
    return b"".join(
        [
            *(_field(1, _value_type(text, *one)) for one in types),
            *(_field(2, sample) for sample in samples),
            *(_field(4, _location(number)) for number in frames.values()),
            *(_field(5, _function(text(frame), number)) for frame, number in frames.items()),
            _field(11, _value_type(text, "space", "bytes")),
            _field(12, 1),
            _field(13, text(comment)),
            _field(14, text("inuse_space")),
            # last of all, because the others add to it
            *(_field(6, string.encode()) for string in text.numbers),
        ]
    )


def _value_type(text: _Strings, name: str, unit: str) -> bytes:
    return _field(1, text(name)) + _field(2, text(unit))


def _sample(locations: Sequence[int], count: int, total_bytes: int) -> bytes:
    """The innermost location comes first."""
    stack = b"".join(_field(1, location) for location in reversed(locations))
    return stack + _field(2, count) + _field(2, total_bytes)


def _location(number: int) -> bytes:
    return _field(1, number) + _field(4, _field(1, number))


def _function(name: int, number: int) -> bytes:
    return _field(1, number) + _field(2, name) + _field(3, name)


# An XSpace (tensorflow/tsl/profiler/protobuf/xplane.proto), by the numbers of its fields. The
# events are those that TensorFlow's profiler records of an allocator, as far as a stored trace has
# them: amounts and times, no addresses and no operations.

_PLANE = "/host:CPU"
_ALLOCATION, _DEALLOCATION = 1, 2
_FIRST_PHASE = 3
_STATS = (
    "allocator_name",
    "bytes_allocated",
    "bytes_available",
    "peak_bytes_in_use",
    "requested_bytes",
    "allocation_bytes",
)
"""Names that XProf's memory profile reads (tsl/profiler/utils/xplane_schema.cc), numbered from
1."""


def xplane(trace: Trace) -> dict[str, bytes]:
    """One file: a line of phases, and a line of the allocator's events."""
    events = ["MemoryAllocation", "MemoryDeallocation", *(phase.phase for phase in trace.phases)]
    plane = b"".join(
        [
            _field(2, _PLANE.encode()),
            _field(3, _line(1, "phases", _phase_events(trace))),
            _field(3, _line(2, trace.allocator, _memory_events(trace))),
            *(_field(4, _metadata(number, name)) for number, name in enumerate(events, start=1)),
            *(_field(5, _metadata(number, name)) for number, name in enumerate(_STATS, start=1)),
        ]
    )
    return {".xplane.pb": _field(1, plane)}


def _line(number: int, name: str, events: Iterator[bytes]) -> bytes:
    content = b"".join(_field(4, event) for event in events)
    return _field(1, number) + _field(2, name.encode()) + content


def _metadata(number: int, name: str) -> bytes:
    """An entry of a map: the key, and a message with the same number and a name."""
    return _field(1, number) + _field(2, _field(1, number) + _field(2, name.encode()))


def _phase_events(trace: Trace) -> Iterator[bytes]:
    for number, phase in enumerate(trace.phases, start=_FIRST_PHASE):
        yield (
            _field(1, number)
            + _field(2, phase.start_ns * _PS_IN_NS)
            + _field(3, (phase.end_ns - phase.start_ns) * _PS_IN_NS)
        )


def _memory_events(trace: Trace) -> Iterator[bytes]:
    peak_bytes = trace.base_bytes
    before = (0, 0, trace.base_bytes)
    rows = [before, *zip(*trace.timeline.columns(), strict=True)]
    for (_, requested_before, before_bytes), (time_ns, requested, in_use_bytes) in pairwise(rows):
        peak_bytes = max(peak_bytes, in_use_bytes)
        change_bytes = in_use_bytes - before_bytes
        amounts = {
            2: in_use_bytes,
            **({} if trace.limit_bytes is None else {3: trace.limit_bytes - in_use_bytes}),
            4: peak_bytes,
            5: abs(requested - requested_before),
            6: abs(change_bytes),
        }
        yield (
            _field(1, _ALLOCATION if change_bytes >= 0 else _DEALLOCATION)
            + _field(2, time_ns * _PS_IN_NS)
            + _field(4, _field(1, 1) + _field(5, trace.allocator.encode()))
            + b"".join(
                _field(4, _field(1, stat) + _field(4, amount)) for stat, amount in amounts.items()
            )
        )


def _field(number: int, value: int | bytes) -> bytes:
    """One field: a whole number of variable length, or what has a length of its own."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number in the two's complement of 64 bits."""
    left, content = value & 0xFFFF_FFFF_FFFF_FFFF, bytearray()
    while left > 0x7F:
        content.append(left & 0x7F | 0x80)
        left >>= 7
    content.append(left)
    return bytes(content)
