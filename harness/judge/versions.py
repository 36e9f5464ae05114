"""Versions of TensorFlow that a baseline holds for: its own, and those of which a complete run was
within its tolerances.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.errors import BaselineError
from harness.judge.baseline import Baseline, file_name, find, key_in_words, read
from harness.words import natural

VERSION = "tensorflow"
"""The part of a key of comparability that a baseline may hold for several values of."""


def holding(folder: Path, key: Mapping[str, str | int]) -> Baseline | None:
    """The baseline for a key, or that of another version of TensorFlow which holds for it too; None
    where there is neither.

    One of the version's own comes first, then that of the highest version. Raises BaselineError
    when its own is damaged.
    """
    own = find(folder, key)
    if own is not None:
        return own
    others = [other for other in _of_other_versions(folder, key) if key.get(VERSION) in other.also]
    return max(others, key=lambda other: natural(str(other.key[VERSION])), default=None)


def key_with_evidence(baseline: Baseline, key: Mapping[str, str | int]) -> str:
    """What a baseline is for, in words, and for a run with another version of TensorFlow since when
    it holds for that too.
    """
    words = key_in_words(baseline.key)
    version = str(key.get(VERSION))
    held = baseline.also.get(version)
    if held is None or baseline.key.get(VERSION) == version:
        return f"the same {words}"
    return f"{words}, and holds for TensorFlow {version} too (shown {held.date} by run {held.run})"


def _of_other_versions(folder: Path, key: Mapping[str, str | int]) -> Iterator[Baseline]:
    for path in sorted(folder.glob("*.toml")):
        try:
            other = read(path)
        except BaselineError:
            continue  # it cannot be compared with; whoever needs it is told when it is read
        if path.name == file_name(other.key) and {**other.key, VERSION: key.get(VERSION)} == dict(
            key
        ):
            yield other
