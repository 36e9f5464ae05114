"""Batches out of a stack: an order of groups, one gather per batch, tf.data around it.

What a dataset reads is tied to a tensor that goes through it as its first element; see ``ptycho.lifetime``.
"""

import itertools
import mmap
import secrets
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.arguments import whole
from ptycho.errors import ContainerError
from ptycho.lifetime import tie, weakly
from ptycho.sources import GroupSource

_SHIFT_BYTES = 4
"""One float32 past a multiple of 64: aligned for numpy and in no build for TensorFlow (EIGEN_MAX_ALIGN_BYTES is 16 at the
least), so it always copies the buffer and never keeps it."""
_MAX_ORDERS = 4
"""Chosen: epochs whose order is remembered; any other is drawn anew from the seed."""


class BatchOrder:
    """Which groups are in which batch of which epoch."""

    def __init__(self, group_count: int, batch_size: int, *, shuffle: bool, seed: int | None, drop_remainder: bool) -> None:
        batch_size = whole("batch_size", batch_size, least=1)
        if drop_remainder and batch_size > group_count:
            raise ContainerError(f"batch_size {batch_size} with drop_remainder leaves nothing of {group_count} groups")
        self.group_count, self.batch_size, self.shuffle = group_count, batch_size, shuffle
        full, rest = divmod(group_count, batch_size)
        self.batch_count = full if drop_remainder or not rest else full + 1
        self.static_size = batch_size if drop_remainder or not rest else None
        # None: another order for every dataset.
        self._seed = secrets.randbits(64) if seed is None else whole("seed", seed, least=0)
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

    def begin(self) -> np.int64:
        """The number of the epoch that begins now; raises ScanFileError where the source's file has changed."""
        self._source.check()
        return self._order.next_epoch()

    def batch(self, epoch: int, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """X (b, N, N, C) and coords (b, 1, 2, C) of one batch, both float32 and good for as long as X is held."""
        groups = self._order.batch(int(epoch), int(step))
        try:
            buffer = self._free.pop()
        except IndexError:  # Asking first would race with the other threads.
            buffer = self._new_buffer()
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
    """Float32 memory of its own mapping, one value past a 64-byte boundary.

    Not from malloc: each of TensorFlow's threads would take it from an arena of its own, which keeps what is freed.
    """
    size_bytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    raw = np.frombuffer(mmap.mmap(-1, size_bytes + _SHIFT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    return raw[_SHIFT_BYTES:].view(np.float32).reshape(shape)


def stream(source: GroupSource, coords: npt.NDArray[np.float32], *, order: BatchOrder, prefetch: int) -> tf.data.Dataset:
    """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32), gathered on the host one at a time.

    On the device lie the batches that the consumer holds, the one being made and at most ``prefetch`` more. Raises
    ScanFileError where the source's file has changed; every epoch asks again when it begins, and what is wrong then comes
    out of the iterator as a tf.errors.OpError that has the same sentence in its text.
    """
    source.check()
    feed = _Feed(source, coords, order)
    read = weakly(feed.batch)
    image_shape, coords_shape = ((order.static_size, *shape[1:]) for shape in (source.shape, coords.shape))

    def gather(_: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, places = tf.numpy_function(read, [epoch, step], [tf.float32, tf.float32])
        return tf.ensure_shape(images, image_shape), tf.ensure_shape(places, coords_shape)

    return _finish(_steps(tie(feed), weakly(feed.begin), order.batch_count).map(gather), prefetch)


def slice_batches(images: tf.Tensor, coords: tf.Tensor, *, order: BatchOrder, prefetch: int) -> tf.data.Dataset:
    """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32) of tensors that are already on the device.

    The slicing is a function of tf.data, which runs on the host. On a GPU the two tensors are captured by it and each batch
    goes through the host: that has not been measured on a card yet.
    """
    image_shape, coords_shape = ((order.static_size, *tensor.shape[1:]) for tensor in (images, coords))
    read = weakly(order.batch)

    def gather(_: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if order.shuffle:
            groups = tf.ensure_shape(tf.numpy_function(read, [epoch, step], tf.int64), (order.static_size,))
        else:
            groups = tf.range(step * order.batch_size, tf.minimum((step + 1) * order.batch_size, order.group_count))
        return (
            tf.ensure_shape(tf.gather(images, groups), image_shape),
            tf.ensure_shape(tf.gather(coords, groups), coords_shape),
        )

    return _finish(_steps(tie(order), weakly(order.next_epoch), order.batch_count).map(gather), prefetch)


def _steps(tied: tf.Tensor, begin: Callable[[], np.int64], batch_count: int) -> tf.data.Dataset:
    """(tied, epoch, step) int64 of every batch of one pass; a pass asks ``begin`` for its epoch."""

    def one_epoch(tied: tf.Tensor) -> tf.data.Dataset:
        epoch = tf.ensure_shape(tf.numpy_function(begin, [], tf.int64), ())
        return tf.data.Dataset.range(batch_count).map(lambda step: (tied, epoch, step))

    steps = tf.data.Dataset.from_tensors(tied).flat_map(one_epoch)
    return steps.apply(tf.data.experimental.assert_cardinality(batch_count))


def _finish(dataset: tf.data.Dataset, prefetch: int) -> tf.data.Dataset:
    options = tf.data.Options()
    # The default optimisations may fuse, cache or run ahead, each of which holds batches that nobody asked for.
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    dataset = dataset.with_options(options)
    prefetch = whole("prefetch", prefetch, least=0)
    return dataset.prefetch(prefetch) if prefetch else dataset
