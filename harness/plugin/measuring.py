"""One point, measured and judged inside the test that asks for it: its repeats, its trace, and
again where it offends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.plugin.marks import Wanted
from harness.plugin.plan import is_named
from harness.plugin.result import MemoryRun, read_run
from harness.plugin.session import MeasuredBefore, RunSession
from harness.plugin.sides import Turns
from harness.records import ROWS_FILE, TRACED_REPEAT, Point
from harness.run.announcing import announce_point, write_row

if TYPE_CHECKING:
    from harness.judge.verdict import Check


class NotChosen(Exception):  # noqa: N818 - a choice of the user's, not a mistake
    """The point is none of those that --memory-points chooses."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was read, and a sentence for everything that does not hold."""

    run: MemoryRun
    findings: tuple[str, ...]


def measure_point(
    session: RunSession,
    turns: Turns,
    point: Point,
    *,
    repeats: int | None,
    wanted: Wanted,
    planned: bool,
) -> Measured:
    """Measure all repeats of a point, and its trace; judge it alone; measure it again where that
    could settle a finding.

    ``repeats`` is what the test says itself; an option goes before it. What a resumed run has
    already is not measured again. Raises UsageError where the test's point has the name of another
    one, NotChosen where nobody wants it, RunDirectoryError where what is measured cannot be
    written.
    """
    # pandas is loaded where something was measured, nowhere else
    from harness.plugin.judging import judge_point

    before, execution = session.measured.get(point.name), session.executions[wanted.same]
    if before is not None and (before.test != wanted.same or before.execution == execution):
        raise UsageError(_twice(point, before.nodeid, wanted.test))
    if not is_named(point.name, session.patterns):
        raise NotChosen
    from_byte = (
        (session.directory / ROWS_FILE).stat().st_size
        if before is None and session.resumed is None
        else 0
    )
    count = session.repeats_of(repeats)
    if (before is None or before.nodeid != wanted.test) and (
        not planned or count != session.repeats
    ):
        for directory in session.directories:
            announce_point(directory, point, test=wanted.test, repeats=count)
    owed = before.repeats if before is not None else count + session.further_of(point)
    session.measured[point.name] = MeasuredBefore(wanted.same, wanted.test, execution, owed)
    for repeat in [*range(owed), *([TRACED_REPEAT] if point.traced and session.traces else [])]:
        turns.measure(point, repeat, again="its test was run again" if before is not None else "")
    findings, offender = judge_point(session.directory, point)
    if offender is not None:
        for directory in session.directories:
            write_row(directory, offender.row())
        session.measured[point.name] = MeasuredBefore(
            wanted.same, wanted.test, execution, owed + offender.repeats
        )
        for repeat in range(owed, owed + offender.repeats):
            turns.measure(point, repeat)
        findings, _ = judge_point(session.directory, point)
    return Measured(
        read_run(session.directory, point, from_byte=from_byte),
        tuple(_sentences(session, point, findings)),
    )


def _twice(point: Point, other: str, test: str) -> str:
    if other == test:
        return (
            f"{test} has measured the point {point.name} already; tell two calls of "
            "memory_run apart by a parameter, as memory_run(body, loader='eager')"
        )
    return (
        f"{test} would measure the point {point.name}, which {other} has measured already; "
        "give one of them a name of its own with @pytest.mark.memory(scenario='...'), or a "
        "parameter"
    )


def _sentences(session: RunSession, point: Point, findings: "Sequence[Check]") -> Iterator[str]:
    """The findings' sentences; what several repeats ended with alike is told once, with the log of
    the first.
    """
    told: set[str] = set()
    for finding in findings:
        repeat = finding.subject.rpartition(" / ")[2]
        said = finding.sentence.removeprefix(f"{finding.subject}: ")
        if said in told:
            continue
        told.add(said)
        sentence = f"{finding.finding}: {finding.sentence}"
        if finding.rule == "outcome" and repeat.startswith("repeat "):
            log = session.log_of(point, int(repeat.removeprefix("repeat ")))
            sentence = f"{sentence} Its log: {log}"
        yield sentence
