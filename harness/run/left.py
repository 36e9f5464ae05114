"""What is left of the memory that this machine has, or that the cgroup of this process may take (a
container, a batch job).
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

from harness.run.environment import host_memory_bytes
from harness.run.oom_killer import THIS_MACHINE, memory_cgroup
from harness.system.memory import PROC, read

_KIB = 1024
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
    found = [] if available is None else [Left(int(available[1]) * _KIB, machine, THIS_MACHINE)]
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
