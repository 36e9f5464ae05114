"""One writer of a file at a time, whoever of them is killed meanwhile."""

import contextlib
import errno
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system without locks says (fcntl_locking(2), and NFS without its lock daemon)."""
ONE_THREAD = threading.RLock()
"""Held while a thread has the file's lock, which is the process's own, and while it closes a
descriptor of such a file beside others: closing any of them gives the lock of the whole process
back (fcntl_locking(2))."""


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
