"""One measurement at a time on each device, among all runs of all users of this machine.

A lease is a flock on a file that is named after the card, in a folder that everybody shares. The
child inherits the descriptor, and the kernel frees the lock when the last holder has ended: a child
that outlives its parent keeps its card. Containers that do not share the folder cannot see each
other's leases; there, other processes on the card are found in the driver's list.
"""

import contextlib
import dataclasses
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import DeviceUnavailable
from harness.run.devices import Device
from harness.system.files import lock

# Fixed places, the same for every user and every job: TMPDIR is often a job's own, XDG_RUNTIME_DIR
# a user's own. /run/lock is what the Filesystem Hierarchy Standard has for this, where everybody
# may write to it (Debian, Ubuntu).
_SHARED = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - shared on purpose; see _open
_POLL_S = 0.1
"""Chosen: a fifth of the shortest run. Ten looks a second at two held cards take 0.4 % of a core
(measured); a blocking flock would take nothing, but can wait for one card only."""
_SAY_AFTER_S = 60.0
"""Chosen: longer than most runs; then after twice as long each time."""

_LOG = logging.getLogger(__name__)


class Lease(NamedTuple):
    """A device that is held."""

    device: Device
    """One alone, without equals."""
    inherited: tuple[int, ...]
    """The descriptors that the child must inherit."""


def lease_folder() -> Path:
    """The folder of the locks: the first that everybody may write to, with the sticky bit that
    keeps others' files.
    """
    for folder in _SHARED:
        with contextlib.suppress(OSError):
            if folder.stat().st_mode & (stat.S_ISVTX | stat.S_IWOTH) == stat.S_ISVTX | stat.S_IWOTH:
                return folder
    return Path(tempfile.gettempdir())


@contextlib.contextmanager
def lease(device: Device, folder: Path) -> Iterator[Lease]:
    """Hold ``device``, or any free one of its equals, for the block; wait while all are held.

    An emulated device belongs to its process alone and needs no lock. Raises DeviceUnavailable
    where a lock file cannot be trusted or made.
    """
    if device.uuid is None:
        yield Lease(device, ())
        return
    held = _wait_for_one(device, folder)
    try:
        yield held
    finally:
        for descriptor in held.inherited:
            os.close(descriptor)


def _wait_for_one(device: Device, folder: Path) -> Lease:
    started_s = time.monotonic()
    say_after_s = _SAY_AFTER_S
    while True:
        for candidate in (device, *device.equals):
            descriptors = _try(candidate, folder)
            if descriptors is not None:
                return Lease(dataclasses.replace(candidate, equals=()), descriptors)
        time.sleep(_POLL_S)
        if time.monotonic() - started_s > say_after_s:
            _LOG.warning(
                "waiting for a free card for %.0f s: %s", say_after_s, _holders(device, folder)
            )
            say_after_s *= 2


def _try(device: Device, folder: Path) -> tuple[int, ...] | None:
    """Take all locks of one device, or none."""
    with contextlib.ExitStack() as undo:
        taken = []
        for name, shared in _locks(device):
            descriptor = _open(folder / name)
            undo.callback(os.close, descriptor)
            try:
                if not lock(descriptor, shared=shared, wait=False):
                    return None
                if not os.path.samestat(os.fstat(descriptor), (folder / name).stat()):
                    # its name was given away (a cleaner of temporary files): others lock another
                    # file
                    return None
            except FileNotFoundError:
                return None
            taken.append(descriptor)
        undo.pop_all()
        return tuple(taken)


def _locks(device: Device) -> list[tuple[str, bool]]:
    """The lock files of a device, and whether others may hold each beside it."""
    card = device.card_uuid or device.uuid
    whole_card = f"memory-harness-{card}.lock"
    if device.gpu_instance is None:
        return [(whole_card, False)]
    # Instances have memory of their own and may be measured beside each other, but not beside their
    # whole card. Compute instances of one GPU instance share its memory (MIG user guide), so its
    # number is the key.
    return [
        (whole_card, True),
        (f"memory-harness-{card}-{device.gpu_instance}.lock", False),
    ]


def _open(path: Path) -> int:
    """Open a lock file that anybody may have made, for reading: nothing is ever written to it, or
    through it.

    Opened first and made only if it is missing, because the kernel refuses O_CREAT on others' files
    in such a folder (proc_sys_fs(5), protected_regular). A link or a pipe in its place is refused.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another was quicker
                made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
                os.fchmod(made, 0o444)  # whatever the umask: other users lock it too
                return made
            descriptor = os.open(path, flags)
    except OSError as error:
        raise DeviceUnavailable(
            f"the lock of the card, {path}, cannot be opened ({error.strerror}); "
            "something else is in its place: remove it"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DeviceUnavailable(f"the lock of the card, {path}, is not a plain file; remove it")
    return descriptor


def _holders(device: Device, folder: Path) -> str:
    """Who took the locks, for people: /proc/locks has the process ids by inode (proc(5))."""
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        locks = []
    said = []
    for candidate in (device, *device.equals):
        inodes = set()
        for name, _ in _locks(candidate):
            with contextlib.suppress(OSError):
                inodes.add(str((folder / name).stat().st_ino))
        # "1: FLOCK ADVISORY WRITE 4711 08:01:123456 0 EOF"; a waiting one has an arrow and one
        # field more.
        pids = sorted(
            {
                int(fields[4])
                for fields in locks
                if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] in inodes
            }
        )
        said.append(
            f"{candidate.uuid} was taken by process {', '.join(map(str, pids)) or 'unknown'}"
        )
    return "; ".join(said)
