"""rows.jsonl: every kind of row, as one frozen record that is written and read by the same
definition; light enough for the child.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from harness.errors import RunDirectoryError
from harness.records import (
    MOST_REPEATS,
    ROWS_FILE,
    TRACES_FOLDER,
    Outcome,
    Point,
    Quality,
    Reading,
    RecordError,
    from_json,
    to_json,
)
from harness.system import ONE_THREAD, locked, read_whole
from harness.words import one_line

RunKey = tuple[str, int]
"""Name of the point and number of the repeat: one run."""

MOST_FURTHER_REPEATS = 100
"""Chosen: of one announcement; far more than a quorum needs, and few enough that a damaged number
does not fill the memory."""

# More than any machine has, and far inside the 64 bits of the table's columns and their
# differences.
_LARGEST_BYTES = 2**60

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


class Row:
    """What every kind of row has: its name, and how it becomes JSON and is read from it."""

    __slots__ = ()
    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, the kind first."""
        return {"kind": self.kind, **to_json(self)}  # type: ignore[arg-type]  # every kind is a dataclass

    @classmethod
    def from_json(cls, found: object) -> Self:
        """The row that ``to_json`` wrote, checked. Raises RowError."""
        try:
            row = from_json(cls, found)
        except RecordError as error:
            raise RowError(f"a damaged row: {error}") from error
        row.check()
        return row

    def check(self) -> None:
        """Raise RowError where a value is of the right type and cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow(Row):
    """A row of one run."""

    point: str
    repeat: int

    @property
    def run(self) -> RunKey:
        """The run that it is of."""
        return self.point, self.repeat


# Rows that say beforehand what will be measured beyond the plan; without them the judge refuses
# its rows.


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced(Row):
    """A point that is measured although run.json does not plan it; the row comes before its first
    child.
    """

    kind: ClassVar[str] = "point"

    point: str
    record: Point
    test: str = ""
    """The test that measures it, where one does."""
    repeats: int | None = None
    """How often it is measured, where that is not what run.json says of all points."""

    def check(self) -> None:
        """The point is called what the row calls it, and is measured a possible number of times."""
        if self.record.name != self.point:
            raise RowError(
                f"announces {self.point!r}, but the point in it is called {self.record.name!r}"
            )
        if self.repeats is not None and not 1 <= self.repeats <= MOST_REPEATS:
            raise RowError(
                f"announces {self.point} with {self.repeats} repeats; 1 to {MOST_REPEATS} can be "
                "measured"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Remeasure(Row):
    """Further repeats of a point, numbered after the planned ones; several announcements of a point
    add up.
    """

    kind: ClassVar[str] = "remeasure"

    point: str
    repeats: int
    reason: str

    def check(self) -> None:
        """A possible number of repeats, and a reason."""
        if not 1 <= self.repeats <= MOST_FURTHER_REPEATS:
            raise RowError(
                f"announces {self.repeats} further repeats of {self.point}; 1 to "
                f"{MOST_FURTHER_REPEATS} can be measured"
            )
        if not self.reason.strip():
            raise RowError(f"announces further repeats of {self.point} without a reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked(Row):
    """A test that is marked to be skipped, or to fail: what is found about its
    points fails nobody.
    """

    kind: ClassVar[str] = "parked"

    test: str
    points: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Again(RunRow):
    """The run is measured once more from its start; its earlier rows are discarded."""

    kind: ClassVar[str] = "again"

    reason: str


# What the child says of its run.


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin(RunRow):
    """A phase was entered."""

    kind: ClassVar[str] = "begin"

    phase: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRecord(RunRow):
    """One named span of one run. ``finished`` is False when the body died in it with an
    exception.
    """

    kind: ClassVar[str] = "phase"

    phase: str
    index: int
    finished: bool
    duration_s: float
    readings: tuple[Reading, ...]

    def check(self) -> None:
        """Every reading is possible, and no meter has two."""
        where = f"{self.point}, repeat {self.repeat}, phase {self.phase}"
        for reading in self.readings:
            _check_reading(reading, where)
        if len({reading.meter for reading in self.readings}) < len(self.readings):
            raise RowError(f"{where} has two readings of one meter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared(RunRow):
    """What the body says its arrays add up to, in bytes by name."""

    kind: ClassVar[str] = "declared"

    values: Mapping[str, int]

    def check(self) -> None:
        """The table has a column for each name, and the amounts are possible."""
        for name, amount in self.values.items():
            if name in RESERVED_NAMES or not name.isidentifier():
                raise RowError(
                    f"{self.point} declares {name!r}, which the table has a meaning for or no "
                    "column; rename it"
                )
            if not 0 <= amount <= _LARGEST_BYTES:
                raise RowError(f"{self.point} declares {name} as {amount} B")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFiles(RunRow):
    """Which code the child has measured: the file of each package that is neither Python's own nor
    installed.
    """

    kind: ClassVar[str] = "code"

    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(RunRow):
    """The child's last word: outcome, cause and reason are those of an ``Ending``."""

    kind: ClassVar[str] = "done"

    outcome: Outcome
    cause: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceWritten(RunRow):
    """What the child says of its trace; it is in the rows of a traced run alone."""

    kind: ClassVar[str] = "trace"

    file: str | None
    """Its name; None where there is none."""
    reason: str
    """Why there is none."""


# What the parent says of how it ended.


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd(RunRow):
    """How one run ended, as its parent saw it; outcome, cause and reason are those of an
    ``Ending``.
    """

    kind: ClassVar[str] = "end"

    outcome: Outcome
    cause: str
    reason: str
    phase: str | None
    """The phase it was in when it ended other than by finishing."""
    exit_code: int | None
    launcher: str
    duration_s: float
    device: str = ""
    """UUID of the card that it was measured on, one of those of the run; empty on the emulated
    device."""
    device_limit_bytes: int | None = None
    """Size of the pool that it had; None where the pool had no limit, or no child was started."""
    left_out: tuple[str, ...] = ()
    """A sentence for each equal card that could not be used this time: lost, or filled by somebody
    else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEnd(Row):
    """How the traced run of a point ended, and where its trace is."""

    kind: ClassVar[str] = "traced"

    point: str
    outcome: Outcome
    cause: str
    reason: str
    """How it ended, where not ok, and why there is no trace, where there is none."""
    file: str | None
    """Name of the trace in ``TRACES_FOLDER``; None where there is none."""
    launcher: str
    duration_s: float

    def check(self) -> None:
        """Its file is in the folder of the traces and nowhere else."""
        if self.file is not None and (
            Path(self.file).name != self.file or not self.file.endswith(".json.gz")
        ):
            raise RowError(
                f"the trace of {self.point} is said to be {self.file!r}, which is not a name in "
                f"{TRACES_FOLDER}/"
            )


KINDS: Mapping[str, type[Row]] = {
    row.kind: row
    for row in (
        Again,
        Begin,
        PhaseRecord,
        Declared,
        CodeFiles,
        Done,
        RunEnd,
        Parked,
        Announced,
        Remeasure,
        TraceEnd,
        TraceWritten,
    )
}
"""Every kind of row by its name."""


def _check_reading(reading: Reading, where: str) -> None:
    if reading.quality is Quality.UNAVAILABLE:
        if not reading.reason:
            raise RowError(f"{where}: {reading.meter} is unavailable without a reason")
        return

    for name in ("start_bytes", "peak_bytes", "end_bytes"):
        amount = getattr(reading, name)
        if amount is None or not 0 <= amount <= _LARGEST_BYTES:
            raise RowError(
                f"{where}: {reading.meter} is {reading.quality} but its {name} is {amount}"
            )

    start, peak, end = reading.start_bytes, reading.peak_bytes, reading.end_bytes
    assert start is not None and peak is not None and end is not None  # noqa: S101, PT018 - checked above
    if peak < max(start, end):
        raise RowError(
            f"{where}: {reading.meter} has a peak of {peak} B, below its own start or end"
        )
    if reading.peak_bound_bytes is not None and reading.peak_bound_bytes < peak:
        raise RowError(
            f"{where}: {reading.meter} has an upper bound of its peak below the lower one"
        )


# Appending.


def open_rows(path: Path) -> int:
    """A descriptor of rows.jsonl for ``append_row``; the caller closes it. Raises OSError."""
    # Readable, because append_line looks at what came before.
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)


def append_row(descriptor: int, row: Row) -> None:
    """Append ``row`` to rows.jsonl, open as ``descriptor`` (``open_rows``). Raises OSError as
    ``append_line`` does.
    """
    append_line(descriptor, json.dumps(row.to_json()))


def append_line(descriptor: int, text: str) -> None:
    """Append one line, also beside other processes.

    Written in one call under the file's lock. An unfinished last line, of a killed writer or a full
    disk, is ended first so that it spoils no other. Without locks it is left alone: another writer
    may still be at it.
    Raises OSError when the line cannot be written or is cut short.
    """
    line = f"{text}\n".encode()
    with locked(descriptor) as alone:
        end = os.fstat(descriptor).st_size if alone else 0
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        if torn:
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, "a row was cut short; is the disk full?")


def write_row(run_directory: Path, row: Row) -> None:
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
        subject = row.test if isinstance(row, Parked) else getattr(row, "point", "the run")
        raise RunDirectoryError(
            f"the {row.kind} of {subject} cannot be written to {rows}: {error.strerror}"
        ) from error


def announce_point(
    run_directory: Path, point: Point, *, test: str = "", repeats: int | None = None
) -> None:
    """Say that ``point``, which run.json need not plan, will be measured in all its repeats; before
    its first child.

    ``test`` names the test that measures it, one of those that ``start_run`` was given;
    ``repeats`` is how often (None: as often as run.json says of all). The same point may be
    announced more than once, as long as it is the same. Raises RunDirectoryError when the row
    cannot be written.
    """
    write_row(run_directory, Announced(point=point.name, record=point, test=test, repeats=repeats))


def park_points(run_directory: Path, *, test: str, points: Sequence[str], reason: str) -> None:
    """Say that ``test`` was skipped, or expected to fail: what is found about its points fails
    nobody.

    Raises RunDirectoryError when the row cannot be written.
    """
    write_row(run_directory, Parked(test=test, points=tuple(points), reason=one_line(reason)))


def discard_run(run_directory: Path, point: str, repeat: int, reason: str) -> None:
    """Say that a run is measured once more from its start, and why; its earlier rows are discarded.
    Raises RunDirectoryError.
    """
    write_row(run_directory, Again(point=point, repeat=repeat, reason=reason))


# Reading what is there so far. A damaged line stays in the file, where the judge finds it and says
# so (``harness.rundir.reading``).


def rows_since(path: Path, offset: int) -> Iterator[Row]:
    """The rows of a file of rows from ``offset`` (bytes) on, without those that cannot be used.
    Raises OSError.
    """
    for line in read_whole(path, offset).split(b"\n"):
        try:
            found = json.loads(line)
            yield KINDS[found["kind"]].from_json(found)
        except (ValueError, TypeError, LookupError, RowError):
            continue


def ends_of(run_directory: Path) -> list[RunEnd]:
    """The ends that are on disk so far, in the order in which they were written, without those that
    were discarded. Raises OSError.
    """
    found: dict[RunKey, RunEnd] = {}
    for row in rows_since(run_directory / ROWS_FILE, 0):
        if isinstance(row, Again):
            found.pop(row.run, None)
        elif isinstance(row, RunEnd):
            found[row.run] = row
    return list(found.values())
