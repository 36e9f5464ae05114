"""What several commands share: where their lines go, and arguments for argparse.

Each command is a module with ``add(parser)``, which declares its arguments, and ``run(options)``,
which gives the exit code; ``harness.__main__`` lists them.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from harness.errors import HarnessError
from harness.judge.advice import DEFAULT_BASELINES
from harness.run.devices import check_budget
from harness.units import parse_bytes

MOST_WORKERS = 64
"""Chosen: each holds a process that has imported TensorFlow; this catches a zero too many."""
MOST_REPEATS = 1000
"""Chosen: twenty times what any spread needs; this catches a zero too many, before it costs a
week."""


def to_stdout(line: str) -> None:
    """Print a line of the result. A reader who has gone (``| head``) changes no exit code."""
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


def to_stderr(line: str) -> None:
    """Print a line about the way to the result: what is done, and what was passed over."""
    print(line, file=sys.stderr, flush=True)


def add_run(parser: argparse.ArgumentParser) -> None:
    """A run directory, and what to judge it by."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a run directory, written by pytest --memory-out"
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        help="file of budgets, slopes and tolerances, each with its reason (default: the limits "
        "that the run brings along, as runs of marked tests do, else scenarios/gate.toml)",
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
        help="compare with this run instead of a baseline (default: RUN/then, if pytest "
        "--memory-against measured it)",
    )


def worker_count(text: str) -> int:
    """A number of workers, 1 to ``MOST_WORKERS``."""
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
        help="judge only what was measured, although the baseline has more points (use it after "
        "-k, --image-counts, ...)",
    )


# Texts as settings, also for the options of pytest (``type=``). Each refuses what it cannot read in
# one sentence (argparse.ArgumentTypeError).


def folder(text: str) -> Path:
    """A folder's path. An empty text is refused: it would mean the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a folder; name one, for example artifacts/runs/first"
        )
    return Path(text)


def byte_amount(text: str) -> int:
    """An amount of bytes.

    >>> byte_amount("5GiB")
    5368709120
    """
    try:
        return parse_bytes(text)
    except HarnessError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def device_budget(text: str) -> int:
    """An amount of bytes that TensorFlow accepts as the limit of a device."""
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
    """A time above 0, in seconds.

    >>> seconds("1.5")
    1.5
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < sys.maxsize:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time in seconds; write a number above 0"
        )
    return value
