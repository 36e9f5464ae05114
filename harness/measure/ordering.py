"""Events of an allocator in the order in which they happened: its own running count decides where
their times do not.

TensorFlow's BFC allocator stamps an event inside its lock, so that times and count agree but for
equal times. Others stamp it beside the lock, where two threads can change places.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
