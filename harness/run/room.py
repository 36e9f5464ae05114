"""What a card has room for now: asked of the driver when the card is held, so that the pool can be
given a limit.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.errors import DeviceUnavailable, DriverRefused
from harness.records import PoolKind
from harness.run.devices import SMALLEST_BYTES, Device
from harness.run.pool import budgetable_bytes, reservable_bytes
from harness.system import nvml as driver
from harness.units import format_bytes


class _Look(NamedTuple):
    free_bytes: int
    used_bytes: int
    capability_major: int | None
    """None where the driver does not tell."""


def with_room(device: Device) -> Device:
    """The held device as a child is to be given it: a card whose pool is reserved gets the limit
    that there is room for.

    All else stays as it is. Raises DeviceUnavailable, with the processes on the card, where the
    card has no room for the smallest pool, or for the budget; and with the driver's words where it
    tells nothing of its memory.
    """
    if device.kind == "emulated" or device.shares_host_memory:
        return device
    try:
        with driver.library():
            handle, parent = driver.find(device.uuid or "")
            look = _look(handle, parent)
            has_budget = device.limit_bytes is not None
            needed_bytes = device.limit_bytes or SMALLEST_BYTES
            room_bytes = (
                budgetable_bytes(look.free_bytes)
                if has_budget
                else reservable_bytes(look.free_bytes, look.capability_major)
            )
            if room_bytes < needed_bytes:
                # Only now, because it is asked before every child and the list takes the driver
                # longest.
                raise DeviceUnavailable(
                    _no_room(
                        device, look, tuple(_processes(handle, parent)), needed_bytes, room_bytes
                    )
                )
    except DriverRefused as refusal:
        raise DeviceUnavailable(
            f"what is free on {device.name} ({device.uuid}) cannot be told: {refusal}"
        ) from refusal
    is_reserved = device.pool is PoolKind.RESERVED and not has_budget
    return dataclasses.replace(device, limit_bytes=room_bytes) if is_reserved else device


def _no_room(
    device: Device, look: _Look, processes: tuple[str, ...], needed_bytes: int, room_bytes: int
) -> str:
    unlisted = (
        "the driver lists no process on it, for example in a container without the host's "
        "process ids"
    )
    held = ", ".join(processes) or (unlisted if look.used_bytes else "nobody")
    todo = ["end what fills it"] if look.used_bytes else []
    if device.limit_bytes is not None and room_bytes >= SMALLEST_BYTES:
        todo.append(f"ask for a device budget of {format_bytes(room_bytes)} or less")
    todo.append("name another card in CUDA_VISIBLE_DEVICES")
    asked = "the smallest pool" if device.limit_bytes is None else "the device budget"
    return (
        f"{device.name} ({device.uuid}) has {format_bytes(look.free_bytes)} free of "
        f"{format_bytes(device.memory_bytes)}, which leaves {format_bytes(room_bytes)} "
        f"beside CUDA's context and libraries; {asked} needs {format_bytes(needed_bytes)}. "
        f"On the card: {held}. To do: {', or '.join(todo)}"
    )


def _look(handle: Any, parent: Any) -> _Look:  # noqa: ANN401 - pynvml is untyped
    memory = driver.memory(handle, driver.memory_source(handle))
    return _Look(
        free_bytes=memory.free_bytes,
        used_bytes=memory.used_bytes,
        capability_major=driver.capability_major(handle if parent is None else parent),
    )


def _processes(handle: Any, parent: Any) -> Iterator[str]:  # noqa: ANN401 - pynvml is untyped
    try:
        held = {
            process.pid: driver.amount(process.usedGpuMemory)
            for process in driver.compute_processes(handle, parent)
        }
    except DriverRefused:
        return  # the sentence says that none is listed
    for pid, used_bytes in sorted(held.items()):
        amount = "unknown bytes" if used_bytes is None else format_bytes(used_bytes)
        yield f"process {pid} ({driver.process_name(pid)}, {amount})"
