"""The fixtures of the plug-in: the runner of the session, the sweep's ``measure``, and everybody's
``memory_run``.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import pytest

from harness.errors import HarnessError, RunDirectoryError
from harness.plugin import running
from harness.plugin.marks import WANTED, make_point
from harness.plugin.measuring import Measured, NotChosen, measure_point
from harness.plugin.options import is_dry
from harness.plugin.result import MemoryRun
from harness.plugin.session import SESSION
from harness.plugin.settings import read_call
from harness.plugin.sides import Turns
from harness.records import Point, RunEnd
from harness.run.runner import Runner

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
