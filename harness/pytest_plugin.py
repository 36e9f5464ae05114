"""Composition root for pytest: the hooks of a session that measures. What they call is in
``harness.plugin``.
"""

import dataclasses
from collections.abc import Callable, Generator

import pytest

from harness.errors import DeviceUnavailable, HarnessError, RunDirectoryError, UsageError
from harness.plugin.ending import end_session, summary, tell_junit
from harness.plugin.marks import HELP, WANTED, read_tests, told_to
from harness.plugin.measuring import (
    POINT_PROPERTY,
    RUNNER,
    measure,
    measure_marked,
    memory_run,
    memory_runner,
    memory_turns,
    note_parked,
)
from harness.plugin.options import (
    as_typed,
    check_folders,
    declare_options,
    is_dry,
    is_worker,
    with_joined_folders,
)
from harness.plugin.plan import (
    check_patterns,
    is_left_untraced,
    is_named,
    make_plan,
    namesakes,
    point_of,
    run_of,
)
from harness.plugin.session import SESSION, RunSession, only_distributes
from harness.records import TRACED_REPEAT
from harness.rundir.traces import repeat_id

# fixtures, which pytest finds by their names in this module
__all__ = ["measure", "memory_run", "memory_runner", "memory_turns"]

# What pytest ends with when the sweep was stopped half-way: Ctrl-C, or an error of pytest itself.
_BROKEN_OFF = frozenset({pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR})
# What the session ends with where the device that was asked for is not there: that of a gate that
# saw nothing.
_NO_DEVICE = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of a session that measures."""
    declare_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Refuse what would have moved the root of the session, before any of its files is loaded."""
    try:
        check_folders([*map(str, args)], early_config.invocation_params.dir)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_configure(config: pytest.Config) -> None:
    """Settle the run directory and the device; the workers take the controller's."""
    config.addinivalue_line("markers", HELP)
    config.pluginmanager.register(_Listener(config))
    if is_worker(config):
        config.stash[SESSION] = RunSession.of_worker(config, config.workerinput)  # type: ignore[attr-defined]
        return
    try:
        config.stash[SESSION] = RunSession.settle(config)
    except DeviceUnavailable as error:
        pytest.exit(
            f"{as_typed(config, 'memory_device')} gpu: {error}; nothing was measured",
            returncode=_NO_DEVICE,
        )
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the run directory, and of SIGTERM."""
    if (session := config.stash.get(SESSION, None)) is not None:
        session.held.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Give the workers arguments by which they find the controller's root: the run directory is
    there when they look for it.
    """
    typed = config.invocation_params
    config.invocation_params = dataclasses.replace(
        typed, args=tuple(with_joined_folders([*map(str, typed.args)]))
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell an xdist worker where the run is written, and what is there already."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    node.workerinput.update(config.stash[SESSION].for_worker())  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat every point of a sweep, and trace it once."""
    if {"point", "repeat", "measure"} <= set(metafunc.fixturenames):
        resumed = metafunc.config.stash[SESSION].resumed
        repeats = [
            *range(
                metafunc.config.getoption("memory_repeats")
                if resumed is None
                else resumed.most_repeats
            )
        ]
        if not metafunc.config.getoption("memory_no_trace"):
            repeats.append(TRACED_REPEAT)
        metafunc.parametrize("repeat", repeats, ids=[repeat_id(repeat) for repeat in repeats])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Read markers, and remember all tests before -k and its like choose; leave out what is not
    wanted, or there already.
    """
    session = config.stash[SESSION]
    session.mistakes = read_tests(items, config.rootpath)
    session.collected = [*items]
    items[:] = [item for item in items if not is_left_untraced(item)]
    yield
    for item in items:
        if WANTED in item.stash and RUNNER not in item.fixturenames:  # type: ignore[attr-defined]
            item.fixturenames.append(RUNNER)  # type: ignore[attr-defined]
    left_out = {
        item
        for item in items
        if (point := point_of(item)) is not None and not is_named(point.name, session.patterns)
    }
    left_out |= {
        item
        for item in items
        if (run := run_of(item)) is not None and not session.lacks(run[0].name, run[1])
    }
    # A test with a marker runs again, on what was measured, so that nothing it says is lost; but no
    # other than was selected.
    left_out |= {
        item
        for item in items
        if WANTED in item.stash and not session.is_of_run(item.nodeid, point_of(item))
    }
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write run.json once everything that was deselected is gone."""
    config, run = session.config, session.config.stash[SESSION]
    if only_distributes(config) or is_dry(config):
        return
    try:
        if mistakes := told_to(run.mistakes, session.items) or namesakes(session.items):
            raise UsageError("\n".join(mistakes))
        check_patterns(run.patterns, run.collected, as_typed(config, "memory_points"))
        plan = make_plan(session.items, run.collected, traces=run.traces, patterns=run.patterns)
        asked_for = config.getoption("memory_out") is not None or run.resumed is not None
        if plan.is_empty and not asked_for:
            _note_deselected(config, sum(WANTED in item.stash for item in run.collected))
            return  # a test session that measures nothing leaves nothing behind
        run.plan(plan)
        if not is_worker(config):
            run.begin()
    except HarnessError as error:
        if not is_worker(config):
            raise pytest.UsageError(str(error)) from error
        # An exception here would be xdist's crash; the controller tells the user, and nothing is
        # measured.
        config.workeroutput["memory_refused"] = str(error)  # type: ignore[attr-defined]
        session.items.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: object, ids: list[str]) -> None:
    """The controller of a distributed session: its workers are about to measure."""
    run = node.config.stash[SESSION]  # type: ignore[attr-defined]
    if ids and run.is_there:
        run.begin()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Hear why a worker refused to measure, or that it had nothing to."""
    told, run = getattr(node, "workeroutput", {}), node.config.stash[SESSION]  # type: ignore[attr-defined]
    run.refused = told.get("memory_refused", run.refused)
    run.deselected = told.get("memory_deselected", run.deselected)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Measure what the test's marker names, before the test's own function."""
    if WANTED in item.stash:
        measure_marked(item)
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests were skipped, or failed as expected, once pytest itself has said so."""
    report = yield
    note_parked(item, report)
    return report


class _Listener:
    """Hears the reports of all tests, those of workers too; the hook itself is not told whose
    session it is.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember which findings tests have failed with, so that they are not told twice; a test
        that caught one has not.
        """
        if not (report.failed or hasattr(report, "wasxfail")):
            return
        told = (str(value) for name, value in report.user_properties if name == POINT_PROPERTY)
        self._config.stash[SESSION].told.update(told)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    """Note the end of the run, in the process that the user started, and judge it; a run that was
    broken off has none.
    """
    config, run = session.config, session.config.stash[SESSION]
    if is_worker(config) or exitstatus in _BROKEN_OFF:
        return
    if run.refused:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return
    if not run.is_there or is_dry(config):
        return
    try:
        run.finish()
        run.end = end_session(
            run, stopped=bool(session.shouldfail or session.shouldstop), show=_show(config)
        )
    except RunDirectoryError as error:
        run.broken = str(error)
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and run.was_whole:
        session.exitstatus = pytest.ExitCode.OK  # nothing was missing
    if run.end is not None and run.end.findings:
        tell_junit(config, run.end.findings)
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was measured, what was found, where it is, and how to judge it."""
    run = config.stash[SESSION]
    if run.refused:
        terminalreporter.write_line(f"ERROR: {run.refused}", red=True)
        return
    if run.deselected:
        tests = (
            "1 test that measures was"
            if run.deselected == 1
            else f"{run.deselected} tests that measure were"
        )
        terminalreporter.write_line(f"memory: {tests} deselected, so that nothing was measured")
    if is_dry(config):
        _tell_mistakes(terminalreporter, run)
        return
    if not run.is_there:
        return
    terminalreporter.section("memory")
    alarming = {found.sentence for found in run.end.findings} if run.end is not None else set()
    try:
        for line in summary(
            run.directory,
            run.shown,
            broken=run.broken,
            resumed=run.resumed,
            end=run.end,
            resuming=run.resuming,
        ):
            terminalreporter.line(line, red=line in alarming)
    except OSError as error:
        terminalreporter.line(f"what was measured cannot be told: {error}")


def _tell_mistakes(reporter: pytest.TerminalReporter, run: RunSession) -> None:
    """What would refuse the session, were it to run its tests."""
    mistakes = [*told_to(run.mistakes, run.collected), *namesakes(run.collected)]
    if mistakes:
        reporter.section("memory")
        reporter.line(
            "what a session that runs these tests would be refused for, unless they are deselected:"
        )
    for mistake in mistakes:
        reporter.line(mistake, red=True)


def _note_deselected(config: pytest.Config, number: int) -> None:
    """How many tests with markers were there, none of which was selected; the controller hears it
    of its workers.
    """
    config.stash[SESSION].deselected = number
    if is_worker(config):
        config.workeroutput["memory_deselected"] = number  # type: ignore[attr-defined]


def _show(config: pytest.Config) -> Callable[[str], None]:
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    # The line of progress has no end yet, and nothing public tells whether the terminal is in the
    # midst of one.
    return (lambda line: reporter.write_line(f"\n{line}")) if reporter is not None else _silent


def _silent(line: str) -> None:
    """Where nobody reads a terminal (-p no:terminal)."""
