"""What every instrument is: opened once in the child, then read at both edges of each phase."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.records import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterContext:
    """What every instrument is built from."""

    device_name: str
    """TensorFlow's name of the device, as ``"CPU:0"``."""
    device: Mapping[str, Any]
    """The leased device, as the parent describes it: kind, name, uuid, limit_bytes."""


class Meter(Protocol):
    """One instrument. It may give several readings, when one look at it tells several things."""

    names: tuple[str, ...]
    """The readings it gives, also when it is unavailable."""

    def open(self) -> None:
        """Check that it can read here. Raises MeterUnavailable with the reason when it cannot."""

    def begin(self) -> None:
        """Note the start of a phase and forget earlier peaks."""

    def end(self) -> tuple[Reading, ...]:
        """The readings of the phase that ``begin`` started."""


class AbsentMeter:
    """Stands in for a meter that cannot read here, so that every phase says so, with the reason."""

    def __init__(self, names: tuple[str, ...], reason: str) -> None:
        self.names = names
        self._readings = tuple(Reading.unavailable(name, reason) for name in names)

    def open(self) -> None:
        """Nothing to check: its absence is already known."""

    def begin(self) -> None:
        """Nothing to note."""

    def end(self) -> tuple[Reading, ...]:
        """One unavailable reading for each name."""
        return self._readings
