"""Names in order and names that were misspelt, the same way everywhere."""

import difflib
import re
from collections.abc import Collection, Iterable


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts numbers in a name by their value: ``image_count=500`` before ``image_count=1000``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in parts)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``"did you mean 'X'?"``, or else what is known; for the end of a sentence about a name that is not there."""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names) or 'none'}"


def columns_of(parameters: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """A column for each parameter: its own name, or ``parameter_NAME`` where the table has a column of that name already."""
    return {name: name if name not in taken else f"parameter_{name}" for name in parameters}
