"""The host's meter without a sampler: known allocations found again in this process, with the
bounds of its edges.
"""

import functools
import mmap
import subprocess
import sys

import pytest

from harness.errors import MeterUnavailable
from harness.measure import MeterContext, unresolved_if_thin
from harness.measure.host_meter import HostMeter, family_of_this
from harness.records import Quality, Reading
from harness.system.proc import ProcCounters
from harness.words import count

MIB = 1024 * 1024
EMULATED = MeterContext(
    device_name="CPU:0", device={"kind": "emulated", "uuid": None}, without_sampler="a test"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@LINUX
@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED], ids=["private", "shared"])
@pytest.mark.parametrize("amount_bytes", [8 * MIB, 64 * MIB])
def test_a_temporary_that_is_gone_at_the_end_is_found_in_the_peak(amount_bytes, flags):
    """Known pages, private or shared, are mapped, touched and unmapped: growth within 1 MiB of
    them, nothing retained.
    """
    meter = HostMeter(EMULATED)
    meter.open()
    meter.begin()
    with mmap.mmap(-1, amount_bytes, flags=flags | mmap.MAP_ANONYMOUS) as pages:
        for offset in range(0, amount_bytes, mmap.PAGESIZE):
            pages[offset] = 1
    anon, rss, _ = meter.end()

    assert abs(anon.growth_bytes - amount_bytes) < MIB
    assert anon.peak_bytes - MIB // 4 <= anon.start_bytes + amount_bytes <= anon.peak_bound_bytes
    assert abs(anon.retained_bytes) < MIB
    assert abs(rss.growth_bytes - amount_bytes) < MIB


@LINUX
def test_a_reading_says_that_there_was_no_sampler_and_how_exact_the_counters_are():
    """So that it is not taken for one with windows; two looks are too few for what is polled."""
    meter = HostMeter(EMULATED)
    meter.open()
    meter.begin()
    anon, rss, mapped = meter.end()

    assert (anon.quality, rss.quality, mapped.quality) == (
        Quality.BOUNDED,
        Quality.EXACT,
        Quality.UNRESOLVED,
    )
    assert anon.source.startswith(
        "VmHWM and faults at the edges, without the sampler: a test; the kernel's counters to "
    )
    assert mapped.reason.startswith("sampled too coarsely to judge (2 samples")


@LINUX
def test_what_a_started_process_holds_is_counted_while_it_lives():
    """32 MiB in a helper: kept from its start to its end, and not the pages of the interpreter that
    all share.
    """
    helper = "import sys; held = bytearray(b'1') * (32 << 20); print(flush=True); sys.stdin.read()"
    # Tests before this one may have left a process that has not ended yet.
    there = family_of_this().number
    meter = HostMeter(EMULATED)
    meter.open()
    meter.begin()
    with subprocess.Popen(
        [sys.executable, "-c", helper], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        started.stdout.readline()
        kept, *_ = meter.end()
        meter.begin()
        still, *_ = meter.end()
        meter.begin()
    gone, *_ = meter.end()

    assert 32 * MIB <= kept.retained_bytes < 48 * MIB
    assert kept.growth_bytes >= kept.retained_bytes
    assert kept.peak_bound_bytes >= kept.peak_bytes
    assert kept.reason.endswith(
        f"with {count(there + 1, 'process', 'processes')} that the body has started, as at the "
        "edges of the phase"
    )
    assert abs(still.growth_bytes) < MIB
    assert gone.retained_bytes < -31 * MIB


@LINUX
@LINUX
def test_whether_a_process_has_children_is_told_without_taking_their_end_away():
    """A child that has ended and was not waited for counts, and its exit code is still there."""
    program = (
        "import subprocess, sys; from harness.measure.host_meter import Family, family_of_this\n"
        "assert family_of_this() == Family(0, 0)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'raise SystemExit(3)'], "
        "stdout=subprocess.PIPE)\n"
        "child.stdout.read()\n"  # it has ended, or is about to
        "assert family_of_this().number == 1\n"
        "assert child.wait() == 3\n"
        "assert family_of_this() == Family(0, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_what_malloc_has_free_hides_nothing():
    """64 MiB in pieces are let go before the phase; 16 MiB that are asked for in it show, and leave
    with their pieces.
    """
    pieces = [bytearray(100_000) for _ in range(671)]
    del pieces
    meter = HostMeter(EMULATED)
    meter.open()
    meter.begin()
    kept = [bytearray(b"1") * 100_000 for _ in range(168)]
    anon, *_ = meter.end()

    assert len(kept) * 100_000 - MIB < anon.retained_bytes < len(kept) * 100_000 + 2 * MIB


def test_a_machine_without_proc_says_so(tmp_path):
    """The reason names the files that are missing, and why there is no sampler either."""
    with pytest.raises(MeterUnavailable, match=r"needs Linux's .*status.*; the sampler: a test"):
        HostMeter(EMULATED, counters=functools.partial(ProcCounters, proc=tmp_path)).open()


@pytest.mark.parametrize(
    ("samples", "gap_s", "quality"),
    [
        (5, 0.25, Quality.SAMPLED),
        (4, 0.25, Quality.UNRESOLVED),
        (5, 0.251, Quality.UNRESOLVED),
        (None, None, Quality.UNRESOLVED),
    ],
)
def test_what_is_polled_too_thinly_is_unresolved(samples, gap_s, quality):
    """Fewer than 5 samples, or a gap over a quarter of the phase; the amounts stay, with the
    reason.
    """
    polled = Reading(
        meter="m",
        quality=Quality.SAMPLED,
        start_bytes=1,
        peak_bytes=3,
        end_bytes=2,
        samples=samples,
        largest_gap_s=gap_s,
    )
    judged = unresolved_if_thin(polled, 1.0)

    assert (judged.quality, judged.peak_bytes) == (quality, 3)
    assert ("sampled too coarsely" in judged.reason) == (quality is Quality.UNRESOLVED)
