"""A scan file that is not what it was when it was opened: refused wherever a pass over it
begins.
"""

import os

import numpy as np
import pytest
import tensorflow as tf

from ptycho.errors import ScanFileError
from ptycho.files import FileState
from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan
from ptycho.simulate import subset

CHANGED = r"scan\.npz changed after it was opened; open it again"
GONE = r"scan\.npz cannot be read any more \(No such file or directory\)"


def rewrite(path, arrays):
    """The same size and inode, other values, another time."""
    state = path.stat()
    arrays["diff3d"] += 1
    with path.open("r+b") as file:
        np.savez(file, **arrays)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def replace(path, arrays):
    """Another file of the same size, with the time of the first."""
    state = path.stat()
    np.savez(path.with_name("other.npz"), **arrays)
    os.utime(path.with_name("other.npz"), ns=(state.st_atime_ns, state.st_mtime_ns))
    path.with_name("other.npz").replace(path)


def lengthen(path, arrays):
    state = path.stat()
    with path.open("ab") as file:
        file.write(b"\0")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def remove(path, arrays):
    path.unlink()


CHANGES = pytest.mark.parametrize(
    ("change", "words"),
    [(rewrite, CHANGED), (replace, CHANGED), (lengthen, CHANGED), (remove, GONE)],
)


@pytest.fixture
def path(tmp_path, arrays):
    np.savez(tmp_path / "scan.npz", **arrays)
    return tmp_path / "scan.npz"


@CHANGES
def test_the_energy_pass_refuses_a_changed_file(path, arrays, change, words):
    scan = Scan.open(path)
    change(path, arrays)
    with pytest.raises(ScanFileError, match=words) as caught:
        scan.energies()

    assert "\n" not in str(caught.value)


@CHANGES
def test_nothing_is_made_of_a_changed_file(path, arrays, change, words):
    """Neither a container, nor a dataset, nor a whole tensor, nor a subset."""
    scan = Scan.open(path)
    container = LazyPtychoDataContainer.from_scan(scan, image_count=9)
    change(path, arrays)
    for attempt in (
        lambda: LazyPtychoDataContainer.from_scan(scan, image_count=9),
        lambda: container.as_dataset(4),
        lambda: container._images("X"),
        lambda: subset(scan, path.with_name("part.npz"), 4),
    ):
        with pytest.raises(ScanFileError, match=words):
            attempt()


@CHANGES
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_does_not_begin_on_a_changed_file(path, arrays, change, words, shuffle):
    """The first epoch was read; the second stops before its first batch, with the same sentence."""
    dataset = LazyPtychoDataContainer.from_scan(Scan.open(path), image_count=9).as_dataset(
        4, shuffle=shuffle
    )
    batches = sum(1 for _ in dataset)
    change(path, arrays)
    with pytest.raises(tf.errors.OpError, match=words):
        next(iter(dataset))

    assert batches == 3


def test_a_file_that_is_only_read_again_is_the_same(path):
    scan = Scan.open(path)
    path.read_bytes()
    container = LazyPtychoDataContainer.from_scan(scan, image_count=9)

    assert scan.frames_file.state == FileState.of(path.stat())
    assert [sum(1 for _ in container.as_dataset(4)) for _ in range(2)] == [3, 3]
