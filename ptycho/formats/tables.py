"""Arrays in files of their own: .npy as it lies on disk, .csv and .txt as columns of numbers."""

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import (
    BLOCK_BYTES,
    ArrayHeader,
    FileArray,
    FileState,
    Geometry,
    GivenPart,
    Names,
    Part,
)
from ptycho.formats.npy import read_header, values_in

DELIMITERS = {".csv": ",", ".txt": None}
"""None is any white space, as numpy.savetxt writes it."""
SUFFIXES = (".npy", *DELIMITERS)


class NpyPart(Part):
    """One .npy file."""

    def __init__(self, path: Path) -> None:
        self.name, self.key, self.path = str(path), path.name, path
        with path.open("rb") as file:
            self.state = FileState.of(os.fstat(file.fileno()))
            if self.state.size_bytes == 0:
                raise ScanError(f"{path} is empty; a .npy file was expected")
            self._npy = read_header(file, name=str(path))
        found_bytes = self.state.size_bytes - self._npy.length_bytes
        # numpy.save may be called twice on one file, so more is no damage; numpy itself reads the
        # first array.
        if found_bytes < self._npy.values_bytes:
            raise ScanError(
                f"{path} announces {self._npy.values_bytes} bytes of values and holds "
                f"{found_bytes}; it was cut, write it anew"
            )
        self.header, self.is_fortran = (
            ArrayHeader(self._npy.shape, self._npy.dtype),
            self._npy.is_fortran,
        )

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The values, read in pieces."""
        where = self.file
        with where.open() as file:
            yield from values_in(
                _pieces(file, self.name, self._npy.length_bytes + self._npy.values_bytes), self._npy
            )

    @property
    def file(self) -> FileArray:
        """Where the values lie."""
        return FileArray(self.path, self._npy.length_bytes, *self.header, self.state)


def _pieces(file: io.FileIO, name: str, total_bytes: int) -> Iterator[bytes]:
    left_bytes = total_bytes
    while left_bytes:
        piece = file.read(min(left_bytes, BLOCK_BYTES))
        if not piece:
            raise ScanError(f"{name} ends {left_bytes} bytes early; the file was cut")
        left_bytes -= len(piece)
        yield piece


def file_part(path: Path) -> Part:
    """The array in a .npy, .csv or .txt file; raises ScanError for one that holds none."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return NpyPart(path)
    if suffix not in DELIMITERS:
        raise ScanError(
            f"{path} has the suffix {path.suffix!r}; arrays are read from {', '.join(SUFFIXES)}"
        )
    return GivenPart(str(path), _columns(path, DELIMITERS[suffix]))


def _columns(path: Path, delimiter: str | None) -> npt.NDArray[np.float64]:
    """The numbers in the file, (lines, columns); a first line that is none names the columns."""
    try:
        with path.open(encoding="utf-8") as file:
            first = next(
                (line for line in file if line.strip() and not line.lstrip().startswith("#")), ""
            )
            file.seek(0)
            # Only what is no number at all is a name: a first line like "1.0,abc" is damage.
            named = bool(first) and not any(_is_number(word) for word in first.split(delimiter))
            lines = (line for line in file if not (named and line == first))
            with warnings.catch_warnings():
                # of no numbers, which is refused below
                warnings.simplefilter("ignore", UserWarning)
                values = np.loadtxt(lines, delimiter=delimiter, comments="#", ndmin=2)
    except UnicodeDecodeError as error:
        raise ScanError(f"{path} is not text; columns of numbers were expected") from error
    except ValueError as error:
        raise ScanError(
            f"{path} is no table of numbers ({error}); one line per frame was expected"
        ) from error
    if not values.size:
        raise ScanError(f"{path} holds no numbers; one line per frame was expected")
    return values


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class NpyStore:
    """A .npy file of frames; everything else comes from elsewhere."""

    keys: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path, self._frames = path, NpyPart(path)
        self.state = self._frames.state

    def close(self) -> None:
        """Nothing is open."""

    def names(self, frames: str | None) -> tuple[Names, tuple[str, ...]]:
        """The whole file is the frames; it holds nothing else."""
        if frames is not None:
            raise ScanError(f"{self.path} is one array without names; leave frames={frames!r} out")
        return Names("", None), ()

    def part(self, key: str) -> Part:
        """The frames, under the empty name."""
        if key:
            raise ScanError(
                f"{self.path} is one array and has no {key!r}; give an array, or a "
                f"{', '.join(SUFFIXES)} file"
            )
        return self._frames

    def geometry(self, frame_size: int, pixel_size_m: float | None) -> Geometry | None:  # noqa: ARG002 - other formats have one
        """None: a .npy file says nothing about metres."""
        return None
