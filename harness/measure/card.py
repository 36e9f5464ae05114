"""The card as one child of the sampler sees it: bytes in use all the time, the processes on it at
the edges of a phase.

The list of processes takes milliseconds under a lock of the driver, so it is never asked for while
a phase runs.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from harness.errors import MeterUnavailable
from harness.measure.cardspan import CardPhase, CardWatch, Edge
from harness.measure.nvml import Card, CardProcess, neighbours_among, process_bytes


class CardView:
    """Watches one card for one process."""

    def __init__(self, uuid: str, process: int) -> None:
        """Open the card. Raises MeterUnavailable with the driver's words."""
        self._process = process
        self._card = Card.open(uuid)
        self._used_bytes = self._card.quick()
        self._watch: CardWatch | None = None
        self._start = Edge()

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
        self._start = self._edge()
        used_bytes = self._card.used_bytes()
        self._watch = CardWatch(used_bytes, time.monotonic())
        return {"used_bytes": used_bytes}

    def look(self, now_s: float) -> None:
        """One look; one that gets no answer leaves a gap, and a card that is lost is told of at the
        end of the phase.
        """
        used_bytes = self._used_bytes()
        if used_bytes is not None and self._watch is not None:
            self._watch.see(used_bytes, now_s)

    def end(self) -> Mapping[str, Any]:
        """A ``CardPhase`` as JSON. Raises MeterUnavailable when the card is lost."""
        watch, self._watch = self._watch, None
        if watch is None:
            raise MeterUnavailable("the phase was ended before it began")
        watch.see(self._card.used_bytes(), time.monotonic())
        return dataclasses.asdict(
            CardPhase(span=watch.close(), start=self._start, end=self._edge())
        )

    def close(self) -> None:
        """Let go of the card."""
        self._card.close()

    def _edge(self) -> Edge:
        accounted_bytes, not_accounted = self._accounted()
        try:
            found = self._card.processes()
        except MeterUnavailable as reason:
            return Edge(
                not_listed=str(reason),
                others_unknown=str(reason),
                accounted_bytes=accounted_bytes,
                not_accounted=not_accounted,
            )
        own_bytes, not_listed = self._own(found)
        neighbours = neighbours_among(found, {self._process})
        return Edge(
            process_bytes=own_bytes,
            not_listed=not_listed,
            others=str(neighbours),
            others_unknown=neighbours.unknown,
            accounted_bytes=accounted_bytes,
            not_accounted=not_accounted,
        )

    def _own(self, found: list[CardProcess]) -> tuple[int | None, str]:
        try:
            return process_bytes(found, self._process), ""
        except MeterUnavailable as reason:
            return None, str(reason)

    def _accounted(self) -> tuple[int | None, str]:
        try:
            return self._card.accounting_peak_bytes(self._process), ""
        except MeterUnavailable as reason:
            return None, str(reason)
