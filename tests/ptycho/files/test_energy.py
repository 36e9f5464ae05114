"""The energy pass and the constant that follows from it."""

import os

import numpy as np
import pytest

from ptycho.errors import ScanError
from ptycho.files import FileArray, FileState
from ptycho.files.stacks import MappedFrames, chunk_energies, frame_energies, normalization


@pytest.mark.parametrize("chunk_frames", [1, 7, 100, 1000])
def test_energies_do_not_depend_on_the_chunk(scan, chunk_frames):
    """Any chunk gives the sums of squares in float64."""
    chunk_bytes = chunk_frames * scan.frames[0].nbytes
    expected = (np.asarray(scan.frames, np.float64) ** 2).sum(axis=(1, 2))

    np.testing.assert_allclose(
        expected, frame_energies(scan.frames, name="frames", chunk_bytes=chunk_bytes), rtol=1e-13
    )


def test_a_frame_in_three_groups_counts_three_times():
    """c^2 = (N/2)^2 / mean of E over groups and channels."""
    energies = np.array([1.0, 4.0, 100.0])
    nn_indices = np.array([[0, 1], [0, 1], [0, 0]])

    assert normalization(energies, nn_indices, 8) == pytest.approx(np.sqrt(16 / (12 / 6)))


def test_groups_of_empty_frames_have_no_constant():
    with pytest.raises(ScanError, match="every frame of every group is zero"):
        normalization(np.array([0.0, 1.0]), np.array([[0, 0]]), 8)


def test_a_file_that_ends_during_the_pass_is_noticed(tmp_path, monkeypatch):
    """Cut after the pass has asked for its state."""
    path = tmp_path / "frames.bin"
    path.write_bytes(np.ones((9, 8, 8), np.float32).tobytes())
    frames = MappedFrames(
        FileArray(path, 0, (9, 8, 8), np.dtype(np.float32), FileState.of(path.stat())),
        name="frames",
    )
    monkeypatch.setattr(FileArray, "_compare", lambda self, status: None)
    os.truncate(path, 4 * 64 * 4 + 4)
    with pytest.raises(ScanError, match="frames ends in frame 4 of 9; the file was cut"):
        frame_energies(frames, name="frames")


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("value", "is_accepted"),
    [(LARGEST, True), (np.nextafter(LARGEST, np.inf), False), (1e200, False)],
)
def test_amplitudes_fit_into_float32(value, is_accepted):
    """float64 frames may hold the largest float32, and nothing beyond it."""
    chunk = np.ones((3, 8, 8))
    chunk[1, 4, 4] = value
    if is_accepted:
        assert np.isfinite(chunk_energies(chunk, first=0, name="frames")).all()
    else:
        with pytest.raises(
            ScanError, match="frames has amplitude too large for float32 in frame 1"
        ):
            chunk_energies(chunk, first=0, name="frames")


def test_the_constant_of_the_measured_scan(siemens_scan):
    """Over all 516 frames it is 0.0942387, known from the data set itself."""
    everything = np.arange(siemens_scan.frame_count)[:, None]

    assert normalization(
        siemens_scan.energies(), everything, siemens_scan.frame_size
    ) == pytest.approx(0.0942387, rel=1e-5)
