"""Composition root for pytest: any test that takes ``point``, ``repeat`` and ``measure`` is part of a run.

The controller and its xdist workers share one run directory: children append whole lines to one rows.jsonl. Every
worker has collected the same plan; the first to get there writes run.json, before any child starts.
"""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import DeviceUnavailable, HarnessError
from harness.records import RUN_FILE, TRACED_REPEAT, Point, RunEnd
from harness.run import options
from harness.run.devices import Device, choose_device
from harness.run.ends import ends_of
from harness.run.isolation import SpawnLauncher, open_launcher
from harness.run.manifest import claim_run_directory, default_run_directory, end_run, make_run_directory, plans_anything, start_run
from harness.run.runner import Runner
from harness.run.traced import repeat_id, traces_in_words
from harness.units import GIB

DEFAULT_REPEATS = 2
"""Chosen: the smallest number that shows a spread, and that tells a slope from noise with four sizes."""
DEFAULT_HOST_LIMIT_BYTES = 5 * GIB
"""Chosen: twice what the largest eager point of the catalogue needs beside the device (with TensorFlow's own code)."""
DEFAULT_TIMEOUT_S = 300.0
"""Chosen: twenty times the longest point of the catalogue; it includes the 10 s that BFC waits before it reports OOM."""

_DIRECTORY = pytest.StashKey[Path]()
_COLLECTED = pytest.StashKey[list[Point]]()
# What pytest ends with when the sweep was stopped half-way: Ctrl-C, or an error of pytest itself.
_BROKEN_OFF = frozenset({pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of a sweep."""
    group = parser.getgroup(
        "memory", 'memory measurement (each point in a child of its own; choose points by words of their names: -k "lazy and 500")'
    )
    group.addoption(
        "--memory-out",
        metavar="DIR",
        type=options.folder,
        help="run directory to write: run.json, rows.jsonl, logs; it must not hold a run yet (default: artifacts/runs/TIME)",
    )
    group.addoption(
        "--repeats",
        metavar="N",
        type=options.repeat_count,
        default=DEFAULT_REPEATS,
        help="times each point is measured, in fresh children (default: %(default)s)",
    )
    group.addoption(
        "--no-trace",
        action="store_true",
        help="leave out the extra run of each point (its test is called traced) in which TensorFlow's profiler records every "
        "allocation: without it nobody can say what was alive at a peak; with it a sweep takes one repeat longer, and the "
        "measured repeats stay as they are",
    )
    group.addoption(
        "--device-budget",
        metavar="SIZE",
        type=options.device_budget,
        help="limit of the device's memory, as 512MiB or 2GiB (default: 3GiB for the emulated device, none for a card)",
    )
    group.addoption(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="auto: the first NVIDIA card, or without one TensorFlow's GPU allocator emulated on the CPU (default: %(default)s)",
    )
    group.addoption(
        "--isolation",
        choices=("auto", "zygote", "spawn"),
        default="auto",
        help="how children start: forks of a process that has only imported TensorFlow (zygote), fresh interpreters (spawn), "
        "or auto: the first where it is safe (default: %(default)s)",
    )
    group.addoption(
        "--host-budget",
        metavar="SIZE",
        type=options.byte_amount,
        default=DEFAULT_HOST_LIMIT_BYTES,
        help="limit of each child's host memory, besides an emulated device (default: 5GiB)",
    )
    group.addoption(
        "--memory-timeout",
        metavar="SECONDS",
        type=options.seconds,
        default=DEFAULT_TIMEOUT_S,
        help="time after which a child is stopped and its point recorded as timed_out (default: %(default)g)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settle the run directory and the device; the workers take the controller's, so that a bad value is told once."""
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        config.stash[_DIRECTORY] = Path(worker_input["memory_run_directory"])
        return
    asked: Path | None = config.getoption("memory_out")
    try:
        if asked is not None:
            claim_run_directory(asked)
        if config.getoption("device") == "gpu" or config.getoption("device_budget") is not None:
            _device(config)
        if asked is not None and not config.getoption("collectonly"):
            make_run_directory(asked)
    except DeviceUnavailable as error:
        pytest.exit(f"--device gpu: {error}; nothing was measured", returncode=3)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[_DIRECTORY] = asked or default_run_directory(config.rootpath)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell an xdist worker where the run is written."""
    node.workerinput["memory_run_directory"] = str(node.config.stash[_DIRECTORY])  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat every measured point, and trace it once."""
    if {"point", "repeat", "measure"} <= set(metafunc.fixturenames):
        repeats = [*range(metafunc.config.getoption("repeats"))]
        if not metafunc.config.getoption("no_trace"):
            repeats.append(TRACED_REPEAT)
        metafunc.parametrize("repeat", repeats, ids=[repeat_id(repeat) for repeat in repeats])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remember the whole sweep, before -k and its like choose from it."""
    config.stash[_COLLECTED] = _points(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write run.json once everything that was deselected is gone."""
    config = session.config
    if config.getoption("collectonly") or _only_distributes(config):
        return
    points = _points(session.items)
    if not points and config.getoption("memory_out") is None:
        return  # a test session that measures nothing leaves nothing behind
    try:
        start_run(
            config.stash[_DIRECTORY],
            points=points,
            swept=config.stash[_COLLECTED],
            repeats=config.getoption("repeats"),
            device=_device(config),
            command=shlex.join(["pytest", *config.invocation_params.args]),
            root=config.rootpath,
            settings={
                "host_limit_bytes": config.getoption("host_budget"),
                "timeout_s": config.getoption("memory_timeout"),
                "device": config.getoption("device"),
                "isolation": config.getoption("isolation"),
                "traces": _traces_planned(session.items),
            },
        )
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    """Note the end of the run, in the process that the user started; a run that was broken off has none."""
    if exitstatus in _BROKEN_OFF:
        return
    directory = session.config.stash.get(_DIRECTORY, None)
    if directory is not None and not _is_worker(session.config) and (directory / RUN_FILE).exists():
        end_run(directory)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was measured, where it is, and how to judge it."""
    directory = config.stash[_DIRECTORY]
    if not (directory / RUN_FILE).exists():
        return
    terminalreporter.section("memory")
    if not plans_anything(directory):
        terminalreporter.line(
            f"0 runs were selected, and {_shown(directory, config)} holds an empty plan; --collect-only lists the points"
        )
        return
    ends = ends_of(directory)
    outcomes = Counter(str(end.outcome) for end in ends)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())) or "none"
    terminalreporter.line(f"{len(ends)} runs measured ({counted}) in {_shown(directory, config)}")
    for line in traces_in_words(directory):
        terminalreporter.line(line)
    terminalreporter.line(f"judge them:  python -m harness gate {_shown(directory, config)}")


@pytest.fixture(scope="session")
def memory_runner(pytestconfig: pytest.Config) -> Iterator[Runner]:
    """The runner of this session's run directory."""
    launcher = open_launcher(pytestconfig.getoption("isolation"), environment=os.environ, folder=pytestconfig.rootpath)
    yield Runner(
        run_directory=pytestconfig.stash[_DIRECTORY],
        device=_device(pytestconfig),
        launcher=launcher,
        preparer=SpawnLauncher(),
        root=pytestconfig.rootpath,
        workspace=pytestconfig.rootpath / "artifacts" / "inputs",
        host_limit_bytes=pytestconfig.getoption("host_budget"),
        timeout_s=pytestconfig.getoption("memory_timeout"),
    )
    launcher.close()


@pytest.fixture
def measure(memory_runner: Runner) -> Callable[[Point, int], RunEnd]:
    """``measure(point, repeat)``: one run in a child of its own; its rows are on disk when it returns.

    ``repeat`` is whatever the sweep hands over: the number of the repeat, or TRACED_REPEAT for the extra, traced run.
    """
    return memory_runner.measure


def _points(items: list[pytest.Item]) -> list[Point]:
    named: dict[str, Point] = {}
    for item in items:
        callspec = getattr(item, "callspec", None)
        point = callspec.params.get("point") if callspec is not None else None
        if isinstance(point, Point) and "measure" in getattr(item, "fixturenames", ()):
            named[point.name] = point
    return list(named.values())


def _traces_planned(items: list[pytest.Item]) -> bool:
    callspecs = (getattr(item, "callspec", None) for item in items)
    return any(callspec is not None and callspec.params.get("repeat") == TRACED_REPEAT for callspec in callspecs)


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
