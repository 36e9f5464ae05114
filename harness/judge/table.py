"""Run directory -> tidy table: one row for each point, repeat, phase and meter. Everything later is
computed from it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from harness.records import ROWS_FILE, Point, Quality, Reading, Scalar
from harness.rundir.manifest import Manifest, read_manifest
from harness.rundir.reading import Rows, read_rows
from harness.rundir.rows import PhaseRecord, RunKey, TraceEnd
from harness.rundir.seal import broken_seal, odd_times
from harness.words import columns_of, one_line

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
_LAST_COLUMN = "launcher"
"""What follows it is what the bodies declared, ``NAME_bytes`` each."""
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

_AMOUNTS = (
    "start",
    "peak",
    "end",
    "growth",
    "growth_bound",
    "retained",
    "net_start",
    "net_peak",
    "net_end",
)

Place = tuple[str, str, str, str]
"""Point, phase, meter and field: where an amount was read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One run directory, read and checked."""

    path: Path
    manifest: Manifest
    points: tuple[Point, ...]
    """What was planned, in the order of the catalogue, and then what was announced; with phases, as
    far as any are known."""
    phases: pd.DataFrame
    """One row for each point, repeat, phase and meter; amounts are nullable Int64 bytes, missing
    when unavailable.

    The last columns, ``NAME_bytes``, are what the bodies declared, for every name that any of them
    did.

    A phase that was entered and never left, and a run that died before its first phase, have one
    row without a meter.
    """
    ends: pd.DataFrame
    """How each run ended: point, repeat, outcome, cause, reason, phase, exit_code, launcher,
    duration_s, device."""
    rows: Rows
    """The rows that the tables were made of."""
    tests: frozenset[str]
    """The tests that have announced a point."""
    code: Mapping[RunKey, Mapping[str, str]]
    """The file that each package of the user's was imported from, by run; a run that was killed
    early may be absent."""
    traces: Mapping[str, TraceEnd]
    """How the traced run of each point ended, by name; the traces themselves are for
    ``judge.traces`` to read."""
    parked: Mapping[str, str]
    """Why nothing that is found about a point fails anybody, by its name: its test was skipped, or
    expected to fail."""
    problems: tuple[str, ...]
    """A sentence for everything in the directory that could not be used; not empty means
    incomplete."""

    @property
    def further(self) -> Mapping[str, int]:
        """Repeats that were announced beyond the plan, by the name of the point."""
        return self.rows.further

    def repeats_of(self, point: str) -> range:
        """The numbers of the repeats that this point requires: those that were planned, and those
        announced later.
        """
        return self.rows.repeats.of(point)

    def first_repeats_of(self, point: str) -> int:
        """How many of them were planned, before any finding."""
        return self.rows.repeats.first_of(point)


def load_run(path: Path) -> Run:
    """Read the run directory ``path``, also one without any rows yet.

    Raises RunDirectoryError when it is not a run directory, or its run.json is damaged or of an
    unknown version.
    """
    manifest = read_manifest(path)
    rows = read_rows(path / ROWS_FILE, manifest.planned, manifest.repeats)
    rows.problems.extend(broken_seal(path, manifest.content))
    rows.problems.extend(odd_times(manifest.started, manifest.ended, datetime.now(UTC)))
    points = rows.points
    return Run(
        path=path,
        manifest=manifest,
        points=points,
        phases=_phases_table(points, rows),
        ends=_ends_table(points, rows),
        rows=rows,
        tests=frozenset(rows.tests),
        code=rows.code,
        traces=rows.traces,
        parked=rows.parked,
        problems=tuple(rows.problems),
    )


def phases_text(run: Run) -> str:
    """The table of phases as CSV, as phases.csv has it."""
    return run.phases.to_csv(index=False, lineterminator="\n")


def setting_columns(points: Sequence[Point]) -> tuple[str, ...]:
    """The parameters of all points, then their fixed settings: the columns that identify a row's
    point.
    """
    names = [name for point in points for name in point.parameters]
    names += [name for point in points for name in point.fixed]
    return tuple(dict.fromkeys(names))


def declared_names(phases: pd.DataFrame) -> tuple[str, ...]:
    """What any body of the run declared, by the columns of its table."""
    columns = [str(name) for name in phases.columns]
    return tuple(name.removesuffix("_bytes") for name in columns[columns.index(_LAST_COLUMN) + 1 :])


def declared_by_point(phases: pd.DataFrame) -> Mapping[str, Mapping[str, int]]:
    """Bytes that each point's body declared, by name; the least where repeats differ, so that no
    limit is wider for it.
    """
    names = declared_names(phases)
    least = (
        phases.groupby("point", sort=False)[[f"{name}_bytes" for name in names]].min()
        if names
        else pd.DataFrame()
    )
    return {
        str(point): {
            name: int(row[f"{name}_bytes"]) for name in names if not pd.isna(row[f"{name}_bytes"])
        }
        for point, row in least.iterrows()
    }


def readings_by_place(phases: pd.DataFrame) -> Mapping[Place, Mapping[int, int]]:
    """Every amount of every *finished* phase in bytes, by repeat, in the order of the repeats.

    Fields are ``start``, ``peak``, ``end``, ``growth``, ``retained``; ``growth_bound``, the upper
    bound of the growth, where a meter brackets its peak; ``net_start``, ``net_peak`` and
    ``net_end``, over what there was when the run's first phase began; and what the body declared.
    """
    found: defaultdict[Place, dict[int, int]] = defaultdict(dict)
    fields = (*_AMOUNTS, *declared_names(phases))
    before = _before_the_first_phase(phases)
    derived = phases.assign(
        growth_bound_bytes=phases["peak_bound_bytes"] - phases["start_bytes"],
        net_start_bytes=phases["start_bytes"] - before,
        net_peak_bytes=phases["peak_bytes"] - before,
        net_end_bytes=phases["end_bytes"] - before,
    )
    finished = derived[derived["finished"]]
    for row in finished.to_dict("records"):
        for field in fields:
            amount = row[f"{field}_bytes"]
            if not pd.isna(amount):
                found[row["point"], row["phase"], row["meter"], field][int(row["repeat"])] = int(
                    amount
                )
    return dict(found)


def _before_the_first_phase(phases: pd.DataFrame) -> "pd.Series[Any]":
    """For each row, where the run's first phase began on that meter: what is the harness's or
    TensorFlow's own.
    """
    in_order = phases.sort_values("phase_index", kind="stable")
    first = in_order.groupby(["point", "repeat", "meter"], sort=False)["start_bytes"].transform(
        "first"
    )
    return first.reindex(phases.index)


def amounts_by_place(phases: pd.DataFrame) -> Mapping[Place, tuple[int, ...]]:
    """As ``readings_by_place``, without the numbers of the repeats."""
    return {
        place: tuple(readings.values()) for place, readings in readings_by_place(phases).items()
    }


def _phases_table(points: Sequence[Point], rows: Rows) -> pd.DataFrame:
    settings = setting_columns(points)
    names = sorted({name for values in rows.declared.values() for name in values})
    declared = {f"{name}_bytes": "Int64" for name in names}
    own = _BEFORE_PARAMETERS | _AFTER_PARAMETERS | declared
    columns = columns_of(settings, own)
    found = [
        row
        for point, repeat in _runs(points, rows)
        for row in _rows_of_run(point, repeat, rows, names, columns)
    ]
    table = pd.DataFrame(
        found, columns=[*_BEFORE_PARAMETERS, *columns.values(), *_AFTER_PARAMETERS, *declared]
    ).astype(own)
    return table.astype(
        {column: _setting_dtype([row.get(column) for row in found]) for column in columns.values()}
    )


def _runs(points: Sequence[Point], rows: Rows) -> Iterator[tuple[Point, int]]:
    for point in points:
        for repeat in rows.repeats_of(point.name):
            yield point, repeat


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


def _rows_of_run(
    point: Point, repeat: int, rows: Rows, names: Sequence[str], columns: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    run = (point.name, repeat)
    end = rows.ends.get(run)
    declared = rows.declared.get(run, {})
    shared: dict[str, Any] = {
        "scenario": point.scenario,
        "point": point.name,
        **{
            columns[name]: _in_one_line(value)
            for name, value in {**point.fixed, **point.parameters}.items()
        },
        "repeat": repeat,
        "outcome": None if end is None else str(end.outcome),
        "cause": "" if end is None else end.cause,
        "reason": "" if end is None else end.reason,
        "launcher": None if end is None else end.launcher,
        **{f"{name}_bytes": declared.get(name) for name in names},
    }
    records = {
        phase: record
        for (name, number, phase), record in rows.phases.items()
        if (name, number) == run
    }
    left_open = {
        phase: index for phase, index in rows.begun.get(run, {}).items() if phase not in records
    }
    places = [(record.index, phase) for phase, record in records.items()] + [
        (index, phase) for phase, index in left_open.items()
    ]
    for index, phase in sorted(places):
        shared_phase = {**shared, "phase": phase, "phase_index": index}
        record = records.get(phase)
        if record is None or not record.readings:
            yield {**shared_phase, **_without_reading(record)}
        else:
            yield from (
                {**shared_phase, **_of_reading(record, reading, shared["reason"])}
                for reading in record.readings
            )
    if not places and end is not None:
        yield {**shared, **_without_reading(None)}


def _without_reading(record: PhaseRecord | None) -> dict[str, Any]:
    finished, duration_s = (False, None) if record is None else (record.finished, record.duration_s)
    return {"quality": str(Quality.UNAVAILABLE), "finished": finished, "duration_s": duration_s}


def _of_reading(record: PhaseRecord, reading: Reading, end_reason: str) -> dict[str, Any]:
    return {
        "meter": reading.meter,
        "quality": str(reading.quality),
        "start_bytes": reading.start_bytes,
        "peak_bytes": reading.peak_bytes,
        "peak_bound_bytes": reading.peak_bound_bytes,
        "end_bytes": reading.end_bytes,
        "growth_bytes": reading.growth_bytes,
        "retained_bytes": reading.retained_bytes,
        "samples": reading.samples,
        "rate_hz": reading.rate_hz,
        "largest_gap_s": reading.largest_gap_s,
        "source": reading.source,
        "contended": reading.contended,
        "duration_s": record.duration_s,
        "finished": record.finished,
        "reason": reading.reason or end_reason,
    }


def _ends_table(points: Sequence[Point], rows: Rows) -> pd.DataFrame:
    ends = [rows.ends.get((point.name, repeat)) for point, repeat in _runs(points, rows)]
    found = [{name: getattr(end, name) for name in _END_COLUMNS} for end in ends if end is not None]
    return pd.DataFrame(found, columns=list(_END_COLUMNS)).astype(_END_COLUMNS)
