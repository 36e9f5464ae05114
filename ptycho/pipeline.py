"""Batches out of a stack: an order of groups, one gather per batch, tf.data around it.

What a dataset reads is kept alive by the Python dataset (and by every dataset and iterator made of it), not by TensorFlow:
``tf.numpy_function`` registers its callable in the outermost graph for the life of the process, so the callables here hold
what they read weakly. Without that, every dataset ever made would keep its frames.
"""

import itertools
import mmap
import secrets
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.errors import ContainerError
from ptycho.sources import GroupSource

_SHIFT_BYTES = 16
"""Past a multiple of 64: never aligned for TensorFlow, so it always copies the buffer and never keeps it."""
_MAX_ORDERS = 4
"""Chosen: epochs whose order is remembered; any other is drawn anew from the seed."""


class BatchOrder:
    """Which groups are in which batch of which epoch."""

    def __init__(self, group_count: int, batch_size: int, *, shuffle: bool, seed: int | None, drop_remainder: bool) -> None:
        if batch_size < 1:
            raise ContainerError(f"batch_size is {batch_size}; it is at least 1")
        if drop_remainder and batch_size > group_count:
            raise ContainerError(f"batch_size {batch_size} with drop_remainder leaves nothing of {group_count} groups")
        if seed is not None and seed < 0:
            raise ContainerError(f"seed is {seed}; it is 0 or more, or None for another order every time")
        self.group_count, self.batch_size, self.shuffle = group_count, batch_size, shuffle
        whole, rest = divmod(group_count, batch_size)
        self.batch_count = whole if drop_remainder or not rest else whole + 1
        self.static_size = batch_size if drop_remainder or not rest else None
        self._seed = secrets.randbits(64) if seed is None else seed
        self._epochs = itertools.count()
        self._orders: dict[int, npt.NDArray[np.intp]] = {}

    def next_epoch(self) -> np.int64:
        """The number of the epoch that begins now."""
        return np.int64(next(self._epochs))

    def batch(self, epoch: int, step: int) -> npt.NDArray[np.intp]:
        """(b,) group numbers of batch ``step``; the same for the same seed, epoch and step."""
        start, end = step * self.batch_size, min((step + 1) * self.batch_size, self.group_count)
        if not self.shuffle:
            return np.arange(start, end)
        order = self._orders.get(epoch)
        if order is None:
            generator = np.random.default_rng([self._seed, epoch])
            order = self._orders[epoch] = generator.permutation(self.group_count)
            for old in list(self._orders)[:-_MAX_ORDERS]:
                self._orders.pop(old, None)
        return order[start:end]


class _Feed:
    """Batches of one dataset, gathered into buffers that are used again and again."""

    def __init__(self, source: GroupSource, coords: npt.NDArray[np.float32], order: BatchOrder) -> None:
        self._source, self._coords, self._order = source, coords, order
        # Buffers that no call is using; never more than there were calls at the same time.
        self._free: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []

    def batch(self, epoch: int, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """X (b, N, N, C) and coords (b, 1, 2, C) of one batch, both float32 and good for as long as X is held."""
        groups = self._order.batch(int(epoch), int(step))
        buffer = self._free.pop() if self._free else self._new_buffer()
        images, coords = (array[: len(groups)] for array in buffer)
        # TensorFlow copies both arrays before it lets go of them, whatever thread it calls from; only then is the
        # buffer free again.
        weakref.finalize(images, self._free.append, buffer).atexit = False
        self._source.read(groups, images)
        np.take(self._coords, groups, axis=0, out=coords, mode="clip")
        return images, coords

    def _new_buffer(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        batch_size = min(self._order.batch_size, self._order.group_count)
        return (
            _mapped_empty((batch_size, *self._source.shape[1:])),
            _mapped_empty((batch_size, *self._coords.shape[1:])),
        )


def _mapped_empty(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Float32 memory of its own mapping, 16 B past a 64-byte boundary.

    Not from malloc: each of TensorFlow's threads would take it from an arena of its own, which keeps what is freed.
    """
    size_bytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    raw = np.frombuffer(mmap.mmap(-1, size_bytes + _SHIFT_BYTES), np.uint8)
    return raw[_SHIFT_BYTES:].view(np.float32).reshape(shape)


def stream(source: GroupSource, coords: npt.NDArray[np.float32], *, order: BatchOrder, prefetch: int) -> tf.data.Dataset:
    """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32), gathered on the host one at a time.

    On the device lie the batches that the consumer holds, the one being made and at most ``prefetch`` more.
    """
    _check_prefetch(prefetch)
    feed = _Feed(source, coords, order)
    read = _weakly(feed.batch)
    image_shape, coords_shape = ((order.static_size, *shape[1:]) for shape in (source.shape, coords.shape))

    def gather(epoch: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, places = tf.numpy_function(read, [epoch, step], [tf.float32, tf.float32])
        return tf.ensure_shape(images, image_shape), tf.ensure_shape(places, coords_shape)

    return _finish(_steps(order).map(gather), prefetch, keep=(feed, order))


def slice_batches(images: tf.Tensor, coords: tf.Tensor, *, order: BatchOrder, prefetch: int) -> tf.data.Dataset:
    """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32) of tensors that are already on the device."""
    _check_prefetch(prefetch)
    image_shape, coords_shape = ((order.static_size, *tensor.shape[1:]) for tensor in (images, coords))
    read = _weakly(order.batch)

    def gather(epoch: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if order.shuffle:
            groups = tf.ensure_shape(tf.numpy_function(read, [epoch, step], tf.int64), (order.static_size,))
        else:
            groups = tf.range(step * order.batch_size, tf.minimum((step + 1) * order.batch_size, order.group_count))
        return (
            tf.ensure_shape(tf.gather(images, groups), image_shape),
            tf.ensure_shape(tf.gather(coords, groups), coords_shape),
        )

    return _finish(_steps(order).map(gather), prefetch, keep=(order,))


def _check_prefetch(prefetch: int) -> None:
    if prefetch < 0:
        raise ContainerError(f"prefetch is {prefetch}; it is 0 or more batches")


def _steps(order: BatchOrder) -> tf.data.Dataset:
    """(epoch, step) int64 of every batch of one pass; a shuffled pass takes the next epoch when it begins."""
    if not order.shuffle:
        return tf.data.Dataset.range(order.batch_count).map(lambda step: (tf.zeros((), tf.int64), step))
    begin = _weakly(order.next_epoch)

    def one_epoch(_: tf.Tensor) -> tf.data.Dataset:
        epoch = tf.ensure_shape(tf.numpy_function(begin, [], tf.int64), ())
        return tf.data.Dataset.range(order.batch_count).map(lambda step: (epoch, step))

    steps = tf.data.Dataset.range(1).flat_map(one_epoch)
    return steps.apply(tf.data.experimental.assert_cardinality(order.batch_count))


def _finish(dataset: tf.data.Dataset, prefetch: int, *, keep: tuple[object, ...]) -> tf.data.Dataset:
    options = tf.data.Options()
    # The default optimisations may fuse, cache or run ahead, each of which holds batches that nobody asked for.
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    dataset = dataset.with_options(options)
    if prefetch:
        dataset = dataset.prefetch(prefetch)
    dataset.ptycho_reads = keep
    return dataset


def _weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` without keeping its object alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> Any:  # noqa: ANN401 - whatever the method takes and gives
        live = reference()
        if live is None:
            raise ReferenceError("the dataset of this iterator is gone; keep the dataset while it is read")
        return live(*arguments)

    return call
