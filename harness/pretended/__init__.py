"""A pretended card: stubs of NVIDIA's libraries, built against their genuine headers, for machines
without a card.

A machine has several: it is a control file for a built card, and the environment that brings a
process onto it. ``--device pretended`` joins the user's own machine (``join_machine``); this is
experimental.
"""

import ctypes
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.pretended.card import Card, cached_card, locked
from harness.pretended.control import MOST_DEVICES, ON, VARIABLE, Device, StubControl
from harness.records import PRETENDED, is_pretended
from harness.words import GIB, format_bytes

DEFAULT_BYTES = 8 * GIB
"""Size of a pretended card; chosen: a small card of today, twice what the largest point of the
catalogue takes."""
SMALLEST_BYTES = GIB
"""Smallest card; chosen: below it TensorFlow leaves so little for its pool that it refuses to
start."""
ARENA = "PRETENDED_CARD_ARENA"
"""Names the folder of the unlinked files that hold the memory of cards; without it, the control
file's own."""
_LARGEST_BYTES = 1024 * GIB
"""Largest card; chosen: five times the largest of today, and no more than a file can be mapped
for."""
_NAME_BYTES = Device.name.size
NAME = f"{PRETENDED} A100"
"""Names of pretended cards begin with its first word, by which runs on them are recognized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Pretended cards that the processes of ``environment`` share."""

    card: Card
    control: StubControl
    devices: tuple[Device, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process needs when it is started."""
        folder = str(self.control.path.parent)
        return {**self.control.environment(self.card.nvml), ARENA: folder}


def make_machine(
    folder: Path,
    card: Card,
    *,
    cards: int = 1,
    total_bytes: int | Sequence[int] = DEFAULT_BYTES,
    name: str = NAME,
    reserved_bytes: int = 0,
    context_bytes: int = 0,
) -> Machine:
    """``cards`` pretended cards whose control file is ``folder/control``; ``folder`` is made where
    it is not there.

    ``total_bytes`` is the size of each, or a size for each. ``reserved_bytes`` is what the driver
    keeps of each card, ``context_bytes`` what every process takes of it beside its allocations.
    Accounting is on. The folder must be on a disk: in tmpfs, memory of the cards counts as the
    host's. A ``name`` that does not say that the cards are pretended gets the word before it.
    Raises UsageError for cards that cannot be had.
    """
    if not is_pretended(name):
        name = f"{PRETENDED} {name}"
    sizes = [total_bytes] * cards if isinstance(total_bytes, int) else list(total_bytes)
    _check_machine(name, cards, sizes, context_bytes)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        control = StubControl.create(folder.resolve() / "control", card.functions)
    except OSError as error:
        raise UsageError(
            f"the cards cannot be kept in {folder} ({error.strerror}); name a folder in "
            "which you may create files"
        ) from error
    devices = [
        control.add_device(
            _uuid(control.path.parent, index),
            name=name,
            total_bytes=size,
            reserved_bytes=reserved_bytes,
            context_bytes=context_bytes,
            accounting=ON,
        )
        for index, size in enumerate(sizes)
    ]
    return Machine(card=card, control=control, devices=tuple(devices))


def _check_machine(name: str, cards: int, sizes: Sequence[int], context_bytes: int) -> None:
    """Raises UsageError for cards that cannot be had."""
    if len(name.encode()) >= _NAME_BYTES:
        raise UsageError(
            f"the name {name!r} has {len(name.encode())} bytes; NVML takes "
            f"{_NAME_BYTES - 1} at most"
        )
    if not 1 <= cards <= MOST_DEVICES or len(sizes) != cards:
        raise UsageError(
            f"{cards} pretended cards with {len(sizes)} sizes were asked for; write 1 to "
            f"{MOST_DEVICES}, one size each"
        )
    if max(sizes) > _LARGEST_BYTES:
        raise UsageError(
            f"a pretended card of {format_bytes(max(sizes))} was asked for; the largest is "
            f"{format_bytes(_LARGEST_BYTES)}"
        )
    too_small = [size for size in sizes if size < SMALLEST_BYTES]
    if too_small:
        raise UsageError(
            f"a pretended card of {format_bytes(too_small[0])} was asked for; the smallest "
            f"is {format_bytes(SMALLEST_BYTES)}"
        )
    if not 0 <= context_bytes <= min(sizes):
        raise UsageError(
            f"a context of {context_bytes} B was asked for; write 0 or more, up to the size "
            "of a card"
        )


def cached_machine(base: Path | None = None) -> Machine:
    """The user's own machine: as many cards as there can be, all alike, on the card of the cache
    (``base``), made once.

    All sessions of the user share it, as they would share true cards: a session takes a lease of
    each card it measures on.
    """
    card = cached_card(base)
    folder = card.folder.with_name(f"{card.folder.name}.machine")
    with locked(folder.parent):
        if not (folder / "control").exists():
            return make_machine(folder, card, cards=MOST_DEVICES)
        control = StubControl.open(folder / "control")
    return Machine(
        card=card,
        control=control,
        devices=tuple(control.state.devices[: control.state.device_count]),
    )


def _uuid(folder: Path, index: int) -> str:
    """Of the machine and of the card: the same again where a folder is made again, another one
    elsewhere, for leases' sake.
    """
    digest = hashlib.sha256(bytes(folder)).hexdigest()
    return f"GPU-{index:08x}-{digest[:4]}-4{digest[4:7]}-8000-{digest[7:19]}"


def join_machine() -> None:
    """From now on this process, and whatever it starts, has the driver of the user's pretended
    cards.

    The loader reads LD_LIBRARY_PATH when a process is started, and NVML its control file's name
    from the environment: so this process loads NVML by its path, and everything else is left to the
    environment of those that it starts. A process that has such a machine already stays on it.
    Raises StubUnavailableError where the cards cannot be built here.
    """
    if os.environ.get(VARIABLE):
        return
    machine = cached_machine()
    os.environ.update(machine.environment)
    ctypes.CDLL(str(machine.card.nvml))
    machine.control.close()
