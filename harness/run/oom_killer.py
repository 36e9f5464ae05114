"""Has the kernel's out-of-memory killer been at work? Its own counters say so: /proc/vmstat, and
those of our cgroup.

A process that it kills ends by SIGKILL like one that anybody else kills; only a counter that moved
meanwhile tells them apart. The cgroup's counter is ours alone, the machine's everybody's
(cgroup-v1/memory.rst, cgroup-v2.rst, proc(5)).
"""

from collections.abc import Mapping
from pathlib import Path

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
