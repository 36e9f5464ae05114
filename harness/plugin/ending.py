"""The end of a session with markers, in the process that the user started: all points are judged
together.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import HarnessError, PageError, PolicyError
from harness.judge.advice import Asked, Commands
from harness.plugin import session as running
from harness.plugin.options import as_typed
from harness.plugin.plan import unmatched
from harness.plugin.session import RunSession
from harness.records import Point, passed_over_in_words
from harness.run.revisions import THEN_FOLDER
from harness.rundir.manifest import has_ended, left_out, passed_over, plans_anything, sides_of
from harness.rundir.rows import RunEnd, ends_of, write_row
from harness.rundir.traces import traces_in_words
from harness.words import text_table

if TYPE_CHECKING:
    from harness.judge.gate import Judgement
    from harness.judge.table import Run
    from harness.judge.verdict import Check
    from harness.remeasure import Measure, Step
    from harness.rundir.resume import Resumption


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
    from harness.rundir.manifest import read_manifest

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
    from harness.plugin.judging import policy_of
    from harness.remeasure import find_offenders, remeasure

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


# Findings over several points as failed tests of junit.xml: they belong to no single test of the
# session.


_WRITER = "LogXML"
"""pytest's plug-in that writes junit.xml (_pytest.junitxml); it has no public name, but its hooks
are those of all plug-ins."""


def tell_junit(config: pytest.Config, findings: Iterable[Found]) -> None:
    """Add a failed test ``memory / SUBJECT`` for each finding, before the file is written; nothing
    where none is written.

    Findings that a test has failed with are in its own entry: its message, and its properties
    ``memory_finding``.
    """
    for writer in config.pluginmanager.get_plugins():
        if type(writer).__name__ == _WRITER:
            for found in findings:
                for report in _reports(found):
                    writer.pytest_runtest_logreport(report)


def _reports(found: Found) -> Iterable[pytest.TestReport]:
    """The three reports that a test has."""
    for when in ("setup", "call", "teardown"):
        yield pytest.TestReport(
            nodeid=f"memory::{found.subject}",
            location=("memory", None, found.subject),
            keywords={},
            outcome="failed" if when == "call" else "passed",
            longrepr=found.sentence if when == "call" else None,
            when=when,
        )


# What the end of a session says of its run directory.


def summary(
    directory: Path,
    shown: str,
    *,
    broken: str,
    resumed: "Resumption | None",
    end: "SessionEnd | None",
    resuming: str,
) -> Iterator[str]:
    """What was measured, where it is (``shown``), how to go on where it was broken off
    (``resuming``), and how to judge it.

    Raises RunDirectoryError or OSError where the directory cannot be read.
    """
    ends = ends_of(directory)
    if end is None and not ends and not plans_anything(directory):
        yield (
            f"0 runs were selected, and {shown} holds an empty plan; --collect-only lists the "
            "points"
        )
        return
    outcomes = Counter(str(end.outcome) for end in ends)
    counted = (
        ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())) or "none"
    )
    yield f"{len(ends)} {'run' if len(ends) == 1 else 'runs'} measured ({counted}) in {shown}"
    if why := passed_over(directory):
        yield passed_over_in_words(why)
    for reason, number in Counter(reason for end in ends for reason in end.left_out).items():
        yield f"{number} {'run' if number == 1 else 'runs'} went to another card, because {reason}"
    if (then := directory / THEN_FOLDER).exists():
        other = sides_of(directory)["against"]
        empty = (
            f"; left empty there, as git leaves submodules: {', '.join(other['left_empty'])}"
            if other.get("left_empty")
            else ""
        )
        yield (
            f"{len(ends_of(then))} runs of {other['asked']} beside them in "
            f"{shown}/{THEN_FOLDER}{empty}"
        )
    yield from traces_in_words(directory)
    if resumed is not None:
        yield f"{len(resumed.measured)} of {resumed.run_count} runs were there already"
    if broken or not has_ended(directory):
        why = f"broken off ({broken})" if broken else "broken off"
        yield f"{why}; nothing finished is lost, go on with:  {resuming}"
    if end is None:
        # Less was selected on purpose, which the gate would have to be told.
        yield (
            "judge them:  "
            f"{Commands(run=Path(shown), asked=Asked(partial=left_out(directory) > 0)).gate()}"
        )
        return
    yield from end.lines
    if end.findings:
        number = len(end.findings)
        yield f"{number} {'finding' if number == 1 else 'findings'}, so that this session fails:"
    yield from (found.sentence for found in end.findings)
    if end.judge_again:
        yield f"judge them again, or see the page:  {end.judge_again}"
