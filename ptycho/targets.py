"""What a network is trained on: one batch of images to inputs and targets, in TensorFlow's
operations.
"""

import tensorflow as tf


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
