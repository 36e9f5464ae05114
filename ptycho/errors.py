"""Errors a user can act on, and checks of numbers that users give.

One base class, small leaves that are also the builtin they mean.
"""

import math
import operator
from typing import Any

import numpy as np


class PtychoError(Exception):
    """Something the user can fix; the message says in one line what was asked, what was found and
    what to do.
    """

    def __str__(self) -> str:
        # Here, once: paths, keys and other people's texts come into messages everywhere.
        return one_line(super().__str__())


class ScanError(PtychoError, ValueError):
    """The contents of a scan that cannot be used as they are."""


class ScanFileError(PtychoError, OSError):
    """A scan file, or the folder its spooled copy goes to, that cannot be read or written."""


class ContainerError(PtychoError, ValueError):
    """Arguments of a container, a grouping or a dataset that do not fit together."""


def one_line(text: str) -> str:
    r"""``text`` with everything that does not print (line ends, control codes, undecodable bytes)
    as Python escapes.

    >>> one_line("two\nlines")
    'two\\nlines'
    """
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    )


# Numbers given by users, checked where they come in.


INT64_MOST = 2**63 - 1
"""The largest count that TensorFlow takes."""


def check_int(name: str, value: Any, *, least: int, most: int | None = None) -> int:  # noqa: ANN401 - this finds out what it is
    """``value`` as an int of ``least`` to ``most``; raises ContainerError for anything that is not
    such a whole number.

    >>> check_int("batch_size", 0, least=1)
    Traceback (most recent call last):
    ptycho.errors.ContainerError: batch_size is 0; it must be at least 1
    """
    try:
        # bool is an index too, but never a count.
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ContainerError(f"{name} is {value!r}; a whole number of at least {least} is needed")
    if number < least:
        raise ContainerError(f"{name} is {number}; it must be at least {least}")
    if most is not None and number > most:
        raise ContainerError(f"{name} is {number}; it must be at most {most}")
    return number


def check_bool(name: str, value: Any) -> bool:  # noqa: ANN401 - this finds out what it is
    """``value`` as a bool; raises ContainerError for anything but True, False, 1 and 0.

    >>> check_bool("repack", 1), check_bool("repack", False)
    (True, False)
    """
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise ContainerError(f"{name} is {value!r}; True or False is needed")


def check_photons(name: str, value: Any) -> float:  # noqa: ANN401 - this finds out what it is
    """``value`` as a positive, finite number; raises ContainerError for anything else."""
    number = _number(value)
    if not (math.isfinite(number) and number > 0):
        raise ContainerError(
            f"{name} is {value!r}; a positive number of photons per frame is needed"
        )
    return number


def check_positive(name: str, value: Any) -> float:  # noqa: ANN401 - this finds out what it is
    """``value`` as a number that is positive and finite as a float32; raises ContainerError for
    anything else.
    """
    number = _number(value)
    with np.errstate(over="ignore"):
        rounded = np.float32(number)
    if not (np.isfinite(rounded) and rounded > 0):
        raise ContainerError(f"{name} is {value!r}; a positive number within float32 is needed")
    return number


def _number(value: Any) -> float:  # noqa: ANN401 - this finds out what it is
    """NaN where ``value`` is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
