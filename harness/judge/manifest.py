"""run.json, checked: what was planned, on what, and the key that a baseline has to share."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from harness.errors import RunDirectoryError
from harness.records import RUN_FILE, SCHEMA_VERSION, Point, PoolKind
from harness.words import nearest_path

MOST_REPEATS = 1000
"""Of one point. What the options of a run take at most; a damaged number must not fill the
memory."""


class Device(BaseModel):
    """What the points ran on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: StrictStr
    name: StrictStr
    uuid: StrictStr | None
    memory_bytes: StrictInt = Field(gt=0)
    allocator: StrictStr
    pool: PoolKind = PoolKind.RESERVED
    """How TensorFlow took its pool."""
    driver: StrictStr
    passed_over: StrictStr = ""
    """Of the emulated device: why it was used although the driver has a card."""


class CodeSide(BaseModel):
    """One of two codes that a run compares (``harness.run.sides``)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    asked: StrictStr
    """The revision as the user named it; empty for the working tree."""
    commit: StrictStr
    date: StrictStr
    title: StrictStr
    """First line of the commit's message."""
    subjects: tuple[StrictStr, ...] = Field(min_length=1)
    """The packages under test, by their paths in the repository."""
    packages: Mapping[StrictStr, StrictStr] = Field(min_length=1)
    """The folder that each package was to be imported from, by its name."""
    content: Mapping[StrictStr, StrictStr]
    """A checksum of the files of each; equal ones are equal code."""
    left_empty: tuple[StrictStr, ...] = ()
    """Submodules in the packages, whose files are not there."""


class Manifest(BaseModel):
    """The contents of run.json; amounts in bytes, times in ISO 8601."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: StrictInt
    run_id: StrictStr
    started: StrictStr
    ended: StrictStr | None
    """None while the run is still going, or when it was broken off."""
    command: StrictStr
    repeats: StrictInt = Field(ge=1, le=MOST_REPEATS)
    environment: Mapping[str, Any]
    device: Device
    comparability: Mapping[str, StrictStr | StrictInt]
    settings: Mapping[str, Any]
    planned: tuple[Point, ...]
    policy: Mapping[str, Any] | None = None
    """What the run is to be judged by, with the keys of a policy file; None where it brings none of
    its own."""
    asked: tuple[StrictStr, ...] = ()
    """Tests that were to measure something, each of which has to have announced a point."""
    code: CodeSide | None = None
    """Which code was measured, where two are compared."""
    against: CodeSide | None = None
    """Which code it is compared with; its run is in the folder ``then``."""
    remeasured: tuple[Mapping[str, Any], ...] = ()
    """Each time that points were measured again: when, at which commit, and which points."""
    root: StrictStr | None = None
    """The folder that its children worked in; None where it was not recorded."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the run in ``folder``.

    Raises RunDirectoryError where there is none, where it is damaged, of an unknown version, or
    plans a point twice.
    """
    path = folder / RUN_FILE
    if not folder.is_dir():
        near = "" if folder.exists() else f" ({nearest_path(folder)})"
        raise RunDirectoryError(
            f"{folder} is not a run directory; name a folder that pytest --memory-out wrote{near}"
        )
    found = _read_object(path)
    version = found.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RunDirectoryError(
            f"{path} has schema_version {version!r}; this program reads version {SCHEMA_VERSION}: "
            "judge the run with the program that made it, or measure again"
        )
    try:
        manifest = Manifest.model_validate(found)
    except ValidationError as error:
        raise RunDirectoryError(
            f"{path} is damaged: {first_error(error)}; measure again"
        ) from error
    twice = [
        name
        for name, count in Counter(point.name for point in manifest.planned).items()
        if count > 1
    ]
    if twice:
        raise RunDirectoryError(
            f"{path} plans {twice[0]} more than once; give each point parameters of its own"
        )
    return manifest


def first_error(error: ValidationError) -> str:
    """The first thing that pydantic found, as ``where: what``."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunDirectoryError(
            f"{path.parent} is not a run directory: it has no {path.name}; name the folder of a run"
        ) from error
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} is damaged, not JSON: {error}; measure again") from error
    if not isinstance(found, dict):
        raise RunDirectoryError(
            f"{path} is damaged: it holds a {type(found).__name__} instead of an object; "
            "measure again"
        )
    return found
