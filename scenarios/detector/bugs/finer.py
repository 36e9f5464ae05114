"""Bugs that stay below the limits of a single phase, or are in what only feeds, training, inference
or lifetimes do.
"""

# ruff: noqa: ANN401 - containers, tensors and datasets pass through; TensorFlow ships no types
# ruff: noqa: ARG005 - a seam hands over all that it has

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho import model, reconstruct
from ptycho.feeding import pipeline
from ptycho.files.hdf5 import ChunkedFrames
from ptycho.files.stacks import MappedFrames
from scenarios.detector.bugs.registry import BATCH_BYTES, RECORD_BYTES, SINGLE_RECORD_BYTES
from scenarios.detector.bugs.seams import (
    Kept,
    after_batch,
    after_construction,
    after_opening,
    at_epoch,
    instead_of_dataset,
    on_device,
    ones,
)

KIB = 1024
_CACHED_CHUNKS = 64
_FRAMES_OF_A_CHUNK = 4


def cache_shared_by_two_phases() -> None:
    """A cache of one batch in numpy, of which two epochs fill one half each."""
    kept: Kept = []
    at_epoch(lambda feed, epoch: kept.append(ones(BATCH_BYTES // 2)) if epoch < 2 else None)


def a_little_in_each_phase() -> None:
    """Something is kept in numpy wherever there is an occasion, nowhere much of it."""
    kept: Kept = []
    after_opening(lambda scan: kept.append(ones(352 * KIB)))
    after_construction(lambda container: kept.append(ones(352 * KIB)))
    at_epoch(lambda feed, epoch: kept.append(ones((2250, 2550, 600)[min(epoch, 2)] * KIB)))


def little_of_every_epoch() -> None:
    """Each epoch keeps 900 KiB, in numpy."""
    kept: Kept = []
    at_epoch(lambda feed, epoch: kept.append(ones(900 * KIB)))


def file_read_through_the_map() -> None:
    """The pass over the frames reads the map, and so maps the whole file, instead of going through
    a buffer.
    """

    def chunks(self: Any, chunk_bytes: int = 1 << 20) -> Iterator[tuple[int, Any]]:
        step = max(1, chunk_bytes // self.frame_bytes)
        for start in range(0, len(self), step):
            yield start, self._map[start : start + step]

    setattr(MappedFrames, "chunks", chunks)  # noqa: B010 - a checker would refuse the assignment


def cache_of_chunks() -> None:
    """The last 64 unpacked chunks of an HDF5 file are kept, as if h5py had no cache."""
    original = ChunkedFrames.take
    cache: OrderedDict[int, Any] = OrderedDict()

    def take(self: Any, frames: Any, out: Any) -> None:
        original(self, frames, out)
        for row, frame in enumerate(frames.tolist()):
            cache[frame // _FRAMES_OF_A_CHUNK] = np.repeat(
                out[row : row + 1], _FRAMES_OF_A_CHUNK, axis=0
            )
            if len(cache) > _CACHED_CHUNKS:
                cache.popitem(last=False)

    setattr(ChunkedFrames, "take", take)  # noqa: B010 - as above


def table_of_frames() -> None:
    """The first batch of an HDF5 file makes a record of each of its frames."""
    original = ChunkedFrames.take
    kept: Kept = []

    def take(self: Any, frames: Any, out: Any) -> None:
        if not kept:
            kept.append(
                [{"frame": number, "chunk": (number, number + 1)} for number in range(len(self))]
            )
        original(self, frames, out)

    setattr(ChunkedFrames, "take", take)  # noqa: B010 - as above


def notes_with_targets() -> None:
    """Notes are kept for each image that is fed with its ground truth."""
    kept: Kept = []

    after_batch(
        lambda feed, epoch, step, arrays: (
            kept.append(ones(RECORD_BYTES * len(arrays[0]))) if feed.amplitude is not None else None
        )
    )


def notes_of_a_training() -> None:
    """The same, where a network is trained on them."""
    notes_with_targets()


def records_of_single_frames() -> None:
    """A record for each group, where groups are single frames."""
    kept: Kept = []

    def act(container: Any) -> None:
        if container._inputs.images.shape[3] == 1:
            kept.append([ones(SINGLE_RECORD_BYTES) for _ in range(len(container))])

    after_construction(act)


def truth_of_all_images() -> None:
    """Datasets with targets are made of all ground truth in numpy, between two phases."""
    kept: Kept = []

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del batch_size
        if settings.get("targets"):
            kept.append(np.asarray(container._inputs.amplitude))
        return dataset

    instead_of_dataset(make)


def canvas_on_the_device() -> None:
    """A reconstruction has a canvas of 1.5 MiB on the device, besides the one in numpy."""
    original = reconstruct._predictions

    def predictions(*arguments: Any) -> Iterator[Any]:
        canvas = on_device(1536 * KIB)
        yield from original(*arguments)
        del canvas

    setattr(reconstruct, "_predictions", predictions)  # noqa: B010 - as above


def transforms_padded() -> None:
    """The far field is transformed on eight times as many pixels to a side, and cut."""

    def to_far_field(waves: Any) -> Any:
        size = int(waves.shape[-1])
        border = 8 * size - size
        padded = tf.pad(waves, [[0, 0], [0, 0], [0, border], [0, border]])
        return tf.signal.fft2d(padded)[..., :size, :size] / size

    setattr(model, "_to_far_field", to_far_field)  # noqa: B010 - as above


def strong_reference() -> None:
    """What TensorFlow keeps of a dataset for the life of the process holds its source strongly."""
    setattr(pipeline, "weak_method", lambda method: method)  # noqa: B010 - as above


def strong_reference_to_arrays() -> None:
    """The same, where the source is the arrays of a container."""
    strong_reference()


def note_of_every_dataset() -> None:
    """Each dataset leaves 64 KiB behind, in numpy."""
    kept: Kept = []

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del container, batch_size, settings
        kept.append(ones(64 * KIB))
        return dataset

    instead_of_dataset(make)


def batch_of_an_iterator_left() -> None:
    """The batch that is out stays in a table until its epoch ends; an iterator that is left
    half-way never takes it out.
    """
    out: dict[int, Any] = {}

    def act(feed: Any, epoch: int, step: int, arrays: tuple[Any, ...]) -> None:
        del epoch
        out[id(feed)] = (feed, arrays)
        if step == feed.order.batch_count - 1:
            del out[id(feed)]

    after_batch(act)
