"""Which format a scan file has, by suffix, and which of its arrays is what.

The arguments of ``Scan.open`` come before the names that the format has; arrays may lie in files of
their own (.npy, .csv, .txt).
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, ScanError
from ptycho.files import (
    BLOCK_BYTES,
    ArrayHeader,
    FileArray,
    FileState,
    Geometry,
    GivenPart,
    Names,
    Part,
    Store,
    check_regular,
    reading,
)
from ptycho.files.npz import NpzStore, read_header, values_in

# Arrays in files of their own: .npy as it lies on disk, .csv and .txt as columns of numbers.


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
                f"{found_bytes}; it was cut, write it again"
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
        """The complete file is the frames; it holds nothing else."""
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


@dataclass(frozen=True, slots=True)
class Parts:
    """The arrays of one scan, found but not read."""

    frames: Part
    positions: tuple[Part, ...]
    """One with a column for every coordinate, or one of x and one of y."""
    probe: Part | None
    object: Part | None
    mask: Part | None
    order: tuple[Part, ...]
    scan_index: Part | None
    notes: tuple[str, ...]


def choose(store: Store, *, frames: Any, positions: Any, probe: Any, obj: Any, mask: Any) -> Parts:  # noqa: ANN401 - finds out
    """Find every array; raises ContainerError for arguments that name none, ScanError for names
    that are not there.
    """
    if frames is not None and not isinstance(frames, str):
        raise ContainerError(
            f"frames is {type(frames).__name__}; the name of the frames in {store.path} is a str"
        )

    names, notes = store.names(frames)

    return Parts(
        frames=store.part(_known(names.frames)),
        positions=_positions(store, positions, names),
        probe=_part(store, "probe", probe, names.probe),
        object=_part(store, "object", obj, names.object),
        mask=_part(store, "mask", mask, names.mask),
        order=tuple(store.part(key) for key in names.order) if positions is None else (),
        scan_index=None if names.scan_index is None else store.part(names.scan_index),
        notes=notes,
    )


def _known(name: str | None) -> str:
    assert name is not None  # noqa: S101 - a store raises where it has no frames
    return name


def _positions(store: Store, given: Any, names: Names) -> tuple[Part, ...]:  # noqa: ANN401 - finds out
    if given is None:
        if names.positions is None:
            raise ContainerError(
                f"{store.path} does not say where the frames were taken; give positions, an "
                "array (M, 2) of [x, y] or its place"
            )
        given = names.positions

    is_pair = (
        isinstance(given, tuple | list)
        and len(given) == 2
        and all(_is_axis(item) for item in given)
    )
    found = [_part(store, "positions", item, None) for item in (given if is_pair else (given,))]
    return tuple(part for part in found if part is not None)


def _is_axis(item: Any) -> bool:  # noqa: ANN401 - finds out
    """Whether it stands for all x, or all y: one [x, y] of a list of them is no array."""
    return isinstance(item, str | os.PathLike) or (isinstance(item, np.ndarray) and item.ndim == 1)


def _part(store: Store, role: str, given: Any, name: str | None) -> Part | None:  # noqa: ANN401 - finds out
    """An array itself, a file of its own, or a name in the scan file: a name never ends as those
    files do.
    """
    if given is None:
        return None if name is None else store.part(name)
    if isinstance(given, os.PathLike) or (
        isinstance(given, str) and given.lower().endswith(SUFFIXES)
    ):
        path = Path(given)
        check_regular(path)
        with reading(path):
            return file_part(path)

    if isinstance(given, str):
        return store.part(given)

    try:
        values = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise ContainerError(
            f"{role} is no array ({error}); give an array, a file or a name in {store.path}"
        ) from error

    if values.dtype.hasobject or values.ndim == 0:
        raise ContainerError(
            f"{role} is {given!r:.60}; give an array, a file or a name in {store.path}"
        )
    return GivenPart(role, values)


# File formats of scans, by suffix; one module each behind ``Store``.


def _hdf5(path: Path) -> Store:
    from ptycho.files.cxi import Hdf5Store

    return Hdf5Store(path)


def _cxi(path: Path) -> Store:
    from ptycho.files.cxi import CxiStore

    return CxiStore(path)


STORES: Mapping[str, Callable[[Path], Store]] = MappingProxyType(
    {
        ".npz": NpzStore,
        ".npy": NpyStore,
        ".h5": _hdf5,
        ".hdf5": _hdf5,
        ".hdf": _hdf5,
        ".nxs": _hdf5,
        ".cxi": _cxi,
    }
)
"""h5py is imported when such a file is opened: that takes longer than to open an NPZ, and 10 MB."""


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open a scan file by its suffix.

    Raises ScanFileError for a path that is no readable file, ScanError for a format that is not
    known or not complete.
    """
    check_regular(path)
    opener = STORES.get(path.suffix.lower())
    if opener is None:
        raise ScanError(
            f"{path} has the suffix {path.suffix!r}; scans are read from {', '.join(STORES)}"
        )
    with reading(path):
        store = opener(path)
        try:
            yield store
        finally:
            store.close()
