"""Bounds the memory of a child: what it and the processes that it started hold, and never how much
of it they have mapped.

No limit of the kernel does that. RLIMIT_DATA and RLIMIT_AS count address space: each thread's stack
of 8 MiB, arrays that are allocated and never touched. A limit that lets a thousand threads through
bounds nothing on a machine of 16 GiB; so there is none. What the watchdog does not see soon enough,
the kernel's out-of-memory killer ends: a child and whatever it starts are its first choice
(oom_score_adj, ``harness.measure.worker``).

What has left the family (a daemon whose parent has died) is not counted; the floor of the machine
bounds that too.
"""

import contextlib
import functools
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.records import OVER_LIMIT, OVER_MACHINE
from harness.system.memory import (
    PROC,
    Left,
    descendants,
    exactly_held_bytes,
    least_left,
    read,
    roughly_held_bytes,
)
from harness.system.proc import lag_here_bytes
from harness.units import GIB, MIB, format_bytes
from harness.words import count

MOST_OF_MACHINE_LEFT_BYTES = 512 * MIB
"""Upper bound of the floor. Chosen: what the harness, pytest-xdist and a shell need to go on."""
_FLOOR_SHARE = 32  # chosen: 128 MiB of a machine of 4 GiB
LONGEST_PAUSE_S, SHORTEST_PAUSE_S = 0.02, 0.002
"""Between two looks. Chosen: a look costs 30 us, so the shortest, close to the limit alone, takes 2
% of a processor."""
FASTEST_BYTES_PER_S = 16 * GIB
"""At which a child may come closer to its limit between two looks. Chosen: seven times what two
threads touched here in huge pages (2.4 GiB/s), and about what a processor can write to its memory.
Past the limit it gets so far in ``SHORTEST_PAUSE_S`` (33 MiB), and in whatever time the kernel
takes to let the parent look and to end the child."""
_COST_SHARE = 20
"""What takes long is done again after so many times as long, so that it takes 5 % of a processor at
most. Chosen."""
_COUNTERS = 3  # those of which the rough amount is the sum


@dataclass(frozen=True, slots=True)
class Limit:
    """How much memory a child and its family may hold."""

    limit_bytes: int
    made_of: str = ""
    """Which option sets it, and what is in it besides, for the sentence of who went over it."""


@dataclass(frozen=True, slots=True)
class Overrun:
    """Why a child must be ended now."""

    cause: Literal["watchdog", "machine"]
    """Over its own limit, or within it while the machine's last memory was about to go."""
    words: str
    """One clause: the reading, the limit, and what sets it."""


class Watchdog:
    """Watches one child; tells, never acts. Sees nothing where there is no /proc."""

    def __init__(
        self,
        pid: int,
        limit: Limit,
        *,
        proc: Path = PROC,
        machine_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._pid, self._proc = pid, proc
        self._limit_bytes, self._limit_in_words = limit.limit_bytes, _in_words(limit)
        self._machine_bytes, self._clock, self._cpu_clock = machine_bytes, clock, cpu_clock
        self._family = [pid]
        self._shared_bytes = 0
        """Of the rough amount, what the last exact one has shown to be too much."""
        self._last_left: Left | None = None
        self._list_again_s = self._doubt_again_s = self._left_again_s = 0.0
        self.pause_s = LONGEST_PAUSE_S
        """Time until the next look: shorter the closer the child is to its limit, or the machine to
        its floor."""

    @property
    def family(self) -> tuple[int, ...]:
        """The child and the processes that it started, as they were at the last look."""
        return tuple(self._family)

    def look(self) -> Overrun | None:
        """Why the child must be ended now; None when it may go on."""
        self._list_family()
        held_bytes = self._held_bytes()
        room_bytes = self._limit_bytes - held_bytes
        if room_bytes < 0:
            return self._over_limit(held_bytes)
        if (left := self._left()) is not None:
            floor_bytes = min(left.whole_bytes // _FLOOR_SHARE, MOST_OF_MACHINE_LEFT_BYTES)
            # A child that holds less than what is missing would not save the machine by ending.
            if left.left_bytes < floor_bytes <= held_bytes:
                return self._over_machine(held_bytes, left.left_bytes, floor_bytes, left.whose)
            room_bytes = min(room_bytes, max(0, left.left_bytes - floor_bytes))
        self.pause_s = min(max(room_bytes / FASTEST_BYTES_PER_S, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        return None

    def used_cpu_s(self) -> float:
        """Processor time that the child has used so far."""
        fields = read(self._proc / str(self._pid) / "stat").rpartition(")")[2].split()
        if not fields:
            return 0.0
        # Fields utime and stime of proc_pid_stat(5).
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _list_family(self) -> None:
        if self._clock() >= self._list_again_s:
            began_s = self._cpu_clock()
            self._family = [self._pid, *descendants(self._pid, self._proc)]
            self._list_again_s = self._not_before(began_s)

    def _held_bytes(self) -> int:
        """What the family holds: roughly while that is within the limit, exactly where only that
        can tell.
        """
        rough_bytes, limit_bytes = roughly_held_bytes(self._family, self._proc), self._limit_bytes
        if rough_bytes <= limit_bytes:
            self._shared_bytes = 0
            return rough_bytes
        if len(self._family) == 1 and rough_bytes > limit_bytes + lag_here_bytes(_COUNTERS):
            return rough_bytes
        if self._clock() >= self._doubt_again_s or rough_bytes - self._shared_bytes > limit_bytes:
            began_s = self._cpu_clock()
            self._shared_bytes = rough_bytes - exactly_held_bytes(self._family, self._proc)
            self._doubt_again_s = self._not_before(began_s)
        return rough_bytes - self._shared_bytes

    def _left(self) -> Left | None:
        if self._clock() >= self._left_again_s:
            began_s = self._cpu_clock()
            self._last_left = least_left(self._proc, self._machine_bytes)
            self._left_again_s = self._not_before(began_s)
        return self._last_left

    def _not_before(self, began_s: float) -> float:
        """When what has begun then may be done again. By what it cost: on a busy machine it has
        waited besides.
        """
        return self._clock() + _COST_SHARE * (self._cpu_clock() - began_s)

    def _over_limit(self, held_bytes: int) -> Overrun:
        return Overrun(
            OVER_LIMIT,
            f"{self._who()} held {format_bytes(held_bytes)} of private and shared memory, "
            f"{format_bytes(held_bytes - self._limit_bytes)} over the limit of "
            f"{self._limit_in_words}",
        )

    def _over_machine(
        self, held_bytes: int, left_bytes: int, floor_bytes: int, whose: str
    ) -> Overrun:
        return Overrun(
            OVER_MACHINE,
            f"{whose} had {format_bytes(left_bytes)} of memory left, under the floor of "
            f"{format_bytes(floor_bytes)} that is kept for everybody else, while "
            f"{self._who()} held {format_bytes(held_bytes)}, within the limit of "
            f"{self._limit_in_words}",
        )

    def _who(self) -> str:
        others = len(self._family) - 1
        return f"it and {count(others, 'process', 'processes')} that it started" if others else "it"


def _in_words(limit: Limit) -> str:
    return format_bytes(limit.limit_bytes) + (f" ({limit.made_of})" if limit.made_of else "")


# Wait for the end of a child: until its time is over, its memory goes over a limit, or it ends
# by itself.


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
