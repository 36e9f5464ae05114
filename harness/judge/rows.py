"""rows.jsonl, line by line: what can be used, and a sentence for every line that cannot. Nothing is dropped in silence."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from harness.errors import RunDirectoryError
from harness.judge.manifest import first_error
from harness.records import TRACES_FOLDER, Outcome, PhaseRecord, Point, Quality, Reading, RunEnd, TraceEnd

# More than any machine has, and far inside the 64 bits of the table's columns and their differences.
_LARGEST_BYTES = 2**60

MOST_FURTHER_REPEATS = 100
"""Chosen: of one announcement; far more than a quorum needs, and few enough that a damaged number does not fill the memory."""

RESERVED_NAMES = frozenset({"start", "peak", "peak_bound", "end", "growth", "growth_bound", "retained", "net_peak", "net_end"})
"""What a body cannot call an array of its own: the table has these amounts already."""

NOT_THE_BODYS_DOING = frozenset({"preparation", "import", "rows"})
"""Causes of errors that happened before the body, or to what it measured."""

RunKey = tuple[str, int]
"""Name of the point and number of the repeat: one run."""


@dataclass(frozen=True, slots=True)
class _Begin:
    """A phase was entered."""

    point: str
    repeat: int
    phase: str
    index: int


@dataclass(frozen=True, slots=True)
class _Declared:
    """What the body says its arrays add up to."""

    point: str
    repeat: int
    values: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Again:
    """The run is measured once more from its start; what it left before is void."""

    point: str
    repeat: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Remeasure:
    """Further repeats of a point, numbered after the planned ones; several announcements of a point add up."""

    point: str
    repeats: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Code:
    """Which code the child has measured: the file of each package that is neither Python's own nor installed."""

    point: str
    repeat: int
    packages: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Done:
    """The child's last word."""

    point: str
    repeat: int
    outcome: Outcome
    cause: str
    reason: str


@dataclass(slots=True)
class Rows:
    """All usable rows of a run, by the run they belong to."""

    begun: dict[RunKey, dict[str, int]] = field(default_factory=dict)
    """Index of every phase that was entered."""
    phases: dict[tuple[str, int, str], PhaseRecord] = field(default_factory=dict)
    declared: dict[RunKey, dict[str, int]] = field(default_factory=dict)
    """Bytes that the body says its arrays add up to, by name; a later row overrides an earlier one."""
    code: dict[RunKey, dict[str, str]] = field(default_factory=dict)
    """The file that each package of the user's came from, by name; of a run that imported more in mid-phase, all of them."""
    done: dict[RunKey, Outcome] = field(default_factory=dict)
    ends: dict[RunKey, RunEnd] = field(default_factory=dict)
    traces: dict[str, TraceEnd] = field(default_factory=dict)
    """How the traced run of each point ended; the last one, where it was traced again."""
    further: dict[str, int] = field(default_factory=dict)
    """Repeats that were announced beyond the plan, by point."""
    problems: list[str] = field(default_factory=list)


class _RowError(Exception):
    """A row that cannot be used; the message says why."""


def read_rows(path: Path, points: Sequence[Point], repeats: int) -> Rows:
    """Read rows.jsonl of a run that planned ``points``, ``repeats`` times each (numbered from 0).

    Further repeats are accepted where a row has announced them, wherever in the file it stands. Damaged lines, duplicates
    and rows of runs that nobody planned become ``problems`` with their line numbers.
    Raises RunDirectoryError when the file is missing or cannot be read.
    """
    rows = Rows()
    planned = {point.name for point in points}
    lines = list(_lines(path))
    damaged: dict[int, str] = {}
    # Announcements first: what they announce may stand before them where workers wrote side by side.
    for is_announcement in (True, False):
        for number, line in enumerate(lines, start=1):
            try:
                row = _parse(line)
                if (row["kind"] == _ANNOUNCEMENT) is is_announcement:
                    _check_planned(row, planned, rows.further, repeats)
                    _STORE[row["kind"]](rows, line)
            except ValidationError as error:
                damaged[number] = f"a damaged row: {first_error(error)}"
            except _RowError as error:
                damaged[number] = str(error)
    rows.problems.extend(f"{path.name}, line {number}: {what}" for number, what in sorted(damaged.items()))
    rows.problems.extend(_contradictions(rows))
    return rows


def owed_phases(point: Point, outcome: Outcome, phase: str | None) -> tuple[str, ...]:
    """The phases that a run must have finished: all when it ended ok, of one that died in ``phase`` those before it."""
    if outcome is Outcome.OK:
        return point.phases
    return point.phases[: point.phases.index(phase)] if phase in point.phases else ()


def is_measured(rows: Rows, point: Point, repeat: int) -> bool:
    """Whether the run has an end that can be judged, with every row that it owes. A death is one: it would happen again.

    A run that never came to its body (no device, no input), or whose rows could not be written, has measured nothing.
    """
    end = rows.ends.get((point.name, repeat))
    if end is None or end.outcome is Outcome.SKIPPED or (end.outcome is Outcome.ERROR and end.cause in NOT_THE_BODYS_DOING):
        return False
    if end.outcome is Outcome.OK and rows.done.get((point.name, repeat)) is not Outcome.OK:
        return False
    records = (rows.phases.get((point.name, repeat, phase)) for phase in owed_phases(point, end.outcome, end.phase))
    return all(record is not None and record.finished for record in records)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path.parent} has no {path.name}: the run never started; measure again") from error
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    # Not splitlines(): a carriage return or a lone control character inside a damaged row is not the end of it.
    return iter(text.removesuffix(b"\n").split(b"\n") if text else [])


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise _RowError("damaged or cut short, not JSON") from error
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str) or row["kind"] not in _STORE:
        raise _RowError(f"not a row of a known kind ({', '.join(_STORE)})")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise _RowError(f"holds {name}, which is not a number that a meter can read")


def _check_planned(row: Mapping[str, Any], planned: set[str], further: Mapping[str, int], repeats: int) -> None:
    point, repeat = row.get("point"), row.get("repeat")
    if not isinstance(point, str) or point not in planned:
        raise _RowError(f"a row of {point!r}, which this run did not plan")
    if row["kind"] in ("traced", _ANNOUNCEMENT):
        return  # it is of none of the repeats
    more = further.get(point, 0)
    if not isinstance(repeat, int) or isinstance(repeat, bool) or not 0 <= repeat < repeats + more:
        announced = f" and {more} more announced" if more else ""
        raise _RowError(f"repeat {repeat!r} of {point}, but {repeats} were planned{announced}, numbered from 0")


def _store_begin(rows: Rows, line: bytes) -> None:
    begin = _BEGIN.validate_json(line, strict=True)
    own = rows.begun.setdefault((begin.point, begin.repeat), {})
    if begin.phase in own:
        raise _RowError(f"{begin.point}, repeat {begin.repeat}, enters phase {begin.phase} a second time")
    own[begin.phase] = begin.index


def _store_phase(rows: Rows, line: bytes) -> None:
    record = _PHASE.validate_json(line, strict=True)
    place = (record.point, record.repeat, record.phase)
    where = f"{record.point}, repeat {record.repeat}, phase {record.phase}"
    if place in rows.phases:
        raise _RowError(f"a second record of {where}; the first one is kept")
    for reading in record.readings:
        _check_reading(reading, where)
    meters = [reading.meter for reading in record.readings]
    if len(set(meters)) < len(meters):
        raise _RowError(f"{where} has two readings of one meter")
    rows.phases[place] = record


def _check_reading(reading: Reading, where: str) -> None:
    amounts = {"start_bytes": reading.start_bytes, "peak_bytes": reading.peak_bytes, "end_bytes": reading.end_bytes}
    if reading.quality is Quality.UNAVAILABLE:
        if not reading.reason:
            raise _RowError(f"{where}: {reading.meter} is unavailable without a reason")
        return
    for name, amount in amounts.items():
        if amount is None or not 0 <= amount <= _LARGEST_BYTES:
            raise _RowError(f"{where}: {reading.meter} is {reading.quality} but its {name} is {amount}")
    edges = [amount for amount in (reading.start_bytes, reading.end_bytes) if amount is not None]
    if reading.peak_bytes is not None and reading.peak_bytes < max(edges):
        raise _RowError(f"{where}: {reading.meter} has a peak of {reading.peak_bytes} B, below its own start or end")
    if reading.peak_bound_bytes is not None and reading.peak_bytes is not None and reading.peak_bound_bytes < reading.peak_bytes:
        raise _RowError(f"{where}: {reading.meter} has an upper bound of its peak below the lower one")


def _store_declared(rows: Rows, line: bytes) -> None:
    declared = _DECLARED.validate_json(line, strict=True)
    for name, amount in declared.values.items():
        if name in RESERVED_NAMES or not name.isidentifier():
            raise _RowError(f"{declared.point} declares {name!r}, which the table has a meaning for or no column; rename it")
        if not 0 <= amount <= _LARGEST_BYTES:
            raise _RowError(f"{declared.point} declares {name} as {amount} B")
    rows.declared.setdefault((declared.point, declared.repeat), {}).update(declared.values)


def _store_code(rows: Rows, line: bytes) -> None:
    code = _CODE.validate_json(line, strict=True)
    rows.code.setdefault((code.point, code.repeat), {}).update(code.packages)


def _store_done(rows: Rows, line: bytes) -> None:
    done = _DONE.validate_json(line, strict=True)
    rows.done[done.point, done.repeat] = done.outcome


def _store_end(rows: Rows, line: bytes) -> None:
    end = _END.validate_json(line, strict=True)
    run = (end.point, end.repeat)
    if run in rows.ends:
        raise _RowError(f"{end.point}, repeat {end.repeat}, ends a second time; the first end is kept")
    rows.ends[run] = end


def _store_traced(rows: Rows, line: bytes) -> None:
    end = _TRACED.validate_json(line, strict=True)
    if end.file is not None and (Path(end.file).name != end.file or not end.file.endswith(".json.gz")):
        raise _RowError(f"the trace of {end.point} is said to be {end.file!r}, which is not a name in {TRACES_FOLDER}/")
    rows.traces[end.point] = end


def _store_remeasure(rows: Rows, line: bytes) -> None:
    more = _REMEASURE.validate_json(line, strict=True)
    if not 1 <= more.repeats <= MOST_FURTHER_REPEATS:
        raise _RowError(f"announces {more.repeats} further repeats of {more.point}; 1 to {MOST_FURTHER_REPEATS} can be measured")
    if not more.reason.strip():
        raise _RowError(f"announces further repeats of {more.point} without a reason")
    rows.further[more.point] = rows.further.get(more.point, 0) + more.repeats


def _store_again(rows: Rows, line: bytes) -> None:
    again = _AGAIN.validate_json(line, strict=True)
    run = (again.point, again.repeat)
    for by_run in (rows.begun, rows.declared, rows.code, rows.done, rows.ends):
        by_run.pop(run, None)
    for place in [place for place in rows.phases if place[:2] == run]:
        del rows.phases[place]


def _contradictions(rows: Rows) -> Iterator[str]:
    """An end that says ok needs the child's own word for it: a parent cannot know what the child did not finish."""
    for (point, repeat), end in sorted(rows.ends.items()):
        said = rows.done.get((point, repeat))
        if end.outcome is Outcome.OK and said is not Outcome.OK:
            word = "never said that it was done" if said is None else f"said {said}"
            yield f"{point}, repeat {repeat}, is recorded as ok, but its child {word}"


_AGAIN = TypeAdapter(_Again)
_BEGIN = TypeAdapter(_Begin)
_PHASE = TypeAdapter(PhaseRecord)
_DECLARED = TypeAdapter(_Declared)
_CODE = TypeAdapter(_Code)
_DONE = TypeAdapter(_Done)
_END = TypeAdapter(RunEnd)
_REMEASURE = TypeAdapter(_Remeasure)
_TRACED = TypeAdapter(TraceEnd)

_ANNOUNCEMENT = "remeasure"

_STORE = {
    "again": _store_again,
    "begin": _store_begin,
    "phase": _store_phase,
    "declared": _store_declared,
    "code": _store_code,
    "done": _store_done,
    "end": _store_end,
    _ANNOUNCEMENT: _store_remeasure,
    "traced": _store_traced,
}
