"""File formats of scans, by suffix; one module each behind ``Store``."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from ptycho.errors import ScanError
from ptycho.formats.contents import Store
from ptycho.formats.paths import check_regular, reading


class _Open(Protocol):
    def __call__(self, path: Path, *, cache_bytes: int) -> Store: ...


def _npz(path: Path, *, cache_bytes: int) -> Store:
    from ptycho.formats.npz import NpzStore

    return NpzStore(path, cache_bytes=cache_bytes)


def _npy(path: Path, *, cache_bytes: int) -> Store:
    from ptycho.formats.tables import NpyStore

    return NpyStore(path, cache_bytes=cache_bytes)


def _hdf5(path: Path, *, cache_bytes: int) -> Store:
    from ptycho.formats.hdf5 import Hdf5Store

    return Hdf5Store(path, cache_bytes=cache_bytes)


def _cxi(path: Path, *, cache_bytes: int) -> Store:
    from ptycho.formats.cxi import CxiStore

    return CxiStore(path, cache_bytes=cache_bytes)


STORES: Mapping[str, _Open] = MappingProxyType(
    {".npz": _npz, ".npy": _npy, ".h5": _hdf5, ".hdf5": _hdf5, ".hdf": _hdf5, ".cxi": _cxi}
)
"""Imported when one is opened: h5py takes longer to import than an NPZ to open, and 10 MB."""


@contextlib.contextmanager
def open_store(path: Path, *, cache_bytes: int) -> Iterator[Store]:
    """Open a scan file by its suffix.

    Raises ScanFileError for a path that is no readable file, ScanError for a format that is not known or not whole.
    """
    check_regular(path)
    opener = STORES.get(path.suffix.lower())
    if opener is None:
        raise ScanError(f"{path} has the suffix {path.suffix!r}; scans are read from {', '.join(STORES)}")
    with reading(path):
        store = opener(path, cache_bytes=cache_bytes)
        try:
            yield store
        finally:
            store.close()
