"""When the sampler looks next, by what its looks have seen; its clock is given: nothing waits."""

import pytest

from harness.errors import MeterUnavailable
from harness.measure.host_watch import Movement
from harness.measure.sampler import INTERVAL_S, Sampler

STILL_S = 0.004
RUSH_S = 0.000125


class Watched:
    """A client whose looks see what a test says."""

    def __init__(self, *seen):
        self.seen = list(seen)
        self.closed = False

    def look(self, now_s, *, on_time):
        found = self.seen.pop(0)
        if found is None:
            raise MeterUnavailable("the process has ended")
        return found

    def close(self):
        self.closed = True


def waits(*seen):
    """Seconds from each look, made when it is due, to the next one."""
    sampler = Sampler(listener=None, open_counters=None, parent=0)
    client = Watched(*seen)
    found, now_s = [], 0.0
    for _ in seen:
        sampler._look([client], now_s)
        found.append(round(sampler._due_s - now_s, 9))
        now_s = sampler._due_s
    return found


def test_while_memory_moves_the_looks_lie_one_interval_apart():
    """However long."""
    assert waits(*[Movement.MOVED] * 30) == [INTERVAL_S] * 30


def test_what_stays_still_is_looked_at_less_often_but_often_enough_for_5_ms():
    """After eight looks that saw nothing."""
    assert waits(*[Movement.STILL] * 12) == [INTERVAL_S] * 7 + [STILL_S] * 5
    assert STILL_S < 0.005


def test_one_movement_brings_the_short_interval_back():
    """And eight still looks are needed anew."""
    seen = [Movement.STILL] * 9 + [Movement.MOVED] + [Movement.STILL] * 8

    assert waits(*seen) == [INTERVAL_S] * 7 + [STILL_S] * 2 + [INTERVAL_S] * 8 + [STILL_S]


def test_a_peak_that_rises_is_looked_at_soon():
    """In between the looks that are on time, which stay on their grid."""
    rising = waits(Movement.RISES, Movement.RISES, Movement.MOVED)

    assert rising[:2] == [RUSH_S] * 2
    assert rising[2] == pytest.approx(INTERVAL_S - 2 * RUSH_S)


def test_a_look_that_comes_late_does_not_delay_the_next_ones():
    """The grid begins with the phase."""
    sampler = Sampler(listener=None, open_counters=None, parent=0)
    client = Watched(*[Movement.MOVED] * 3)
    sampler._look([client], 0.0)
    sampler._look([client], 2.4 * INTERVAL_S)

    assert sampler._due_s == pytest.approx(3 * INTERVAL_S)


def test_a_client_that_has_gone_is_forgotten_and_the_others_are_looked_at():
    """One of two ends in mid-phase."""
    sampler = Sampler(listener=None, open_counters=None, parent=0)
    ended, lives = Watched(None), Watched(Movement.MOVED)

    assert sampler._look([ended, lives], 0.0)
    assert (ended.closed, lives.closed, lives.seen) == (True, False, [])
