"""Bugs in the ways that ``formats``, ``scripts`` and ``settings`` take: files of other formats, old
code, other settings.
"""

# ruff: noqa: ANN401 - containers, tensors and datasets pass through; TensorFlow ships no types

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho import raw_data
from ptycho.containers import base, inputs, lazy
from ptycho.feeding import grouping
from ptycho.feeding.grouping import group
from ptycho.feeding.sources import ComplexPart, Constant, GroupedArray
from ptycho.files import arrays, frames
from ptycho.files.frames import ConvertedFrames
from ptycho.files.hdf5 import ChunkedFrames
from ptycho.files.npz import pieces
from ptycho.scan import Scan
from scenarios.bodies import scripts
from scenarios.detector.bugs.registry import BAR_BYTES_PER_FRAME, BAR_BYTES_PER_IMAGE, IMAGE_BYTES
from scenarios.detector.bugs.seams import (
    Kept,
    Lazy,
    after_construction,
    after_opening,
    images_of,
    instead_of_dataset,
    ones,
)


def _put(owner: Any, name: str, value: Any) -> None:
    """A checker would refuse the assignment; raises AttributeError where nothing has that name."""
    getattr(owner, name)
    setattr(owner, name, value)


def _after(kind: type[Any], name: str, act: Callable[..., None]) -> None:
    """``act(self, *arguments)`` when a method has returned."""
    original = getattr(kind, name)

    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        found = original(self, *arguments, **named)
        act(self, *arguments, **named)
        return found

    _put(kind, name, method)


# --- files ---


def converted_frames_kept() -> None:
    """Each frame that was converted is kept, by its number."""

    def keep(self: Any, chosen: npt.NDArray[np.intp], out: npt.NDArray[Any]) -> None:
        self.__dict__.setdefault("_kept", {}).update(
            {int(frame): image.copy() for frame, image in zip(chosen, out, strict=True)}
        )

    _after(ConvertedFrames, "take", keep)


def mask_for_each_frame() -> None:
    """The mask, repeated for every frame."""

    def keep(
        self: Any, stored: Any, interpretation: Any, is_bad: npt.NDArray[np.bool_] | None
    ) -> None:
        del interpretation
        if is_bad is not None:
            self._masks = np.repeat(is_bad[None], len(stored), axis=0)

    _after(ConvertedFrames, "__init__", keep)


def notes_of_converted_frames() -> None:
    """256 B of notes for every frame that has to be converted."""

    def keep(self: Any, stored: Any, interpretation: Any, is_bad: Any) -> None:
        del interpretation, is_bad
        self._notes = ones(BAR_BYTES_PER_FRAME * len(stored))

    _after(ConvertedFrames, "__init__", keep)


def converted_at_once() -> None:
    """The pass over the frames converts all of them before it looks at the first."""
    original = ConvertedFrames.chunks

    def chunks(self: ConvertedFrames, *sizes: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        del sizes
        yield from [(start, block.copy()) for start, block in original(self)]

    _put(ConvertedFrames, "chunks", chunks)


def chunks_read_whole() -> None:
    """A data set in chunks is read whole by the first batch."""
    original = ChunkedFrames.take

    def take(self: Any, chosen: npt.NDArray[np.intp], out: npt.NDArray[Any]) -> None:
        if "_whole" not in self.__dict__:
            self._whole = np.empty(self.shape, self.dtype)
            original(self, np.arange(len(self)), self._whole)
        np.take(self._whole, chosen, axis=0, out=out)

    _put(ChunkedFrames, "take", take)


def member_unpacked_whole() -> None:
    """A compressed member is unpacked in memory, and written then."""

    def whole(*arguments: Any, **named: Any) -> Iterator[bytes]:
        yield b"".join(pieces(*arguments, **named))

    _put(frames, "pieces", whole)


def object_in_memory() -> None:
    """An object that cannot be mapped is held, whatever its size."""
    _put(arrays, "KEPT_OBJECT_BYTES", 1 << 40)


def repacked_through_a_list() -> None:
    """Scattered frames are read into a list before the first is written."""
    original = frames._slabs

    def slabs(*arguments: Any) -> Iterator[npt.NDArray[Any]]:
        yield from [slab.copy() for slab in original(*arguments)]

    _put(frames, "_slabs", slabs)


def array_in_this_byte_order() -> None:
    """A .npy file in the other byte order is read into an array."""
    kept: Kept = []

    def act(scan: Scan) -> None:
        if scan.path.suffix == ".npy":
            kept.append(np.asarray(scan.frames))

    after_opening(act)


# --- old code ---


def energies_in_double() -> None:
    """Energies of arrays are found in a copy in float64."""
    for module in (raw_data, inputs):
        original = module.array_energies

        def energies(stack: Any, *, name: str, original: Any = original) -> Any:
            return original(np.asarray(stack).astype(np.float64), name=name)

        _put(module, "array_energies", energies)


def parts_at_once() -> None:
    """Amplitude and phase of a complex array are worked out for all images."""

    def keep(self: Any, array: Any, part: str) -> None:
        self._all = np.abs(array) if part == "amplitude" else np.angle(array)

    _after(ComplexPart, "__init__", keep)


def normalized_in_double() -> None:
    """Images are normalized in float64, and back."""

    def normalize(dset: Any, frame_size: int) -> Any:
        images = dset["diffraction"].astype(np.float64)
        images *= frame_size / 2 / np.sqrt((images**2).sum(axis=(1, 2)).mean())
        return images.astype(np.float32)

    _put(scripts, "normalize_data", normalize)


def written_at_once() -> None:
    """Each stack of images is read whole before it is written."""
    _put(base, "_group_chunks", lambda source: [np.asarray(source)])


def opened_by_copying() -> None:
    """A container's file is read into arrays."""
    _put(base, "GroupedArray", lambda mapped, file: GroupedArray(np.array(mapped), file=file))


def tensors_held() -> None:
    """A tensor that old code has asked for stays with the container."""
    after_construction(lambda container: _put(container, "_held", {}))


def assigned_by_copying() -> None:
    """An array that is assigned is copied."""
    original = Lazy._reassign

    def replace(self: Any, **given: Any) -> None:
        original(self, **{name: np.array(values) for name, values in given.items()})

    _put(Lazy, "_reassign", replace)


def truth_in_double() -> None:
    """Ground truth is worked out in complex128."""

    def combine(amplitude: Any, phase: Any) -> Any:
        return tf.cast(
            tf.cast(amplitude, tf.complex128) * tf.exp(1j * tf.cast(phase, tf.complex128)),
            tf.complex64,
        )

    _put(lazy, "combine", combine)


# --- settings ---


def orders_of_all_epochs() -> None:
    """The order of every epoch is remembered."""
    _put(grouping, "_MAX_ORDERS", 4096)


def cached_epochs() -> None:
    """Epochs that are repeated are kept by tf.data."""

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del container, batch_size
        return dataset.cache() if settings.get("repeat", False) not in (False, True) else dataset

    instead_of_dataset(make)


def images_of_a_worker() -> None:
    """Each worker has a copy of all images."""

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del batch_size
        if settings.get("input_context") is not None:
            container.__dict__.setdefault("_copies", []).append(np.asarray(images_of(container)))
            dataset._container = container
        return dataset

    instead_of_dataset(make)


def ones_for_all_images() -> None:
    """Where there is no object, ground truth is an array of ones and one of zeros."""

    def keep(self: Any, value: float, shape: tuple[int, ...]) -> None:
        self._all = np.full(shape, value, np.float32)
        self._all += 0  # zeros are only there once they were written

    _after(Constant, "__init__", keep)


def table_of_more_groups() -> None:
    """Where groups are taken in order of the frames, 64 KiB of a table for each of them."""
    kept: Kept = []

    def grouping(*arguments: Any, **named: Any) -> Any:
        groups = group(*arguments, **named)
        if named["order"] == "sequential":
            kept.append(ones(IMAGE_BYTES * groups.group_count))
        return groups

    _put(inputs, "group", grouping)


def records_of_one_channel() -> None:
    """1,024 B of records for every image of one channel."""

    def act(container: Any) -> None:
        if images_of(container).shape[-1] == 1:
            container._records = ones(BAR_BYTES_PER_IMAGE * len(container))

    after_construction(act)


def images_of_nine_frames() -> None:
    """Groups of more than four frames are gathered at once."""

    def act(container: Any) -> None:
        source = images_of(container)
        if source.shape[-1] > 4:
            container._all = np.asarray(source)

    after_construction(act)
