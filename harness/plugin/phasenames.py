"""What the names of phases say: which of them do the same one after the other."""

import re
from collections.abc import Sequence


def repeated(phases: Sequence[str]) -> list[str]:
    """Phases that do the same, by their numbers (``epoch_0``, ``epoch_1``); empty where there are
    none, or several kinds.
    """
    families: dict[str, list[str]] = {}
    for phase in phases:
        if numbered := re.fullmatch(r"(.*?)\d+", phase):
            families.setdefault(numbered[1], []).append(phase)
    found = [family for family in families.values() if len(family) > 1]
    return found[0] if len(found) == 1 else []
