"""File formats of scans, by suffix; one module each behind ``Store``."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ptycho.errors import ScanError
from ptycho.files import Store
from ptycho.formats.paths import check_regular, reading


def _npz(path: Path) -> Store:
    from ptycho.files.npz import NpzStore

    return NpzStore(path)


def _npy(path: Path) -> Store:
    from ptycho.formats.tables import NpyStore

    return NpyStore(path)


def _hdf5(path: Path) -> Store:
    from ptycho.files.cxi import Hdf5Store

    return Hdf5Store(path)


def _cxi(path: Path) -> Store:
    from ptycho.files.cxi import CxiStore

    return CxiStore(path)


STORES: Mapping[str, Callable[[Path], Store]] = MappingProxyType(
    {
        ".npz": _npz,
        ".npy": _npy,
        ".h5": _hdf5,
        ".hdf5": _hdf5,
        ".hdf": _hdf5,
        ".nxs": _hdf5,
        ".cxi": _cxi,
    }
)
"""Imported when one is opened: h5py takes longer to import than an NPZ to open, and 10 MB."""


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open a scan file by its suffix.

    Raises ScanFileError for a path that is no readable file, ScanError for a format that is not
    known or not whole.
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
