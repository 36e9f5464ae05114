"""Simulated scans: physical, reproducible, written in small pieces."""

import numpy as np
import pytest

from ptycho.errors import ContainerError, ScanFileError
from ptycho.files.storage import write_scan
from ptycho.scan import Scan
from ptycho.simulate import far_field_amplitude, simulate, subset


def modelled(scan, x, y):
    """The forward model's amplitude for every frame, patches centred at x and y."""
    half = scan.frame_size // 2
    columns, rows = np.rint(x).astype(int), np.rint(y).astype(int)
    patches = np.stack(
        [
            scan.object[r - half : r + half, c - half : c + half]
            for r, c in zip(rows, columns, strict=True)
        ]
    )
    return far_field_amplitude(scan.probe, patches)


def test_the_transform_keeps_the_energy():
    """Parseval: sum amplitude^2 = sum |probe * patch|^2."""
    generator = np.random.default_rng(0)
    probe, patch = generator.standard_normal((2, 16, 16)) + 1j * generator.standard_normal(
        (2, 16, 16)
    )

    np.testing.assert_allclose(
        (np.abs(probe * patch) ** 2).sum(), (far_field_amplitude(probe, patch) ** 2).sum()
    )


def test_a_uniform_wave_ends_in_the_centre():
    amplitude = far_field_amplitude(np.ones((16, 16)), np.ones((16, 16)))

    assert amplitude[8, 8] == pytest.approx(16)
    assert amplitude.sum() == pytest.approx(16)


def test_frames_are_the_forward_model_with_the_noise_of_their_photons(scan):
    """Var sqrt(Poisson) is at most about 1/4 per pixel, so the squared misfit is at most about 1/4
    N^2 per frame.
    """
    model = modelled(scan, scan.x, scan.y)
    misfit = ((model - scan.frames) ** 2).sum(axis=(1, 2)).mean() / scan.frame_size**2

    assert 0.01 < misfit < 0.3
    # Relative to the signal: sqrt(misfit N^2 / photons) of 0.05 at most for 1e5 photons.
    assert np.sqrt(((model - scan.frames) ** 2).sum() / (np.asarray(scan.frames) ** 2).sum()) < 0.06
    assert scan.energies().mean() == pytest.approx(1e5, rel=0.1)


def test_neighbours_do_not_fit_each_other(scan):
    """The check above has teeth: one step aside it fails."""
    model = modelled(scan, np.roll(scan.x, 1), np.roll(scan.y, 1))

    assert np.sqrt(((model - scan.frames) ** 2).sum() / (np.asarray(scan.frames) ** 2).sum()) > 0.15


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(tmp_path / f"{name}.npz", frame_count=10, frame_size=16, seed=seed)

    first, again, other = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize("frame_count", [1, 2, 127, 128, 129])
def test_any_number_of_frames_is_written_and_opens(tmp_path, frame_count):
    simulate(tmp_path / "scan.npz", frame_count=frame_count, frame_size=8)

    assert Scan.open(tmp_path / "scan.npz").frame_count == frame_count
    assert [tmp_path / "scan.npz"] == list(tmp_path.iterdir())


def test_a_subset_is_the_first_frames(tmp_path, scan):
    subset(scan, tmp_path / "part.npz", 7)
    part = Scan.open(tmp_path / "part.npz")

    np.testing.assert_array_equal(scan.frames[:7], part.frames)
    np.testing.assert_array_equal(scan.x[:7], part.x)
    np.testing.assert_array_equal(scan.object, part.object)


@pytest.mark.parametrize(
    ("frame_count", "words"),
    [(0, "it must be at least 1"), (101, ".* has 1 to 100"), (2.0, "a whole number")],
)
def test_a_subset_larger_than_the_scan_is_refused(tmp_path, scan, frame_count, words):
    with pytest.raises(ContainerError, match=f"frame_count is {frame_count}; {words}"):
        subset(scan, tmp_path / "part.npz", frame_count)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"frame_count": 0}, "frame_count is 0"),
        ({"frame_size": 15}, "frame_size is 15"),
        ({"frame_size": 6}, "frame_size is 6"),
        ({"photons_per_frame": 0}, "photons_per_frame is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_sizes_that_make_no_scan_are_refused(tmp_path, changed, words):
    with pytest.raises(ContainerError, match=words):
        simulate(tmp_path / "scan.npz", **{"frame_count": 4, "frame_size": 16, **changed})


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path, arrays):
    path = tmp_path / "scan.npz"
    path.write_bytes(b"earlier")
    with pytest.raises(ContainerError, match="10 frames were expected and 9 were given"):
        write_scan(
            path,
            [arrays["diff3d"]],
            frame_count=10,
            x=arrays["xcoords"],
            y=arrays["ycoords"],
            probe=arrays["probeGuess"],
        )

    assert path.read_bytes() == b"earlier"
    assert [path] == list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ScanFileError, match=r"none/scan\.npz cannot be written"):
        simulate(tmp_path / "none" / "scan.npz", frame_count=4, frame_size=16)
