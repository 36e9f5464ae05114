"""Scan files, and what every format gives: the arrays of one scan, not yet read, and where their
values lie.

A format is a ``Store`` of ``Part``s; ``ptycho.files.formats`` chooses it by suffix. ``FileArray``
is an array that can be mapped, as long as its file stays what it was.
"""

import contextlib
import io
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from ptycho.errors import PtychoError, ScanError, ScanFileError

Progress = Callable[[str, int, int], None]
"""Called with the name of the work, the bytes that are done and the bytes in all."""
BLOCK_BYTES = 64 * 1024
"""Half of glibc's initial M_MMAP_THRESHOLD (mallopt(3)): freeing larger blocks raises it, and what
is freed then stays."""


class FileState(NamedTuple):
    """What differs between two files, and in one file after it was written to."""

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
    """Where the raw bytes of a C-ordered array lie in a file, and in which state the file was when
    it was opened.
    """

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
        """The file, unbuffered and at its first byte; raises ScanFileError where it has changed or
        is gone.
        """
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

        Raises ScanFileError where the file has changed. A file that is cut while the map is being
        read ends the process (SIGBUS, mmap(2)): ``check`` before a pass makes that unlikely and
        cannot exclude it.
        """
        with self.open() as file:
            return np.memmap(
                file, dtype=self.dtype, mode="r", offset=self.offset_bytes, shape=self.shape
            )

    def _compare(self, status: os.stat_result) -> None:
        if FileState.of(status) != self.state:
            raise ScanFileError(f"{self.path} changed after it was opened; open it again")

    def _lost(self, error: OSError) -> ScanFileError:
        return ScanFileError(
            f"{self.path} cannot be read any more ({error.strerror}); put it back or open "
            "the scan again"
        )


class ArrayHeader(NamedTuple):
    """What an array claims to be."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Part(ABC):
    """One array of a scan before it is read: what it claims to be, and the ways to its values."""

    name: str
    """How messages begin: the file, and the key or data set in it."""
    key: str
    """The key or data set alone."""
    header: ArrayHeader
    is_fortran: bool = False
    """Whether the first axis varies fastest."""

    @abstractmethod
    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Every value in stored order, as flat arrays of a few; raises ScanError where they are
        damaged or too few.
        """

    @property
    def file(self) -> FileArray | None:
        """Where the values lie one after the other in a file, C-ordered in ``header.shape`` unless
        ``is_fortran``.
        """
        return None


class GivenPart(Part):
    """An array that the user handed over."""

    def __init__(self, name: str, values: npt.NDArray[Any]) -> None:
        self.name = self.key = name
        self.header = ArrayHeader(values.shape, values.dtype)
        self._values = values

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The values, at once: they are in memory."""
        yield self._values.reshape(-1)


def load(part: Part) -> npt.NDArray[Any]:
    """One complete array, C-ordered or Fortran-ordered as stored; raises ScanError where memory
    does not suffice.
    """
    shape, dtype = part.header
    try:
        values = np.empty(shape, dtype, order="F" if part.is_fortran else "C")
    except (MemoryError, ValueError) as error:  # ValueError: more than an address can say.
        needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        raise ScanError(
            f"{part.name} needs {needed} bytes, more than there is memory; save a smaller one"
        ) from error
    flat = values.ravel(order="K")  # a view in stored order
    start = 0
    for block in part.blocks():
        flat[start : start + block.size] = block
        start += block.size
    return values


class Geometry(NamedTuple):
    """From what the file calls a position, in metres, to the patch centre in pixels: matrix @
    position.
    """

    matrix: npt.NDArray[np.float64]
    """(2, columns): rows are x and y, in pixels per metre."""
    notes: tuple[str, ...]


class Names(NamedTuple):
    """Where a format keeps the arrays of a scan; None for what the file has not."""

    frames: str | None
    positions: str | tuple[str, str] | None
    """One array of [x, y] per frame, or one of x and one of y."""
    probe: str | None = None
    object: str | None = None
    mask: str | None = None
    order: tuple[str, ...] = ()
    """Positions that nothing reads and that must be sound all the same."""
    scan_index: str | None = None


class Store(Protocol):
    """One open scan file of one format."""

    path: Path
    state: FileState
    keys: tuple[str, ...]
    """Everything that is in the file, used or not."""

    def names(self, frames: str | None) -> tuple[Names, tuple[str, ...]]:
        """Where this file keeps what, and notes about it; ``frames`` is what the user asked for.

        Raises ScanError where the file does not say.
        """

    def part(self, key: str) -> Part:
        """The array of that name; raises ScanError where there is none, or none that can be
        used.
        """

    def close(self) -> None:
        """Let the file go."""

    def geometry(self, frame_size: int, pixel_size_m: float | None) -> Geometry | None:
        """How this file's metres become pixels, or None where it does not say; raises ScanError
        where it says it wrongly.
        """


# Paths that are looked at before they are opened.


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the system says against reading ``path``, as one sentence."""
    try:
        yield
    except PtychoError:
        raise
    except OSError as error:
        raise ScanFileError(
            f"{path} cannot be read ({error.strerror or error}); check the file and its permissions"
        ) from error


def check_regular(path: Path) -> None:
    """Raise ScanFileError for a path that is no readable regular file."""
    # Opening a FIFO would wait for its writer, so the kind of file is asked for first.
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ScanFileError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character.
        why = error.strerror if isinstance(error, OSError) else error
        raise ScanFileError(
            f"{path} cannot be reached ({why}); check the path and its permissions"
        ) from error
    if stat.S_ISDIR(mode):
        raise ScanFileError(f"{path} is a folder; give the scan file in it")
    if not stat.S_ISREG(mode):
        raise ScanFileError(f"{path} is not a regular file; give a scan file on disk")
