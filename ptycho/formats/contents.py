"""What a format hands over: the arrays of one scan file under the names of the contract, frames not yet read."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanFileError

FRAME_KEYS = ("diff3d", "diffraction")
"""PtychoPINN writes the first, its older files the second."""
POSITION_KEYS = ("xcoords", "ycoords")
START_KEYS = ("xcoords_start", "ycoords_start")
REQUIRED_KEYS = (*POSITION_KEYS, "probeGuess")
SMALL_KEYS = (*REQUIRED_KEYS, "objectGuess", "scan_index", *START_KEYS)
"""Every array of the contract but the frames."""


class FileState(NamedTuple):
    """What tells a file from another one, and from itself after somebody wrote to it."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The part of a stat result that changes with the content."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class FileArray:
    """Where the raw bytes of a C-ordered array lie in a file, and in which state the file was when it was opened."""

    path: Path
    offset_bytes: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    state: FileState

    def check(self) -> None:
        """Raise ScanFileError where the file has changed, or is gone, since it was opened."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._lost(error) from error
        self._compare(status)

    def open(self) -> io.FileIO:
        """The file, unbuffered and at its first byte; raises ScanFileError where it has changed or is gone."""
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise self._lost(error) from error
        try:
            self._compare(os.fstat(file.fileno()))
        except ScanFileError:
            file.close()
            raise
        return file

    def map(self) -> npt.NDArray[Any]:
        """The array as a read-only memory map; no page is read yet.

        Raises ScanFileError where the file has changed. A file that is cut while the map is being read ends the process
        (SIGBUS, mmap(2)): ``check`` before a pass makes that unlikely and cannot exclude it.
        """
        with self.open() as file:
            return np.memmap(file, dtype=self.dtype, mode="r", offset=self.offset_bytes, shape=self.shape)

    def _compare(self, status: os.stat_result) -> None:
        if FileState.of(status) != self.state:
            raise ScanFileError(f"{self.path} changed after it was opened; open it again")

    def _lost(self, error: OSError) -> ScanFileError:
        return ScanFileError(f"{self.path} cannot be read any more ({error.strerror}); put it back or open the scan again")


class ArrayHeader(NamedTuple):
    """What an array claims to be."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """The shapes and types of the contract's arrays in one scan file: all that is known before a value is read."""

    path: Path
    frames_key: str
    """The key that the frames were found under."""
    headers: Mapping[str, ArrayHeader]
    """Of the frames and of every other array of the contract that the file has."""


@dataclass(frozen=True, slots=True)
class Contents:
    """One scan file, opened: its layout has been checked, its values have not."""

    frames_key: str
    """The key that the frames were found under, for messages."""
    frames: FileArray
    small: Mapping[str, npt.NDArray[Any]]
    """The other arrays of the contract that the file has, whole: see ``SMALL_KEYS``."""
    keys: tuple[str, ...]
    """Everything that is in the file, used or not."""
    notes: tuple[str, ...]
    """What was assumed or done on the way, one sentence each."""


class CheckLayout(Protocol):
    """Refuses a layout that breaks the contract."""

    def __call__(self, layout: Layout) -> None:
        """Raise ScanError with one sentence that names file and key."""


class ReadScan(Protocol):
    """One file format."""

    def __call__(self, path: Path, *, cache_dir: Path | None, check: CheckLayout) -> Contents:
        """Open ``path``: read every header, ``check`` them together, and only then read or unpack a value.

        Raises ScanError or ScanFileError with one sentence that names file and key.
        """
