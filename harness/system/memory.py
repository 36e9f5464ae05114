"""What processes hold of the host's memory: private and shared pages, also those that are swapped
out. No address space.

Memory that was mapped and never touched is held by nobody, and neither is a file that is mapped:
the kernel drops its pages whenever it needs them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

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
