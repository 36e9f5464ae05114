"""The eager container: everything on the device at construction, as users have it today."""

# ruff: noqa: N803 - the names of the arguments are PtychoPINN's

import math
from os import PathLike
from typing import Any, Self

import numpy as np
import tensorflow as tf

from ptycho.containers.base import (
    KEPT_NAMES,
    STACK_KEYS,
    DeviceImages,
    arguments_from_npz,
    save_container,
)
from ptycho.containers.inputs import (
    DEFAULT_NEIGHBOR_COUNT,
    DEFAULT_NPHOTONS,
    Arguments,
    Given,
    arguments_from_raw,
    arguments_from_scan,
    check_inputs,
    intensity_scale,
    made,
)
from ptycho.errors import factor, switch
from ptycho.feeding.device_memory import empty_for_device, place, placed
from ptycho.feeding.grouping import BatchOrder, Order, Shard, Shuffle
from ptycho.feeding.pipeline import Repeat, slice_batches
from ptycho.feeding.sources import GroupSource, places_of, read_all
from ptycho.raw_data import RawData
from ptycho.scan import Scan


class PtychoDataContainer:
    """Grouped images as whole tensors on the device.

    Attributes: ``X``, ``Y_I``, ``Y_phi`` (B, N, N, C) float32, ``Y`` = Y_I * exp(i Y_phi)
    complex64, ``coords_nominal`` (also ``coords``) and ``coords_true`` (B, 1, 2, C) float32,
    ``probe`` (N, N) complex64; ``norm_Y_I``, ``YY_full``, ``nn_indices``, ``global_offsets`` and
    ``local_offsets`` as they were given. ``intensity_scale`` is the s of ``targets``:
    sqrt(nphotons) / (N/2).
    """

    def __init__(
        self,
        X: Given,
        Y_I: Given,
        Y_phi: Given,
        norm_Y_I: Given,
        YY_full: Given,
        coords_nominal: Given,
        coords_true: Given,
        nn_indices: Given,
        global_offsets: Given,
        local_offsets: Given,
        probeGuess: Given,
    ) -> None:
        given = Arguments(
            X,
            Y_I,
            Y_phi,
            norm_Y_I,
            YY_full,
            coords_nominal,
            coords_true,
            nn_indices,
            global_offsets,
            local_offsets,
            probeGuess,
        )
        inputs = check_inputs(given)
        self.X = tensor_of(X, inputs.images)
        self.Y_I = tensor_of(Y_I, inputs.amplitude)
        self.Y_phi = tensor_of(Y_phi, inputs.phase)
        self.Y = combine(self.Y_I, self.Y_phi)
        self.coords_nominal = self.coords = place(inputs.coords_nominal)
        self.coords_true = place(inputs.coords_true)
        self.probe = place(inputs.probe)
        self.norm_Y_I, self.YY_full, self.nn_indices = norm_Y_I, YY_full, nn_indices
        self.global_offsets, self.local_offsets = global_offsets, local_offsets
        self.intensity_scale = intensity_scale(DEFAULT_NPHOTONS, inputs.images.shape[1])
        # Only for shuffle="chunks", whose order is that of the lazy container; the images
        # themselves are not kept.
        self._places = None if inputs.images.file is None else places_of(inputs.images)

    @classmethod
    def from_scan(
        cls,
        scan: Scan,
        *,
        image_count: int,
        gridsize: int = 2,
        neighbor_count: int = DEFAULT_NEIGHBOR_COUNT,
        seed: int = 0,
        nphotons: float = DEFAULT_NPHOTONS,
        order: Order = "random",
    ) -> Self:
        """Group a scan and put every image on the device; see
        ``ptycho.feeding.grouping.group`` for the counts.
        """
        arguments = arguments_from_scan(
            scan,
            image_count=image_count,
            gridsize=gridsize,
            neighbor_count=neighbor_count,
            seed=seed,
            nphotons=nphotons,
            order=order,
        )
        return made(cls, arguments, intensity_scale(nphotons, scan.frame_size))

    @classmethod
    def from_raw_data_without_pc(
        cls,
        xcoords: Given,
        ycoords: Given,
        diff3d: Given,
        probeGuess: Given,
        scan_index: Given,
        objectGuess: Given = None,
        N: int | None = None,
        K: int = DEFAULT_NEIGHBOR_COUNT,
        nsamples: int = 1,
        *,
        gridsize: int = 1,
        seed: int = 0,
        nphotons: float = DEFAULT_NPHOTONS,
    ) -> Self:
        """Group a scan of loose arrays, as ``RawData.generate_grouped_data`` does it."""
        raw = RawData.from_coords_without_pc(
            xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess
        )
        arguments = arguments_from_raw(
            raw, N, K, nsamples, gridsize=gridsize, seed=seed, nphotons=nphotons
        )
        return made(cls, arguments, intensity_scale(nphotons, arguments.X.shape[1]))

    @classmethod
    def from_npz(
        cls, file_path: str | PathLike[str], *, cache_dir: str | PathLike[str] | None = None
    ) -> Self:
        """Open what ``to_npz`` wrote and put it on the device.

        ``cache_dir`` is where compressed images are unpacked, see ``Scan.open``. Raises ScanError
        or ScanFileError for a file that cannot be used.
        """
        return made(cls, *arguments_from_npz(file_path, cache_dir))

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
        targets = switch("targets", targets)
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
            scale=factor("intensity_scale", self.intensity_scale) if targets else None,
        )

    def as_tf_dataset(self, batch_size: int, shuffle: bool = True) -> tf.data.Dataset:  # noqa: FBT001, FBT002 - PtychoPINN's call
        """``as_dataset`` with targets, under the name and with the defaults that PtychoPINN's users
        know.
        """
        return self.as_dataset(batch_size, shuffle=shuffle, targets=True)

    def to_npz(self, file_path: str | PathLike[str]) -> None:
        """Write everything to an NPZ, the images a few groups at a time; None is left out. See
        ``from_npz``.

        Raises ScanFileError where it cannot be written; what was there stays then.
        """
        stacks = {name: DeviceImages(getattr(self, name)) for name in STACK_KEYS}
        save_container(
            file_path,
            stacks,
            {
                name: getattr(self, name)
                for name in ("coords_nominal", "coords_true", "probe", *KEPT_NAMES)
            },
        )

    def __len__(self) -> int:
        """B."""
        return int(self.X.shape[0])

    def __repr__(self) -> str:
        shape = tuple(self.X.shape)
        return f"<{type(self).__name__} of {len(self)} groups, X {shape} on the device>"


def tensor_of(given: Given, source: GroupSource) -> tf.Tensor:
    """All images of ``source`` on the device, (B, N, N, C) float32; ``given`` itself where it is
    that already.
    """
    if is_ready(given):
        return given
    if isinstance(given, np.ndarray):
        return place(given, np.float32)
    # On the device first: a stack that does not fit ends here, before any image is read.
    tensor, memory = empty_for_device(source.shape, np.float32)
    read_all(source, memory)
    return placed(tensor)


def is_ready(given: Given) -> bool:
    """Whether ``given`` is a float32 tensor, so that no copy is needed."""
    return bool(tf.is_tensor(given) and given.dtype == tf.float32)


def combine(amplitude: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """Amplitude * exp(i phase), complex64."""
    return tf.cast(amplitude, tf.complex64) * tf.exp(1j * tf.cast(phase, tf.complex64))
