"""The command ``report``: write the page of the judgement that is in a run directory."""

import argparse

from harness.commands import (
    RUN_CODES,
    add_against,
    add_history,
    add_partial,
    add_run,
    earlier_runs,
    explain,
    to_stderr,
    to_stdout,
    write_outputs,
)
from harness.commands.gate import gate_of
from harness.judge import ExitCode
from harness.judge.gate import Judgement, kept_judgement
from harness.judge.table import Run, load_run
from harness.judged_run import Gate


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    explain(
        parser,
        "Write the page of the judgement that is in a run directory: RUN/report.html and "
        "RUN/plots. With options, or where nothing was judged yet, judge anew.",
        examples=("RUN",),
        exit_codes=RUN_CODES,
    )
    add_run(parser)
    add_against(parser)
    add_partial(parser)
    add_history(parser)


def run(options: argparse.Namespace) -> int:
    """Write the page, and print the verdict that it shows."""
    before = earlier_runs(options)
    judged, judgement = _judgement(options)
    page = write_outputs(judged, judgement, page=True, earlier_runs=before)
    to_stdout(judgement.verdict.sentence)
    to_stdout(f"report: {page}")
    return ExitCode.PASS


def _judgement(options: argparse.Namespace) -> tuple[Run, Judgement]:
    """The judgement that is in the directory; a new one where an argument asks for it, or where
    that one cannot be used.
    """
    gate = gate_of(options)
    given = (options.policy, options.baselines, options.against)
    if options.partial or any(argument is not None for argument in given):
        run, _, judgement = gate.judge()
        return run, judgement

    run = load_run(options.run)
    kept = kept_judgement(run)
    if kept.judgement is not None:
        return run, kept.judgement
    to_stderr(f"judged anew, because {kept.why_not}")
    run, _, judgement = Gate.again(options.run, kept.asked).judge()
    return run, judgement
