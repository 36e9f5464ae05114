"""Arguments that several commands share, for argparse."""

import argparse
from pathlib import Path

from harness.judge.advice import DEFAULT_BASELINES

MOST_WORKERS = 64
"""Chosen: each holds a process that has imported TensorFlow; a number typed with a zero too many
ends here."""


def add_run(parser: argparse.ArgumentParser) -> None:
    """A run directory, and what to judge it by."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a run directory, as pytest --memory-out wrote it"
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        help="budgets, slopes and tolerances, each with its reason (default: what the run "
        "brings along, as one of marked tests does, else scenarios/gate.toml)",
    )
    add_baselines(parser)


def add_baselines(parser: argparse.ArgumentParser) -> None:
    """Where the committed baselines are; None where nobody says."""
    parser.add_argument(
        "--baselines",
        metavar="DIR",
        type=Path,
        help=f"folder of committed baselines (default: {DEFAULT_BASELINES})",
    )


def add_against(parser: argparse.ArgumentParser) -> None:
    """The other run of a comparison."""
    parser.add_argument(
        "--against",
        metavar="DIR",
        type=Path,
        help="compare with this run instead of a baseline (default: RUN/then, where pytest "
        "--memory-against has measured it)",
    )


def worker_count(text: str) -> int:
    """A number of workers. Raises ArgumentTypeError for what is none."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of workers; write 1 or more, up to {MOST_WORKERS}"
        )
    return int(text)


def add_partial(parser: argparse.ArgumentParser) -> None:
    """Whether less was measured on purpose."""
    parser.add_argument(
        "--partial",
        action="store_true",
        help="judge only what was measured, although the baseline holds more points (after -k, "
        "--image-counts, ...)",
    )
