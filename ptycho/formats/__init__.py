"""File formats of scans, by suffix; one module each behind ``ReadScan``."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ptycho.errors import ScanError, ScanFileError
from ptycho.formats.contents import Contents, ReadScan
from ptycho.formats.npz import read_npz

READERS: Mapping[str, ReadScan] = MappingProxyType({".npz": read_npz})


def read(path: Path, *, cache_dir: Path | None) -> Contents:
    """Open a scan file with the reader of its suffix.

    Raises ScanFileError for a path that is no readable file, ScanError for a format that is not known or not whole.
    """
    if path.is_dir():
        raise ScanFileError(f"{path} is a folder; give the scan file in it")
    if not path.exists():
        raise ScanFileError(f"{path} does not exist; check the path")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ScanError(f"{path} has the suffix {path.suffix!r}; scans are read from {', '.join(READERS)}")
    try:
        return reader(path, cache_dir=cache_dir)
    except PermissionError as error:
        raise ScanFileError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
