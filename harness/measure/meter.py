"""What every instrument is: opened once in the child, then read at both edges of each phase."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.measure.samplerline import SamplerLine
from harness.records import LARGEST_GAP_SHARE, LEAST_SAMPLES, Quality, Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterContext:
    """What every instrument is built from."""

    device_name: str
    """TensorFlow's name of the device, as ``"CPU:0"``."""
    device: Mapping[str, Any]
    """The leased device, as the parent describes it: kind, name, uuid, limit_bytes."""
    sampler: SamplerLine | None = None
    """The line to the process that looks at this one and at the card."""
    without_sampler: str = "none was started"
    """Why there is no sampler, where there is none."""
    sampler_note: str = ""
    """What became of the sampler before this one."""


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


class Paced(Protocol):
    """How a phase was polled."""

    @property
    def samples(self) -> int:
        """Looks in all."""

    @property
    def rate_hz(self) -> float:
        """Looks a second."""

    @property
    def largest_gap_s(self) -> float:
        """The longest time without one."""

    @property
    def duration_s(self) -> float:
        """Of the phase."""


def polled(
    meter: str,
    pace: Paced,
    amounts_bytes: tuple[int, int, int],
    *,
    source: str,
    reason: str = "",
    contended: str = "",
) -> Reading:
    """A reading of a meter that was polled over the phase; ``amounts_bytes`` are start, highest and
    end.
    """
    start_bytes, peak_bytes, end_bytes = amounts_bytes
    reading = Reading(
        meter=meter,
        quality=Quality.SAMPLED,
        start_bytes=start_bytes,
        peak_bytes=peak_bytes,
        end_bytes=end_bytes,
        samples=pace.samples,
        rate_hz=pace.rate_hz,
        largest_gap_s=pace.largest_gap_s,
        source=source,
        reason=reason,
        contended=contended,
    )
    return judged_by_its_pace(reading, pace.duration_s)


def read_at_edges(
    meter: str,
    start_bytes: int,
    end_bytes: int,
    *,
    source: str,
    reason: str,
    largest_gap_s: float | None = None,
) -> Reading:
    """A reading of a meter that was looked at when the phase began and when it ended, and not in
    between.
    """
    return Reading(
        meter=meter,
        quality=Quality.UNRESOLVED,
        start_bytes=start_bytes,
        peak_bytes=max(start_bytes, end_bytes),
        end_bytes=end_bytes,
        samples=2,
        largest_gap_s=largest_gap_s,
        source=source,
        reason=reason,
    )


def judged_by_its_pace(reading: Reading, duration_s: float) -> Reading:
    """A sampled reading as it is, or unresolved where it was sampled too thinly to say what the
    peak was.
    """
    samples, gap_s = reading.samples or 0, reading.largest_gap_s or 0.0
    if samples >= LEAST_SAMPLES and gap_s <= LARGEST_GAP_SHARE * duration_s:
        return reading
    how = f"{samples} samples, largest gap {gap_s * 1e3:.1f} ms of {duration_s * 1e3:.1f} ms"
    reason = "; ".join(filter(None, [f"sampled too coarsely to judge ({how})", reading.reason]))
    return dataclasses.replace(reading, quality=Quality.UNRESOLVED, reason=reason)


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
