"""Host memory: the arithmetic of the bounds, and known allocations found again."""

import mmap
import sys

import pytest

from harness.errors import MeterUnavailable
from harness.measure.meters.base import MeterContext
from harness.measure.meters.host import HostMeter, HostState, host_readings
from harness.records import Quality

MIB = 1024 * 1024
EMULATED = MeterContext(device_name="CPU:0", device={"kind": "emulated", "uuid": None})

STATUS = "VmHWM:\t    900 kB\nVmRSS:\t    800 kB\nRssAnon:\t     500 kB\nRssFile:\t     250 kB\nRssShmem:\t      50 kB\n"


def state(anon, mapped, highest):
    return HostState(anon_bytes=anon, mapped_bytes=mapped, resident_bytes=anon + mapped, highest_resident_bytes=highest)


def test_proc_status_is_read_in_bytes():
    """The kernel's kB are KiB."""
    read = HostState.from_status(STATUS)

    assert read == HostState(
        anon_bytes=550 * 1024, mapped_bytes=250 * 1024, resident_bytes=800 * 1024, highest_resident_bytes=900 * 1024
    )


def test_a_kernel_without_a_counter_is_unavailable_by_name():
    """Never a zero for what is not there."""
    with pytest.raises(MeterUnavailable, match="lacks RssAnon"):
        HostState.from_status(STATUS.replace("RssAnon", "Other"))


def test_without_mapped_growth_both_bounds_of_the_peak_meet():
    """anon 100 -> 300 -> 150 beside 50 of mapped pages: the peak of anon is 300, exactly."""
    anon, rss = host_readings(state(100, 50, 150), state(150, 50, 350))

    assert (anon.start_bytes, anon.peak_bytes, anon.peak_bound_bytes, anon.end_bytes) == (100, 300, 300, 150)
    assert (rss.start_bytes, rss.peak_bytes, rss.end_bytes) == (150, 350, 200)


def test_mapped_pages_that_appear_widen_the_bounds_by_their_size():
    """200 of file pages read through: the peak lies between HWM - 250 and HWM - 50."""
    anon, _ = host_readings(state(100, 50, 150), state(100, 250, 420))

    assert (anon.peak_bytes, anon.peak_bound_bytes) == (170, 370)
    assert anon.quality is Quality.BOUNDED


def test_reading_a_file_through_a_mapping_is_no_growth_of_the_process():
    """The lower bound, which is gated, stays at the start."""
    anon, _ = host_readings(state(100, 50, 150), state(100, 950, 1050))

    assert anon.growth_bytes == 0


def test_the_peak_is_never_under_an_edge():
    """The kernel's peak may lag its own counters by some pages."""
    anon, rss = host_readings(state(100, 50, 150), state(180, 50, 226))

    assert (anon.peak_bytes, rss.peak_bytes) == (180, 230)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED], ids=["private", "shared"])
@pytest.mark.parametrize("amount_bytes", [8 * MIB, 64 * MIB])
def test_a_temporary_that_is_gone_at_the_end_is_found_in_the_peak(amount_bytes, flags):
    """Known pages, private or shared, are mapped, touched and unmapped: growth within 1 MiB of them, nothing retained."""
    meter = HostMeter(EMULATED)
    meter.open()
    meter.begin()
    with mmap.mmap(-1, amount_bytes, flags=flags | mmap.MAP_ANONYMOUS) as pages:
        for offset in range(0, amount_bytes, mmap.PAGESIZE):
            pages[offset] = 1
    anon, _ = meter.end()

    assert abs(anon.growth_bytes - amount_bytes) < MIB
    assert abs(anon.retained_bytes) < MIB


def test_a_machine_without_proc_says_so(tmp_path):
    """The reason names the files that are missing."""
    with pytest.raises(MeterUnavailable, match="needs Linux's"):
        HostMeter(EMULATED, status=tmp_path / "status", clear_refs=tmp_path / "clear_refs").open()
