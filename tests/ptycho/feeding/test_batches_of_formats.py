"""Batches of scans that are no NPZ: TensorFlow's threads read them through h5py, converted on the
way.
"""

import os

import h5py
import numpy as np
import pytest
import tensorflow as tf

from ptycho.errors import ContainerError
from ptycho.files.stacks import normalization
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.scan import Scan

SETTINGS = {"frames": "/frames", "positions": "/positions", "intensity": True, "dc": "corner"}


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(20, (60, 16, 16)).astype(np.uint16)


@pytest.fixture
def path(tmp_path, counts):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset(
            "/frames", data=counts, chunks=(7, 4, 16), compression="gzip", fletcher32=True
        )
        file["/positions"] = np.random.default_rng(1).uniform(0, 30, (60, 2))
    return tmp_path / "scan.h5"


@pytest.mark.parametrize("repack", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_converted_frames(path, counts, tmp_path, repack, shuffle):
    """Two datasets side by side, two epochs: every image is the scaled amplitude of its frames."""
    scan = Scan.open(
        path,
        probe=np.ones((16, 16), complex),
        cache_dir=tmp_path / "cache",
        repack=repack,
        **SETTINGS,
    )
    container = LazyPtychoDataContainer.from_scan(scan, image_count=60)
    amplitude = np.fft.fftshift(np.sqrt(counts), axes=(1, 2)).astype(np.float32)
    scale = np.float32(normalization(scan.energies(), container.nn_indices, 16))
    expected = np.moveaxis(amplitude[container.nn_indices] * scale, 1, 3)
    pair = tf.data.Dataset.zip(
        container.as_dataset(8, shuffle=shuffle, seed=1),
        container.as_dataset(8, shuffle=shuffle, seed=1),
    )
    for _ in range(2):
        pairs = [(first.numpy(), second.numpy()) for (first, _), (second, _) in pair]
        for batches in zip(*pairs, strict=True):
            # A shuffled epoch has the same images in another order; no two begin alike.
            found, wanted = (
                images[np.lexsort(images[:, 3, :3, 0].T)]
                for images in (np.concatenate(batches), expected)
            )
            np.testing.assert_array_equal(wanted, found)


def test_the_eager_container_is_made_of_the_same_frames(path, tmp_path):
    scan = Scan.open(
        path, probe=np.ones((16, 16), complex), cache_dir=tmp_path / "cache", **SETTINGS
    )
    eager, lazy = (
        kind.from_scan(scan, image_count=60)
        for kind in (PtychoDataContainer, LazyPtychoDataContainer)
    )

    np.testing.assert_array_equal(
        eager.X, np.concatenate([images for images, _ in lazy.as_dataset(16)])
    )


def test_a_scan_without_probe_is_no_container(path, tmp_path):
    scan = Scan.open(path, cache_dir=tmp_path / "cache", **SETTINGS)
    with pytest.raises(
        ContainerError, match=r"probeGuess is None; an array of shape \(16, 16\) is needed"
    ):
        LazyPtychoDataContainer.from_scan(scan, image_count=60)


def test_damage_found_in_an_epoch_is_told_in_the_same_words(path, tmp_path):
    """The energies were kept, so nothing was read before: the chunk is named by the batch that
    needs it.
    """
    scan = Scan.open(
        path, probe=np.ones((16, 16), complex), cache_dir=tmp_path / "cache", **SETTINGS
    )
    scan.energies()
    with h5py.File(path) as file:
        chunk = file["/frames"].id.get_chunk_info_by_coord((14, 0, 0))
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + 10)
        file.write(bytes(20))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    scan = Scan.open(
        path, probe=np.ones((16, 16), complex), cache_dir=tmp_path / "cache", **SETTINGS
    )
    container = LazyPtychoDataContainer.from_scan(scan, image_count=60, gridsize=1)
    with pytest.raises(
        tf.errors.OpError, match=r"/frames, frame \d+ cannot be read .*; the file is damaged"
    ):
        for _ in container.as_dataset(8):
            pass
