"""The kernel's counters: read in bytes, how far they may be off, and whose they are."""

import os
import subprocess
import sys

import pytest

from harness.errors import MeterUnavailable
from harness.system.proc import (
    HostState,
    ProcCounters,
    _huge_page_counts,
    counter_lag_bytes,
    dirty_and_shmem_bytes,
    end_of,
    pss_and_swap_bytes,
    rss_and_swap_bytes,
    started_ticks,
    stop,
)
from harness.words import KIB

STATUS = (
    b"Name:\tx\nVmHWM:\t    900 kB\nVmRSS:\t     800 kB\nRssAnon:\t     500 kB\nRssFile:\t     "
    b"250 kB\nRssShmem:\t      50 kB\n"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def test_proc_status_is_read_in_bytes():
    """The kernel's kB are KiB; shared memory counts with private memory."""
    assert HostState.from_status(STATUS) == HostState(
        anon_bytes=550 * 1024,
        mapped_bytes=250 * 1024,
        resident_bytes=800 * 1024,
        highest_resident_bytes=900 * 1024,
        shared_bytes=50 * 1024,
    )


def test_a_kernel_without_a_counter_is_unavailable_by_name():
    """Never a zero for what is not there."""
    with pytest.raises(MeterUnavailable, match="lacks RssAnon"):
        HostState.from_status(STATUS.replace(b"RssAnon", b"Other"))


@pytest.mark.parametrize(
    ("online", "allowed", "counters", "lag_bytes"),
    [
        (2, 2, 2, 2 * 2 * 31 * 4096),  # here: 496 KiB
        (16, 16, 2, 2 * 16 * 31 * 4096),  # the batch is 32 pages up to 16 processors
        (17, 17, 2, 2 * 17 * 33 * 4096),  # and two for each from there on
        (64, 64, 3, 3 * 64 * 127 * 4096),  # 95 MiB
        (64, 4, 2, 2 * 4 * 127 * 4096),  # a container of four
    ],
)
def test_how_far_the_kernels_counters_may_be_off(online, allowed, counters, lag_bytes):
    """max(32, 2 x processors online) pages is the batch, one less is held back
    (lib/percpu_counter.c).
    """
    assert (
        counter_lag_bytes(online=online, allowed=allowed, counters=counters, page_bytes=4096)
        == lag_bytes
    )


@pytest.mark.parametrize(
    ("whole", "sizes", "found"),
    [
        ("always madvise [never]", {"2048": "[inherit]"}, []),
        (
            "always [madvise] never",
            {"2048": "always [inherit] never", "64": "always inherit [never]"},
            [2048 * 1024],
        ),
        ("always [madvise] never", {}, None),  # before 6.9 the kernel has no counts by size
    ],
)
def test_huge_pages_that_are_in_use_are_counted_by_size(tmp_path, whole, sizes, found):
    """Without their counts nothing can be said of what a fault brings."""
    (tmp_path / "enabled").write_text(whole)
    for size, enabled in sizes.items():
        (tmp_path / f"hugepages-{size}kB" / "stats").mkdir(parents=True)
        (tmp_path / f"hugepages-{size}kB" / "enabled").write_text(enabled)
        (tmp_path / f"hugepages-{size}kB" / "stats" / "anon_fault_alloc").write_text("7\n")
    opened = []
    counts = _huge_page_counts(opened, tmp_path)
    for descriptor in opened:
        os.close(descriptor)

    assert (counts if counts is None else [size_bytes for _, size_bytes in counts]) == found


@LINUX
def test_a_glance_and_a_look_agree():
    """Statm and status are two prints of the same counters."""
    counters = ProcCounters()
    cheap, state = counters.cheap_read(), counters.full_read()
    counters.close()

    assert cheap.not_private_bytes == state.mapped_bytes + state.shared_bytes
    # a few pages of the interpreter's own
    assert abs(cheap.resident_bytes - state.resident_bytes) < 1 << 20


@LINUX
def test_what_was_opened_of_a_process_that_has_ended_reads_nothing():
    """Also when another has got its id by then: the descriptor is the process's."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    counters = ProcCounters(child.pid)
    assert counters.full_read().anon_bytes > 0
    child.communicate()

    for read in (counters.full_read, counters.cheap_read):
        with pytest.raises(MeterUnavailable, match="cannot be read"):
            read()
    counters.close()


@LINUX
def test_a_process_is_named_by_its_id_and_its_start():
    """Its start is the same each time, and that of a process that is gone cannot be told."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = started_ticks(child.pid)
    assert started == started_ticks(child.pid) >= started_ticks()
    child.communicate()

    with pytest.raises(MeterUnavailable, match=f"process {child.pid} cannot be read"):
        started_ticks(child.pid)


@pytest.mark.parametrize(
    ("grace_s", "ends_after", "calls", "by_itself"),
    [
        (1.0, "ask", ["ask", 1.0], True),
        (1.0, "kill", ["ask", 1.0, "kill", 180.0], False),
        (0.0, "kill", ["kill", 180.0], False),
    ],
)
def test_a_process_is_asked_waited_for_and_killed(grace_s, ends_after, calls, by_itself):
    """One that has no time to unwind is not asked."""
    seen = []

    def has_ended(timeout_s):
        seen.append(timeout_s)
        return ends_after in seen

    ended = stop(
        has_ended,
        ask=lambda: seen.append("ask"),
        kill=lambda: seen.append("kill"),
        grace_s=grace_s,
    )

    assert (seen, ended) == (calls, by_itself)


def test_the_end_of_a_child_is_seen_without_reaping_it():
    """So its id still names it, and its exit code is there to be read."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(3)"], stdin=subprocess.PIPE
    )

    with end_of(child.pid) as has_ended:
        assert not has_ended(0.0)
        child.stdin.close()
        assert has_ended(60.0)

    assert child.wait() == 3


def test_what_is_held_is_named_by_the_counters_that_are_added(tmp_path):
    """From status, from smaps_rollup of one process and of several, and what was written to."""
    for pid in (1, 2):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(
            "VmRSS:\t99 kB\nRssAnon:\t8 kB\nRssFile:\t50 kB\nRssShmem:\t4 kB\nVmSwap:\t2 kB\n"
        )
        (tmp_path / str(pid) / "smaps_rollup").write_text(
            "Pss:\t40 kB\nPss_Anon:\t5 kB\nPss_Shmem:\t3 kB\nPrivate_Dirty:\t6 kB\n"
            "Anonymous:\t9 kB\nSwap:\t2 kB\nSwapPss:\t1 kB\n"
        )

    assert rss_and_swap_bytes([1, 2], tmp_path) == 2 * 14 * KIB
    assert pss_and_swap_bytes([1], tmp_path) == (9 + 3 + 2) * KIB
    assert pss_and_swap_bytes([1, 2], tmp_path) == 2 * (5 + 3 + 1) * KIB
    assert dirty_and_shmem_bytes([1, 2], tmp_path) == 2 * (6 + 3) * KIB
    assert dirty_and_shmem_bytes([3], tmp_path) == 0
