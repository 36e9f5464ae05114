"""The command ``annotate``: print the findings of a judged run for a pull request."""

import argparse
from pathlib import Path

from harness.commands import RUN_CODES, add_run, explain, to_stdout, write_annotations
from harness.judge import ExitCode


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    explain(
        parser,
        "Print the causes that a judged run has found, as annotations of a pull request: GitHub "
        "reads them from the log, GitLab from a file.",
        examples=(
            "RUN --changed-since merge-base:origin/main",
            "RUN --format gitlab > gl-code-quality-report.json",
        ),
        exit_codes=RUN_CODES,
    )
    add_run(parser)
    parser.add_argument(
        "--changed-since",
        metavar="REV",
        help="put the findings on the file under test that differs most from this revision; "
        "merge-base:REF is where HEAD left REF (default: the revision that the run was compared "
        "with, else on no file)",
    )
    parser.add_argument(
        "--subject",
        metavar="PATH",
        action="append",
        default=[],
        help="path of a package under test from here, such as src/mypkg; may be repeated "
        "(default: the packages that the run names)",
    )
    parser.add_argument(
        "--format",
        choices=("github", "gitlab"),
        default="github",
        help="workflow commands for GitHub's log, or GitLab's code quality report as JSON "
        "(default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Print one line for each finding, or the report."""
    lines = write_annotations(
        options.run,
        since=options.changed_since,
        subjects=options.subject,
        policy=options.policy,
        baselines=options.baselines,
        folder=Path.cwd(),
        form=options.format,
    )
    for line in lines:
        to_stdout(line)
    return ExitCode.PASS
