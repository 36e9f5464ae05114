"""Bugs that only a card can show: what stands on it, and what stays on the host although it should
have gone there.
"""

# ruff: noqa: ANN401 - containers, tensors and datasets pass through; TensorFlow ships no types
# ruff: noqa: ARG005 - a seam hands over all that it has

from typing import Any

import tensorflow as tf

from scenarios.bodies import loading
from scenarios.detector.bugs.seams import Kept, at_epoch, filled, images_of, instead_of_dataset

_CARD = "/GPU:0"
_AHEAD = 4
"""Batches of the buffer: enough that one plain batch of tolerance does not hide it."""


def prefetched_to_the_card() -> None:
    """dataset.apply(prefetch_to_device("/GPU:0", 4)): as many batches wait on the card."""
    prefetch = tf.data.experimental.prefetch_to_device(_CARD, _AHEAD)
    instead_of_dataset(lambda container, dataset, batch_size, settings: dataset.apply(prefetch))


def slices_on_the_card() -> None:
    """from_tensor_slices of arrays, under the card: all of them go there (TensorFlow's issue
    71744).
    """

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del dataset, settings
        import numpy as np

        source = images_of(container)
        images = filled(source, np.empty(source.shape, np.float32))
        with tf.device(_CARD):
            tensors = tf.identity(images), tf.identity(container._inputs.coords_nominal)
        # as long as the container lives, as an attribute of a training script would
        container._slices = tensors
        return tf.data.Dataset.from_tensor_slices(tensors).batch(batch_size)

    instead_of_dataset(make)


def batch_of_an_epoch_on_the_card() -> None:
    """Each epoch keeps its first batch, as the model has it."""
    kept: Kept = []
    begun: list[int] = []
    original = loading.taken

    def taken(batch: Any) -> Any:
        on_card = original(batch)
        if begun:
            begun.clear()
            kept.append(on_card)
        return on_card

    at_epoch(lambda feed, epoch: begun.append(epoch))
    loading.taken = taken


def batches_stay_on_the_host() -> None:
    """A loop that takes batches as the dataset gives them: none of them ever reaches the card."""
    loading.taken = lambda batch: batch
