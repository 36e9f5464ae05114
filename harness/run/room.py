"""What a card has room for now: asked of the driver when the card is held, so that the pool can be given a limit."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from harness import driver
from harness.errors import DeviceUnavailable, DriverRefused
from harness.records import PoolKind
from harness.run.devices import SMALLEST_BYTES, Device
from harness.run.pool import budgetable_bytes, reservable_bytes
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
    if device.limit_bytes is not None:
        if (room_bytes := budgetable_bytes(look.free_bytes)) < device.limit_bytes:
            raise DeviceUnavailable(_no_room(device, look, device.limit_bytes, room_bytes))
        return device
    room_bytes = reservable_bytes(look.free_bytes, look.capability_major)
    if room_bytes < SMALLEST_BYTES:
        raise DeviceUnavailable(_no_room(device, look, SMALLEST_BYTES, room_bytes))
    return dataclasses.replace(device, limit_bytes=room_bytes) if device.pool is PoolKind.RESERVED else device


def _no_room(device: Device, look: _Look, needed_bytes: int, room_bytes: int) -> str:
    unlisted = "the driver lists no process on it, for example in a container without the host's process ids"
    held = ", ".join(look.processes) or (unlisted if look.used_bytes else "nobody")
    todo = ["end what fills it"] if look.used_bytes else []
    if device.limit_bytes is not None and room_bytes >= SMALLEST_BYTES:
        todo.append(f"ask for a device budget of {format_bytes(room_bytes)} or less")
    todo.append("name another card in CUDA_VISIBLE_DEVICES")
    asked = "the smallest pool" if device.limit_bytes is None else "the device budget"
    return (
        f"{device.name} ({device.uuid}) has {format_bytes(look.free_bytes)} free of {format_bytes(device.memory_bytes)}, which "
        f"leaves {format_bytes(room_bytes)} beside CUDA's context and libraries; {asked} needs {format_bytes(needed_bytes)}. "
        f"On the card: {held}. To do: {', or '.join(todo)}"
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
