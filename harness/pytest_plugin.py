"""Composition root for pytest: any test that takes ``point``, ``repeat`` and ``measure`` is part of a run.

The controller and its xdist workers share one run directory: children append whole lines to one rows.jsonl. Every
worker has collected the same plan; the first to get there writes run.json, before any child starts.
"""

import contextlib
import json
import os
import shlex
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from harness.errors import DeviceUnavailable, HarnessError, RunDirectoryError, UsageError
from harness.pytest_options import DEFAULTS, declare_options, settle_options
from harness.pytest_summary import summary
from harness.records import RUN_FILE, TRACED_REPEAT, Point, RunEnd
from harness.run.devices import Device, choose_device
from harness.run.isolation import SpawnLauncher, open_launcher
from harness.run.manifest import (
    claim_run_directory,
    default_run_directory,
    end_run,
    hold_run_directory,
    make_run_directory,
    note_resumption,
    start_run,
)
from harness.run.runner import Runner, void_run
from harness.run.traced import repeat_id

if TYPE_CHECKING:
    from harness.resuming import Resumption

_DIRECTORY = pytest.StashKey[Path]()
_COLLECTED = pytest.StashKey[list[Point]]()
_RESUMED = pytest.StashKey["Resumption | None"]()
_HELD = pytest.StashKey[contextlib.ExitStack]()
_BEGUN = pytest.StashKey[bool]()
# Why the run directory could not be written, once it could not: one sentence for the summary.
_BROKEN = pytest.StashKey[str]()
# Why the workers measured nothing: one sentence, which is an error of usage.
_REFUSED = pytest.StashKey[str]()
# What pytest ends with when the sweep was stopped half-way: Ctrl-C, or an error of pytest itself.
_BROKEN_OFF = frozenset({pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of a sweep."""
    declare_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Settle the run directory and the device; the workers take the controller's, so that a bad value is told once."""
    config.stash[_HELD] = contextlib.ExitStack()
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        config.stash[_DIRECTORY] = Path(worker_input["memory_run_directory"])
        config.stash[_RESUMED] = _resumption_from(worker_input["memory_resumed"])
        vars(config.option).update(json.loads(worker_input["memory_settings"]))
        return
    asked: Path | None = config.getoption("memory_out")
    resume: Path | None = config.getoption("resume")
    config.stash[_RESUMED] = None
    try:
        if asked is not None and resume is not None:
            raise UsageError(f"--resume {resume} goes on in that directory; leave --memory-out {asked} out")
        settle_options(config, resume)
        if asked is not None:
            claim_run_directory(asked)
        if resume is not None:
            config.stash[_RESUMED] = _resume(config, resume)
        elif config.getoption("device") == "gpu" or config.getoption("device_budget") is not None:
            _device(config)
        if asked is not None and not config.getoption("collectonly"):
            make_run_directory(asked)
    except DeviceUnavailable as error:
        pytest.exit(f"--device gpu: {error}; nothing was measured", returncode=3)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[_DIRECTORY] = resume or asked or default_run_directory(config.rootpath)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the run directory, and of SIGTERM."""
    if (held := config.stash.get(_HELD, None)) is not None:
        held.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell an xdist worker where the run is written, and what is there already."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    resumed = config.stash[_RESUMED]
    told = {
        "memory_run_directory": str(config.stash[_DIRECTORY]),
        "memory_resumed": "" if resumed is None else resumed.to_json(),
        "memory_settings": json.dumps({name: config.getoption(name) for name in DEFAULTS}),
    }
    node.workerinput.update(told)  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat every measured point, and trace it once."""
    if {"point", "repeat", "measure"} <= set(metafunc.fixturenames):
        repeats = [*range(metafunc.config.getoption("repeats"))]
        if not metafunc.config.getoption("no_trace"):
            repeats.append(TRACED_REPEAT)
        metafunc.parametrize("repeat", repeats, ids=[repeat_id(repeat) for repeat in repeats])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Remember the whole sweep, before -k and its like choose from it; a resumed run leaves out what it has already."""
    config.stash[_COLLECTED] = _points(items)
    items[:] = [item for item in items if not _is_left_untraced(item)]
    yield
    resumed = config.stash[_RESUMED]
    if resumed is None:
        return
    there = [item for item in items if (run := _run_of(item)) is not None and not resumed.lacks(run[0].name, run[1])]
    config.hook.pytest_deselected(items=there)
    items[:] = [item for item in items if item not in set(there)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write run.json once everything that was deselected is gone."""
    config = session.config
    if config.getoption("collectonly") or _only_distributes(config):
        return
    points = _points(session.items)
    resumed = config.stash[_RESUMED]
    if not points and config.getoption("memory_out") is None and resumed is None:
        return  # a test session that measures nothing leaves nothing behind
    try:
        if resumed is not None:
            from harness.resuming import check_plan

            collected = config.stash[_COLLECTED]
            check_plan(config.stash[_DIRECTORY], collected)
        else:
            _start(config, points, session.items)
        if not _is_worker(config):
            _begin(config)
    except HarnessError as error:
        if not _is_worker(config):
            raise pytest.UsageError(str(error)) from error
        # An exception here would be xdist's crash; the controller tells the user, and nothing is measured.
        config.workeroutput["memory_refused"] = str(error)  # type: ignore[attr-defined]
        session.items.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: object, ids: list[str]) -> None:
    """The controller of a distributed session: its workers are about to measure."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    if ids and (config.stash[_DIRECTORY] / RUN_FILE).exists():
        _begin(config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Hear why a worker refused to measure."""
    if refused := getattr(node, "workeroutput", {}).get("memory_refused"):
        node.config.stash[_REFUSED] = refused  # type: ignore[attr-defined]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    """Note the end of the run, in the process that the user started; a run that was broken off has none."""
    config = session.config
    if _is_worker(config) or exitstatus in _BROKEN_OFF:
        return
    if config.stash.get(_REFUSED, ""):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return
    directory, resumed = config.stash[_DIRECTORY], config.stash[_RESUMED]
    if not (directory / RUN_FILE).exists() or config.getoption("collectonly"):
        return
    try:
        end_run(directory)
    except RunDirectoryError as error:
        config.stash[_BROKEN] = str(error)
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and resumed is not None and len(resumed.measured) == resumed.run_count:
        session.exitstatus = pytest.ExitCode.OK  # nothing was missing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was measured, where it is, and how to judge it."""
    if refused := config.stash.get(_REFUSED, ""):
        terminalreporter.write_line(f"ERROR: {refused}", red=True)
        return
    directory = config.stash[_DIRECTORY]
    if not (directory / RUN_FILE).exists():
        return
    terminalreporter.section("memory")
    try:
        broken, resumed = config.stash.get(_BROKEN, ""), config.stash[_RESUMED]
        for line in summary(directory, _shown(directory, config), broken=broken, resumed=resumed):
            terminalreporter.line(line)
    except OSError as error:
        terminalreporter.line(f"what was measured cannot be told: {error}")


@pytest.fixture(scope="session")
def memory_runner(pytestconfig: pytest.Config) -> Iterator[Runner]:
    """The runner of this session's run directory."""
    launcher = open_launcher(
        pytestconfig.getoption("isolation"),
        environment=os.environ,
        folder=pytestconfig.rootpath,
        preload=pytestconfig.getini("memory_preload"),
    )
    runner = Runner(
        run_directory=pytestconfig.stash[_DIRECTORY],
        device=_device(pytestconfig),
        launcher=launcher,
        preparer=SpawnLauncher(),
        root=pytestconfig.rootpath,
        workspace=pytestconfig.rootpath / "artifacts" / "inputs",
        host_limit_bytes=pytestconfig.getoption("host_budget"),
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
    directory, resumed = request.config.stash[_DIRECTORY], request.config.stash[_RESUMED]

    def measure(point: Point, repeat: int) -> RunEnd:
        try:
            if resumed is not None and (point.name, repeat) in resumed.void:
                void_run(directory, point.name, repeat, "it was broken off, and the run was resumed")
            return memory_runner.measure(point, repeat)
        except RunDirectoryError as error:
            # Nothing that follows could be written either; what has been written stays.
            request.session.shouldstop = str(error)
            pytest.fail(str(error), pytrace=False)

    return measure


def _resume(config: pytest.Config, resume: Path) -> "Resumption":
    from harness.resuming import check_same_here, read_resumption, set_damage_aside

    check_same_here(resume, _device(config), config.rootpath)
    if not config.getoption("collectonly"):
        config.stash[_HELD].enter_context(hold_run_directory(resume))
        set_damage_aside(resume)
    return read_resumption(resume)


def _resumption_from(text: str) -> "Resumption | None":
    if not text:
        return None
    from harness.resuming import Resumption

    return Resumption.from_json(text)


def _start(config: pytest.Config, points: list[Point], items: list[pytest.Item]) -> None:
    start_run(
        config.stash[_DIRECTORY],
        points=points,
        swept=config.stash[_COLLECTED],
        repeats=config.getoption("repeats"),
        device=_device(config),
        command=_command(config),
        root=config.rootpath,
        settings={
            "host_limit_bytes": config.getoption("host_budget"),
            "timeout_s": config.getoption("memory_timeout"),
            "device": config.getoption("device"),
            "isolation": config.getoption("isolation"),
            "traces": _traces_planned(items),
        },
    )


def _begin(config: pytest.Config) -> None:
    """The process that the user started, once, before the first child: keep others out, and be ready to be stopped."""
    if config.stash.get(_BEGUN, False):
        return
    config.stash[_BEGUN] = True
    directory, resumed = config.stash[_DIRECTORY], config.stash[_RESUMED]
    if resumed is None:
        config.stash[_HELD].enter_context(hold_run_directory(directory))
    else:
        note_resumption(directory, command=_command(config), root=config.rootpath, already=len(resumed.measured))
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _stop)
        config.stash[_HELD].callback(signal.signal, signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    # As after Ctrl-C: children are ended, and the summary says how to go on.
    del frame
    pytest.exit(f"stopped by {signal.Signals(number).name}", returncode=int(pytest.ExitCode.INTERRUPTED))


def _command(config: pytest.Config) -> str:
    return shlex.join(["pytest", *config.invocation_params.args])


def _run_of(item: pytest.Item) -> tuple[Point, int] | None:
    """The point and the repeat that the test measures, if it does."""
    callspec = getattr(item, "callspec", None)
    point = callspec.params.get("point") if callspec is not None else None
    if callspec is None or not isinstance(point, Point) or "measure" not in getattr(item, "fixturenames", ()):
        return None
    return point, callspec.params["repeat"]


def _is_left_untraced(item: pytest.Item) -> bool:
    run = _run_of(item)
    return run is not None and run[1] == TRACED_REPEAT and not run[0].traced


def _points(items: list[pytest.Item]) -> list[Point]:
    return list({run[0].name: run[0] for item in items if (run := _run_of(item)) is not None}.values())


def _traces_planned(items: list[pytest.Item]) -> bool:
    return any(run is not None and run[1] == TRACED_REPEAT for run in map(_run_of, items))


def _device(config: pytest.Config) -> Device:
    return choose_device(config.getoption("device")).with_budget(config.getoption("device_budget"))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _only_distributes(config: pytest.Config) -> bool:
    # The controller of a distributed session collects nothing itself.
    return not _is_worker(config) and bool(getattr(config.option, "numprocesses", None))


def _shown(directory: Path, config: pytest.Config) -> str:
    inside = directory.is_absolute() and directory.is_relative_to(config.invocation_params.dir)
    return str(directory.relative_to(config.invocation_params.dir) if inside else directory)
