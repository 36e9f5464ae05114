"""What the eager and the lazy container share: PtychoPINN's constructor, three ways of making one,
and its NPZ file.
"""

# ruff: noqa: N803 - the names of the arguments are PtychoPINN's

from __future__ import annotations  # help() shows the names of types, not what they stand for

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.containers.inputs import (
    DEFAULT_NPHOTONS,
    Arguments,
    ArrayLike,
    Inputs,
    arguments_from_raw,
    arguments_from_scan,
    check_inputs,
    intensity_scale,
)
from ptycho.errors import ContainerError, ScanError, check_photons
from ptycho.feeding.grouping import DEFAULT_NEIGHBOR_COUNT, Order, Shuffle
from ptycho.feeding.pipeline import Repeat
from ptycho.feeding.sources import GroupedArray, GroupSource
from ptycho.files import FileArray, check_regular, load
from ptycho.files.frames import located
from ptycho.files.npz import NpzPart, damage_named, members, open_zip, values_offset
from ptycho.files.stacks import CHUNK_BYTES
from ptycho.files.storage import array_member, npz_archive, npz_path, write_arrays
from ptycho.raw_data import RawData
from ptycho.scan import Scan

STACK_KEYS = ("X", "Y_I", "Y_phi")
NEEDED_KEYS = ("norm_Y_I", "coords_nominal", "coords_true", "probe")
OPTIONAL_KEYS = ("YY_full", "nn_indices", "global_offsets", "local_offsets")
"""Left out of the file where a container has None. PtychoPINN writes a pickled None there
instead."""
SCALE_KEY = "intensity_scale"
"""Ours alone: PtychoPINN has it in its settings."""
KEPT_NAMES = ("norm_Y_I", SCALE_KEY, *OPTIONAL_KEYS)
"""The attributes that a container keeps as they are given."""


class Container(ABC):
    """Grouped images under PtychoPINN's names, made from arrays, from a scan or from a file.

    The constructor takes grouped arrays, tensors or sources of B groups of C frames of N x N
    pixels: ``X``, ``Y_I`` and ``Y_phi`` (B, N, N, C) real, where ``Y_I`` and ``Y_phi`` may both be
    None for amplitude 1 and phase 0; ``coords_nominal`` and ``coords_true`` (B, 1, 2, C) pixels,
    axis 2 is [x, y]; ``nn_indices`` (B, C), ``global_offsets`` (B, 1, 2, 1) and ``local_offsets``
    (B, ...), or None; ``probeGuess`` (N, N) complex. Raises ContainerError where they do not fit
    together.

    ``intensity_scale`` is the s of ``targets``: sqrt(nphotons) / (N/2).
    """

    intensity_scale: float

    def __init__(
        self,
        X: ArrayLike,
        Y_I: ArrayLike,
        Y_phi: ArrayLike,
        norm_Y_I: ArrayLike,
        YY_full: ArrayLike,
        coords_nominal: ArrayLike,
        coords_true: ArrayLike,
        nn_indices: ArrayLike,
        global_offsets: ArrayLike,
        local_offsets: ArrayLike,
        probeGuess: ArrayLike,
    ) -> None:
        arguments = Arguments(
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
        inputs = check_inputs(arguments)
        self._set_inputs(arguments, inputs)

        self.norm_Y_I, self.YY_full, self.nn_indices = norm_Y_I, YY_full, nn_indices
        self.global_offsets, self.local_offsets = global_offsets, local_offsets
        self.intensity_scale = intensity_scale(DEFAULT_NPHOTONS, inputs.images.shape[1])

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
        """Group the frames of a scan; ``ptycho.feeding.grouping.group`` explains the counts.

        The lazy container leaves the frames in their file, the eager one puts every image on the
        device. Raises ContainerError for counts that cannot be met, ScanError for frames that
        cannot be used.
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
        return build_container(cls, arguments, intensity_scale(nphotons, scan.frame_size))

    @classmethod
    def from_raw_data_without_pc(
        cls,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        diff3d: ArrayLike,
        probeGuess: ArrayLike,
        scan_index: ArrayLike,
        objectGuess: ArrayLike = None,
        N: int | None = None,
        K: int = DEFAULT_NEIGHBOR_COUNT,
        nsamples: int = 1,
        *,
        gridsize: int = 1,
        seed: int = 0,
        nphotons: float = DEFAULT_NPHOTONS,
    ) -> Self:
        """Group a scan of loose arrays, as ``RawData.generate_grouped_data`` does."""
        raw = RawData.from_coords_without_pc(
            xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess
        )
        arguments = arguments_from_raw(
            raw, N, K, nsamples, gridsize=gridsize, seed=seed, nphotons=nphotons
        )
        return build_container(cls, arguments, intensity_scale(nphotons, arguments.X.shape[1]))

    @classmethod
    def from_npz(
        cls, file_path: str | PathLike[str], *, cache_dir: str | PathLike[str] | None = None
    ) -> Self:
        """Open a file that ``to_npz`` wrote; the lazy container leaves the images in it.

        ``cache_dir`` is where compressed images are unpacked, see ``Scan.open``. Raises ScanError
        or ScanFileError for a file that cannot be used.
        """
        return build_container(cls, *arguments_from_npz(file_path, cache_dir))

    @abstractmethod
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
        """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32).

        ``targets`` makes them what ``model.fit`` takes: ((X*s, coords), (centred Y_I of channel 0
        (b, N, N, 1), X*s, (X*s)^2)) with s = ``intensity_scale``. ``shuffle`` draws a new order
        every epoch, the same sequence of orders for the same ``seed``; "chunks" draws one that a
        disk can follow, see ``ptycho.feeding.grouping.BatchOrder``. ``repeat`` is how many epochs a
        pass has, without end for True. ``input_context`` is the tf.distribute.InputContext of a
        worker: all workers together see every group once.

        Raises ContainerError for sizes that cannot be met, ScanFileError where the scan file has
        changed since it was opened; what goes wrong in a later epoch comes out of the iterator as a
        tf.errors.OpError with the same sentence.
        """

    def as_tf_dataset(self, batch_size: int, shuffle: bool = True) -> tf.data.Dataset:  # noqa: FBT001, FBT002 - PtychoPINN's call
        """``as_dataset`` with targets, under the name and with the defaults of PtychoPINN."""
        return self.as_dataset(batch_size, shuffle=shuffle, targets=True)

    def to_npz(self, file_path: str | PathLike[str]) -> None:
        """Write everything to an NPZ, the images a few groups at a time; None is left out.

        ``from_npz`` opens it. Raises ScanFileError where it cannot be written (what was there stays
        then) or the scan file has changed.
        """
        stacks, arrays = self._contents()
        kept = {name: getattr(self, name) for name in KEPT_NAMES}
        save_container(file_path, stacks, {**arrays, **kept})

    @abstractmethod
    def __len__(self) -> int:
        """B."""

    @abstractmethod
    def _set_inputs(self, arguments: Arguments, inputs: Inputs) -> None:
        """Keep what the container is made of: tensors, or where the images are."""

    @abstractmethod
    def _contents(self) -> tuple[Mapping[str, GroupSource], Mapping[str, Any]]:
        """The images by ``STACK_KEYS``, and coordinates and probe by their names."""


Kind = TypeVar("Kind", bound=Container)


def build_container(kind: Callable[..., Kind], arguments: Arguments, scale: float | None) -> Kind:
    """A container of these arguments; ``scale`` becomes its intensity_scale unless it is None."""
    container = kind(*arguments)
    if scale is not None:
        container.intensity_scale = scale
    return container


@dataclass(frozen=True, slots=True)
class ContainerContents:
    """The arrays of one file, under PtychoPINN's names."""

    stacks: Mapping[str, FileArray]
    """``STACK_KEYS``: (B, N, N, C), C-ordered, real."""
    small: Mapping[str, npt.NDArray[Any]]
    """``NEEDED_KEYS``, and those of ``OPTIONAL_KEYS`` and ``SCALE_KEY`` that the file has."""


def read_container(path: Path, *, cache_dir: Path | None) -> ContainerContents:
    """Open a container's NPZ; nothing is unpickled, and no image is read unless it is compressed.

    Raises ScanError for a damaged or incomplete file, ScanFileError where it cannot be read or
    unpacked into ``cache_dir``.
    """
    check_regular(path)
    with open_zip(path) as archive:
        found = members(path, archive)
        missing = [key for key in (*STACK_KEYS, *NEEDED_KEYS) if key not in found]
        if missing:
            raise ScanError(
                f"{path} lacks {', '.join(missing)}; it has {', '.join(found) or 'no arrays'}"
            )
        parts = {
            key: NpzPart(path, archive, key, found[key]) for key in (*STACK_KEYS, *NEEDED_KEYS)
        }

        stacks = {key: _stack(parts[key], path, cache_dir) for key in STACK_KEYS}

        optional = [key for key in (SCALE_KEY, *OPTIONAL_KEYS) if key in found]
        there = [key for key in optional if not _is_pickled_scalar(path, archive, key, found[key])]
        parts |= {key: NpzPart(path, archive, key, found[key]) for key in there}
        small = {key: load(parts[key]) for key in (*NEEDED_KEYS, *there)}
    return ContainerContents(stacks, small)


def _stack(part: NpzPart, path: Path, cache_dir: Path | None) -> FileArray:
    shape, dtype = part.header
    if len(shape) != 4 or dtype.kind not in "fiu" or part.is_fortran:
        order = " in Fortran order" if part.is_fortran else ""
        raise ScanError(
            f"{part.name} is {dtype} {shape}{order}; real (groups, N, N, channels) in C "
            "order is needed"
        )
    return located(part, path, cache_dir)[0]


def _is_pickled_scalar(
    path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo
) -> bool:
    """Whether this is one Python object instead of an array: numpy.savez makes it of None, and of
    nothing these keys have.
    """
    values_offset(path, key, member)  # checks the member
    with damage_named(path, key), archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            return False
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return dtype.hasobject and shape == ()


def save_container(
    path: str | PathLike[str], stacks: Mapping[str, GroupSource], given: Mapping[str, Any]
) -> None:
    """Write the images and everything in ``given`` that is not None; ``.npz`` is added where it is
    missing.

    The file appears complete or not at all. Raises ScanFileError where it cannot be written,
    ContainerError for anything that is no array of numbers.
    """
    small = {name: np.asarray(values) for name, values in given.items() if values is not None}
    write_stacks(npz_path(path), stacks, small)


def arguments_from_npz(
    path: str | PathLike[str], cache_dir: str | PathLike[str] | None
) -> tuple[Arguments, float | None]:
    """What ``to_npz`` wrote, here or at PtychoPINN: the arguments, images left in the file, and the
    scale if it is there.
    """
    contents = read_container(Path(path), cache_dir=None if cache_dir is None else Path(cache_dir))
    norm = contents.small["norm_Y_I"]
    arguments = Arguments(
        **{key: GroupedArray(file.map(), file=file) for key, file in contents.stacks.items()},
        norm_Y_I=norm.item() if norm.ndim == 0 else norm,
        **{
            key: contents.small.get(key)
            for key in (*OPTIONAL_KEYS, "coords_nominal", "coords_true")
        },
        probeGuess=contents.small["probe"],
    )
    scale = contents.small.get(SCALE_KEY)
    return arguments, None if scale is None else check_photons(f"{path}: {SCALE_KEY}", scale)


def write_stacks(
    path: str | PathLike[str],
    stacks: Mapping[str, GroupSource],
    small: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Write grouped images, a few groups at a time, and small arrays as a stored NPZ that needs no
    pickle.

    The file appears complete or not at all; a link is followed. Raises ScanFileError where it
    cannot be written or a file behind the images has changed, ContainerError for an array of
    Python objects.
    """
    for key, values in small.items():
        if values.dtype.hasobject:
            raise ContainerError(
                f"{key} is {type(values.item(0) if values.size else values).__name__}, not "
                "an array of numbers"
            )
    with npz_archive(Path(path)) as archive:
        for key, source in stacks.items():
            with array_member(archive, key, source.dtype, source.shape) as member:
                for chunk in _group_chunks(source):
                    member.write(chunk.view(np.uint8).data)
        write_arrays(archive, small)


def _group_chunks(source: GroupSource) -> Iterator[npt.NDArray[Any]]:
    """(b, N, N, C) in order; every chunk is overwritten by the next."""
    source.check()
    group_count = source.shape[0]
    per_chunk = min(group_count, max(1, CHUNK_BYTES * group_count // source.nbytes))
    buffer = np.empty((per_chunk, *source.shape[1:]), source.dtype)
    for start in range(0, group_count, per_chunk):
        groups = np.arange(start, min(start + per_chunk, group_count))
        chunk = buffer[: len(groups)]
        source.read(groups, chunk)
        yield chunk
