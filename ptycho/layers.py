"""The physics of the network as Keras layers: nothing in them is learnt, gradients pass through.

Complex images go from layer to layer as real ones with the real parts first: (b, N, N, 2C) float32.
All of them load with ``custom_objects=ptycho.model.CUSTOM_OBJECTS``; none registers itself, and
none carries code in a saved model.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

_DARK = 1e-3
"""Chosen: weight of a patch where the probe is dark, over its brightest. There a patch has only its
own word."""
_LEAST_MODULUS = 1e-6
"""Chosen: added where a modulus divides; wave amplitudes are about 1/2 (frames of mean energy
(N/2)^2)."""


class Illumination(keras.layers.Layer):
    """The probe as a tensor of the model, (N, N, 2) float32: saved with it, not learnt."""

    def __init__(self, frame_size: int, **settings: Any) -> None:  # noqa: ANN401 - Keras's own settings of a layer
        super().__init__(**settings)
        self.frame_size = frame_size
        self.parts = self.add_weight(
            name="probe", shape=(frame_size, frame_size, 2), initializer="zeros", trainable=False
        )

    def set(self, probe: npt.NDArray[np.complex64]) -> None:
        """Take ``probe`` (N, N) complex."""
        self.parts.assign(np.stack((probe.real, probe.imag), axis=-1))

    def call(self, scaled: tf.Tensor) -> tf.Tensor:  # noqa: ARG002 - a layer of a functional model has an input
        """(N, N, 2), whatever the frames."""
        return tf.convert_to_tensor(self.parts)

    def get_config(self) -> dict[str, Any]:
        """What the constructor needs."""
        return {**super().get_config(), "frame_size": self.frame_size}


class FirstGuess(keras.layers.Layer):
    """Patches from a few rounds of the ePIE update, from an empty object: real space for a network
    that cannot transform.

    Maiden and Rodenburg, Ultramicroscopy 109 (2009) 1256: the modulus of the predicted far field is
    replaced by the measured one and the difference is carried back through the probe. All frames of
    a group take each round together.
    """

    def __init__(self, intensity_scale: float, rounds: int, **settings: Any) -> None:  # noqa: ANN401 - as above
        super().__init__(**settings)
        self.intensity_scale, self.rounds = intensity_scale, rounds

    def call(self, scaled: tf.Tensor, coords: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
        """(b, N, N, 2C) of frames ``scaled`` (b, N, N, C), ``coords`` (b, 1, 2, C) and the probe
        (N, N, 2).
        """
        probe = _signed(parts)
        measured = _to_waves(scaled / self.intensity_scale)
        back = tf.math.conj(probe) / tf.cast(tf.reduce_max(tf.abs(probe)) ** 2, tf.complex64)
        patches = tf.ones_like(measured, tf.complex64)
        for _ in range(self.rounds):
            wave = probe * patches
            far = _to_far_field(wave)
            corrected = far * tf.cast(measured / (tf.abs(far) + _LEAST_MODULUS), tf.complex64)
            patches += back * (_from_far_field(corrected) - wave)
            patches = _merge(patches, coords, parts)
        return _to_parts(_to_images(patches))

    def get_config(self) -> dict[str, Any]:
        """What the constructor needs."""
        return {
            **super().get_config(),
            "intensity_scale": self.intensity_scale,
            "rounds": self.rounds,
        }


class Overlap(keras.layers.Layer):
    """One object for all frames of a group: each patch becomes the mean of all, where they overlap.

    Weighted by the brightness of the probe, and moved by linear interpolation. With one channel
    nothing changes.
    """

    def call(
        self, amplitude: tf.Tensor, phase: tf.Tensor, coords: tf.Tensor, parts: tf.Tensor
    ) -> tf.Tensor:
        """(b, N, N, 2C) of ``amplitude`` and ``phase`` (b, N, N, C), ``coords`` (b, 1, 2, C) and
        the probe (N, N, 2).
        """
        patches = tf.complex(amplitude * tf.cos(phase), amplitude * tf.sin(phase))
        return _to_parts(_to_images(_merge(_to_waves(patches), coords, parts)))


class FarField(keras.layers.Layer):
    """Wave on the detector, s * fftshift(fft2(probe * patch)), orthonormal: see
    ``ptycho.simulate.far_field_amplitude``.
    """

    def __init__(self, intensity_scale: float, **settings: Any) -> None:  # noqa: ANN401 - as above
        super().__init__(**settings)
        self.intensity_scale = intensity_scale

    def call(self, patches: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
        """(b, N, N, 2C) of ``patches`` (b, N, N, 2C) and the probe (N, N, 2)."""
        wave = _signed(parts) * self.intensity_scale * _to_waves(to_complex(patches))
        return _to_parts(_to_images(_to_far_field(wave)))

    def get_config(self) -> dict[str, Any]:
        """What the constructor needs."""
        return {**super().get_config(), "intensity_scale": self.intensity_scale}


class Intensity(keras.layers.Layer):
    """|wave|^2 of the far field: the counts that a detector is expected to see."""

    def call(self, wave: tf.Tensor) -> tf.Tensor:
        """(b, N, N, C) of ``wave`` (b, N, N, 2C)."""
        real, imag = tf.split(wave, 2, axis=-1)
        return tf.square(real) + tf.square(imag)


class Modulus(keras.layers.Layer):
    """|wave| of the far field, the predicted X * s; its gradient is finite also where the wave is
    0.
    """

    def call(self, wave: tf.Tensor) -> tf.Tensor:
        """(b, N, N, C) of ``wave`` (b, N, N, 2C)."""
        return _modulus(*tf.split(wave, 2, axis=-1))


class CentredAmplitude(keras.layers.Layer):
    """Amplitude of the first patch, moved to the middle of its group: what PtychoPINN's first
    target is.
    """

    def call(self, patches: tf.Tensor, coords: tf.Tensor) -> tf.Tensor:
        """(b, N, N, 1) of ``patches`` (b, N, N, 2C) and ``coords`` (b, 1, 2, C); 0 where the patch
        does not reach.
        """
        channel_count = coords.shape[-1]
        amplitude = _modulus(patches[..., 0], patches[..., channel_count])
        return (amplitude if channel_count == 1 else _move(amplitude, coords[:, 0, :, 0]))[
            ..., None
        ]


def to_complex(parts: tf.Tensor) -> tf.Tensor:
    """(..., C) complex64 of (..., 2C) float32."""
    real, imag = tf.split(parts, 2, axis=-1)
    return tf.complex(real, imag)


def _modulus(real: tf.Tensor, imag: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.square(real) + tf.square(imag) + _LEAST_MODULUS**2)


def _to_parts(images: tf.Tensor) -> tf.Tensor:
    return tf.concat((tf.math.real(images), tf.math.imag(images)), axis=-1)


def _to_waves(images: tf.Tensor) -> tf.Tensor:
    return tf.transpose(images, (0, 3, 1, 2))


def _to_images(waves: tf.Tensor) -> tf.Tensor:
    return tf.transpose(waves, (0, 2, 3, 1))


def _signed(parts: tf.Tensor) -> tf.Tensor:
    # N is even: signs that alternate in real space move the zero frequency to [N/2, N/2], without a
    # shift of every frame.
    size = parts.shape[0]
    signs = (-1.0) ** np.add.outer(np.arange(size), np.arange(size))
    return to_complex(parts)[..., 0] * signs.astype(np.complex64)


def _to_far_field(waves: tf.Tensor) -> tf.Tensor:
    return tf.signal.fft2d(waves) / waves.shape[-1]


def _from_far_field(waves: tf.Tensor) -> tf.Tensor:
    return tf.signal.ifft2d(waves) * waves.shape[-1]


def _merge(patches: tf.Tensor, coords: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
    """``patches`` (b, C, N, N) complex64 with every one the weighted mean of all C, seen from its
    own position.
    """
    if patches.shape[1] == 1:
        return patches
    brightness = tf.reduce_sum(tf.square(parts), axis=-1)
    weight = brightness / tf.reduce_max(brightness) + _DARK
    real = tf.math.real(patches) * weight
    planes = tf.stack(
        (real, tf.math.imag(patches) * weight, tf.broadcast_to(weight, tf.shape(real))), axis=2
    )
    # [b, c, d]: patch d in the frame of patch c, whose pixel p is pixel p + relative_d - relative_c
    # of patch d.
    places = tf.transpose(coords[:, 0], (0, 2, 1))
    shifts = places[:, None] - places[:, :, None]
    total = tf.reduce_sum(_move(planes[:, None], shifts[:, :, :, None]), axis=2)
    return tf.complex(total[:, :, 0] / total[:, :, 2], total[:, :, 1] / total[:, :, 2])


def _move(images: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    """``images`` (..., N, N) read at their pixels plus ``shifts`` (..., 2), [x, y], by linear
    interpolation; 0 outside.
    """
    # As products with banded matrices: several times faster than ImageProjectiveTransformV3,
    # forwards and backwards.
    pixels = tf.range(images.shape[-1], dtype=tf.float32)
    distance = pixels - (pixels[:, None] + shifts[..., None, None])
    band = tf.nn.relu(1 - tf.abs(distance))
    return tf.matmul(tf.matmul(band[..., 1, :, :], images), band[..., 0, :, :], transpose_b=True)
