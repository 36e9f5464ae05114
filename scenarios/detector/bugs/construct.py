"""Bugs in the constructor of the lazy container, and in opening a scan."""

# ruff: noqa: ANN401 - containers, tensors and datasets pass through; TensorFlow ships no types

import mmap
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

import ptycho.feeding.grouping
from ptycho.containers import inputs
from ptycho.containers.eager import combine
from ptycho.feeding.device_memory import aligned_empty, copy_to_device, from_host
from ptycho.scan import Scan
from scenarios.detector.bugs.registry import BATCH_BYTES
from scenarios.detector.bugs.seams import (
    Kept,
    after_construction,
    after_opening,
    filled,
    images_of,
    on_device,
    ones,
    tensor_of,
)

_COORDINATES = (1, 2, 4)


def full_tensor_kept() -> None:
    """self._X = every image, on the device."""
    kept: Kept = []
    after_construction(lambda container: kept.append(tensor_of(images_of(container))))


def full_tensor_freed() -> None:
    """A mean over all images, on the device."""
    after_construction(lambda container: _forget(tf.reduce_mean(tensor_of(images_of(container)))))


def full_array_kept() -> None:
    """self._X = np.asarray(X)."""
    kept: Kept = []
    after_construction(lambda container: kept.append(np.asarray(images_of(container))))


def full_array_freed() -> None:
    """np.asarray(X).mean()."""
    after_construction(lambda container: _forget(np.asarray(images_of(container)).mean()))


def one_channel_kept() -> None:
    """A preview: the first of four channels, on the device."""
    kept: Kept = []
    after_construction(
        lambda container: kept.append(tensor_of(images_of(container).first_channel()))
    )


def half_precision_kept() -> None:
    """A cache that saves half by float16."""
    kept: Kept = []

    def act(container: Any) -> None:
        source = images_of(container)
        kept.append(filled(source, np.empty(source.shape, np.float16)))

    after_construction(act)


def imported_tensor_kept() -> None:
    """A tensor made of numpy memory by dlpack, which no allocator of TensorFlow counts."""
    kept: Kept = []

    def act(container: Any) -> None:
        source = images_of(container)
        kept.append(from_host(filled(source, aligned_empty(source.shape, np.float32))))

    after_construction(act)


def variable_kept() -> None:
    """The images as a tf.Variable."""
    kept: Kept = []
    after_construction(
        lambda container: kept.append(tf.Variable(tensor_of(images_of(container)), trainable=False))
    )


def truth_kept() -> None:
    """The complex ground truth, worked out at construction as the eager container does."""
    kept: Kept = []
    after_construction(
        lambda container: kept.append(
            combine(tensor_of(container._inputs.amplitude), tensor_of(container._inputs.phase))
        )
    )


def shared_memory_kept() -> None:
    """A copy in shared memory, for workers that never came."""
    kept: Kept = []

    def act(container: Any) -> None:
        source = images_of(container)
        shared = np.frombuffer(mmap.mmap(-1, source.nbytes), np.float32).reshape(source.shape)
        kept.append(filled(source, shared))

    after_construction(act)


def private_mapping_kept() -> None:
    """The file mapped copy-on-write and scaled in place, frame by frame."""
    kept: Kept = []

    def act(scan: Scan) -> None:
        file = scan.frames_file
        assert file is not None  # noqa: S101 - the simulated scan lies in a file
        mapped = np.memmap(file.path, file.dtype, "c", file.offset_bytes, file.shape)
        mapped *= mapped.dtype.type(0.5)
        kept.append(mapped)

    after_opening(act)


def records_of_groups() -> None:
    """A list with a dictionary for every group, for a progress display."""
    kept: Kept = []

    def act(container: Any) -> None:
        coords = container._inputs.coords_nominal
        kept.append(
            [
                {
                    "frames": row.tolist(),
                    "x": xy[0, 0].tolist(),
                    "y": xy[0, 1].tolist(),
                    "weights": [float(v) for v in xy.ravel()],
                }
                for row, xy in zip(container.nn_indices, coords, strict=True)
            ]
        )

    after_construction(act)


def _copies_of_coordinates(count: int) -> None:
    kept: Kept = []

    def act(container: Any) -> None:
        coords = container._inputs.coords_nominal.astype(np.float64)
        kept.extend(copy_to_device(coords) for _ in range(count))

    after_construction(act)


def coordinates_at_the_limit() -> None:
    """Eight copies of the coordinates as float64 on the device: 512 B for each image, which the
    slope allows.
    """
    _copies_of_coordinates(8)


def coordinates_above_the_bar() -> None:
    """Sixteen copies of the coordinates as float64 on the device: 1,024 B for each image."""
    _copies_of_coordinates(16)


def half_a_coordinate() -> None:
    """One more copy of the coordinates as float32."""
    kept: Kept = []
    after_construction(
        lambda container: kept.append(copy_to_device(container._inputs.coords_nominal))
    )


def coordinates_on_the_host() -> None:
    """Sixteen copies of the coordinates as float64 in numpy: 1,024 B for each image."""
    kept: Kept = []

    def act(container: Any) -> None:
        kept.extend(container._inputs.coords_nominal.astype(np.float64) for _ in range(16))

    after_construction(act)


def distances_of_all_pairs() -> None:
    """Neighbours found in a matrix of all distances."""
    original = ptycho.feeding.grouping.group

    def group(*arguments: Any, **named: Any) -> Any:
        groups = original(*arguments, **named)
        x, y = (
            groups.offsets[:, 0, 0, 0].astype(np.float64),
            groups.offsets[:, 0, 1, 0].astype(np.float64),
        )
        _forget(np.hypot(x[:, None] - x, y[:, None] - y).argmin(axis=1))
        return groups

    setattr(inputs, "group", group)  # noqa: B010 - a checker would refuse the assignment


def _constant(size_bytes: int, *, device: bool, least: int = 0, most: int = 1 << 30) -> None:
    kept: Kept = []

    def act(container: Any) -> None:
        if least <= len(container) <= most:
            kept.append(on_device(size_bytes) if device else ones(size_bytes))

    after_construction(act)


def two_batches_reserved() -> None:
    """Buffers for two batches, made at construction and never used."""
    _constant(2 * BATCH_BYTES, device=True)


def one_batch_reserved() -> None:
    """A buffer for one batch, on the device."""
    _constant(BATCH_BYTES, device=True)


def one_batch_on_the_host() -> None:
    """A buffer for one batch, in numpy."""
    _constant(BATCH_BYTES, device=False)


def tenth_of_a_batch() -> None:
    """A table of a tenth of a batch, on the device."""
    _constant(BATCH_BYTES // 10, device=True)


def tenth_of_a_batch_on_the_host() -> None:
    """A table of a tenth of a batch, in numpy."""
    _constant(BATCH_BYTES // 10, device=False)


def only_large_scans() -> None:
    """A buffer for one batch on the device, for 2,000 images and more."""
    _constant(BATCH_BYTES, device=True, least=2000)


def only_large_scans_on_the_host() -> None:
    """A buffer for one batch in numpy, for 2,000 images and more."""
    _constant(BATCH_BYTES, device=False, least=2000)


def only_small_scans() -> None:
    """Scans of up to 100 images are small, so they are kept: 1.6 batches in numpy."""
    kept: Kept = []

    def act(container: Any) -> None:
        if len(container) <= 100:
            kept.append(np.asarray(images_of(container)))

    after_construction(act)


def stack_on_the_device() -> None:
    """All frames of the scan as a tensor."""
    kept: Kept = []
    after_opening(lambda scan: kept.append(copy_to_device(np.asarray(scan.frames))))


def stack_read_whole() -> None:
    """np.load instead of a memory map."""
    kept: Kept = []
    after_opening(lambda scan: kept.append(np.asarray(scan.frames)))


def stack_as_halves() -> None:
    """All frames of the scan, kept as float16."""
    kept: Kept = []

    def act(scan: Scan) -> None:
        halves = np.empty(scan.frames.shape, np.float16)
        for start, chunk in scan.frames.chunks():
            halves[start : start + len(chunk)] = chunk
        kept.append(halves)

    after_opening(act)


def positions_kept_often() -> None:
    """Sixteen more copies of x and y: 256 B for each frame of the stack."""
    kept: Kept = []
    after_opening(lambda scan: kept.extend(axis.copy() for axis in (scan.x, scan.y) * 16))


def tensor_of_the_module() -> None:
    """A constant of a module, on the device before anything is measured."""
    globals()["_CONSTANT"] = on_device(BATCH_BYTES)


def array_of_the_module() -> None:
    """A table of a module, in numpy before anything is measured: 16 batches."""
    globals()["_TABLE"] = ones(16 * BATCH_BYTES)


def copy_in_a_mapped_file() -> None:
    """All images written to a temporary file, and mapped from there."""
    kept: Kept = []

    def act(container: Any) -> None:
        source = images_of(container)
        with tempfile.TemporaryFile(dir=os.environ.get("PLANTED_FOLDER")) as file:
            file.truncate(source.nbytes)
            kept.append(filled(source, np.memmap(file, np.float32, "r+", 0, source.shape)))

    after_construction(act)


def copy_in_a_memory_file() -> None:
    """All images written to a file in memory (memfd, as under /dev/shm), which nobody maps."""
    kept: Kept = []

    def act(container: Any) -> None:
        source = images_of(container)
        file = os.fdopen(os.memfd_create("planted"), "wb")
        part = np.empty((1, *source.shape[1:]), np.float32)
        for group in range(source.shape[0]):
            source.read(np.array([group]), part)
            file.write(part.tobytes())
        kept.append(file)

    after_construction(act)


def copy_in_another_process() -> None:
    """A helper process that holds all images."""
    kept: Kept = []

    def act(container: Any) -> None:
        hold = "import sys; held = b'1' * int(sys.argv[1]); print(flush=True); sys.stdin.read()"
        helper = subprocess.Popen(
            [sys.executable, "-c", hold, str(images_of(container).nbytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert helper.stdout is not None  # noqa: S101 - it was asked for
        helper.stdout.readline()  # it holds them now
        kept.append(helper)

    after_construction(act)


def _forget(value: object) -> None:
    """What was made is looked at, and let go."""
