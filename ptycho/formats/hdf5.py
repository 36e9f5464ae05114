"""HDF5 by data set path: contiguous data sets are mapped at their offset, chunked ones read through
h5py.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.formats.contents import (
    BLOCK_BYTES,
    ArrayHeader,
    FileArray,
    FileState,
    Geometry,
    Names,
    Part,
)
from ptycho.formats.hdf5_file import DAMAGE, first_words, hdf5_named, open_file

_MOST_STEPS = 64
"""Chosen: groups and links of one path; libhdf5 itself follows 16 soft links in a row
(H5Pset_nlinks)."""
_MOST_NAMED = 12
"""Chosen: data sets in one sentence; a NeXus file may have hundreds."""
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


class Hdf5Store:
    """An HDF5 file, open: every array is named by its path in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = FileState.of(path.stat())
        self.file = open_file(path, cache_bytes=BLOCK_BYTES)  # every chunk is read once
        try:
            self.keys = _datasets(path, self.file)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go."""
        with contextlib.suppress(*DAMAGE):
            self.file.close()

    def names(self, frames: str | None) -> tuple[Names, tuple[str, ...]]:
        """Nothing but the frames is known; raises ScanError where they were not named."""
        if frames is None:
            stacks = [key for key in self.keys if self._dimensions(key) == 3]
            found = (
                f"three dimensions have {', '.join(stacks[:_MOST_NAMED])}"
                if stacks
                else "none has three dimensions"
            )
            raise ScanError(
                f"{self.path} is plain HDF5, so name the data set of the frames, "
                f"frames='/...'; {found}"
            )
        return Names(frames, None), ()

    def part(self, key: str) -> Hdf5Part:
        """The data set at that path; raises ScanError where links lead nowhere or into another
        file.
        """
        key = key or "/"
        with hdf5_named(f"{self.path}: {key}"):
            dataset = self.file[self._resolve(key)]
            if not isinstance(dataset, h5py.Dataset):
                raise ScanError(
                    f"{self.path}: {key} is a {type(dataset).__name__.lower()}; name a data set"
                )
            return Hdf5Part(self.path, key, dataset, self.state)

    def geometry(self, frame_size: int, pixel_size_m: float | None) -> Geometry | None:  # noqa: ARG002 - CXI has one
        """None: plain HDF5 has no fixed place for it."""
        return None

    def has(self, key: str) -> bool:
        """Whether there is a link of that name, wherever it leads."""
        *groups, last = _steps(key)
        with hdf5_named(f"{self.path}: {key}"):
            group: Any = self.file
            for step in groups:
                if not (isinstance(group, h5py.Group) and group.id.links.exists(step.encode())):
                    return False
                group = group.get(step)  # None where a link dangles
            return isinstance(group, h5py.Group) and bool(group.id.links.exists(last.encode()))

    def _resolve(self, key: str) -> str:
        """``key`` with its links followed one by one: h5py calls a link that leads nowhere a
        missing name.
        """
        name = f"{self.path}: {key}"
        steps, place, followed = _steps(key), "/", ""
        for _ in range(_MOST_STEPS):
            if not steps:
                return place
            group = self.file[place]
            if not isinstance(group, h5py.Group):
                raise ScanError(
                    f"{name}: {place} is a data set and has no {steps[0]}; {self._has_some()}"
                )
            step, *steps = steps
            links = group.id.links
            if not links.exists(step.encode()):
                if followed:
                    raise ScanError(
                        f"{name} is a link to {followed}, which is not in the file; write "
                        "the file anew"
                    )
                raise ScanError(f"{self.path} has no {key}; {self._has_some()}")
            kind = links.get_info(step.encode()).type
            if kind == h5py.h5l.TYPE_EXTERNAL:
                file_name, inside = (
                    text.decode(errors="replace") for text in links.get_val(step.encode())
                )
                raise ScanError(
                    f"{name} is a link into another file, {file_name}; open that file and "
                    f"name {inside}"
                )
            if kind == h5py.h5l.TYPE_SOFT:
                followed = links.get_val(step.encode()).decode(errors="replace")
                steps = [*_steps(followed), *steps]
                place = "/" if followed.startswith("/") else place
            else:
                place = f"{place.rstrip('/')}/{step}"
        raise ScanError(
            f"{name} leads through more than {_MOST_STEPS} links and groups; they go in a circle"
        )

    def _dimensions(self, key: str) -> int:
        with hdf5_named(f"{self.path}: {key}"):
            shape = self.file[key].shape
        return len(shape or ())

    def _has_some(self) -> str:
        more = len(self.keys) - _MOST_NAMED
        named = ", ".join(self.keys[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"it has {named or 'no data sets'}"


def _steps(key: str) -> list[str]:
    return [step for step in re.split("/+", key) if step and step != "."]


def _datasets(path: Path, file: h5py.File) -> tuple[str, ...]:
    """Every data set by its path, links not followed."""
    found: list[str] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(f"/{name}")

    with hdf5_named(str(path)):
        file.visititems(note)
    return tuple(found)
