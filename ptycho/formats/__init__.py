"""File formats of scans, by suffix; one module each behind ``ReadScan``."""

import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ptycho.errors import ScanError, ScanFileError
from ptycho.formats.contents import CheckLayout, Contents, ReadScan
from ptycho.formats.npz import read_npz

READERS: Mapping[str, ReadScan] = MappingProxyType({".npz": read_npz})


def read(path: Path, *, cache_dir: Path | None, check: CheckLayout) -> Contents:
    """Open a scan file with the reader of its suffix, which lets ``check`` see its layout before it reads a value.

    Raises ScanFileError for a path that is no readable file, ScanError for a format that is not known or not whole.
    """
    check_regular(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ScanError(f"{path} has the suffix {path.suffix!r}; scans are read from {', '.join(READERS)}")
    try:
        return reader(path, cache_dir=cache_dir, check=check)
    except ScanFileError:
        raise
    except OSError as error:
        raise ScanFileError(f"{path} cannot be read ({error.strerror or error}); check the file and its permissions") from error


def check_regular(path: Path) -> None:
    """Raise ScanFileError with the reason where there is no regular file."""
    # Opening a FIFO would wait for its writer, so the kind of file is asked for first.
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ScanFileError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character.
        why = error.strerror if isinstance(error, OSError) else error
        raise ScanFileError(f"{path} cannot be reached ({why}); check the path and its permissions") from error
    if stat.S_ISDIR(mode):
        raise ScanFileError(f"{path} is a folder; give the scan file in it")
    if not stat.S_ISREG(mode):
        raise ScanFileError(f"{path} is not a regular file; give a scan file on disk")
