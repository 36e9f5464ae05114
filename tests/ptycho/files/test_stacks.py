"""Stacks by themselves: what a copy costs, and conversions against plain numpy."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.files import FileArray, FileState
from ptycho.files.frames import ConvertedFrames, Interpretation
from ptycho.files.stacks import ArrayFrames, MappedFrames

FRAME_BYTES = 64 * 64 * 4


@pytest.fixture
def stored(tmp_path):
    """1,000 frames of 64 x 64, 16 MB, that begin at any byte."""

    def write(offset_bytes, dtype="<f4"):
        frames = np.random.default_rng(0).random((1000, 64, 64), np.float32).astype(dtype)
        path = tmp_path / "frames.bin"
        path.write_bytes(bytes(offset_bytes) + frames.tobytes())
        return frames, FileArray(
            path, offset_bytes, frames.shape, frames.dtype, FileState.of(path.stat())
        )

    return write


@pytest.mark.parametrize(
    ("offset_bytes", "dtype"),
    [(0, "<f4"), (188, "<f4"), (193, "<f4"), (188, "<f8"), (0, ">f4"), (3, ">f8")],
)
def test_taking_a_few_frames_copies_a_few_frames(stored, offset_bytes, dtype):
    """Wherever they begin: numpy's take alone makes a copy of the whole stack where it is not
    aligned.
    """
    frames, file = stored(offset_bytes, dtype)
    stack, out, chosen = (
        MappedFrames(file, name="frames"),
        np.empty((16, 64, 64), dtype),
        np.arange(0, 1000, 63),
    )
    tracemalloc.start()
    for _ in range(50):
        stack.take(chosen, out)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    np.testing.assert_array_equal(frames[chosen], out)
    assert peak_bytes < FRAME_BYTES


def test_converting_keeps_a_frame_of_scratch(stored):
    """However many frames are asked for, and however often."""
    frames, file = stored(188, "<u2")
    stack = ConvertedFrames(
        MappedFrames(file, name="frames"), Interpretation(intensity=True, dc="corner"), None
    )
    out, chosen = np.empty((200, 64, 64), np.float32), np.arange(200)
    tracemalloc.start()
    for _ in range(2):  # Python keeps some small tuples
        stack.take(chosen, out)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    for _ in range(20):
        stack.take(chosen, out)
    end_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    np.testing.assert_array_equal(
        np.fft.fftshift(np.sqrt(frames[:200].astype(float)), axes=(1, 2)).astype(np.float32), out
    )
    assert end_bytes - kept_bytes < 1024
    assert peak_bytes < 10 * FRAME_BYTES  # numpy's casting buffers


@pytest.mark.parametrize("chunk_bytes", [FRAME_BYTES, 10 * FRAME_BYTES, 1 << 20])
@pytest.mark.parametrize("is_converted", [False, True])
def test_a_pass_holds_its_chunk(stored, chunk_bytes, is_converted):
    _, file = stored(188)
    stack = MappedFrames(file, name="frames")
    if is_converted:
        stack = ConvertedFrames(stack, Interpretation(dc="corner"), np.eye(64, dtype=bool))
    tracemalloc.start()
    frame_count = sum(len(chunk) for _, chunk in stack.chunks(chunk_bytes))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert frame_count == 1000
    assert chunk_bytes / 2 <= peak_bytes <= max(chunk_bytes, 2 * FRAME_BYTES) + 8 * FRAME_BYTES


KINDS = ["<u1", "<u2", ">u2", "<i4", ">i8", "<u8", "<f4", ">f4", "<f8"]


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    what=st.builds(
        Interpretation,
        intensity=st.booleans(),
        dc=st.sampled_from(["center", "corner"]),
        axes=st.sampled_from(["frame,row,column", "frame,column,row"]),
    ),
    size=st.sampled_from([8, 10, 16]),
    seed=st.integers(0, 1 << 16),
    is_masked=st.booleans(),
    chunk_bytes=st.integers(1, 4096),
)
def test_conversions_are_those_of_numpy(kind, what, size, seed, is_masked, chunk_bytes):
    """Turn, shift, root and mask, in the words of the definition, for take and for chunks."""
    generator = np.random.default_rng(seed)
    if np.dtype(kind).kind in "iu" and not what.intensity:
        what = Interpretation(intensity=True, dc=what.dc, axes=what.axes)
    frames = generator.integers(0, 200, (7, size, size)).astype(kind)
    is_bad = generator.random((size, size)) < 0.2 if is_masked else None
    expected = frames.astype(np.float64)
    if is_masked:
        expected[:, is_bad] = 0
    if what.is_turned:
        expected = expected.transpose(0, 2, 1)
    if what.dc == "corner":
        expected = np.fft.fftshift(expected, axes=(1, 2))
    if what.intensity:
        expected = np.sqrt(expected)
    stack = ConvertedFrames(ArrayFrames(frames), what, is_bad)
    chosen = generator.integers(0, 7, 5)
    out = np.empty((5, size, size), stack.dtype)
    stack.take(chosen, out)

    np.testing.assert_array_equal(expected.astype(stack.dtype)[chosen], out)
    np.testing.assert_array_equal(
        expected.astype(stack.dtype),
        np.concatenate([chunk.copy() for _, chunk in stack.chunks(chunk_bytes)]),
    )
    assert stack.dtype == (
        np.float64 if frames.dtype.itemsize == 8 and not what.intensity else np.float32
    )


@pytest.mark.parametrize(("count", "is_exact"), [(2**24, True), (2**24 + 2, True), (2**53, True)])
def test_roots_of_large_counts_are_rounded_once(count, is_exact):
    """In float64: a float32 root of a float32 count would be rounded twice."""
    frames = np.full((1, 8, 8), count, np.int64)
    stack = ConvertedFrames(ArrayFrames(frames), Interpretation(intensity=True), None)

    assert (stack[0] == np.float32(np.sqrt(np.float64(count)))).all() == is_exact


@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
@pytest.mark.parametrize("kind", ["cropped", "turned", "mirrored", "backwards", "every second"])
def test_frames_with_gaps_are_never_copied_as_a_whole(dtype, kind):
    """A view of frames in memory, in either byte order: two frames cost two frames, not the 4 MiB
    of all.
    """
    whole = np.random.default_rng(0).random((1024, 32, 32)).astype(dtype)
    frames = {
        "cropped": whole[:, 4:-4, 4:-4],
        "turned": whole.transpose(0, 2, 1),
        "mirrored": whole[:, :, ::-1],
        "backwards": whole[::-1],
        "every second": whole[::2],
    }[kind]
    chosen = np.array([3, 500])
    out = np.empty((2, *frames.shape[1:]), dtype)
    tracemalloc.start()
    ArrayFrames(frames).take(chosen, out)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    np.testing.assert_array_equal(frames[chosen], out)
    assert peak_bytes < 1 << 16
