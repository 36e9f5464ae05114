"""What processes hold of the host's memory: private and shared pages, also those that are swapped
out. No address space.

Memory that was mapped and never touched is held by nobody, and neither is a file that is mapped:
the kernel drops its pages whenever it needs them.
"""

import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_KIB = 1024  # /proc prints kibibytes and calls them kB (proc(5))
# proc_pid_status(5). A page that a fork shares with its parent counts in each of them.
_ROUGH = re.compile(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)
# By walking the page tables (proc_pid_smaps_rollup(5)): of one process all of its pages, of several
# the share of each.
_OF_ONE = re.compile(r"^(?:Anonymous|Pss_Shmem|Swap):\s+(\d+) kB$", re.MULTILINE)
_OF_SEVERAL = re.compile(r"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB$", re.MULTILINE)


def roughly_held_bytes(pids: Sequence[int], proc: Path = PROC) -> int:
    """The kernel's counters, 15 us for each process; of forks too much, and off by the counters'
    lag (``hostcounters``).
    """
    return sum(_amount(read(proc / str(pid) / "status"), _ROUGH) for pid in pids)


def exactly_held_bytes(pids: Sequence[int], proc: Path = PROC) -> int:
    """Page by page, twelve and more milliseconds for each process; by the counters where a process
    does not let itself be read.
    """
    amounts = _OF_ONE if len(pids) == 1 else _OF_SEVERAL
    texts = {pid: read(proc / str(pid) / "smaps_rollup") for pid in pids}
    return sum(
        _amount(text, amounts) if amounts.search(text) else roughly_held_bytes([pid], proc)
        for pid, text in texts.items()
    )


def descendants(pid: int, proc: Path = PROC) -> list[int]:
    """The processes that a process has started, and those that they have; 10 us for each thread."""
    try:
        threads = list((proc / str(pid) / "task").iterdir())
    except OSError:
        return []
    children = [int(child) for thread in threads for child in read(thread / "children").split()]
    return children + [below for child in children for below in descendants(child, proc)]


def read(path: Path) -> str:
    """A file of /proc; empty where the process has ended, or there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _amount(text: str, amounts: re.Pattern[str]) -> int:
    return sum(map(int, amounts.findall(text))) * _KIB


# Has the kernel's out-of-memory killer been at work? Its own counters say so: /proc/vmstat, and
# those of our cgroup. A process that it kills ends by SIGKILL like one that anybody else kills;
# only a counter that moved meanwhile tells them apart. The cgroup's counter is ours alone, the
# machine's everybody's (cgroup-v1/memory.rst, cgroup-v2.rst, proc(5)).


_PROC = Path("/proc")
THIS_MACHINE = "this machine"

Counters = Mapping[str, int]
"""Kills so far, by where they were counted."""


def count_oom_kills(proc: Path = _PROC) -> Counters:
    """Kills of this machine and of this process's memory cgroup so far; what does not count here is
    left out.
    """
    found = {THIS_MACHINE: _counter(proc / "vmstat")}
    cgroup = memory_cgroup(proc)
    if cgroup is not None:
        # Version 2 counts in memory.events, version 1 in memory.oom_control.
        counts = [_counter(cgroup / name) for name in ("memory.events", "memory.oom_control")]
        found[f"the cgroup {cgroup}"] = next((count for count in counts if count is not None), None)
    return {where: count for where, count in found.items() if count is not None}


def where_it_killed(before: Counters, after: Counters) -> tuple[str, ...]:
    """Where more kills were counted ``after`` than ``before``."""
    return tuple(
        where for where, count in after.items() if where in before and count > before[where]
    )


def memory_cgroup(proc: Path = _PROC) -> Path | None:
    """The folder of the cgroup that limits this process's memory; None where there is none to be
    seen.
    """
    try:
        memberships = (proc / "self" / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    by_controllers = {
        line.split(":", 2)[1]: line.split(":", 2)[2] for line in memberships if line.count(":") >= 2
    }
    one = next(
        (path for names, path in by_controllers.items() if "memory" in names.split(",")), None
    )
    kind, path = ("cgroup", one) if one is not None else ("cgroup2", by_controllers.get(""))
    for line in mounts if path is not None else ():
        # proc_pid_mountinfo(5): fields 4 and 5 are the root and the mount point; after a lone
        # hyphen come type and options.
        mount, _, filesystem = line.partition(" - ")
        root, mount_point = mount.split()[3:5]
        name, *_, options = filesystem.split()
        if (
            name == kind
            and (kind == "cgroup2" or "memory" in options.split(","))
            and path is not None
        ):
            inside = path.removeprefix(root.rstrip("/")).lstrip("/")
            return Path(mount_point) / inside
    return None


def _counter(path: Path) -> int | None:
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return next(
            (int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == "oom_kill"), None
        )
    except OSError:
        return None


# What is left of the memory that this machine has, or that the cgroup of this process may take
# (a container, a batch job).


_PROC_KIB = 1024
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
# Page cache, which the kernel gives back on its own (cgroup-v2.rst; version 1 has the same of its
# whole tree as total_).
_CACHE = re.compile(r"^(?:total_)?(?:in)?active_file (\d+)$", re.MULTILINE)
_CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Limit and use, of version 2 and of version 1."""


class Left(NamedTuple):
    """Memory that is left, of how much, and whose it is."""

    left_bytes: int
    whole_bytes: int
    whose: str


def least_left(proc: Path = PROC, machine_bytes: int | None = None) -> Left | None:
    """Of the machine and of the cgroup, the one with less left; None where neither tells. 100
    us.
    """
    machine = host_memory_bytes() if machine_bytes is None else machine_bytes
    available = _AVAILABLE.search(read(proc / "meminfo"))
    found = (
        [] if available is None else [Left(int(available[1]) * _PROC_KIB, machine, THIS_MACHINE)]
    )
    cgroup = _cgroup(proc)
    if cgroup is not None and (of_cgroup := _left_of_cgroup(cgroup, machine)) is not None:
        found.append(of_cgroup)
    return min(found, default=None)


@functools.cache
def _cgroup(proc: Path) -> Path | None:
    return memory_cgroup(proc)


def _left_of_cgroup(folder: Path, machine_bytes: int) -> Left | None:
    for limit_name, used_name in _CGROUP_FILES:
        limit, used = read(folder / limit_name).strip(), read(folder / used_name).strip()
        # "max", or in version 1 a number beyond every machine, is no limit.
        if limit.isdecimal() and used.isdecimal() and int(limit) < machine_bytes:
            text = read(folder / "memory.stat")
            # Of version 1 the lines of the tree alone: the others are part of them.
            lines = "\n".join(
                line
                for line in text.splitlines()
                if "total_" not in text or line.startswith("total_")
            )
            cache_bytes = sum(map(int, _CACHE.findall(lines)))
            return Left(
                max(0, int(limit) - int(used) + cache_bytes), int(limit), f"the cgroup {folder}"
            )
    return None


def host_memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
