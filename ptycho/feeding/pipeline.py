"""Batches out of a stack: an order of groups, one gather per batch, tf.data around it; inputs and
targets out of a batch.

A tensor that its epochs are made of keeps what a dataset reads alive; see
``ptycho.feeding.device_memory``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.errors import INT64_MOST, check_int
from ptycho.feeding.device_memory import (
    Slicer,
    current_device,
    from_host,
    is_on_card,
    keep_alive,
    on_device,
    weak_method,
)
from ptycho.feeding.feed import Feed
from ptycho.feeding.grouping import BatchOrder
from ptycho.feeding.sources import GroupSource, Scaled

Batch = tuple[Any, ...]
"""(X, coords), or with targets ((X*s, coords), (centred Y_I, X*s, (X*s)^2)); TensorFlow ships no
types."""
Repeat = bool | int
"""How many epochs one pass over a dataset has: False and 1 are one, True has no end."""

_as_written = tf.autograph.experimental.do_not_convert
"""A function of tf.data without control flow of tensors, which needs no conversion. On Python 3.13
a conversion warns thousands of times (gast, of how it makes its nodes); where warnings are errors
it fails, and its traceback keeps the feed alive."""


def stream(
    source: GroupSource,
    coords: npt.NDArray[np.float32],
    *,
    order: BatchOrder,
    prefetch: int,
    repeat: Repeat = False,
    amplitude: GroupSource | None = None,
    scale: float | None = None,
) -> tf.data.Dataset:
    """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32), gathered on the host one at a
    time.

    With ``scale`` and ``amplitude`` (Y_I, (B, N, N, C)) they are inputs and targets: see
    ``inputs_and_targets``. Every batch lies in memory of TensorFlow's allocator: see
    ``ptycho.feeding.feed``.

    On the device lie the batches that the consumer holds, the one being made and at most
    ``prefetch`` more. Raises ScanFileError where the source's file has changed; every epoch asks
    again when it begins, and an error then comes out of the iterator as a tf.errors.OpError that
    has the same sentence in its text.
    """
    source.check()
    first = None if scale is None or amplitude is None else amplitude.first_channel()
    feed = Feed(source if scale is None else Scaled(source, scale), coords, order, amplitude=first)
    shapes = [source.shape, coords.shape, *([] if first is None else [first.shape])]
    return _dataset_in_python(
        feed, weak_method(feed.begin), shapes, order=order, prefetch=prefetch, repeat=repeat
    )


def batches(
    source: GroupSource, coords: npt.NDArray[np.float32], *, order: BatchOrder, epoch: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """One epoch of (X (b, N, N, C) float32, coords (b, 1, 2, C) float32) without tf.data, on the
    current device.

    Each batch is gathered when it is asked for, into memory of TensorFlow's allocator, and is good
    for as long as it is held. Raises ScanFileError where the source's file has changed.
    """
    source.check()
    feed = Feed(source, coords, order)
    is_on_host = "GPU" not in current_device()  # asked once: it takes as long as a small batch

    def batch(step: int) -> tuple[tf.Tensor, tf.Tensor]:
        images, places = (from_host(array) for array in feed.batch(epoch, step))
        return (images, places) if is_on_host else (on_device(images), on_device(places))

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

    On a GPU they are gathered there, and a batch at a time comes to the host, where functions of
    tf.data run: see ``ptycho.feeding.device_memory``. Elsewhere the slicing is such a function
    itself.
    """
    targets = scale is not None and amplitude is not None
    tensors = (images, coords, amplitude) if targets else (images, coords)
    if any(map(is_on_card, tensors)):
        slicer = Slicer(order, *tensors)
        return _dataset_in_python(
            slicer,
            weak_method(order.next_epoch),
            slicer.shapes,
            order=order,
            prefetch=prefetch,
            repeat=repeat,
            scale=scale,
        )

    gather = _slice_function(order, tensors, scale)
    steps = _batch_numbers(keep_alive(order), weak_method(order.next_epoch), order, repeat)
    return _with_options(steps.map(_as_written(gather)), prefetch)


def _slice_function(
    order: BatchOrder, tensors: tuple[tf.Tensor, ...], scale: float | None
) -> Callable[[tf.Tensor], Batch]:
    """A function of tf.data that gathers batch ``number`` out of images, coordinates and, for
    targets, amplitudes (B, N, N, C).
    """
    # TensorFlow may keep this function for good: it refers to the order weakly.
    read = weak_method(order.numbered)
    shuffle, static_size = order.shuffle, order.static_size
    batch_count, group_count, shard = order.batch_count, order.group_count, order.shard
    # No larger than it needs to be: TensorFlow counts in int64.
    batch_size = min(order.batch_size, group_count)

    def groups_of(number: tf.Tensor) -> tf.Tensor:
        if shuffle:
            return tf.ensure_shape(tf.numpy_function(read, [number], tf.int64), (static_size,))
        start = number % batch_count * batch_size
        end = tf.minimum(start + batch_size, group_count)
        return tf.range(start, end) * shard.count + shard.index

    def gather(number: tf.Tensor) -> Batch:
        groups = groups_of(number)

        def chosen(tensor: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.gather(tensor, groups), (static_size, *tensor.shape[1:]))

        images, coords, *amplitude = tensors
        if not amplitude:
            return chosen(images), chosen(coords)
        return inputs_and_targets(
            chosen(images) * scale, chosen(coords), chosen(amplitude[0])[..., :1]
        )

    return gather


def _dataset_in_python(
    feed: Feed | Slicer,
    begin: Callable[[], np.int64],
    shapes: Sequence[tuple[int, ...]],
    *,
    order: BatchOrder,
    prefetch: int,
    repeat: Repeat,
    scale: float | None = None,
) -> tf.data.Dataset:
    """Batches that ``feed`` gathers in Python: two arrays, or with Y_I of channel 0 as a third one
    inputs and targets.

    ``shapes`` are those of all groups; images are multiplied by ``scale`` where it is given.
    """
    # TensorFlow may keep the function below for good: it knows shapes, and the feed by ``read``
    # alone, weakly.
    read = weak_method(feed.numbered)
    specs = [tf.TensorSpec((order.static_size, *shape[1:]), tf.float32) for shape in shapes]

    def gather(number: tf.Tensor) -> Batch:
        arrays = tf.numpy_function(read, [number], [tf.float32] * len(specs))
        arrays = [
            tf.ensure_shape(array, spec.shape) for array, spec in zip(arrays, specs, strict=True)
        ]
        if len(arrays) == 2:
            return tuple(arrays)
        images, places, amplitude = arrays
        return inputs_and_targets(images if scale is None else images * scale, places, amplitude)

    images, places, *amplitudes = specs
    structure = (
        ((images, places), (amplitudes[0], images, images)) if amplitudes else (images, places)
    )
    return _with_options(
        _mapped(_batch_numbers(keep_alive(feed), begin, order, repeat), gather, structure), prefetch
    )


def _batch_numbers(
    keeping: tf.Tensor, begin: Callable[[], np.int64], order: BatchOrder, repeat: Repeat
) -> tf.data.Dataset:
    """The number of every batch, int64: epoch * batch_count + step; an epoch asks ``begin`` for its
    number.

    One number, because every component of an element costs (measured: 60 us for three instead of
    one). flat_map keeps the tensor ``keeping`` while the batches of an epoch are drawn, and the
    dataset keeps it for as long as there is one.
    """
    batch_count = order.batch_count

    def one_epoch(_: tf.Tensor) -> tf.data.Dataset:
        first = tf.ensure_shape(tf.numpy_function(begin, [], tf.int64), ()) * batch_count
        return tf.data.Dataset.range(first, first + batch_count)

    epochs = tf.data.Dataset.from_tensors(keeping)
    count = batch_count
    if repeat is True:
        epochs, count = epochs.repeat(), tf.data.INFINITE_CARDINALITY
    elif repeat is not False:
        # A Python int from here on: numpy's would overflow in the product.
        repeat = check_int("repeat", repeat, least=1, most=INT64_MOST // batch_count)
        epochs, count = epochs.repeat(repeat), batch_count * repeat
    return epochs.flat_map(_as_written(one_epoch)).apply(
        tf.data.experimental.assert_cardinality(count)
    )


def _mapped(
    steps: tf.data.Dataset,
    gather: Callable[..., Batch],
    structure: Any,  # noqa: ANN401 - nested specs
) -> tf.data.Dataset:
    """``steps.map(gather)``, run in the thread that asks for the batch.

    tf.data hands a map's function to a pool of threads and waits; here that costs more than the
    function does (measured: 390 us a batch with nothing to gather, 216 us without the pool). Only
    the raw operation has the switch.
    """
    function = tf.function(gather, autograph=False).get_concrete_function(steps.element_spec)
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


def _with_options(dataset: tf.data.Dataset, prefetch: int) -> tf.data.Dataset:
    options = tf.data.Options()
    # The default optimisations may fuse, cache or run ahead, each of which holds batches that
    # nobody asked for.
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    dataset = dataset.with_options(options)
    prefetch = check_int("prefetch", prefetch, least=0, most=INT64_MOST)
    return dataset.prefetch(prefetch) if prefetch else dataset


# What a network is trained on: one batch of images to inputs and targets, in TensorFlow's
# operations.


def center_channels(channels: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Every channel moved into the frame of its group: out[v, u] = channel[v + y, u + x].

    ``channels`` (b, N, N, C) float32, ``offsets`` (b, 1, 2, C) float32 pixels, axis 2 is [x, y]:
    the container's coords, so that the same place of the object comes to lie on the same pixel.
    Bilinear, zero beyond the edge, as PtychoPINN's function of this name. Returns (b, N, N, C)
    float32.
    """
    rows, columns, count = channels.shape[1:]
    flat = (
        tf.reshape(tf.transpose(channels, (0, 3, 1, 2)), (-1, rows, columns, 1))
        if count > 1
        else channels
    )

    places = tf.reshape(tf.transpose(offsets[:, 0], (0, 2, 1)), (-1, 2))
    zeros, ones = tf.zeros_like(places[:, :1]), tf.ones_like(places[:, :1])
    # Rows of the projective matrix [[1, 0, x], [0, 1, y], [0, 0, 1]], its last element left out.
    matrices = tf.concat(
        (ones, zeros, places[:, :1], zeros, ones, places[:, 1:], zeros, zeros), axis=1
    )

    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=flat,
        transforms=matrices,
        output_shape=tf.constant((rows, columns), tf.int32),
        fill_value=tf.constant(0.0),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    if count == 1:
        return moved
    return tf.transpose(tf.reshape(moved, (-1, count, rows, columns)), (0, 2, 3, 1))


def inputs_and_targets(
    scaled: tf.Tensor, coords: tf.Tensor, amplitude: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """((X*s, coords), (centred Y_I of channel 0, X*s, (X*s)^2)), as PtychoPINN's networks are
    trained.

    ``scaled`` (b, N, N, C) is X*s, ``coords`` (b, 1, 2, C), ``amplitude`` (b, N, N, 1) is Y_I of
    channel 0, all float32. X*s is one tensor in both places.
    """
    return (scaled, coords), (
        center_channels(amplitude, coords[..., :1]),
        scaled,
        tf.square(scaled),
    )
