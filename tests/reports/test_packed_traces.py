"""The traces of the page: they have room, and every phase keeps its peak."""

import base64
import gzip
import json
from itertools import accumulate, pairwise

import numpy as np
import pytest

from harness.rundir.traces import read_trace
from harness.words import MIB
from reports.packed_traces import LEAST_EVENTS, kept_events, packed_traces
from reports.view import RunView
from tests.reports.traced_runs import LONG_EVENTS, write_traced_run


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Three traced points, one of 40,000 events."""
    return write_traced_run(tmp_path_factory.mktemp("traced") / "run")


@pytest.fixture
def judgement(traced, judged, held):
    return judged(traced, held)


def unpacked(packed):
    return json.loads(gzip.decompress(base64.b64decode(packed.text)))


def columns(trace):
    return {name: list(accumulate(trace[name])) for name in ("time", "requested", "allocator")}


def test_a_trace_that_has_room_is_there_event_for_event(traced, judgement):
    """Amounts to the byte, times to the microsecond."""
    first = unpacked(packed_traces(RunView(traced), judgement)[1])
    path = traced.path / "traces" / f"{first['point']}.json.gz"
    times, requested, allocator = read_trace(path, first["point"]).timeline.columns()

    assert first["at"] is None
    assert columns(first) == {
        "time": [round(time / 1000) for time in times],
        "requested": requested,
        "allocator": allocator,
    }


def test_the_largest_is_thinned_first_and_keeps_every_peak(traced, judgement):
    """One byte less than all take: the long trace alone loses events."""
    whole = packed_traces(RunView(traced), judgement)
    room_bytes = sum(len(one.text) for one in whole[1:])
    thinned = packed_traces(RunView(traced), judgement, room_bytes=room_bytes - 1)
    [changed] = [
        unpacked(after) for before, after in zip(whole, thinned, strict=True) if before != after
    ]
    at = list(accumulate(changed["at"]))
    requested = columns(changed)["requested"]

    assert sum(len(one.text) for one in thinned[1:]) < room_bytes
    assert changed["events"] == LONG_EVENTS
    assert len(at) <= LONG_EVENTS // 2
    for phase in changed["phases"]:
        first, last = phase["span"]
        inside = [
            amount for place, amount in zip(at, requested, strict=True) if first <= place < last
        ]
        assert max(inside, default=0) == phase["peak"]


def test_what_has_no_room_at_all_is_named(traced, judgement):
    """The last in the order of interest goes first; what stays is as thin as it may be."""
    listed, *traces = (
        unpacked(one) for one in packed_traces(RunView(traced), judgement, room_bytes=3000)
    )

    assert (
        sum(len(one.text) for one in packed_traces(RunView(traced), judgement, room_bytes=3000)[1:])
        <= 3000
    )
    assert [trace["point"] for trace in traces] == [one["point"] for one in listed["traces"]]
    assert "The page has no room for " in listed["note"]
    assert len(traces) < 3
    assert all(len(trace["time"]) <= LEAST_EVENTS for trace in traces)


def test_the_other_code_stands_beside_this_one(traced, judgement):
    """A trace in the folder then is packed behind that of the same point."""
    listed = unpacked(packed_traces(RunView(traced), judgement)[0])["traces"]

    assert [one["side"] for one in listed].count("then") == 1
    assert [
        (one["point"], other["point"]) for one, other in pairwise(listed) if other["side"] == "then"
    ] == [("loading-lazy-image_count=500-stack_size=2048",) * 2]


def test_a_run_without_traces_has_no_data_of_any(whole_run, judged, held):
    """Not even an empty list, by which the page knows that it has nothing to draw."""
    assert packed_traces(RunView(whole_run), judged(whole_run, held)) == ()


@pytest.mark.parametrize("number", [10, 11, 1000])
def test_events_are_kept_up_to_the_limit_and_thinned_one_past_it(number):
    """Ten may stay: ten do; of eleven, and of a thousand, strips stay."""
    amounts = np.arange(number)
    kept = kept_events(amounts, amounts, [], 10)

    assert (len(kept) == number) == (number <= 10)
    assert len(kept) <= 10
    assert {0, number - 1} <= set(kept)


def test_peaks_on_both_sides_of_an_edge_are_kept():
    """However the amounts fall: the highest of each phase, of both counts, is among what stays."""
    draw = np.random.default_rng(7)
    for _ in range(50):
        requested = draw.integers(100 * MIB, size=3000)
        allocator = requested + draw.integers(4096, size=3000)
        edge = int(draw.integers(1, 2999))
        kept = kept_events(requested, allocator, [edge], 200)
        for first, last in ((0, edge), (edge, 3000)):
            inside = kept[(kept >= first) & (kept < last)]
            for amounts in (requested, allocator):
                assert amounts[inside].max() == amounts[first:last].max()
