"""The kernel's counters of one process's memory: all of them (/proc/PID/status), three of them
(statm), and the reset of one.

RssAnon is private memory, RssShmem shared memory and tmpfs, RssFile page cache mapped into the
process, VmRSS their sum, VmHWM the highest VmRSS since it was last reset by writing 5 to clear_refs
(proc(5)).

How exact they are: since Linux 6.2 each counter is kept in parts, one for each processor, and a
processor adds its part to the sum when it holds a batch of pages (lib/percpu_counter.c). Since
6.16, and in the stable kernels that took the same fix, status and statm add the parts up when they
are read (fs/proc/task_mmu.c, get_mm_counter_sum); VmHWM is still kept from the sum without the
parts (mm.h, update_hiwater_rss), so it may be off by ``harness.system.proc.counter_lag_bytes``.

Faults bound what can have come: every page that a process gets is one fault of its own, or part of
a huge page, which the kernel counts by size for the whole system (mm/memory.c, mm_account_fault;
admin-guide/mm/transhuge). Not counted are huge pages that khugepaged puts together on its own.
"""

import contextlib
import functools
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from harness.errors import MeterUnavailable

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LEAST_BATCH_PAGES = 32
"""The batch, or two pages for each processor online where that is more (lib/percpu_counter.c,
compute_batch_value)."""

_KIB = 1024  # /proc prints kibibytes and calls them kB (proc(5))
# one after the other, in this order (task_mem)
_FIELDS = (b"VmHWM", b"VmRSS", b"RssAnon", b"RssFile", b"RssShmem")
_LINES = re.compile(
    rb"VmHWM:\s+(\d+) kB\nVmRSS:\s+(\d+) kB\nRssAnon:\s+(\d+) kB\nRssFile:\s+(\d+) "
    rb"kB\nRssShmem:\s+(\d+) kB\n"
)
# chosen: status takes 1.5 kB here, and grows with the number of processors and nodes
_READ_BYTES = 8192
# seven numbers of twenty digits at most (proc(5)); the sampler reads it 400 times a second, and a
# small buffer is had at half the cost of a large one
_STATM_BYTES = 256
_RESET_PEAK = b"5"
# Fields of /proc/PID/stat, counted from behind the name (proc_pid_stat(5): minflt is 10, majflt 12,
# utime 14, stime 15, starttime 22).
_MINOR_FIELD, _MAJOR_FIELD, _USER_FIELD, _SYSTEM_FIELD, _STARTED_FIELD = 7, 9, 11, 12, 19
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


def counter_lag_bytes(
    *, online: int, allowed: int, counters: int, page_bytes: int = PAGE_BYTES
) -> int:
    """How far a sum of ``counters`` of the kernel's counters may be off, either way.

    ``online`` processors set the batch, and those ``allowed`` to the process hold parts back. A
    part is added to the sum when it reaches the batch, so it is one page less than that at most.
    """
    return counters * allowed * (max(_LEAST_BATCH_PAGES, 2 * online) - 1) * page_bytes


def lag_here_bytes(counters: int) -> int:
    """``counter_lag_bytes`` on this machine, for processes that may run wherever this one may."""
    online = os.cpu_count() or 1
    # Only Linux says where a process may run, and only Linux counts this way.
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else online
    return counter_lag_bytes(online=online, allowed=allowed, counters=counters)


class HostState(NamedTuple):
    """One look at /proc/PID/status, in bytes."""

    anon_bytes: int
    """RssAnon + RssShmem: what only the process can give back."""
    mapped_bytes: int
    """RssFile: page cache mapped into the process, which the kernel can drop."""
    resident_bytes: int
    highest_resident_bytes: int
    shared_bytes: int = 0
    """RssShmem, which is part of ``anon_bytes``."""

    @classmethod
    def from_status(cls, text: bytes) -> Self:
        """Parse /proc/PID/status. Raises MeterUnavailable when a counter is missing."""
        found = _LINES.search(text)
        if found is None:
            missing = sorted(
                name.decode() for name in _FIELDS if b"\n" + name + b":" not in b"\n" + text
            )
            raise MeterUnavailable(
                f"/proc/PID/status lacks {', '.join(missing) or 'the order of its counters'}"
            )
        highest, resident, anon, mapped, shared = map(int, found.groups())
        return cls(
            (anon + shared) * _KIB, mapped * _KIB, resident * _KIB, highest * _KIB, shared * _KIB
        )


class CheapRead(NamedTuple):
    """One cheap look, in bytes."""

    resident_bytes: int
    not_private_bytes: int
    """RssFile + RssShmem, which statm does not separate."""
    faulted_bytes: int | None
    """What the process's faults have brought since its start, at most; None where that is
    unknown."""


class HostCounters(Protocol):
    """Reads one process; what it opened stays with that process, also when another gets its id."""

    tells_anon: bool
    """Whether it separates the process's own memory from mapped files, and has a peak; otherwise it
    reads ``resident_bytes`` alone."""

    def full_read(self) -> HostState:
        """Every counter. Raises MeterUnavailable when the process is gone."""

    def has_moved(self) -> bool:
        """Whether anything is different from when this was asked last; the cheapest. Raises
        MeterUnavailable likewise.
        """

    def cheap_read(self) -> CheapRead:
        """The cheap ones. Raises MeterUnavailable likewise."""

    def reset_highest(self) -> None:
        """Set the highest to what is resident now."""

    def close(self) -> None:
        """Give up what was opened."""


class ProcCounters:
    """Linux. Its descriptors belong to the process, not to its id: once it has ended they read
    nothing (ESRCH).
    """

    tells_anon = True

    def __init__(self, process: int | str = "self", *, proc: Path = PROC) -> None:
        """Open the process's files. Raises MeterUnavailable where the system has none, or forbids
        them.
        """
        folder = proc / str(process)
        self._open: list[int] = []
        files = {
            "status": os.O_RDONLY,
            "statm": os.O_RDONLY,
            "stat": os.O_RDONLY,
            "clear_refs": os.O_WRONLY,
        }
        try:
            for name, flags in files.items():
                self._open.append(os.open(folder / name, flags))
            self._huge = _huge_page_counts(self._open)
        except OSError as error:
            self.close()
            raise MeterUnavailable(
                f"needs Linux's {folder / 'status'} and {folder / 'clear_refs'}: {error}"
            ) from error
        self._status, self._statm, self._stat, self._clear_refs = self._open[:4]
        self._printed = b""
        self._moves = False
        self._faults, self._faulted_bytes = -1, 0

    def full_read(self) -> HostState:
        """Status, about 15 us."""
        return HostState.from_status(_read(self._status))

    def has_moved(self) -> bool:
        """Statm as it is printed, about 3 us; not asked of a process that moved at the last
        cheap read.
        """
        try:
            return self._moves or self._printed != os.pread(self._statm, _STATM_BYTES, 0)
        except OSError as error:
            raise MeterUnavailable(f"the process cannot be read: {error}") from error

    def cheap_read(self) -> CheapRead:
        """Statm, stat and the counts of huge pages, about 10 us."""
        faulted_bytes = self._count_faults()
        printed = _read(self._statm)
        self._moves, self._printed = printed != self._printed, printed
        _, resident, not_private, _ = printed.split(None, 3)
        if resident == b"0":
            raise MeterUnavailable("the process has ended")
        return CheapRead(int(resident) * PAGE_BYTES, int(not_private) * PAGE_BYTES, faulted_bytes)

    def _count_faults(self) -> int | None:
        # Read before what is resident: a fault in between is then counted with the next cheap read
        # as well, and none is lost.
        if self._huge is None:
            return None
        stat = _read(self._stat)
        fields = stat[stat.rindex(b")") + 1 :].split(None, _MAJOR_FIELD + 1)
        faults = int(fields[_MINOR_FIELD]) + int(fields[_MAJOR_FIELD])
        if faults != self._faults:
            self._faults, self._faulted_bytes = faults, faults * PAGE_BYTES
            for count, size_bytes in self._huge:
                self._faulted_bytes += int(_read(count)) * size_bytes
        return self._faulted_bytes

    def reset_highest(self) -> None:
        """Write to clear_refs, 1 to 30 us: it waits until the process changes no mapping."""
        try:
            os.write(self._clear_refs, _RESET_PEAK)
        except OSError as error:
            raise MeterUnavailable(f"the peak of the process cannot be reset: {error}") from error

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.pop())


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, _READ_BYTES, 0)
    except OSError as error:
        raise MeterUnavailable(f"the process cannot be read: {error}") from error


def _huge_page_counts(
    opened: list[int], huge_pages: Path = _HUGE_PAGES
) -> list[tuple[int, int]] | None:
    """The count of each size of huge pages in use, open, with the size; None where the kernel has
    no such counts (before 6.9).
    """
    if not huge_pages.exists() or "[never]" in (huge_pages / "enabled").read_text(encoding="ascii"):
        return []
    counts = []
    # sizes for shared memory alone have no such file
    for enabled in huge_pages.glob("hugepages-*kB/enabled"):
        size_kib = int(enabled.parent.name.removeprefix("hugepages-").removesuffix("kB"))
        count = enabled.parent / "stats" / "anon_fault_alloc"
        if "[never]" not in enabled.read_text(encoding="ascii") and count.exists():
            opened.append(os.open(count, os.O_RDONLY))
            counts.append((opened[-1], size_kib * _KIB))
    return counts or None


class PsutilCounters:
    """Any other system, through psutil: the resident set alone, no peak, nothing of what it is made
    of.
    """

    tells_anon = False

    def __init__(self, process: int) -> None:
        """Find the process. Raises MeterUnavailable where psutil is not installed, or does not see
        it.
        """
        try:
            import psutil  # only where there is no /proc
        except ImportError as error:
            raise MeterUnavailable(
                f"needs psutil on {sys.platform} (pip install psutil): {error}"
            ) from error
        self._error = psutil.Error
        try:
            self._process = psutil.Process(process)
            self.full_read()
        except psutil.Error as error:
            raise MeterUnavailable(f"psutil: {error}") from error

    def full_read(self) -> HostState:
        """The resident set, as its own peak."""
        resident_bytes = self.cheap_read().resident_bytes
        return HostState(0, 0, resident_bytes, resident_bytes)

    def has_moved(self) -> bool:
        """It may have."""
        return True

    def cheap_read(self) -> CheapRead:
        """The resident set."""
        try:
            return CheapRead(int(self._process.memory_info().rss), 0, None)
        except self._error as error:
            raise MeterUnavailable(f"psutil: {error}") from error

    def reset_highest(self) -> None:
        """There is none."""

    def close(self) -> None:
        """Nothing is kept open."""


# Of any process, as text: what one process or several hold. Memory that was mapped and never
# touched is held by nobody, and neither is a file that is mapped: the kernel drops its pages
# whenever it needs them.


def read_text(path: Path) -> str:
    """A file of /proc or of a cgroup; empty where the process has ended, or there is no such
    file.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def amounts_of(*names: str) -> re.Pattern[str]:
    """What finds the lines of these names in status, smaps_rollup or meminfo, for ``sum_bytes``."""
    return re.compile(rf"^(?:{'|'.join(names)}):\s+(\d+) kB$", re.MULTILINE)


def sum_bytes(text: str, amounts: re.Pattern[str]) -> int:
    """The sum of the amounts that ``amounts_of`` finds in a text."""
    return sum(map(int, amounts.findall(text))) * _KIB


_RSS_AND_SWAP = amounts_of("RssAnon", "RssShmem", "VmSwap")  # proc_pid_status(5)
# By walking the page tables (proc_pid_smaps_rollup(5)): of one process all of its pages, of several
# the share of each.
_PSS_AND_SWAP_OF_ONE = amounts_of("Anonymous", "Pss_Shmem", "Swap")
_PSS_AND_SWAP_OF_SEVERAL = amounts_of("Pss_Anon", "Pss_Shmem", "SwapPss")
_DIRTY_AND_SHMEM = amounts_of("Private_Dirty", "Pss_Shmem")


def rss_and_swap_bytes(pids: Sequence[int], proc: Path = PROC) -> int:
    """RssAnon + RssShmem + VmSwap of status, the kernel's counters: 15 us for each process.

    A page that a fork shares with its parent counts in each of them, so of forks it is too much;
    and it is off by the counters' lag (``lag_here_bytes``).
    """
    return sum(sum_bytes(read_text(proc / str(pid) / "status"), _RSS_AND_SWAP) for pid in pids)


def pss_and_swap_bytes(pids: Sequence[int], proc: Path = PROC) -> int:
    """The private, shared and swapped pages of smaps_rollup, each counted once: twelve and more
    milliseconds for each process.

    A process that does not let its pages be read counts by ``rss_and_swap_bytes``.
    """
    amounts = _PSS_AND_SWAP_OF_ONE if len(pids) == 1 else _PSS_AND_SWAP_OF_SEVERAL
    texts = {pid: read_text(proc / str(pid) / "smaps_rollup") for pid in pids}
    return sum(
        sum_bytes(text, amounts) if amounts.search(text) else rss_and_swap_bytes([pid], proc)
        for pid, text in texts.items()
    )


def dirty_and_shmem_bytes(pids: Sequence[int], proc: Path = PROC) -> int:
    """Private_Dirty + Pss_Shmem of smaps_rollup: what processes have written to themselves.

    Pages that a fork shares with its parent until one of them writes are the parent's; shared
    memory counts by each process's share.
    """
    texts = (read_text(proc / str(pid) / "smaps_rollup") for pid in pids)
    return sum(sum_bytes(text, _DIRTY_AND_SHMEM) for text in texts)


def descendants(process: int | str = "self", proc: Path = PROC) -> list[int]:
    """The processes that a process has started, and those that they have; 10 us for each thread."""
    try:
        threads = list((proc / str(process) / "task").iterdir())
    except OSError:
        return []
    children = [
        int(child) for thread in threads for child in read_text(thread / "children").split()
    ]
    return children + [below for child in children for below in descendants(child, proc)]


def cpu_time_s(process: int, proc: Path = PROC) -> float:
    """Processor time that a process has used so far; 0 where it has ended."""
    fields = _stat_fields(read_text(proc / str(process) / "stat"))
    if not fields:
        return 0.0
    return (int(fields[_USER_FIELD]) + int(fields[_SYSTEM_FIELD])) / os.sysconf("SC_CLK_TCK")


def started_ticks(process: int | str = "self") -> int:
    """When the process was started, in the kernel's ticks since boot: with its id, a name that no
    other process has.

    0 where there is no /proc. Raises MeterUnavailable when there is, and the process is gone.
    """
    if not (PROC / "self" / "stat").exists():
        return 0
    try:
        text = (PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MeterUnavailable(f"process {process} cannot be read: {error}") from error
    return int(_stat_fields(text)[_STARTED_FIELD])


def _stat_fields(stat: str) -> list[str]:
    """The fields behind the name of the process, which may hold spaces and brackets itself."""
    return stat.rpartition(")")[2].split()


# The end of a process that this one has started.

HasEnded = Callable[[float], bool]
"""Waits so many seconds at most; says whether the process has ended."""
_KILLED_S = 180.0
"""Chosen: a killed process has to give back gigabytes, and may wait for a disk or a card."""


@contextlib.contextmanager
def end_of(pid: int) -> Iterator[HasEnded]:
    """What waits for the end of a child without reaping it, so that its id still names it and its
    group.
    """
    if not hasattr(os, "pidfd_open"):
        yield functools.partial(_has_ended, pid)
        return
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda timeout_s: bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


def _has_ended(pid: int, timeout_s: float) -> bool:
    # Without Linux: two hundred looks a second, far below the seconds that a child takes, cost
    # nothing.
    deadline_s = time.monotonic() + timeout_s
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.005)
    return True


def stop(
    has_ended: HasEnded,
    *,
    ask: Callable[[], object],
    kill: Callable[[], object],
    grace_s: float,
) -> bool:
    """Ask a process to end, wait ``grace_s``, and kill it where it has not ended by then; one with
    no such time is killed at once. Whether it ended without being killed.
    """
    if grace_s > 0:
        ask()
        if has_ended(grace_s):
            return True
    kill()
    has_ended(_KILLED_S)
    return False
