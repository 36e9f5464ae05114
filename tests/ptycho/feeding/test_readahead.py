"""Asking for coming frames: in runs, in pieces, only of a cold file, and never more than a window
ahead.
"""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from ptycho.feeding.feed import Feed, ReadAhead
from ptycho.feeding.grouping import BatchOrder
from ptycho.feeding.sources import FrameGather
from ptycho.files import FileArray, FileState
from ptycho.files.stacks import MappedFrames

FRAME = (64, 64)
FRAME_BYTES = 64 * 64 * 4
COUNT = 64
OFFSET_BYTES = 128

pytestmark = pytest.mark.skipif(
    not ReadAhead.is_possible(), reason="this system takes no advice about files"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "frames.bin"
    path.write_bytes(bytes(OFFSET_BYTES + COUNT * FRAME_BYTES))
    return FileArray(
        path, OFFSET_BYTES, (COUNT, *FRAME), np.dtype(np.float32), FileState.of(path.stat())
    )


@pytest.fixture
def advice(monkeypatch):
    """What is asked of the kernel: (first byte, bytes)."""
    asked = []

    def note(descriptor, offset, length, what):
        assert what == os.POSIX_FADV_WILLNEED
        asked.append((offset, length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    return asked


@pytest.fixture
def cold(monkeypatch):
    """As if nothing of the file were in memory."""

    def refuse(*_):
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", refuse)


def at(frame):
    return OFFSET_BYTES + frame * FRAME_BYTES


@pytest.mark.usefixtures("cold")
def test_neighbouring_frames_are_one_run_in_pieces_of_128_kib(file, advice):
    """Frames 3 to 12 in any order, two of them twice, are 160 KiB: a piece of 128 KiB and one of
    32.
    """
    ReadAhead(file).ask_for(np.array([[3, 4, 5, 12], [6, 7, 8, 3], [11, 10, 9, 9]]))

    assert advice == [(at(3), 128 << 10), (at(11), 32 << 10)]


@pytest.mark.usefixtures("cold")
def test_frames_that_lie_apart_are_asked_for_alone(file, advice):
    ReadAhead(file).ask_for(np.array([[40, 2], [63, 0]]))

    assert advice == [(at(frame), FRAME_BYTES) for frame in (0, 2, 40, 63)]


def test_nothing_is_asked_of_a_warm_file(file, advice):
    """The file was just written: its pages are in memory."""
    file.path.read_bytes()
    ReadAhead(file).ask_for(np.arange(COUNT))

    assert advice == []


def test_a_file_system_that_cannot_tell_is_taken_for_cold(file, advice, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", refuse)
    ReadAhead(file).ask_for(np.array([5]))

    assert advice == [(at(5), FRAME_BYTES)]


def descriptor_count():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_descriptor_is_closed_with_the_feed(file):
    gc.collect()  # what other tests left is not ours
    before = descriptor_count()
    ahead = ReadAhead(file)
    during = descriptor_count()
    del ahead
    gc.collect()

    assert (during, descriptor_count()) == (before + 1, before)


@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_feed_asks_for_a_window_and_then_for_a_few_batches_at_a_time(
    file, advice, batch_size, monkeypatch
):
    """Every frame of an epoch but those of its first batch is asked for once, before its batch is
    made.
    """
    monkeypatch.setattr("ptycho.feeding.feed.AHEAD_BYTES", 8 * batch_size * FRAME_BYTES)
    nn = np.arange(COUNT)[:, None]
    source = FrameGather(MappedFrames(file, name="frames"), nn)
    order = BatchOrder(COUNT, batch_size, shuffle=True, seed=0, drop_remainder=False)
    feed = Feed(source, np.zeros((COUNT, 1, 2, 1), np.float32), order)
    known = set(order.batch(0, 0).tolist())
    for step in range(order.batch_count):
        assert set(order.batch(0, step).tolist()) <= known
        feed.batch(0, step)
        new = {
            frame
            for start, length in advice
            for frame in range(
                (start - at(0)) // FRAME_BYTES, (start - at(0) + length) // FRAME_BYTES
            )
        }
        # the window, and a quarter of it
        assert len(new) + batch_size <= (step + 1 + 8 + 2) * batch_size
        known |= new

    assert sum(length for _, length in advice) == (COUNT - batch_size) * FRAME_BYTES
