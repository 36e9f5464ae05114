"""The command ``gate``: judge a run directory, measure again what may be noise where that is asked
for, and say it all.
"""

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import PageError
from harness.judge.advice import DEFAULT_BASELINES, Asked, Commands
from harness.judge.comparison import THEN_FOLDER, load_against
from harness.judge.findings_file import kept_judgement
from harness.judge.gate import Judgement, judge
from harness.judge.policy import Policy, choose_policy
from harness.judge.table import Run, load_run
from harness.judge.verdict import ExitCode
from harness.records import RUN_FILE
from harness.remeasure import Offenders, find_offenders
from harness.system.files import REPORT_FILE
from harness.words import existing_folder

if TYPE_CHECKING:
    from harness.remeasure import Show, Step

Tell = Callable[[str], None]
"""Shows one line to whoever has asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How a run directory is to be judged."""

    directory: Path
    asked: Asked = field(default_factory=Asked)
    """By which policy, and compared with what; None as the other run: the one beside this one, or
    else a baseline."""

    def judge(self) -> tuple[Run, Policy, Judgement]:
        """Read the directory and apply every rule. Raises HarnessError where run, policy or
        baseline cannot be used.
        """
        run, asked = load_run(self.directory), self.asked
        policy = choose_policy(asked.policy, run.manifest)
        against = load_against(run, asked.against)
        return (
            run,
            policy,
            judge(
                run, policy, asked.baselines, partial=asked.partial, against=against, asked=asked
            ),
        )

    @property
    def measured(self) -> tuple[Path, ...]:
        """The run directories that measuring again has to add to: where two codes are compared,
        both.
        """
        beside = self.directory / THEN_FOLDER
        compared = self.asked.against is None and (beside / RUN_FILE).exists()
        return (self.directory, beside) if compared else (self.directory,)


def judge_and_remeasure(
    gate: Gate, *, workers: int, command: str, say: Tell
) -> tuple[Run, Judgement, bool]:
    """Judge, measure the points of findings again that may be noise, and judge once more with all
    that was measured.

    What was judged before is removed as soon as more is measured; the last of the results tells
    whether a page was among it. Raises as ``Gate.judge`` and ``harness.remeasure.remeasure`` do;
    KeyboardInterrupt when it is interrupted, and then nothing that was measured is lost.
    """
    # starts children, which no other command does
    from harness.remeasure import remeasure, was_broken_off
    from harness.rundir.manifest import hold_run_directory

    run, policy, judgement = gate.judge()
    had_page = (gate.directory / REPORT_FILE).exists()
    with hold_run_directory(gate.directory):
        if any(was_broken_off(directory) for directory in gate.measured):
            # First what is owed already: the verdict on half of it would announce still more.
            for directory in gate.measured:
                with _progress(directory, say) as show:
                    remeasure(
                        directory, Offenders(points=()), command=command, show=show, workers=workers
                    )
            run, policy, judgement = gate.judge()
        found = find_offenders(run, policy, judgement.verdict)
        if policy.remeasure is None and judgement.verdict.findings:
            where = policy.source if policy.promises else "the policy, since there is none"
            say(
                f"there is no [remeasure] in {where}, to say how often: nothing is measured "
                "again, every finding stands"
            )
        if found.left:
            say(
                f"{len(found.left)} findings are not measured again, because that would "
                "take longer than the run itself has taken: they stand as they are; the "
                f"first is {found.left[0].subject}"
            )
        count = 0
        for directory in gate.measured:
            with _progress(directory, say) as show:
                count += remeasure(directory, found, command=command, show=show, workers=workers)
    if count:
        run, policy, judgement = gate.judge()
    return run, judgement, had_page


def run_gate(gate: Gate, *, workers: int | None, page: bool, tell: Tell, say: Tell) -> int:
    """Judge, write every file of the judgement, ``tell`` what it says, and give the exit code.

    ``workers`` None measures nothing again; ``say`` is told of the progress.
    """
    had_page = False
    if workers is None:
        run, _, judgement = gate.judge()
    else:
        try:
            run, judgement, had_page = judge_and_remeasure(
                gate, workers=workers, command=_typed(), say=say
            )
        except KeyboardInterrupt:
            again = Commands(run=gate.directory, asked=gate.asked).gate(
                "--remeasure", *(["--page"] if page else [])
            )
            say(
                f"stopped while {gate.directory} was measured again; nothing that had ended "
                f"is lost, go on with: {again}"
            )
            return ExitCode.INCOMPLETE
    tell_judgement(run, judgement, page=page or had_page, tell=tell)
    return int(judgement.verdict.exit_code)


def tell_judgement(run: Run, judgement: Judgement, *, page: bool, tell: Tell) -> None:
    """Write every file of a judgement, and ``tell`` what it says."""
    from harness.pages import write_outputs

    try:
        written = write_outputs(run, judgement, page=page)
        shown = None if written is None else f"report: {written}"
    except PageError as error:
        shown = f"{error}; the verdict and all other files of it stand"
    verdict = judgement.verdict
    tell(verdict.sentence)
    for finding in verdict.findings:
        tell(f"  {finding.finding}: {finding.sentence}")
    for check in verdict.overruled:
        tell(f"  overruled: {check.sentence}")
    for check in verdict.better:
        tell(f"  better: {check.sentence}")
    if verdict.without_limits:
        tell(verdict.without_limits)
    elif judgement.asked.policy is None:
        tell(f"judged by {judgement.policy}")
    if judgement.against:
        tell(judgement.against)
    if shown is not None:
        tell(shown)


def write_page(gate: Gate, *, anew: bool, tell: Tell, say: Tell) -> None:
    """Write the page of the judgement that lies in the run directory; ``anew``, or where none can
    be used, judge first.

    ``say`` is told why it was judged anew; the arguments are then those of ``gate``, or those of
    the judgement that was there.
    """
    from harness.pages import write_outputs

    if anew:
        run, _, judgement = gate.judge()
    else:
        run = load_run(gate.directory)
        kept = kept_judgement(run)
        if kept.judgement is None:
            say(f"judged anew, because {kept.why_not}")
            if kept.asked.baselines != DEFAULT_BASELINES:
                existing_folder(kept.asked.baselines, "--baselines")
            run, _, judgement = dataclasses.replace(
                gate, asked=dataclasses.replace(kept.asked, by_pytest=False)
            ).judge()
        else:
            judgement = kept.judgement
    page = write_outputs(run, judgement, page=True)
    tell(judgement.verdict.sentence)
    tell(f"report: {page}")


def _typed() -> str:
    return shlex.join(["python", "-m", "harness", *sys.argv[1:]])


@contextlib.contextmanager
def _progress(directory: Path, say: Tell) -> "Iterator[Show]":
    """A bar on a terminal, a line for each run elsewhere; nothing until the first run has ended."""
    if not sys.stderr.isatty():
        side = " with the earlier code" if directory.name == THEN_FOLDER else ""
        yield lambda step: say(
            f"measured again{side} {step.done} of {step.total}: {step.point}, repeat "
            f"{step.repeat}: {step.outcome}"
        )
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("measuring again"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(str(directory), total=None)

        def show(step: "Step") -> None:
            bar.update(
                task,
                total=step.total,
                completed=step.done,
                description=f"{step.point}, repeat {step.repeat}: {step.outcome}",
            )

        yield show
