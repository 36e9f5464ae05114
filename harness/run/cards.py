"""The cards and MIG instances of this machine, and which of them the caller's CUDA_VISIBLE_DEVICES
leaves visible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pynvml

from harness.errors import DeviceUnavailable, DriverRefused
from harness.system import nvml as driver
from harness.system.memory import host_memory_bytes
from harness.units import GIB, MIB


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
    try:
        with driver.library():
            found = _found()
    except DriverRefused as refusal:
        raise DeviceUnavailable(str(refusal)) from refusal
    if not any(card.places for card in found.cards):
        said = "; ".join(found.left_out) or "it lists no card"
        raise DeviceUnavailable(
            f"the NVIDIA driver {found.driver_version} is here, but has no card to measure "
            f"on: {said}"
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


# How much of a card TensorFlow's pool may take, and what the pool costs of the host's memory.
# Arithmetic alone.


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
