"""A container's arrays as an NPZ: grouped images are mapped where they lie, the rest is read."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import FileArray, load
from ptycho.files.frames import located
from ptycho.files.npz import NpzPart
from ptycho.formats.archive import damage_named, members, open_zip, values_offset
from ptycho.formats.paths import check_regular

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
