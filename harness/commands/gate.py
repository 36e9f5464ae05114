"""The command ``gate``: judge a run directory, measure again what may be noise where that is asked
for, and print the verdict.
"""

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.commands import (
    GATE_CODES,
    add_against,
    add_history,
    add_output,
    add_partial,
    add_run,
    doing,
    earlier_runs,
    explain,
    hanging,
    print_verdict,
    showing_progress,
    to_stderr,
    worker_count,
    write_outputs,
)
from harness.errors import PageError, UsageError
from harness.judge import FINDINGS, ExitCode
from harness.judge.advice import Commands
from harness.judge.gate import Judgement
from harness.judge.policy import Policy
from harness.judge.rules import RULES
from harness.judge.table import Run
from harness.judged_run import Gate
from harness.records import THEN_FOLDER
from harness.remeasure import (
    Offenders,
    OnRun,
    RemeasuredRun,
    find_offenders,
    remeasure,
    was_broken_off,
)
from harness.rundir.manifest import hold_run_directory
from harness.system import REPORT_FILE
from harness.words import count

DEFAULT_WORKERS = 2
"""Chosen: as many as the sweeps of the README take."""
LINE_EVERY_S = 30.0
"""Chosen: where lines stay, as in the log of a CI job, a few for some minutes of measuring."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the help ends with the rules and the kinds of findings."""
    explain(
        parser,
        "Judge a run directory: hold what was measured against the policy's limits and the "
        "accepted baseline, or beside the other code. Print the verdict, a table of what every "
        "loader takes and a paragraph for each cause; write findings.json, summary.md, junit.xml "
        "and the tables.",
        examples=("RUN", "RUN --page --remeasure", "RUN --partial --json"),
        exit_codes=GATE_CODES,
        more=_epilog(),
    )
    add_run(parser)
    add_partial(parser)
    add_against(parser)
    add_output(parser)
    add_history(parser)
    parser.add_argument(
        "--page",
        action="store_true",
        help="also write report.html and plots/; an existing page is always written anew",
    )
    parser.add_argument(
        "--remeasure",
        action="store_true",
        help="measure the points of findings that may be noise again, as often as the policy "
        "says; the majority of all runs decides. Needs the machine, device and code that the run "
        "was measured with",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=worker_count,
        help=f"with --remeasure: how many children measure at a time (default: {DEFAULT_WORKERS})",
    )


def _epilog() -> Iterator[str]:
    yield ""
    yield "rules:"
    for rule in RULES:
        yield from hanging(f"  {rule.name:<14}", rule.meaning)
    yield ""
    yield "findings, the gravest first, with their exit codes:"
    for kind, row in FINDINGS.items():
        yield from hanging(f"  {kind:<14}{int(row.exit_code)}  ", row.meaning)


def run(options: argparse.Namespace) -> int:
    """Judge, write every file of the judgement, print it; the exit code of the verdict."""
    if options.workers is not None and not options.remeasure:
        raise UsageError(
            f"--workers {options.workers} is for measuring again; give it together with --remeasure"
        )
    before = earlier_runs(options)
    gate = gate_of(options)
    if not options.remeasure:
        with doing(f"judging {gate.directory}"):
            measured, _, judgement = gate.judge()
        _write(measured, judgement, options, page=options.page, before=before)
        return int(judgement.verdict.exit_code)

    had_page = (gate.directory / REPORT_FILE).exists()
    try:
        measured, judgement = judge_and_remeasure(
            gate,
            workers=options.workers or DEFAULT_WORKERS,
            command=_typed_command(),
            to_stderr=to_stderr,
        )
    except KeyboardInterrupt:
        again = Commands(run=gate.directory, asked=gate.asked).gate(
            "--remeasure", *(["--page"] if options.page else [])
        )
        to_stderr(
            f"stopped while {gate.directory} was measured again; nothing that had ended "
            f"is lost, go on with: {again}"
        )
        return ExitCode.INCOMPLETE
    _write(measured, judgement, options, page=options.page or had_page, before=before)
    return int(judgement.verdict.exit_code)


def gate_of(options: argparse.Namespace) -> Gate:
    """What the arguments ask for. Raises UsageError where a folder that they name is none."""
    return Gate.of(
        options.run,
        policy=options.policy,
        baselines=options.baselines,
        against=options.against,
        partial=options.partial,
    )


def judge_and_remeasure(
    gate: Gate, *, workers: int, command: str, to_stderr: Callable[[str], None]
) -> tuple[Run, Judgement]:
    """Judge, measure the points of findings again that may be noise, and judge once more with all
    that was measured.

    What was judged before is removed as soon as more is measured. Raises as ``Gate.judge`` and
    ``harness.remeasure.remeasure`` do, and KeyboardInterrupt when it is interrupted; nothing that
    was measured is lost then.
    """
    with doing(f"judging {gate.directory}"):
        run, policy, judgement = gate.judge()
    with hold_run_directory(gate.directory):
        if any(was_broken_off(directory) for directory in gate.measured):
            # what was announced comes first: the verdict on half of it would announce still more
            nothing_new = Offenders(points=())
            _remeasure_all(gate, nothing_new, workers=workers, command=command, lines=to_stderr)
            run, policy, judgement = gate.judge()

        offenders = find_offenders(run, policy, judgement.verdict)
        for line in _not_remeasured(policy, judgement, offenders):
            to_stderr(line)
        run_count = _remeasure_all(
            gate, offenders, workers=workers, command=command, lines=to_stderr
        )

    if run_count:
        with doing(f"judging {gate.directory} with all that was measured"):
            run, _, judgement = gate.judge()
    return run, judgement


def _remeasure_all(
    gate: Gate,
    offenders: Offenders,
    *,
    workers: int,
    command: str,
    lines: Callable[[str], None],
) -> int:
    """Measure again in every run directory of the judgement; how many runs that were."""
    run_count = 0
    for directory in gate.measured:
        with _progress(directory, lines) as on_run:
            run_count += remeasure(
                directory, offenders, command=command, on_run=on_run, workers=workers
            )
    return run_count


def _not_remeasured(policy: Policy, judgement: Judgement, offenders: Offenders) -> Iterator[str]:
    """Why findings stand without being measured again, where some do."""
    if policy.remeasure is None and judgement.verdict.findings:
        where = policy.source if policy.promises else "the policy, since there is none"
        yield (
            f"there is no [remeasure] in {where}, to say how often: nothing is measured "
            "again, every finding stands"
        )
    if offenders.left:
        findings = count(len(offenders.left), "finding is", "findings are")
        yield (
            f"{findings} not measured again, because that would take longer than the run itself "
            f"has taken, and stand as they are; the first is {offenders.left[0].subject}"
        )


def _write(
    run: Run,
    judgement: Judgement,
    options: argparse.Namespace,
    *,
    page: bool,
    before: Sequence[Path],
) -> None:
    """Write every file of a judgement, and print it; ``before`` are folders of earlier runs."""
    try:
        with doing(f"{'drawing' if page else 'writing'} what was found in {run.path}"):
            written = write_outputs(run, judgement, page=page, earlier_runs=before)
        about_page = "" if written is None else f"report: {written}"
    except PageError as error:
        about_page = f"{error}; the verdict and all other files of it stand"
    print_verdict(run, judgement, options, about_page)


def _typed_command() -> str:
    return shlex.join(["python", "-m", "harness", *sys.argv[1:]])


@contextlib.contextmanager
def _progress(directory: Path, lines: Callable[[str], None]) -> Iterator[OnRun]:
    """Shows how far it has come: on a terminal as it goes on, elsewhere in a line now and then."""
    side = " with the earlier code" if directory.name == THEN_FOLDER else ""
    if sys.stderr.isatty():
        with showing_progress([directory], f"measuring again{side}"):
            yield _show_nothing
        return
    yield _Lines(lines, side)


def _show_nothing(run: RemeasuredRun) -> None:
    """Where the terminal shows it already."""


class _Lines:
    """A line about the first run that has ended, about the last, and now and then between them."""

    def __init__(
        self,
        lines: Callable[[str], None],
        side: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines, self._side, self._clock = lines, side, clock
        self._told_s: float | None = None

    def __call__(self, run: RemeasuredRun) -> None:
        now_s = self._clock()
        is_due = self._told_s is None or now_s - self._told_s >= LINE_EVERY_S
        if is_due or run.done == run.total:
            self._told_s = now_s
            self._lines(
                f"measured again{self._side} {run.done} of {run.total}: {run.point}, repeat "
                f"{run.repeat}: {run.outcome}"
            )
