"""libhdf5 through h5py: files opened, kept open and let go, and its errors as one sentence."""

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import h5py

from ptycho.errors import PtychoError, ScanError, ScanFileError
from ptycho.files import FileState

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
"""Chosen: of what libhdf5 says; it may repeat whole paths."""


@contextlib.contextmanager
def hdf5_named(
    what: str, advice: str = "the file is damaged; copy or write it anew"
) -> Iterator[None]:
    """What libhdf5 finds wrong in ``what``, as one sentence that names it."""
    try:
        yield
    except PtychoError:
        raise
    except DAMAGE as error:
        raise ScanError(f"{what} cannot be read ({first_words(error)}); {advice}") from error


def first_words(error: BaseException) -> str:
    """Of libhdf5's errors only the first line tells; KeyError's are quoted."""
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
        raise ScanError(f"{path} {what} ({first_words(error)}); copy or write it anew") from error


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
