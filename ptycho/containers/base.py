"""Containers to a file and back, images a few groups at a time."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.containers.inputs import Arguments
from ptycho.errors import ContainerError, ScanError, photons
from ptycho.feeding.device_memory import gathered
from ptycho.feeding.sources import GroupedArray, GroupSource, Images, Indices
from ptycho.files import FileArray, check_regular, load
from ptycho.files.frames import located
from ptycho.files.npz import NpzPart, damage_named, members, open_zip, values_offset
from ptycho.files.stacks import CHUNK_BYTES
from ptycho.files.storage import array_member, npz_archive, npz_path, write_arrays

# A container's arrays as an NPZ: grouped images are mapped where they lie, the rest is read.


STACK_KEYS = ("X", "Y_I", "Y_phi")
NEEDED_KEYS = ("norm_Y_I", "coords_nominal", "coords_true", "probe")
OPTIONAL_KEYS = ("YY_full", "nn_indices", "global_offsets", "local_offsets")
"""Left out of the file where a container has None. PtychoPINN writes a pickled None there
instead."""
SCALE_KEY = "intensity_scale"
"""Ours alone: PtychoPINN has it in its settings."""


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


KEPT_NAMES = ("norm_Y_I", SCALE_KEY, *OPTIONAL_KEYS)
"""The attributes that a container keeps as they are given."""


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


def save_container(
    path: str | PathLike[str], stacks: Mapping[str, GroupSource], given: Mapping[str, Any]
) -> None:
    """Write the images and everything in ``given`` that is not None; ``.npz`` is added where it is
    missing.

    The file appears whole or not at all. Raises ScanFileError where it cannot be written,
    ContainerError for what is no array of numbers.
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
    return arguments, None if scale is None else photons(f"{path}: {SCALE_KEY}", scale)


def write_stacks(
    path: str | PathLike[str],
    stacks: Mapping[str, GroupSource],
    small: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Write grouped images, a few groups at a time, and small arrays as a stored NPZ that needs no
    pickle.

    The file appears whole or not at all; a link is followed. Raises ScanFileError where it cannot
    be written or a file behind the images has changed, ContainerError for an array of Python
    objects.
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
