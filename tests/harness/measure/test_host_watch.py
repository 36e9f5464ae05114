"""The arithmetic of the bounds of host memory, look by look."""

import pytest

from harness.measure.host_watch import HostWatch, Pace
from harness.system.proc import CheapRead, HostState

LAG = 10


@pytest.fixture(autouse=True)
def _known_lag(monkeypatch):
    monkeypatch.setattr(
        "harness.measure.host_watch.lag_here_bytes", lambda counters: LAG * counters
    )


def state(anon, mapped, highest=None, shared=0):
    resident = anon + mapped
    return HostState(anon, mapped, resident, max(resident, highest or 0), shared)


def watch_from(anon, mapped, faulted=None, shared=0):
    return HostWatch(state(anon, mapped, shared=shared), 0.0, faulted)


def test_without_mapped_growth_the_bounds_are_apart_by_the_lag_of_the_counters():
    """anon 100 -> 300 -> 150 beside 50 of mapped pages, by VmHWM alone: from 300 to 300 and the lag
    of two counters.
    """
    watch = watch_from(100, 50)
    watch.see_full(state(150, 50, highest=350), 1.0, None)
    span = watch.close()

    assert (
        span.start_anon_bytes,
        span.low_anon_bytes,
        span.high_anon_bytes,
        span.end_anon_bytes,
    ) == (100, 300, 300 + 2 * LAG, 150)
    assert (span.start_resident_bytes, span.highest_resident_bytes, span.end_resident_bytes) == (
        150,
        350,
        200,
    )


def test_mapped_pages_that_appear_widen_the_bounds_by_their_size():
    """200 of file pages read through, in one window: the peak lies between HWM - 250 and HWM -
    50.
    """
    watch = watch_from(100, 50)
    watch.see_full(state(100, 250, highest=420), 1.0, None)
    span = watch.close()

    assert (span.low_anon_bytes, span.high_anon_bytes) == (170, 370 + 2 * LAG)
    assert span.highest_mapped_bytes == 250


def test_two_windows_bound_a_peak_by_what_moved_in_its_own():
    """200 of file in one window, then a spike of 300 in the next: the file does not widen the
    spike's bracket.
    """
    watch = watch_from(100, 50)
    assert watch.see_full(
        state(100, 250, highest=360), 1.0, None
    )  # the file has moved: worth a reset
    watch.reset(0.001)
    assert not watch.see_full(state(100, 250, highest=650), 2.0, None)
    span = watch.close()

    assert (span.low_anon_bytes, span.high_anon_bytes) == (400, 400 + 2 * LAG)
    assert (span.windows, span.blind_s) == (2, 0.001)


def test_a_peak_that_stands_at_what_is_resident_needs_no_reset():
    """It would be set to where it is; the next window starts all the same."""
    watch = watch_from(100, 50)
    assert not watch.see_full(state(100, 250), 1.0, None)
    watch.see_full(state(100, 250, highest=650), 2.0, None)

    assert watch.close().high_anon_bytes == 400 + 2 * LAG


def test_faults_bound_what_a_mapped_file_does_not_let_tell():
    """200 of file came with faults that bring 30 at most: anon cannot have been over 130, whatever
    VmHWM says.
    """
    watch = watch_from(100, 50, faulted=1000)
    watch.see_full(state(100, 250, highest=350), 1.0, 1030)
    span = watch.close()

    assert (span.low_anon_bytes, span.high_anon_bytes) == (100, 130)


def test_faults_on_shared_memory_bound_nothing():
    """One of them may map many pages that exist already; the lag is that of three counters."""
    watch = watch_from(100, 50, faulted=1000, shared=20)
    watch.see_full(state(100, 250, highest=350, shared=20), 1.0, 1030)

    assert watch.close().high_anon_bytes == 300 + 3 * LAG


def test_reading_a_file_through_a_mapping_is_no_growth_of_the_process():
    """The lower bound, which is gated, stays at the start."""
    watch = watch_from(100, 50)
    watch.see_full(state(100, 950), 1.0, None)

    assert watch.close().low_anon_bytes == 100


@pytest.mark.parametrize(
    ("seen", "shared", "enough"),
    [
        (CheapRead(150, 50, 1000), 0, True),
        # a fault may have brought it to 101, over the bound until now
        (CheapRead(150, 50, 1001), 0, False),
        (CheapRead(450, 50, None), 0, True),
        (CheapRead(450, 350, 1000), 0, True),  # files were mapped, and nothing else can have come
        (CheapRead(450, 350, 1001), 0, False),
        (CheapRead(450, 350, None), 0, False),
        (CheapRead(140, 40, 1000), 0, False),  # files were let go
        (CheapRead(470, 370, 1000), 20, False),  # files, or the shared memory that is there
    ],
)
def test_a_cheap_look_says_when_it_does_not_say_enough(seen, shared, enough):
    """And notes nothing then, so that the whole look that follows counts once."""
    watch = watch_from(100, 50, faulted=1000, shared=shared)

    assert watch.see_cheap(seen, 1.0) is enough
    assert watch.close().samples == 1 + enough


def test_what_moves_is_taken_for_files_three_looks_in_a_row_and_no_longer():
    """It could be shared memory that was there before, which is the process's own."""
    watch = watch_from(100, 50, faulted=1000)
    enough = [watch.see_cheap(CheapRead(200 + step, 100 + step, 1000), step) for step in range(5)]

    assert enough == [True, True, True, False, False]
    watch.see_full(state(100, 110), 6.0, 1000)
    assert watch.see_cheap(CheapRead(211, 111, 1000), 7.0)


def test_a_window_of_cheap_looks_is_as_wide_as_the_file_moved_in_it():
    """50 -> 250 -> 240 of file: VmHWM says at least HWM - 250, and at most HWM - 50."""
    watch = watch_from(100, 50, faulted=1000)
    watch.see_cheap(CheapRead(350, 250, 1000), 1.0)
    watch.see_full(state(100, 240, highest=450), 2.0, 1900)
    span = watch.close()

    assert (span.low_anon_bytes, span.high_anon_bytes) == (200, 400 + 2 * LAG)
    assert span.highest_mapped_bytes == 250


def test_a_cheap_look_raises_the_lower_bound_and_the_upper_one_is_never_under_it():
    """anon is what is resident without the file."""
    watch = watch_from(100, 50)
    watch.see_cheap(CheapRead(450, 50, None), 1.0)
    watch.see_full(state(100, 50), 2.0, None)
    span = watch.close()

    assert (span.low_anon_bytes, span.high_anon_bytes) == (400, 400)
    assert span.highest_resident_bytes == 450


def test_the_peak_is_never_under_an_edge():
    """The kernel's peak may lag its own counters by some pages."""
    watch = watch_from(100, 50)
    watch.see_full(HostState(180, 50, 230, 226), 1.0, None)
    span = watch.close()

    assert (span.low_anon_bytes, span.highest_resident_bytes) == (180, 230)


def test_the_pace_counts_its_first_look_and_its_longest_gap():
    """Of a phase from 10 to 20 s with looks at 12 and 19."""
    pace = Pace(10.0)
    for now_s in (12.0, 19.0, 20.0):
        pace.count(now_s)

    assert (pace.samples, pace.largest_gap_s, pace.duration_s, pace.rate_hz) == (4, 7.0, 10.0, 0.4)
