"""Bounds what RLIMIT_DATA does not: memory that is shared, memory of processes that a body starts, the machine's last.

RLIMIT_DATA counts a process's private writable memory, so an anonymous mapping that is shared (MAP_SHARED, /dev/shm)
passes it by, and every process that the body starts gets a limit of its own. The watchdog looks at what is resident
instead, RssAnon + RssShmem (proc_pid_status(5)), of the child and of its descendants, while its parent waits for it.
What has left the family (a daemon whose parent has died) is not counted; the machine's floor bounds that too.
"""

import os
import re
import time
from pathlib import Path

from harness.run.environment import host_memory_bytes
from harness.units import MIB, format_bytes

MARGIN_BYTES = 32 * MIB
"""Beyond the limit before the watchdog acts, so that RLIMIT_DATA comes first. Chosen: the kernel's counters lag by up to
64 pages for each of 128 processors (percpu_counter), and stacks are resident but no data."""
MOST_OF_MACHINE_LEFT_BYTES = 512 * MIB
"""Upper bound of the floor. Chosen: what the harness, pytest-xdist and a shell need to go on."""
_FLOOR_SHARE = 32  # chosen: 128 MiB of a machine of 4 GiB
_FAMILY_S = 0.5  # chosen: listing descendants reads one file for each thread, 10 us each
_KIB = 1024  # /proc prints kibibytes and calls them kB (proc(5))
_HELD = re.compile(r"^(?:RssAnon|RssShmem):\s+(\d+) kB$", re.MULTILINE)
# Shared pages by the share of each: copy-on-write pages of forked children would else count once for each of them.
_HELD_EXACTLY = re.compile(r"^(?:Pss_Anon|Pss_Shmem):\s+(\d+) kB$", re.MULTILINE)
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


class Watchdog:
    """Watches one child; tells, never acts. Sees nothing where there is no /proc."""

    def __init__(self, pid: int, limit_bytes: int, *, proc: Path = Path("/proc"), machine_bytes: int | None = None) -> None:
        self._pid, self._limit_bytes, self._proc = pid, limit_bytes, proc
        machine = host_memory_bytes() if machine_bytes is None else machine_bytes
        self._floor_bytes = min(machine // _FLOOR_SHARE, MOST_OF_MACHINE_LEFT_BYTES)
        self._family = [pid]
        self._list_again_s = 0.0
        self._doubt_again_s = 0.0

    def look(self) -> str:
        """Why the child must be stopped now, in one clause; empty when it may go on."""
        now_s = time.monotonic()
        if now_s >= self._list_again_s:
            self._family, self._list_again_s = [self._pid, *self._descendants(self._pid)], now_s + _FAMILY_S
        held_bytes = self._sum("status", _HELD)
        if held_bytes > self._limit_bytes + MARGIN_BYTES and now_s >= self._doubt_again_s:
            if len(self._family) > 1:
                # Twelve and more milliseconds, for each process: taken on suspicion only, and not at every look.
                held_bytes, self._doubt_again_s = self._sum("smaps_rollup", _HELD_EXACTLY), now_s + _FAMILY_S
            if held_bytes > self._limit_bytes + MARGIN_BYTES:
                return self._over_limit(held_bytes)
        return self._over_machine(held_bytes)

    def used_cpu_s(self) -> float:
        """Processor time that the child has used so far."""
        fields = _read(self._proc / str(self._pid) / "stat").rpartition(")")[2].split()
        if not fields:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime (proc_pid_stat(5))

    def _over_limit(self, held_bytes: int) -> str:
        who = "" if len(self._family) == 1 else f" and {len(self._family) - 1} processes that it started"
        over_bytes = held_bytes - self._limit_bytes
        return (
            f"it{who} held {format_bytes(held_bytes)} of private and shared memory,"
            f" {format_bytes(over_bytes)} over the limit of {format_bytes(self._limit_bytes)}"
        )

    def _over_machine(self, held_bytes: int) -> str:
        # A child that holds less than what is missing would not save the machine by ending.
        if held_bytes < self._floor_bytes:
            return ""
        available = _AVAILABLE.search(_read(self._proc / "meminfo"))
        if available is None or int(available[1]) * _KIB >= self._floor_bytes:
            return ""
        return (
            f"the machine had {format_bytes(int(available[1]) * _KIB)} of memory left, under the floor of"
            f" {format_bytes(self._floor_bytes)}, while it held {format_bytes(held_bytes)}, within its own limit of"
            f" {format_bytes(self._limit_bytes)}"
        )

    def _sum(self, file: str, amounts: re.Pattern[str]) -> int:
        texts = [_read(self._proc / str(pid) / file) for pid in self._family]
        return sum(int(kib) for text in texts for kib in amounts.findall(text)) * _KIB

    def _descendants(self, pid: int) -> list[int]:
        try:
            threads = list((self._proc / str(pid) / "task").iterdir())
        except OSError:
            return []
        children = [int(child) for thread in threads for child in _read(thread / "children").split()]
        return children + [below for child in children for below in self._descendants(child)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # it has ended meanwhile
