"""One point, measured and judged inside the test that asks for it: its repeats, its trace, and
again where it offends.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pytest

from harness.errors import HarnessError, RunDirectoryError, UsageError
from harness.plugin import session as running
from harness.plugin.arguments import read_call
from harness.plugin.marks import WANTED, Wanted, make_point
from harness.plugin.options import is_dry
from harness.plugin.plan import is_named
from harness.plugin.result import MemoryRun, read_run
from harness.plugin.session import SESSION, MeasuredBefore, RunSession, Turns
from harness.records import ROWS_FILE, TRACED_REPEAT, Point, RunEnd
from harness.run.runner import Runner
from harness.rundir.rows import announce_point, park_points, write_row

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
    from harness.judge.table import RunReader
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
    reader = session.reader = session.reader or RunReader(session.directory)
    findings, offender = judge_point(reader, point)
    if offender is not None:
        for directory in session.directories:
            write_row(directory, offender.row())
        session.measured[point.name] = MeasuredBefore(
            wanted.same, wanted.test, execution, owed + offender.repeats
        )
        for repeat in range(owed, owed + offender.repeats):
            turns.measure(point, repeat)
        findings, _ = judge_point(reader, point)
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


# The fixtures of the plug-in: the runner of the session, the sweep's ``measure``, and
# everybody's ``memory_run``.


RUNNER = "memory_turns"
"""The fixture that every measuring test needs, by a marker too."""
FINDING_PROPERTY = "memory_finding"
POINT_PROPERTY = "memory_point"
"""Names of what a test's report carries of its findings: junit.xml has them as properties of the
test."""

MEASURED = pytest.StashKey[list[str]]()
"""Names of the points that a test has measured, or wanted to."""
_RESULT = pytest.StashKey[MemoryRun]()


class MemoryRunFixture(Protocol):
    """What ``memory_run`` is."""

    def __call__(self, body: str | None = None, /, **arguments: Any) -> MemoryRun:  # noqa: ANN401 - parameters of any kind
        """Measure the body, or give what the test's marker has measured."""


@pytest.fixture(scope="session")
def memory_runner(pytestconfig: pytest.Config) -> Iterator[Runner | None]:
    """The runner of this session's run directory; None where no test runs (--setup-only)."""
    if is_dry(pytestconfig):
        yield None
        return
    with running.open_runner(pytestconfig.stash[SESSION]) as runner:
        yield runner


@pytest.fixture(scope="session")
def memory_turns(memory_runner: Runner | None, pytestconfig: pytest.Config) -> Turns | None:
    """What measures a run: the runner, in turns with one of the code that it is compared with; None
    where no test runs.
    """
    return (
        None
        if memory_runner is None
        else running.turns_of(pytestconfig.stash[SESSION], memory_runner)
    )


@pytest.fixture
def measure(
    memory_turns: Turns, request: pytest.FixtureRequest
) -> Callable[[Point, int], RunEnd | None]:
    """``measure(point, repeat)``: one run of a sweep in a child of its own; its rows are on disk
    when it returns.

    ``repeat`` is whatever the sweep hands over: the number of the repeat, or TRACED_REPEAT for the
    extra, traced run. Where two codes are compared, both are measured, and the end is that of the
    later.
    """

    def measure(point: Point, repeat: int) -> RunEnd | None:
        try:
            return memory_turns.measure(point, repeat)
        except RunDirectoryError as error:
            _stop(request.node, error)

    return measure


@pytest.fixture
def memory_run(memory_turns: Turns, request: pytest.FixtureRequest) -> MemoryRunFixture:
    """``memory_run("package.module:body", image_count=1000, device_budget="256MiB")``: the memory
    of a body, phase by phase.

    The body is measured at once, in children of its own:
    ``run["epoch"].device_in_use.growth_bytes``. The test fails where it ended otherwise than
    expected, or breaks a limit of the test's marker. Keywords: path, phases, device_budget,
    expected, repeats, prepare, environment, fixed, as of the marker; all others are parameters of
    the body. ``memory_run()`` gives what the test's marker has measured.
    """
    item = request.node

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
        return _measure(item, memory_turns, call=(body, arguments))

    return memory_run


def measure_marked(item: pytest.Item) -> None:
    """Measure the body that the test's marker names, if one does; the test fails where it breaks a
    limit.
    """
    item.config.stash[SESSION].executions[item.stash[WANTED].same] += 1
    if item.stash[WANTED].point is not None:
        item.stash[_RESULT] = _measure(item, item.funcargs[RUNNER], call=None)  # type: ignore[attr-defined]


def _measure(
    item: pytest.Item, turns: Turns, *, call: tuple[str | None, Mapping[str, Any]] | None
) -> MemoryRun:
    found: Measured | HarnessError | NotChosen
    try:
        found = _measured(item, turns, call)
    except (HarnessError, NotChosen) as error:
        found = error  # told below, where it is not shown as what led to another exception
    if isinstance(found, NotChosen):
        pytest.skip("none of the points that --memory-points chooses")
    if isinstance(found, RunDirectoryError):
        _stop(item, found)
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
        body, arguments = call
        settings, parameters = read_call(
            settings, parameters, body, arguments, item.config.rootpath
        )
    point = make_point(wanted.scenario, settings, parameters)
    item.stash.setdefault(MEASURED, []).append(point.name)
    return measure_point(
        session, turns, point, repeats=settings.repeats, wanted=wanted, planned=call is None
    )


def _stop(item: pytest.Item, error: RunDirectoryError) -> NoReturn:
    # Nothing that follows could be written either; what has been written stays.
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
    if (
        wanted is None
        or is_dry(item.config)
        or not session.is_there
        or (expected is None and not report.skipped)
    ):
        return
    if wanted.point is None and session.patterns:
        return  # none of its points may have been chosen
    points = {
        *item.stash.get(MEASURED, []),
        *([wanted.point.name] if wanted.point is not None else []),
    }
    if expected is None:
        reason = f"skipped: {_why_skipped(report)}"
    else:
        how = "xfail" if report.skipped else "its test passed although it is expected to fail"
        reason = f"{how}: {expected or 'without a reason'}"
    try:
        park_points(session.directory, test=item.nodeid, points=sorted(points), reason=reason)
    except RunDirectoryError as error:
        session.broken = str(error)


def _why_skipped(report: pytest.TestReport) -> str:
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return why.removeprefix("Skipped: ").strip() or "without a reason"
