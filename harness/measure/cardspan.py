"""What was seen of a card over one phase. No NVML here: the child, which reads this, never loads
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.measure.pace import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSpan:
    """Bytes in use on the card over one phase, as the sampler hands it to the child."""

    start_bytes: int
    peak_bytes: int
    end_bytes: int
    samples: int
    rate_hz: float
    largest_gap_s: float
    duration_s: float


class CardWatch:
    """Gathers one ``CardSpan``."""

    def __init__(self, used_bytes: int, now_s: float) -> None:
        self.pace = Pace(now_s)
        self._start_bytes = self._peak_bytes = self._last_bytes = used_bytes

    def see(self, used_bytes: int, now_s: float) -> None:
        """So many bytes were in use."""
        self.pace.count(now_s)
        self._last_bytes = used_bytes
        self._peak_bytes = max(self._peak_bytes, used_bytes)

    def close(self) -> CardSpan:
        """The span up to the last look."""
        return CardSpan(
            start_bytes=self._start_bytes,
            peak_bytes=self._peak_bytes,
            end_bytes=self._last_bytes,
            samples=self.pace.samples,
            rate_hz=self.pace.rate_hz,
            largest_gap_s=self.pace.largest_gap_s,
            duration_s=self.pace.duration_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What the driver tells at one edge of a phase; each amount is None where it does not, with the
    reason.
    """

    process_bytes: int | None = None
    not_listed: str = ""
    others: str = ""
    """Who else computes on the card, in words."""
    others_unknown: str = ""
    """Why that cannot be told; empty when it can."""
    accounted_bytes: int | None = None
    """The most that the process ever held until now."""
    not_accounted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPhase:
    """One phase of one card, as the sampler hands it to the child."""

    span: CardSpan
    start: Edge
    end: Edge

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> "CardPhase":
        """What ``CardView.end`` gave, after its way over the line."""
        return cls(
            span=CardSpan(**answer["span"]),
            start=Edge(**answer["start"]),
            end=Edge(**answer["end"]),
        )
