"""Names in order and names that were misspelt, the same way everywhere."""

import difflib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from harness.errors import UsageError

_MOST_SHOWN = 8
"""Names of a folder that a sentence lists. Chosen: one line."""


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts numbers in a name by their value: ``image_count=500`` before
    ``image_count=1000``.
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple(
        (0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in parts
    )


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``"did you mean 'X'?"``, or else what is known; for the end of a sentence about a name that
    is not there.
    """
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names) or 'none'}"


def columns_of(parameters: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """A column for each parameter: its own name, or ``parameter_NAME`` where the table has a column
    of that name already.
    """
    return {name: name if name not in taken else f"parameter_{name}" for name in parameters}


def existing_folder(path: Path, option: str) -> Path:
    """A folder that somebody has named by hand. Raises UsageError, with the nearest that there is,
    where it is none.
    """
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{option} {path} is a file; name a folder")
    raise UsageError(f"{option} {path} is not there; {nearest_path(path)}")


def nearest_path(path: Path) -> str:
    """``"did you mean artifacts/run?"``, or what there is beside it; for the end of a sentence
    about a path that is not there.
    """
    parent = next((place for place in path.parents if place.is_dir()), None)
    if parent is None:
        return "name one that is"
    missing, *rest = path.relative_to(parent).parts
    try:
        beside = sorted(place.name for place in parent.iterdir() if not place.name.startswith("."))
    except OSError:
        beside = []
    for near in difflib.get_close_matches(missing, beside, n=3, cutoff=0.6):
        if (found := parent.joinpath(near, *rest)).exists():
            return f"did you mean {found}?"
    where = "this folder" if parent == Path() else str(parent)
    shown = ", ".join(beside[:_MOST_SHOWN]) + (", ..." if len(beside) > _MOST_SHOWN else "")
    return f"{where} holds {shown or 'nothing'}"
