"""What measures in a session: one point inside the test that asks for it, with its repeats and its
trace, and again where it offends.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pytest

from harness.errors import HarnessError, RunDirectoryError, UsageError
from harness.plugin import POINT_PROPERTY, RUNNER
from harness.plugin.arguments import read_call
from harness.plugin.marks import WANTED, Wanted, make_point
from harness.plugin.options import is_dry
from harness.plugin.plan import is_named
from harness.plugin.result import MemoryRun, read_run
from harness.plugin.session import SESSION, MeasuredBefore, RunSession
from harness.plugin.turns import Turns
from harness.records import ROWS_FILE, TRACED_REPEAT, Point
from harness.rundir.rows import announce_point, park_points, write_row
from harness.rundir.traces import log_name

if TYPE_CHECKING:
    from harness.judge import Check

# One point, measured and judged.


class NotChosen(Exception):  # noqa: N818 - a choice of the user's, not a mistake
    """--memory-points does not choose the point."""


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

    ``repeats`` is what the test says itself; an option takes precedence. What a resumed run already
    has is not measured again. Raises UsageError where the test's point has the name of another one,
    NotChosen where nobody wants it, RunDirectoryError where what is measured cannot be written.
    """
    before = session.ledger.measured.get(point.name)
    execution = session.ledger.executions[wanted.same]
    if before is not None and (before.test != wanted.same or before.execution == execution):
        raise UsageError(_measured_twice(point, before.nodeid, wanted.test))
    if not is_named(point.name, session.settings.points):
        raise NotChosen
    from_byte = _end_of_rows(session) if before is None and session.run.resumed is None else 0

    planned_repeats = session.repeats_of(repeats)
    is_announced = before is not None and before.nodeid == wanted.test
    if not is_announced and not (planned and planned_repeats == session.settings.repeats):
        for directory in session.run.paths:
            announce_point(directory, point, test=wanted.test, repeats=planned_repeats)

    required = planned_repeats + session.run.further_of(point) if before is None else before.repeats
    this = MeasuredBefore(wanted.same, wanted.test, execution, required)
    session.ledger.measured[point.name] = this
    traced = [TRACED_REPEAT] if point.traced and session.settings.traces else []
    for repeat in [*range(required), *traced]:
        turns.measure(point, repeat, again="its test was run again" if before is not None else "")

    findings = _judge_and_remeasure(session, turns, point, this)
    run = read_run(session.directory, point, from_byte=from_byte)
    return Measured(run, tuple(_sentences(session, point, findings)))


def _end_of_rows(session: RunSession) -> int:
    return (session.directory / ROWS_FILE).stat().st_size


def _judge_and_remeasure(
    session: RunSession, turns: Turns, point: Point, measured: MeasuredBefore
) -> "Sequence[Check]":
    """What does not hold of the point, once it was measured again where that could settle it."""
    # the judge is loaded where something was measured, nowhere else
    from harness.plugin.judgement import judge_point

    findings, offender = judge_point(session, point)
    if offender is None:
        return findings
    for directory in session.run.paths:
        write_row(directory, offender.row())

    first, end = measured.repeats, measured.repeats + offender.repeats
    session.ledger.measured[point.name] = dataclasses.replace(measured, repeats=end)
    for repeat in range(first, end):
        turns.measure(point, repeat)
    findings, _ = judge_point(session, point)
    return findings


def _measured_twice(point: Point, other: str, test: str) -> str:
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
    """The findings' sentences; what several repeats ended with alike is listed once, with the log
    of the first.
    """
    seen: set[str] = set()
    for finding in findings:
        repeat = finding.subject.rpartition(" / ")[2]
        said = finding.sentence.removeprefix(f"{finding.subject}: ")
        if said in seen:
            continue
        seen.add(said)
        sentence = f"{finding.finding}: {finding.sentence}"
        if finding.rule == "outcome" and repeat.startswith("repeat "):
            log = log_name(point.name, int(repeat.removeprefix("repeat ")))
            sentence = f"{sentence} Its log: {session.shown}/logs/{log}"
        yield sentence


# What a test asks for: by its marker, or by a call of ``memory_run``.


FINDING_PROPERTY = "memory_finding"
"""Property of a test's report, and of the test in junit.xml: the sentence of a finding."""

MEASURED = pytest.StashKey[list[str]]()
"""Names of the points that a test has measured, or wanted to."""
_RESULT = pytest.StashKey[MemoryRun]()


class MemoryRunFixture(Protocol):
    """What ``memory_run`` is."""

    def __call__(self, body: str | None = None, /, **arguments: Any) -> MemoryRun:  # noqa: ANN401 - parameters of any kind
        """Measure the body, or give what the test's marker has measured."""


def memory_run_of(item: pytest.Item, turns: Turns) -> MemoryRunFixture:
    """The value of the fixture ``memory_run`` in one test."""

    def memory_run(body: str | None = None, /, **arguments: Any) -> MemoryRun:  # noqa: ANN401 - parameters of any kind
        if body is None and not arguments:
            if _RESULT in item.stash:
                found: MemoryRun = item.stash[_RESULT]
                return found
            pytest.fail(
                "memory_run() gives what the test's marker has measured, and no marker "
                "names a body; write memory_run('package.module:function', ...)",
                pytrace=False,
            )
        return _measure(item, turns, call=(body, arguments))

    return memory_run


def measure_marked(item: pytest.Item) -> None:
    """Measure the body that the test's marker names, if one does; the test fails where it breaks a
    limit.
    """
    wanted = item.stash.get(WANTED, None)
    if wanted is None:
        return
    item.config.stash[SESSION].ledger.executions[wanted.same] += 1
    if wanted.point is not None:
        item.stash[_RESULT] = _measure(item, item.funcargs[RUNNER], call=None)  # type: ignore[attr-defined]


def _measure(
    item: pytest.Item, turns: Turns, *, call: tuple[str | None, Mapping[str, Any]] | None
) -> MemoryRun:
    found: Measured | HarnessError | NotChosen
    try:
        found = _measured(item, turns, call)
    except (HarnessError, NotChosen) as error:
        found = error  # raised below, where it is not shown as what led to another exception

    if isinstance(found, NotChosen):
        pytest.skip("--memory-points chooses none of its points")
    if isinstance(found, RunDirectoryError):
        stop_session(item, found)
    if isinstance(found, HarnessError):
        pytest.fail(str(found), pytrace=False)
    if found.findings:
        item.user_properties.append((POINT_PROPERTY, found.run.name))
        item.user_properties.extend((FINDING_PROPERTY, finding) for finding in found.findings)
        pytest.fail("\n".join(found.findings), pytrace=False)
    return found.run


def _measured(
    item: pytest.Item, turns: Turns, call: tuple[str | None, Mapping[str, Any]] | None
) -> Measured:
    wanted, session = item.stash[WANTED], item.config.stash[SESSION]
    settings, parameters = wanted.settings, wanted.parameters
    if call is not None:
        settings, parameters = read_call(settings, parameters, *call, item.config.rootpath)
    point = make_point(wanted.scenario, settings, parameters)
    item.stash.setdefault(MEASURED, []).append(point.name)
    return measure_point(
        session, turns, point, repeats=settings.repeats, wanted=wanted, planned=call is None
    )


def stop_session(item: pytest.Item, error: RunDirectoryError) -> NoReturn:
    """Fail the test, and end the session after it: nothing that follows could be written either."""
    item.session.shouldstop = str(error)
    pytest.fail(str(error), pytrace=False)


# Tests that are skipped, or expected to fail: noted in the run directory, so that the gate
# treats them as pytest does.


def note_parked(item: pytest.Item, report: pytest.TestReport) -> None:
    """Write down that nothing which is found about the test's points fails anybody, if that is what
    its report says.

    An expected failure that is strict and did not come is a failure of pytest's, and parks nothing.
    """
    wanted, session = item.stash.get(WANTED, None), item.config.stash[SESSION]
    expected = getattr(report, "wasxfail", None)
    if wanted is None or (expected is None and not report.skipped):
        return
    if is_dry(item.config) or not session.run.is_planned:
        return
    if wanted.point is None and session.settings.points:
        return  # none of its points may have been chosen

    points = {*item.stash.get(MEASURED, [])}
    if wanted.point is not None:
        points.add(wanted.point.name)
    reason = _why_parked(report, expected)
    try:
        park_points(session.directory, test=item.nodeid, points=sorted(points), reason=reason)
    except RunDirectoryError as error:
        session.ledger.broken = str(error)


def _why_parked(report: pytest.TestReport, expected: str | None) -> str:
    if expected is None:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return f"skipped: {why.removeprefix('Skipped: ').strip() or 'without a reason'}"
    how = "xfail" if report.skipped else "its test passed although it is expected to fail"
    return f"{how}: {expected or 'without a reason'}"
