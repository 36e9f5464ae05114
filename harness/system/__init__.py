"""What the machine reports, one reader of each; here: files, replaced in one step and locked.

A reader sees the old file or the new one, and never files of two judgements side by side.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.errors import RunDirectoryError

FINDINGS_FILE = "findings.json"
JUNIT_FILE = "junit.xml"
SUMMARY_FILE = "summary.md"
REPORT_FILE = "report.html"
PLOTS_FOLDER = "plots"

_OF_A_JUDGEMENT = (
    FINDINGS_FILE,
    JUNIT_FILE,
    SUMMARY_FILE,
    REPORT_FILE,
    f"{PLOTS_FOLDER}/*.svg",
    f"{PLOTS_FOLDER}/*.png",
)
"""Everything in a run directory that says what was judged, as patterns; what was measured is none
of them."""

# Readable by everybody, as files are that open() makes; mkstemp alone would give the owner's only.
_MODE = 0o644
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system without locks says (fcntl_locking(2), and NFS without its lock daemon)."""
ONE_THREAD = threading.RLock()
"""Held while a thread has the file's lock, which is the process's own, and while it closes a
descriptor of such a file beside others: closing any of them gives the lock of the whole process
back (fcntl_locking(2))."""


# A file in one step.


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` in place of ``path``, in one step. Raises OSError."""
    unfinished = _staged(path, content)
    try:
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def create(path: Path, content: bytes) -> None:
    """Make the file ``path`` of ``content``, in one step; a file that is there stays as it is.
    Raises OSError.
    """
    unfinished = _staged(path, content)
    try:
        # link(2) puts a name in place only if it is free.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(unfinished)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """``replace``, of a text in UTF-8. Raises RunDirectoryError when it cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """``replace``, for a run directory. Raises RunDirectoryError when it cannot be written."""
    try:
        replace(path, content)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error}") from error


def _staged(path: Path, content: bytes) -> Path:
    """A file beside ``path`` that holds ``content``, under a name of its own. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        unfinished.chmod(_MODE)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    return unfinished


# The files of a judgement, all at once.


def replace_judgement(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace all files of the judgement in ``folder`` by ``contents``, by their paths from there.

    What an earlier judgement left goes first and the new files come last, so that a process which
    is killed half-way leaves files of one of the two and none of the other. Two processes that
    judge the same run take turns. Raises RunDirectoryError when a file cannot be written; then
    those of the earlier judgement are as they were, or gone.
    """
    with _folder_locked(folder):
        _clear_unfinished(folder)
        _make_folders(folder, contents)
        staged: dict[str, Path] = {}
        try:
            for name, content in contents.items():
                staged[name] = _staged(folder / name, content)
            remove_judgement(folder)
            for name, unfinished in staged.items():
                unfinished.replace(folder / name)
        except OSError as error:
            raise RunDirectoryError(f"{folder} cannot be written: {error}") from error
        finally:
            for unfinished in staged.values():
                unfinished.unlink(missing_ok=True)


def remove_judgement(folder: Path) -> None:
    """Remove what was judged, before more is measured: it would speak for a run that has changed.
    Raises OSError.
    """
    for pattern in _OF_A_JUDGEMENT:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _make_folders(folder: Path, contents: Mapping[str, bytes]) -> None:
    for place in {(folder / name).parent for name in contents} - {folder}:
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"{place} cannot be made: {error}") from error


def _clear_unfinished(folder: Path) -> None:
    """Files that a killed process was about to put in place; who holds the folder has none yet."""
    for pattern in _OF_A_JUDGEMENT:
        place, _, name = pattern.rpartition("/")
        for path in (folder / place).glob(f".{name}-*"):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """One process at a time writes a judgement; the others wait."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RunDirectoryError(f"{folder} cannot be written: {error}") from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody waits
            lock(descriptor)
        yield
    finally:
        os.close(descriptor)


# Two locks. That of an open file (flock(2)) belongs to everybody who has inherited its descriptor,
# and ends with the last of them: a child keeps it when its parent dies. A record lock (fcntl(2)) is
# the process's own: no fork holds it, and it ends with that process.


def lock(descriptor: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Take the lock of an open file until its last descriptor is closed.

    False where another process has it and ``wait`` is False. Raises OSError where the file system
    has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(descriptor: int, *, shared: bool = False) -> Iterator[bool]:
    """Hold the file's lock in the block, with other readers where ``shared``; False where the file
    system has no locks.

    The lock is the process's own (a record lock, not flock): a fork does not hold it, and the
    kernel gives it back when the process dies. Raises OSError.
    """
    with ONE_THREAD:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)


def read_whole(path: Path, from_byte: int = 0) -> bytes:
    """What a file holds from ``from_byte`` on, while nobody is in the middle of a row. Raises
    OSError.
    """
    with ONE_THREAD, path.open("rb") as file, locked(file.fileno(), shared=True):
        file.seek(from_byte)
        return file.read()
