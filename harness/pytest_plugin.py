"""The hooks of pytest, and the fixtures.

The plug-in is active in every session of everyone who has it installed. So it loads what measures
(``harness.plugin``) only when an option, a marker or a fixture asks for it.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from harness.errors import DeviceUnavailable, HarnessError, RunDirectoryError, UsageError
from harness.plugin import MARK, POINT_PROPERTY, RUNNER
from harness.plugin.options import (
    are_given,
    as_typed,
    check_folders,
    declare_options,
    is_dry,
    is_worker,
    only_distributes,
    with_joined_folders,
)
from harness.words import count

if TYPE_CHECKING:
    from harness.plugin.measuring import MemoryRunFixture
    from harness.plugin.session import RunSession
    from harness.plugin.turns import Turns
    from harness.records import Point
    from harness.run.runner import Runner
    from harness.rundir.rows import RunEnd

# What pytest ends with when the sweep was stopped half-way: Ctrl-C, or an error of pytest itself.
_BROKEN_OFF = frozenset({pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR})
# What the session ends with where the device that was asked for is not there: that of a gate that
# saw nothing.
_NO_DEVICE = 3
_DISPLAY = "memory-display"
"""The name of what shows how far measuring has come, among the plug-ins."""
_SWEEP = frozenset({"point", "repeat", "measure"})
"""The fixtures of a test of a sweep."""


# The session that measures: none until something asks for it.


def _session(config: pytest.Config) -> "RunSession | None":
    """The session that measures; None where nothing has asked for it."""
    # sys.modules is asked because an import would load what nobody has asked for
    if "harness.plugin.session" not in sys.modules:
        return None
    from harness.plugin.session import SESSION

    return config.stash.get(SESSION, None)


def _activate(config: pytest.Config) -> "RunSession":
    """The session that measures, settled when it is asked for first."""
    from harness.plugin.session import SESSION, settle_session

    if SESSION in config.stash:
        return config.stash[SESSION]
    try:
        session = settle_session(config)
    except DeviceUnavailable as error:
        pytest.exit(
            f"{as_typed(config, 'memory_device')} gpu: {error}; nothing was measured",
            returncode=_NO_DEVICE,
        )
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[SESSION] = session
    config.pluginmanager.register(_Listener(session))
    config.pluginmanager.register(_Display(session), _DISPLAY)
    return session


class _Listener:
    """Hears the reports of all tests, those of workers too; the hook itself does not say whose
    session it is.
    """

    def __init__(self, session: "RunSession") -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember which findings tests have failed with, so that they are not reported twice; a
        test that caught one has not.
        """
        if report.failed or hasattr(report, "wasxfail"):
            points = (
                str(value) for name, value in report.user_properties if name == POINT_PROPERTY
            )
            self._session.ledger.reported.update(points)


class SessionDisplay(Protocol):
    """``reports.progress.SessionDisplay``, as far as it is used here."""

    doing: str

    def close(self) -> None: ...  # noqa: D102 - as there
    def pause(self) -> None: ...  # noqa: D102
    def go_on(self) -> None: ...  # noqa: D102
    def aside(self) -> contextlib.AbstractContextManager[None]: ...  # noqa: D102


class _Display:
    """Shows how far measuring has come, in the process that the user started: a line below pytest's
    own on a terminal, a line now and then elsewhere, nothing with -q.
    """

    def __init__(self, session: "RunSession") -> None:
        self._session = session
        self._shown: SessionDisplay | None = None

    # innermost, so that the line is gone before pytest's own last word on the loop
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """While tests run."""
        with self.shown(session.config):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None]:
        """The name of a file, or of a test."""
        with self.aside():
            yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None]:
        """A dot, or a word."""
        with self.aside():
            yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logfinish(self) -> Generator[None]:
        """How many per cent of the tests are over."""
        with self.aside():
            yield

    def pytest_enter_pdb(self) -> None:
        """A debugger has the terminal for itself."""
        if self._shown is not None:
            self._shown.pause()

    def pytest_leave_pdb(self) -> None:
        """And gives it back."""
        if self._shown is not None:
            self._shown.go_on()

    @contextlib.contextmanager
    def shown(self, config: pytest.Config) -> Iterator[None]:
        """In the block it is shown."""
        self._shown = _open_display(config, self._session)
        try:
            yield
        finally:
            if self._shown is not None:
                self._shown.close()
            self._shown = None

    @property
    def is_shown(self) -> bool:
        """Whether anybody reads it."""
        return self._shown is not None

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """In the block somebody else writes to the terminal."""
        return contextlib.nullcontext() if self._shown is None else self._shown.aside()

    def say(self, doing: str) -> None:
        """What is done besides measuring, for example ``"judging"``; empty when it is over."""
        if self._shown is not None:
            self._shown.doing = doing


def _open_display(config: pytest.Config, session: "RunSession") -> SessionDisplay | None:
    """None where nobody reads it: with -q, without a terminal's plug-in, in a worker."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    quiet = config.get_verbosity() < 0 or is_worker(config) or is_dry(config)
    if quiet or reporter is None or not (session.run.is_planned or only_distributes(config)):
        return None
    from harness.commands import load_pages

    try:
        progress = load_pages("progress")
    except (UsageError, ImportError):
        return None
    writer = config.get_terminal_writer()

    def column() -> int:
        reporter.flush()
        return writer.width_of_current_line

    def write_line(text: str) -> None:
        if writer.width_of_current_line:
            writer.line()
        writer.line(text)

    drawn = reporter.isatty() and config.getoption("capture", "no") != "no"
    shown: SessionDisplay = progress.SessionDisplay(
        session.run.paths, drawn=drawn, column=column, write_line=write_line
    )
    return shown


# Before any test: options, workers, and what is collected.


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
    """Declare the marker; where an option is given, settle the run directory and the device."""
    config.addinivalue_line("markers", _marker_help(config))
    if are_given(config):
        _activate(config)


def _marker_help(config: pytest.Config) -> str:
    if not config.getoption("markers"):
        return f"{MARK}(body, ...): measure the body in children of its own"  # nobody reads it
    from harness.plugin.marks import help_text

    return help_text()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the run directory, and of SIGTERM."""
    if (session := _session(config)) is not None:
        session.run.release()


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
    """Hand an xdist worker what this process has settled."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    node.workerinput.update(_activate(config).for_worker())  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat every point of a sweep, and trace it once."""
    if not _SWEEP.issubset(metafunc.fixturenames):
        return
    from harness.rundir.traces import repeat_id

    session = _activate(metafunc.config)
    metafunc.parametrize("repeat", session.repeats, ids=map(repeat_id, session.repeats))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Read markers, and remember all tests before -k and its like choose; leave out what is not
    wanted, or there already.
    """
    if _session(config) is None and not any(map(_asks_to_measure, items)):
        yield
        return
    session = _activate(config)
    session.collect(items)
    yield
    session.add_runner(items)
    wanted = {item for item in items if session.wants(item)}
    if len(wanted) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = [item for item in items if item in wanted]


def _asks_to_measure(item: pytest.Item) -> bool:
    is_marked = item.get_closest_marker(MARK) is not None
    return is_marked or RUNNER in getattr(item, "fixturenames", ())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write run.json once everything that was deselected is gone."""
    config, memory = session.config, _session(session.config)
    if memory is None or only_distributes(config) or is_dry(config):
        return
    try:
        is_planned = memory.plan(session.items)
        if is_planned and not is_worker(config):
            memory.run.begin()
    except HarnessError as error:
        if not is_worker(config):
            raise pytest.UsageError(str(error)) from error
        # xdist would report an exception here as a crashed worker, so the controller is told why.
        config.workeroutput["memory_refused"] = str(error)  # type: ignore[attr-defined]
        session.items.clear()
        return
    if not is_planned and is_worker(config):
        config.workeroutput["memory_deselected"] = memory.ledger.deselected  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: object, ids: list[str]) -> None:
    """The controller of a distributed session: its workers are about to measure."""
    session = _activate(node.config)  # type: ignore[attr-defined]
    if ids and session.run.is_planned:
        session.run.begin()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Hear why a worker refused to measure, or that it had nothing to."""
    heard, ledger = getattr(node, "workeroutput", {}), _activate(node.config).ledger  # type: ignore[attr-defined]
    ledger.refused = heard.get("memory_refused", ledger.refused)
    ledger.deselected = heard.get("memory_deselected", ledger.deselected)


# In a test: the fixtures, and what its marker asks for.


@pytest.fixture(scope="session")
def memory_runner(pytestconfig: pytest.Config) -> "Iterator[Runner | None]":
    """The runner of this session's run directory; None where no test runs (--setup-only)."""
    session = _activate(pytestconfig)
    if is_dry(pytestconfig):
        yield None
        return
    from harness.plugin import turns

    with turns.open_runner(session) as runner:
        yield runner


@pytest.fixture(scope="session")
def memory_turns(memory_runner: "Runner | None", pytestconfig: pytest.Config) -> "Turns | None":
    """What measures a run: the runner, in turns with one of the code that it is compared with; None
    where no test runs.
    """
    if memory_runner is None:
        return None
    from harness.plugin.turns import turns_of

    return turns_of(_activate(pytestconfig), memory_runner)


@pytest.fixture
def measure(
    memory_turns: "Turns", request: pytest.FixtureRequest
) -> "Callable[[Point, int], RunEnd | None]":
    """``measure(point, repeat)``: one run of a sweep in a child of its own; its rows are on disk
    when it returns.

    ``repeat`` is what the sweep hands over: the number of the repeat, or TRACED_REPEAT for the
    extra, traced run. Where two codes are compared, both are measured, and the end is that of the
    later.
    """
    from harness.plugin.measuring import stop_session

    def measure(point: "Point", repeat: int) -> "RunEnd | None":
        try:
            return memory_turns.measure(point, repeat)
        except RunDirectoryError as error:
            stop_session(request.node, error)

    return measure


@pytest.fixture
def memory_run(memory_turns: "Turns", request: pytest.FixtureRequest) -> "MemoryRunFixture":
    """``memory_run("package.module:body", image_count=1000, device_budget="256MiB")``: the memory
    of a body, phase by phase.

    The body is measured at once, in children of its own:
    ``run["epoch"].device_in_use.growth_bytes``. The test fails where it ended otherwise than
    expected, or breaks a limit of the test's marker. Keywords: path, phases, device_budget,
    expected, repeats, prepare, environment, fixed, as of the marker; all others are parameters of
    the body. ``memory_run()`` gives what the test's marker has measured.
    """
    from harness.plugin.measuring import memory_run_of

    return memory_run_of(request.node, memory_turns)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Measure what the test's marker names, before the test's own function."""
    if _session(item.config) is not None:
        from harness.plugin.measuring import measure_marked

        measure_marked(item)
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests were skipped, or failed as expected, once pytest itself has said so."""
    report = yield
    if _session(item.config) is not None:
        from harness.plugin.measuring import note_parked

        note_parked(item, report)
    return report


# After the last test: judge, and say what was found.


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    """Note the end of the run, in the process that the user started, and judge it; a run that was
    broken off has none.
    """
    config, memory = session.config, _session(session.config)
    if memory is None or is_worker(config) or exitstatus in _BROKEN_OFF:
        return
    if memory.ledger.refused:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return
    if not memory.run.is_planned or is_dry(config):
        return

    _finish(memory, stopped=bool(session.shouldfail or session.shouldstop))
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and memory.run.was_complete:
        session.exitstatus = pytest.ExitCode.OK  # nothing was missing
    has_passed = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    end = memory.ledger.end
    if has_passed and end is not None and end.findings:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _finish(session: "RunSession", *, stopped: bool) -> None:
    """Note the end of the run, and judge it where some test has a marker or takes ``memory_run``: a
    sweep is judged by ``python -m harness gate``.
    """
    display: Any = session.config.pluginmanager.get_plugin(_DISPLAY)
    try:
        session.run.finish()
        if not session.is_judged:
            return
        with display.shown(session.config):
            from harness.plugin.judgement import add_to_junit, end_session

            show = _show(session.config, display)
            end = end_session(session, stopped=stopped, show=show, doing=display.say)
    except RunDirectoryError as error:
        session.ledger.broken = str(error)
        return
    session.ledger.end = end
    add_to_junit(session.config, end.findings)


def _show(config: pytest.Config, display: _Display) -> Callable[[str], None]:
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return _silent

    def show(line: str) -> None:
        # The line of dots has no end yet, and nothing public tells whether the terminal is in the
        # midst of one.
        with display.aside():
            reporter.write_line(f"\n{line}")

    return show


def _silent(line: str) -> None:
    """Where nobody reads a terminal (-p no:terminal)."""


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was measured, what was found, where it is, and how to judge it."""
    session = _session(config)
    if session is None:
        return
    ledger = session.ledger
    if ledger.refused:
        terminalreporter.write_line(f"ERROR: {ledger.refused}", red=True)
        return
    if number := ledger.deselected:
        tests = count(number, "test that measures was", "tests that measure were")
        terminalreporter.write_line(f"memory: {tests} deselected, so that nothing was measured")
    if is_dry(config):
        _list_mistakes(terminalreporter, ledger.refusals(ledger.collected))
    elif session.run.is_planned:
        _summarize(terminalreporter, session)


def _list_mistakes(reporter: pytest.TerminalReporter, mistakes: list[str]) -> None:
    """What would refuse the session, were it to run its tests."""
    if mistakes:
        reporter.section("memory")
        reporter.line(
            "what a session that runs these tests would be refused for, unless they are deselected:"
        )
    for mistake in mistakes:
        reporter.line(mistake, red=True)


def _summarize(reporter: pytest.TerminalReporter, session: "RunSession") -> None:
    from harness.plugin.judgement import summary

    reporter.section("memory")
    try:
        for line, colour in summary(session):
            reporter.line(line, **{_MARKUP.get(colour, colour): True} if colour else {})
    except OSError as error:
        reporter.line(f"what was measured cannot be read: {error}")


_MARKUP = {"dim": "light"}
"""What pytest's writer calls a colour of ours."""
