"""Baseline files: which file is whose, and their text. TOML that is reviewed like code, with one
block for each point and one line for each phase and meter.
"""

import dataclasses
import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import BaselineError, GitError, RunDirectoryError
from harness.judge import Check, FindingKind, RuleName
from harness.judge.advice import LESS_ON_PURPOSE, REASON, Commands, stopped
from harness.judge.baseline import (
    RECORDED_FIELDS,
    SCHEMA_VERSION,
    Baseline,
    BaselinePoint,
    Recorded,
    from_run,
    gaps_of,
    key_in_words,
)
from harness.judge.limits import Tolerance
from harness.judge.policy import Policy
from harness.judge.table import Run
from harness.meters import GATED_METERS, WITNESS_METERS
from harness.records import Scalar
from harness.rundir.manifest import first_error
from harness.system import git, write_text
from harness.words import format_bytes, natural

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


# Whether a run may become a baseline: what ``accept`` would refuse, found before a sentence
# advises it.


_AT_FIELD = {"growth": "", "net_start": " when it begins"}
_FORBIDDING = frozenset({FindingKind.REGRESSION, FindingKind.FAILED, FindingKind.INCOMPLETE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One reason why a run cannot become a baseline."""

    place: str
    """What it is about, in a few words."""
    sentence: str


def broken_limits(
    checks: Sequence[Check], chosen: Collection[str] | None = None
) -> Iterator[Obstacle]:
    """What the policy itself forbids or could not see; distance from the earlier baseline is what
    accepting is about.

    With ``chosen`` only what concerns these points.
    """
    for check in checks:
        concerned = (
            chosen is None or not check.points or any(name in chosen for name in check.points)
        )
        if concerned and check.finding in _FORBIDDING and check.rule != RuleName.BASELINE:
            yield Obstacle(place=check.subject, sentence=check.sentence)


def unsteady(points: Mapping[str, BaselinePoint], run: Run, policy: Policy) -> Iterator[Obstacle]:
    """A baseline of repeats that differ by more than the tolerance would be a matter of luck."""
    scenarios = {point.name: point.scenario for point in run.points}
    for name, point in points.items():
        for phase, meters in point.phase.items():
            for tolerance in policy.tolerances(scenarios[name], phase):
                for field in [
                    field
                    for field in _AT_FIELD
                    if field in tolerance.fields and tolerance.meter in meters
                ]:
                    place = f"{name} / {phase} / {tolerance.meter}"
                    yield from _unsteady_amount(place, field, meters[tolerance.meter], tolerance)


def _unsteady_amount(
    place: str, field: str, recorded: Recorded, tolerance: Tolerance
) -> Iterator[Obstacle]:
    amount_bytes, spread_bytes = (
        getattr(recorded, f"{field}_bytes"),
        getattr(recorded, f"{field}_spread_bytes"),
    )
    allowed_bytes = max(amount_bytes * tolerance.percent / 100, tolerance.floor)
    if spread_bytes > allowed_bytes:
        sentence = (
            f"{place}: its repeats differ by "
            f"{format_bytes(spread_bytes)}{_AT_FIELD[field]}, tolerance "
            f"{format_bytes(allowed_bytes)}; measure again on a quieter machine"
        )
        yield Obstacle(place=place, sentence=sentence)


def gated_meters(policy: Policy) -> tuple[str, ...]:
    """The meters that a baseline keeps."""
    return tuple(
        dict.fromkeys(
            [*GATED_METERS, *WITNESS_METERS, *(tolerance.meter for tolerance in policy.tolerance)]
        )
    )


def with_possible_advice(
    checks: Sequence[Check], run: Run, policy: Policy, commands: Commands
) -> tuple[Check, ...]:
    """The same checks; where they advise to accept the run and ``accept`` would refuse it, they say
    what comes first.
    """
    advised = re.compile(
        re.escape(accept_words(commands.accept()).removesuffix(f" {REASON}"))
        + f"(?: --[a-z-]+)*? {re.escape(REASON)}"
    )
    if not any(advised.search(check.sentence) for check in checks):
        return tuple(checks)
    found = list(_obstacles(checks, run, policy))
    if not found:
        return tuple(checks)
    count = f"{len(found)} reasons, the first: " if len(found) > 1 else ""
    # The place may end with a command, so that nothing is put after it.
    first = (
        "deal first with what keeps this run from becoming a baseline: "
        f"{count}{found[0].place.rstrip('.')}"
    )
    return tuple(
        dataclasses.replace(check, sentence=stopped(advised.sub(lambda _: first, check.sentence)))
        if advised.search(check.sentence)
        else check
        for check in checks
    )


def is_possible(checks: Sequence[Check], run: Run, policy: Policy) -> bool:
    """Whether ``accept`` would take the run, as far as it was judged by these checks."""
    return next(_obstacles(checks, run, policy), None) is None


def accept_words(command: str) -> str:
    """How every sentence advises it."""
    return f"accept it with: {command}"


def _obstacles(checks: Sequence[Check], run: Run, policy: Policy) -> Iterator[Obstacle]:
    # What is missing on purpose is no obstacle: accept asks about it itself (--keep-others,
    # --forget-others).
    judged = [check for check in checks if LESS_ON_PURPOSE not in check.sentence]
    limits = list(broken_limits(judged))
    yield from limits
    gaps = list(gaps_of(run))
    if not limits:
        yield from (Obstacle(place=gap, sentence=gap) for gap in gaps)
    if gaps:
        return
    try:
        points = from_run(
            run, reason="asked beforehand", accepted="", meters=gated_meters(policy)
        ).point
    except BaselineError as error:
        yield Obstacle(place=str(error), sentence=str(error))
    else:
        yield from unsteady(points, run, policy)


# How accepted amounts moved: every version of a baseline file that git knows, and the present one.


AmountPlace = tuple[str, str, str]
"""Phase, meter, and the field: ``"growth"``, ``"retained"`` or ``"net_start"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All versions of one baseline file, the oldest first."""

    versions: tuple[Baseline, ...] = ()
    note: str = ""
    """What it may lack, and why; empty when nothing."""
    _points: dict[str, tuple[BaselinePoint, ...]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    def of(self, name: str) -> tuple[BaselinePoint, ...]:
        """Every acceptance of a point that changed it, the oldest first."""
        if name not in self._points:
            found: list[BaselinePoint] = []
            for version in self.versions:
                point = version.point.get(name)
                if point is not None and not (found and found[-1].is_judged_like(point)):
                    found.append(point)
            self._points[name] = tuple(found)
        return self._points[name]


NO_HISTORY = History()


def read_history(path: Path) -> History:
    """The versions of the baseline ``path``; without git, or outside of a repository, the present
    one alone, saying so.
    """
    try:
        commits = _git(path, "log", "--format=%H", "--", path.name).split()
        shallow = _git(path, "rev-parse", "--is-shallow-repository").strip() == "true"
    except GitError as error:
        return History(
            versions=tuple(_present(path)),
            note=f"only the present acceptance is known, because {_why(error)}",
        )
    versions, unreadable = [], 0
    for commit in reversed(commits):
        try:
            versions.append(
                parse(_git(path, "show", f"{commit}:./{path.name}"), f"{path.name} of {commit[:8]}")
            )
        except (BaselineError, GitError):
            # a version that deleted the file, or that only an older program can read
            unreadable += 1
    notes = [
        "git has only a part of the past (a shallow clone); fetch all of it with git fetch "
        "--unshallow"
        if shallow
        else "",
        f"{unreadable} earlier versions of the file cannot be read" if unreadable else "",
        "" if commits else "the file is not committed yet",
    ]
    return History(
        versions=(*versions, *_present(path)), note="; ".join(note for note in notes if note)
    )


def amounts_of(point: BaselinePoint) -> dict[AmountPlace, int]:
    """Every accepted amount of a point that is judged, in bytes."""
    return {
        (phase, meter, name): amount
        for phase, meters in point.phase.items()
        for meter, recorded in meters.items()
        if meter not in WITNESS_METERS
        for name in RECORDED_FIELDS
        if (amount := getattr(recorded, f"{name}_bytes")) is not None
    }


def _present(path: Path) -> Iterator[Baseline]:
    if path.exists():
        yield read(path)


def _git(path: Path, *arguments: str) -> str:
    return git.text(path.parent, *arguments)


def _why(error: GitError) -> str:
    if error.failure == "FileNotFoundError":
        return "git is not installed, or the folder is not there"
    return (
        f"git says: {error.said[-1].removeprefix('fatal: ')}"
        if error.said
        else f"git failed ({error.failure})"
    )
