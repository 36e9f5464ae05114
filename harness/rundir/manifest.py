"""run.json: what was planned, on what, with which settings. One model, which it is written and read
with; it is there before the first child starts.
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
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    StrictStr,
    ValidationError,
)

from harness import system as files
from harness.errors import GitError, RunDirectoryError, UsageError
from harness.records import MOST_REPEATS, ROWS_FILE, RUN_FILE, SCHEMA_VERSION, Point, PoolKind
from harness.rundir.reading import SEAL, seal_of
from harness.system import git
from harness.system.memory import host_memory_bytes
from harness.words import nearest_path


class RecordedDevice(BaseModel):
    """What the points ran on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: StrictStr
    name: StrictStr
    uuid: StrictStr | None
    memory_bytes: StrictInt = Field(gt=0)
    limit_bytes: StrictInt | None = None
    """Size of its pool in bytes; None where it has no limit of its own."""
    allocator: StrictStr
    pool: PoolKind = PoolKind.RESERVED
    """How TensorFlow took its pool."""
    driver: StrictStr
    passed_over: StrictStr = ""
    """Of the emulated device: why it was used although the driver has a card."""
    equals: tuple[StrictStr | None, ...] = ()
    """UUIDs of further devices that may have measured a point; they are of one name and size."""
    left_out: tuple[StrictStr, ...] = ()
    """A sentence for each device of the machine that is not among them."""


class CodeSide(BaseModel):
    """One of two codes that a run compares (``harness.run.revisions``)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    asked: StrictStr
    """The revision as the user named it; empty for the working tree."""
    commit: StrictStr
    date: StrictStr
    title: StrictStr
    """First line of the commit's message."""
    folder: StrictStr = ""
    """Root of the tree that it was taken from."""
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
    project: StrictStr = ""
    """What is measured: the name of the repository, of the project or of its folder; empty in runs
    that are older than this field."""
    started: StrictStr
    ended: StrictStr | None
    """None while the run is still going, or when it was broken off."""
    command: StrictStr
    repeats: StrictInt = Field(ge=1, le=MOST_REPEATS)
    environment: Mapping[str, Any]
    device: RecordedDevice
    comparability: Mapping[str, StrictStr | StrictInt]
    settings: Mapping[str, Any]
    code: CodeSide | None = None
    """Which code was measured, where two are compared."""
    against: CodeSide | None = None
    """Which code it is compared with; its run is in the folder ``then``."""
    root: StrictStr | None = None
    """The folder that its children worked in; None where it was not recorded."""
    planned: tuple[Point, ...]
    policy: Mapping[str, Any] | None = None
    """What the run is to be judged by, with the keys of a policy file; None where it brings none of
    its own."""
    asked: tuple[StrictStr, ...] = ()
    """Tests that were to measure something, each of which has to have announced a point."""
    resumed: tuple[Mapping[str, Any], ...] = ()
    """Each time that the run was resumed: when, at which commit, and how many runs there were."""
    remeasured: tuple[Mapping[str, Any], ...] = ()
    """Each time that points were measured again: when, at which commit, and which points."""

    _content: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def content(self) -> Mapping[str, Any]:
        """The file itself, with its seal and the keys that another version has written."""
        return self._content


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
    schema = found.get("schema_version")
    if schema != SCHEMA_VERSION:
        raise RunDirectoryError(
            f"{path} has schema_version {schema!r}; this program reads version {SCHEMA_VERSION}: "
            "judge the run with the program that made it, or measure again"
        )
    try:
        manifest = Manifest.model_validate(found)
    except ValidationError as error:
        raise RunDirectoryError(
            f"{path} is damaged: {first_error(error)}; measure again"
        ) from error

    counts = Counter(point.name for point in manifest.planned)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise RunDirectoryError(
            f"{path} plans {repeated[0]} more than once; give each point parameters of its own"
        )
    manifest._content = found
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


# Writing it: at the start, at every resumption, at the end.


class MeasuredDevice(Protocol):
    """What run.json asks of a device."""

    def for_manifest(self) -> Mapping[str, Any]:
        """The fields of ``RecordedDevice``, as plain values."""

    @property
    def comparability(self) -> Mapping[str, str]:
        """What two devices must share for their bytes to be compared."""


def start_run(
    path: Path,
    *,
    points: Sequence[Point],
    repeats: int,
    device: MeasuredDevice,
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
    is comparable with all of it. ``policy`` is what the run is to be judged by, with the keys of a
    policy file (None: what the gate is given). ``asked`` names tests that will announce what
    they measure (``announce_point``): one that never does makes the run incomplete. ``sides`` are
    the codes of a comparison, ``code`` and in the later one's run also ``against``, with the keys
    of a ``CodeSide``.
    """
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        run_id=path.resolve().name,
        project=git.project_name(root),
        started=_now(),
        ended=None,
        command=command,
        repeats=repeats,
        environment=describe_environment(root, isolation=str(settings.get("isolation", "spawn"))),
        device=RecordedDevice.model_validate(device.for_manifest()),
        comparability={
            **comparability(device),
            "scan": _scans_of(points if swept is None else swept),
        },
        settings=settings,
        root=str(root.resolve()),
        planned=tuple(points),
        policy=policy,
        asked=tuple(asked),
    )
    codes = {name: CodeSide.model_validate(side) for name, side in (sides or {}).items()}
    _make_run(path, manifest.model_copy(update=codes))


def comparability(device: MeasuredDevice) -> dict[str, str]:
    """What two runs must share for their bytes to be compared, beside the scan."""
    return {**device.comparability, "tensorflow": tensorflow_minor()}


def _scans_of(points: Sequence[Point]) -> str:
    scans = {str(point.fixed["scan"]) for point in points if point.fixed.get("scan") is not None}
    return ", ".join(sorted(scans)) or "none"


def _make_run(path: Path, manifest: Manifest) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ROWS_FILE).touch()
    except OSError as error:
        raise RunDirectoryError(f"the run directory {path} cannot be made: {error}") from error
    _put(path / RUN_FILE, manifest.model_dump(mode="json", exclude_unset=True), replace=False)


def note_resumption(path: Path, *, command: str, root: Path, already: int) -> None:
    """Note in run.json that the run goes on: when, at which commit, and how many runs were there
    already.

    It has no end again until ``end_run``. Raises RunDirectoryError when run.json is gone or
    damaged, or cannot be written.
    """
    _add_note(path, "resumed", {**_note(command, root), "runs_there_already": already})


def note_remeasuring(path: Path, *, command: str, root: Path, points: Sequence[str]) -> None:
    """Note in run.json that ``points`` are measured again because of findings: when, and at which
    commit.

    It has no end again until ``end_run``. Raises RunDirectoryError when run.json is gone or
    damaged, or cannot be written.
    """
    _add_note(path, "remeasured", {**_note(command, root), "points": list(points)})


def end_run(path: Path) -> None:
    """Note the time at which the run was over, and seal it. Raises RunDirectoryError when run.json
    is gone or damaged.
    """
    ended = {**read_manifest(path).content, "ended": _now()}
    try:
        rows = (path / ROWS_FILE).read_bytes()
    except OSError as error:
        raise RunDirectoryError(f"{path / ROWS_FILE} cannot be read back: {error}") from error
    _put(path / RUN_FILE, {**ended, SEAL: seal_of(ended, rows)}, replace=True)


def _note(command: str, root: Path) -> dict[str, Any]:
    environment = describe_environment(root, isolation="")
    return {
        "time": _now(),
        "command": command,
        **{key: environment[key] for key in ("git_commit", "git_dirty", "git_changes")},
    }


def _add_note(path: Path, key: str, note: Mapping[str, Any]) -> None:
    content = read_manifest(path).content
    noted = {**content, "ended": None, key: [*content.get(key, []), note]}
    _put(path / RUN_FILE, noted, replace=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _put(path: Path, manifest: Mapping[str, Any], *, replace: bool) -> None:
    write = files.replace if replace else files.create
    try:
        write(path, f"{json.dumps(manifest, indent=1)}\n".encode())
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error}") from error


# What a session shows of its run.


def sides_of(path: Path) -> dict[str, Any]:
    """The codes that the run compares, as they were recorded at its start. Raises RunDirectoryError
    when run.json is damaged, as all of these do.
    """
    content = read_manifest(path).content
    return {key: content[key] for key in ("code", "against") if key in content}


def device_kind(path: Path) -> str:
    """``"emulated"`` or ``"gpu"``: what the run is measured on."""
    return read_manifest(path).device.kind


def passed_over(path: Path) -> str:
    """Why a card that the driver has was passed over; empty where none was."""
    return read_manifest(path).device.passed_over


def left_out(path: Path) -> int:
    """How many of the collected points and tests were not selected."""
    return int(read_manifest(path).settings.get("left_out", 0))


def plans_anything(path: Path) -> bool:
    """Whether the run has a point to measure."""
    return bool(read_manifest(path).planned)


def has_ended(path: Path) -> bool:
    """Whether the run was gone through to its end."""
    return read_manifest(path).ended is not None


# The folder itself.


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
    """Versions, machine, git commit of ``folder`` and the CI job; what is unknown is "unavailable:
    why". Of the environment only the variables of ``CI_SERVICES`` are read.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count() or "unavailable: the system does not say",
        "host_memory_bytes": host_memory_bytes(),
        "git_commit": commit,
        "git_branch": _branch(folder, commit),
        "git_subject": _printable(_git(folder, "log", "-1", "--format=%s")),
        "git_dirty": changes if changes.startswith("unavailable") else bool(changes),
        "git_changes": _fingerprint(folder),
        **_job(os.environ),
        "isolation": isolation,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CiService:
    """What a CI service tells every job in the environment; no other variable is read."""

    told_by: str
    """The variable that is set in each of its jobs."""
    url: str
    """The page of the job, of variables."""
    commit: str
    branches: tuple[str, ...]
    """Variables that name the branch of ``commit``; the first that is not empty is right."""


CI_SERVICES = (
    CiService(  # https://docs.github.com/en/actions/reference/variables-reference
        told_by="GITHUB_ACTIONS",
        url="{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",
        commit="GITHUB_SHA",
        branches=("GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
    ),
    CiService(  # https://docs.gitlab.com/ci/variables/predefined_variables
        told_by="GITLAB_CI",
        url="{CI_JOB_URL}",
        commit="CI_COMMIT_SHA",
        branches=("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_BRANCH"),
    ),
    CiService(  # https://buildkite.com/docs/pipelines/environment_variables
        told_by="BUILDKITE",
        url="{BUILDKITE_BUILD_URL}",
        commit="BUILDKITE_COMMIT",
        branches=("BUILDKITE_BRANCH",),
    ),
    # https://www.jenkins.io/doc/book/pipeline/jenkinsfile, and its plug-ins git
    # (https://plugins.jenkins.io/git) and workflow-multibranch.
    CiService(
        told_by="JENKINS_URL",
        url="{BUILD_URL}",
        commit="GIT_COMMIT",
        branches=("CHANGE_BRANCH", "BRANCH_NAME", "GIT_LOCAL_BRANCH", "GIT_BRANCH"),
    ),
)
"""The services whose jobs are recognized."""


def _job(variables: Mapping[str, str]) -> dict[str, str]:
    """``ci_url``, the page of the CI job; nothing where there is none.

    Of the address no user, password or query is kept: a service may put a token there.
    """
    for service in CI_SERVICES:
        if not variables.get(service.told_by):
            continue
        try:
            parts = urlsplit(service.url.format_map(variables))
            host = parts.netloc.rpartition("@")[2]
        except (KeyError, ValueError):
            continue
        if parts.scheme in ("http", "https") and host:
            return {"ci_url": _printable(f"{parts.scheme}://{host}{parts.path}")}
    return {}


def _branch(folder: Path, commit: str) -> str:
    """The branch that is checked out; in a CI job, which checks a commit out, the branch that its
    service names for this very commit.
    """
    checked_out = _git(folder, "symbolic-ref", "--short", "HEAD")
    if not checked_out.startswith("unavailable"):
        return _printable(checked_out)
    for service in CI_SERVICES:
        if os.environ.get(service.told_by) and os.environ.get(service.commit) == commit:
            named = filter(None, map(os.environ.get, service.branches))
            return _printable(next(named, "unavailable: the CI job is of no branch"))
    return "unavailable: a commit is checked out, and no branch"


def _printable(text: str) -> str:
    """The text, with a sign in place of everything that could move a terminal's cursor or is no
    character at all.
    """
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


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
