"""Find the device to measure on, and lease it: one measurement on one card at a time."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import DeviceUnavailable, UsageError
from harness.run.environment import host_memory_bytes
from harness.units import GIB, MIB, format_bytes

DeviceChoice = Literal["auto", "cpu", "gpu"]

DEFAULT_EMULATED_BYTES = 3 * GIB
"""Size of the emulated device: twice the peak of the eager loader at 2,000 groups (1.4 GiB), and harmless on a laptop."""
SMALLEST_BYTES = 16 * MIB
"""Smallest budget taken: TensorFlow's own start-up needs some of it, and the limit is set in whole MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device to measure on. ``limit_bytes`` is None for a card that is not capped."""

    kind: Literal["emulated", "gpu"]
    name: str
    uuid: str | None
    memory_bytes: int
    limit_bytes: int | None
    driver: str

    def with_budget(self, budget_bytes: int | None) -> "Device":
        """The same device under another budget; the same one when there is none to set.

        Raises UsageError for a budget that the card, or the machine that emulates one, does not have.
        """
        if budget_bytes is None:
            return self
        check_budget(budget_bytes)
        if self.kind == "gpu" and budget_bytes > self.memory_bytes:
            raise UsageError(
                f"a device budget of {format_bytes(budget_bytes)} was asked for, "
                f"but {self.name} has {format_bytes(self.memory_bytes)}"
            )
        if self.kind == "emulated" and budget_bytes > host_memory_bytes():
            raise UsageError(
                f"a device budget of {format_bytes(budget_bytes)} was asked for, but the emulated device lies in this machine's "
                f"memory, which has {format_bytes(host_memory_bytes())}; ask for less"
            )
        memory_bytes = budget_bytes if self.kind == "emulated" else self.memory_bytes
        return Device(
            kind=self.kind,
            name=self.name,
            uuid=self.uuid,
            memory_bytes=memory_bytes,
            limit_bytes=budget_bytes,
            driver=self.driver,
        )

    def environment(self) -> dict[str, str]:
        """The variables that make TensorFlow use this device and no other."""
        if self.kind == "emulated":
            limit_bytes = self.limit_bytes or self.memory_bytes
            return {
                "CUDA_VISIBLE_DEVICES": "-1",
                "TF_CPU_ALLOCATOR_USE_BFC": "true",
                "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(limit_bytes // MIB),
            }
        return {"CUDA_VISIBLE_DEVICES": self.uuid or "", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}

    def for_child(self) -> dict[str, Any]:
        """What the child must know of it."""
        return {"kind": self.kind, "name": self.name, "uuid": self.uuid, "limit_bytes": self.limit_bytes}


def check_budget(budget_bytes: int) -> int:
    """The budget itself. Raises UsageError when TensorFlow cannot be given exactly this limit."""
    if budget_bytes < SMALLEST_BYTES:
        raise UsageError(
            f"a device budget of {format_bytes(budget_bytes)} was asked for; the smallest is {format_bytes(SMALLEST_BYTES)}"
        )
    if budget_bytes % MIB:
        raise UsageError(f"a device budget of {budget_bytes} B was asked for; TensorFlow's limit is set in whole MiB")
    return budget_bytes


def choose_device(choice: DeviceChoice) -> Device:
    """The device that ``choice`` means here: the first card if there is one, else the emulated device.

    ``"gpu"`` insists on a card and raises DeviceUnavailable, with the driver's own reason, when there is none.
    """
    if choice == "cpu":
        return emulated_device("not asked: the emulated device was chosen")
    try:
        return _visible_cards()[0]
    except DeviceUnavailable as reason:
        if choice == "gpu":
            raise
        return emulated_device(str(reason))


def emulated_device(driver: str) -> Device:
    """TensorFlow's BFC allocator, the one that cards use, with a limit, on the CPU. ``driver`` says why it is used."""
    return Device(
        kind="emulated",
        name="TensorFlow's BFC allocator on the CPU",
        uuid=None,
        memory_bytes=DEFAULT_EMULATED_BYTES,
        limit_bytes=DEFAULT_EMULATED_BYTES,
        driver=f"unavailable: {driver}",
    )


def _visible_cards() -> list[Device]:
    """The cards of this machine that the caller's CUDA_VISIBLE_DEVICES leaves visible. Raises DeviceUnavailable for none."""
    import pynvml  # the driver's library is looked for only when a card is wanted

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:
        raise DeviceUnavailable(f"no NVIDIA driver answers here (NVML: {error})") from error
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        cards = [_card(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise DeviceUnavailable(f"the NVIDIA driver lists no usable card (NVML: {error})") from error
    finally:
        pynvml.nvmlShutdown()
    visible = _only_visible(cards, os.environ)
    if not visible:
        raise DeviceUnavailable(f"the driver has {len(cards)} cards, and CUDA_VISIBLE_DEVICES leaves none of them visible")
    return visible


def _card(nvml: Any, index: int, driver: str) -> Device:  # noqa: ANN401 - pynvml is an untyped module
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    total = int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).total)
    name, uuid = str(nvml.nvmlDeviceGetName(handle)), str(nvml.nvmlDeviceGetUUID(handle))
    return Device(kind="gpu", name=name, uuid=uuid, memory_bytes=total, limit_bytes=None, driver=driver)


def _only_visible(cards: list[Device], environment: Mapping[str, str]) -> list[Device]:
    # CUDA reads the list up to the first entry that names no card; entries are UUIDs or its own indices, which equal
    # NVML's only under PCI bus order. A number is therefore taken only where it cannot be misread: with one card.
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return cards
    chosen = []
    for entry in (part.strip() for part in wanted.split(",")):
        by_uuid = [card for card in cards if entry and (card.uuid or "").startswith(entry)]
        by_bus_order = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(cards) == 1
        if len(by_uuid) == 1:
            chosen += by_uuid
        elif entry.isdecimal() and int(entry) < len(cards) and by_bus_order:
            chosen.append(cards[int(entry)])
        else:
            break
    return chosen


@contextlib.contextmanager
def lease(device: Device) -> Iterator[tuple[int, ...]]:
    """Hold the device's lock for the block; gives the descriptors that the child must inherit.

    The kernel frees the lock when the last holder of the descriptor has ended, so a child that outlives its parent
    keeps its card. An emulated device belongs to its process alone and needs no lock.
    """
    if device.uuid is None:
        yield ()
        return
    path = Path(tempfile.gettempdir()) / f"memory-harness-{device.uuid}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield (descriptor,)
    finally:
        os.close(descriptor)
