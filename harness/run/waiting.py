"""Wait for the end of a child: until its time is over, its memory goes over a limit, or it ends by
itself.
"""

import contextlib
import functools
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from harness.run.watchdog import Overrun

_BUSY = 0.25
"""Chosen: share of a processor above which a child is at work, not waiting for an allocator; a
waiting one takes none."""
_BUSY_S = 1.0
"""Time over which that share is taken. Chosen: a hundred of the kernel's ticks."""

HasEnded = Callable[[float], bool]
"""Waits so many seconds at most; says whether the child has ended."""


class Watch(Protocol):
    """What is looked at meanwhile; see ``Watchdog``."""

    pause_s: float
    """Time until the next look."""

    def look(self) -> Overrun | None:
        """Why the child must be killed now; None when it may go on."""

    def used_cpu_s(self) -> float:
        """Processor time that the child has used so far."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a child has to be ended: its time is over, or its memory."""

    timed_out: bool = False
    overrun: Overrun | None = None


def wait_for_end(
    has_ended: HasEnded,
    watch: Watch,
    timeout_s: float,
    allocator_wait_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Stop | None:
    """Wait for the end of the child; None when it ended by itself, else why it has to be ended.

    A child that is late and at work is stopped within a second. One that is late and idle may be
    waiting inside TensorFlow's allocator, which is about to report that memory ran out: it gets
    ``allocator_wait_s`` more.
    """
    deadline_s = clock() + timeout_s
    last_s = deadline_s + allocator_wait_s
    late: tuple[float, float] | None = None
    while not has_ended(_until_next_look(watch.pause_s, deadline_s - clock())):
        if overrun := watch.look():
            return Stop(overrun=overrun)
        now_s = clock()
        if now_s >= last_s:
            return Stop(timed_out=True)
        if now_s < deadline_s or (late is not None and now_s - late[0] < _BUSY_S):
            continue
        before, late = late, (now_s, watch.used_cpu_s())
        if before is not None and late[1] - before[1] > _BUSY * (late[0] - before[0]):
            return Stop(timed_out=True)
    return None


def _until_next_look(pause_s: float, left_s: float) -> float:
    return min(pause_s, left_s) if left_s > 0 else pause_s


@contextlib.contextmanager
def end_of(child: subprocess.Popen[bytes]) -> Iterator[HasEnded]:
    """What waits for the child's end without reaping it, so that its id still names it and its
    group.
    """
    if not hasattr(os, "pidfd_open"):
        yield functools.partial(_has_ended, child)
        return
    descriptor = os.pidfd_open(child.pid)
    try:
        yield lambda timeout_s: bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


def _has_ended(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    # Without Linux: two hundred looks a second, far below the seconds that a child takes, cost
    # nothing.
    deadline_s = time.monotonic() + timeout_s
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.005)
    return True
