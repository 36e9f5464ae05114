"""The kernel's counters of one process's memory: all of them (/proc/PID/status), three of them
(statm), and the reset of one.

RssAnon is private memory, RssShmem shared memory and tmpfs, RssFile page cache mapped into the
process, VmRSS their sum, VmHWM the highest VmRSS since it was last reset by writing 5 to clear_refs
(proc(5)).

How exact they are: since Linux 6.2 each counter is kept in parts, one for each processor, and a
processor adds its part to the sum when it holds a batch of pages (lib/percpu_counter.c). Since
6.16, and in the stable kernels that took the same mend, status and statm add the parts up when they
are read (fs/proc/task_mmu.c, get_mm_counter_sum); VmHWM is still kept from the sum without the
parts (mm.h, update_hiwater_rss), so it may be off by ``harness.system.proc.counter_lag_bytes``.

Faults bound what can have come: every page that a process gets is one fault of its own, or part of
a huge page, which the kernel counts by size for the whole system (mm/memory.c, mm_account_fault;
admin-guide/mm/transhuge). Not counted are huge pages that khugepaged puts together on its own.
"""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from harness.errors import MeterUnavailable

# How far the kernel's counters of a process's memory may be off. Since Linux 6.2 each counter is
# kept in parts, one for each processor, and a processor adds its part to the sum when it holds a
# batch of pages (lib/percpu_counter.c).


PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LEAST_BATCH_PAGES = 32
"""The batch, or two pages for each processor online where that is more (lib/percpu_counter.c,
compute_batch_value)."""


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
    # Only Linux tells where a process may run, and only Linux counts this way.
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else online
    return counter_lag_bytes(online=online, allowed=allowed, counters=counters)


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
# starttime 22).
_MINOR_FIELD, _MAJOR_FIELD, _STARTED_FIELD = 7, 9, 19
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


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
    """RssFile + RssShmem, which statm does not tell apart."""
    faulted_bytes: int | None
    """What the process's faults have brought since its start, at most; None where that cannot be
    told."""


class HostCounters(Protocol):
    """Reads one process; what it opened stays with that process, also when another gets its id."""

    tells_anon: bool
    """Whether it can tell the process's own memory from mapped files, and has a peak; else it reads
    ``resident_bytes`` alone."""

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

    def __init__(self, process: int | str = "self", *, proc: Path = Path("/proc")) -> None:
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


def started_ticks(process: int | str = "self") -> int:
    """When the process was started, in the kernel's ticks since boot: with its id, a name that no
    other process has.

    0 where there is no /proc. Raises MeterUnavailable when there is, and the process is gone.
    """
    if not Path("/proc/self/stat").exists():
        return 0
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError as error:
        raise MeterUnavailable(f"process {process} cannot be read: {error}") from error
    return int(stat[stat.rindex(b")") + 1 :].split()[_STARTED_FIELD])
