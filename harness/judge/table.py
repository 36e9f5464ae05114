"""Run directory -> tidy rows: one for each point, repeat, phase and meter. Everything later is
computed from them; for people they are pandas tables.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import ROWS_FILE, Point, Quality, Reading, Scalar
from harness.rundir.manifest import Manifest, read_manifest
from harness.rundir.reading import Rows, RowsReader, broken_seal, odd_times, read_rows
from harness.rundir.rows import PhaseRecord, RunEnd, RunKey, TraceEnd
from harness.words import columns_of, one_line

if TYPE_CHECKING:
    import pandas as pd

PHASES_FILE = "phases.csv"

_BEFORE_PARAMETERS = {"scenario": "string", "point": "string"}
_AFTER_PARAMETERS = {
    "repeat": "int64",
    "phase": "string",
    "phase_index": "Int64",
    "meter": "string",
    "quality": "string",
    "start_bytes": "Int64",
    "peak_bytes": "Int64",
    "peak_bound_bytes": "Int64",
    "end_bytes": "Int64",
    "growth_bytes": "Int64",
    "retained_bytes": "Int64",
    "samples": "Int64",
    "rate_hz": "float64",
    "largest_gap_s": "float64",
    "duration_s": "float64",
    "finished": "bool",
    "source": "string",
    "contended": "string",
    "outcome": "string",
    "cause": "string",
    "reason": "string",
    "launcher": "string",
}
_OF_READING = (
    "meter",
    "start_bytes",
    "peak_bytes",
    "peak_bound_bytes",
    "end_bytes",
    "growth_bytes",
    "retained_bytes",
    "samples",
    "rate_hz",
    "largest_gap_s",
    "source",
    "contended",
)
"""Columns that are a reading's own."""
_END_COLUMNS = {
    "point": "string",
    "repeat": "int64",
    "outcome": "string",
    "cause": "string",
    "reason": "string",
    "phase": "string",
    "exit_code": "Int64",
    "launcher": "string",
    "duration_s": "float64",
    "device": "string",
    "device_limit_bytes": "Int64",
}

Place = tuple[str, str, str, str]
"""Point, phase, meter and field: where an amount was read."""


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """What one meter read in one phase of one run.

    A phase without readings, and a run that died before its first phase, have one row without a
    meter.
    """

    point: Point
    run: RunKey
    phase: str | None
    phase_index: int | None
    record: PhaseRecord | None
    """None: the phase was entered and never left."""
    reading: Reading | None
    end: RunEnd | None
    """How the run ended; None while it has not."""

    @property
    def finished(self) -> bool:
        """Whether the phase was left without an exception."""
        return self.record is not None and self.record.finished

    @property
    def reason(self) -> str:
        """Why nothing was read, or else how the run ended."""
        end_reason = "" if self.end is None else self.end.reason
        return end_reason if self.reading is None else self.reading.reason or end_reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run directory, read and checked."""

    path: Path
    manifest: Manifest
    points: tuple[Point, ...]
    """What was planned, in the order of the catalogue, and then what was announced; with phases, as
    far as any are known."""
    rows: tuple[PhaseRow, ...]
    """In the order of the points, their repeats and their phases."""
    run_ends: tuple[RunEnd, ...]
    """How each run ended, in the same order."""
    declared: Mapping[RunKey, Mapping[str, int]]
    """Bytes that the bodies declared, by run and name."""
    source: Rows
    """What all of this was made of: the rows of the run directory, by run."""
    tests: frozenset[str]
    """The tests that have announced a point."""
    code: Mapping[RunKey, Mapping[str, str]]
    """The file that each package of the user's was imported from, by run; a run that was killed
    early may be absent."""
    traces: Mapping[str, TraceEnd]
    """How the traced run of each point ended, by name; the traces themselves are for
    ``judge.completeness`` to read."""
    parked: Mapping[str, str]
    """Why nothing that is found about a point fails anybody, by its name: its test was skipped, or
    expected to fail."""
    problems: tuple[str, ...]
    """A sentence for everything in the directory that could not be used; not empty means
    incomplete."""

    @cached_property
    def phases(self) -> "pd.DataFrame":
        """The rows as a table; amounts are nullable Int64 bytes, missing when unavailable.

        The last columns, ``NAME_bytes``, are what the bodies declared, for every name that any of
        them did.
        """
        return _phases_table(self)

    @cached_property
    def ends(self) -> "pd.DataFrame":
        """How each run ended: point, repeat, outcome, cause, reason, phase, exit_code, launcher,
        duration_s, device.
        """
        return _ends_table(self.run_ends)

    def repeats_of(self, point: str) -> range:
        """The numbers of the repeats that this point needs: those that were planned, and those
        announced later.
        """
        return self.source.repeats.of(point)

    def first_repeats_of(self, point: str) -> int:
        """How many of them were planned, before any finding."""
        return self.source.repeats.first_of(point)

    @property
    def further(self) -> Mapping[str, int]:
        """Repeats that were announced beyond the plan, by the name of the point."""
        return self.source.further


def load_run(path: Path) -> Run:
    """Read the run directory ``path``, also one without any rows yet.

    Raises RunDirectoryError when it is not a run directory, or its run.json is damaged or of an
    unknown version.
    """
    manifest = read_manifest(path)
    rows = read_rows(path / ROWS_FILE, manifest.planned, manifest.repeats)
    rows.problems.extend(broken_seal(path, manifest.content))
    rows.problems.extend(odd_times(manifest.started, manifest.ended, datetime.now(UTC)))
    return _run_of(path, manifest, rows, rows.points, tuple(rows.problems))


class RunReader:
    """A run directory that is still measured into, point by point.

    run.json is read once, and every row once, so that judging each point as soon as it is there
    takes time in proportion to the run.
    """

    def __init__(self, path: Path) -> None:
        """Raises RunDirectoryError as ``load_run`` does."""
        self._path = path
        self._manifest = read_manifest(path)
        self._rows = RowsReader(path / ROWS_FILE, self._manifest.planned, self._manifest.repeats)

    def point(self, name: str) -> Run:
        """The run as if it had this point alone; its ``problems`` are left to ``load_run``.

        Raises KeyError for a point that was neither planned nor announced.
        """
        rows = self._rows.read_on()
        return _run_of(self._path, self._manifest, rows, (rows.point(name),), ())


def _run_of(
    path: Path,
    manifest: Manifest,
    rows: Rows,
    points: tuple[Point, ...],
    problems: tuple[str, ...],
) -> Run:
    ends = [rows.ends.get(run) for _, run in _runs(points, rows)]
    return Run(
        path=path,
        manifest=manifest,
        points=points,
        rows=tuple(_phase_rows(points, rows)),
        run_ends=tuple(end for end in ends if end is not None),
        declared=rows.declared,
        source=rows,
        tests=frozenset(rows.tests),
        code=rows.code,
        traces=rows.traces,
        parked=rows.parked,
        problems=problems,
    )


def setting_columns(points: Sequence[Point]) -> tuple[str, ...]:
    """The parameters of all points, then their fixed settings: the columns that identify a row's
    point.
    """
    names = [name for point in points for name in point.parameters]
    names += [name for point in points for name in point.fixed]
    return tuple(dict.fromkeys(names))


def declared_names(run: Run) -> tuple[str, ...]:
    """What any body of the run declared, in the order of their names."""
    return tuple(sorted({name for values in run.declared.values() for name in values}))


def declared_by_point(run: Run) -> Mapping[str, Mapping[str, int]]:
    """Bytes that each point's body declared, by name; the least where repeats differ, so that no
    limit is wider for it.
    """
    found: dict[str, dict[str, int]] = {}
    for point, repeat in dict.fromkeys(row.run for row in run.rows):
        least = found.setdefault(point, {})
        for name, amount_bytes in run.declared.get((point, repeat), {}).items():
            least[name] = min(amount_bytes, least.get(name, amount_bytes))
    return {point: dict(sorted(least.items())) for point, least in found.items()}


def readings_by_place(run: Run) -> Mapping[Place, Mapping[int, int]]:
    """Every amount of every *finished* phase in bytes, by repeat, in the order of the repeats.

    Fields are ``start``, ``peak``, ``end``, ``growth``, ``retained``; ``growth_bound``, the upper
    bound of the growth, where a meter brackets its peak; ``net_start``, ``net_peak`` and
    ``net_end``, over what there was when the run's first phase began; and what the body declared.
    """
    found: defaultdict[Place, dict[int, int]] = defaultdict(dict)
    first_bytes: dict[tuple[RunKey, str], int] = {}
    """Where the run's first phase began on that meter: the harness's own, or TensorFlow's."""

    for row in run.rows:
        reading = row.reading
        if reading is None:
            continue
        if reading.start_bytes is not None:
            first_bytes.setdefault((row.run, reading.meter), reading.start_bytes)
        if row.finished and row.phase is not None:
            name, repeat = row.run
            amounts = {
                **_amounts(reading, first_bytes.get((row.run, reading.meter))),
                **run.declared.get(row.run, {}),
            }
            for field, amount in amounts.items():
                if amount is not None:
                    found[name, row.phase, reading.meter, field][repeat] = amount
    return dict(found)


def _amounts(reading: Reading, first_bytes: int | None) -> dict[str, int | None]:
    start, peak, end = reading.start_bytes, reading.peak_bytes, reading.end_bytes
    return {
        "start": start,
        "peak": peak,
        "end": end,
        "growth": reading.growth_bytes,
        "growth_bound": _over(reading.peak_bound_bytes, start),
        "retained": reading.retained_bytes,
        "net_start": _over(start, first_bytes),
        "net_peak": _over(peak, first_bytes),
        "net_end": _over(end, first_bytes),
    }


def _over(amount_bytes: int | None, base_bytes: int | None) -> int | None:
    return None if amount_bytes is None or base_bytes is None else amount_bytes - base_bytes


def amounts_by_place(run: Run) -> Mapping[Place, tuple[int, ...]]:
    """As ``readings_by_place``, without the numbers of the repeats."""
    return {place: tuple(readings.values()) for place, readings in readings_by_place(run).items()}


def _runs(points: Sequence[Point], rows: Rows) -> Iterator[tuple[Point, RunKey]]:
    for point in points:
        name = point.name
        for repeat in rows.repeats_of(name):
            yield point, (name, repeat)


def _phase_rows(points: Sequence[Point], rows: Rows) -> Iterator[PhaseRow]:
    names = {point.name for point in points}
    records: defaultdict[RunKey, dict[str, PhaseRecord]] = defaultdict(dict)
    for (name, repeat, phase), record in rows.phases.items():
        if name in names:
            records[name, repeat][phase] = record

    for point, run in _runs(points, rows):
        own, end = records.get(run, {}), rows.ends.get(run)
        places = [(record.index, phase) for phase, record in own.items()]
        places += [
            (index, phase) for phase, index in rows.begun.get(run, {}).items() if phase not in own
        ]
        for index, phase in sorted(places):
            found = own.get(phase)
            for reading in (found.readings if found is not None else ()) or (None,):
                yield PhaseRow(point, run, phase, index, found, reading, end)
        if not places and end is not None:
            yield PhaseRow(point, run, None, None, None, None, end)


# The tables for people. pandas is loaded by whoever asks for one: judging needs none.


def phases_text(run: Run) -> str:
    """The table of phases as CSV, as phases.csv has it."""
    return run.phases.to_csv(index=False, lineterminator="\n")


def _phases_table(run: Run) -> "pd.DataFrame":
    import pandas as pd

    names = declared_names(run)
    declared = {f"{name}_bytes": "Int64" for name in names}
    own = _BEFORE_PARAMETERS | _AFTER_PARAMETERS | declared
    settings = columns_of(setting_columns(run.points), own)

    found = [_flat(row, settings, run.declared.get(row.run, {})) for row in run.rows]
    table = pd.DataFrame(
        found, columns=[*_BEFORE_PARAMETERS, *settings.values(), *_AFTER_PARAMETERS, *declared]
    ).astype(own)
    return table.astype(
        {column: _setting_dtype([row.get(column) for row in found]) for column in settings.values()}
    )


def _flat(
    row: PhaseRow, settings: Mapping[str, str], declared: Mapping[str, int]
) -> dict[str, Any]:
    point, record, reading, end = row.point, row.record, row.reading, row.end
    name, repeat = row.run
    quality = Quality.UNAVAILABLE if reading is None else reading.quality
    return {
        "scenario": point.scenario,
        "point": name,
        **{
            settings[setting]: _in_one_line(value)
            for setting, value in {**point.fixed, **point.parameters}.items()
        },
        "repeat": repeat,
        "phase": row.phase,
        "phase_index": row.phase_index,
        "quality": str(quality),
        **(
            {column: getattr(reading, column) for column in _OF_READING}
            if reading is not None
            else {}
        ),
        "duration_s": None if record is None else record.duration_s,
        "finished": row.finished,
        "outcome": None if end is None else str(end.outcome),
        "cause": "" if end is None else end.cause,
        "reason": row.reason,
        "launcher": None if end is None else end.launcher,
        **{f"{array}_bytes": amount_bytes for array, amount_bytes in declared.items()},
    }


def _in_one_line(value: Scalar) -> Scalar:
    """A setting as a line of CSV has it: programs that read line by line take a quoted line break
    for the end of a row.
    """
    return one_line(value) if isinstance(value, str) else value


def _setting_dtype(values: list[object]) -> str:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int) and not isinstance(value, bool) for value in known):
        return "Int64"
    return "object"


def _ends_table(ends: Sequence[RunEnd]) -> "pd.DataFrame":
    import pandas as pd

    found = [{name: getattr(end, name) for name in _END_COLUMNS} for end in ends]
    return pd.DataFrame(found, columns=list(_END_COLUMNS)).astype(_END_COLUMNS)
