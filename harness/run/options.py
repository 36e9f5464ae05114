"""Texts of the command line to settings. A text that is none is refused in one sentence
(argparse.ArgumentTypeError).
"""

import argparse
import sys
from pathlib import Path

from harness.errors import HarnessError
from harness.run.devices import check_budget
from harness.units import parse_bytes

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
