"""The device to measure on: a card with its equals, or the emulated one; its budget, and what it
asks of TensorFlow.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import DeviceUnavailable, UsageError
from harness.records import Point, PoolKind, is_pretended
from harness.run.cards import table_bytes
from harness.system.memory import host_memory_bytes
from harness.units import GIB, MIB, format_bytes

DeviceChoice = Literal["auto", "cpu", "gpu", "pretended"]

DEFAULT_EMULATED_BYTES = 3 * GIB
"""Size of the emulated device: twice the peak of the eager loader at 2,000 groups (1.4 GiB), and
harmless on a laptop."""
SMALLEST_BYTES = 16 * MIB
"""Smallest budget taken: TensorFlow's own start-up needs some of it, and the limit is set in whole
MiB."""

BFC = "bfc"
_ALLOCATOR = "TF_GPU_ALLOCATOR"
_WITHOUT_LIMIT = ("cuda_malloc_async", "cuda_malloc")
"""Allocators that let a tensor through beyond TensorFlow's limit. Of the first, memory_limit is but
the size from which on memory is given back (cudaMemPoolAttrReleaseThreshold): 80 MiB went through a
limit of 64 (measured)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device to measure on.

    ``limit_bytes`` is None for a card without a budget: a pool that is reserved gets its limit when
    the card is held (``harness.run.usable``), any other has none.
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
    """A card without a memory of its own, of which the driver tells nothing."""
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
                f"{_ALLOCATOR}={self.allocator} is set, and that allocator enforces no "
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
                "emulated device lies in this machine's memory, which has "
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
                f"{_ALLOCATOR}={self.allocator} is set, which has a pool of its own; unset "
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
        device = self.with_allocator(point.environment.get(_ALLOCATOR, self.allocator))
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


def choose_device(choice: DeviceChoice) -> Device:
    """The device that ``choice`` means here: the first visible card with its equals, else the
    emulated device.

    ``"gpu"`` insists on a card and raises DeviceUnavailable, with the driver's own reason, when
    there is none; ``"pretended"`` first brings this process onto the user's pretended cards, which
    are built where they are not there yet.
    """
    if choice == "cpu":
        return emulated_device("not asked: the emulated device was chosen")
    if choice == "pretended":
        # what compiles is not loaded by sessions without such cards
        from harness.pretended.machine import join_machine

        join_machine()
    try:
        return _first_card(os.environ)
    except DeviceUnavailable as reason:
        if choice != "auto":
            raise
        return emulated_device(str(reason))


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


def _first_card(environment: Mapping[str, str]) -> Device:
    # the driver's library is looked for only when a card is wanted
    from harness.run.cards import find_cards, visible_places

    found = find_cards()
    places, left_out = visible_places(found.cards, environment)
    reasons = (*found.left_out, *left_out)
    if not places:
        why = "; ".join(reasons) or "it is empty"
        raise DeviceUnavailable(
            f"the driver has {len(found.cards)} cards, and CUDA_VISIBLE_DEVICES leaves none "
            f"to measure on: {why}"
        )
    first = places[0]
    equals = [
        place
        for place in places
        if (place.name, place.memory_bytes) == (first.name, first.memory_bytes)
    ]
    unequal = [
        f"{place.uuid} ({place.name}, {format_bytes(place.memory_bytes)}) is not equal to "
        f"the first, {first.name} with {format_bytes(first.memory_bytes)}"
        for place in places
        if place not in equals
    ]
    allocator = environment.get(_ALLOCATOR) or BFC
    devices = [
        Device(
            kind="gpu",
            name=place.name,
            uuid=place.uuid,
            memory_bytes=place.memory_bytes,
            limit_bytes=None,
            driver=found.driver_version,
            # Where card and host share one memory, a pool that takes all that is free would take
            # the host's.
            pool=PoolKind.GROWN if place.shares_host_memory else PoolKind.RESERVED,
            shares_host_memory=place.shares_host_memory,
            card_uuid=place.card_uuid,
            gpu_instance=place.gpu_instance,
        )
        for place in equals
    ]
    device = dataclasses.replace(
        devices[0], equals=tuple(devices[1:]), left_out=(*reasons, *unequal)
    )
    return device.with_allocator(allocator)
