"""The fixtures of the plug-in: the runner of the session, and the sweep's ``measure``."""

import os
from collections.abc import Callable, Iterator

import pytest

from harness.errors import RunDirectoryError
from harness.plugin.session import SESSION
from harness.records import Point, RunEnd
from harness.run.isolation import SpawnLauncher, open_launcher
from harness.run.runner import Runner, void_run


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
        host_limit_bytes=pytestconfig.getoption("memory_host_budget"),
        timeout_s=pytestconfig.getoption("memory_timeout"),
    )
    yield runner
    runner.close()
    launcher.close()


@pytest.fixture
def measure(memory_runner: Runner, request: pytest.FixtureRequest) -> Callable[[Point, int], RunEnd]:
    """``measure(point, repeat)``: one run in a child of its own; its rows are on disk when it returns.

    ``repeat`` is whatever the sweep hands over: the number of the repeat, or TRACED_REPEAT for the extra, traced run.
    """
    session = request.config.stash[SESSION]

    def measure(point: Point, repeat: int) -> RunEnd:
        try:
            if session.resumed is not None and (point.name, repeat) in session.resumed.void:
                void_run(session.directory, point.name, repeat, "it was broken off, and the run was resumed")
            return memory_runner.measure(point, repeat)
        except RunDirectoryError as error:
            # Nothing that follows could be written either; what has been written stays.
            request.session.shouldstop = str(error)
            pytest.fail(str(error), pytrace=False)

    return measure
