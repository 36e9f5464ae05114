"""What ``memory_run`` gives back: how the runs of a point ended, and what the meters read in each
phase.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MeterUnavailable
from harness.records import ROWS_FILE, Outcome, Point, Quality, Reading
from harness.rundir.rows import (
    Again,
    PhaseRecord,
    RunEnd,
    RunRow,
    rows_since,
)
from harness.words import count, format_bytes, nearest, text_table

# From the best to the worst: a number of several repeats is as good as its worst reading.
_QUALITIES = tuple(Quality)


@dataclass(frozen=True, slots=True)
class MeterReadings:
    """What one meter read over one phase, in every repeat; each amount is the least of the repeats,
    in bytes.

    The least, because other things on the machine only ever add. All of them are in ``repeats``.
    Asking for an amount raises MeterUnavailable, with the reason, where no repeat has one.
    """

    point: str
    phase: str
    meter: str
    repeats: tuple[Reading, ...]

    @property
    def start_bytes(self) -> int:
        """In use when the phase began."""
        return min(self._amounts("start_bytes"))

    @property
    def peak_bytes(self) -> int:
        """The most in use while it ran."""
        return min(self._amounts("peak_bytes"))

    @property
    def end_bytes(self) -> int:
        """In use when it ended."""
        return min(self._amounts("end_bytes"))

    @property
    def growth_bytes(self) -> int:
        """Peak over start."""
        return min(self._amounts("growth_bytes"))

    @property
    def retained_bytes(self) -> int:
        """End over start; negative where the phase gave memory back."""
        return min(self._amounts("retained_bytes"))

    @property
    def spread_bytes(self) -> int:
        """How far apart the repeats are in their growth."""
        amounts = self._amounts("growth_bytes")
        return max(amounts) - min(amounts)

    @property
    def quality(self) -> Quality:
        """That of the worst reading."""
        return max((reading.quality for reading in self.repeats), key=_QUALITIES.index)

    @property
    def reason(self) -> str:
        """Why a reading is unavailable or unresolved; empty where all are good."""
        return next((reading.reason for reading in self.repeats if reading.reason), "")

    def _amounts(self, field: str) -> list[int]:
        __tracebackhide__ = True
        amounts = [
            amount for reading in self.repeats if (amount := getattr(reading, field)) is not None
        ]
        if not amounts:
            raise MeterUnavailable(
                f"{self.meter} could not be read in {self.phase} of {self.point}: "
                f"{self.reason or 'no reason given'}"
            )
        return amounts

    def __repr__(self) -> str:
        if self.quality is Quality.UNAVAILABLE:
            return f"<{self.phase} / {self.meter}: unavailable, {self.reason}>"
        amounts = (
            f"grows by {format_bytes(self.growth_bytes)}, peaks at {format_bytes(self.peak_bytes)}"
        )
        return (
            f"<{self.phase} / {self.meter}: {amounts}, keeps "
            f"{format_bytes(self.retained_bytes)} ({self.quality})>"
        )


@dataclass(frozen=True, slots=True)
class PhaseReadings:
    """One phase: ``phase.device_in_use`` or ``phase["device_in_use"]`` is what that meter read."""

    point: str
    name: str
    records: tuple[PhaseRecord, ...]
    """One for each repeat that entered it."""

    @property
    def finished(self) -> bool:
        """Whether no repeat ended in it."""
        return all(record.finished for record in self.records)

    @property
    def meters(self) -> tuple[str, ...]:
        """Names of all meters that were asked."""
        return tuple(
            dict.fromkeys(reading.meter for record in self.records for reading in record.readings)
        )

    def __getitem__(self, meter: str) -> MeterReadings:
        __tracebackhide__ = True
        repeats = tuple(
            reading
            for record in self.records
            for reading in record.readings
            if reading.meter == meter
        )
        if not repeats:
            raise KeyError(f"there is no meter {meter!r}; {nearest(meter, self.meters)}")
        return MeterReadings(self.point, self.name, meter, repeats)

    def __dir__(self) -> list[str]:
        """With the meters, so that completion shows them."""
        return sorted({*object.__dir__(self), *self.meters})

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.meters)

    def __getattr__(self, meter: str) -> MeterReadings:
        __tracebackhide__ = True
        if meter.startswith("_"):
            raise AttributeError(meter)  # what Python itself looks for, as copy and pickle do
        try:
            return self[meter]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __repr__(self) -> str:
        return "\n".join(text_table(_COLUMNS, list(_rows_of(self))))


@dataclass(frozen=True, slots=True)
class MemoryRun(Mapping[str, PhaseReadings]):
    """All repeats of one point: a mapping of its phases by name, in order. Its repr is a table."""

    point: Point
    ends: tuple[RunEnd, ...]
    """How each repeat ended, in order."""
    records: tuple[PhaseRecord, ...]

    @property
    def name(self) -> str:
        """Name of the point in the run directory and in findings."""
        return self.point.name

    @property
    def outcome(self) -> Outcome:
        """How the repeats ended: as expected, or, where any did not, as the first of those."""
        return self._decisive.outcome

    @property
    def cause(self) -> str:
        """What exactly, in one word; empty when ok."""
        return self._decisive.cause

    @property
    def reason(self) -> str:
        """One sentence for people; empty when ok."""
        return self._decisive.reason

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases that were entered, in order."""
        return tuple(self)

    @property
    def _decisive(self) -> RunEnd:
        return next(
            (end for end in self.ends if end.outcome is not self.point.expected), self.ends[0]
        )

    def __getitem__(self, phase: str) -> PhaseReadings:
        __tracebackhide__ = True
        records = tuple(record for record in self.records if record.phase == phase)
        if not records:
            raise KeyError(f"{self.name} has no phase {phase!r}; {nearest(phase, self.phases)}")
        return PhaseReadings(self.name, phase, records)

    def __iter__(self) -> Iterator[str]:
        return iter(
            dict.fromkeys(
                record.phase for record in sorted(self.records, key=lambda record: record.index)
            )
        )

    def __len__(self) -> int:
        return len(set(self))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        runs = count(len(self.ends), "run")
        ended = f"{self.outcome}{f' ({self.reason})' if self.reason else ''}"
        lines = list(
            text_table(_COLUMNS, [row for phase in self.values() for row in _rows_of(phase)])
        )
        return "\n".join([f"{self.name}: {runs}, {ended}; least of the runs", *lines])


_COLUMNS = ("phase", "meter", "growth", "spread", "start", "peak", "end")


def _rows_of(phase: PhaseReadings) -> Iterator[tuple[str, ...]]:
    """Rows of a table with ``_COLUMNS``, one for each meter that could be read."""
    for name in phase.meters:
        read = phase[name]
        if read.quality is not Quality.UNAVAILABLE:
            amounts = (
                read.growth_bytes,
                read.spread_bytes,
                read.start_bytes,
                read.peak_bytes,
                read.end_bytes,
            )
            yield (phase.name, name, *map(format_bytes, amounts))


def read_run(run_directory: Path, point: Point, *, from_byte: int = 0) -> MemoryRun:
    """What rows.jsonl has of a point, from a byte on; runs that were measured again without what
    they left before.

    Raises OSError when it cannot be read.
    """
    records: dict[tuple[int, str], PhaseRecord] = {}
    ends: dict[int, RunEnd] = {}
    for row in rows_since(run_directory / ROWS_FILE, from_byte):
        if not isinstance(row, RunRow) or row.point != point.name:
            continue
        if isinstance(row, Again):
            ends.pop(row.repeat, None)
            records = {key: record for key, record in records.items() if key[0] != row.repeat}
        elif isinstance(row, PhaseRecord):
            records[row.repeat, row.phase] = row
        elif isinstance(row, RunEnd):
            ends[row.repeat] = row
    return MemoryRun(
        point,
        tuple(ends[repeat] for repeat in sorted(ends)),
        tuple(records[key] for key in sorted(records)),
    )
