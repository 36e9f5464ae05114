"""Waiting for a child, by a clock of the test's own: time-outs, the allocator's wait, the
watchdog's word.
"""

import pytest

from harness.run.ends import Stop, wait_for_end
from harness.system.memory import Overrun

TOO_MUCH = Overrun("watchdog", "it held too much")


class World:
    """A child that ends at ``ends_s``, is busy or idle, and overruns its memory at
    ``overruns_s``.
    """

    pause_s = 0.02

    def __init__(self, *, ends_s=1e9, busy=1.0, overruns_s=1e9):
        self.now_s, self.ends_s, self.busy, self.overruns_s = 0.0, ends_s, busy, overruns_s

    def clock(self):
        return self.now_s

    def has_ended(self, timeout_s):
        assert 0 < timeout_s <= self.pause_s
        self.now_s = min(self.now_s + timeout_s, max(self.ends_s, self.now_s))
        return self.now_s >= self.ends_s

    def look(self):
        return TOO_MUCH if self.now_s >= self.overruns_s else None

    def used_cpu_s(self):
        return self.busy * self.now_s


def wait(world, timeout_s=5.0, allocator_wait_s=11.0):
    return wait_for_end(world.has_ended, world, timeout_s, allocator_wait_s, clock=world.clock)


@pytest.mark.parametrize(
    ("world", "stop", "at_s"),
    [
        (World(ends_s=4.9), None, 4.9),
        (World(overruns_s=3.0), Stop(overrun=TOO_MUCH), 3.0),
        (World(busy=1.0), Stop(timed_out=True), 6.0),
        (World(busy=0.3), Stop(timed_out=True), 6.0),
        (World(busy=0.2), Stop(timed_out=True), 16.0),
        (World(busy=0.0), Stop(timed_out=True), 16.0),
        (World(busy=0.0, ends_s=15.9), None, 15.9),
        (World(busy=0.0, overruns_s=7.0), Stop(overrun=TOO_MUCH), 7.0),
    ],
    ids=[
        "ends",
        "overruns",
        "busy",
        "half busy",
        "nearly idle",
        "idle",
        "idle, ends late",
        "idle, overruns late",
    ],
)
def test_a_late_child_is_stopped_within_a_second_or_when_the_allocator_must_have_spoken(
    world, stop, at_s
):
    """Only one that is idle may be waiting for memory."""
    assert wait(world) == stop
    assert world.now_s == pytest.approx(at_s, abs=0.1)


def test_without_an_allocator_to_wait_for_late_is_late():
    """As in a preparation."""
    world = World(busy=0.0)

    assert wait(world, allocator_wait_s=0.0) == Stop(timed_out=True)
    assert world.now_s == pytest.approx(5.0, abs=0.05)
