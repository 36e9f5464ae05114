"""Who measures the points of a session: a runner on its device, and two that take turns where two
codes are compared.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.plugin.options import pythonpath_of
from harness.plugin.session import RunSession
from harness.records import TRACED_REPEAT, Point
from harness.run.revisions import Code
from harness.run.runner import ChildSettings, Runner, opened_runner
from harness.rundir.resume import Resumption
from harness.rundir.rows import RunEnd, discard_run, ends_of

CURRENT, EARLIER = "current", "earlier"


@contextlib.contextmanager
def open_runner(session: RunSession) -> Iterator[Runner]:
    """A runner for the session's run directory; what it keeps running ends with the block."""
    config, settings, sides = session.config, session.settings, session.run.sides
    with opened_runner(
        run_directory=session.directory,
        device=session.device,
        children=ChildSettings(
            further_paths=tuple(pythonpath_of(config)),
            root=config.rootpath,
            workspace=config.rootpath / "artifacts" / "inputs",
            code=Code() if sides is None else sides.now.code,
            host_limit_bytes=settings.host_budget,
            timeout_s=settings.timeout,
        ),
        isolation=settings.isolation,
        preload=config.getini("memory_preload"),
    ) as runner:
        yield runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Measures each run with the code of every side, one after the other, where two are
    compared.
    """

    runners: Mapping[str, Runner]
    """``CURRENT``, and ``EARLIER`` where there is one."""
    directories: Mapping[str, Path]
    """The run directory of each."""
    resumed: Mapping[str, Resumption | None]
    """What each already holds, where the run is resumed."""

    def measure(self, point: Point, repeat: int, *, again: str = "") -> RunEnd | None:
        """Measure what is missing of one repeat of one point; with ``again``, the reason, also what
        is there.

        Return the end of the current code's run; None of a traced run that was there already.
        Raises as the runners do.
        """
        ends = {
            side: self._measure(side, point, repeat, again)
            for side in order(repeat)
            if side in self.runners
        }
        return ends[CURRENT]

    def _measure(self, side: str, point: Point, repeat: int, again: str) -> RunEnd | None:
        resumed, directory, run = self.resumed[side], self.directories[side], (point.name, repeat)
        if again and repeat != TRACED_REPEAT:
            discard_run(directory, *run, again)
        elif resumed is not None and run in resumed.measured:
            return next((end for end in ends_of(directory) if (end.point, end.repeat) == run), None)
        elif resumed is not None and run in resumed.void:
            discard_run(directory, *run, "it was broken off, and the run was resumed")
        return self.runners[side].measure(point, repeat)


def order(repeat: int) -> tuple[str, ...]:
    """The sides in the order of their turns: they alternate, so that what drifts on the machine
    favours neither. Only the current code is traced.
    """
    if repeat == TRACED_REPEAT:
        return (CURRENT,)
    return (EARLIER, CURRENT) if repeat % 2 == 0 else (CURRENT, EARLIER)


def turns_of(session: RunSession, runner: Runner) -> Turns:
    """What measures a run with the code of the session, in turns with the code that it is compared
    with.
    """
    run = session.run
    if run.sides is None:
        return Turns(
            runners={CURRENT: runner},
            directories={CURRENT: run.path},
            resumed={CURRENT: run.resumed},
        )
    earlier = runner.with_code(run.sides.then.code, run.earlier)
    return Turns(
        runners={CURRENT: runner, EARLIER: earlier},
        directories={CURRENT: run.path, EARLIER: run.earlier},
        resumed={CURRENT: run.resumed, EARLIER: run.resumed_earlier},
    )
