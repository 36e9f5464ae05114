"""The eager container: everything on the device at construction, as users have it today."""

from __future__ import annotations  # help() shows the names of types, not what they stand for

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho.containers.base import STACK_KEYS, Container
from ptycho.containers.inputs import Arguments, ArrayLike, Inputs
from ptycho.errors import check_bool, check_positive
from ptycho.feeding.device_memory import copy_to_device, empty_for_device, gathered, on_device
from ptycho.feeding.grouping import BatchOrder, Shard, Shuffle
from ptycho.feeding.pipeline import Repeat, slice_batches
from ptycho.feeding.sources import GroupSource, Images, Indices, places_of, read_all


class PtychoDataContainer(Container):
    """Grouped images as complete tensors on the device.

    Attributes: ``X``, ``Y_I``, ``Y_phi`` (B, N, N, C) float32, ``Y`` = Y_I * exp(i Y_phi)
    complex64, ``coords_nominal`` (also ``coords``) and ``coords_true`` (B, 1, 2, C) float32,
    ``probe`` (N, N) complex64; ``norm_Y_I``, ``YY_full``, ``nn_indices``, ``global_offsets`` and
    ``local_offsets`` as they were given. ``intensity_scale`` is the s of ``targets``:
    sqrt(nphotons) / (N/2).
    """

    def _set_inputs(self, arguments: Arguments, inputs: Inputs) -> None:
        self.X = tensor_of(arguments.X, inputs.images)
        self.Y_I = tensor_of(arguments.Y_I, inputs.amplitude)
        self.Y_phi = tensor_of(arguments.Y_phi, inputs.phase)
        self.Y = combine(self.Y_I, self.Y_phi)
        self.coords_nominal = self.coords = copy_to_device(inputs.coords_nominal)
        self.coords_true = copy_to_device(inputs.coords_true)
        self.probe = copy_to_device(inputs.probe)

        # Only for shuffle="chunks", whose order is that of the lazy container; the images
        # themselves are not kept.
        self._places = None if inputs.images.file is None else places_of(inputs.images)

    @staticmethod
    def tensor_bytes(*, image_count: int, frame_size: int, channel_count: int) -> dict[str, int]:
        """Bytes of every tensor that such a container keeps on the device: the array arithmetic,
        nothing is made.
        """
        float_bytes, complex_bytes = np.dtype(np.float32).itemsize, np.dtype(np.complex64).itemsize
        pixels = image_count * frame_size * frame_size * channel_count
        coords_bytes = image_count * 2 * channel_count * float_bytes
        return {
            "X": pixels * float_bytes,
            "Y_I": pixels * float_bytes,
            "Y_phi": pixels * float_bytes,
            "Y": pixels * complex_bytes,
            "coords_nominal": coords_bytes,
            "coords_true": coords_bytes,
            "probe": frame_size * frame_size * complex_bytes,
        }

    def as_dataset(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle = False,
        seed: int | None = None,
        prefetch: int = 1,
        drop_remainder: bool = False,
        targets: bool = False,
        repeat: Repeat = False,
        input_context: Any = None,  # noqa: ANN401 - tf.distribute.InputContext; TensorFlow ships no types
    ) -> tf.data.Dataset:
        """Batches as ``LazyPtychoDataContainer.as_dataset`` gives them, bit for bit, sliced on the
        device.
        """
        targets = check_bool("targets", targets)
        places, group_count = self._places, len(self)

        order = BatchOrder(
            group_count,
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            shard=Shard.of(input_context),
            group_bytes=math.prod(self.X.shape[1:]) * np.dtype(np.float32).itemsize,
            # X may have been assigned.
            places=None if places is None or len(places) != group_count else lambda: places,
        )

        return slice_batches(
            self.X,
            self.coords,
            order=order,
            prefetch=prefetch,
            repeat=repeat,
            amplitude=self.Y_I if targets else None,
            scale=check_positive("intensity_scale", self.intensity_scale) if targets else None,
        )

    def __len__(self) -> int:
        """B."""
        return int(self.X.shape[0])

    def __repr__(self) -> str:
        shape = tuple(self.X.shape)
        return f"<{type(self).__name__} of {len(self)} groups, X {shape} on the device>"

    def _contents(self) -> tuple[Mapping[str, GroupSource], Mapping[str, Any]]:
        stacks = {name: DeviceImages(getattr(self, name)) for name in STACK_KEYS}
        return stacks, {
            name: getattr(self, name) for name in ("coords_nominal", "coords_true", "probe")
        }


def tensor_of(given: ArrayLike, source: GroupSource) -> tf.Tensor:
    """All images of ``source`` on the device, (B, N, N, C) float32; ``given`` itself where it is
    that already.
    """
    if is_ready(given):
        return given
    if isinstance(given, np.ndarray):
        return copy_to_device(given, np.float32)
    # On the device first: a stack that does not fit ends here, before any image is read.
    tensor, memory = empty_for_device(source.shape, np.float32)
    read_all(source, memory)
    return on_device(tensor)


def is_ready(given: ArrayLike) -> bool:
    """Whether ``given`` is a float32 tensor, so that no copy is needed."""
    return bool(tf.is_tensor(given) and given.dtype == tf.float32)


def combine(amplitude: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """Amplitude * exp(i phase), complex64."""
    return tf.cast(amplitude, tf.complex64) * tf.exp(1j * tf.cast(phase, tf.complex64))


class DeviceImages(GroupSource):
    """A float32 tensor (B, N, N, C), fetched group by group."""

    def __init__(self, tensor: tf.Tensor) -> None:
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        group_count, rows, columns, channel_count = (int(extent) for extent in self._tensor.shape)
        return group_count, rows, columns, channel_count

    def read(self, groups: Indices, out: Images) -> None:
        """Write the images of ``groups`` (b,) into ``out`` (b, N, N, C) float32."""
        out[:] = gathered(self._tensor, groups)
