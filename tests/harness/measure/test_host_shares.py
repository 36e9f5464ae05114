"""PSS and USS of this process: known pages found at the edges, and not read twice where nothing
moved.
"""

import mmap
import sys

import pytest

from harness.errors import MeterUnavailable
from harness.measure import MeterContext
from harness.measure.host_meter import Shares, SharesMeter
from harness.records import Quality

MIB = 1024 * 1024
EMULATED = MeterContext(device_name="CPU:0", device={"kind": "emulated", "uuid": None})
ROLLUP = (
    b"Rss:\t 900 kB\nPss:\t 700 kB\nPss_Dirty:\t 1 kB\nPrivate_Clean:\t 200 "
    b"kB\nPrivate_Dirty:\t 300 kB\n"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def test_the_rollup_is_read_in_bytes():
    """USS is what is private, clean or dirty."""
    assert Shares.from_rollup(ROLLUP) == Shares(pss_bytes=700 * 1024, uss_bytes=500 * 1024)


def test_a_kernel_without_an_amount_is_unavailable_by_name():
    """Never a zero for what is not there."""
    with pytest.raises(MeterUnavailable, match="lacks Private_Dirty"):
        Shares.from_rollup(ROLLUP.replace(b"Private_Dirty", b"Other"))


@LINUX
def test_known_pages_are_found_at_the_end_and_nothing_is_said_of_between():
    """64 MiB held, private: both grow by as much; unresolved, because a peak between the edges was
    not looked for.
    """
    meter = SharesMeter(EMULATED)
    meter.open()
    meter.begin()
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for offset in range(0, 64 * MIB, mmap.PAGESIZE):
            pages[offset] = 1
        readings = meter.end()

    assert [reading.meter for reading in readings] == ["host_pss", "host_uss"]
    for reading in readings:
        assert abs(reading.retained_bytes - 64 * MIB) < MIB
        assert reading.quality is Quality.UNRESOLVED
        assert "at the edges of the phase alone" in reading.reason


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A meter on a file of the test's, which shows whether it was read again, and what it believes
    to have moved.
    """
    rollup = tmp_path / "smaps_rollup"
    rollup.write_bytes(ROLLUP)
    meter = SharesMeter(EMULATED, rollup=rollup)
    moved = [0]
    monkeypatch.setattr(SharesMeter, "_pages", lambda self: (1000, moved[0]))
    meter.open()
    meter.begin()
    meter.end()
    rollup.write_bytes(ROLLUP.replace(b"700", b"800"))
    return meter, moved


@LINUX
@pytest.mark.parametrize(
    ("pages_moved", "start_bytes"),
    [(0, 700 * 1024), (64, 700 * 1024), (65, 800 * 1024), (-65, 800 * 1024)],
)
def test_an_edge_is_shared_only_where_hardly_a_page_came_or_went(counted, pages_moved, start_bytes):
    """The end of one phase and the start of the next."""
    meter, moved = counted
    moved[0] += pages_moved
    meter.begin()
    pss, _ = meter.end()

    assert pss.start_bytes == start_bytes


@LINUX
def test_a_machine_without_the_file_says_so(tmp_path):
    """By its name."""
    with pytest.raises(MeterUnavailable, match="smaps_rollup"):
        SharesMeter(EMULATED, rollup=tmp_path / "smaps_rollup").open()
