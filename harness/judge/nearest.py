"""Where there is no baseline for a run: which of the others is nearest, and what makes it another
one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BaselineError
from harness.judge.baseline import read


@dataclass(frozen=True, slots=True)
class Nearest:
    """One file, and what its key differs in."""

    path: Path
    differences: tuple[str, ...]
    """Such as ``"device was emulated, 3.0 GiB and is emulated, 1.0 GiB"``."""


def nearest_baselines(folder: Path, key: Mapping[str, str | int]) -> list[Nearest]:
    """The readable baselines of a folder, the one that differs least first."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        try:
            other = read(path).key
        except BaselineError:
            # it is of no key that could be compared; whoever needs it is told when it is read
            continue
        found.append(Nearest(path, tuple(_differences(other, key))))
    return sorted(found, key=lambda nearest: len(nearest.differences))


def _differences(then: Mapping[str, str | int], now: Mapping[str, str | int]) -> list[str]:
    return [
        f"{name.replace('_', ' ')} was {then.get(name, 'not recorded')} and is "
        f"{now.get(name, 'not recorded')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
