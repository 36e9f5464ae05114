"""Containers written and read again: every array, without pickle, without holding the images."""

import os
import tracemalloc
import warnings

import numpy as np
import pytest
import tensorflow as tf

from ptycho.containers.inputs import Arguments
from ptycho.errors import ContainerError, ScanError, ScanFileError
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.scan import Scan
from ptycho.simulate import simulate

BOTH = pytest.mark.parametrize("kind", [PtychoDataContainer, LazyPtychoDataContainer])
IMAGES = ("X", "Y_I", "Y_phi")
KEYS = (
    "intensity_scale",
    *IMAGES,
    "norm_Y_I",
    "YY_full",
    "coords_nominal",
    "coords_true",
    "nn_indices",
    "global_offsets",
    "local_offsets",
    "probe",
)


@pytest.fixture
def given():
    generator = np.random.default_rng(0)
    images, coords = (20, 16, 16, 4), (20, 1, 2, 4)
    return Arguments(
        X=generator.random(images, np.float32),
        Y_I=generator.random(images, np.float32),
        Y_phi=generator.random(images, np.float32),
        norm_Y_I=3.0,
        YY_full=None,
        coords_nominal=generator.random(coords, np.float32),
        coords_true=generator.random(coords, np.float32),
        nn_indices=None,
        global_offsets=None,
        local_offsets=generator.random(coords),
        probeGuess=(1j * generator.random((16, 16))).astype(np.complex64),
    )


def read(container, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(container, name)


@BOTH
def test_what_is_written_is_read_again(kind, scan, tmp_path):
    """A container of a scan, every attribute bit for bit, by numpy and by from_npz."""
    container = kind.from_scan(scan, image_count=30, nphotons=1e6)
    container.to_npz(tmp_path / "groups.npz")
    again = kind.from_npz(tmp_path / "groups.npz")
    with np.load(tmp_path / "groups.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == sorted(KEYS)
        for key in KEYS:
            expected = read(container, key)
            np.testing.assert_array_equal(expected, archive[key], err_msg=key)
            np.testing.assert_array_equal(expected, read(again, key), err_msg=key)
    assert isinstance(again.norm_Y_I, float)
    assert again.intensity_scale == container.intensity_scale == 1e3 / 16
    for here, there in zip(container.as_dataset(7), again.as_dataset(7), strict=True):
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_array_equal(here[1], there[1])


@BOTH
def test_none_is_left_out_and_is_none_again(kind, given, tmp_path):
    """numpy would have pickled it; the suffix is added as numpy does it."""
    kind(*given).to_npz(tmp_path / "groups")
    again = kind.from_npz(tmp_path / "groups.npz")
    with np.load(tmp_path / "groups.npz", allow_pickle=False) as archive:
        assert set(archive.files) == set(KEYS) - {"YY_full", "nn_indices", "global_offsets"}

    assert again.YY_full is again.nn_indices is again.global_offsets is None
    np.testing.assert_array_equal(given.local_offsets, again.local_offsets)


@BOTH
def test_what_was_assigned_is_written(kind, given, tmp_path):
    container = kind(*given)
    container.probe, container.norm_Y_I = tf.constant(2 * given.probeGuess), 5.0
    container.to_npz(tmp_path / "groups.npz")
    again = kind.from_npz(tmp_path / "groups.npz")

    np.testing.assert_array_equal(2 * given.probeGuess, again.probe)
    assert again.norm_Y_I == 5


@BOTH
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_of_ptychopinn_are_read(kind, given, tmp_path, save):
    """It pickles what is None; that is known without unpickling. A compressed file is unpacked
    once, into the cache.
    """
    arrays = {**given._asdict(), "probe": given.probeGuess, "norm_Y_I": np.float32(3)}
    del arrays["probeGuess"]
    save(tmp_path / "theirs.npz", **arrays)
    container = kind.from_npz(tmp_path / "theirs.npz", cache_dir=tmp_path / "cache")

    assert container.YY_full is container.nn_indices is None
    for name in IMAGES:
        np.testing.assert_array_equal(getattr(given, name), read(container, name))
    assert (tmp_path / "cache").exists() == (save is np.savez_compressed)


def test_a_lazy_container_is_written_and_read_without_its_images(tmp_path):
    """2,000 groups of 64 KiB, 375 MiB in the file, with less than 8 MiB held."""
    simulate(tmp_path / "scan.npz", frame_count=100, frame_size=64)
    container = LazyPtychoDataContainer.from_scan(
        Scan.open(tmp_path / "scan.npz"), image_count=2000
    )
    tracemalloc.start()
    container.to_npz(tmp_path / "groups.npz")
    again = LazyPtychoDataContainer.from_npz(tmp_path / "groups.npz")
    for _ in again.as_dataset(64):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (tmp_path / "groups.npz").stat().st_size > 3 * 2000 * 64 * 64 * 4 * 4
    assert 1 << 20 <= peak_bytes < 8 << 20


def test_a_file_that_changed_is_refused(given, tmp_path):
    path = tmp_path / "groups.npz"
    LazyPtychoDataContainer(*given).to_npz(path)
    container = LazyPtychoDataContainer.from_npz(path)
    os.utime(path, ns=(1, 1))
    for use in (lambda: container.as_dataset(4), lambda: container.to_npz(tmp_path / "again.npz")):
        with pytest.raises(ScanFileError, match="changed after it was opened"):
            use()

    assert [entry.name for entry in tmp_path.iterdir()] == ["groups.npz"]


@BOTH
def test_what_cannot_be_written_leaves_what_was_there(kind, given, tmp_path):
    """An attribute that is no array of numbers; and a folder in the way."""
    container = kind(*given)
    container.to_npz(tmp_path / "groups.npz")
    before = (tmp_path / "groups.npz").read_bytes()
    container.YY_full = object()
    with pytest.raises(ContainerError, match="YY_full is object, not an array of numbers"):
        container.to_npz(tmp_path / "groups.npz")
    (tmp_path / "folder.npz").mkdir()
    container.YY_full = None
    with pytest.raises(ScanFileError, match="not a regular file"):
        container.to_npz(tmp_path / "folder.npz")

    assert (tmp_path / "groups.npz").read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.npz", "groups.npz"]


def test_the_same_container_gives_the_same_bytes(given, tmp_path):
    for kind, name in ((PtychoDataContainer, "eager.npz"), (LazyPtychoDataContainer, "lazy.npz")):
        kind(*given).to_npz(tmp_path / name)

    assert (tmp_path / "eager.npz").read_bytes() == (tmp_path / "lazy.npz").read_bytes()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"X": None}, "lacks X; it has Y_I"),
        ({"probe": None, "norm_Y_I": None}, "lacks norm_Y_I, probe"),
        (
            {"X": np.ones((20, 16, 16), np.float32)},
            r"X is float32 \(20, 16, 16\); real \(groups, N, N, channels\)",
        ),
        ({"Y_I": np.ones((20, 16, 16, 4), np.complex64)}, "Y_I is complex64"),
        ({"X": np.asfortranarray(np.ones((20, 16, 16, 4), np.float32))}, "in Fortran order"),
        ({"X": np.array([None] * 4)}, "X holds Python objects, which are never unpickled"),
        ({"nn_indices": np.array([None] * 20)}, "nn_indices holds Python objects"),
        ({"coords_true": np.ones((20, 1, 2, 3), np.float32)}, "coords_true has shape"),
        ({"Y_I": np.ones((19, 16, 16, 4), np.float32)}, "Y_I has shape"),
    ],
)
def test_files_that_hold_something_else_are_refused(given, tmp_path, changed, words):
    arrays = {**given._asdict(), "probe": given.probeGuess, **changed}
    del arrays["probeGuess"]
    arrays = {
        key: values for key, values in arrays.items() if not (key in changed and values is None)
    }
    np.savez(tmp_path / "groups.npz", **arrays)
    with pytest.raises((ScanError, ContainerError), match=words):
        LazyPtychoDataContainer.from_npz(tmp_path / "groups.npz")


def test_paths_that_are_no_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no zip")
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none.npz", "does not exist")):
        with pytest.raises(ScanFileError, match=words):
            LazyPtychoDataContainer.from_npz(path)
    with pytest.raises(ScanError, match="is not a zip file"):
        LazyPtychoDataContainer.from_npz(tmp_path / "text.npz")
