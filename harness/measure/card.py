"""The card as one child of the sampler sees it: bytes in use all the time, the processes on it at the edges of a phase.

The list of processes takes milliseconds under a lock of the driver, so it is never asked for while a phase runs.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import MeterUnavailable
from harness.measure.nvml import Card
from harness.measure.spans import CardWatch

_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h, PROC_PID_INIT_INO: the one whose ids the driver lists

Processes = Sequence[tuple[int, int | None]]
"""Process id and bytes of each that has a context on the card; None where the driver does not tell how many."""


class CardView:
    """Watches one card for one process."""

    def __init__(self, uuid: str, process: int) -> None:
        """Open the card. Raises MeterUnavailable with NVML's words."""
        self._process = process
        self._card = Card.open(uuid)
        self._watch: CardWatch | None = None
        self._before: Processes | str = ()
        self._accounted_before: int | None = None

    @property
    def source(self) -> str:
        """Which of NVML's queries tells the bytes in use."""
        return self._card.source

    @property
    def is_open(self) -> bool:
        """Whether a phase is open."""
        return self._watch is not None

    def begin(self) -> Mapping[str, Any]:
        """Note who and how much is there."""
        self._before = self._processes()
        self._accounted_before = self._accounting()[0]
        used_bytes = self._card.used_bytes()
        self._watch = CardWatch(used_bytes, time.monotonic())
        return {"used_bytes": used_bytes}

    def look(self) -> None:
        """One look; one that fails leaves a gap, and a card that is lost is told of at the end of the phase."""
        assert self._watch is not None  # noqa: S101 - asked only while a phase is open
        with contextlib.suppress(MeterUnavailable):
            self._watch.see(self._card.used_bytes(), time.monotonic())

    def end(self) -> Mapping[str, Any]:
        """The span of the phase, and the processes at both its edges. Raises MeterUnavailable when the card is lost."""
        watch, self._watch = self._watch, None
        if watch is None:
            raise MeterUnavailable("the phase was ended before it began")
        watch.see(self._card.used_bytes(), time.monotonic())
        after = self._processes()
        accounted_bytes, not_accounted = self._accounting()
        return {
            "span": dataclasses.asdict(watch.close()),
            "contended": others_in_words(self._process, self._before, after, ids_are_ours=ids_are_the_drivers()),
            "process_bytes": [own_bytes(self._process, self._before), own_bytes(self._process, after)],
            "process_reason": next((found for found in (self._before, after) if isinstance(found, str)), ""),
            "accounting_bytes": [self._accounted_before, accounted_bytes],
            "accounting_reason": not_accounted,
        }

    def close(self) -> None:
        """Let go of the card."""
        self._card.close()

    def _processes(self) -> Processes | str:
        try:
            return self._card.processes()
        except MeterUnavailable as reason:
            return str(reason)

    def _accounting(self) -> tuple[int | None, str]:
        try:
            return self._card.accounting_peak_bytes(self._process), ""
        except MeterUnavailable as reason:
            return None, str(reason)


def own_bytes(process: int, listed: Processes | str) -> int | None:
    """Bytes of ``process``; None where the driver does not tell of it."""
    if isinstance(listed, str):
        return None
    amounts = [amount for number, amount in listed if number == process and amount is not None]
    return sum(amounts) if amounts else None


def others_in_words(process: int, before: Processes | str, after: Processes | str, *, ids_are_ours: bool) -> str:
    """Who else was on the card at either edge; empty when nobody was seen.

    In a container the driver still lists the host's ids (``ids_are_ours`` False): where this process is not found among
    them, one of those listed must be it, and only a second one is another's.
    """
    numbers = {number for listed in (before, after) if not isinstance(listed, str) for number, _ in listed}
    others = sorted(numbers - {process})
    if process not in numbers and not ids_are_ours:
        most_at_once = max((len(listed) for listed in (before, after) if not isinstance(listed, str)), default=0)
        if most_at_once < 2:
            return ""
        return f"{most_at_once - 1} of the processes {', '.join(map(str, others))} (ids of the host; this one is among them)"
    return ", ".join(f"process {number}{_name_of(number)}" for number in others)


def ids_are_the_drivers() -> bool:
    """Whether the ids of this system's processes are those that the driver lists."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return os.name != "posix"


def _name_of(process: int) -> str:
    try:
        return f" ({Path(f'/proc/{process}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return ""
