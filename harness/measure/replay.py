"""Replay what an allocator did, address by address: how much was live at every moment, and what it
was at the peaks.

Pure: events in, records out; nothing of TensorFlow is imported. The *requested* bytes of a replay
are what the program asked for, unquantised; the allocator's bytes are those it keeps count of
itself, rounded up to its chunks.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from harness.measure.exceptions import look_for_room, name_exception, refused_memory
from harness.records import Outcome
from harness.rundir.traces import Alive, Counts, Edges, OutOfMemory
from harness.words import (
    ALIVE,
    COPY_TO_CARD,
    MATCH_SHARE,
    MOST_MULTIPLES,
    largest_in_words,
)

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
_UNSHAPED = frozenset({"", COPY_TO_CARD})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One phase on the clock of the events."""

    phase: str
    index: int
    finished: bool
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseReplay:
    """One phase of a replay."""

    span: Span
    requested: Edges
    """Of what was asked for since the recording began; memory from before it is not in here."""
    allocator: Edges
    """The allocator's own count, with what was in use before."""
    peak_ns: int
    """When the requested bytes were highest, for the first time."""
    alive: tuple[Alive, ...]
    """What was live then, the largest total first."""


@dataclass(slots=True)
class LiveAmounts:
    """How much was live after each event, one entry each, in order.

    Times never go back: what the allocator counted after another event did not happen before it.
    """

    time_ns: "array[int]" = field(default_factory=lambda: array("q"))
    requested_bytes: "array[int]" = field(default_factory=lambda: array("q"))
    allocator_bytes: "array[int]" = field(default_factory=lambda: array("q"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The whole of one recording."""

    base_bytes: int
    """In use by the allocator's own count when the recording began."""
    events: tuple[Event, ...]
    """In the order in which they happened."""
    timeline: LiveAmounts
    phases: tuple[PhaseReplay, ...]
    counts: Counts


def replay(
    events: Iterable[Event], spans: Sequence[Span], *, base_bytes: int, declared: Mapping[str, int]
) -> Replay:
    """Put the events of one allocator in order and follow them.

    ``base_bytes`` is what the allocator had in use when the recording began, ``spans`` the phases
    in their order, and ``declared`` what the scenario's arrays add up to, by name.
    """
    counts = Counts.none()
    ordering = Ordering(base_bytes)
    ordered = tuple(ordering.order(sorted(events, key=lambda event: event.time_ns)))
    counts.reordered, counts.jumps = ordering.reordered, ordering.jumps
    timeline = _follow(ordered, counts)
    peaks = [_peak_place(timeline, span) for span in spans]
    alive = _alive_at(ordered, set(peaks), declared)
    phases = tuple(
        _phase(timeline, span, place, alive.get(place, ()), base_bytes)
        for span, place in zip(spans, peaks, strict=True)
    )
    return Replay(
        base_bytes=base_bytes, events=ordered, timeline=timeline, phases=phases, counts=counts
    )


def refusal_place(done: Replay, *, from_ns: int, asked_bytes: int, limit_bytes: int | None) -> int:
    """Number of the last event before memory was refused between ``from_ns`` and the end; -1 for
    none at all.

    A refused request leaves no event, and what follows it gives memory back: the moment is that of
    the last allocation. Where the allocator's limit is known, it is the last one after which the
    request could not have fitted, so that small ones made while the error was on its way are left
    out. Without an allocation it is the moment at ``from_ns``.
    """
    start = bisect_left(done.timeline.time_ns, from_ns)
    allocated = [place for place in range(start, len(done.events)) if done.events[place].allocated]
    most_bytes = None if limit_bytes is None else limit_bytes - asked_bytes
    crowded = [
        place
        for place in allocated
        if most_bytes is not None and done.events[place].in_use_bytes > most_bytes
    ]
    return (crowded or allocated or [start - 1])[-1]


def alive_after(done: Replay, place: int, declared: Mapping[str, int]) -> tuple[Alive, ...]:
    """What was live after the event with this number; nothing for -1."""
    return _alive_at(done.events, {place}, declared).get(place, ())


def group(live: Iterable[Event], declared: Mapping[str, int]) -> tuple[Alive, ...]:
    """Live allocations by operation, shape, type, region and size; the largest total first, names
    decide between equals.
    """
    numbers = Counter(
        (event.op, event.shape, event.dtype, event.region, event.requested_bytes) for event in live
    )
    ranked = sorted(numbers.items(), key=lambda item: (-item[0][4] * item[1], item[0]))
    return tuple(
        Alive(
            op=op,
            shape=shape,
            dtype=dtype,
            region=region,
            each_bytes=each_bytes,
            count=count,
            like=multiple_of(each_bytes, declared, most=MOST_MULTIPLES if op in _UNSHAPED else 1),
        )
        for (op, shape, dtype, region, each_bytes), count in ranked
    )


def multiple_of(
    amount_bytes: int, declared: Mapping[str, int], *, most: int = MOST_MULTIPLES
) -> str:
    """``"1.00 x batch"``: the smallest multiple, up to ``most``, of a declared array that the
    amount is within 1 % of.

    Empty where there is none. Of several arrays with the same multiple the nearest is named, then
    the first declared.
    """
    found = []
    for place, (name, unit_bytes) in enumerate(declared.items()):
        whole = round(amount_bytes / unit_bytes) if unit_bytes else 0
        distance_bytes = abs(amount_bytes - whole * unit_bytes)
        if 1 <= whole <= most and distance_bytes <= MATCH_SHARE * whole * unit_bytes:
            found.append(
                (whole, distance_bytes, place, f"{amount_bytes / unit_bytes:.2f} x {name}")
            )
    return min(found)[3] if found else ""


def _follow(ordered: Sequence[Event], counts: Counts) -> LiveAmounts:
    """The sums after each event."""
    timeline, live, requested_bytes = LiveAmounts(), dict[int, int](), 0
    for event in ordered:
        known_bytes = live.pop(event.address, None)
        requested_bytes -= known_bytes or 0
        if event.allocated:
            counts.allocations += 1
            counts.overwritten += known_bytes is not None
            live[event.address] = event.requested_bytes
            requested_bytes += event.requested_bytes
        else:
            counts.deallocations += 1
            counts.from_before += known_bytes is None
            counts.resized += known_bytes is not None and known_bytes != event.requested_bytes
        timeline.time_ns.append(
            max(event.time_ns, timeline.time_ns[-1]) if timeline.time_ns else event.time_ns
        )
        timeline.requested_bytes.append(requested_bytes)
        timeline.allocator_bytes.append(event.in_use_bytes)
    return timeline


def _alive_at(
    ordered: Sequence[Event], places: set[int], declared: Mapping[str, int]
) -> dict[int, tuple[Alive, ...]]:
    """What is live after each of the events with these numbers."""
    live: dict[int, Event] = {}
    found = {}
    for place, event in enumerate(ordered):
        live.pop(event.address, None)
        if event.allocated:
            live[event.address] = event
        if place in places:
            found[place] = group(live.values(), declared)
    return found


def _places(timeline: LiveAmounts, span: Span) -> tuple[int, int]:
    """Number of the last event before the phase (-1: none) and of the last one in it."""
    return bisect_left(timeline.time_ns, span.start_ns) - 1, bisect_right(
        timeline.time_ns, span.end_ns
    ) - 1


def _peak_place(timeline: LiveAmounts, span: Span) -> int:
    """Number of the event after which the requested bytes of the phase were highest, the first of
    equals; -1 before any.
    """
    before, last = _places(timeline, span)
    amounts = timeline.requested_bytes
    best, best_bytes = before, amounts[before] if before >= 0 else 0
    for place in range(before + 1, last + 1):
        if amounts[place] > best_bytes:
            best, best_bytes = place, amounts[place]
    return best


def _phase(
    timeline: LiveAmounts, span: Span, peak_place: int, alive: tuple[Alive, ...], base_bytes: int
) -> PhaseReplay:
    before, last = _places(timeline, span)
    return PhaseReplay(
        span=span,
        requested=_edges(timeline.requested_bytes, before, last, 0),
        allocator=_edges(timeline.allocator_bytes, before, last, base_bytes),
        # A peak that the phase began with was there at its start.
        peak_ns=max(timeline.time_ns[peak_place], span.start_ns)
        if peak_place >= 0
        else span.start_ns,
        alive=alive,
    )


def _edges(amounts: "array[int]", before: int, last: int, at_first_bytes: int) -> Edges:
    start_bytes = amounts[before] if before >= 0 else at_first_bytes
    within = amounts[before + 1 : last + 1]
    return Edges(
        start_bytes=start_bytes,
        peak_bytes=max([start_bytes, *within]),
        end_bytes=within[-1] if len(within) else start_bytes,
    )


# The moment at which the device's memory was refused, out of the replay of a traced run: what
# was asked for, what was alive.


def out_of_memory(
    done: Replay,
    spans: list[Span],
    error: BaseException,
    declared: Mapping[str, int],
    device: Mapping[str, Any],
) -> OutOfMemory | None:
    """What was asked for and what was live, where the error says that the device's memory ran out;
    None where it does not.
    """
    if name_exception(error, look_for_room(device)).outcome is not Outcome.DEVICE_OOM:
        return None
    shape, dtype, asked_bytes = _asked(error)
    unfinished = spans[-1] if spans and not spans[-1].finished else None
    from_ns = unfinished.start_ns if unfinished else spans[-1].end_ns if spans else 0
    place = refusal_place(
        done, from_ns=from_ns, asked_bytes=asked_bytes or 0, limit_bytes=device["limit_bytes"]
    )
    return OutOfMemory(
        phase=unfinished.phase if unfinished else None,
        shape=shape,
        dtype=dtype,
        asked_bytes=asked_bytes,
        like=multiple_of(asked_bytes or 0, declared),
        requested_bytes=done.timeline.requested_bytes[place] if place >= 0 else 0,
        allocator_bytes=done.timeline.allocator_bytes[place] if place >= 0 else done.base_bytes,
        alive=alive_after(done, place, declared),
    )


def largest_alive(alive: Sequence[Alive]) -> str:
    """A note for the exception: the largest of what was alive."""
    return f"{ALIVE}{largest_in_words([one.counted for one in alive])}"


def _asked(error: BaseException) -> tuple[str, str, int | None]:
    """Shape, type and bytes of the tensor that was refused; empty and None where the message does
    not tell.
    """
    refused = refused_memory(str(error))
    if refused is None or not refused.type_name:
        return "", "", None
    # the message has the short names of types.cc, which as_dtype knows
    dtype = tf.as_dtype(refused.type_name)
    numbers = [int(number) for number in refused.shape.strip("[]").split(",") if number]
    return refused.shape, str(dtype.name), math.prod(numbers) * dtype.size or None
