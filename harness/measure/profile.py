"""The file that TensorFlow's profiler leaves (an XSpace), read event by event: a long run needs no second copy in memory."""

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf

from harness.measure.ordering import Event

EDGE_EVENT = "memory_phase_edge"
"""Name of the marks between the profiler's events; their one statistic is ``edge``."""
EDGE_NUMBER = "edge"

_ALLOCATED, _FREED = "MemoryAllocation", "MemoryDeallocation"
_WANTED = frozenset({EDGE_EVENT, _ALLOCATED, _FREED})
_PICOSECONDS = 1000  # in a nanosecond; XEvent counts the former, XLine the latter (xplane.proto)
# Wire types of protocol buffers (protobuf.dev/programming-guides/encoding).
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, memoryview]


@dataclass(slots=True)
class Profile:
    """What one recording holds about one allocator; times in nanoseconds of the profiler's clock."""

    events: list[Event] = field(default_factory=list)
    edges: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Start and end of each mark, by its number."""
    others: Counter[str] = field(default_factory=Counter)
    """Events of other allocators, which are left out."""


def read_profile(path: Path, allocator: str, xplane: ModuleType) -> Profile:
    """Read the events of one allocator and the marks; ``xplane`` is TensorFlow's module of that name.

    Raises ValueError where the file is no XSpace, OSError where it cannot be read.
    """
    with path.open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    profile = Profile()
    for number, _, plane in _fields(whole):
        if number == xplane.XSpace.PLANES_FIELD_NUMBER:
            _read_plane(plane, profile, allocator, xplane)
    return profile


def _read_plane(plane: memoryview, profile: Profile, allocator: str, xplane: ModuleType) -> None:
    names: dict[int, str] = {}
    events: dict[int, str] = {}
    for number, _, content in _fields(plane):
        if number == xplane.XPlane.STAT_METADATA_FIELD_NUMBER:
            entry = xplane.XPlane.StatMetadataEntry.FromString(bytes(content))
            names[entry.key] = entry.value.name
        elif number == xplane.XPlane.EVENT_METADATA_FIELD_NUMBER:
            entry = xplane.XPlane.EventMetadataEntry.FromString(bytes(content))
            if entry.value.name in _WANTED:
                events[entry.key] = entry.value.name
    if not events:
        return
    for number, _, line in _fields(plane):
        if number == xplane.XPlane.LINES_FIELD_NUMBER:
            _read_line(line, profile, allocator, (events, names, xplane))


def _read_line(
    line: memoryview, profile: Profile, allocator: str, words: tuple[Mapping[int, str], Mapping[int, str], ModuleType]
) -> None:
    events, names, xplane = words
    # The line without its events is small, and tells when it starts.
    start_ns = sum(value for number, value, _ in _fields(line) if number == xplane.XLine.TIMESTAMP_NS_FIELD_NUMBER)
    for number, _, content in _fields(line):
        if number != xplane.XLine.EVENTS_FIELD_NUMBER:
            continue
        event = xplane.XEvent.FromString(bytes(content))
        name = events.get(event.metadata_id)
        if name is None:
            continue
        statistics = {names[stat.metadata_id]: _value(stat, names) for stat in event.stats}
        time_ns = start_ns + event.offset_ps // _PICOSECONDS
        if name == EDGE_EVENT:
            profile.edges[int(statistics[EDGE_NUMBER])] = (time_ns, time_ns + event.duration_ps // _PICOSECONDS)
        elif statistics["allocator_name"] == allocator:
            profile.events.append(_event(time_ns, statistics, allocated=name == _ALLOCATED))
        else:
            profile.others[str(statistics["allocator_name"])] += 1


def _event(time_ns: int, statistics: Mapping[str, Any], *, allocated: bool) -> Event:
    return Event(
        time_ns=time_ns,
        allocated=allocated,
        address=int(statistics["addr"]),
        requested_bytes=int(statistics["requested_bytes"]),
        allocation_bytes=int(statistics["allocation_bytes"]),
        in_use_bytes=int(statistics["bytes_allocated"]),
        op=str(statistics.get("tf_op", "")),
        shape=str(statistics.get("shape", "")),
        dtype=_dtype(int(statistics.get("data_type", 0))),
        region=str(statistics.get("region_type", "")),
    )


def _dtype(number: int) -> str:
    """``"float32"`` for 1 (types.proto); empty for 0, which is no type, and for what this TensorFlow does not know."""
    try:
        return str(tf.as_dtype(number).name) if number else ""
    except TypeError:
        return ""


def _value(stat: Any, names: Mapping[int, str]) -> Any:  # noqa: ANN401 - a message of protobuf, and any of its values
    kind = stat.WhichOneof("value")
    # Texts that occur often are told as the number of a name, which keeps them single here too.
    return names[stat.ref_value] if kind == "ref_value" else getattr(stat, kind)


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of one message as they lie: number, value (0 unless it is a whole number), content."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire_type, value = key >> 3, key & 7, 0
        start = place
        if wire_type == _VARINT:
            value, place = _varint(message, place)
        elif wire_type == _DELIMITED:
            length, start = _varint(message, place)
            place = start + length
        elif wire_type in (_FIXED64, _FIXED32):
            place += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"the profiler's file holds wire type {wire_type}, which no XSpace has")
        if place > len(message):
            raise ValueError("the profiler's file is cut short")
        yield number, value, message[start:place]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number of variable length, and where it ends."""
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ValueError("the profiler's file is cut short")
