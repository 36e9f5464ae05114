"""What the network's model does besides its convolutions, whose scratch is as large as the
processor's cache.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ptycho.model import FarField, Illumination, Overlap


def without_network(frame_size: int, gridsize: int, probe: Any) -> keras.Model:  # noqa: ANN401 - a tensor, or an array
    """A model of inputs, probe, patches and far field as ``ptycho.model.build_model`` makes them,
    with nothing learnt in it.

    ``probe`` (N, N) complex64. What it and ``reconstruct`` take of the device is the same on every
    processor.
    """
    channel_count = gridsize**2
    scaled = keras.Input((frame_size, frame_size, channel_count), name="scaled")
    coords = keras.Input((1, 2, channel_count), name="coords")
    illumination = Illumination(frame_size, name="illumination")
    parts = illumination(scaled)
    illumination.set(tf.convert_to_tensor(probe).numpy().reshape(frame_size, frame_size))
    patches = Overlap(name="patches")(scaled, scaled, coords, parts)
    return keras.Model(
        [scaled, coords], FarField(1.0, name="far_field")(patches, parts), name="physics"
    )


def one_batch(model: keras.Model, parameters: Mapping[str, Any]) -> None:
    """The forward model of one batch of ones."""
    count, size, channel_count = (
        parameters["batch_size"],
        parameters["frame_size"],
        parameters["gridsize"] ** 2,
    )
    model(
        [tf.ones((count, size, size, channel_count)), tf.zeros((count, 1, 2, channel_count))],
        training=False,
    )
