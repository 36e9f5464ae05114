"""The fixtures of the plug-in: the runner of the session, and the sweep's ``measure``."""

import dataclasses
import os
from collections.abc import Callable, Iterator

import pytest

from harness.errors import RunDirectoryError
from harness.plugin.session import SESSION
from harness.plugin.sides import NOW, THEN, Turns
from harness.records import Point, RunEnd
from harness.run.code import Code
from harness.run.isolation import SpawnLauncher, open_launcher
from harness.run.runner import Runner


@pytest.fixture(scope="session")
def memory_runner(pytestconfig: pytest.Config) -> Iterator[Runner]:
    """The runner of this session's run directory."""
    session = pytestconfig.stash[SESSION]
    launcher = open_launcher(
        pytestconfig.getoption("memory_isolation"),
        environment=os.environ,
        folder=pytestconfig.rootpath,
        preload=pytestconfig.getini("memory_preload"),
    )
    runner = Runner(
        run_directory=session.directory,
        device=session.device(),
        launcher=launcher,
        preparer=SpawnLauncher(),
        root=pytestconfig.rootpath,
        workspace=pytestconfig.rootpath / "artifacts" / "inputs",
        code=Code() if session.sides is None else session.sides.now.code,
        host_limit_bytes=pytestconfig.getoption("memory_host_budget"),
        timeout_s=pytestconfig.getoption("memory_timeout"),
    )
    yield runner
    runner.close()
    launcher.close()


@pytest.fixture(scope="session")
def memory_turns(memory_runner: Runner, pytestconfig: pytest.Config) -> Turns:
    """What measures a run with the code of this session, and in turns with that which it is compared with."""
    session = pytestconfig.stash[SESSION]
    runners = {NOW: memory_runner}
    if session.sides is not None:
        runners[THEN] = dataclasses.replace(memory_runner, run_directory=session.then_directory, code=session.sides.then.code)
    return Turns(runners=runners, resumed={NOW: session.resumed, THEN: session.resumed_then})


@pytest.fixture
def measure(memory_turns: Turns, request: pytest.FixtureRequest) -> Callable[[Point, int], RunEnd]:
    """``measure(point, repeat)``: one run in a child of its own; its rows are on disk when it returns.

    ``repeat`` is whatever the sweep hands over: the number of the repeat, or TRACED_REPEAT for the extra, traced run.
    Where two codes are compared, both are measured, and the end is that of the later.
    """

    def measure(point: Point, repeat: int) -> RunEnd:
        try:
            return memory_turns.measure(point, repeat)
        except RunDirectoryError as error:
            # Nothing that follows could be written either; what has been written stays.
            request.session.shouldstop = str(error)
            pytest.fail(str(error), pytrace=False)

    return measure
