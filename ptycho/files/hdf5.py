"""Data sets of HDF5: contiguous ones are mapped at their offset, chunked ones read through h5py.

libhdf5's errors become one sentence here. What an HDF5 or a CXI file holds is in
``ptycho.files.cxi``.
"""

import contextlib
import math
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from ptycho.errors import PtychoError, ScanError, ScanFileError
from ptycho.files import BLOCK_BYTES, ArrayHeader, FileArray, FileState, Part
from ptycho.files.stacks import CHUNK_BYTES, FrameStack, Indices, frames_per_chunk, three

# libhdf5 through h5py: files opened, kept open and let go, and its errors as one sentence.


DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    SystemError,
)
"""What h5py makes of libhdf5's errors, by their major number, and of types that numpy does not
have."""
_MOST_LETTERS = 160
"""Chosen: of what libhdf5 says; it may repeat complete paths."""


@contextlib.contextmanager
def hdf5_named(
    what: str, advice: str = "the file is damaged; copy or write it again"
) -> Iterator[None]:
    """What libhdf5 finds wrong in ``what``, as one sentence that names it."""
    try:
        yield
    except PtychoError:
        raise
    except DAMAGE as error:
        raise ScanError(f"{what} cannot be read ({first_words(error)}); {advice}") from error


def first_words(error: BaseException) -> str:
    """The first line of libhdf5's error, which says what is wrong; a KeyError's is quoted."""
    words = (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else error.args[0]
        if error.args
        else ""
    )
    lines = str(words).strip("\"'").splitlines()
    return lines[0][:_MOST_LETTERS] if lines else type(error).__name__


class KeepsOpen(Protocol):
    """Something that leaves an HDF5 file open."""

    def close_if_changed(self) -> None:
        """Close it where the file on disk is another one by now, or has been written to."""


KEEPERS: weakref.WeakSet[KeepsOpen] = weakref.WeakSet()
"""Everything that leaves a file open in this process: libhdf5 shares an open file, and what it
holds of its content, among all who open it, so a changed one would be read as it was before."""


def open_file(path: Path, *, cache_bytes: int) -> h5py.File:
    """The HDF5 file at ``path`` for reading, with a chunk cache of at most ``cache_bytes`` for
    every data set.

    Raises ScanError for a file that is none or damaged, ScanFileError for one that cannot be
    opened.
    """
    if path.stat().st_size == 0:
        raise ScanError(f"{path} is empty; an HDF5 file was expected")

    for keeper in tuple(KEEPERS):
        keeper.close_if_changed()
    with path.open("rb"):  # a file that may not be read is said to be so by the system
        pass

    if not h5py.is_hdf5(path):
        raise ScanError(
            f"{path} is not an HDF5 file, or its beginning is damaged; check the suffix"
        )

    try:
        # Best effort: many network file systems cannot lock, and nothing is written.
        return h5py.File(
            path,
            "r",
            rdcc_nbytes=cache_bytes,
            rdcc_nslots=_slots(cache_bytes),
            locking="best-effort",
        )
    except BlockingIOError as error:
        raise ScanFileError(
            f"{path} is being written by another program; wait until it has closed the file"
        ) from error
    except DAMAGE as error:
        what = "is a truncated HDF5 file" if "truncated" in str(error) else "is a damaged HDF5 file"
        raise ScanError(f"{path} {what} ({first_words(error)}); copy or write it again") from error


def _slots(cache_bytes: int) -> int:
    """Hash slots: the manual wants ten to a hundred times the chunks that fit, and a prime
    (docs.h5py.org, Chunk cache).

    One for every 4 KiB, which no chunk of a scan is smaller than; about 0.2 % of the cache.
    """
    wanted = max(521, cache_bytes // 4096) | 1
    while any(wanted % divisor == 0 for divisor in range(3, int(wanted**0.5) + 1, 2)):
        wanted += 2
    return wanted


def state_of(path: Path) -> FileState:
    """The state of the file at ``path``; raises ScanFileError where it is gone."""
    try:
        return FileState.of(path.stat())
    except OSError as error:
        raise ScanFileError(
            f"{path} cannot be read any more ({error.strerror}); put it back or open the scan again"
        ) from error


_FILTERS: Mapping[int, str] = MappingProxyType(
    {
        h5py.h5z.FILTER_SZIP: "szip",
        32000: "lzf",
        32001: "blosc",
        32004: "LZ4",
        32008: "bitshuffle",
        32013: "zfp",
        32015: "zstd",
        32017: "sz",
        32018: "FCIDECOMP",
        32024: "sz3",
        32026: "blosc2",
    }
)
"""Numbers of the registered filters (github.com/HDFGroup/hdf5_plugins,
RegisteredFilterPlugins.md)."""


class Hdf5Part(Part):
    """One data set."""

    def __init__(self, path: Path, key: str, dataset: h5py.Dataset, state: FileState) -> None:
        self.key, self.name, self.path, self.state, self.dataset = (
            key,
            f"{path}: {key}",
            path,
            state,
            dataset,
        )
        with hdf5_named(self.name):
            if dataset.shape is None:
                raise ScanError(
                    f"{self.name} is an empty data set, without any shape; write the file again"
                )
            dtype = dataset.dtype
            if dtype.hasobject:
                raise ScanError(f"{self.name} holds {_kind_of(dtype)}; numbers are needed")
            if dtype.kind == "V":
                raise ScanError(
                    f"{self.name} holds records with fields "
                    f"({', '.join(dtype.names or ('none',))}); name a plain data set"
                )
            self.header = ArrayHeader(
                tuple(int(extent) for extent in dataset.shape), dtype.newbyteorder("=")
            )
            self.stored_dtype = dtype
            self.chunks: tuple[int, ...] | None = dataset.chunks
            layout = dataset.id.get_create_plist()
            if layout.get_external_count():
                outside = layout.get_external(0)[0].decode(errors="replace")
                raise ScanError(
                    f"{self.name} has its values in another file, {outside}; put them into "
                    "this one with h5repack"
                )
            self.sources = _virtual_sources(self.name, path, dataset) if dataset.is_virtual else ()
        _check_filters(self.name, dataset)

    @property
    def file(self) -> FileArray | None:
        """Where a contiguous data set lies."""
        with hdf5_named(self.name):
            layout = self.dataset.id.get_create_plist()
            if layout.get_layout() != h5py.h5d.CONTIGUOUS or not self.dataset.size:
                return None
            offset_bytes = self.dataset.id.get_offset()
            stored_bytes = self.dataset.id.get_storage_size()

        if offset_bytes is None:  # nothing was ever written: all fill value
            return None

        shape, _ = self.header
        values_bytes = int(np.prod(shape, dtype=object)) * self.stored_dtype.itemsize
        if offset_bytes + values_bytes > self.state.size_bytes or stored_bytes < values_bytes:
            raise ScanError(
                f"{self.name} announces {values_bytes} bytes of values and runs past the "
                "end of the file; it was cut"
            )
        return FileArray(self.path, offset_bytes, shape, self.stored_dtype, self.state)

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The values through h5py, a few rows at a time, in the byte order of this machine."""
        shape, dtype = self.header
        if not shape:
            with hdf5_named(self.name):
                scalar = np.asarray(self.dataset[()], dtype)
            yield scalar.reshape(-1)
            return
        row_bytes = max(1, int(np.prod(shape[1:], dtype=object)) * dtype.itemsize)
        # Whole rows of chunks, so that none is unpacked twice.
        rows = max(1, BLOCK_BYTES // row_bytes, self.chunks[0] if self.chunks else 1)
        for start in range(0, shape[0], rows):
            with hdf5_named(f"{self.name}, from {start} on"):
                block = np.asarray(self.dataset[start : start + rows], dtype)
            yield block.reshape(-1)


def _kind_of(dtype: np.dtype[Any]) -> str:
    if h5py.check_string_dtype(dtype):
        return "text"
    if h5py.check_ref_dtype(dtype):
        return "references"
    return "arrays of varying length" if h5py.check_vlen_dtype(dtype) else "Python objects"


def _check_filters(name: str, dataset: h5py.Dataset) -> None:
    """Refuse compressions that this installation cannot undo; ``hdf5plugin`` is asked only where
    one is needed.
    """
    with hdf5_named(name):
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        missing = [number for number in filters if not h5py.h5z.filter_avail(number)]
        if missing:
            with contextlib.suppress(ImportError):
                import hdf5plugin  # noqa: F401 - registers its filters; an optional package

            missing = [number for number in filters if not h5py.h5z.filter_avail(number)]
    if missing:
        what = _FILTERS.get(missing[0], "an unknown filter")
        raise ScanError(
            f"{name} is compressed with {what} (HDF5 filter {missing[0]}), which is not "
            "installed; pip install hdf5plugin"
        )


def _virtual_sources(
    name: str, path: Path, dataset: h5py.Dataset
) -> tuple[tuple[Path, FileState], ...]:
    """The files that a virtual data set is put together from; libhdf5 itself reads missing ones as
    fill values.
    """
    states = {}
    for mapping in dataset.virtual_sources():
        inside = mapping.file_name == "."
        source = path if inside else path.parent / mapping.file_name
        if "%" in mapping.file_name:
            raise ScanError(
                f"{name} is a virtual data set over numbered files ({mapping.file_name}); "
                "repack it with h5repack"
            )

        try:
            states[source] = FileState.of(source.stat())
            with contextlib.ExitStack() as opened:
                file = (
                    dataset.file
                    if inside
                    else opened.enter_context(h5py.File(source, "r", locking="best-effort"))
                )
                if not isinstance(file.get(mapping.dset_name), h5py.Dataset):
                    raise ScanError(
                        f"{name} is a virtual data set and {source} has no "
                        f"{mapping.dset_name}; put it back"
                    )
        except OSError as error:
            raise ScanError(
                f"{name} is a virtual data set and its source {source} cannot be read "
                f"({first_words(error)}); put it back"
            ) from error

    states.pop(path, None)
    return tuple(states.items())


# Frames of a chunked HDF5 data set, read one by one through h5py and its chunk cache.


class ChunkedFrames(FrameStack):
    """A data set (M, R, C) that cannot be mapped: chunked, compressed, compact or virtual.

    One frame at a time: h5py's fancy indexing is 8 to 34 times slower than this loop (measured, on
    frame chunks). The file is opened where it is first read, once in every process: a forked child
    must not share its parent's. h5py lets one thread at a time into libhdf5, so threads may read
    side by side.
    """

    def __init__(self, part: Hdf5Part, *, cache_bytes: int) -> None:
        self._path, self._key, self._name = part.path, part.key, part.name
        self._shape, self._dtype = three(part.header.shape), part.header.dtype
        self._states: tuple[tuple[Path, FileState], ...] = ((part.path, part.state), *part.sources)
        self._cache_bytes = cache_bytes
        # opening asks everybody, and so itself, to let go of what changed
        self._opening = threading.RLock()
        self._opened: tuple[int, h5py.File, h5py.Dataset] | None = None
        _, rows, columns = self._shape
        if part.chunks is None:
            self.description = "read through h5py"
            return
        sizes = " x ".join(map(str, part.chunks))
        row_chunks = math.ceil(rows / part.chunks[1]) * math.ceil(columns / part.chunks[2])
        row_bytes = row_chunks * math.prod(part.chunks) * self._dtype.itemsize
        if part.chunks[0] > 1 and row_bytes > cache_bytes:
            raise ScanError(
                f"{self._name} has chunks of {sizes}, so one frame needs {row_bytes} bytes "
                f"of them, and cache_bytes is {cache_bytes}; give at least {row_bytes}, or "
                "repack=True to write the frames one after the other"
            )
        self.description = (
            f"read through a chunk cache of {cache_bytes / (1 << 20):.4g} MiB (chunks of {sizes})"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, R, C)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the data set, in the byte order of this machine."""
        return self._dtype

    def take(self, frames: Indices, out: npt.NDArray[Any]) -> None:
        """Write ``frames`` (b,) into ``out`` (b, R, C)."""
        dataset = self._dataset()
        for row, frame in enumerate(frames.tolist()):
            self._read(dataset, frame, 1, out[row : row + 1])

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first frame, frames) through one buffer; every chunk of the file is unpacked once."""
        self.check()
        step = frames_per_chunk(self, chunk_bytes)
        buffer = np.empty((step, *self._shape[1:]), self._dtype)
        dataset = self._dataset()
        for start in range(0, len(self), step):
            block = buffer[: min(step, len(self) - start)]
            self._read(dataset, start, len(block), block)
            yield start, block

    def check(self) -> None:
        """Raise ScanFileError where the file, or the source of a virtual data set, has changed or
        is gone.
        """
        for path, state in self._states:
            if state_of(path) != state:
                raise ScanFileError(f"{path} changed after it was opened; open it again")

    def close_if_changed(self) -> None:
        """Close a file that has changed and must not be read any more."""
        try:
            self.check()
        except ScanFileError:
            self.close()

    def _read(self, dataset: h5py.Dataset, start: int, count: int, out: npt.NDArray[Any]) -> None:
        where = (
            f"{self._name}, frame {start}"
            if count == 1
            else f"{self._name}, frames {start} to {start + count - 1}"
        )
        with hdf5_named(where):
            # The low level: h5py's slicing costs more than the copy of a small frame.
            chosen = dataset.id.get_space()
            chosen.select_hyperslab((start, 0, 0), (count, *self._shape[1:]))
            dataset.id.read(h5py.h5s.create_simple((count, *self._shape[1:])), chosen, out)

    def _dataset(self) -> h5py.Dataset:
        opened = self._opened
        if opened is not None and opened[0] == os.getpid():
            return opened[2]
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                self.check()
                file = open_file(self._path, cache_bytes=self._cache_bytes)
                with hdf5_named(self._name):
                    self._opened = os.getpid(), file, file[self._key]
                KEEPERS.add(self)
            return self._opened[2]

    def close(self) -> None:
        """Let the file go; reading opens it again."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            with contextlib.suppress(RuntimeError, ValueError):
                opened[1].close()
