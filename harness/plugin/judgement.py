"""What is said of a session: by the judge of one point inside its test and of all of them at the
end, then by the terminal and junit.xml, in the process that the user started. Loads pandas.
"""

import contextlib
import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.errors import HarnessError, PageError, PolicyError
from harness.judge import Check, Verdict
from harness.judge.advice import Asked, Commands
from harness.judge.baseline import load_against
from harness.judge.gate import Judgement, judge
from harness.judge.limits import Remeasure
from harness.judge.policy import DEFAULT_POLICY, SCHEMA_VERSION, Policy, choose_policy, parse_policy
from harness.judge.rules import rule_of
from harness.judge.table import Run, load_run
from harness.meters import DEVICE_IN_USE
from harness.plugin import turns
from harness.plugin.limits import REMEASURE
from harness.plugin.options import as_typed, worker_count
from harness.plugin.plan import unmatched
from harness.plugin.session import RunSession, SessionEnd, SessionFinding
from harness.records import THEN_FOLDER, Point, passed_over_in_words
from harness.remeasure import Measure, Offender, find_offenders, remeasure
from harness.rundir.manifest import (
    has_ended,
    left_out,
    passed_over,
    plans_anything,
    read_manifest,
    sides_of,
)
from harness.rundir.rows import RunEnd, ends_of, write_row
from harness.rundir.traces import traces_in_words
from harness.words import count, format_bytes, shortened, text_table

# Judging: by what the markers promise, one point or all of them.

NO_BASELINES = Path("/nonexistent")
"""Markers promise limits; a baseline is for the command line (python -m harness gate)."""
MARKERS = "the markers"
"""What messages call the policy that the markers make."""


def policy_of(run: Run) -> Policy:
    """What the markers of the session's tests promise, as run.json has it; an empty policy where
    they promise nothing.
    """
    if run.manifest.policy is None:
        empty = Policy(schema_version=SCHEMA_VERSION, remeasure=Remeasure(**REMEASURE))
        return empty.called(MARKERS)
    return parse_policy(run.manifest.policy, MARKERS)


def judge_point(session: RunSession, point: Point) -> tuple[list[Check], Offender | None]:
    """What does not hold of one point, while others are still to come; and how to measure it again,
    where that could settle it.
    """
    # the test itself has to fail, so that pytest can say that this was expected
    run = dataclasses.replace(session.reader.point(point.name), parked={})
    if session.known_policy is None:
        session.known_policy = policy_of(run)
    policy = session.known_policy
    asked = Asked(partial=True, by_pytest=True)
    verdict = judge(run, policy, NO_BASELINES, partial=True, asked=asked).verdict
    findings = [
        check
        for check in verdict.findings
        # Rules over several points cannot be judged before all of them are there.
        if not rule_of(check.rule).over_points and (check.point == point.name or check.meter)
    ]
    found = find_offenders(run, policy, Verdict(tuple(findings)))
    return findings, next(iter(found.points), None)


def judge_session(directory: Path, *, partial: bool) -> tuple[Run, Judgement]:
    """The complete run directory, by what the markers promise. ``partial``: the user has left
    points out on purpose.
    """
    run = load_run(directory)
    asked = Asked(partial=partial, by_pytest=True)
    against = load_against(run, None)
    return run, judge(
        run, policy_of(run), NO_BASELINES, partial=partial, against=against, asked=asked
    )


# The end of a session with markers: judge, measure offenders again, judge anew, write, and say what
# was found.


def end_session(
    session: RunSession, *, stopped: bool, show: Callable[[str], None], doing: Callable[[str], None]
) -> SessionEnd:
    """Judge the run directory, measure offenders against rules over several points again, and write
    what was found.

    ``stopped``: the session was ended before its last test (-x), so that nothing more is to be
    measured. ``show`` prints a line at once; ``doing`` says what takes its time, until something
    else does or it is empty.
    """
    try:
        return _end(session, stopped=stopped, show=show, doing=doing)
    except HarnessError as error:
        sentence = f"the run could not be judged: {error}"
        return SessionEnd(findings=(SessionFinding("run", sentence),))


def _end(
    session: RunSession, *, stopped: bool, show: Callable[[str], None], doing: Callable[[str], None]
) -> SessionEnd:
    deselected = int(read_manifest(session.directory).settings.get("left_out", 0))
    partial = deselected > 0
    doing("judging what was measured")
    run, judgement = judge_session(session.directory, partial=partial)
    doing("")
    if not stopped and _remeasure(session, run, judgement, show):
        doing("judging all that was measured")
        run, judgement = judge_session(session.directory, partial=partial)
    doing("drawing the page" if session.run.had_page else "writing what was found")
    undrawn = _write(run, judgement, page=session.run.had_page)

    reported = [check for check in judgement.verdict.findings if _was_reported(check, session)]
    findings = (
        SessionFinding(check.subject, f"{check.finding}: {check.sentence}")
        for check in judgement.verdict.findings
        if check not in reported
    )
    unmatched = tuple(_unmatched(session, run))
    return SessionEnd(
        findings=(*unmatched, *findings),
        lines=(
            *_verdict_lines(session, run, judgement),
            *((finding.sentence, "red") for finding in unmatched),
            *((line, "") for line in (*undrawn, *_left_unsaid(run, deselected))),
        ),
        judge_again=_judge_again(session, run, partial=partial),
    )


def _verdict_lines(
    session: RunSession, run: Run, judgement: Judgement
) -> Iterator[tuple[str, str]]:
    """The verdict, the table and the causes, as ``gate`` prints them; with -v all points too."""
    from harness.commands import verdict_lines

    verbosity = session.config.get_verbosity()
    yield from verdict_lines(run, judgement, verbose=verbosity > 0)
    if verbosity > 0:
        yield from ((line, "") for line in _table(run))


def _remeasure(
    session: RunSession, run: Run, judgement: Judgement, show: Callable[[str], None]
) -> bool:
    """Measure the points of findings again that may be noise, and what a resumed run still lacks;
    whether there were any.
    """
    found = find_offenders(run, policy_of(run), judgement.verdict)
    if found.points:
        names = ", ".join(offender.point for offender in found.points)
        show(
            f"memory: measuring {count(len(found.points), 'point')} again, "
            f"{found.points[0].repeats} times: {names}"
        )
    for directory in session.run.paths[1:]:
        for offender in found.points:
            write_row(directory, offender.row())

    run_count = remeasure(
        session.directory,
        found,
        command=session.run.command,
        workers=worker_count(session.config) or 1,
        open_measure=lambda: _measure_with(session),
    )
    if run_count:
        session.run.finish()
    return run_count > 0


@contextlib.contextmanager
def _measure_with(session: RunSession) -> Iterator[Measure]:
    with turns.open_runner(session) as runner:
        in_turns = turns.turns_of(session, runner)

        def measure(point: Point, repeat: int) -> RunEnd:
            end = in_turns.measure(point, repeat)
            assert end is not None  # noqa: S101 - nobody has measured what was announced just now
            return end

        yield measure


def _write(run: Run, judgement: Judgement, *, page: bool) -> list[str]:
    """Write the files of the judgement; a sentence where the page could not be drawn."""
    from harness.commands import write_outputs  # what draws is loaded where a page may be drawn

    with warnings.catch_warnings():
        # what drawing libraries deprecate is no error of the user's tests (-W error)
        warnings.simplefilter("ignore")
        try:
            write_outputs(run, judgement, page=page)
        except PageError as error:
            return [str(error)]
    return []


def _was_reported(check: Check, session: RunSession) -> bool:
    """Whether the test of its only point has failed with what does not hold of it."""
    points = {check.point} if check.point else set(check.points)
    return len(points) == 1 and points <= session.ledger.reported


def _unmatched(session: RunSession, run: Run) -> Iterator[SessionFinding]:
    option = as_typed(session.config, "memory_points")
    for pattern in unmatched(session.settings.points, run.points):
        sentence = f"incomplete: {option} {pattern!r} matches no point that was measured"
        yield SessionFinding(pattern, sentence)


def _left_unsaid(run: Run, deselected: int) -> Iterator[str]:
    yield from (f"parked: {name}, {why}" for name, why in run.parked.items())
    if deselected:
        yield (
            f"{count(deselected, 'point was', 'points were')} deselected: "
            "rules over several points were judged on those that were measured, or not at all"
        )


def _judge_again(session: RunSession, run: Run, *, partial: bool) -> str:
    """What to type; where the gate would ask which of two policies is meant, with the project's
    own.
    """
    policy = None
    try:
        choose_policy(None, run.manifest)
    except PolicyError:
        policy = DEFAULT_POLICY
    commands = Commands(run=Path(session.shown), asked=Asked(policy=policy, partial=partial))
    return commands.gate("--page")


# The table of points on the terminal.

MOST_ROWS = 40
"""Of the table. Chosen: a screen; phases.csv in the run directory has all of them."""
MOST_NAME_BYTES = 80
"""Of a point in the table. Chosen: with the amounts beside it, a wide terminal."""
POINT_COLUMNS = ("point", "phase", "meter", "growth", "spread", "start", "peak", "end")


def _table(run: Run) -> Iterator[str]:
    rows = list(point_rows(run))
    if rows:
        yield from text_table(POINT_COLUMNS, rows[:MOST_ROWS], words=3)
    if len(rows) > MOST_ROWS:
        yield f"... and {len(rows) - MOST_ROWS} more in {run.path}/phases.csv"


def point_rows(run: Run) -> Iterator[Sequence[str]]:
    """The least of the repeats for every point, phase and meter that some rule is about, and of the
    device in any case.
    """
    policy = policy_of(run)
    meters = {DEVICE_IN_USE, *(meter for _, rule in policy.rules() for meter in rule.meters)}
    readable = run.phases[
        run.phases["meter"].isin(sorted(meters)) & run.phases["growth_bytes"].notna()
    ]
    for (point, phase, meter), own in readable.groupby(["point", "phase", "meter"], sort=False):
        spread = int(own["growth_bytes"].max() - own["growth_bytes"].min())
        least = [int(own[f"{field}_bytes"].min()) for field in ("growth", "start", "peak", "end")]
        yield (
            shortened(str(point), MOST_NAME_BYTES),
            str(phase),
            str(meter),
            *(format_bytes(amount) for amount in (least[0], spread, *least[1:])),
        )


# What the end of a session says of its run directory.


def summary(session: RunSession) -> Iterator[tuple[str, str]]:
    """What was measured, where it is, how to go on where it was broken off, and how to judge it:
    each line with its colour, which may be none.

    Raises RunDirectoryError or OSError where the directory cannot be read.
    """
    directory, shown, end = session.directory, session.shown, session.ledger.end
    ends = ends_of(directory)
    if end is None and not ends and not plans_anything(directory):
        yield (
            (
                f"0 runs were selected, and {shown} holds an empty plan; --collect-only lists the "
                "points"
            ),
            "",
        )
        return
    for line in (*_measured_in_words(session, ends), *traces_in_words(directory)):
        yield line, ""
    if (resumed := session.run.resumed) is not None:
        yield f"{len(resumed.measured)} of {resumed.run_count} runs were there already", ""
    if (broken := session.ledger.broken) or not has_ended(directory):
        why = f"broken off ({broken})" if broken else "broken off"
        yield f"{why}; nothing finished is lost, go on with:  {session.resume_command}", "yellow"
    yield from _judged_in_words(session)


def _measured_in_words(session: RunSession, ends: Sequence[RunEnd]) -> Iterator[str]:
    outcomes = Counter(str(end.outcome) for end in ends)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    yield f"{count(len(ends), 'run')} measured ({counted or 'none'}) in {session.shown}"
    if why := passed_over(session.directory):
        yield passed_over_in_words(why)
    for reason, number in Counter(reason for end in ends for reason in end.left_out).items():
        yield f"{count(number, 'run')} went to another card, because {reason}"

    if (earlier := session.run.earlier).exists():
        other = sides_of(session.directory)["against"]
        empty = (
            f"; left empty there, as git leaves submodules: {', '.join(other['left_empty'])}"
            if other.get("left_empty")
            else ""
        )
        yield (
            f"{len(ends_of(earlier))} runs of {other['asked']} beside them in "
            f"{session.shown}/{THEN_FOLDER}{empty}"
        )


def _judged_in_words(session: RunSession) -> Iterator[tuple[str, str]]:
    end = session.ledger.end
    if end is None:
        if not session.config.getoption("memory_no_table") and session.config.get_verbosity() >= 0:
            yield from _measured_table(session)
        # Where less was selected on purpose, the gate has to know it.
        asked = Asked(partial=left_out(session.directory) > 0)
        yield f"judge them:  {Commands(run=Path(session.shown), asked=asked).gate()}", ""
        return
    yield from end.lines
    if end.findings:
        yield f"this session fails because of {_told_by_no_test(len(end.findings))}", "red"
    if end.judge_again:
        yield f"judge them again, or see the page:  {end.judge_again}", ""


def _told_by_no_test(number: int) -> str:
    return count(number, "finding that no test has", "findings that no test has") + " failed with"


def _measured_table(session: RunSession) -> Iterator[tuple[str, str]]:
    """What a sweep has measured, which the gate judges later; nothing where it cannot be read."""
    from harness.commands import measured_lines

    with contextlib.suppress(HarnessError):
        yield from measured_lines(load_run(session.directory))


# Findings over several points as failed tests of junit.xml: they belong to no single test of the
# session.

_WRITER = "LogXML"
"""pytest's plug-in that writes junit.xml (_pytest.junitxml); it has no public name, but its hooks
are those of all plug-ins."""


def add_to_junit(config: pytest.Config, findings: Iterable[SessionFinding]) -> None:
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


def _reports(found: SessionFinding) -> Iterator[pytest.TestReport]:
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
