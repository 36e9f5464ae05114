"""The command ``gate``: judge a run directory, measure again what may be noise where that is asked for, and say it all."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.judge.against import THEN_FOLDER, load_against
from harness.judge.gate import Judgement, judge, write_judgement
from harness.judge.policy import Policy, choose_policy
from harness.judge.remeasure import Offenders, find_offenders
from harness.judge.table import Run, load_run
from harness.judge.verdict import ExitCode
from harness.records import RUN_FILE

if TYPE_CHECKING:
    from harness.remeasuring import Show, Step

Tell = Callable[[str], None]
"""Shows one line to whoever has asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How a run directory is to be judged."""

    directory: Path
    policy: Path | None
    """None: what the run brings along, else the project's own."""
    baselines: Path
    partial: bool
    against: Path | None = None
    """The run to compare with; None: the one that was measured beside this one, or else a baseline."""

    def judge(self) -> tuple[Run, Policy, Judgement]:
        """Read the directory and apply every rule. Raises HarnessError where run, policy or baseline cannot be used."""
        run = load_run(self.directory)
        policy = choose_policy(self.policy, run.manifest)
        against = load_against(run, self.against)
        return run, policy, judge(run, policy, self.baselines, partial=self.partial, against=against)

    @property
    def measured(self) -> tuple[Path, ...]:
        """The run directories that measuring again has to add to: where two codes are compared, both."""
        beside = self.directory / THEN_FOLDER
        compared = self.against is None and (beside / RUN_FILE).exists()
        return (self.directory, beside) if compared else (self.directory,)


def judge_and_remeasure(gate: Gate, *, workers: int, command: str, say: Tell) -> tuple[Run, Judgement]:
    """Judge, measure the points of findings again that may be noise, and judge once more with all that was measured.

    Raises as ``Gate.judge`` and ``harness.remeasuring.remeasure`` do; KeyboardInterrupt when it is interrupted, and then
    nothing that was measured is lost.
    """
    from harness.remeasuring import remeasure, was_broken_off  # starts children, which no other command does
    from harness.run.manifest import hold_run_directory

    run, policy, judgement = gate.judge()
    with hold_run_directory(gate.directory):
        if any(was_broken_off(directory) for directory in gate.measured):
            # First what is owed already: the verdict on half of it would announce still more.
            for directory in gate.measured:
                with _progress(directory, say) as show:
                    remeasure(directory, Offenders(points=()), command=command, show=show, workers=workers)
            run, policy, judgement = gate.judge()
        found = find_offenders(run, policy, judgement.verdict)
        if policy.remeasure is None and judgement.verdict.findings:
            say(f"there is no [remeasure] in {policy.source}, to say how often: nothing is measured again, every finding stands")
        if found.left:
            say(
                f"{len(found.left)} findings are not measured again, because that would take longer than the run itself has "
                f"taken: they stand as they are; the first is {found.left[0].subject}"
            )
        count = 0
        for directory in gate.measured:
            with _progress(directory, say) as show:
                count += remeasure(directory, found, command=command, show=show, workers=workers)
    if count:
        run, policy, judgement = gate.judge()
    return run, judgement


def run_gate(gate: Gate, *, workers: int | None, page: bool, tell: Tell, say: Tell) -> int:
    """Judge, write every file of the judgement, ``tell`` what it says, and give the exit code.

    ``workers`` None measures nothing again; ``say`` is told of the progress.
    """
    from harness.pages import write_summary

    if workers is None:
        run, _, judgement = gate.judge()
    else:
        command = shlex.join(["python", "-m", "harness", *sys.argv[1:]])
        try:
            run, judgement = judge_and_remeasure(gate, workers=workers, command=command, say=say)
        except KeyboardInterrupt:
            say(
                f"stopped while {gate.directory} was measured again; nothing that had ended is lost, go on with: "
                f"python -m harness gate {gate.directory} --remeasure"
            )
            return ExitCode.INCOMPLETE
    write_judgement(run, judgement)
    write_summary(run, judgement)
    verdict = judgement.verdict
    tell(verdict.sentence)
    for finding in verdict.findings:
        tell(f"  {finding.finding}: {finding.sentence}")
    for check in verdict.overruled:
        tell(f"  overruled: {check.sentence}")
    for check in verdict.better:
        tell(f"  better: {check.sentence}")
    if gate.policy is None:
        tell(f"judged by {judgement.policy}")
    if judgement.against:
        tell(judgement.against)
    if page:
        from harness.pages import write_report

        tell(f"report: {write_report(run, judgement)}")
    return int(verdict.exit_code)


@contextlib.contextmanager
def _progress(directory: Path, say: Tell) -> "Iterator[Show]":
    """A bar on a terminal, a line for each run elsewhere; nothing until the first run has ended."""
    if not sys.stderr.isatty():
        side = " with the earlier code" if directory.name == THEN_FOLDER else ""
        yield lambda step: say(
            f"measured again{side} {step.done} of {step.total}: {step.point}, repeat {step.repeat}: {step.outcome}"
        )
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
                task, total=step.total, completed=step.done, description=f"{step.point}, repeat {step.repeat}: {step.outcome}"
            )

        yield show
