"""rows.jsonl, line by line: what can be used, and a sentence for every line that cannot. Nothing is
dropped in silence.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from harness.errors import RunDirectoryError
from harness.records import Outcome, PhaseRecord, Point, RunEnd, TraceEnd
from harness.rundir import rows as rowkinds
from harness.rundir.manifest import first_error
from harness.rundir.rows import RowError
from harness.system.files import read_whole
from harness.words import natural

RunKey = tuple[str, int]
"""Name of the point and number of the repeat: one run."""


@dataclass(slots=True)
class Rows:
    """All usable rows of a run, by the run they belong to."""

    repeats: int
    """Of each point, as planned."""
    known: dict[str, Point]
    """By name: what was planned, and what was announced; phases as they were given, also where that
    is none."""
    announced: set[str] = field(default_factory=set)
    """Names of the points that were announced and not planned."""
    begun: dict[RunKey, dict[str, int]] = field(default_factory=dict)
    """Index of every phase that was entered."""
    phases: dict[tuple[str, int, str], PhaseRecord] = field(default_factory=dict)
    declared: dict[RunKey, dict[str, int]] = field(default_factory=dict)
    """Bytes that the body says its arrays add up to, by name; a later row overrides an earlier
    one."""
    code: dict[RunKey, dict[str, str]] = field(default_factory=dict)
    """The file that each package of the user's came from, by name; of a run that imported more in
    mid-phase, all of them."""
    done: dict[RunKey, Outcome] = field(default_factory=dict)
    ends: dict[RunKey, RunEnd] = field(default_factory=dict)
    traces: dict[str, TraceEnd] = field(default_factory=dict)
    """How the traced run of each point ended; the last one, where it was traced again."""
    own_repeats: dict[str, int] = field(default_factory=dict)
    """Repeats of a point that were announced with it, by point, where they are not ``repeats``."""
    further: dict[str, int] = field(default_factory=dict)
    """Repeats that were announced beyond the plan, by point."""
    tests: set[str] = field(default_factory=set)
    """The tests that have announced a point."""
    parked: dict[str, str] = field(default_factory=dict)
    """By point: why nothing that is found about it fails anybody."""
    problems: list[str] = field(default_factory=list)

    @property
    def points(self) -> tuple[Point, ...]:
        """What was planned, then what was announced, by name: the order in which workers came to it
        changes nothing.

        Phases that were not known beforehand are those that runs have entered.
        """
        planned = [point for name, point in self.known.items() if name not in self.announced]
        announced = [self.known[name] for name in sorted(self.announced, key=natural)]
        entered: dict[tuple[str, str], tuple[str, ...]] = {}
        for point in (*planned, *announced):
            kind = (point.scenario, point.body)
            if not point.phases and kind not in entered:
                entered[kind] = self._entered(point)
        return tuple(
            dataclasses.replace(point, phases=point.phases or entered[point.scenario, point.body])
            for point in (*planned, *announced)
        )

    def point(self, name: str) -> Point:
        """One of the points, as ``points`` has it."""
        point = self.known[name]
        return dataclasses.replace(point, phases=point.phases or self._entered(point))

    def repeats_of(self, point: str) -> range:
        """The numbers of the repeats that a point owes: those that were planned, and those
        announced later.
        """
        return range(self.own_repeats.get(point, self.repeats) + self.further.get(point, 0))

    def _entered(self, point: Point) -> tuple[str, ...]:
        """The phases that any run of the point's scenario and body has entered, in order: of each,
        the latest place it had.
        """
        kind = (point.scenario, point.body)
        open_ended = {
            name
            for name, other in self.known.items()
            if (other.scenario, other.body) == kind and not other.phases
        }
        latest: dict[str, int] = {}
        for (name, _), entered in sorted(self.begun.items()):
            for phase, index in entered.items() if name in open_ended else ():
                latest[phase] = max(index, latest.get(phase, 0))
        return tuple(sorted(latest, key=lambda phase: (latest[phase], phase)))


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: bytes
    row: Mapping[str, Any]


def read_rows(path: Path, points: Sequence[Point], repeats: int) -> Rows:
    """Read rows.jsonl of a run that planned ``points``, ``repeats`` times each (numbered from 0).

    Further points and further repeats are accepted where a row has announced them, wherever in the
    file it stands. Damaged lines, duplicates and rows of runs that nobody planned or announced
    become ``problems`` with their line numbers. Raises RunDirectoryError when the file is missing
    or cannot be read.
    """
    rows = Rows(repeats=repeats, known={point.name: point for point in points})
    damaged: dict[int, str] = {}
    lines = []
    for number, text in enumerate(_texts(path), start=1):
        try:
            lines.append(_Line(number, text, _parse(text)))
        except RowError as error:
            damaged[number] = str(error)
    # Announcements first: what they announce may stand before them where workers wrote side by
    # side.
    for line in sorted(lines, key=lambda line: _FIRST.get(line.row["kind"], len(_FIRST))):
        try:
            _check_announced(rows, line.row)
            _STORE[line.row["kind"]](rows, line.text)
        except ValidationError as error:
            damaged[line.number] = f"a damaged row: {first_error(error)}"
        except RowError as error:
            damaged[line.number] = str(error)
    rows.problems.extend(
        f"{path.name}, line {number}: {what}" for number, what in sorted(damaged.items())
    )
    rows.problems.extend(_contradictions(rows))
    return rows


def _texts(path: Path) -> Iterator[bytes]:
    try:
        text = read_whole(path)
    except FileNotFoundError as error:
        raise RunDirectoryError(
            f"{path.parent} has no {path.name}, which a run has from its start on: it was "
            "deleted, or not copied with the rest; restore it, or measure again"
        ) from error
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    # Not splitlines(): a carriage return or a lone control character inside a damaged row is not
    # the end of it.
    return iter(text.removesuffix(b"\n").split(b"\n") if text else [])


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RowError("damaged or cut short, not JSON") from error
    if (
        not isinstance(row, dict)
        or not isinstance(row.get("kind"), str)
        or row["kind"] not in _STORE
    ):
        raise RowError(f"not a row of a known kind ({', '.join(_STORE)})")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise RowError(f"holds {name}, which is not a number that a meter can read")


def _check_announced(rows: Rows, row: Mapping[str, Any]) -> None:
    """A row is of a run that was planned or announced."""
    if row["kind"] in ("point", "parked"):
        return
    point, repeat = row.get("point"), row.get("repeat")
    if not isinstance(point, str) or point not in rows.known:
        raise RowError(f"a row of {point!r}, which this run neither planned nor announced")
    if row["kind"] in ("traced", "remeasure"):
        return  # it is of none of the repeats
    more = rows.further.get(point, 0)
    if (
        not isinstance(repeat, int)
        or isinstance(repeat, bool)
        or repeat not in rows.repeats_of(point)
    ):
        announced = f" and {more} more announced" if more else ""
        planned = rows.own_repeats.get(point, rows.repeats)
        raise RowError(
            f"repeat {repeat!r} of {point}, but {planned} were planned{announced}, numbered from 0"
        )


def _store_point(rows: Rows, line: bytes) -> None:
    row = rowkinds.announced(line)
    if row.point not in rows.known:
        rows.announced.add(row.point)
    there = rows.known.setdefault(row.point, row.record)
    if there != row.record:
        differs = next(
            key for key in Point.__slots__ if getattr(there, key) != getattr(row.record, key)
        )
        raise RowError(
            f"announces {row.point} with another {differs} than it was planned or announced "
            "with before: two things that are measured need two names; give them "
            "parameters of their own"
        )
    if row.test:
        rows.tests.add(row.test)
    if row.repeats is not None:
        rows.own_repeats[row.point] = row.repeats


def _store_remeasure(rows: Rows, line: bytes) -> None:
    more = rowkinds.remeasure(line)
    rows.further[more.point] = rows.further.get(more.point, 0) + more.repeats


def _store_parked(rows: Rows, line: bytes) -> None:
    row = rowkinds.PARKED.validate_json(line)  # not strictly: JSON has no tuples
    rows.parked.update(dict.fromkeys(row.points, row.reason))
    rows.tests.add(row.test)


def _store_begin(rows: Rows, line: bytes) -> None:
    begin = rowkinds.BEGIN.validate_json(line, strict=True)
    own = rows.begun.setdefault((begin.point, begin.repeat), {})
    if begin.phase in own:
        raise RowError(
            f"{begin.point}, repeat {begin.repeat}, enters phase {begin.phase} a second time"
        )
    own[begin.phase] = begin.index


def _store_phase(rows: Rows, line: bytes) -> None:
    record = rowkinds.phase(line)
    place = (record.point, record.repeat, record.phase)
    if place in rows.phases:
        where = f"{record.point}, repeat {record.repeat}, phase {record.phase}"
        raise RowError(f"a second record of {where}; the first one is kept")
    rows.phases[place] = record


def _store_declared(rows: Rows, line: bytes) -> None:
    declared = rowkinds.declared(line)
    rows.declared.setdefault((declared.point, declared.repeat), {}).update(declared.values)


def _store_code(rows: Rows, line: bytes) -> None:
    code = rowkinds.CODE.validate_json(line, strict=True)
    rows.code.setdefault((code.point, code.repeat), {}).update(code.packages)


def _store_done(rows: Rows, line: bytes) -> None:
    done = rowkinds.DONE.validate_json(line, strict=True)
    rows.done[done.point, done.repeat] = done.outcome


def _store_end(rows: Rows, line: bytes) -> None:
    end = rowkinds.END.validate_json(line, strict=True)
    run = (end.point, end.repeat)
    if run in rows.ends:
        raise RowError(
            f"{end.point}, repeat {end.repeat}, ends a second time; the first end is kept"
        )
    rows.ends[run] = end


def _store_traced(rows: Rows, line: bytes) -> None:
    end = rowkinds.traced(line)
    rows.traces[end.point] = end


def _store_again(rows: Rows, line: bytes) -> None:
    again = rowkinds.AGAIN.validate_json(line, strict=True)
    run = (again.point, again.repeat)
    for by_run in (rows.begun, rows.declared, rows.code, rows.done, rows.ends):
        by_run.pop(run, None)
    for place in [place for place in rows.phases if place[:2] == run]:
        del rows.phases[place]


def _contradictions(rows: Rows) -> Iterator[str]:
    """An end that says ok needs the child's own word for it: a parent cannot know what the child
    did not finish.
    """
    for (point, repeat), end in sorted(rows.ends.items()):
        said = rows.done.get((point, repeat))
        if end.outcome is Outcome.OK and said is not Outcome.OK:
            word = "never said that it was done" if said is None else f"said {said}"
            yield f"{point}, repeat {repeat}, is recorded as ok, but its child {word}"
        if end.outcome is Outcome.OK and end.exit_code not in (0, None):
            yield (
                f"{point}, repeat {repeat}, is recorded as ok, but its child exited with code "
                f"{end.exit_code}"
            )


_STORE: Mapping[str, Callable[[Rows, bytes], None]] = {
    "again": _store_again,
    "begin": _store_begin,
    "phase": _store_phase,
    "declared": _store_declared,
    "code": _store_code,
    "done": _store_done,
    "end": _store_end,
    "parked": _store_parked,
    "point": _store_point,
    "remeasure": _store_remeasure,
    "traced": _store_traced,
}
_FIRST: Mapping[str, int] = {"point": 0, "remeasure": 1}
"""Kinds that others rest on, in this order; all others are stored as they stand in the file."""


class RowsReader:
    """rows.jsonl of a run that is still measured: what was parsed once is not parsed again.

    Lines that cannot be used are left out here: ``read_rows`` lists them when the run is judged as
    a whole.
    """

    def __init__(self, path: Path, points: Sequence[Point], repeats: int) -> None:
        """Of a run that planned ``points``, ``repeats`` times each; nothing is read yet."""
        self._path = path
        self._rows = Rows(repeats=repeats, known={point.name: point for point in points})
        self._offset = 0
        self._early: list[_Line] = []
        """Rows whose announcement has not been written yet: workers write side by side."""

    def read_on(self) -> Rows:
        """All usable rows so far, of which only the new ones are parsed; the same object each time.

        Raises RunDirectoryError when the file cannot be read.
        """
        lines = [*self._early, *self._new_lines()]
        self._early = []

        for line in sorted(lines, key=lambda line: _FIRST.get(line.row["kind"], len(_FIRST))):
            try:
                _check_announced(self._rows, line.row)
            except RowError:
                self._early.append(line)
                continue
            with contextlib.suppress(RowError, ValidationError):
                _STORE[line.row["kind"]](self._rows, line.text)
        return self._rows

    def _new_lines(self) -> Iterator[_Line]:
        try:
            text = read_whole(self._path, self._offset)
        except OSError as error:
            raise RunDirectoryError(f"{self._path} cannot be read: {error}") from error
        # A line without an end is read again once the next writer has ended it.
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)

        for line in complete.split(b"\n")[:-1]:
            with contextlib.suppress(RowError):
                yield _Line(0, line, _parse(line))
