"""The device to measure on: a card with its equals, or the emulated one; its budget, and what it
asks of TensorFlow.
"""

import contextlib
import dataclasses
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.errors import DeviceUnavailable, UsageError
from harness.records import Point, PoolKind, is_pretended
from harness.system import lock
from harness.system.memory import host_memory_bytes
from harness.words import GIB, MIB, format_bytes

DEFAULT_EMULATED_BYTES = 3 * GIB
"""Size of the emulated device: twice the peak of the eager loader at 2,000 groups (1.4 GiB), and
harmless on a laptop."""
SMALLEST_BYTES = 16 * MIB
"""Smallest budget taken: TensorFlow's own start-up needs some of it, and the limit is set in whole
MiB."""

BFC = "bfc"
ALLOCATOR_VARIABLE = "TF_GPU_ALLOCATOR"
_WITHOUT_LIMIT = ("cuda_malloc_async", "cuda_malloc")
"""Allocators that let a tensor through beyond TensorFlow's limit. Of the first, memory_limit is but
the size from which on memory is given back (cudaMemPoolAttrReleaseThreshold): 80 MiB went through a
limit of 64 (measured)."""

CONTEXT_BYTES = 600 * MIB
"""Left free for the CUDA context, which a child takes only after the driver was asked. Chosen:
contexts of 300 to 600 MiB are usual; a larger one is covered by what TensorFlow leaves free
besides."""
_SMALL_CARD_BYTES = 2 * GIB
_LEFT_ON_A_SMALL_CARD_BYTES = 225 * MIB
_LEFT_BYTES = ((6, 500 * MIB), (7, 1050 * MIB), (8, 1536 * MIB))
"""(largest major number of the compute capability, bytes); above the last one
``_MOST_LEFT_BYTES``."""
_MOST_LEFT_BYTES = 1800 * MIB
# All of them: MinSystemMemory in tensorflow/core/common_runtime/gpu/gpu_device.cc (2.13 to 2.21).

_BYTES_PER_HANDLE, _BYTES_PER_CHUNK = 8, 256
"""BFC's table has a handle (size_t) for each smallest chunk of the pool (bfc_allocator.h:
AllocationRegion, kMinAllocationBits)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device to measure on.

    ``limit_bytes`` is None for a card without a budget: a pool that is reserved gets its limit when
    the card is held (``harness.run.cards``), any other has none.
    """

    kind: Literal["emulated", "gpu"]
    name: str
    uuid: str | None
    """GPU-... or MIG-..., as the driver says it; None for the emulated device."""
    memory_bytes: int
    limit_bytes: int | None
    driver: str
    allocator: str = BFC
    """BFC, or of a card what TF_GPU_ALLOCATOR says instead."""
    pool: PoolKind = PoolKind.RESERVED
    shares_host_memory: bool = False
    """A card without a memory of its own, of which the driver reports nothing."""
    card_uuid: str | None = None
    """The card that it is, or is an instance of."""
    gpu_instance: int | None = None
    """Of a MIG instance, the number of its GPU instance on that card."""
    equals: tuple["Device", ...] = ()
    """Further visible devices of the same name and size: a point may be measured on any of them."""
    passed_over: str = ""
    """Of the emulated device: why it is used although the driver has a card."""
    left_out: tuple[str, ...] = ()
    """A sentence for each device of the machine that is not among them."""

    def with_budget(self, budget_bytes: int | None) -> "Device":
        """The same device under another budget; the same one when there is none to set.

        Raises UsageError for a budget that the card, or the machine that emulates one, does not
        have, and for one that the allocator would not keep.
        """
        if budget_bytes is None:
            return self
        check_budget(budget_bytes)
        if self.pool is PoolKind.DRIVER:
            raise UsageError(
                f"a device budget of {format_bytes(budget_bytes)} was asked for, but "
                f"{ALLOCATOR_VARIABLE}={self.allocator} is set, and that allocator enforces no "
                "limit: what does not fit would pass; unset the variable, or leave the "
                "budget out"
            )
        if self.kind == "gpu" and budget_bytes > self.memory_bytes:
            raise UsageError(
                f"a device budget of {format_bytes(budget_bytes)} was asked for, "
                f"but {self.name} has {format_bytes(self.memory_bytes)}"
            )
        if self.kind == "emulated" and budget_bytes > host_memory_bytes():
            raise UsageError(
                f"a device budget of {format_bytes(budget_bytes)} was asked for, but the "
                "emulated device is in this machine's memory, which has "
                f"{format_bytes(host_memory_bytes())}; ask for less"
            )
        memory_bytes = budget_bytes if self.kind == "emulated" else self.memory_bytes
        return self._replaced(
            memory_bytes=memory_bytes, limit_bytes=budget_bytes, pool=PoolKind.RESERVED
        )

    def with_growth(self) -> "Device":
        """The same card with a pool that grows on demand. Raises UsageError for a device that has
        no such pool.
        """
        if self.kind == "emulated":
            raise UsageError(
                "a pool that grows on demand (--memory-growth) was asked for, but the "
                "device is emulated, and its pool is always reserved (the card: "
                f"{self.driver}); leave the option out"
            )
        if self.pool is PoolKind.DRIVER:
            raise UsageError(
                "a pool that grows on demand (--memory-growth) was asked for, but "
                f"{ALLOCATOR_VARIABLE}={self.allocator} is set, which has a pool of its own; unset "
                "the variable, or leave the option out"
            )
        return self._replaced(pool=PoolKind.GROWN)

    def with_allocator(self, allocator: str) -> "Device":
        """The same card under another allocator of TensorFlow's. Raises UsageError where that would
        not keep the card's budget.
        """
        if self.kind == "emulated" or allocator == self.allocator:
            return self
        limit_bytes, kept = (
            self.limit_bytes,
            PoolKind.RESERVED if self.pool is PoolKind.DRIVER else self.pool,
        )
        pool = PoolKind.DRIVER if allocator in _WITHOUT_LIMIT else kept
        equals = tuple(equal.with_allocator(allocator) for equal in self.equals)
        other = dataclasses.replace(
            self, allocator=allocator, pool=pool, limit_bytes=None, equals=equals
        )
        return other.with_budget(limit_bytes)

    def for_point(self, point: Point) -> "Device":
        """As the children of a point get it. Raises UsageError for a budget that they cannot
        have.
        """
        device = self.with_allocator(point.environment.get(ALLOCATOR_VARIABLE, self.allocator))
        try:
            return device.with_budget(point.device_budget_bytes)
        except UsageError as error:
            raise UsageError(f"{point.name}: {error}, or leave this point out (-k)") from error

    def _replaced(
        self, *, pool: PoolKind, limit_bytes: int | None = None, memory_bytes: int | None = None
    ) -> "Device":
        """With these on every equal, too; None is what a card without a budget has."""
        equals = tuple(
            dataclasses.replace(equal, pool=pool, limit_bytes=limit_bytes) for equal in self.equals
        )
        return dataclasses.replace(
            self,
            pool=pool,
            limit_bytes=limit_bytes,
            memory_bytes=memory_bytes or self.memory_bytes,
            equals=equals,
        )

    @property
    def pretended(self) -> bool:
        """Whether it is a stub of a card: TensorFlow's own GPU device, on which networks run the
        CPU's algorithms.
        """
        return self.kind == "gpu" and is_pretended(self.name)

    @property
    def host_bytes(self) -> int:
        """Host memory that a child needs for the device alone, beside what it may hold: it is part
        of what the child holds.

        The emulated device is host memory, limited by its own allocator. BFC's table of any pool is
        host memory, too: of a card's pool that is reserved it is written at once, before the first
        phase; of one that grows, region by region, up to that of the whole card.
        """
        pool_bytes = self.limit_bytes or self.memory_bytes
        table = 0 if self.pool is PoolKind.DRIVER else table_bytes(pool_bytes)
        return table + (pool_bytes if self.kind == "emulated" else 0)

    def limit_in_words(self, option: str, host_limit_bytes: int) -> str:
        """What the limit of a child's memory is made of: the setting, and what the device takes of
        the host's memory.
        """
        set_by = f"{option} {format_bytes(host_limit_bytes)}"
        what = (
            "the emulated device, used or not"
            if self.kind == "emulated"
            else "the table of the card's pool"
        )
        return (
            f"{set_by}, and {format_bytes(self.host_bytes)} for {what}"
            if self.host_bytes
            else set_by
        )

    def without(self, place: "Device") -> "Device | None":
        """The set without one of its devices; None where nothing is left."""
        left = [
            each
            for each in (dataclasses.replace(self, equals=()), *self.equals)
            if each.uuid != place.uuid
        ]
        return dataclasses.replace(left[0], equals=tuple(left[1:])) if left else None

    def environment(self) -> dict[str, str]:
        """The variables that make TensorFlow use this device and no other."""
        if self.kind == "emulated":
            limit_bytes = self.limit_bytes or self.memory_bytes
            return {
                "CUDA_VISIBLE_DEVICES": "-1",
                "TF_CPU_ALLOCATOR_USE_BFC": "true",
                "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(limit_bytes // MIB),
            }
        # It overrides what the program asks for (TensorFlow's GPU guide), so that no variable of
        # the caller's does.
        growth = "false" if self.pool is PoolKind.RESERVED else "true"
        return {"CUDA_VISIBLE_DEVICES": self.uuid or "", "TF_FORCE_GPU_ALLOW_GROWTH": growth}

    @property
    def comparability(self) -> dict[str, str]:
        """What two devices must share for their bytes to be compared: size, budget, allocator, and
        whether the pool grows.
        """
        size = format_bytes(self.memory_bytes)
        limit = "" if self.limit_bytes is None else f", limited to {format_bytes(self.limit_bytes)}"
        growing = ", growing on demand" if self.pool is PoolKind.GROWN else ""
        words = f"{self.name}, {size}{limit}{growing}"
        return {
            "device": f"emulated, {size}" if self.kind == "emulated" else words,
            "allocator": self.allocator,
        }

    def for_manifest(self) -> dict[str, Any]:
        """What run.json records of it (``harness.rundir.manifest.RecordedDevice``)."""
        return {
            "kind": self.kind,
            "name": self.name,
            "uuid": self.uuid,
            "memory_bytes": self.memory_bytes,
            "limit_bytes": self.limit_bytes,
            "allocator": self.allocator,
            "pool": self.pool,
            "driver": self.driver,
            "passed_over": self.passed_over,
            "equals": [equal.uuid for equal in self.equals],
            "left_out": list(self.left_out),
        }

    def for_child(self) -> dict[str, Any]:
        """What the child must know of it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "uuid": self.uuid,
            "limit_bytes": self.limit_bytes,
        }


def check_budget(budget_bytes: int) -> int:
    """The budget itself. Raises UsageError when TensorFlow cannot be given exactly this limit."""
    if budget_bytes < SMALLEST_BYTES:
        raise UsageError(
            f"a device budget of {format_bytes(budget_bytes)} was asked for; the smallest "
            f"is {format_bytes(SMALLEST_BYTES)}"
        )
    if budget_bytes % MIB:
        raise UsageError(
            f"a device budget of {budget_bytes} B was asked for; TensorFlow's limit is set "
            "in whole MiB"
        )
    return budget_bytes


def emulated_device(driver: str, *, passed_over: str = "") -> Device:
    """TensorFlow's BFC allocator, the one that cards use, with a limit, on the CPU. ``driver`` says
    why it is used.
    """
    return Device(
        kind="emulated",
        name="TensorFlow's BFC allocator on the CPU",
        uuid=None,
        memory_bytes=DEFAULT_EMULATED_BYTES,
        limit_bytes=DEFAULT_EMULATED_BYTES,
        driver=f"unavailable: {driver}",
        passed_over=passed_over,
    )


# How much of a card TensorFlow's pool may take, and what the pool costs of the host's memory.
# Arithmetic alone.


def left_free_bytes(free_bytes: int, capability_major: int | None) -> int:
    """What is left to the context, to libraries and to the driver, of ``free_bytes`` that nobody
    has taken yet.

    TensorFlow leaves as much by itself, of what is free once the context is there: 225 MiB where
    that is below 2 GiB, else by the card's compute capability; the most where that is unknown
    (None).
    """
    with_context_bytes = max(0, free_bytes - CONTEXT_BYTES)
    if with_context_bytes < _SMALL_CARD_BYTES:
        return CONTEXT_BYTES + _LEFT_ON_A_SMALL_CARD_BYTES
    if capability_major is None:
        return CONTEXT_BYTES + _MOST_LEFT_BYTES
    left = (left_bytes for most_major, left_bytes in _LEFT_BYTES if capability_major <= most_major)
    return CONTEXT_BYTES + next(left, _MOST_LEFT_BYTES)


def reservable_bytes(free_bytes: int, capability_major: int | None) -> int:
    """The largest pool that may be reserved, in whole MiB as TensorFlow's limit is set; 0 where
    there is no room for any.
    """
    return max(0, free_bytes - left_free_bytes(free_bytes, capability_major)) // MIB * MIB


def budgetable_bytes(free_bytes: int) -> int:
    """The largest budget that there is room for, in whole MiB: TensorFlow leaves nothing of a limit
    that it is given.
    """
    return max(0, free_bytes - CONTEXT_BYTES) // MIB * MIB


def table_bytes(pool_bytes: int) -> int:
    """Host memory of BFC's table of a pool: 1/32 of it, written when the pool takes a region of the
    device.
    """
    return pool_bytes // _BYTES_PER_CHUNK * _BYTES_PER_HANDLE


# One measurement at a time on each device, among all runs of all users of this machine. A lease
# is a flock on a file that is named after the card, in a folder that everybody shares. The child
# inherits the descriptor, and the kernel frees the lock when the last holder has ended: a child
# that outlives its parent keeps its card. Containers that do not share the folder cannot see
# each other's leases; there, other processes on the card are found in the driver's list.


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
