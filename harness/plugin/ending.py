"""The end of a session with markers, in the process that the user started: all points are judged
together.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, PageError, PolicyError
from harness.judge.advice import Asked, Commands
from harness.plugin import running
from harness.plugin.options import as_typed
from harness.plugin.plan import unmatched
from harness.plugin.session import RunSession
from harness.plugin.text_table import text_table
from harness.records import Point, RunEnd
from harness.run.announcing import write_row

if TYPE_CHECKING:
    from harness.judge.gate import Judgement
    from harness.judge.table import Run
    from harness.judge.verdict import Check
    from harness.remeasure import Measure, Step

MOST_ROWS = 40
"""Of the table of points on the terminal. Chosen: a screen; phases.csv in the run directory has all
of them."""


@dataclass(frozen=True, slots=True)
class Found:
    """One finding that no test has failed with."""

    subject: str
    sentence: str
    """With the kind of the finding before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """What was found when all points were there."""

    findings: tuple[Found, ...] = ()
    """Not empty means exit code 1."""
    lines: tuple[str, ...] = ()
    """What the section "memory" says of the judgement."""
    judge_again: str = ""
    """The command that judges the run by the same limits and draws its page; empty where it cannot
    be judged."""


def end_session(
    session: RunSession, *, stopped: bool, show: Callable[[str], None]
) -> SessionEnd | None:
    """Judge the run directory, measure offenders against rules over several points again, and write
    what was found.

    None where no test has a marker or takes ``memory_run``: a sweep is judged by ``python -m
    harness gate``. ``stopped``: the session was ended before its last test (-x), so that nothing
    more is to be measured.
    """
    from harness.judge.manifest import read_manifest

    try:
        settings = read_manifest(session.directory).settings
        if not settings.get("judged_by_pytest", False):
            return None
        return _judge(
            session, left_out=int(settings.get("left_out", 0)), stopped=stopped, show=show
        )
    except HarnessError as error:
        return SessionEnd(findings=(Found("run", f"the run could not be judged: {error}"),))


def _judge(
    session: RunSession, *, left_out: int, stopped: bool, show: Callable[[str], None]
) -> SessionEnd:
    from harness.pages import write_outputs
    from harness.plugin.judging import judge_session

    partial = left_out > 0
    run, judgement = judge_session(session.directory, partial=partial)
    if not stopped and _remeasure(session, run, judgement, show):
        run, judgement = judge_session(session.directory, partial=partial)
    undrawn = []
    with warnings.catch_warnings():
        # what drawing libraries deprecate is no error of the user's tests (-W error)
        warnings.simplefilter("ignore")
        try:
            write_outputs(run, judgement, page=session.had_page)
        except PageError as error:
            undrawn.append(str(error))
    strangers = [
        Found(
            pattern,
            f"incomplete: {as_typed(session.config, 'memory_points')} {pattern!r} matches "
            "no point that was measured",
        )
        for pattern in unmatched(session.patterns, run.points)
    ]
    told = [check for check in judgement.verdict.findings if _was_told(check, session)]
    findings = [check for check in judgement.verdict.findings if check not in told]
    lines = [
        *_table(run),
        *(f"overruled: {check.sentence}" for check in judgement.verdict.overruled),
    ]
    lines += undrawn
    lines += [f"parked: {name}, {why}" for name, why in run.parked.items()]
    if told:
        lines.append(
            f"{len(told)} more {'finding is' if len(told) == 1 else 'findings are'} told by "
            "the tests that failed with them"
        )
    if left_out:
        lines.append(
            f"{left_out} {'point was' if left_out == 1 else 'points were'} deselected: "
            "rules over several points were judged on those that were measured, or not at "
            "all"
        )
    if not judgement.verdict.findings:
        lines.append(judgement.verdict.sentence)
    return SessionEnd(
        findings=(
            *strangers,
            *(Found(check.subject, f"{check.finding}: {check.sentence}") for check in findings),
        ),
        lines=tuple(lines),
        judge_again=_judge_again(session, run, partial=partial),
    )


def _judge_again(session: RunSession, run: "Run", *, partial: bool) -> str:
    """What to type; where the gate would ask which of two policies is meant, with the project's
    own.
    """
    from harness.judge.policy import DEFAULT_POLICY, choose_policy

    policy = None
    try:
        choose_policy(None, run.manifest)
    except PolicyError:
        policy = DEFAULT_POLICY
    return Commands(run=Path(session.shown), asked=Asked(policy=policy, partial=partial)).gate(
        "--page"
    )


def _was_told(check: "Check", session: RunSession) -> bool:
    """Whether the test of its only point has failed with what does not hold of it."""
    points = {check.point} if check.point else set(check.points)
    return len(points) == 1 and points <= session.told


def _remeasure(
    session: RunSession, run: "Run", judgement: "Judgement", show: Callable[[str], None]
) -> bool:
    """Measure the points of findings again that may be noise, and what a resumed run still owes;
    whether there were any.
    """
    from harness.judge.remeasure import find_offenders
    from harness.plugin.judging import policy_of
    from harness.remeasure import remeasure

    found = find_offenders(run, policy_of(run), judgement.verdict)
    if found.points:
        number, names = len(found.points), ", ".join(offender.point for offender in found.points)
        show(
            f"memory: measuring {number} {'point' if number == 1 else 'points'} again, "
            f"{found.points[0].repeats} times: {names}"
        )
    for directory in session.directories[1:]:
        for offender in found.points:
            write_row(directory, offender.row())

    @contextlib.contextmanager
    def opened() -> "Iterator[Measure]":
        with running.open_runner(session) as runner:
            turns = running.turns_of(session, runner)

            def measure(point: Point, repeat: int) -> RunEnd:
                end = turns.measure(point, repeat)
                assert end is not None  # noqa: S101 - nobody has measured what was announced just now
                return end

            yield measure

    workers = int(getattr(session.config.option, "numprocesses", None) or 1)
    count = remeasure(
        session.directory,
        found,
        command=session.command,
        show=_untold,
        workers=workers,
        open_measure=opened,
    )
    if count:
        session.finish()
    return count > 0


def _untold(step: "Step") -> None:
    """The line before them says which they are."""


def _table(run: "Run") -> Iterator[str]:
    from harness.plugin.judging import POINT_COLUMNS, point_rows

    rows = list(point_rows(run))
    if rows:
        yield from text_table(POINT_COLUMNS, rows[:MOST_ROWS], words=3)
    if len(rows) > MOST_ROWS:
        yield f"... and {len(rows) - MOST_ROWS} more in {run.path}/phases.csv"
