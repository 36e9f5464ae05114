"""The contract NPZ: stored members are mapped where they lie, deflated ones are spooled once; nothing is unpickled."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.formats.archive import damage_named, members, open_zip, pieces, values_offset
from ptycho.formats.contents import (
    FRAME_KEYS,
    REQUIRED_KEYS,
    SMALL_KEYS,
    ArrayHeader,
    CheckLayout,
    Contents,
    FileArray,
    FileState,
    Layout,
)
from ptycho.formats.npy import NpyHeader, read_header
from ptycho.formats.spool import spool

_PIECE_BYTES = 64 * 1024
"""Half of glibc's initial M_MMAP_THRESHOLD (mallopt(3)): freeing larger pieces raises it, and what is freed then stays."""


def read_npz(path: Path, *, cache_dir: Path | None, check: CheckLayout) -> Contents:
    """Open a contract NPZ.

    ``diff3d`` (or ``diffraction``) is left on disk; a deflated one is unpacked once into ``cache_dir``, after everything
    else has been read. Raises ScanError for a damaged or incomplete file, ScanFileError where it cannot be read or spooled.
    """
    with open_zip(path) as archive:
        found = members(path, archive)
        frames_key, notes = _frames_key(path, found)
        missing = [key for key in REQUIRED_KEYS if key not in found]
        if missing:
            raise ScanError(f"{path} lacks {', '.join(missing)}; it has {', '.join(found)}")
        used = [frames_key, *(key for key in SMALL_KEYS if key in found)]
        headers = {key: member_header(path, archive, key, found[key]) for key in used}
        if headers[frames_key].is_fortran:
            raise ScanError(
                f"{path}: {frames_key} is in Fortran order, which scatters every frame; save numpy.ascontiguousarray of it"
            )
        check(Layout(path, frames_key, {key: ArrayHeader(header.shape, header.dtype) for key, header in headers.items()}))
        small = {key: load_member(path, archive, key, found[key], headers[key]) for key in used[1:]}
        frames, more = locate_member(path, archive, frames_key, found[frames_key], headers[frames_key], cache_dir)
    return Contents(frames_key, frames, small, tuple(found), notes + more)


def _frames_key(path: Path, found: Mapping[str, zipfile.ZipInfo]) -> tuple[str, tuple[str, ...]]:
    keys = [key for key in FRAME_KEYS if key in found]
    if not keys:
        raise ScanError(f"{path} lacks diff3d (or diffraction), the frames; it has {', '.join(found) or 'no arrays'}")
    if len(keys) == 1:
        return keys[0], ()
    first, second = (found[key] for key in keys)
    if (first.CRC, first.file_size) != (second.CRC, second.file_size):
        raise ScanError(f"{path} has both diff3d and diffraction and they differ; keep the one that holds the amplitudes")
    return keys[0], ("diff3d and diffraction hold the same bytes, by size and checksum; diff3d is read",)


def member_header(path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo) -> NpyHeader:
    """The header of one member, whose announced size it must fit."""
    values_offset(path, key, member)  # checks the member
    with damage_named(path, key), archive.open(member) as file:
        header = read_header(file, name=f"{path}: {key}")
    found_bytes = member.file_size - header.length_bytes
    if found_bytes != header.values_bytes:
        raise ScanError(
            f"{path}: {key} announces {header.values_bytes} bytes of values and holds {found_bytes}; write the file anew"
        )
    return header


def load_member(path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo, header: NpyHeader) -> npt.NDArray[Any]:
    """One small array, whole, its checksum and length checked by reading through the zip layer."""
    try:
        values = np.empty(header.values_bytes, np.uint8)
    except MemoryError as error:
        raise ScanError(
            f"{path}: {key} needs {header.values_bytes} bytes, more than there is memory; save a smaller one"
        ) from error
    # Straight into the array, in pieces: the object grows with the scan, and should be held once while it is read.
    start = -header.length_bytes
    for piece in pieces(path, key, archive, member, piece_bytes=_PIECE_BYTES):
        content = np.frombuffer(piece, np.uint8)[max(0, -start) :]
        values[max(0, start) : start + len(piece)] = content
        start += len(piece)
    return values.view(header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")


def locate_member(
    path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo, header: NpyHeader, cache_dir: Path | None
) -> tuple[FileArray, tuple[str, ...]]:
    """Where the values of one large array lie, and what had to be done for it: a deflated one is unpacked once."""
    if member.compress_type == zipfile.ZIP_STORED:
        start_bytes = values_offset(path, key, member)
        notes = (f"{key} is mapped where it lies in the file; its checksum is not verified",)
        return _file_array(path, start_bytes, header, _state(archive)), notes
    spooled, is_new = spool(path, archive, member, cache_dir=cache_dir)
    done = "was unpacked once to" if is_new else "is read from its unpacked copy"
    notes = (f"{key} is compressed, which has no random access; it {done} {spooled}",)
    return _file_array(spooled, 0, header, FileState.of(spooled.stat())), notes


def _state(archive: zipfile.ZipFile) -> FileState:
    """Of the very file that the headers were read from, whatever lies at its path by now."""
    assert archive.fp is not None  # noqa: S101 - open, for mypy
    return FileState.of(os.fstat(archive.fp.fileno()))


def _file_array(path: Path, start_bytes: int, header: NpyHeader, state: FileState) -> FileArray:
    return FileArray(path, start_bytes + header.length_bytes, header.shape, header.dtype, state)
