"""The run directory of a pytest session: settled once, shared with xdist's workers, begun, and
ended.

The controller and its workers share one run directory: children append whole lines to one
rows.jsonl. Every worker has collected the same plan; the first to get there writes run.json, before
any child starts.
"""

import contextlib
import dataclasses
import json
import shlex
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import pytest

from harness.errors import RunDirectoryError, UsageError
from harness.judge.advice import measuring
from harness.plugin.options import (
    DEFAULTS,
    as_typed,
    can_be_checked,
    check_one_pool,
    choose_for,
    is_dry,
    is_worker,
    one_decides,
    pythonpath_of,
    settle_options,
)
from harness.records import RUN_FILE, TRACED_REPEAT, Point, RunEnd
from harness.run.devices import Device
from harness.run.packages import Code
from harness.run.revisions import (
    THEN_FOLDER,
    Side,
    Sides,
    checked_subjects,
    revision_side,
    working_tree,
)
from harness.run.runner import Runner, opened_runner, void_run
from harness.rundir.manifest import (
    claim_run_directory,
    default_run_directory,
    end_run,
    hold_run_directory,
    make_run_directory,
    note_resumption,
    sides_of,
    start_run,
)
from harness.rundir.rows import ends_of
from harness.rundir.seal import forget_judgement
from harness.rundir.traces import log_name

if TYPE_CHECKING:
    from harness.judge.table import RunReader
    from harness.plugin.ending import SessionEnd
    from harness.plugin.plan import Plan
    from harness.rundir.resume import Resumption


# Which two codes a session compares, and how their runs take turns.


NOW, THEN = "now", "then"


def settle_sides(config: pytest.Config, resume: Path | None) -> Sides | None:
    """The codes that the options ask to compare, unpacked; those of the run that is resumed. None
    where nothing is compared.

    Raises UsageError for a revision that there is not, and for a resumed run whose code is not what
    it was.
    """
    against, revision = config.getoption("memory_against"), config.getoption("memory_revision")
    if against is None:
        if revision is not None:
            raise UsageError(
                f"{as_typed(config, 'memory_revision')} {revision} needs a revision to be "
                "compared with; add "
                f"{as_typed(config, 'memory_revision').replace('revision', 'against')} REV"
            )
        return None
    subjects, root = checked_subjects(config.getini("memory_subject")), config.rootpath
    if resume is not None:
        return _resumed_sides(config, resume)
    now = (
        working_tree(root, subjects)
        if revision is None
        else revision_side(root, revision, subjects)
    )
    return Sides(now=now, then=revision_side(root, against, subjects))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Measures each run with the code of every side, one after the other, where two are
    compared.
    """

    runners: Mapping[str, Runner]
    """``now``, and ``then`` where there is one."""
    directories: Mapping[str, Path]
    """The run directory of each."""
    resumed: Mapping[str, "Resumption | None"]
    """What was there already of each."""

    def measure(self, point: Point, repeat: int, *, again: str = "") -> RunEnd | None:
        """Measure what is missing of one repeat of one point; with ``again``, the reason, also what
        is there.

        The end is that of ``now``; None of a traced run that was there already. Raises as the
        runners do.
        """
        ends = {
            side: self._measure(side, point, repeat, again)
            for side in order(repeat)
            if side in self.runners
        }
        return ends[NOW]

    def _measure(self, side: str, point: Point, repeat: int, again: str) -> RunEnd | None:
        there, directory, run = self.resumed[side], self.directories[side], (point.name, repeat)
        if again and repeat != TRACED_REPEAT:
            void_run(directory, *run, again)
        elif there is not None and run in there.measured:
            return next((end for end in ends_of(directory) if (end.point, end.repeat) == run), None)
        elif there is not None and run in there.void:
            void_run(directory, *run, "it was broken off, and the run was resumed")
        return self.runners[side].measure(point, repeat)


def order(repeat: int) -> tuple[str, ...]:
    """Whose turn it is: the two alternate, so that whatever drifts on the machine favours neither.
    Only ``now`` is traced.
    """
    if repeat == TRACED_REPEAT:
        return (NOW,)
    return (THEN, NOW) if repeat % 2 == 0 else (NOW, THEN)


def _resumed_sides(config: pytest.Config, resume: Path) -> Sides:
    """By commit: a branch may point elsewhere by now."""
    found = sides_of(resume)
    if "code" not in found or "against" not in found:
        raise RunDirectoryError(f"{resume} does not say which code was compared; start a new run")
    was = Sides(now=Side.from_json(found["code"]), then=Side.from_json(found["against"]))
    is_now = Sides(now=_again(config, was.now), then=_again(config, was.then))
    for before, here in ((was.now, is_now.now), (was.then, is_now.then)):
        if before != here:
            raise UsageError(
                f"{as_typed(config, 'memory_resume')} {resume}: "
                f"{before.asked or 'the working tree'} is not what it was when the run was "
                "started; bring the packages under test back to it, or start a new run"
            )
    return was


def _again(config: pytest.Config, side: Side) -> Side:
    subjects = checked_subjects(side.subjects)
    if not side.commit:
        return working_tree(config.rootpath, subjects)
    return revision_side(config.rootpath, side.commit, subjects, name=side.asked)


@dataclass(frozen=True, slots=True)
class MeasuredBefore:
    """A point that a test has measured in this process."""

    test: str
    """What tells the test from others (``Wanted.same``)."""
    nodeid: str
    execution: int
    """The how manieth execution of the test it was: other plug-ins run tests again."""
    repeats: int


@dataclass
class RunSession:
    """What one process of a session knows of its run directory."""

    config: pytest.Config
    directory: Path
    repeats_given: bool = False
    """Whether an option says how often, which then goes before what a test says."""
    resumed: "Resumption | None" = None
    """What was there already of the run that is gone on with; None for a new run."""
    sides: Sides | None = None
    """The two codes that are measured; None where it is whatever Python finds."""
    resumed_then: "Resumption | None" = None
    """As ``resumed``, of the run of the earlier code."""
    collected: Sequence[pytest.Item] = ()
    """All tests, before -k and its like choose from them."""
    mistakes: Mapping[str, Sequence[pytest.Item]] = field(default_factory=dict)
    """Why what was collected cannot be measured: sentences, each with the tests that it is
    about."""
    measured: dict[str, MeasuredBefore] = field(default_factory=dict)
    """By name of the point: what tests have measured in this process by a marker or by
    ``memory_run``."""
    reader: "RunReader | None" = None
    """What the process has read of the run directory, once it has judged a point."""
    executions: Counter[str] = field(default_factory=Counter)
    """How often each test was run in this process."""
    told: set[str] = field(default_factory=set)
    """Names of points whose tests have failed with the findings about them."""
    deselected: int = 0
    """How many tests with markers there were, where none of them was selected."""
    end: "SessionEnd | None" = None
    """What was found when all points were there; None where no test has a marker."""
    broken: str = ""
    """Why the run directory could not be written, once it could not: one sentence for the
    summary."""
    refused: str = ""
    """Why the workers measured nothing: one sentence, which is an error of usage."""
    chosen: Device | None = None
    """The device, once it is known."""
    had_page: bool = False
    """Whether the run that is gone on with had a page, so that it gets one again."""
    begun: bool = False
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """The lock of the run directory, and SIGTERM."""

    @classmethod
    def settle(cls, config: pytest.Config) -> Self:
        """The run directory and settings that the options of this session ask for.

        Raises UsageError for those that cannot be used, DeviceUnavailable where the device is not
        there.
        """
        asked: Path | None = config.getoption("memory_out")
        resume: Path | None = config.getoption("memory_resume")
        if asked is not None and resume is not None:
            raise UsageError(
                f"{as_typed(config, 'memory_resume')} {resume} goes on in that directory; "
                f"leave --memory-out {asked} out"
            )
        repeats_given = config.getoption("memory_repeats") is not None
        settle_options(config, resume)
        check_one_pool(config)
        session = cls(
            config, resume or asked or default_run_directory(config.rootpath), repeats_given
        )
        if is_dry(config):
            if resume is not None:
                from harness.rundir.resume import read_resumption

                # so that what is listed is what would be measured
                session.resumed = read_resumption(resume)
            return session
        if asked is not None:
            claim_run_directory(asked)
        if resume is not None:
            session._resume(resume)
        elif can_be_checked(config):
            session.device()
        session.sides = settle_sides(config, resume)
        if asked is not None:
            make_run_directory(asked)
        return session

    @classmethod
    def of_worker(cls, config: pytest.Config, told: Mapping[str, str]) -> Self:
        """What the controller has settled, so that a bad value is told once."""
        vars(config.option).update(json.loads(told["memory_settings"]))
        session = cls(
            config, Path(told["memory_run_directory"]), bool(told["memory_repeats_given"])
        )
        session.resumed = _resumption_from(told["memory_resumed"])
        session.resumed_then = _resumption_from(told["memory_resumed_then"])
        session.sides = (
            Sides.from_json(json.loads(told["memory_sides"])) if told["memory_sides"] else None
        )
        return session

    def for_worker(self) -> dict[str, str]:
        """What ``of_worker`` needs."""
        return {
            "memory_run_directory": str(self.directory),
            "memory_resumed": "" if self.resumed is None else self.resumed.to_json(),
            "memory_resumed_then": "" if self.resumed_then is None else self.resumed_then.to_json(),
            "memory_sides": "" if self.sides is None else json.dumps(self.sides.to_json()),
            "memory_repeats_given": "yes" if self.repeats_given else "",
            "memory_settings": json.dumps({name: self.config.getoption(name) for name in DEFAULTS}),
        }

    @property
    def shown(self) -> str:
        """The run directory as the user would type it."""
        here = self.config.invocation_params.dir
        inside = self.directory.is_absolute() and self.directory.is_relative_to(here)
        return str(self.directory.relative_to(here) if inside else self.directory)

    @property
    def then_directory(self) -> Path:
        """The run directory of the earlier code, where two are compared."""
        return self.directory / THEN_FOLDER

    @property
    def directories(self) -> tuple[Path, ...]:
        """The run directory, and that of the earlier code where two are compared."""
        return (self.directory,) if self.sides is None else (self.directory, self.then_directory)

    def lacks(self, point: str, repeat: int) -> bool:
        """Whether a run has to be measured, on either side; in a new run every one has to."""
        if self.resumed is None:
            return True
        then = self.resumed_then
        return self.resumed.lacks(point, repeat) or (then is not None and then.lacks(point, repeat))

    def is_of_run(self, test: str, point: Point | None) -> bool:
        """Whether a test with a marker belongs to the run: to a new one every test does, to a
        resumed one those it selected.
        """
        if self.resumed is None:
            return True
        # Where points were chosen by name, run.json does not say which tests would name one when
        # they run.
        return (
            point.name in self.resumed.planned
            if point is not None
            else bool(self.patterns) or test in self.resumed.asked
        )

    @property
    def was_whole(self) -> bool:
        """Whether the run that is resumed has nothing left to measure, on either side."""
        resumed = [one for one in (self.resumed, self.resumed_then) if one is not None]
        return bool(resumed) and all(len(one.measured) == one.run_count for one in resumed)

    @property
    def is_there(self) -> bool:
        """Whether a run has been planned in the directory."""
        return (self.directory / RUN_FILE).exists()

    @property
    def patterns(self) -> Sequence[str]:
        """The names of points that are wanted; empty: all."""
        return self.config.getoption("memory_points") or ()

    @property
    def repeats(self) -> int:
        """How often a point is measured whose test says nothing of it."""
        return int(self.config.getoption("memory_repeats"))

    def repeats_of(self, own: int | None) -> int:
        """How often a point is measured whose test says ``own``."""
        return self.repeats if own is None or self.repeats_given else own

    @property
    def traces(self) -> bool:
        """Whether each point is traced as well."""
        return not self.config.getoption("memory_no_trace")

    def further_of(self, point: Point) -> int:
        """How many repeats a resumed run has announced of a point because it offended."""
        return 0 if self.resumed is None else self.resumed.further.get(point.name, 0)

    def device(self) -> Device:
        """The device that the options choose, found out once. Raises UsageError or
        DeviceUnavailable.
        """
        if self.chosen is None:
            self.chosen = choose_for(self.config, self.directory)
        return self.chosen

    def log_of(self, point: Point, repeat: int) -> str:
        """The log of a run as the user would type it."""
        return f"{self.shown}/logs/{log_name(point.name, repeat)}"

    def plan(self, plan: "Plan") -> None:
        """Write run.json, or check that a resumed run's plan is still what is collected. Raises
        HarnessError.
        """
        if self.resumed is not None:
            from harness.rundir.resume import check_plan

            check_plan(self.directory, plan.collected)
            return
        with one_decides(self.config):
            self._plan(plan)

    def _plan(self, plan: "Plan") -> None:
        device = self.device()
        for point in plan.points:
            # a budget that it cannot have is told before a child is started
            device.for_point(point)
        if self.sides is None:
            self._start(self.directory, plan, traces=plan.traces, sides={})
            return
        now, then = self.sides.now.to_json(), self.sides.then.to_json()
        self._start(self.directory, plan, traces=plan.traces, sides={"code": now, "against": then})
        # What was alive at a peak is asked of the code that is judged; of the other one the amounts
        # are enough.
        self._start(self.then_directory, plan, traces=False, sides={"code": then})

    def _start(
        self, directory: Path, plan: "Plan", *, traces: bool, sides: Mapping[str, Any]
    ) -> None:
        config = self.config
        start_run(
            directory,
            points=plan.points,
            swept=plan.collected,
            policy=plan.policy,
            asked=plan.asked,
            repeats=self.repeats,
            device=self.device(),
            command=self.command,
            root=config.rootpath,
            settings={
                "host_limit_bytes": config.getoption("memory_host_budget"),
                "timeout_s": config.getoption("memory_timeout"),
                "device": config.getoption("memory_device"),
                "growth": config.getoption("memory_growth"),
                "isolation": config.getoption("memory_isolation"),
                "preload": list(config.getini("memory_preload")),
                "pythonpath": [str(folder) for folder in pythonpath_of(config)],
                "traces": traces,
                "judged_by_pytest": plan.judged,
                "left_out": plan.left_out,
                "repeats_given": self.repeats_given,
                "against": config.getoption("memory_against"),
                "revision": config.getoption("memory_revision"),
            },
            sides=sides,
        )

    def finish(self) -> None:
        """Note the end of the run, and that of the code it is compared with. Raises
        RunDirectoryError.
        """
        for directory in self.directories[::-1]:
            end_run(directory)

    def begin(self) -> None:
        """The process that the user started, once, before the first child: keep others out, and be
        ready to be stopped.
        """
        if self.begun:
            return
        self.begun = True
        if self.resumed is None:
            self.held.enter_context(hold_run_directory(self.directory))
        for directory, resumed in zip(
            self.directories, (self.resumed, self.resumed_then), strict=False
        ):
            if resumed is not None:
                self.had_page |= forget_judgement(directory) and directory == self.directory
                already = len(resumed.measured)
                note_resumption(
                    directory, command=self.command, root=self.config.rootpath, already=already
                )
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, _stop)
            self.held.callback(signal.signal, signal.SIGTERM, before)

    def _resume(self, resume: Path) -> None:
        from harness.rundir.resume import check_same_here, read_resumption, set_damage_aside

        check_same_here(resume, self.device(), self.config.rootpath)
        self.held.enter_context(hold_run_directory(resume))
        set_damage_aside(resume)
        self.resumed = read_resumption(resume)
        self.repeats_given = self.resumed.repeats_given
        if (then := resume / THEN_FOLDER).exists():
            check_same_here(then, self.device(), self.config.rootpath)
            set_damage_aside(then)
            self.resumed_then = read_resumption(then)

    @property
    def resuming(self) -> str:
        """What to type to go on with the run."""
        return measuring(self.command, resuming=self.shown)

    @property
    def command(self) -> str:
        """What the user typed."""
        return shlex.join(["pytest", *map(str, self.config.invocation_params.args)])


SESSION = pytest.StashKey[RunSession]()
"""Where the configuration of a session keeps it."""


def only_distributes(config: pytest.Config) -> bool:
    """Whether this process is the controller of a distributed session, which collects nothing
    itself.
    """
    return not is_worker(config) and bool(getattr(config.option, "numprocesses", None))


def _resumption_from(text: str) -> "Resumption | None":
    if not text:
        return None
    from harness.rundir.resume import Resumption

    return Resumption.from_json(text)


def _stop(number: int, frame: FrameType | None) -> None:
    # As after Ctrl-C: children are ended, and the summary says how to go on.
    del frame
    pytest.exit(
        f"stopped by {signal.Signals(number).name}", returncode=int(pytest.ExitCode.INTERRUPTED)
    )


# What measures the points of a session: a runner on the session's device, with the launcher that
# its options choose.


@contextmanager
def open_runner(session: RunSession) -> Iterator[Runner]:
    """A runner for the session's run directory; what it keeps running ends with the block."""
    config = session.config
    with opened_runner(
        run_directory=session.directory,
        device=session.device(),
        isolation=config.getoption("memory_isolation"),
        preload=config.getini("memory_preload"),
        further_paths=pythonpath_of(config),
        root=config.rootpath,
        workspace=config.rootpath / "artifacts" / "inputs",
        code=Code() if session.sides is None else session.sides.now.code,
        host_limit_bytes=config.getoption("memory_host_budget"),
        timeout_s=config.getoption("memory_timeout"),
    ) as runner:
        yield runner


def turns_of(session: RunSession, runner: Runner) -> Turns:
    """What measures a run with the code of the session, and in turns with that which it is compared
    with.
    """
    if session.sides is None:
        return Turns(
            runners={NOW: runner},
            directories={NOW: session.directory},
            resumed={NOW: session.resumed},
        )
    then = dataclasses.replace(
        runner, run_directory=session.then_directory, code=session.sides.then.code
    )
    return Turns(
        runners={NOW: runner, THEN: then},
        directories={NOW: session.directory, THEN: session.then_directory},
        resumed={NOW: session.resumed, THEN: session.resumed_then},
    )
