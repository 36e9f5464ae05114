"""The replay: exact for what fits, and every event that does not fit is counted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measure.replay import (
    WINDOW,
    Event,
    Span,
    alive_after,
    multiple_of,
    refusal_place,
    replay,
)
from harness.rundir.traces import Alive, Edges
from harness.words import COPY_TO_CARD, MOST_MULTIPLES

CHUNK_BYTES = 256


class Allocator:
    """Makes the events of an allocator that rounds up to 256 B, one nanosecond after the other."""

    def __init__(self, base_bytes=0):
        self.in_use_bytes = base_bytes
        self.events = []
        self.live = {}

    def take(self, address, size_bytes, **names):
        chunk_bytes = -(-size_bytes // CHUNK_BYTES) * CHUNK_BYTES
        self.in_use_bytes += chunk_bytes
        self.live[address] = (size_bytes, chunk_bytes)
        return self._note(True, address, size_bytes, chunk_bytes, names)

    def give(self, address, sizes=None):
        size_bytes, chunk_bytes = self.live.pop(address) if sizes is None else sizes
        self.in_use_bytes -= chunk_bytes
        return self._note(False, address, size_bytes, chunk_bytes, {})

    def _note(self, allocated, address, size_bytes, chunk_bytes, names):
        event = Event(
            time_ns=len(self.events) + 1,
            allocated=allocated,
            address=address,
            requested_bytes=size_bytes,
            allocation_bytes=chunk_bytes,
            in_use_bytes=self.in_use_bytes,
            **names,
        )
        self.events.append(event)
        return event


def at(event, time_ns):
    """The same event with another time."""
    return Event(**{name: getattr(event, name) for name in Event.__slots__} | {"time_ns": time_ns})


def whole(start_ns=0, end_ns=10**9, **fields):
    return Span(
        **{"phase": "all", "index": 0, "finished": True, "start_ns": start_ns, "end_ns": end_ns}
        | fields
    )


def follow(events, *spans, base_bytes=0, declared=None):
    return replay(events, spans or (whole(),), base_bytes=base_bytes, declared=declared or {})


def odd(done):
    counts = done.counts
    return {
        name: value
        for name in ("from_before", "reordered", "jumps", "overwritten", "resized")
        if (value := getattr(counts, name))
    }


@pytest.fixture
def allocator():
    return Allocator()


def test_requested_bytes_are_not_rounded_and_the_allocators_are(allocator):
    """1,000 B, then 1 B more, then the first is given back."""
    allocator.take(1, 1000)
    allocator.take(2, 1)
    allocator.give(1)
    done = follow(allocator.events, base_bytes=0)

    assert list(done.timeline.requested_bytes) == [1000, 1001, 1]
    assert list(done.timeline.allocator_bytes) == [1024, 1280, 256]
    assert done.phases[0].requested == Edges(start_bytes=0, peak_bytes=1001, end_bytes=1)
    assert done.phases[0].allocator == Edges(start_bytes=0, peak_bytes=1280, end_bytes=256)
    assert (done.phases[0].peak_ns, odd(done)) == (2, {})


def test_a_phase_has_what_happened_in_it_and_starts_with_what_was_live(allocator):
    """Events at its edges belong to it: the marks are made inside."""
    for address in range(1, 6):
        allocator.take(address, 100 * address)
    first, second, third = follow(allocator.events, whole(0, 0), whole(2, 4), whole(6, 9)).phases

    assert first.requested == Edges(start_bytes=0, peak_bytes=0, end_bytes=0)
    assert second.requested == Edges(start_bytes=100, peak_bytes=1000, end_bytes=1000)
    assert third.requested == Edges(start_bytes=1500, peak_bytes=1500, end_bytes=1500)
    assert (first.alive, len(second.alive), len(third.alive)) == ((), 4, 5)
    assert third.peak_ns == 6


def test_without_events_the_phases_are_what_was_in_use_before():
    """Nothing was requested since, and the allocator's count stands still."""
    (phase,) = follow([], base_bytes=512).phases

    assert phase.requested == Edges(start_bytes=0, peak_bytes=0, end_bytes=0)
    assert phase.allocator == Edges(start_bytes=512, peak_bytes=512, end_bytes=512)
    assert phase.alive == ()


def test_what_was_alive_at_the_peak_is_grouped_and_the_largest_total_comes_first(allocator):
    """Three of 300 B are more than one of 800."""
    for address in (1, 2, 3):
        allocator.take(address, 300, op="MatMul", shape="[75]", dtype="float32", region="output")
    allocator.take(4, 800, op="Conv2D", shape="[200]", dtype="float32", region="temp")
    allocator.give(4)
    allocator.take(5, 50)
    (phase,) = follow(allocator.events, declared={"batch": 800}).phases

    assert phase.alive == (
        Alive(
            op="MatMul",
            shape="[75]",
            dtype="float32",
            region="output",
            each_bytes=300,
            count=3,
            like="",
        ),
        Alive(
            op="Conv2D",
            shape="[200]",
            dtype="float32",
            region="temp",
            each_bytes=800,
            count=1,
            like="1.00 x batch",
        ),
    )


def test_what_was_there_before_is_counted_and_lowers_the_allocators_bytes_alone():
    """Its size is known when it goes, but it was not requested in the recording."""
    allocator = Allocator(base_bytes=1024)
    allocator.take(1, 100)
    allocator.give(9, sizes=(1000, 1024))
    done = follow(allocator.events, base_bytes=1024)

    assert list(done.timeline.requested_bytes) == [100, 100]
    assert list(done.timeline.allocator_bytes) == [1280, 256]
    assert odd(done) == {"from_before": 1}


def test_an_address_that_is_used_again_is_another_allocation(allocator):
    """Given back and taken with another size."""
    allocator.take(1, 100)
    allocator.give(1)
    allocator.take(1, 700, op="Fill")
    done = follow(allocator.events)

    assert list(done.timeline.requested_bytes) == [100, 0, 700]
    assert (done.phases[0].alive[0].op, odd(done)) == ("Fill", {})


def test_equal_times_are_ordered_by_the_allocators_count(allocator):
    """Two threads within one tick of the clock; the file has them the wrong way round."""
    events = [
        allocator.take(1, 100),
        allocator.give(1),
        allocator.take(1, 300),
        allocator.take(2, 5),
    ]
    done = follow([at(event, 7) for event in reversed(events)])

    assert list(done.timeline.requested_bytes) == [100, 0, 300, 305]
    assert odd(done) == {}


def test_times_out_of_order_are_put_right_and_counted(allocator):
    """A thread stamped its event late: the count tells that the other came after it."""
    first, second, third = allocator.take(1, 100), allocator.take(2, 300), allocator.give(1)
    done = follow([at(first, 20), at(second, 10), at(third, 30)])

    assert list(done.timeline.requested_bytes) == [100, 400, 300]
    assert list(done.timeline.time_ns) == [20, 20, 30]
    assert odd(done) == {"reordered": 1}


@pytest.mark.parametrize(
    ("moved", "expected"), [(WINDOW, {"reordered": 1}), (WINDOW + 1, {"reordered": 0, "jumps": 2})]
)
def test_events_are_put_right_within_the_window_and_not_beyond_it(allocator, moved, expected):
    """At the limit and one past it: the first event bears a time after that many others."""
    events = [allocator.take(address, 300 * address) for address in range(1, moved + 2)]
    done = follow([at(events[0], moved + 2), *events[1:]])

    assert odd(done) == {name: number for name, number in expected.items() if number}


def test_an_event_that_is_missing_is_a_jump_and_the_count_goes_on_from_there(allocator):
    """One allocation was not recorded; its deallocation then comes from nowhere."""
    allocator.take(1, 100)
    allocator.take(2, 1000)
    allocator.take(3, 200)
    allocator.give(2)
    done = follow([allocator.events[0], *allocator.events[2:]])

    assert list(done.timeline.requested_bytes) == [100, 300, 300]
    assert list(done.timeline.allocator_bytes) == [256, 1536, 512]
    assert odd(done) == {"jumps": 1, "from_before": 1}


def test_a_deallocation_that_is_missing_shows_when_its_address_is_taken_again(allocator):
    """The later allocation is what lies there."""
    allocator.take(1, 100)
    allocator.give(1)
    allocator.take(1, 700)
    done = follow([allocator.events[0], allocator.events[2]])

    assert list(done.timeline.requested_bytes) == [100, 700]
    assert odd(done) == {"jumps": 1, "overwritten": 1}


def test_a_deallocation_of_another_size_takes_off_what_was_allocated(allocator):
    """Both events between are missing."""
    allocator.take(1, 100)
    allocator.give(1)
    allocator.take(1, 200)
    allocator.give(1)
    done = follow([allocator.events[0], allocator.events[3]])

    assert list(done.timeline.requested_bytes) == [100, 0]
    assert odd(done) == {"resized": 1}


@pytest.mark.parametrize(
    ("amount_bytes", "expected"),
    [
        (1000, "1.00 x batch"),
        (1010, "1.01 x batch"),
        (1011, ""),
        (990, "0.99 x batch"),
        (989, ""),
        (3000, "3.00 x batch"),
        (3030, "3.03 x batch"),
        (3031, ""),
        (1000 * MOST_MULTIPLES, "16.00 x batch"),
        (1000 * (MOST_MULTIPLES + 1), ""),
        (500, ""),
        (0, ""),
        (7, "1.00 x frame"),
        (35, "5.00 x frame"),
    ],
)
def test_amounts_are_told_as_multiples_within_one_percent_or_not_at_all(amount_bytes, expected):
    """At the limit and one past it; nothing is a multiple of nothing."""

    assert multiple_of(amount_bytes, {"batch": 1000, "frame": 7, "arrays": 0}) == expected


def test_the_smallest_multiple_is_told_then_the_nearest_then_the_first_declared():
    """One batch of four images is a batch."""

    assert multiple_of(4000, {"image": 1000, "batch": 4000}) == "1.00 x batch"
    assert multiple_of(4000, {"odd": 4001, "batch": 4000}) == "1.00 x batch"
    assert multiple_of(4000, {"first": 4000, "second": 4000}) == "1.00 x first"


@pytest.mark.parametrize(
    ("op", "expected"), [("", "2.00 x batch"), (COPY_TO_CARD, "2.00 x batch"), ("Relu", "")]
)
def test_where_an_operation_is_named_only_the_whole_array_is_told(allocator, op, expected):
    """A layer of a network is often some multiple of its input."""
    allocator.take(1, 2000, op=op)

    assert follow(allocator.events, declared={"batch": 1000}).phases[0].alive[0].like == expected


def refused(allocator, *, from_ns=0, asked_bytes=1000, limit_bytes=4096):
    done = follow(allocator.events)
    place = refusal_place(done, from_ns=from_ns, asked_bytes=asked_bytes, limit_bytes=limit_bytes)
    return place, [(one.op, one.each_bytes) for one in alive_after(done, place, {})]


def test_memory_was_refused_after_the_last_allocation_and_before_all_was_given_back(allocator):
    """The error's way out frees both."""
    allocator.take(1, 3000, op="a")
    allocator.take(2, 500, op="b")
    allocator.give(1)
    allocator.give(2)

    assert refused(allocator) == (1, [("a", 3000), ("b", 500)])
    assert refused(allocator, limit_bytes=None) == (1, [("a", 3000), ("b", 500)])


def test_small_allocations_on_the_errors_way_are_not_the_moment(allocator):
    """After the first was freed, the request would have fitted."""
    allocator.take(1, 3000, op="a")
    allocator.take(2, 500, op="b")
    allocator.give(1)
    allocator.take(3, 10, op="message")

    assert refused(allocator)[0] == 1
    assert refused(allocator, limit_bytes=None)[0] == 3


def test_without_an_allocation_the_moment_is_the_start_of_the_phase(allocator):
    """What an earlier phase left, or nothing at all."""
    allocator.take(1, 100, op="kept")
    allocator.give(1)

    assert refused(allocator, from_ns=2) == (0, [("kept", 100)])
    assert refused(Allocator()) == (-1, [])


@st.composite
def histories(draw):
    """What an allocator with a few addresses did, base included."""
    allocator = Allocator(base_bytes=draw(st.integers(0, 4)) * CHUNK_BYTES)
    base_bytes = allocator.in_use_bytes
    for _ in range(draw(st.integers(0, 60))):
        address = draw(st.integers(1, 8))
        if address in allocator.live:
            allocator.give(address)
        else:
            allocator.take(
                address, draw(st.integers(1, 2000)), op=draw(st.sampled_from(["", "a", "b"]))
            )
    return base_bytes, allocator.events


def naive(events, base_bytes, start_ns, end_ns):
    """Live amounts by address at each moment of a phase, added up anew each time."""
    moments = []
    for until in range(start_ns - 1, end_ns + 1):
        live = {}
        in_use_bytes = base_bytes
        for event in events:
            if event.time_ns <= until:
                live[event.address] = event if event.allocated else None
                in_use_bytes = event.in_use_bytes
        moments.append((in_use_bytes, [event for event in live.values() if event is not None]))
    return moments


@settings(max_examples=200, deadline=None)
@given(histories(), st.integers(1, 30), st.integers(0, 40))
def test_a_replay_is_what_adding_up_anew_gives(history, start_ns, length_ns):
    """Edges, peaks and what was alive at the peak, of any phase of any history."""
    base_bytes, events = history
    (phase,) = follow(events, whole(start_ns, start_ns + length_ns), base_bytes=base_bytes).phases
    moments = naive(events, base_bytes, start_ns, start_ns + length_ns)
    requested = [sum(event.requested_bytes for event in live) for _, live in moments]

    assert phase.requested == Edges(
        start_bytes=requested[0], peak_bytes=max(requested), end_bytes=requested[-1]
    )
    in_use = [amount for amount, _ in moments]
    assert phase.allocator == Edges(
        start_bytes=in_use[0], peak_bytes=max(in_use), end_bytes=in_use[-1]
    )
    at_peak = moments[requested.index(max(requested))][1]
    assert sum(one.each_bytes * one.count for one in phase.alive) == max(requested)
    assert sorted(
        (one.op, one.each_bytes) for one in phase.alive for _ in range(one.count)
    ) == sorted((event.op, event.requested_bytes) for event in at_peak)


@settings(max_examples=200, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_shuffled_times_within_a_few_events_give_a_history_that_is_right_throughout(
    history, dice: random.Random
):
    """Three threads that each stamp late: groups of three share their times in any order. The end
    is the same in each.
    """
    base_bytes, events = history
    times = list(range(len(events)))
    for start in range(0, len(times), 3):
        group = times[start : start + 3]
        dice.shuffle(group)
        times[start : start + 3] = group
    done = follow(
        [at(event, time) for event, time in zip(events, times, strict=True)], base_bytes=base_bytes
    )
    straight = follow(events, base_bytes=base_bytes)

    assert {name: number for name, number in odd(done).items() if name != "reordered"} == {}
    assert list(done.timeline.requested_bytes[-1:]) == list(straight.timeline.requested_bytes[-1:])
    assert list(done.timeline.allocator_bytes[-1:]) == list(straight.timeline.allocator_bytes[-1:])
    assert len(done.events) == len(events)
