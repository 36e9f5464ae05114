"""The contract NPZ: stored members are mapped where they lie, deflated ones can be unpacked once;
nothing is unpickled.
"""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import (
    BLOCK_BYTES,
    ArrayHeader,
    FileArray,
    FileState,
    Geometry,
    Names,
    Part,
)
from ptycho.formats.archive import damage_named, members, open_zip, pieces, values_offset
from ptycho.formats.npy import NpyHeader, read_header, values_in

FRAME_KEYS = ("diff3d", "diffraction")
"""PtychoPINN writes the first, its older files the second."""
POSITION_KEYS = ("xcoords", "ycoords")
START_KEYS = ("xcoords_start", "ycoords_start")
REQUIRED_KEYS = (*POSITION_KEYS, "probeGuess")


class NpzPart(Part):
    """One member of the archive, its header read and compared with what the zip directory
    announces.
    """

    def __init__(
        self, path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo
    ) -> None:
        self.key, self.name = key, f"{path}: {key}"
        self.member, self.archive, self.path = member, archive, path
        self._npy = _header(path, archive, key, member)
        self.header, self.is_fortran = (
            ArrayHeader(self._npy.shape, self._npy.dtype),
            self._npy.is_fortran,
        )

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The values through the zip layer, so that checksum and length are compared."""
        return values_in(self._pieces(), self._npy)

    @property
    def file(self) -> FileArray | None:
        """Where a stored member lies; its checksum is not verified there."""
        if self.member.compress_type != zipfile.ZIP_STORED:
            return None
        start_bytes = values_offset(self.path, self.key, self.member) + self._npy.length_bytes
        return FileArray(self.path, start_bytes, *self.header, _state(self.archive))

    def at_start_of(self, copy: Path) -> FileArray:
        """Where the values lie in an unpacked copy of the member."""
        return FileArray(copy, self._npy.length_bytes, *self.header, FileState.of(copy.stat()))

    def _pieces(self) -> Iterator[bytes]:
        return pieces(self.path, self.key, self.archive, self.member, piece_bytes=BLOCK_BYTES)


class NpzStore:
    """A contract NPZ, open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = open_zip(path)
        try:
            self._found = members(path, self._archive)
            self.state = _state(self._archive)
        except BaseException:
            self._archive.close()
            raise
        self.keys = tuple(self._found)

    def close(self) -> None:
        """Let the file go."""
        self._archive.close()

    def names(self, frames: str | None) -> tuple[Names, tuple[str, ...]]:
        """The keys of the contract; raises ScanError where both names of the frames are there and
        differ.
        """
        frames_key, notes = (frames, ()) if frames is not None else self._frames_key()
        probe, obj, index = (
            key if key in self._found else None
            for key in ("probeGuess", "objectGuess", "scan_index")
        )
        order = tuple(key for key in START_KEYS if key in self._found)
        return Names(frames_key, POSITION_KEYS, probe, obj, None, order, index), notes

    def part(self, key: str) -> NpzPart:
        """The member of that name."""
        if key not in self._found:
            # All that are missing, at once.
            lacks = (
                [required for required in REQUIRED_KEYS if required not in self._found]
                if key in REQUIRED_KEYS
                else [key]
            )
            raise ScanError(
                f"{self.path} lacks {', '.join(lacks)}; it has "
                f"{', '.join(self._found) or 'no arrays'}"
            )
        return NpzPart(self.path, self._archive, key, self._found[key])

    def geometry(self, frame_size: int, pixel_size_m: float | None) -> Geometry | None:  # noqa: ARG002 - other formats have one
        """None: an NPZ says nothing about metres."""
        return None

    def _frames_key(self) -> tuple[str, tuple[str, ...]]:
        keys = [key for key in FRAME_KEYS if key in self._found]
        if not keys:
            raise ScanError(
                f"{self.path} lacks diff3d (or diffraction), the frames; it has "
                f"{', '.join(self._found) or 'no arrays'}"
            )
        if len(keys) == 1:
            return keys[0], ()
        first, second = (self._found[key] for key in keys)
        if (first.CRC, first.file_size) != (second.CRC, second.file_size):
            raise ScanError(
                f"{self.path} has both diff3d and diffraction and they differ; keep the one "
                "that holds the amplitudes"
            )
        return keys[0], (
            "diff3d and diffraction hold the same bytes, by size and checksum; diff3d is read",
        )


def _header(path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo) -> NpyHeader:
    """The header of one member, whose announced size it must fit."""
    values_offset(path, key, member)  # checks the member
    with damage_named(path, key), archive.open(member) as file:
        header = read_header(file, name=f"{path}: {key}")
    found_bytes = member.file_size - header.length_bytes
    if found_bytes != header.values_bytes:
        raise ScanError(
            f"{path}: {key} announces {header.values_bytes} bytes of values and holds "
            f"{found_bytes}; write the file anew"
        )
    return header


def _state(archive: zipfile.ZipFile) -> FileState:
    """Of the very file that the headers were read from, whatever lies at its path by now."""
    assert archive.fp is not None  # noqa: S101 - open, for mypy
    return FileState.of(os.fstat(archive.fp.fileno()))
