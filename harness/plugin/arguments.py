"""Arguments of ``memory_run`` and of the marker that have none of their names: which one was
probably meant.
"""

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType

_OTHER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "limit": "budgets",
        "limits": "budgets",
        "atmost": "budgets",
        "atleast": "budgets",
        "memorylimit": "budgets",
        "memorybudget": "budgets",
        "maxmemory": "budgets",
        "devicelimit": "device_budget",
        "devicememory": "device_budget",
        "gpubudget": "device_budget",
        "gpulimit": "device_budget",
        "gpumemory": "device_budget",
        "env": "environment",
        "environ": "environment",
        "outcome": "expected",
        "expects": "expected",
        "numrepeats": "repeats",
        "nrepeats": "repeats",
        "repetitions": "repeats",
        "runs": "repeats",
        "preparation": "prepare",
        "parameters": "fixed",
        "params": "fixed",
        "kwargs": "fixed",
        "parametersfixed": "fixed",
        "pythonpath": "path",
        "syspath": "path",
    }
)
"""What others call them, in small letters and without underscores."""
# chosen: "budget" is 0.92 like "budgets", "enviroment" 0.95 like "environment"; "phased" is a near
# miss too
_SIMILAR = 0.8
_SHORT = 5
"""Letters up to which a word has too many neighbours that are words themselves: patch and math
beside path, order beside over."""
_OWN_WORDS = frozenset({"patch"})


def meant(name: str, known: Collection[str]) -> str:
    """Which of the known arguments ``name`` is a near miss of; empty where it is of none."""
    plain = _plain(name)
    other = _OTHER_WORDS.get(plain, "")
    if other in known:
        return other
    for word in known:
        if plain == _plain(word):
            return word
    long = {_plain(word): word for word in known if len(word) > _SHORT}
    near = difflib.get_close_matches(plain, long, n=1, cutoff=_SIMILAR)
    if near:
        return long[near[0]]
    short = [word for word in known if len(word) <= _SHORT and plain not in _OWN_WORDS]
    return next((word for word in short if plain[:1] == word[:1] and _one_apart(plain, word)), "")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _one_apart(one: str, other: str) -> bool:
    """Whether a single letter was left out, added, exchanged, or has changed places with its
    neighbour.
    """
    shorter, longer = sorted((one, other), key=len)
    if len(longer) - len(shorter) > 1:
        return False
    place = next(
        (at for at, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter)
    )
    if len(shorter) < len(longer):
        return shorter[place:] == longer[place + 1 :]
    swapped = shorter[:place] + shorter[place : place + 2][::-1] + shorter[place + 2 :]
    return longer == swapped or shorter[place + 1 :] == longer[place + 1 :]
