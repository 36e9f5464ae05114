"""The card to measure on: those of this machine, which of them are visible, whether one has room,
and whether TensorFlow sees it.
"""

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pynvml

from harness.errors import DeviceUnavailable, DriverRefused
from harness.records import PoolKind
from harness.run.devices import (
    ALLOCATOR_VARIABLE,
    BFC,
    SMALLEST_BYTES,
    Device,
    budgetable_bytes,
    emulated_device,
    reservable_bytes,
)
from harness.run.ends import last_words
from harness.run.launchers import QUIET, own_command
from harness.system import nvml as driver
from harness.system.memory import host_memory_bytes
from harness.words import format_bytes

DeviceChoice = Literal["auto", "cpu", "gpu", "pretended"]

_VISIBLE = "harness.measure.device"
_ANSWER_S = 180.0
"""Chosen: thirty times what importing TensorFlow takes on two busy cores."""
_RUNTIME = re.compile(r"nvidia-cuda-runtime-cu(\d+)")
"""The package of CUDA's libraries among those that ``tensorflow[and-cuda]`` asks for; its name has
CUDA's major version."""
_WITHOUT_LIBRARIES = "Cannot dlopen some GPU libraries"
_REFUSED = re.compile(r"failed call to cuInit: (.*)")
# What TensorFlow logs where it sees no card (gpu_device.cc, cuda_platform.cc).
_INSTALL = "pip install 'tensorflow[and-cuda]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a child can be given as its one device: a whole card, or one instance of a divided
    card.
    """

    uuid: str
    name: str
    memory_bytes: int
    card_uuid: str
    """The card that it is, or is part of."""
    shares_host_memory: bool = False
    """It has no memory of its own (the DGX Spark, Jetson)."""
    gpu_instance: int | None = None
    """Number of the GPU instance, on its card; compute instances of one GPU instance share its
    memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFound:
    """One card, in the order of the PCI bus, and what can be measured on: itself, or its
    instances.
    """

    uuid: str
    bus_id: str
    divided: bool
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the driver has, in CUDA's order under CUDA_DEVICE_ORDER=PCI_BUS_ID."""

    cards: tuple[CardFound, ...]
    driver_version: str
    left_out: tuple[str, ...]
    """A sentence for each card that cannot be used."""


def find_cards() -> Found:
    """Ask the driver for its cards. Raises DeviceUnavailable, with its reason, where it has none
    that can be used.
    """
    with driver.library():
        found = _found()
    if not any(card.places for card in found.cards):
        why = "; ".join(found.left_out) or "it lists no card"
        raise DeviceUnavailable(
            f"the NVIDIA driver {found.driver_version} is here, but has no card to measure "
            f"on: {why}"
        )
    return found


def _found() -> Found:
    version = driver.version()
    cards, left_out = [], []
    for index in range(int(driver.ask(pynvml.nvmlDeviceGetCount))):
        try:
            card = _card(driver.ask(pynvml.nvmlDeviceGetHandleByIndex, index))
        except DriverRefused as refusal:
            left_out.append(f"card {index} of the driver: {refusal}")
            continue
        cards.append(card)
        if not card.places:
            left_out.append(
                f"{card.uuid} is in MIG mode, but has no instance; make one with nvidia-smi "
                "mig -cgi ... -C"
            )
    return Found(
        cards=tuple(sorted(cards, key=lambda card: card.bus_id)),
        driver_version=version,
        left_out=tuple(left_out),
    )


def _card(handle: Any) -> CardFound:  # noqa: ANN401 - pynvml is untyped
    uuid = driver.uuid_of(handle)
    divided = driver.in_mig_mode(handle)
    places = (
        [_place(instance, uuid) for instance in driver.instances(handle)]
        if divided
        else [_place(handle, uuid)]
    )
    bus_id = str(driver.ask(pynvml.nvmlDeviceGetPciInfo, handle).busId)
    return CardFound(uuid=uuid, bus_id=bus_id, divided=divided, places=tuple(places))


def _place(handle: Any, card_uuid: str) -> Place:  # noqa: ANN401 - pynvml is untyped
    uuid = driver.uuid_of(handle)
    shares_host_memory = False
    try:
        memory_bytes = driver.memory(handle, driver.memory_source(handle)).total_bytes
    except DriverRefused as refusal:
        if refusal.code != pynvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        memory_bytes, shares_host_memory = host_memory_bytes(), True
    return Place(
        uuid=uuid,
        name=driver.name_of(handle),
        memory_bytes=memory_bytes,
        shares_host_memory=shares_host_memory,
        card_uuid=card_uuid,
        gpu_instance=None
        if uuid == card_uuid
        else int(driver.ask(pynvml.nvmlDeviceGetGpuInstanceId, handle)),
    )


def visible_places(
    cards: Sequence[CardFound], environment: Mapping[str, str]
) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """What CUDA_VISIBLE_DEVICES leaves of ``cards``, in its order, and a sentence for each entry
    that was left out.

    As CUDA reads it (CUDA programming guide, environment variables): unset is everything; entries
    are indices, beginnings of a card's UUID that fit one card only, or UUIDs of MIG instances; the
    first entry that names no device ends the list.
    """
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(place for card in cards for place in card.places), ()
    by_bus_order = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(cards) == 1
    chosen: dict[str, Place] = {}
    left_out, indices = [], []
    for entry in (part.strip() for part in wanted.split(",")):
        named = _named(entry, cards)
        if named is None:
            left_out.append(f"CUDA_VISIBLE_DEVICES ends at {entry!r}, which names no device here")
            break
        if isinstance(named, Place):
            chosen[named.uuid] = named
        elif named.divided:
            left_out.append(
                f"{entry!r} in CUDA_VISIBLE_DEVICES is a card in MIG mode; name its "
                "instance, MIG-..."
            )
        elif entry.isdecimal() and not by_bus_order:
            indices.append(int(entry))
        else:
            chosen |= {place.uuid: place for place in named.places}
    if set(indices) == set(range(len(cards))):  # every index: whichever is which, all are meant
        chosen |= {place.uuid: place for card in cards for place in card.places}
    elif indices:
        left_out.append(
            f"index {indices[0]} in CUDA_VISIBLE_DEVICES counts in an order that only CUDA "
            "knows (fastest first); write UUIDs (nvidia-smi -L), or set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return tuple(chosen.values()), tuple(left_out)


def _named(entry: str, cards: Sequence[CardFound]) -> CardFound | Place | None:
    """The card or the instance that one entry names; None for none, or for more than one."""
    if entry.isdecimal():
        return cards[int(entry)] if int(entry) < len(cards) else None
    if entry.startswith("MIG-"):
        return next((place for card in cards for place in card.places if place.uuid == entry), None)
    fitting = [card for card in cards if entry.startswith("GPU-") and card.uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


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
        from harness.pretended import join_machine

        join_machine()
    try:
        return _first_card(os.environ)
    except DeviceUnavailable as reason:
        if choice != "auto":
            raise
        return emulated_device(str(reason))


def _first_card(environment: Mapping[str, str]) -> Device:
    """The first visible card, with its equals. Raises DeviceUnavailable where none is visible."""
    found = find_cards()
    places, hidden = visible_places(found.cards, environment)
    left_out = (*found.left_out, *hidden)
    if not places:
        raise DeviceUnavailable(
            f"the driver has {len(found.cards)} cards, and CUDA_VISIBLE_DEVICES leaves none to "
            f"measure on: {'; '.join(left_out) or 'it is empty'}"
        )

    first = places[0]
    equals = [place for place in places if _kind(place) == _kind(first)]
    unequal = [
        f"{place.uuid} ({place.name}, {format_bytes(place.memory_bytes)}) is not equal to the "
        f"first, {first.name} with {format_bytes(first.memory_bytes)}"
        for place in places
        if place not in equals
    ]
    devices = [_device(place, found.driver_version) for place in equals]
    device = dataclasses.replace(
        devices[0], equals=tuple(devices[1:]), left_out=(*left_out, *unequal)
    )
    return device.with_allocator(environment.get(ALLOCATOR_VARIABLE) or BFC)


def _kind(place: Place) -> tuple[str, int]:
    """Places of one kind are equal: a point may be measured on any of them."""
    return place.name, place.memory_bytes


def _device(place: Place, driver_version: str) -> Device:
    # Where card and host share one memory, a pool that takes all that is free would take the
    # host's.
    pool = PoolKind.GROWN if place.shares_host_memory else PoolKind.RESERVED
    return Device(
        kind="gpu",
        name=place.name,
        uuid=place.uuid,
        memory_bytes=place.memory_bytes,
        limit_bytes=None,
        driver=driver_version,
        pool=pool,
        shares_host_memory=place.shares_host_memory,
        card_uuid=place.card_uuid,
        gpu_instance=place.gpu_instance,
    )


class _Free(NamedTuple):
    """What a card has left, and what decides how much of it a pool may take."""

    free_bytes: int
    used_bytes: int
    capability_major: int | None
    """None where the driver does not say."""


def with_room(device: Device) -> Device:
    """The held device as a child is to be given it: a card whose pool is reserved gets the limit
    that there is room for.

    All else stays as it is. Raises DeviceUnavailable, with the processes on the card, where the
    card has no room for the smallest pool, or for the budget; and with the driver's words where it
    does not report its memory.
    """
    if device.kind == "emulated" or device.shares_host_memory:
        return device
    try:
        with driver.library():
            handle, parent = driver.find(device.uuid or "")
            free = _free_on(handle, parent)
            has_budget = device.limit_bytes is not None
            needed_bytes = device.limit_bytes or SMALLEST_BYTES
            room_bytes = (
                budgetable_bytes(free.free_bytes)
                if has_budget
                else reservable_bytes(free.free_bytes, free.capability_major)
            )
            if room_bytes < needed_bytes:
                # Only now, because it is asked before every child and the list takes the driver
                # longest.
                raise DeviceUnavailable(
                    _no_room(device, free, _processes(handle, parent), needed_bytes, room_bytes)
                )
    except DriverRefused as refusal:
        raise DeviceUnavailable(
            f"what is free on {device.name} ({device.uuid}) is unknown: {refusal}"
        ) from refusal
    is_reserved = device.pool is PoolKind.RESERVED and not has_budget
    return dataclasses.replace(device, limit_bytes=room_bytes) if is_reserved else device


def _no_room(
    device: Device, free: _Free, processes: Sequence[str], needed_bytes: int, room_bytes: int
) -> str:
    unlisted = (
        "the driver lists no process on it, for example in a container without the host's "
        "process ids"
    )
    held = ", ".join(processes) or (unlisted if free.used_bytes else "nobody")
    todo = ["end what fills it"] if free.used_bytes else []
    if device.limit_bytes is not None and room_bytes >= SMALLEST_BYTES:
        todo.append(f"ask for a device budget of {format_bytes(room_bytes)} or less")
    todo.append("name another card in CUDA_VISIBLE_DEVICES")
    asked = "the smallest pool" if device.limit_bytes is None else "the device budget"
    return (
        f"{device.name} ({device.uuid}) has {format_bytes(free.free_bytes)} free of "
        f"{format_bytes(device.memory_bytes)}, which leaves {format_bytes(room_bytes)} "
        f"beside CUDA's context and libraries; {asked} needs {format_bytes(needed_bytes)}. "
        f"On the card: {held}. To do: {', or '.join(todo)}"
    )


def _free_on(handle: Any, parent: Any) -> _Free:  # noqa: ANN401 - pynvml is untyped
    memory = driver.memory(handle, driver.memory_source(handle))
    return _Free(
        free_bytes=memory.free_bytes,
        used_bytes=memory.used_bytes,
        capability_major=driver.capability_major(handle if parent is None else parent),
    )


def _processes(handle: Any, parent: Any) -> list[str]:  # noqa: ANN401 - pynvml is untyped
    try:
        found = driver.listed_processes(handle, parent)
    except DriverRefused:
        return []  # the sentence says that none is listed
    return [f"process {process.in_words(driver.process_name(process.pid))}" for process in found]


def usable_device(
    choice: DeviceChoice,
    folder: Path,
    *,
    budget_bytes: int | None = None,
    growth: bool = False,
    ask_tensorflow: bool = True,
) -> Device:
    """The device that ``choice`` means here, with its budget or its growth, and with the equals
    that have room.

    ``"auto"`` takes the emulated device where the card cannot be used; ``driver`` says why.
    ``"gpu"`` and ``"pretended"`` raise DeviceUnavailable with that reason. TensorFlow is asked in a
    process of its own, in ``folder``, for 3 to 5 s; only where there is a card, and not with
    ``ask_tensorflow=False``. Raises UsageError for a budget or for growth that the device cannot
    have.
    """
    device = choose_device(choice)
    if device.kind == "emulated":
        return _sized(device, budget_bytes, growth=growth)
    try:
        check_driver()
        found = _with_room_on_equals(_sized(device, budget_bytes, growth=growth))
        if ask_tensorflow:
            check_tensorflow(found, folder)
    except DeviceUnavailable as reason:
        if choice != "auto":
            raise
        return _sized(
            emulated_device(str(reason), passed_over=str(reason)), budget_bytes, growth=growth
        )
    return found


def _sized(device: Device, budget_bytes: int | None, *, growth: bool) -> Device:
    return device.with_growth() if growth else device.with_budget(budget_bytes)


def check_driver() -> None:
    """Raises DeviceUnavailable where the driver is too old for the CUDA that the installed
    TensorFlow was built with.
    """
    needed = cuda_major_of_tensorflow()
    try:
        with driver.library():
            version_here, supported = driver.version(), driver.cuda_version()
    except DriverRefused:
        return  # TensorFlow will say whether it can use it
    if needed is not None and supported is not None and supported[0] < needed:
        raise DeviceUnavailable(
            f"the NVIDIA driver {version_here} supports CUDA {supported[0]}.{supported[1]}, and "
            f"TensorFlow {_tensorflow()} needs CUDA {needed}: update the driver"
        )


def cuda_major_of_tensorflow() -> int | None:
    """Major version of the CUDA that the installed TensorFlow asks for; None where it does not say,
    or is not installed.
    """
    try:
        asked = requires("tensorflow") or []
    except PackageNotFoundError:
        return None
    found = next((match for line in asked if (match := _RUNTIME.match(line))), None)
    return None if found is None else int(found[1])


def _with_room_on_equals(device: Device) -> Device:
    """The device with those of its equals that have room. Raises DeviceUnavailable where none of
    them has any.
    """
    roomy, full = [], []
    for place in (dataclasses.replace(device, equals=()), *device.equals):
        try:
            with_room(place)
        except DeviceUnavailable as reason:
            full.append(str(reason))
        else:
            roomy.append(place)
    if not roomy:
        raise DeviceUnavailable("; ".join(full))
    return dataclasses.replace(
        roomy[0], equals=tuple(roomy[1:]), left_out=(*device.left_out, *full)
    )


def check_tensorflow(device: Device, folder: Path) -> None:
    """Raises DeviceUnavailable, with the cause and what to do, where TensorFlow does not see the
    card as its children get it.
    """
    try:
        done = subprocess.run(
            own_command(_VISIBLE),
            env={**os.environ, **device.environment(), **QUIET},
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_ANSWER_S,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceUnavailable(
            f"TensorFlow {_tensorflow()} did not say within {_ANSWER_S:.0f} s whether it "
            f"sees {device.name}; the card may hang"
        ) from error
    found = _answer(done.stdout)
    if found is None:
        said = last_words(done.stderr) or f"it ended with exit code {done.returncode}"
        raise DeviceUnavailable(
            f"TensorFlow {_tensorflow()} could not be asked whether it sees {device.name}: {said}"
        )
    if not found.get("cards"):
        raise DeviceUnavailable(
            f"TensorFlow {found.get('tensorflow')} sees no GPU although the driver has "
            f"{device.name}: {_why(found, done.stderr)}"
        )


def _answer(output: str) -> dict[str, Any] | None:
    lines = output.splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _why(found: dict[str, Any], log: str) -> str:
    if not found.get("is_cuda_build"):
        return f"it is a build without CUDA; {_INSTALL}"
    if not found.get("has_libcuda"):
        return (
            "CUDA's libraries are missing, the driver's own libcuda.so.1 among them (in a "
            f"container: NVIDIA_DRIVER_CAPABILITIES=compute,utility); the others: {_INSTALL}"
        )
    if _WITHOUT_LIBRARIES in log:
        return f"CUDA's libraries are missing; {_INSTALL}"
    refused = _REFUSED.search(log)
    if refused is not None:
        return (
            f"CUDA does not start ({refused[1].strip()}); update the NVIDIA driver, and see "
            "whether nvidia-smi works"
        )
    return f"it does not say why; {_INSTALL}, or ask for the emulated device (--memory-device cpu)"


def _tensorflow() -> str:
    try:
        return version("tensorflow")
    except PackageNotFoundError:
        return "(which is not installed)"
