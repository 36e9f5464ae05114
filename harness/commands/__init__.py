"""Arguments that several commands share, for argparse."""

import argparse
import sys
from pathlib import Path

from harness.errors import HarnessError
from harness.judge.advice import DEFAULT_BASELINES
from harness.run.devices import check_budget
from harness.units import parse_bytes

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


# Texts of the command line to settings. A text that is none is refused in one sentence
# (argparse.ArgumentTypeError).


MOST_REPEATS = 1000
"""Chosen: twenty times what any spread needs; a number typed with a zero too many ends here, not
after a week."""


def folder(text: str) -> Path:
    """A folder's path; an empty text would mean the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a folder; name one, for example artifacts/runs/first"
        )
    return Path(text)


def byte_amount(text: str) -> int:
    """Bytes, as in ``"5GiB"``."""
    try:
        return parse_bytes(text)
    except HarnessError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def device_budget(text: str) -> int:
    """Bytes that TensorFlow can be given as a limit."""
    try:
        return check_budget(parse_bytes(text))
    except HarnessError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def repeat_count(text: str) -> int:
    """A number of repeats, 1 to ``MOST_REPEATS``."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_REPEATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of repeats; write 1 or more, up to {MOST_REPEATS}"
        )
    return int(text)


def seconds(text: str) -> float:
    """A time above 0, in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < sys.maxsize:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time in seconds; write a number above 0"
        )
    return value
