"""The memory of this machine: what it has left, whether the kernel has killed for it, and the
watchdog that ends a child before that.

The watchdog bounds what a child and the processes that it started hold, and never how much of it
they have mapped. No limit of the kernel does that. RLIMIT_DATA and RLIMIT_AS count address space:
each thread's stack of 8 MiB, arrays that are allocated and never touched. A limit that lets a
thousand threads through bounds nothing on a machine of 16 GiB; so there is none. What the watchdog
does not see soon enough, the kernel's out-of-memory killer ends: a child and whatever it starts are
its first choice (oom_score_adj, ``harness.measure.worker``).

What has left the family (a daemon whose parent has died) is not counted; the floor of the machine
bounds that too.
"""

import functools
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from harness.records import OVER_LIMIT, OVER_MACHINE
from harness.system.proc import (
    PROC,
    amounts_of,
    cpu_time_s,
    descendants,
    lag_here_bytes,
    pss_and_swap_bytes,
    read_text,
    rss_and_swap_bytes,
    sum_bytes,
)
from harness.words import GIB, MIB, count, format_bytes

THIS_MACHINE = "this machine"

_AVAILABLE = amounts_of("MemAvailable")
# Page cache, which the kernel gives back on its own (cgroup-v2.rst; version 1 has the same of its
# whole tree as total_).
_CACHE = re.compile(r"^(?:total_)?(?:in)?active_file (\d+)$", re.MULTILINE)
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_CGROUP_LIMIT_AND_USE = (
    ("memory.max", "memory.current"),  # version 2
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
)
_CGROUP_KILLS = ("memory.events", "memory.oom_control")  # version 2, version 1

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
"""What takes long is done again only after so many times as long, so it takes 5 % of a processor at
most. Chosen."""
_COUNTERS = 3  # those that ``rss_and_swap_bytes`` adds


def host_memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# Has the kernel's out-of-memory killer been at work? Its own counters say so: /proc/vmstat, and
# those of our cgroup. A process that it kills ends by SIGKILL like one that anybody else kills;
# only a counter that moved meanwhile tells them apart. The cgroup's counter is ours alone, the
# machine's everybody's (cgroup-v1/memory.rst, cgroup-v2.rst, proc(5)).

Counters = Mapping[str, int]
"""Kills so far, by where they were counted."""


def count_oom_kills(proc: Path = PROC) -> Counters:
    """Kills of this machine and of this process's memory cgroup so far; what does not count here is
    left out.
    """
    found = {THIS_MACHINE: _oom_kills(proc / "vmstat")}
    cgroup = memory_cgroup(proc)
    if cgroup is not None:
        counts = [_oom_kills(cgroup / name) for name in _CGROUP_KILLS]
        found[f"the cgroup {cgroup}"] = next((count for count in counts if count is not None), None)
    return {where: count for where, count in found.items() if count is not None}


def where_it_killed(before: Counters, after: Counters) -> tuple[str, ...]:
    """Where more kills were counted ``after`` than ``before``."""
    return tuple(
        where for where, count in after.items() if where in before and count > before[where]
    )


def _oom_kills(path: Path) -> int | None:
    found = _OOM_KILLS.search(read_text(path))
    return None if found is None else int(found[1])


def memory_cgroup(proc: Path = PROC) -> Path | None:
    """The folder of the cgroup that limits this process's memory; None where none can be seen."""
    memberships = read_text(proc / "self" / "cgroup").splitlines()
    by_controllers = {
        line.split(":", 2)[1]: line.split(":", 2)[2] for line in memberships if line.count(":") >= 2
    }
    version_1 = next(
        (path for names, path in by_controllers.items() if "memory" in names.split(",")), None
    )
    kind = "cgroup2" if version_1 is None else "cgroup"
    path = by_controllers.get("") if version_1 is None else version_1
    if path is None:
        return None

    for line in read_text(proc / "self" / "mountinfo").splitlines():
        # proc_pid_mountinfo(5): fields 4 and 5 are the root and the mount point; after a lone
        # hyphen come type and options.
        mount, _, filesystem = line.partition(" - ")
        root, mount_point = mount.split()[3:5]
        name, *_, options = filesystem.split()
        if name == kind and (kind == "cgroup2" or "memory" in options.split(",")):
            inside = path.removeprefix(root.rstrip("/")).lstrip("/")
            return Path(mount_point) / inside
    return None


# What is left of the memory that this machine has, or that the cgroup of this process may take
# (a container, a batch job).


class Left(NamedTuple):
    """Memory that is left, of how much, and whose it is."""

    left_bytes: int
    total_bytes: int
    whose: str


def least_left(proc: Path = PROC, machine_bytes: int | None = None) -> Left | None:
    """Of the machine and of the cgroup, the one with less left; None where neither says. Takes 100
    us.
    """
    machine = host_memory_bytes() if machine_bytes is None else machine_bytes
    text = read_text(proc / "meminfo")
    found = (
        [Left(sum_bytes(text, _AVAILABLE), machine, THIS_MACHINE)]
        if _AVAILABLE.search(text)
        else []
    )
    cgroup = _cgroup(proc)
    if cgroup is not None and (of_cgroup := _left_of_cgroup(cgroup, machine)) is not None:
        found.append(of_cgroup)
    return min(found, default=None)


@functools.cache
def _cgroup(proc: Path) -> Path | None:
    return memory_cgroup(proc)


def _left_of_cgroup(folder: Path, machine_bytes: int) -> Left | None:
    for limit_name, used_name in _CGROUP_LIMIT_AND_USE:
        limit, used = read_text(folder / limit_name).strip(), read_text(folder / used_name).strip()
        # "max", or in version 1 a number beyond every machine, is no limit.
        if not (limit.isdecimal() and used.isdecimal() and int(limit) < machine_bytes):
            continue
        text = read_text(folder / "memory.stat")
        # Of version 1 the lines of the tree alone: the others are part of them.
        lines = [
            line for line in text.splitlines() if "total_" not in text or line.startswith("total_")
        ]
        cache_bytes = sum(map(int, _CACHE.findall("\n".join(lines))))
        left_bytes = max(0, int(limit) - int(used) + cache_bytes)
        return Left(left_bytes, int(limit), f"the cgroup {folder}")
    return None


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
    """Watches one child; reports, never acts. Sees nothing where there is no /proc."""

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
            floor_bytes = min(left.total_bytes // _FLOOR_SHARE, MOST_OF_MACHINE_LEFT_BYTES)
            # A child that holds less than what is missing would not save the machine by ending.
            if left.left_bytes < floor_bytes <= held_bytes:
                return self._over_machine(held_bytes, left.left_bytes, floor_bytes, left.whose)
            room_bytes = min(room_bytes, max(0, left.left_bytes - floor_bytes))
        self.pause_s = min(max(room_bytes / FASTEST_BYTES_PER_S, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        return None

    def used_cpu_s(self) -> float:
        """Processor time that the child has used so far."""
        return cpu_time_s(self._pid, self._proc)

    def _list_family(self) -> None:
        if self._clock() >= self._list_again_s:
            began_s = self._cpu_clock()
            self._family = [self._pid, *descendants(self._pid, self._proc)]
            self._list_again_s = self._not_before(began_s)

    def _held_bytes(self) -> int:
        """What the family holds: roughly while that is within the limit, exactly where only that
        can tell.
        """
        rough_bytes, limit_bytes = rss_and_swap_bytes(self._family, self._proc), self._limit_bytes
        if rough_bytes <= limit_bytes:
            self._shared_bytes = 0
            return rough_bytes
        if len(self._family) == 1 and rough_bytes > limit_bytes + lag_here_bytes(_COUNTERS):
            return rough_bytes
        if self._clock() >= self._doubt_again_s or rough_bytes - self._shared_bytes > limit_bytes:
            began_s = self._cpu_clock()
            self._shared_bytes = rough_bytes - pss_and_swap_bytes(self._family, self._proc)
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
