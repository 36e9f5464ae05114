"""run.json: what was planned, on what, with which settings. Written before the first child
starts.
"""

import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from harness.errors import GitError, RunDirectoryError, UsageError
from harness.records import ROWS_FILE, RUN_FILE, SCHEMA_VERSION, Point, PoolKind, to_json
from harness.rundir.seal import SEAL, seal_of
from harness.system import files, git
from harness.system.memory import host_memory_bytes
from harness.units import format_bytes
from harness.words import nearest_path

if TYPE_CHECKING:
    from harness.run.devices import Device


# run.json, checked: what was planned, on what, and the key that a baseline has to share.


MOST_REPEATS = 1000
"""Of one point. What the options of a run take at most; a damaged number must not fill the
memory."""


class RecordedDevice(BaseModel):
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
    """One of two codes that a run compares (``harness.run.revisions``)."""

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
    device: RecordedDevice
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


# Where and with what a run was measured, read without importing any of it.


_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "h5py",
    "pandas",
    "scipy",
    "nvidia-ml-py",
    "ptycho-memory",
)


def describe_environment(folder: Path, *, isolation: str) -> dict[str, Any]:
    """Versions, machine and git commit of ``folder``; what cannot be told is "unavailable: why"."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count() or "unavailable: the system does not tell",
        "host_memory_bytes": host_memory_bytes(),
        "git_commit": commit,
        "git_dirty": changes if changes.startswith("unavailable") else bool(changes),
        "git_changes": _fingerprint(folder),
        "isolation": isolation,
    }


def tensorflow_minor() -> str:
    """``"2.21"``: numbers of the allocator are compared only within a minor version."""
    return ".".join(_version("tensorflow").split(".")[:2])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unavailable: not installed"


def _fingerprint(folder: Path) -> str:
    """Sixteen digits for the changes to tracked files: two runs with the same ones ran the same
    code.

    Files that git does not track are left out: the run directory itself may be one.
    """
    try:
        changes = git.run(folder, "diff", "HEAD")
    except GitError as error:
        return f"unavailable: git diff failed ({error.failure})"
    return hashlib.sha256(changes).hexdigest()[:16] if changes else "none"


def _git(folder: Path, *arguments: str) -> str:
    try:
        return git.text(folder, *arguments).strip()
    except GitError as error:
        return f"unavailable: git {arguments[0]} failed ({error.failure})"


LOCK_FILE = ".lock"
"""In a run directory: held (flock) by the session that measures into it."""


def claim_run_directory(path: Path) -> None:
    """Check that a new run may be written to ``path``. Raises UsageError when it already holds one,
    or is a file.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--memory-out {path} is a file; name a folder for the run")
    if (path / RUN_FILE).exists() or (path / ROWS_FILE).exists():
        raise UsageError(
            f"--memory-out {path} already holds a run; name another folder, or delete this "
            "one first"
        )


def make_run_directory(path: Path) -> None:
    """Make ``path`` and try whether it can be written to. Raises UsageError when it cannot, before
    anything is measured.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(
            f"--memory-out {path} cannot be written to ({error.strerror}); name a folder in "
            "which you may create files"
        ) from error


def default_run_directory(root: Path) -> Path:
    """``artifacts/runs/<UTC time>-<process id>`` under the project's root."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return root / "artifacts" / "runs" / f"{stamp}-{os.getpid()}"


def start_run(
    path: Path,
    *,
    points: Sequence[Point],
    repeats: int,
    device: "Device",
    command: str,
    root: Path,
    settings: Mapping[str, Any],
    swept: Sequence[Point] | None = None,
    policy: Mapping[str, Any] | None = None,
    asked: Sequence[str] = (),
    sides: Mapping[str, Any] | None = None,
) -> None:
    """Create the run directory with its run.json and an empty rows.jsonl. Raises RunDirectoryError
    if it cannot.

    Workers that share a run all call this with the same plan; the first one's run.json stays.
    ``swept`` is the sweep that ``points`` were selected from (None: all of it), so that a selection
    is comparable with the whole. ``policy`` is what the run is to be judged by, with the keys of a
    policy file (None: whatever the gate is given). ``asked`` names tests that will announce what
    they measure (``announce_point``): one that never does makes the run incomplete. ``sides`` is
    what a comparison of two codes says of itself: ``code``, and in the later one's run also
    ``against``.
    """
    scans = sorted(
        {
            str(point.fixed["scan"])
            for point in (points if swept is None else swept)
            if point.fixed.get("scan") is not None
        }
    )
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "run_id": path.resolve().name,
        "started": _now(),
        "ended": None,
        "command": command,
        "repeats": repeats,
        "environment": describe_environment(
            root, isolation=str(settings.get("isolation", "spawn"))
        ),
        "device": {
            "kind": device.kind,
            "name": device.name,
            "uuid": device.uuid,
            "memory_bytes": device.memory_bytes,
            "limit_bytes": device.limit_bytes,
            "allocator": device.allocator,
            "pool": device.pool,
            "driver": device.driver,
            "passed_over": device.passed_over,
            # Any of these may have measured a point; they are of one name and size.
            "equals": [equal.uuid for equal in device.equals],
            "left_out": list(device.left_out),
        },
        "comparability": {**comparability(device), "scan": ", ".join(scans) or "none"},
        "settings": dict(settings),
        **(sides or {}),
        "root": str(root.resolve()),
        "planned": [to_json(point) for point in points],
        "policy": None if policy is None else dict(policy),
        "asked": list(asked),
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ROWS_FILE).touch()
    except OSError as error:
        raise RunDirectoryError(f"the run directory {path} cannot be made: {error}") from error
    _put(path / RUN_FILE, manifest, replace=False)


def comparability(device: "Device") -> dict[str, str]:
    """What two runs must share for their bytes to be compared, beside the scan."""
    return {
        "device": _device_in_words(device),
        "allocator": device.allocator,
        "tensorflow": tensorflow_minor(),
    }


def note_resumption(path: Path, *, command: str, root: Path, already: int) -> None:
    """Note in run.json that the run goes on: when, at which commit, and how many runs were there
    already.

    It has no end again until ``end_run``. Raises RunDirectoryError when run.json is gone or
    damaged, or cannot be written.
    """
    manifest = _read_back(path)
    note = {**_note(command, root), "runs_there_already": already}
    _put(
        path / RUN_FILE,
        {**manifest, "ended": None, "resumed": [*manifest.get("resumed", []), note]},
        replace=True,
    )


def note_remeasuring(path: Path, *, command: str, root: Path, points: Sequence[str]) -> None:
    """Note in run.json that ``points`` are measured again because of findings: when, and at which
    commit.

    It has no end again until ``end_run``. Raises RunDirectoryError when run.json is gone or
    damaged, or cannot be written.
    """
    manifest = _read_back(path)
    note = {**_note(command, root), "points": list(points)}
    _put(
        path / RUN_FILE,
        {**manifest, "ended": None, "remeasured": [*manifest.get("remeasured", []), note]},
        replace=True,
    )


def _note(command: str, root: Path) -> dict[str, Any]:
    environment = describe_environment(root, isolation="")
    return {
        "time": _now(),
        "command": command,
        **{key: environment[key] for key in ("git_commit", "git_dirty", "git_changes")},
    }


@contextlib.contextmanager
def hold_run_directory(path: Path) -> Iterator[None]:
    """Keep every other session out of the run directory for the block; the kernel lets go of it
    when this process ends.

    Raises UsageError when another session holds it.
    """
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_WRONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"the run directory {path} cannot be written to ({error.strerror})"
        ) from error
    try:
        if not files.lock(descriptor, wait=False):
            raise UsageError(
                f"{path} is still being measured by another session; wait for it, or stop it first"
            )
        yield
    finally:
        os.close(descriptor)


def end_run(path: Path) -> None:
    """Note the time at which the run was over, and seal it. Raises RunDirectoryError when run.json
    is gone or damaged.
    """
    ended = {**_read_back(path), "ended": _now()}
    try:
        rows = (path / ROWS_FILE).read_bytes()
    except OSError as error:
        raise RunDirectoryError(f"{path / ROWS_FILE} cannot be read back: {error}") from error
    _put(path / RUN_FILE, {**ended, SEAL: seal_of(ended, rows)}, replace=True)


def sides_of(path: Path) -> dict[str, Any]:
    """What ``start_run`` was told of the codes that the run compares. Raises RunDirectoryError when
    run.json is damaged.
    """
    return {key: value for key, value in _read_back(path).items() if key in ("code", "against")}


def device_kind(path: Path) -> str:
    """``"emulated"`` or ``"gpu"``: what the run is measured on. Raises RunDirectoryError when
    run.json is damaged.
    """
    return str(_read_back(path)["device"]["kind"])


def passed_over(path: Path) -> str:
    """Why a card that the driver has was passed over; empty where none was. Raises
    RunDirectoryError as ``device_kind``.
    """
    return str(_read_back(path)["device"].get("passed_over", ""))


def left_out(path: Path) -> int:
    """How many of the collected points and tests were not selected. Raises RunDirectoryError as
    ``device_kind``.
    """
    return int(_read_back(path)["settings"].get("left_out", 0))


def plans_anything(path: Path) -> bool:
    """Whether the run has a point to measure. Raises RunDirectoryError when run.json is gone or
    damaged.
    """
    return bool(_read_back(path)["planned"])


def has_ended(path: Path) -> bool:
    """Whether the run was gone through to its end. Raises RunDirectoryError when run.json is gone
    or damaged.
    """
    return _read_back(path)["ended"] is not None


def _read_back(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path / RUN_FILE} cannot be read back: {error}") from error
    return manifest


def _device_in_words(device: "Device") -> str:
    if device.kind == "emulated":
        return f"emulated, {format_bytes(device.memory_bytes)}"
    limit = "" if device.limit_bytes is None else f", limited to {format_bytes(device.limit_bytes)}"
    growing = ", growing on demand" if device.pool is PoolKind.GROWN else ""
    return f"{device.name}, {format_bytes(device.memory_bytes)}{limit}{growing}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _put(path: Path, manifest: Mapping[str, Any], *, replace: bool) -> None:
    write = files.replace if replace else files.create
    try:
        write(path, f"{json.dumps(manifest, indent=1)}\n".encode())
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error}") from error
