"""Frames of a chunked HDF5 data set, read one by one through h5py and its chunk cache."""

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError, ScanFileError
from ptycho.files import FileState
from ptycho.files.hdf5 import Hdf5Part
from ptycho.files.stacks import CHUNK_BYTES, FrameStack, Indices, frames_per_chunk, three
from ptycho.formats.hdf5_file import KEEPERS, hdf5_named, open_file, state_of


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
        """Let go of a file that nobody may read any more."""
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
