"""How far the kernel's counters of a process's memory may be off.

Since Linux 6.2 each counter is kept in parts, one for each processor, and a processor adds its part
to the sum when it holds a batch of pages (lib/percpu_counter.c).
"""

import os
import sys

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
