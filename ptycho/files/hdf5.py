"""HDF5 by data set path: contiguous data sets are mapped at their offset, chunked ones read through
h5py.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import (
    BLOCK_BYTES,
    ArrayHeader,
    FileArray,
    FileState,
    Part,
)
from ptycho.formats.hdf5_file import first_words, hdf5_named

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
                    f"{self.name} is an empty data set, without any shape; write the file anew"
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
