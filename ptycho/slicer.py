"""Batches of tensors that lie on a card: gathered there, so that the host never has more of them
than a batch.

A function of tf.data runs on the host. A tensor on a card that it captures is copied to the host as
a complete stack when the dataset is made and again by its iterator, and every batch is then
gathered out of that copy: 65.5 MB of images took 131 MB. Gathered here, an epoch takes a batch of
the card and a batch of the host, and 35 B of the host at most for each image (100 to 2,000 of
them). Both measured with TensorFlow 2.21 on a pretended card.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.order import BatchOrder


def is_on_card(tensor: Any) -> bool:  # noqa: ANN401 - TensorFlow ships no types; arrays of numpy have a device, too
    """Whether Python holds the values and they lie in a GPU's memory; what is only traced has none
    yet.
    """
    return tf.is_tensor(tensor) and not tf.is_symbolic_tensor(tensor) and "GPU" in tensor.device


class Slicer:
    """Gathers the batches of one dataset where its tensors lie."""

    def __init__(
        self,
        order: BatchOrder,
        images: tf.Tensor,
        coords: tf.Tensor,
        amplitude: tf.Tensor | None = None,
    ) -> None:
        """``images`` and ``amplitude`` (B, N, N, C), ``coords`` (B, 1, 2, C), all float32."""
        self._order, self._images, self._coords, self._amplitude = order, images, coords, amplitude

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of what ``numbered`` gives, with all groups as the first extent."""
        shapes = [tuple(self._images.shape), tuple(self._coords.shape)]
        return shapes if self._amplitude is None else [*shapes, (*self._amplitude.shape[:-1], 1)]

    def numbered(self, number: np.int64) -> tuple[npt.NDArray[np.float32], ...]:
        """The ``number``-th batch since the first epoch began, as tf.numpy_function asks for it.

        X (b, N, N, C), coords (b, 1, 2, C) and, if it was asked for, Y_I of channel 0 (b, N, N, 1),
        all float32.
        """
        groups = self._order.numbered(int(number))
        arrays = gathered(self._images, groups), gathered(self._coords, groups)
        if self._amplitude is None:
            return arrays
        return *arrays, gathered(self._amplitude, groups, channel_count=1)


def gathered(
    tensor: tf.Tensor, groups: npt.NDArray[np.int64], *, channel_count: int | None = None
) -> npt.NDArray[np.float32]:
    """The rows ``groups`` (b,) of ``tensor`` (B, ..., C), gathered where it lies; memory of
    TensorFlow's on the host.

    Of the last extent only the first ``channel_count``, or all.
    """
    batch = _gather_on(tensor.device, channel_count)(
        tf.convert_to_tensor(tensor), tf.constant(groups, tf.int64)
    )
    # Copied before the operation runs, without a rendezvous, into memory as that of any other batch
    # on the host; what a function gives back on the host is in pinned memory, whose pool grows by
    # regions.
    with tf.device("CPU:0"):
        return np.asarray(memoryview(tf.identity(batch)))


@functools.cache
def _gather_on(device: str, channel_count: int | None) -> Callable[..., tf.Tensor]:
    """A function of a tensor on ``device`` and group numbers; it is traced once and holds no
    tensor.

    A function, because each of its calls has a rendezvous of its own. Single operations that run
    eagerly on a GPU share one, in which an argument from the host can reach the same operation of
    another thread (tensorflow/tensorflow issue 62778). Batches are gathered in threads of tf.data:
    seen with TensorFlow 2.21 beside a user's loop were a slice with arguments of the other thread,
    a crash, and a thread that waited for ever.
    """

    def gather(tensor: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
        # Without a device operations run on the first card, and a complete tensor of another card
        # is taken there.
        with tf.device(device):
            batch = tf.gather(tensor, groups)
            return batch if channel_count is None else batch[..., :channel_count]

    signature = [tf.TensorSpec(None, tf.float32), tf.TensorSpec([None], tf.int64)]
    concrete: Callable[..., tf.Tensor] = tf.function(
        gather, input_signature=signature, autograph=False
    ).get_concrete_function()
    return concrete
