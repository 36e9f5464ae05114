"""Numbers given by users, checked where they come in."""

import math
import operator
from typing import Any

from ptycho.errors import ContainerError


def whole(name: str, value: Any, *, least: int) -> int:  # noqa: ANN401 - this finds out what it is
    """``value`` as an int of at least ``least``; raises ContainerError for anything that is not a whole number."""
    try:
        # bool is an index too, but never a count.
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ContainerError(f"{name} is {value!r}; a whole number of at least {least} is needed")
    if number < least:
        raise ContainerError(f"{name} is {number}; it is at least {least}")
    return number


def photons(name: str, value: Any) -> float:  # noqa: ANN401 - this finds out what it is
    """``value`` as a positive, finite number; raises ContainerError for anything else."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ContainerError(f"{name} is {value!r}; a positive number of photons per frame is needed")
    return number
