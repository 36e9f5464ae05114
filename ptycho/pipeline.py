"""Batches out of a stack: an order of groups, one gather per batch, tf.data around it.

What a dataset reads is tied to a tensor that goes through it as its first element; see ``ptycho.lifetime``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.arguments import whole
from ptycho.device import empty_on_host, fills_in_place, placed
from ptycho.feed import CopiedFeed, Feed
from ptycho.lifetime import tie, weakly
from ptycho.order import BatchOrder, Shuffle
from ptycho.sources import GroupSource, Scaled
from ptycho.targets import inputs_and_targets

__all__ = ["BatchOrder", "Shuffle", "batches", "slice_batches", "stream"]

Batch = tuple[Any, ...]
"""(X, coords), or with targets ((X*s, coords), (centred Y_I, X*s, (X*s)^2)); TensorFlow ships no types."""
Repeat = bool | int
"""How many epochs one pass over a dataset has: False and 1 are one, True has no end."""


def stream(
    source: GroupSource,
    coords: npt.NDArray[np.float32],
    *,
    order: BatchOrder,
    prefetch: int,
    repeat: Repeat = False,
    amplitude: GroupSource | None = None,
    scale: float | None = None,
    in_place: bool | None = None,
) -> tf.data.Dataset:
    """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32), gathered on the host one at a time.

    With ``scale`` and ``amplitude`` (Y_I, (B, N, N, C)) they are inputs and targets: see ``ptycho.targets``. Every batch is
    written straight into memory that TensorFlow allocated for it, so its allocator counts every byte; where a build of
    TensorFlow gives its functions copies instead (or ``in_place`` is False), into a buffer that TensorFlow copies.

    On the device lie the batches that the consumer holds, the one being made and at most ``prefetch`` more. Raises
    ScanFileError where the source's file has changed; every epoch asks again when it begins, and what is wrong then comes
    out of the iterator as a tf.errors.OpError that has the same sentence in its text.
    """
    source.check()
    first = None if scale is None or amplitude is None else amplitude.first_channel()
    read_from = source if scale is None else Scaled(source, scale)
    is_in_place = fills_in_place() if in_place is None else in_place
    feed = (Feed if is_in_place else CopiedFeed)(read_from, coords, order, amplitude=first)
    shapes = [shape[1:] for shape in (source.shape, coords.shape, *(() if first is None else (first.shape,)))]
    static = [(order.static_size, *shape) for shape in shapes]

    group_count, batch_size = order.group_count, order.batch_size

    # TensorFlow may keep this function for good: it knows numbers, and the feed by ``read`` alone, weakly.
    def gather(tied: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor) -> Batch:
        del tied
        if not is_in_place:
            filled = tf.numpy_function(read, [epoch, step], [tf.float32] * len(shapes))
        else:
            size = tf.cast(tf.minimum(group_count - step * batch_size, batch_size), tf.int32)
            empty = [tf.raw_ops.Empty(shape=tf.stack((size, *shape)), dtype=tf.float32) for shape in shapes]
            # The function writes into its arguments; nobody may look at them before it has.
            with tf.control_dependencies([tf.numpy_function(read, [epoch, step, *empty], tf.int64)]):
                filled = [tf.identity(tensor) for tensor in empty]
        filled = [tf.ensure_shape(tensor, shape) for tensor, shape in zip(filled, static, strict=True)]
        return tuple(filled) if first is None else inputs_and_targets(*filled)

    read = weakly(feed.arrays if isinstance(feed, CopiedFeed) else feed.fill_tensors)
    specs = tuple(tf.TensorSpec(shape, tf.float32) for shape in static)
    structure = specs if first is None else _training_structure(*specs)
    return _finish(_mapped(_steps(tie(feed), weakly(feed.begin), order, repeat), gather, structure), prefetch)


def batches(
    source: GroupSource, coords: npt.NDArray[np.float32], *, order: BatchOrder, epoch: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """One epoch of (X (b, N, N, C) float32, coords (b, 1, 2, C) float32) without tf.data, on the current device.

    Each batch is gathered when it is asked for, into memory that TensorFlow allocated for it. Raises ScanFileError where
    the source's file has changed.
    """
    source.check()
    feed = Feed(source, coords, order)

    def shapes(size: int) -> list[tf.Tensor]:
        return [tf.constant((size, *shape[1:])) for shape in (source.shape, coords.shape)]

    last_size = order.group_count - (order.batch_count - 1) * order.batch_size
    whole_shapes, last_shapes = shapes(order.batch_size), shapes(min(last_size, order.batch_size))

    def batch(step: int) -> tuple[tf.Tensor, tf.Tensor]:
        is_last = step == order.batch_count - 1
        empty = [empty_on_host(shape, np.float32) for shape in (last_shapes if is_last else whole_shapes)]
        (images, image_memory), (places, place_memory) = empty
        feed.fill(epoch, step, image_memory, place_memory)
        return placed(images), placed(places)

    # Nothing is held here while the consumer works: each batch is the consumer's alone.
    return map(batch, range(order.batch_count))


def slice_batches(
    images: tf.Tensor,
    coords: tf.Tensor,
    *,
    order: BatchOrder,
    prefetch: int,
    repeat: Repeat = False,
    amplitude: tf.Tensor | None = None,
    scale: float | None = None,
) -> tf.data.Dataset:
    """Batches as ``stream`` makes them, of tensors that are already on the device.

    The slicing is a function of tf.data, which runs on the host. On a GPU the tensors are captured by it and each batch
    goes through the host: that has not been measured on a card yet.
    """
    read = weakly(order.batch)

    def gather(tied: tf.Tensor, epoch: tf.Tensor, step: tf.Tensor) -> Batch:
        del tied
        if order.shuffle:
            groups = tf.ensure_shape(tf.numpy_function(read, [epoch, step], tf.int64), (order.static_size,))
        else:
            end = tf.minimum((step + 1) * order.batch_size, order.group_count)
            groups = tf.range(step * order.batch_size, end) * order.shard.count + order.shard.index

        def chosen(tensor: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.gather(tensor, groups), (order.static_size, *tensor.shape[1:]))

        if scale is None or amplitude is None:
            return chosen(images), chosen(coords)
        return inputs_and_targets(chosen(images) * scale, chosen(coords), chosen(amplitude)[..., :1])

    return _finish(_steps(tie(order), weakly(order.next_epoch), order, repeat).map(gather), prefetch)


def _steps(tied: tf.Tensor, begin: Callable[[], np.int64], order: BatchOrder, repeat: Repeat) -> tf.data.Dataset:
    """(tied, epoch, step) int64 of every batch; an epoch asks ``begin`` for its number."""

    def one_epoch(tied: tf.Tensor) -> tf.data.Dataset:
        epoch = tf.ensure_shape(tf.numpy_function(begin, [], tf.int64), ())
        return tf.data.Dataset.range(order.batch_count).map(lambda step: (tied, epoch, step))

    epochs = tf.data.Dataset.from_tensors(tied)
    count = order.batch_count
    if repeat is True:
        epochs, count = epochs.repeat(), tf.data.INFINITE_CARDINALITY
    elif repeat is not False:
        epochs, count = epochs.repeat(whole("repeat", repeat, least=1)), order.batch_count * repeat
    return epochs.flat_map(one_epoch).apply(tf.data.experimental.assert_cardinality(count))


def _mapped(steps: tf.data.Dataset, gather: Callable[..., Batch], structure: Any) -> tf.data.Dataset:  # noqa: ANN401 - nested specs
    """``steps.map(gather)``, run in the thread that asks for the batch.

    tf.data hands a map's function to a pool of threads and waits; here that costs more than the function does (measured:
    390 us a batch with nothing to gather, 216 us without the pool). Only the raw operation has the switch.
    """
    function = tf.function(gather).get_concrete_function(*steps.element_spec)
    outputs = tf.nest.flatten(structure)
    variant = tf.raw_ops.MapDataset(
        input_dataset=tf.data.experimental.to_variant(steps),
        other_arguments=function.captured_inputs,
        f=function,
        output_types=[spec.dtype for spec in outputs],
        output_shapes=[spec.shape for spec in outputs],
        use_inter_op_parallelism=False,
        preserve_cardinality=True,
    )
    return tf.data.experimental.from_variant(variant, structure)


def _training_structure(images: tf.TensorSpec, coords: tf.TensorSpec, amplitude: tf.TensorSpec) -> Any:  # noqa: ANN401 - nested specs
    return (images, coords), (amplitude, images, images)


def _finish(dataset: tf.data.Dataset, prefetch: int) -> tf.data.Dataset:
    options = tf.data.Options()
    # The default optimisations may fuse, cache or run ahead, each of which holds batches that nobody asked for.
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    dataset = dataset.with_options(options)
    prefetch = whole("prefetch", prefetch, least=0)
    return dataset.prefetch(prefetch) if prefetch else dataset
