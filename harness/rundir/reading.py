"""rows.jsonl, line by line: what can be used, and a sentence for every line that cannot. Nothing is
dropped in silence.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, Self

from harness.errors import RunDirectoryError
from harness.records import ROWS_FILE, RUN_FILE, Outcome, Point, RecordError, from_json, to_json
from harness.rundir.rows import (
    KINDS,
    Again,
    Announced,
    Begin,
    CodeFiles,
    Declared,
    Done,
    Parked,
    PhaseRecord,
    Remeasure,
    RowError,
    RunEnd,
    RunKey,
    TraceEnd,
)
from harness.system import FINDINGS_FILE, REPORT_FILE, read_whole, remove_judgement
from harness.words import natural


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How often each point of a run is to be measured, by its name."""

    planned: int
    """Of every point that is not in ``announced``."""
    announced: Mapping[str, int] = field(default_factory=dict)
    """Of points that were announced with another number."""
    further: Mapping[str, int] = field(default_factory=dict)
    """Beyond those, announced because of findings."""

    def first_of(self, point: str) -> int:
        """How many were planned, before any finding."""
        return self.announced.get(point, self.planned)

    def of(self, point: str) -> range:
        """The numbers of the repeats that the point requires: those that were planned, and those
        announced later.
        """
        return range(self.first_of(point) + self.further.get(point, 0))


@dataclass(slots=True)
class Rows:
    """All usable rows of a run, by the run they belong to."""

    planned: int
    """Repeats of each point, as run.json has them."""
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
    announced_repeats: dict[str, int] = field(default_factory=dict)
    """Repeats of a point that were announced with it, by point, where they are not ``planned``."""
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

    @property
    def repeats(self) -> Repeats:
        """How often each point is to be measured."""
        return Repeats(planned=self.planned, announced=self.announced_repeats, further=self.further)

    def point(self, name: str) -> Point:
        """One of the points, as ``points`` has it."""
        point = self.known[name]
        return dataclasses.replace(point, phases=point.phases or self._entered(point))

    def repeats_of(self, point: str) -> range:
        """The numbers of the repeats that a point requires."""
        return self.repeats.of(point)

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


def read_rows(path: Path, points: Sequence[Point], repeats: int) -> Rows:
    """Read rows.jsonl of a run that planned ``points``, ``repeats`` times each (numbered from 0).

    Further points and further repeats are accepted where a row has announced them, wherever in the
    file it stands. Damaged lines, duplicates and rows of runs that nobody planned or announced
    become ``problems`` with their line numbers. Raises RunDirectoryError when the file is missing
    or cannot be read.
    """
    rows = Rows(planned=repeats, known={point.name: point for point in points})
    damaged: dict[int, str] = {}
    lines: list[tuple[int, dict[str, Any]]] = []

    for number, text in enumerate(_texts(path), start=1):
        try:
            lines.append((number, _parse(text)))
        except RowError as error:
            damaged[number] = str(error)

    # Announcements first: what they announce may stand before them where workers wrote side by
    # side.
    for number, found in sorted(lines, key=lambda line: _FIRST.get(line[1]["kind"], len(_FIRST))):
        try:
            _check_announced(rows, found)
            _store(rows, found)
        except RowError as error:
            damaged[number] = str(error)

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
    if row["kind"] in (Announced.kind, Parked.kind):
        return
    point, repeat = row.get("point"), row.get("repeat")
    if not isinstance(point, str) or point not in rows.known:
        raise RowError(f"a row of {point!r}, which this run neither planned nor announced")
    if row["kind"] in (TraceEnd.kind, Remeasure.kind):
        return  # it is of none of the repeats
    more = rows.further.get(point, 0)
    if (
        not isinstance(repeat, int)
        or isinstance(repeat, bool)
        or repeat not in rows.repeats_of(point)
    ):
        announced = f" and {more} more announced" if more else ""
        planned = rows.repeats.first_of(point)
        raise RowError(
            f"repeat {repeat!r} of {point}, but {planned} were planned{announced}, numbered from 0"
        )


def _store(rows: Rows, found: Mapping[str, Any]) -> None:
    """Check one row, and put it where it belongs. Raises RowError."""
    kind = found["kind"]
    _STORE[kind](rows, KINDS[kind].from_json(found))


def _store_point(rows: Rows, row: Announced) -> None:
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
        rows.announced_repeats[row.point] = row.repeats


def _store_remeasure(rows: Rows, row: Remeasure) -> None:
    rows.further[row.point] = rows.further.get(row.point, 0) + row.repeats


def _store_parked(rows: Rows, row: Parked) -> None:
    rows.parked.update(dict.fromkeys(row.points, row.reason))
    rows.tests.add(row.test)


def _store_begin(rows: Rows, row: Begin) -> None:
    entered = rows.begun.setdefault(row.run, {})
    if row.phase in entered:
        raise RowError(f"{row.point}, repeat {row.repeat}, enters phase {row.phase} a second time")
    entered[row.phase] = row.index


def _store_phase(rows: Rows, row: PhaseRecord) -> None:
    place = (row.point, row.repeat, row.phase)
    if place in rows.phases:
        where = f"{row.point}, repeat {row.repeat}, phase {row.phase}"
        raise RowError(f"a second record of {where}; the first one is kept")
    rows.phases[place] = row


def _store_declared(rows: Rows, row: Declared) -> None:
    rows.declared.setdefault(row.run, {}).update(row.values)


def _store_code(rows: Rows, row: CodeFiles) -> None:
    rows.code.setdefault(row.run, {}).update(row.packages)


def _store_done(rows: Rows, row: Done) -> None:
    rows.done[row.run] = row.outcome


def _store_end(rows: Rows, row: RunEnd) -> None:
    if row.run in rows.ends:
        raise RowError(
            f"{row.point}, repeat {row.repeat}, ends a second time; the first end is kept"
        )
    rows.ends[row.run] = row


def _store_traced(rows: Rows, row: TraceEnd) -> None:
    rows.traces[row.point] = row


def _store_again(rows: Rows, row: Again) -> None:
    for by_run in (rows.begun, rows.declared, rows.code, rows.done, rows.ends):
        by_run.pop(row.run, None)
    for place in [place for place in rows.phases if place[:2] == row.run]:
        del rows.phases[place]


def _contradictions(rows: Rows) -> Iterator[str]:
    """An end that says ok needs the child's word for it: a parent cannot know what the child did
    not finish.
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


_STORE: Mapping[str, Callable[[Rows, Any], None]] = {
    Again.kind: _store_again,
    Begin.kind: _store_begin,
    PhaseRecord.kind: _store_phase,
    Declared.kind: _store_declared,
    CodeFiles.kind: _store_code,
    Done.kind: _store_done,
    RunEnd.kind: _store_end,
    Parked.kind: _store_parked,
    Announced.kind: _store_point,
    Remeasure.kind: _store_remeasure,
    TraceEnd.kind: _store_traced,
}
"""What is done with a row, by its kind: those that rows.jsonl may hold."""
_FIRST: Mapping[str, int] = {Announced.kind: 0, Remeasure.kind: 1}
"""Kinds that others rest on, in this order; all others are stored as they stand in the file."""


class RowsReader:
    """rows.jsonl of a run that is still measured: what was parsed once is not parsed again.

    Lines that cannot be used are left out here: ``read_rows`` lists them when the run is judged as
    a whole.
    """

    def __init__(self, path: Path, points: Sequence[Point], repeats: int) -> None:
        """Of a run that planned ``points``, ``repeats`` times each; nothing is read yet."""
        self._path = path
        self._rows = Rows(planned=repeats, known={point.name: point for point in points})
        self._offset = 0
        self._early: list[dict[str, Any]] = []
        """Rows whose announcement has not been written yet: workers write side by side."""

    def read_on(self) -> Rows:
        """All usable rows so far, of which only the new ones are parsed; the same object each time.

        Raises RunDirectoryError when the file cannot be read.
        """
        lines = [*self._early, *self._new_lines()]
        self._early = []

        for found in sorted(lines, key=lambda row: _FIRST.get(row["kind"], len(_FIRST))):
            try:
                _check_announced(self._rows, found)
            except RowError:
                self._early.append(found)
                continue
            with contextlib.suppress(RowError):
                _store(self._rows, found)
        return self._rows

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = read_whole(self._path, self._offset)
        except OSError as error:
            raise RunDirectoryError(f"{self._path} cannot be read: {error}") from error
        # A line without an end is read again once the next writer has ended it.
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)

        for line in complete.split(b"\n")[:-1]:
            with contextlib.suppress(RowError):
                yield _parse(line)


# The seal: checksums that a run gets at its end, so that a file that was cut, continued or
# edited later is noticed; and the same for the tables that the gate derives. They are no
# signature: whoever edits a file on purpose can write new checksums as well. Against that stands
# the reviewer, who sees the run that an acceptance names, and the machine that measures again.


SEAL = "seal"
"""Key of run.json; absent until the run has ended."""

_CLOCKS_APART = timedelta(days=1)
"""Chosen: machines that are a day apart have a clock that somebody should look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What run.json has under ``SEAL``."""

    plan_sha256: str
    """Of all of run.json but the seal itself, whatever the order of its keys."""
    rows_bytes: int
    """Size of rows.jsonl."""
    rows_sha256: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any], rows: bytes) -> Self:
        """The seal of a run whose run.json holds ``manifest`` and whose rows.jsonl holds
        ``rows``.
        """
        plan = {name: value for name, value in manifest.items() if name != SEAL}
        canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return cls(
            plan_sha256=digest(canonical.encode()),
            rows_bytes=len(rows),
            rows_sha256=digest(rows),
        )


def seal_of(manifest: Mapping[str, Any], rows: bytes) -> dict[str, Any]:
    """``Seal.of``, as plain JSON values."""
    return to_json(Seal.of(manifest, rows))


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def broken_seal(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each of run.json and rows.jsonl that has changed since the run ended; none for
    a run without an end.

    ``manifest`` is what run.json holds, and rows.jsonl has to be there.
    """
    if manifest.get("ended") is None:
        return
    try:
        sealed = from_json(Seal, manifest.get(SEAL))
    except RecordError:
        yield (
            f"{RUN_FILE} has an end but no seal (the checksums that a run gets at its end): "
            "it was edited, or made by another version of this program; measure again"
        )
        return

    rows = (folder / ROWS_FILE).read_bytes()
    found = Seal.of(manifest, rows)
    if sealed.plan_sha256 != found.plan_sha256:
        yield (
            f"{RUN_FILE} was changed after the run had ended (its plan, device or settings); "
            "restore it, or measure again"
        )
    if sealed.rows_sha256 != found.rows_sha256:
        yield f"{ROWS_FILE} {_change(sealed, rows)}; restore it, or measure again"


def _change(sealed: Seal, rows: bytes) -> str:
    before_bytes = sealed.rows_bytes
    if len(rows) > before_bytes and digest(rows[:before_bytes]) == sealed.rows_sha256:
        return (
            f"has grown by {len(rows) - before_bytes:,} B since the run ended: something went on "
            "writing, or rows were added"
        )
    if len(rows) < before_bytes:
        return (
            f"has lost {before_bytes - len(rows):,} of the {before_bytes:,} B that it had when the "
            "run ended: it was cut short"
        )
    return "was changed after the run had ended"


def odd_times(started: str, ended: str | None, now: datetime) -> Iterator[str]:
    """A sentence where the times of run.json cannot be: an end before the start, or after
    ``now``.
    """
    if ended is None:
        return
    try:
        start, end = datetime.fromisoformat(started), datetime.fromisoformat(ended)
        backwards, ahead = end < start, end > now + _CLOCKS_APART
    except (ValueError, TypeError):
        yield (
            f"{RUN_FILE} has times that are none ({started!r} to {ended!r}): it was edited; "
            "restore it, or measure again"
        )
        return
    if backwards:
        yield (
            f"{RUN_FILE} says that the run ended ({ended}) before it started ({started}); "
            "restore it, or measure again"
        )
    if ahead:
        yield (
            f"{RUN_FILE} says that the run ended at {ended}, which is still to come: it was "
            "edited, or the clock of the machine that measured is wrong; set it, and "
            "measure again"
        )


# What the gate derives.


def edited_tables(
    folder: Path, derived: Mapping[str, Callable[[], str]], recorded: Mapping[str, str]
) -> tuple[str, ...]:
    """Names of the tables in ``folder`` that are not what the gate wrote there.

    ``derived`` makes their texts as they follow from the rows; ``recorded`` has the checksums of
    what the gate wrote last: a later version of this program may derive another text, and a gate
    that was killed has written only the tables.
    """
    there = {name: _digest_of(folder / name) for name in derived if (folder / name).exists()}
    return tuple(
        name
        for name, found in there.items()
        if found != recorded.get(name) and found != digest(derived[name]().encode())
    )


def table_digests(folder: Path) -> dict[str, str]:
    """The checksums of the tables that the gate wrote into ``folder`` last, by name; none where
    findings.json is absent or damaged.
    """
    try:
        found = json.loads((folder / FINDINGS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    tables = found.get("tables") if isinstance(found, dict) else None
    return (
        {str(name): str(value) for name, value in tables.items()}
        if isinstance(tables, dict)
        else {}
    )


def forget_judgement(folder: Path) -> bool:
    """Remove the judgement, and those of its tables that nobody has edited, before more is
    measured; whether a page was there.

    They would be about a run that has changed. Raises RunDirectoryError where they cannot be
    removed.
    """
    had_page = (folder / REPORT_FILE).exists()
    try:
        for name, checksum in table_digests(folder).items():
            if "/" not in name and _digest_of(folder / name) == checksum:
                (folder / name).unlink()
        remove_judgement(folder)
    except OSError as error:
        raise RunDirectoryError(
            f"what was judged in {folder} cannot be removed: {error}"
        ) from error
    return had_page


def edited_in_words(name: str) -> str:
    """The sentence about a table that was edited."""
    return (
        f"{name} is not what the gate derived from {ROWS_FILE}: it was edited, or another "
        "version of this program wrote it. No verdict rests on it, and it is left as it "
        "is; delete it and run the gate again"
    )


def _digest_of(path: Path) -> str:
    """The checksum of a file; empty where it cannot be read, which no checksum is."""
    try:
        return digest(path.read_bytes())
    except OSError:
        return ""
