"""A compact physics-informed network: frames in, object patches out, trained on nothing but the
frames themselves.

Layers and loss register themselves nowhere: a saved model is loaded with
``keras.models.load_model(path, custom_objects=CUSTOM_OBJECTS)``.
"""

from __future__ import annotations  # help() shows the names of types, not what they stand for

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.containers.inputs import DEFAULT_NPHOTONS
from ptycho.containers.inputs import intensity_scale as containers_scale
from ptycho.errors import ContainerError, check_int, check_photons, check_positive
from ptycho.files.arrays import MIN_FRAME_SIZE

# The physics of the network as Keras layers: nothing in them is learnt, gradients pass through.
# Complex images go from layer to layer as real ones with the real parts first: (b, N, N, 2C)
# float32. All of them load with ``custom_objects=ptycho.model.CUSTOM_OBJECTS``; none registers
# itself, and none carries code in a saved model.


_DARK = 1e-3
"""Chosen: weight of a patch where the probe is dark, over its brightest. There a patch has no
other source."""
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


DEFAULT_FILTERS = 8
"""Chosen: 42,000 weights, which two cores train in seconds and which come down to the noise of a
simulated scan."""
DEFAULT_LEARNING_RATE = 3e-3
"""Measured on the simulated scan: within 20 epochs 1e-3 is behind it."""
_LEVELS = 2
"""Chosen: times that the images are halved on their way through the encoder."""
_ROUNDS = 5
"""Measured on the simulated scan: 3 rounds learn slower, 8 no better; they cost a tenth of a
step."""
_FLAT_START = 1e-3
"""Chosen: spread of the decoders' last weights, so that training starts at an object of amplitude 1
and phase 0."""
_PATCHES = "_object_patches"
"""Where a model keeps its traced function."""

Patches = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class PoissonDeviance(keras.losses.Loss):
    """Negative log likelihood of Poisson counts, less the least that it can be, over twice the mean
    count.

    For intensities t (measured) and p (predicted): mean over pixels of t log(t / p) + p - t, over
    s^2 / 2, since the mean of t is s^2 / 4 for frames of mean energy (N/2)^2. The likelihood itself
    is about 1e7 a pixel at the default nphotons; this is 0 for a perfect fit, of the same gradient
    up to a constant, and for small misfits the square of the relative misfit of the amplitudes, sum
    (a - d)^2 / sum d^2. ``background``, in mean counts, is added to both intensities: in the dark
    the gradient of the logarithm has no bound.
    """

    def __init__(
        self,
        intensity_scale: float,
        *,
        background: float = 1e-2,
        name: str = "poisson_deviance",
        **settings: Any,  # noqa: ANN401 - Keras's own settings of a loss
    ) -> None:
        super().__init__(name=name, **settings)
        self.intensity_scale, self.background = intensity_scale, background

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """(b,) of two intensities (b, N, N, C)."""
        mean_count = self.intensity_scale**2 / 4
        measured, expected = (
            y_true / mean_count + self.background,
            y_pred / mean_count + self.background,
        )
        deviance = measured * tf.math.log(measured / expected) + expected - measured
        return tf.reduce_mean(deviance, axis=(1, 2, 3)) / 2

    def get_config(self) -> dict[str, Any]:
        """What the constructor needs."""
        return {
            **super().get_config(),
            "intensity_scale": self.intensity_scale,
            "background": self.background,
        }


CUSTOM_OBJECTS = {
    kind.__name__: kind
    for kind in (
        CentredAmplitude,
        FarField,
        FirstGuess,
        Illumination,
        Intensity,
        Modulus,
        Overlap,
        PoissonDeviance,
    )
}
"""The classes that ``keras.models.load_model`` needs, by name."""


def build_model(
    frame_size: int,
    gridsize: int,
    probe: npt.ArrayLike,
    *,
    nphotons: float = DEFAULT_NPHOTONS,
    intensity_scale: float | None = None,
    filters: int = DEFAULT_FILTERS,
) -> keras.Model:
    """The network for frames (N, N) in groups of C = gridsize^2; compile it with ``compile_model``.

    Inputs: X * s (b, N, N, C) float32 and coords (b, 1, 2, C) float32, as a container's batches.
    Outputs, in the order of a container's targets: amplitude of the first patch, centred in its
    group, (b, N, N, 1); predicted X * s (b, N, N, C); predicted intensity (X * s)^2 (b, N, N, C). s
    is ``intensity_scale``, by default sqrt(nphotons) / (N/2).

    ``probe`` (N, N) complex is brought to the energy (N/2)^2 that the frames have on average, so
    that |object| is about 1. An encoder and two decoders, for amplitude and phase, see one frame at
    a time, as the first guess that a few rounds of ePIE make of it together with its group; the
    patches of a group then become one object before the forward model. So frames of a group bind
    each other, and the number of weights does not depend on C.

    Raises ContainerError for sizes that no network can have and for a probe of another size, not
    finite, or zero.
    """
    frame_size = check_int("frame_size", frame_size, least=MIN_FRAME_SIZE)
    channel_count = check_int("gridsize", gridsize, least=1) ** 2
    filters = check_int("filters", filters, least=1)
    if frame_size % 2**_LEVELS:
        raise ContainerError(
            f"frame_size is {frame_size}; the network halves it {_LEVELS} times, a multiple "
            f"of {2**_LEVELS} is needed"
        )
    if intensity_scale is None:
        scale = containers_scale(check_photons("nphotons", nphotons), frame_size)
    else:
        scale = check_positive("intensity_scale", intensity_scale)

    scaled = keras.Input((frame_size, frame_size, channel_count), name="scaled")
    coords = keras.Input((1, 2, channel_count), name="coords")
    illumination = Illumination(frame_size, name="illumination")
    parts = illumination(scaled)
    illumination.set(_normalized(probe, frame_size))

    guess = FirstGuess(scale, _ROUNDS, name="first_guess")(scaled, coords, parts)
    amplitude, phase = (
        _by_group(images, channel_count) for images in _network(_by_frame(guess), filters)
    )
    patches = Overlap(name="patches")(amplitude, phase, coords, parts)
    wave = FarField(scale, name="far_field")(patches, parts)

    outputs = [
        CentredAmplitude(name="amplitude")(patches, coords),
        Modulus(name="scaled_frames")(wave),
        Intensity(name="intensity")(wave),
    ]
    return keras.Model([scaled, coords], outputs, name="ptycho")


def compile_model(
    model: keras.Model,
    *,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    intensity_weight: float = 1.0,
    amplitude_weight: float = 0.0,
    frames_weight: float = 0.0,
) -> keras.Model:
    """Give ``model`` Adam and its losses, and return it.

    ``intensity_weight`` is of ``PoissonDeviance``. ``amplitude_weight`` compares the centred
    amplitude with the ground truth, ``frames_weight`` the predicted X with the measured one, both
    by the mean absolute error; they are 0, and not computed: training needs no truth. Without XLA,
    whose compilation takes longer here than the training of a small scan.
    """
    scale = intensity_scale_of(model)
    losses = (
        (amplitude_weight, "mean_absolute_error"),
        # in units of X, as the amplitude is in those of the object
        (frames_weight / scale, "mean_absolute_error"),
        (intensity_weight, PoissonDeviance(scale)),
    )

    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=[loss if weight else None for weight, loss in losses],
        loss_weights=[weight if weight else None for weight, _ in losses],
        jit_compile=False,
    )

    # else Keras cannot load what was saved before the first step
    model.optimizer.build(model.trainable_variables)
    return model


def object_patches(model: keras.Model) -> Patches:
    """A function of X * s (b, N, N, C) and coords (b, 1, 2, C) that gives the object there, (b, N,
    N, C) complex64.

    Traced once for each model, for batches of every size, and kept by it; it keeps nothing of a
    call.
    """
    known: Patches | None = getattr(model, _PATCHES, None)
    if known is not None:
        return known
    inner = keras.Model(model.inputs, _layer(model, "patches").output)
    signature = [tf.TensorSpec(tensor.shape, tf.float32) for tensor in model.inputs]

    def predict(scaled: tf.Tensor, coords: tf.Tensor) -> tf.Tensor:
        return to_complex(inner([scaled, coords], training=False))

    patches: Patches = tf.function(predict, input_signature=signature, autograph=False)
    # Made for each call, every one would be kept until the garbage collector finds the cycles
    # of its graph.
    setattr(model, _PATCHES, patches)
    return patches


def intensity_scale_of(model: keras.Model) -> float:
    """The s of a model that ``build_model`` made: what it expects X to be multiplied with. Raises
    ContainerError for others.
    """
    return float(_layer(model, "far_field").intensity_scale)


def _layer(model: keras.Model, name: str) -> keras.layers.Layer:
    try:
        return model.get_layer(name)
    except ValueError as error:
        raise ContainerError(
            f"the model has no layer {name!r}; build it with ptycho.model.build_model"
        ) from error


def _normalized(probe: npt.ArrayLike, frame_size: int) -> npt.NDArray[np.complex64]:
    """The probe with sum |probe|^2 = (N/2)^2."""
    values = np.asarray(probe)
    if values.shape not in ((frame_size, frame_size), (frame_size, frame_size, 1)):
        raise ContainerError(
            f"probe has shape {values.shape}; {(frame_size, frame_size)} is needed"
        )
    if not np.isfinite(values).all() or not values.any():
        raise ContainerError(
            "probe is zero everywhere or not finite; give the illumination of the scan"
        )

    values = values.reshape(frame_size, frame_size)
    normalized: npt.NDArray[np.complex64] = (
        values * (frame_size / 2 / np.linalg.norm(values))
    ).astype(np.complex64)
    return normalized


def _by_frame(parts: keras.KerasTensor) -> keras.KerasTensor:
    """(b, N, N, 2C) to (b * C, N, N, 2)."""
    size, channel_count = parts.shape[1], parts.shape[-1] // 2
    split = keras.ops.reshape(parts, (-1, size, size, 2, channel_count))
    return keras.ops.reshape(keras.ops.transpose(split, (0, 4, 1, 2, 3)), (-1, size, size, 2))


def _by_group(images: keras.KerasTensor, channel_count: int) -> keras.KerasTensor:
    """(b * C, N, N, 1) to (b, N, N, C)."""
    size = images.shape[1]
    split = keras.ops.reshape(images, (-1, channel_count, size, size))
    return keras.ops.transpose(split, (0, 2, 3, 1))


def _network(
    images: keras.KerasTensor, filters: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Amplitude, 0 and more, and phase, within pi, of single frames."""
    skips = []
    for level in range(_LEVELS):
        images = _block(images, filters << level, f"encoder_{level}")
        skips.append(images)
        images = keras.layers.MaxPooling2D(name=f"encoder_pool_{level}")(images)

    images = _block(images, filters << _LEVELS, "encoder_bottom")
    # softplus(log(e - 1)) = 1: an empty object.
    amplitude = _decoder(images, skips, filters, "amplitude_decoder", bias=math.log(math.e - 1))
    phase = _decoder(images, skips, filters, "phase_decoder", bias=0.0)
    turns = keras.layers.Activation("tanh", name="phase_decoder_tanh")(phase)
    return (
        keras.layers.Activation("softplus", name="amplitude_decoder_softplus")(amplitude),
        keras.layers.Rescaling(math.pi, name="phase_decoder_radians")(turns),
    )


def _decoder(
    images: keras.KerasTensor,
    skips: list[keras.KerasTensor],
    filters: int,
    name: str,
    *,
    bias: float,
) -> keras.KerasTensor:
    for level in reversed(range(_LEVELS)):
        larger = keras.layers.UpSampling2D(interpolation="bilinear", name=f"{name}_up_{level}")(
            images
        )
        both = keras.layers.Concatenate(name=f"{name}_skip_{level}")([larger, skips[level]])
        images = _block(both, filters << level, f"{name}_{level}")
    last = keras.layers.Conv2D(
        1,
        3,
        padding="same",
        kernel_initializer=keras.initializers.RandomNormal(stddev=_FLAT_START),
        bias_initializer=keras.initializers.Constant(bias),
        name=f"{name}_last",
    )
    return last(images)


def _block(images: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    for number in range(2):
        images = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"{name}_conv_{number}"
        )(images)
    return images
