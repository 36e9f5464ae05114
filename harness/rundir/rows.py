"""The kinds of rows that rows.jsonl holds: what each has to be, checked one by one."""

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.errors import RunDirectoryError
from harness.records import (
    ROWS_FILE,
    TRACES_FOLDER,
    Outcome,
    PhaseRecord,
    Point,
    Quality,
    Reading,
    RunEnd,
    TraceEnd,
    to_json,
)
from harness.rundir.manifest import MOST_REPEATS
from harness.system.files import ONE_THREAD, locked, read_whole
from harness.words import one_line

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


# Rows that say beforehand what will be measured beyond the plan; without them its rows are
# refused by the judge.


def announce_point(
    run_directory: Path, point: Point, *, test: str = "", repeats: int | None = None
) -> None:
    """Say that ``point``, which run.json need not plan, will be measured in all its repeats; before
    its first child.

    ``test`` names the test that measures it, one of those that ``start_run`` was told of;
    ``repeats`` is how often (None: as often as run.json says of all). The same point may be
    announced more than once, as long as it is the same. Raises RunDirectoryError when the row
    cannot be written.
    """
    row = {
        "kind": "point",
        "point": point.name,
        "record": to_json(point),
        "test": test,
        "repeats": repeats,
    }
    write_row(run_directory, row)


def park_points(run_directory: Path, *, test: str, points: Sequence[str], reason: str) -> None:
    """Say that ``test`` was skipped, or expected to fail: what is found about its points fails
    nobody.

    Raises RunDirectoryError when the row cannot be written.
    """
    write_row(
        run_directory,
        {"kind": "parked", "test": test, "points": list(points), "reason": one_line(reason)},
    )


def write_row(run_directory: Path, row: Mapping[str, Any]) -> None:
    """Append one row about a point or a test to rows.jsonl. Raises RunDirectoryError when it cannot
    be written.
    """
    rows = run_directory / ROWS_FILE
    try:
        with ONE_THREAD:
            descriptor = open_rows(rows)
            try:
                append_row(descriptor, row)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise RunDirectoryError(
            f"the {row['kind']} of {row.get('point') or row['test']} cannot be written to "
            f"{rows}: {error.strerror}"
        ) from error


def rows_since(path: Path, offset: int) -> Iterator[dict[str, Any]]:
    """The rows of rows.jsonl from ``offset`` (bytes) on; damaged lines are left to the judge."""
    for line in read_whole(path, offset).split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a damaged line stays in the file, where the judge finds it and says so
        if isinstance(row, dict) and "kind" in row:
            yield row


def ends_of(run_directory: Path) -> list[RunEnd]:
    """The ends that are on disk so far, in the order in which they were written, without those that
    are void.
    """
    found: dict[tuple[str, int], RunEnd] = {}
    for row in rows_since(run_directory / ROWS_FILE, 0):
        if row["kind"] == "again":
            found.pop((row.get("point", ""), row.get("repeat", 0)), None)
        elif row["kind"] == "end":
            # a damaged row is left to the judge
            with contextlib.suppress(KeyError, TypeError, ValueError):
                end = end_from_json(row)
                found[end.point, end.repeat] = end
    return list(found.values())


def open_rows(path: Path) -> int:
    """A descriptor of rows.jsonl for ``append_row``; the caller closes it. Raises OSError."""
    # Readable, because append_row looks at what came before.
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)


def append_row(descriptor: int, row: Mapping[str, Any]) -> None:
    """Append ``row`` to rows.jsonl, open as ``descriptor`` (``open_rows``), as one line, also
    beside other processes.

    One write, while nobody else writes: a line without an end is that of a writer that was killed,
    or of a disk that was full, and is ended first, so that it spoils no other. Where the file
    system has no locks nobody looks for one, for it might be another's that is being written.
    Raises OSError when the line cannot be written or is cut short.
    """
    line = (json.dumps(row) + "\n").encode()
    with locked(descriptor) as alone:
        end = os.fstat(descriptor).st_size if alone else 0
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        line = b"\n" * torn + line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, "a row was cut short; is the disk full?")


def phase_from_json(row: Mapping[str, Any]) -> PhaseRecord:
    """The PhaseRecord that ``to_json`` wrote. Raises KeyError, TypeError or ValueError where it is
    not one.
    """
    readings = tuple(
        Reading(**{**reading, "quality": Quality(reading["quality"])})
        for reading in row["readings"]
    )
    return PhaseRecord(
        point=row["point"],
        repeat=row["repeat"],
        phase=row["phase"],
        index=row["index"],
        finished=row["finished"],
        duration_s=row["duration_s"],
        readings=readings,
    )


def end_from_json(row: Mapping[str, Any]) -> RunEnd:
    """The RunEnd that ``to_json`` wrote. Raises KeyError, TypeError or ValueError where it is not
    one.
    """
    values = {f.name: row[f.name] for f in dataclasses.fields(RunEnd) if f.name in row}
    return RunEnd(
        **{
            **values,
            "outcome": Outcome(values["outcome"]),
            "left_out": tuple(values.get("left_out", ())),
        }
    )


def trace_end_from_json(row: Mapping[str, Any]) -> TraceEnd:
    """The TraceEnd that ``to_json`` wrote. Raises KeyError, TypeError or ValueError where it is not
    one.
    """
    values = {f.name: row[f.name] for f in dataclasses.fields(TraceEnd)}
    return TraceEnd(**{**values, "outcome": Outcome(values["outcome"])})
