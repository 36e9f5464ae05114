"""The kinds of rows that rows.jsonl holds: what each has to be, checked one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from harness.judge.manifest import MOST_REPEATS
from harness.records import (
    TRACES_FOLDER,
    Outcome,
    PhaseRecord,
    Point,
    Quality,
    Reading,
    RunEnd,
    TraceEnd,
)

# More than any machine has, and far inside the 64 bits of the table's columns and their
# differences.
_LARGEST_BYTES = 2**60

MOST_FURTHER_REPEATS = 100
"""Chosen: of one announcement; far more than a quorum needs, and few enough that a damaged number
does not fill the memory."""

RESERVED_NAMES = frozenset(
    {
        "start",
        "peak",
        "peak_bound",
        "end",
        "growth",
        "growth_bound",
        "retained",
        "net_start",
        "net_peak",
        "net_end",
    }
)
"""What a body cannot call an array of its own: the table has these amounts already."""


class RowError(Exception):
    """A row that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A point that is measured although run.json does not plan it; the row comes before its first
    child.
    """

    point: str
    record: Point
    test: str = ""
    """The test that measures it, where one does."""
    repeats: int | None = None
    """How often it is measured, where that is not what run.json says of all points."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A phase was entered."""

    point: str
    repeat: int
    phase: str
    index: int


@dataclass(frozen=True, slots=True)
class Declared:
    """What the body says its arrays add up to."""

    point: str
    repeat: int
    values: dict[str, int]


@dataclass(frozen=True, slots=True)
class Again:
    """The run is measured once more from its start; what it left before is void."""

    point: str
    repeat: int
    reason: str


@dataclass(frozen=True, slots=True)
class Remeasure:
    """Further repeats of a point, numbered after the planned ones; several announcements of a point
    add up.
    """

    point: str
    repeats: int
    reason: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A test that pytest was told to skip, or to expect a failure of: what is found about its
    points fails nobody.
    """

    test: str
    points: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Code:
    """Which code the child has measured: the file of each package that is neither Python's own nor
    installed.
    """

    point: str
    repeat: int
    packages: dict[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """The child's last word."""

    point: str
    repeat: int
    outcome: Outcome
    cause: str
    reason: str


AGAIN = TypeAdapter(Again)
ANNOUNCED = TypeAdapter(Announced)
BEGIN = TypeAdapter(Begin)
CODE = TypeAdapter(Code)
DECLARED = TypeAdapter(Declared)
DONE = TypeAdapter(Done)
END = TypeAdapter(RunEnd)
PARKED = TypeAdapter(Parked)
PHASE = TypeAdapter(PhaseRecord)
REMEASURE = TypeAdapter(Remeasure)
TRACED = TypeAdapter(TraceEnd)


def announced(line: bytes) -> Announced:
    """A point that is announced. Raises RowError, or pydantic's ValidationError, as all of these
    do.
    """
    row = ANNOUNCED.validate_json(line, strict=True)
    if row.record.name != row.point:
        raise RowError(
            f"announces {row.point!r}, but the point in it is called {row.record.name!r}"
        )
    if row.repeats is not None and not 1 <= row.repeats <= MOST_REPEATS:
        raise RowError(
            f"announces {row.point} with {row.repeats} repeats; 1 to {MOST_REPEATS} can be measured"
        )
    return row


def remeasure(line: bytes) -> Remeasure:
    """Further repeats that are announced."""
    row = REMEASURE.validate_json(line, strict=True)
    if not 1 <= row.repeats <= MOST_FURTHER_REPEATS:
        raise RowError(
            f"announces {row.repeats} further repeats of {row.point}; 1 to "
            f"{MOST_FURTHER_REPEATS} can be measured"
        )
    if not row.reason.strip():
        raise RowError(f"announces further repeats of {row.point} without a reason")
    return row


def phase(line: bytes) -> PhaseRecord:
    """A phase that ended, with possible readings."""
    record = PHASE.validate_json(line, strict=True)
    where = f"{record.point}, repeat {record.repeat}, phase {record.phase}"
    for reading in record.readings:
        _check_reading(reading, where)
    meters = [reading.meter for reading in record.readings]
    if len(set(meters)) < len(meters):
        raise RowError(f"{where} has two readings of one meter")
    return record


def declared(line: bytes) -> Declared:
    """What a body declared, by names that the table has a column for."""
    row = DECLARED.validate_json(line, strict=True)
    for name, amount in row.values.items():
        if name in RESERVED_NAMES or not name.isidentifier():
            raise RowError(
                f"{row.point} declares {name!r}, which the table has a meaning for or no "
                "column; rename it"
            )
        if not 0 <= amount <= _LARGEST_BYTES:
            raise RowError(f"{row.point} declares {name} as {amount} B")
    return row


def traced(line: bytes) -> TraceEnd:
    """How a traced run ended; its file lies in the folder of the traces and nowhere else."""
    end = TRACED.validate_json(line, strict=True)
    if end.file is not None and (
        Path(end.file).name != end.file or not end.file.endswith(".json.gz")
    ):
        raise RowError(
            f"the trace of {end.point} is said to be {end.file!r}, which is not a name in "
            f"{TRACES_FOLDER}/"
        )
    return end


def _check_reading(reading: Reading, where: str) -> None:
    amounts: Mapping[str, int | None] = {
        "start_bytes": reading.start_bytes,
        "peak_bytes": reading.peak_bytes,
        "end_bytes": reading.end_bytes,
    }
    if reading.quality is Quality.UNAVAILABLE:
        if not reading.reason:
            raise RowError(f"{where}: {reading.meter} is unavailable without a reason")
        return
    for name, amount in amounts.items():
        if amount is None or not 0 <= amount <= _LARGEST_BYTES:
            raise RowError(
                f"{where}: {reading.meter} is {reading.quality} but its {name} is {amount}"
            )
    edges = [amount for amount in (reading.start_bytes, reading.end_bytes) if amount is not None]
    if reading.peak_bytes is not None and reading.peak_bytes < max(edges):
        raise RowError(
            f"{where}: {reading.meter} has a peak of {reading.peak_bytes} B, below its own "
            "start or end"
        )
    if (
        reading.peak_bound_bytes is not None
        and reading.peak_bytes is not None
        and reading.peak_bound_bytes < reading.peak_bytes
    ):
        raise RowError(
            f"{where}: {reading.meter} has an upper bound of its peak below the lower one"
        )
