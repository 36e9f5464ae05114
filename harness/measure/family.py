"""Memory of the processes that a body has started: they are part of what it takes, and no counter
of its own has them.

Looked at from outside of the phases, at their edges: what comes and goes within one is not seen.
(RUSAGE_CHILDREN would not tell it either: its ru_maxrss has what the parent had when it forked.)
"""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

from harness.records import Reading

_KIB = 1024  # /proc prints kibibytes and calls them kB (proc(5))
# Pages that a fork shares with its parent until one of them writes are the parent's; shared memory
# by each one's share.
_HELD = re.compile(r"^(?:Private_Dirty|Pss_Shmem):\s+(\d+) kB$", re.MULTILINE)


class Family(NamedTuple):
    """The processes that a process has started, and that have not ended."""

    number: int
    held_bytes: int
    """What they hold themselves, private (and written to) or shared."""


def family_of_this(proc: Path = Path("/proc")) -> Family:
    """The descendants of this process; nobody where there is no /proc."""
    found = _descendants(proc / "self", proc)
    texts = [_read(proc / str(pid) / "smaps_rollup") for pid in found]
    return Family(len(found), sum(int(kib) for text in texts for kib in _HELD.findall(text)) * _KIB)


def with_family(anon: Reading, before: Family, after: Family) -> Reading:
    """``anon`` of a process together with the processes it has started, as they were at the edges
    of the phase.
    """
    if (
        not (before.number or after.number)
        or anon.start_bytes is None
        or anon.end_bytes is None
        or anon.peak_bytes is None
    ):
        return anon
    start_bytes, end_bytes = anon.start_bytes + before.held_bytes, anon.end_bytes + after.held_bytes
    throughout_bytes, most_bytes = sorted((before.held_bytes, after.held_bytes))
    peak_bytes = max(start_bytes, end_bytes, anon.peak_bytes + throughout_bytes)
    bound_bytes = (
        None
        if anon.peak_bound_bytes is None
        else max(peak_bytes, anon.peak_bound_bytes + most_bytes)
    )
    count = max(before.number, after.number)
    note = (
        f"with {count} {'process' if count == 1 else 'processes'} that the body has started, as "
        "at the edges of the phase"
    )
    return dataclasses.replace(
        anon,
        start_bytes=start_bytes,
        peak_bytes=peak_bytes,
        end_bytes=end_bytes,
        peak_bound_bytes=bound_bytes,
        reason="; ".join(filter(None, [anon.reason, note])),
    )


def _descendants(process: Path, proc: Path) -> list[int]:
    try:
        threads = list((process / "task").iterdir())
    except OSError:
        return []
    children = [int(child) for thread in threads for child in _read(thread / "children").split()]
    return children + [
        below for child in children for below in _descendants(proc / str(child), proc)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # it has ended meanwhile
