"""What one process of a measuring session knows: its settings, its run directory, and a ledger of
what its tests have measured.

The controller and its workers share one run directory: children append complete lines to one
rows.jsonl. Every worker has collected the same plan; the first to get there writes run.json, before
any child starts.
"""

import contextlib
import functools
import json
import shlex
import signal
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError, UsageError
from harness.judge.advice import measuring
from harness.plugin import RUNNER
from harness.plugin.marks import WANTED, Mistakes, mistakes_of, read_tests
from harness.plugin.options import (
    SessionSettings,
    as_typed,
    is_dry,
    is_worker,
    pythonpath_of,
    settle_settings,
)
from harness.plugin.plan import (
    Plan,
    check_patterns,
    early_device,
    find_device,
    is_left_untraced,
    is_named,
    make_plan,
    namesakes,
    one_decides,
    point_of,
    run_of,
    settle_sides,
)
from harness.records import RUN_FILE, THEN_FOLDER, TRACED_REPEAT, Point
from harness.run.devices import Device
from harness.run.revisions import (
    Sides,
)
from harness.rundir.manifest import (
    claim_run_directory,
    default_run_directory,
    end_run,
    hold_run_directory,
    make_run_directory,
    note_resumption,
    read_manifest,
    start_run,
)
from harness.rundir.reading import forget_judgement
from harness.rundir.resume import (
    Resumption,
    check_plan,
    check_same_here,
    read_resumption,
    set_damage_aside,
    settings_of,
)

if TYPE_CHECKING:
    from harness.judge.policy import Policy
    from harness.judge.table import RunReader

# The ledger: what has happened in this process so far.


@dataclass(frozen=True, slots=True)
class SessionFinding:
    """One finding that no test has failed with."""

    subject: str
    sentence: str
    """Begins with the kind of the finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """What was found when all points were measured."""

    findings: tuple[SessionFinding, ...] = ()
    """Not empty means exit code 1."""
    lines: tuple[tuple[str, str], ...] = ()
    """What the section "memory" says of the judgement, each line with its colour, which may be
    none."""
    judge_again: str = ""
    """The command that judges the run by the same limits and draws its page; empty where it cannot
    be judged."""


@dataclass(frozen=True, slots=True)
class MeasuredBefore:
    """A point that a test has measured in this process."""

    test: str
    """What tells the test from others (``Wanted.same``)."""
    nodeid: str
    execution: int
    """Which execution of the test this was, from 1: other plug-ins run tests again."""
    repeats: int


@dataclass
class Ledger:
    """Which tests there are, what they have measured in this process, and what was reported."""

    collected: Sequence[pytest.Item] = ()
    """All tests, before -k and its like choose from them."""
    mistakes: Mistakes = field(default_factory=dict)
    """Why what was collected cannot be measured."""
    deselected: int = 0
    """How many tests with markers there were, where none of them was selected."""
    executions: Counter[str] = field(default_factory=Counter)
    """How often each test was run in this process."""
    measured: dict[str, MeasuredBefore] = field(default_factory=dict)
    """By name of the point: what tests have measured by a marker or by ``memory_run``."""
    reported: set[str] = field(default_factory=set)
    """Names of points whose tests have failed with the findings about them."""
    refused: str = ""
    """Why the workers measured nothing: one sentence, which is an error of usage."""
    broken: str = ""
    """Why the run directory could not be written, once it could not: one sentence for the
    summary."""
    end: SessionEnd | None = None
    """What was found when all points were measured; None where no test has a marker."""

    def refusals(self, selected: Sequence[pytest.Item]) -> list[str]:
        """A sentence for each mistake of the selected tests."""
        return mistakes_of(self.mistakes, selected) or namesakes(selected)


# The run directory of a session.


@dataclass
class SessionDirectory:
    """The run directory of the session, and that of the earlier code where two are compared."""

    path: Path
    root: Path
    """The root of the session: the project that is measured."""
    command: str
    """What the user typed."""
    sides: Sides | None = None
    """The two codes that are measured; None where it is what Python finds."""
    resumed: Resumption | None = None
    """What the resumed run already holds; None for a new run."""
    resumed_earlier: Resumption | None = None
    """As ``resumed``, of the run of the earlier code."""
    had_page: bool = False
    """Whether the resumed run had a page, so that it gets one again."""
    _begun: bool = False
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """The lock of the run directory, and SIGTERM."""

    @property
    def earlier(self) -> Path:
        """The run directory of the earlier code, where two are compared."""
        return self.path / THEN_FOLDER

    @property
    def paths(self) -> tuple[Path, ...]:
        """The run directory, and that of the earlier code where two are compared."""
        return (self.path,) if self.sides is None else (self.path, self.earlier)

    @property
    def is_planned(self) -> bool:
        """Whether a run has been planned in the directory."""
        return (self.path / RUN_FILE).exists()

    @property
    def was_complete(self) -> bool:
        """Whether the run that is resumed has nothing left to measure, on either side."""
        resumed = [each for each in (self.resumed, self.resumed_earlier) if each is not None]
        return bool(resumed) and all(len(each.measured) == each.run_count for each in resumed)

    def lacks(self, point: str, repeat: int) -> bool:
        """Whether a run has to be measured, on either side; in a new run every one has to."""
        if self.resumed is None:
            return True
        earlier = self.resumed_earlier
        return self.resumed.lacks(point, repeat) or (
            earlier is not None and earlier.lacks(point, repeat)
        )

    def further_of(self, point: Point) -> int:
        """How many repeats the resumed run has announced of a point because it offended."""
        return 0 if self.resumed is None else self.resumed.further.get(point.name, 0)

    def resume(self, device: Device) -> None:
        """Take up what is in the directory. Raises UsageError where it cannot be resumed here, and
        RunDirectoryError where it is damaged or in use.
        """
        check_same_here(self.path, device, self.root)
        self._held.enter_context(hold_run_directory(self.path))
        set_damage_aside(self.path)
        self.resumed = read_resumption(self.path)
        if self.earlier.exists():
            check_same_here(self.earlier, device, self.root)
            set_damage_aside(self.earlier)
            self.resumed_earlier = read_resumption(self.earlier)

    def start(
        self, plan: Plan, settings: Mapping[str, Any], *, repeats: int, device: Device
    ) -> None:
        """Write run.json, on both sides; ``settings`` are those that it records."""
        write = functools.partial(
            start_run,
            points=plan.points,
            swept=plan.collected,
            policy=plan.policy,
            asked=plan.asked,
            repeats=repeats,
            device=device,
            command=self.command,
            root=self.root,
        )
        if self.sides is None:
            write(self.path, settings=settings, sides={})
            return

        current, earlier = self.sides.now.to_json(), self.sides.then.to_json()
        write(self.path, settings=settings, sides={"code": current, "against": earlier})
        # What was alive at a peak is asked of the code that is judged; of the other one the amounts
        # are enough.
        write(self.earlier, settings={**settings, "traces": False}, sides={"code": earlier})

    def begin(self) -> None:
        """In the process that the user started, once, before the first child: keep others out, and
        be ready to be stopped.
        """
        if self._begun:
            return
        self._begun = True
        if self.resumed is None:
            self._held.enter_context(hold_run_directory(self.path))

        resumptions = (self.resumed, self.resumed_earlier)
        for path, resumed in zip(self.paths, resumptions, strict=False):
            if resumed is not None:
                self.had_page |= forget_judgement(path) and path == self.path
                already = len(resumed.measured)
                note_resumption(path, command=self.command, root=self.root, already=already)

        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, _stop)
            self._held.callback(signal.signal, signal.SIGTERM, before)

    def finish(self) -> None:
        """Note the end of the run, and that of the code it is compared with. Raises
        RunDirectoryError.
        """
        for path in self.paths[::-1]:
            end_run(path)

    def release(self) -> None:
        """Let go of the lock, and of SIGTERM."""
        self._held.close()


def _stop(number: int, frame: FrameType | None) -> None:
    # As after Ctrl-C: children are ended, and the summary says how to go on.
    del frame
    pytest.exit(
        f"stopped by {signal.Signals(number).name}", returncode=int(pytest.ExitCode.INTERRUPTED)
    )


# The session: the three together.


@dataclass
class RunSession:
    """What one process of a session knows."""

    config: pytest.Config
    settings: SessionSettings
    run: SessionDirectory
    ledger: Ledger = field(default_factory=Ledger)
    known_device: Device | None = None
    """The device, once it is known."""
    known_reader: "RunReader | None" = None
    """What reads the run directory, once a point was judged."""
    known_policy: "Policy | None" = None
    """What the markers promise, once a point was judged by it."""

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.run.path

    @property
    def shown(self) -> str:
        """The run directory as the user would type it."""
        here, path = self.config.invocation_params.dir, self.directory
        inside = path.is_absolute() and path.is_relative_to(here)
        return str(path.relative_to(here) if inside else path)

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return measuring(self.run.command, resuming=self.shown)

    @property
    def device(self) -> Device:
        """The device that the options choose, found out once. Raises UsageError or
        DeviceUnavailable.
        """
        if self.known_device is None:
            self.known_device = find_device(self.config, self.settings, self.directory)
        return self.known_device

    @property
    def reader(self) -> "RunReader":
        """What reads the rows of single points: each row is parsed once in a session."""
        if self.known_reader is None:
            # the judge is loaded where something was measured, nowhere else
            from harness.judge.table import RunReader

            self.known_reader = RunReader(self.directory)
        return self.known_reader

    @property
    def repeats(self) -> list[int]:
        """The numbers of the runs that a test of a sweep is repeated for, the traced one among
        them.
        """
        resumed = self.run.resumed
        count = self.settings.repeats if resumed is None else resumed.most_repeats
        return [*range(count), *([TRACED_REPEAT] if self.settings.traces else [])]

    def repeats_of(self, said: int | None) -> int:
        """How often a point is measured whose test says ``said`` about it; None: it says
        nothing.
        """
        resumed = self.run.resumed
        given = self.settings.repeats_given if resumed is None else resumed.repeats_given
        return self.settings.repeats if said is None or given else said

    def collect(self, items: list[pytest.Item]) -> None:
        """Read the markers of all tests, and drop the traced runs of points that have none."""
        self.ledger.mistakes = read_tests(items, self.config.rootpath)
        self.ledger.collected = [*items]
        items[:] = [item for item in items if not is_left_untraced(item)]

    def add_runner(self, items: Sequence[pytest.Item]) -> None:
        """Give tests with a marker the fixture that measures."""
        for item in items:
            names: list[str] = getattr(item, "fixturenames", [])
            if WANTED in item.stash and RUNNER not in names:
                names.append(RUNNER)

    def wants(self, item: pytest.Item) -> bool:
        """Whether a test is to be run: its point is among the chosen ones, and something of it is
        missing.
        """
        point, run = point_of(item), run_of(item)
        if point is not None and not is_named(point.name, self.settings.points):
            return False
        if run is not None and not self.run.lacks(run[0].name, run[1]):
            return False
        # A test with a marker runs again, on what was measured, so that nothing it says is lost;
        # but no other than was selected.
        return WANTED not in item.stash or self._is_of_run(item.nodeid, point)

    def _is_of_run(self, test: str, point: Point | None) -> bool:
        """Whether a test with a marker belongs to the run: every test belongs to a new one, those
        that it selected to a resumed one.
        """
        if self.run.resumed is None:
            return True
        if point is not None:
            return point.name in self.run.resumed.planned
        # Where points were chosen by name, run.json does not say which tests would name one when
        # they run.
        return bool(self.settings.points) or test in self.run.resumed.asked

    def plan(self, selected: Sequence[pytest.Item]) -> bool:
        """Write run.json, or check that a resumed run's plan is still what is collected.

        False where nothing is to be measured, so that nothing is written. Raises HarnessError.
        """
        if mistakes := self.ledger.refusals(selected):
            raise UsageError("\n".join(mistakes))
        settings, collected = self.settings, self.ledger.collected
        check_patterns(settings.points, collected, as_typed(self.config, "memory_points"))

        plan = make_plan(selected, collected, traces=settings.traces, patterns=settings.points)
        asked_for = self.config.getoption("memory_out") is not None
        if plan.is_empty and not asked_for and self.run.resumed is None:
            self.ledger.deselected = sum(WANTED in item.stash for item in collected)
            return False  # a test session that measures nothing leaves nothing behind

        if self.run.resumed is not None:
            check_plan(self.directory, plan.collected)
        else:
            self._start(plan)
        return True

    def _start(self, plan: Plan) -> None:
        with one_decides(self.config, self.settings):
            for point in plan.points:
                # a budget that it cannot have is refused before a child is started
                self.device.for_point(point)
            recorded = self._recorded(plan)
            self.run.start(plan, recorded, repeats=self.settings.repeats, device=self.device)

    def _recorded(self, plan: Plan) -> dict[str, Any]:
        """What run.json says of the settings."""
        settings, config = self.settings, self.config
        return {
            "host_limit_bytes": settings.host_budget,
            "timeout_s": settings.timeout,
            "device": settings.device,
            "growth": settings.growth,
            "isolation": settings.isolation,
            "preload": list(config.getini("memory_preload")),
            "pythonpath": [str(folder) for folder in pythonpath_of(config)],
            "traces": plan.traces,
            "judged_by_pytest": plan.judged,
            "left_out": plan.left_out,
            "repeats_given": settings.repeats_given,
            "against": settings.against,
            "revision": settings.revision,
        }

    @property
    def is_judged(self) -> bool:
        """Whether pytest itself judges the run: some test has a marker, or takes ``memory_run``. A
        run that cannot be read is, so that it is reported.
        """
        try:
            settings = read_manifest(self.directory).settings
        except HarnessError:
            return True
        return bool(settings.get("judged_by_pytest", False))

    def for_worker(self) -> dict[str, str]:
        """What ``_of_worker`` needs to make the same session."""
        run = self.run
        return {
            "memory_settings": json.dumps(self.settings.to_json()),
            "memory_run_directory": str(run.path),
            "memory_sides": "" if run.sides is None else json.dumps(run.sides.to_json()),
            "memory_resumed": "" if run.resumed is None else run.resumed.to_json(),
            "memory_resumed_earlier": (
                "" if run.resumed_earlier is None else run.resumed_earlier.to_json()
            ),
        }


SESSION = pytest.StashKey[RunSession]()
"""Where the configuration of a session keeps it."""


def settle_session(config: pytest.Config) -> RunSession:
    """The session that the options ask for; in a worker, the one that the controller has settled.

    Raises UsageError for options that cannot be used, DeviceUnavailable where the device is not
    there.
    """
    if is_worker(config):
        return _of_worker(config, config.workerinput)  # type: ignore[attr-defined]
    asked: Path | None = config.getoption("memory_out")
    resume: Path | None = config.getoption("memory_resume")
    if asked is not None and resume is not None:
        raise UsageError(
            f"{as_typed(config, 'memory_resume')} {resume} resumes the run in that directory; "
            f"leave --memory-out {asked} out"
        )

    settings = settle_settings(config, None if resume is None else settings_of(resume))
    path = resume or asked or default_run_directory(config.rootpath)
    session = RunSession(config, settings, _directory(config, path))
    if is_dry(config):
        if resume is not None:
            # so that what is listed is what would be measured
            session.run.resumed = read_resumption(resume)
        return session

    if asked is not None:
        claim_run_directory(asked)
    if resume is None:
        session.known_device = early_device(config, settings, path)
    else:
        session.run.resume(session.device)
    session.run.sides = settle_sides(config, settings, resume)
    if asked is not None:
        make_run_directory(asked)
    return session


def _of_worker(config: pytest.Config, settled: Mapping[str, str]) -> RunSession:
    """What the controller has settled, so that a bad value is reported once."""
    sides, resumed = settled["memory_sides"], settled["memory_resumed"]
    resumed_earlier = settled["memory_resumed_earlier"]
    run = _directory(config, Path(settled["memory_run_directory"]))
    run.sides = Sides.from_json(json.loads(sides)) if sides else None
    run.resumed = Resumption.from_json(resumed) if resumed else None
    run.resumed_earlier = Resumption.from_json(resumed_earlier) if resumed_earlier else None
    return RunSession(
        config, SessionSettings.from_json(json.loads(settled["memory_settings"])), run
    )


def _directory(config: pytest.Config, path: Path) -> SessionDirectory:
    command = shlex.join(["pytest", *map(str, config.invocation_params.args)])
    return SessionDirectory(path, root=config.rootpath, command=command)
