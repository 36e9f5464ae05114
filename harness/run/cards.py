"""The cards and MIG instances of this machine, and which of them the caller's CUDA_VISIBLE_DEVICES
leaves visible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pynvml

from harness.errors import DeviceUnavailable, DriverRefused
from harness.run.environment import host_memory_bytes
from harness.system import nvml as driver


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
