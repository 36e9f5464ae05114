"""The file that TensorFlow's profiler leaves (an XSpace), read piece by piece: a long run needs no
second copy in memory.
"""

import mmap
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf

from harness.words import COPY_TO_CARD

# Events of an allocator in the order in which they happened: its own running count decides where
# their times do not. TensorFlow's BFC allocator stamps an event inside its lock, so that times
# and count agree but for equal times. Others stamp it beside the lock, where two threads can
# change places.


WINDOW = 12
"""Chosen: how many events may have changed places with one. Each thread can have at most one out of
place."""
_MOST_TRIES = 2000
"""Chosen: states of a window that are looked at before it is taken as it lies. Most windows need as
many as they have events; only equal sizes at many addresses branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One allocation or deallocation, as the allocator reported it. The texts are empty where it
    named none.
    """

    time_ns: int
    allocated: bool
    """False: it was given back."""
    address: int
    requested_bytes: int
    allocation_bytes: int
    """What the allocator took for it."""
    in_use_bytes: int
    """The allocator's own count of everything in use, after this event."""
    op: str = ""
    shape: str = ""
    dtype: str = ""
    region: str = ""
    """What the memory is for, in TensorFlow's words: output, temp, persist, dynamic."""

    def follows(self, in_use_bytes: int) -> bool:
        """Whether the count can have been ``in_use_bytes`` before this event."""
        change_bytes = self.allocation_bytes if self.allocated else -self.allocation_bytes
        return self.in_use_bytes == in_use_bytes + change_bytes

    def finds(self, lies: int | None) -> bool:
        """Whether its address can have held ``lies`` bytes (None: nothing) before this event."""
        return lies is None if self.allocated else lies == self.requested_bytes


class Ordering:
    """Takes events by their times and gives them in the order of the count, each some events later.

    In a right order each event's count follows from the one before, nothing is allocated where
    something lies, and what is given back was there, in that size. Where no such order is found the
    events stay as they are: what was there before the recording may be given back too, and a count
    that does not follow is a jump.
    """

    def __init__(self, base_bytes: int) -> None:
        self.reordered = 0
        """Events with a time before that of the event given last: the count has put them later."""
        self.jumps = 0
        """Events whose count does not follow from the one before: something between them was not
        recorded."""
        # What has been given so far; then a chain that follows from it and may still change; then
        # what does not fit yet.
        self._in_use_bytes, self._live = base_bytes, dict[int, int]()
        self._chain = deque[Event]()
        self._stuck: list[Event] = []
        self._end_bytes, self._end_live = base_bytes, dict[int, int]()
        self._last_ns = 0

    def order(self, events: Iterable[Event]) -> Iterator[Event]:
        """All events, which come sorted by their times."""
        for event in events:
            self._take(event)
            if len(self._stuck) > WINDOW:
                yield from self._give_up()
            while len(self._chain) > WINDOW:
                yield self._give()
        while self._stuck:
            yield from self._give_up()
        while self._chain:
            yield self._give()

    def _take(self, event: Event) -> None:
        if (
            not self._stuck
            and event.follows(self._end_bytes)
            and event.finds(self._end_live.get(event.address))
        ):
            self._extend(event)
            return
        self._stuck.append(event)
        window = [*self._chain, *self._stuck]
        found = _chain_of_all(window, self._in_use_bytes, self._live)
        if found is not None:
            self._chain, self._stuck = deque(), []
            self._end_bytes, self._end_live = self._in_use_bytes, dict(self._live)
            for place in found:
                self._extend(window[place])

    def _extend(self, event: Event) -> None:
        self._chain.append(event)
        self._end_bytes = event.in_use_bytes
        _apply(event, self._end_live)

    def _give(self) -> Event:
        event = self._chain.popleft()
        self.reordered += event.time_ns < self._last_ns
        self._last_ns = event.time_ns
        self._in_use_bytes = event.in_use_bytes
        _apply(event, self._live)
        return event

    def _give_up(self) -> Iterator[Event]:
        """Give the chain and the first event that does not fit, and try the others anew."""
        while self._chain:
            yield self._give()
        first, *others = self._stuck
        self.jumps += not first.follows(self._in_use_bytes)
        self._stuck = []
        self._extend(first)
        yield self._give()
        for event in others:
            self._take(event)


def _apply(event: Event, live: dict[int, int]) -> None:
    if event.allocated:
        live[event.address] = event.requested_bytes
    else:
        live.pop(event.address, None)


def _chain_of_all(
    window: Sequence[Event], in_use_bytes: int, live: Mapping[int, int]
) -> tuple[int, ...] | None:
    """An order of the whole window that is right throughout, as near to the given one as can be;
    None when there is none.
    """
    # What has been taken decides the count, and nearly always what is live, whatever the order:
    # each set is tried once.
    tried: set[frozenset[int]] = set()
    open_ends: list[tuple[int, ...]] = [()]
    while open_ends and len(tried) < _MOST_TRIES:
        taken = open_ends.pop()
        if len(taken) == len(window):
            return taken
        if (already := frozenset(taken)) in tried:
            continue
        tried.add(already)
        count_bytes = window[taken[-1]].in_use_bytes if taken else in_use_bytes
        changed = {
            event.address: event.requested_bytes if event.allocated else None
            for event in map(window.__getitem__, taken)
        }
        # The last is taken up first: the earliest in time.
        open_ends += [
            (*taken, place)
            for place, event in reversed([*enumerate(window)])
            if place not in already
            and event.follows(count_bytes)
            and event.finds(
                changed[event.address] if event.address in changed else live.get(event.address)
            )
        ]
    return None


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
