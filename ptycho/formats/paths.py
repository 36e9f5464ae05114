"""Paths that are looked at before they are opened."""

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

from ptycho.errors import PtychoError, ScanFileError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the system says against reading ``path``, as one sentence."""
    try:
        yield
    except PtychoError:
        raise
    except OSError as error:
        raise ScanFileError(
            f"{path} cannot be read ({error.strerror or error}); check the file and its permissions"
        ) from error


def check_regular(path: Path) -> None:
    """Raise ScanFileError for a path that is no readable regular file."""
    # Opening a FIFO would wait for its writer, so the kind of file is asked for first.
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ScanFileError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character.
        why = error.strerror if isinstance(error, OSError) else error
        raise ScanFileError(
            f"{path} cannot be reached ({why}); check the path and its permissions"
        ) from error
    if stat.S_ISDIR(mode):
        raise ScanFileError(f"{path} is a folder; give the scan file in it")
    if not stat.S_ISREG(mode):
        raise ScanFileError(f"{path} is not a regular file; give a scan file on disk")
