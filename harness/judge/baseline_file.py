"""Baseline files: which file is whose, and their text. TOML that is reviewed like code, with one
block for each point and one line for each phase and meter.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import BaselineError, RunDirectoryError
from harness.judge.baseline import SCHEMA_VERSION, Baseline, key_in_words
from harness.records import Scalar
from harness.rundir.manifest import first_error
from harness.system.files import write_text
from harness.words import natural

_ONE_PROVENANCE = 1
"""Earlier version, which had one provenance for all points; read as if each point had it."""

# chosen: the file name stays on one line of a listing; the digest tells keys apart
_SLUG_CHARACTERS = 60

VERSION = "tensorflow"
"""The part of a key of comparability that a baseline may hold for several values of."""
_HEADER = """\
# Accepted memory of every point, in bytes: the smallest of its repeats, and how far above it most \
of them stay.
# Written by `python -m harness accept RUN --reason "..."`; review it like code, do not edit it by \
hand. A block is touched
# only where its point changed, and says in `accepted` on what evidence; how it moved: \
`python -m harness history POINT`.
"""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def file_name(key: Mapping[str, str | int]) -> str:
    """The name of the file for a key: readable words, and a digest of the whole key."""
    words = "-".join(str(value) for _, value in sorted(key.items()))
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")[:_SLUG_CHARACTERS].strip("-.")
    canonical = json.dumps(dict(key), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    return f"{slug}-{digest}.toml"


def find(folder: Path, key: Mapping[str, str | int]) -> Baseline | None:
    """The baseline for a key, or None where the folder has none. Raises BaselineError when its file
    is damaged.
    """
    path = folder / file_name(key)
    if folder.exists() and not folder.is_dir():
        raise BaselineError(
            f"{folder} is a file; name the folder that holds the baselines (--baselines)"
        )
    if not path.exists():
        return None
    baseline = read(path)
    if dict(baseline.key) != dict(key):
        raise BaselineError(
            f"{path} is a baseline for {key_in_words(baseline.key)}, not for what its name "
            "says; accept a run again"
        )
    return baseline


def read(path: Path) -> Baseline:
    """Read one file. Raises BaselineError when it cannot be read, is damaged, or of an unknown
    version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineError(
            f"the baseline {path} cannot be read: {error}; restore it, or accept a run again"
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Baseline:
    """The baseline that a file called ``name`` holds, also one of the first version. Raises
    BaselineError as ``read`` does.
    """
    try:
        document = from_text(text)
    except BaselineError as error:
        raise BaselineError(
            f"the baseline {name} cannot be read: {error}; restore it, or accept a run again"
        ) from error
    version = document.get("schema_version")
    if version not in (_ONE_PROVENANCE, SCHEMA_VERSION):
        raise BaselineError(
            f"the baseline {name} has schema_version {version!r}; this program reads "
            f"{_ONE_PROVENANCE} and {SCHEMA_VERSION}: accept a run again"
        )
    try:
        return Baseline.model_validate(
            _with_own_provenance(document) if version == _ONE_PROVENANCE else document
        )
    except ValidationError as error:
        raise BaselineError(
            f"the baseline {name} is damaged: {first_error(error)}; restore it, or accept a "
            "run again"
        ) from error


def readable_baselines(folder: Path) -> Iterator[tuple[Path, Baseline]]:
    """Every file of a folder that can be read, in the order of their names; one that cannot is
    reported when a run needs it.
    """
    for path in sorted(folder.glob("*.toml")):
        try:
            yield path, read(path)
        except BaselineError:
            continue


def _with_own_provenance(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the first version as one of this version; what is damaged stays so, for the
    validation to report.
    """
    said = document.get("provenance")
    common = said if isinstance(said, dict) else {}
    accepted = {
        "date": common.get("accepted"),
        "run": common.get("run_id"),
        "commit": common.get("git_commit"),
        "changed": common.get("git_dirty"),
        "device": common.get("device"),
        "isolation": "not recorded",
        "repeats": common.get("repeats"),
        "reason": common.get("reason"),
    }
    points = document.get("point")
    named = points if isinstance(points, dict) else {}
    rest = {name: value for name, value in document.items() if name != "provenance"}
    moved = {
        name: {**point, "accepted": accepted} if isinstance(point, dict) else point
        for name, point in named.items()
    }
    return {**rest, "schema_version": SCHEMA_VERSION, "point": moved}


def write(baseline: Baseline, folder: Path) -> Path:
    """Write the file of the baseline's key into ``folder``, in one step. Raises RunDirectoryError
    if it cannot.
    """
    path = folder / file_name(baseline.key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"the folder of baselines {folder} cannot be made: {error.strerror}"
        ) from error
    write_text(path, to_text(baseline.model_dump(exclude_none=True)))
    return path


# Versions of TensorFlow that a baseline holds for: its own, and those of which a complete run was
# within its tolerances.


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
    for path, other in readable_baselines(folder):
        if path.name == file_name(other.key) and {**other.key, VERSION: key.get(VERSION)} == dict(
            key
        ):
            yield other


# Where there is no baseline for a run: which of the others is nearest, and what its key differs in.


@dataclass(frozen=True, slots=True)
class Nearest:
    """One file, and what its key differs in."""

    path: Path
    differences: tuple[str, ...]
    """Such as ``"device was emulated, 3.0 GiB and is emulated, 1.0 GiB"``."""


def nearest_baselines(folder: Path, key: Mapping[str, str | int]) -> list[Nearest]:
    """The readable baselines of a folder, the one that differs least first."""
    found = [
        Nearest(path, tuple(_differences(other.key, key)))
        for path, other in readable_baselines(folder)
    ]
    return sorted(found, key=lambda nearest: len(nearest.differences))


def _differences(then: Mapping[str, str | int], now: Mapping[str, str | int]) -> list[str]:
    return [
        f"{name.replace('_', ' ')} was {then.get(name, 'not recorded')} and is "
        f"{now.get(name, 'not recorded')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


# The text of a file.


def to_text(document: Mapping[str, Any]) -> str:
    """TOML of a baseline document: ``schema_version``, ``key``, ``also`` and ``point`` tables, in
    that order; points by name.
    """
    lines = [_HEADER, f"schema_version = {document['schema_version']}", "", "[key]"]
    lines += [f"{_key(name)} = {_value(value)}" for name, value in document["key"].items()]
    if document.get("also"):
        held = sorted(document["also"].items(), key=lambda item: natural(item[0]))
        lines += [
            "",
            "[also]",
            *(f"{_key(version)} = {_value(evidence)}" for version, evidence in held),
        ]
    # In the order of their names, so that branches which add points add them in the same places.
    for name, point in sorted(document["point"].items(), key=lambda item: natural(item[0])):
        lines += ["", f"[point.{_key(name)}]"]
        lines += list(_point_lines(point))
    return "\n".join(lines) + "\n"


def from_text(text: str) -> dict[str, Any]:
    """The document that ``to_text`` wrote. Raises BaselineError when it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BaselineError(f"not TOML: {error}") from error


def _point_lines(point: Mapping[str, Any]) -> Iterator[str]:
    for name, value in point.items():
        if name != "phase":
            yield f"{_key(name)} = {_value(value)}"
    for phase, meters in point["phase"].items():
        for meter, amounts in meters.items():
            yield f"phase.{_key(phase)}.{_key(meter)} = {_value(amounts)}"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _value(value: Scalar | Mapping[str, Any]) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    raise BaselineError(
        f"{value!r} has no form in a baseline file; use a text, a number or a truth value"
    )


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_escape(character) for character in escaped) + '"'


def _escape(character: str) -> str:
    # TOML 1.0 forbids control characters other than tab in a basic string, and DEL; lone surrogates
    # have no form at all.
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        return "\\uFFFD"
    return f"\\u{code:04X}" if code < 0x20 or code == 0x7F else character
