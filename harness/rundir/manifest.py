"""run.json: what was planned, on what, with which settings. Written before the first child
starts.
"""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError, UsageError
from harness.records import ROWS_FILE, RUN_FILE, SCHEMA_VERSION, Point, PoolKind, to_json
from harness.run.devices import Device
from harness.run.environment import describe_environment, tensorflow_minor
from harness.seal import SEAL, seal_of
from harness.units import format_bytes

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
    device: Device,
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


def comparability(device: Device) -> dict[str, str]:
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
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(
            f"{path} is still being measured by another session; wait for it, or stop it first"
        ) from error
    try:
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


def _device_in_words(device: Device) -> str:
    if device.kind == "emulated":
        return f"emulated, {format_bytes(device.memory_bytes)}"
    limit = "" if device.limit_bytes is None else f", limited to {format_bytes(device.limit_bytes)}"
    growing = ", growing on demand" if device.pool is PoolKind.GROWN else ""
    return f"{device.name}, {format_bytes(device.memory_bytes)}{limit}{growing}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _put(path: Path, manifest: Mapping[str, Any], *, replace: bool) -> None:
    # A reader sees the old file or the new one, never half of one; link(2) puts a name in place
    # only if it is free.
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        whole.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if replace:
            whole.replace(path)
            return
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(whole)
        whole.unlink()
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error}") from error
