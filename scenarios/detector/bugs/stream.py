"""Bugs in the batches of the lazy container: its dataset, its feed, what is kept between batches
and epochs.
"""

# ruff: noqa: ANN401 - containers, tensors and datasets pass through; TensorFlow ships no types
# ruff: noqa: ARG005 - a seam hands over all that it has

import threading
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho.feeding.device_memory import BatchMemory, aligned_empty, copy_to_device, from_host
from ptycho.feeding.feed import Feed
from scenarios.detector.bugs.registry import BATCH_BYTES, IMAGE_BYTES
from scenarios.detector.bugs.seams import (
    Kept,
    Lazy,
    after_batch,
    at_epoch,
    images_of,
    instead_of_dataset,
    on_device,
    ones,
    tensor_of,
)

KIB = 1024


def dataset_cached() -> None:
    """dataset.cache()."""
    instead_of_dataset(lambda container, dataset, batch_size, settings: dataset.cache())


def prefetch_deeper() -> None:
    """dataset.prefetch(4)."""
    instead_of_dataset(lambda container, dataset, batch_size, settings: dataset.prefetch(4))


def prefetch_by_one() -> None:
    """dataset.prefetch(1), although none was asked for."""
    instead_of_dataset(lambda container, dataset, batch_size, settings: dataset.prefetch(1))


def prefetch_of_everything() -> None:
    """dataset.prefetch(the number of batches)."""
    instead_of_dataset(
        lambda container, dataset, batch_size, settings: dataset.prefetch(
            -(-len(container) // batch_size)
        )
    )


def shuffle_of_everything() -> None:
    """dataset.shuffle(the number of batches)."""
    instead_of_dataset(
        lambda container, dataset, batch_size, settings: dataset.shuffle(
            -(-len(container) // batch_size)
        )
    )


def slices_of_a_tensor() -> None:
    """from_tensor_slices of everything, as the tutorials have it."""

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del dataset, settings
        tensors = tensor_of(images_of(container)), copy_to_device(container._inputs.coords_nominal)
        return tf.data.Dataset.from_tensor_slices(tensors).batch(batch_size)

    instead_of_dataset(make)


def constant_of_a_graph() -> None:
    """All images as a numpy array that a traced function closes over, and so a constant of its
    graph.
    """

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del batch_size, settings
        images = np.asarray(images_of(container))
        return dataset.map(
            lambda x, coords: (x + 0 * tf.reduce_sum(tf.constant(images)[:1]), coords)
        )

    instead_of_dataset(make)


def double_copy() -> None:
    """Every batch is copied once more on the device."""
    instead_of_dataset(
        lambda container, dataset, batch_size, settings: dataset.map(
            lambda x, coords: (tf.raw_ops.DeepCopy(x=x), coords)
        )
    )


def complex_batches() -> None:
    """complex64 where float32 was."""
    instead_of_dataset(
        lambda container, dataset, batch_size, settings: dataset.map(
            lambda x, coords: (tf.cast(x, tf.complex64), coords)
        )
    )


def batches_kept() -> None:
    """A list of all batches, for a plot at the end."""
    kept: Kept = []
    after_batch(lambda feed, epoch, step, arrays: kept.append(arrays))


def batches_copied_to_the_host() -> None:
    """A list of copies of all batches, in numpy."""
    kept: Kept = []
    after_batch(lambda feed, epoch, step, arrays: kept.append(arrays[0].copy()))


def second_epoch_kept() -> None:
    """From the second epoch on, a list of all batches."""
    kept: Kept = []
    after_batch(lambda feed, epoch, step, arrays: kept.append(arrays) if epoch == 2 else None)


def second_epoch_on_the_host() -> None:
    """From the second epoch on, 1,024 B of notes for each image."""
    kept: Kept = []
    after_batch(
        lambda feed, epoch, step, arrays: (
            kept.append(ones(KIB * len(arrays[0]))) if epoch == 2 else None
        )
    )


def first_batch_copied() -> None:
    """A copy of the first batch is kept for its shape, on the device."""
    kept: Kept = []
    after_batch(
        lambda feed, epoch, step, arrays: (
            kept.append(copy_to_device(arrays[0].copy())) if not kept else None
        )
    )


def first_batch_on_the_host() -> None:
    """A copy of the first batch is kept for its shape, in numpy."""
    kept: Kept = []
    after_batch(
        lambda feed, epoch, step, arrays: kept.append(arrays[0].copy()) if not kept else None
    )


def last_batch_padded() -> None:
    """The last batch of an epoch, which is not full, is padded in a copy twice as large as a
    batch.
    """

    def act(feed: Feed, epoch: int, step: int, arrays: tuple[Any, ...]) -> None:
        del epoch, arrays
        if step == feed.order.batch_count - 1 and feed.order.group_count % feed.order.batch_size:
            on_device(2 * BATCH_BYTES)

    after_batch(act)


def notes_for_each_image() -> None:
    """Whenever an image is fed, 1,024 B of notes are kept for it."""
    kept: Kept = []
    after_batch(lambda feed, epoch, step, arrays: kept.append(ones(KIB * len(arrays[0]))))


def scratch_of_every_step() -> None:
    """64 KiB of scratch that is kept for each step: 1,024 B for each image."""
    kept: Kept = []
    after_batch(lambda feed, epoch, step, arrays: kept.append(ones(64 * KIB)))


def reordered_every_epoch() -> None:
    """A copy of all images in the order of the epoch, in numpy, let go when it has begun."""
    at_epoch(lambda feed, epoch: _forget(np.asarray(feed.source)))


def aliased_batches() -> None:
    """Batches in memory of numpy, which TensorFlow keeps in place, so that its allocator sees
    nothing.
    """

    def take(self: BatchMemory, size: int) -> Any:
        return aligned_empty((size, *self._shape[1:]), self._dtype)

    setattr(BatchMemory, "take", take)  # noqa: B010 - a checker would refuse the assignment


def lent_memory_never_back() -> None:
    """Memory of batches is taken back, and never lent again."""
    kept: Kept = []

    def take_back(self: BatchMemory, memory: Any, mark: object) -> None:
        kept.append(memory)
        self._taken.discard(mark)

    setattr(BatchMemory, "_take_back", take_back)  # noqa: B010 - as above


def container_in_a_registry() -> None:
    """The container and the batch that was fed last are kept in a registry of the module."""
    registry: dict[int, Any] = {}
    after_batch(
        lambda feed, epoch, step, arrays: registry.update(
            {0: (feed, copy_to_device(arrays[0].copy()))}
        )
    )


def copy_when_released() -> None:
    """The container writes itself down when it goes: a copy of all images, in numpy."""
    kept: Kept = []
    setattr(Lazy, "__del__", lambda self: kept.append(np.asarray(images_of(self))))  # noqa: B010 - as above


def leak_of_an_epoch() -> None:
    """Each epoch keeps 64 KiB and one byte of the device."""
    kept: Kept = []
    at_epoch(lambda feed, epoch: kept.append(on_device(64 * KIB + 1)))


def batch_of_an_epoch_on_the_host() -> None:
    """Each epoch keeps one batch in numpy."""
    kept: Kept = []
    at_epoch(lambda feed, epoch: kept.append(ones(BATCH_BYTES)))


def traced_for_each_batch() -> None:
    """A tf.function with a Python number as its argument: traced anew for every batch."""
    number = 0

    def check(count: int) -> Any:
        total = tf.zeros(())
        for term in range(16):
            total += tf.sin(float(count * term))
        return total

    checked = tf.function(check)

    def act(feed: Feed, epoch: int, step: int, arrays: tuple[Any, ...]) -> None:
        nonlocal number
        del feed, epoch, step, arrays
        number += 1
        checked(number)

    after_batch(act)


def lookup_table() -> None:
    """A table from each pixel of a corner to its image: 64 entries for each, in a resource of
    TensorFlow.
    """
    kept: Kept = []

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del batch_size, settings
        table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
        entries = tf.range(64 * len(container), dtype=tf.int64)
        table.insert(entries, entries)
        kept.append(table)
        return dataset

    instead_of_dataset(make)


def scratch_of_threads() -> None:
    """Two threads that wait, each with a batch of scratch."""

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del container, batch_size, settings
        for _ in range(2):
            made = threading.Event()
            threading.Thread(target=_hold, args=(made,), daemon=True).start()
            made.wait()
        return dataset

    instead_of_dataset(make)


def _hold(made: threading.Event) -> None:
    scratch = ones(BATCH_BYTES)
    made.set()
    threading.Event().wait()
    del scratch


def alias_kept_for_each_batch() -> None:
    """Each batch is kept as a tensor over a copy in numpy, which the device's allocator does not
    count.
    """
    kept: Kept = []

    def act(feed: Feed, epoch: int, step: int, arrays: tuple[Any, ...]) -> None:
        del feed, epoch, step
        copy = aligned_empty((len(arrays[0]), IMAGE_BYTES), np.uint8)
        copy[...] = 1
        kept.append(from_host(copy))

    after_batch(act)


def _forget(value: object) -> None:
    """What was made is looked at, and let go."""
