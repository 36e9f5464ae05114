"""What a card has room for now: asked of the driver when the card is held, so that the pool can be given a limit."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from harness import driver
from harness.errors import DeviceUnavailable, DriverRefused
from harness.records import PoolKind
from harness.run.devices import SMALLEST_BYTES, Device
from harness.run.pool import left_free_bytes, reservable_bytes
from harness.units import format_bytes


class _Look(NamedTuple):
    free_bytes: int
    used_bytes: int
    capability_major: int | None
    """None where the driver does not tell."""
    processes: tuple[str, ...]
    """Those on the card, for people."""


def with_room(device: Device) -> Device:
    """The held device as a child is to be given it: a card whose pool is reserved gets the limit that there is room for.

    All else stays as it is. Raises DeviceUnavailable, with the processes on the card, where the card has no room for the
    smallest pool, or for the budget; and with the driver's words where it tells nothing of its memory.
    """
    if device.kind == "emulated" or device.shares_host_memory:
        return device
    try:
        with driver.library():
            look = _look(device.uuid or "")
    except DriverRefused as refusal:
        raise DeviceUnavailable(f"what is free on {device.name} ({device.uuid}) cannot be told: {refusal}") from refusal
    room_bytes = reservable_bytes(look.free_bytes, look.capability_major)
    needed_bytes = device.limit_bytes or SMALLEST_BYTES
    if room_bytes < needed_bytes:
        raise DeviceUnavailable(_no_room(device, look, needed_bytes))
    is_reserved = device.pool is PoolKind.RESERVED and device.limit_bytes is None
    return dataclasses.replace(device, limit_bytes=room_bytes) if is_reserved else device


def _no_room(device: Device, look: _Look, needed_bytes: int) -> str:
    left = format_bytes(left_free_bytes(look.free_bytes, look.capability_major))
    asked = "the smallest pool" if device.limit_bytes is None else "the device budget"
    held = ", ".join(look.processes) or (
        "the driver lists no process on it (a container without the host's process ids)" if look.used_bytes else "nobody"
    )
    return (
        f"{device.name} ({device.uuid}) has {format_bytes(look.free_bytes)} free of {format_bytes(device.memory_bytes)}; "
        f"{asked} needs {format_bytes(needed_bytes)}, and {left} are left to CUDA's context and libraries. On the card: {held}. "
        "End what fills it, ask for a smaller --memory-device-budget, or name another card in CUDA_VISIBLE_DEVICES"
    )


def _look(uuid: str) -> _Look:
    handle, parent = driver.find(uuid)
    memory = driver.memory(handle, driver.memory_source(handle))
    return _Look(
        free_bytes=memory.free_bytes,
        used_bytes=memory.used_bytes,
        capability_major=driver.capability_major(handle if parent is None else parent),
        processes=tuple(_processes(handle, parent)),
    )


def _processes(handle: Any, parent: Any) -> Iterator[str]:  # noqa: ANN401 - pynvml is untyped
    try:
        held = {process.pid: driver.amount(process.usedGpuMemory) for process in driver.compute_processes(handle, parent)}
    except DriverRefused:
        return  # the sentence says that none is listed
    for pid, used_bytes in sorted(held.items()):
        amount = "unknown bytes" if used_bytes is None else format_bytes(used_bytes)
        yield f"process {pid} ({driver.process_name(pid)}, {amount})"
