"""Earlier truth, committed and reviewable: what each point took when somebody accepted it, with the
evidence.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from harness.errors import BaselineError, RunDirectoryError
from harness.judge.advice import Commands
from harness.judge.baseline_file import from_text, to_text
from harness.judge.completeness import count_runs, missing_from_point, missing_from_run
from harness.judge.table import Place, Run, amounts_by_place
from harness.meters import GATED_METERS, WITNESS_METERS
from harness.records import Outcome, Point, Scalar
from harness.rundir.manifest import first_error
from harness.system.files import write_text
from harness.units import format_bytes

SCHEMA_VERSION = 2
"""Version of the baseline file that this program writes."""
_ONE_PROVENANCE = 1
"""Earlier version, which had one provenance for all points; read as if each point had it."""

RECORDED_FIELDS = ("growth", "retained", "net_start")
"""The amounts of a phase and meter that a baseline keeps."""

# chosen: the file name stays on one line of a listing; the digest tells keys apart
_SLUG_CHARACTERS = 60

_LAG = "; the kernel's counters to "
"""What stands between the counter and its lag in the source of a reading of host memory
(harness/measure/host_meter.py)."""


class Recorded(BaseModel):
    """One phase and meter: the smallest of the repeats, and how far above it most of them stay, in
    bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    growth_bytes: StrictInt
    growth_spread_bytes: Annotated[StrictInt, Field(ge=0)]
    retained_bytes: StrictInt
    retained_spread_bytes: Annotated[StrictInt, Field(ge=0)]
    net_start_bytes: StrictInt | None = None
    """What there was when the phase began, over what there was when the run's first phase did; None
    in files that are older."""
    net_start_spread_bytes: Annotated[StrictInt, Field(ge=0)] | None = None
    source: StrictStr | None = None
    """Which counter of the meter was read, where it has several that must not be compared with each
    other."""


class Acceptance(BaseModel):
    """Who says so: the evidence that a point was accepted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: StrictStr
    run: StrictStr
    commit: StrictStr
    changed: StrictStr
    """``"true"`` where the run was measured with uncommitted changes."""
    device: StrictStr
    isolation: StrictStr
    """How its children were started; ``"not recorded"`` in files of the first version."""
    repeats: StrictInt
    reason: StrictStr

    @property
    def in_words(self) -> str:
        """``"accepted 2026-11-24 from run s2"``."""
        return f"accepted {self.date} from run {self.run}"


class Held(BaseModel):
    """A complete run of another version of TensorFlow that was within every tolerance: the evidence
    that a baseline holds there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: StrictStr
    run: StrictStr
    commit: StrictStr
    changed: StrictStr
    reason: StrictStr


class BaselinePoint(BaseModel):
    """One point as it was accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fixed: Mapping[str, StrictStr | StrictInt | StrictFloat | StrictBool]
    device_budget_bytes: StrictInt | None = None
    accepted: Acceptance
    phase: Mapping[str, Mapping[str, Recorded]] = Field(default_factory=dict)
    """By phase, then meter; empty only where the point is expected to die before its first phase
    ends."""

    def differs_from(self, point: Point) -> str:
        """What makes a planned point another measurement than this one; empty when nothing does."""
        now = _settings(point)
        then = {**self.fixed, **budget_setting(self.device_budget_bytes)}
        changed = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
        return ", ".join(
            f"{name} was {then.get(name, 'not set')} and is {now.get(name, 'not set')}"
            for name in changed
        )

    def says_the_same(self, other: "BaselinePoint") -> bool:
        """Whether both differ in nothing but who says so, and in what is only recorded beside."""
        return self._judged().model_copy(update={"accepted": other.accepted}) == other._judged()

    def _judged(self) -> "BaselinePoint":
        judged = {
            phase: {
                meter: recorded for meter, recorded in meters.items() if meter not in WITNESS_METERS
            }
            for phase, meters in self.phase.items()
        }
        return self.model_copy(update={"phase": judged})


class Baseline(BaseModel):
    """One file: everything accepted under one key of comparability.

    Each point has a block and a provenance of its own, so that branches which accept different
    points merge, and that a point which did not change is not touched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: StrictInt = SCHEMA_VERSION
    key: Mapping[str, StrictStr | StrictInt]
    also: Mapping[str, Held] = Field(default_factory=dict)
    """Other versions of TensorFlow that it holds for, such as ``"2.20"``; all else in the key is
    the same there."""
    point: Mapping[str, BaselinePoint]


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


def _with_own_provenance(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the first version as one of this version; what is damaged stays so, for the
    validation to tell.
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
    whole = {name: value for name, value in document.items() if name != "provenance"}
    moved = {
        name: {**point, "accepted": accepted} if isinstance(point, dict) else point
        for name, point in named.items()
    }
    return {**whole, "schema_version": SCHEMA_VERSION, "point": moved}


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


def from_run(
    run: Run, *, reason: str, accepted: str, meters: Collection[str] = GATED_METERS
) -> Baseline:
    """The baseline that a run would make; ``accepted`` is the date, ``meters`` those worth
    comparing later.

    Raises BaselineError for an empty reason, and for a run that is incomplete or did not end as
    planned.
    """
    if not reason.strip():
        raise BaselineError("a baseline needs a reason: say why these numbers are right")
    gaps = list(gaps_of(run))
    if gaps:
        more = f" ({len(gaps) - 1} more)" if len(gaps) > 1 else ""
        raise BaselineError(f"{run.path} cannot become a baseline: {gaps[0]}{more}")
    points = recorded_points(run, reason=reason, accepted=accepted, meters=meters)
    empty = next(
        (
            point.name
            for point in run.points
            if point.expected is Outcome.OK and not points[point.name]._judged().phase
        ),
        None,
    )
    if empty is not None:
        raise BaselineError(
            f"{run.path} cannot become a baseline: {empty} has no reading of {' or '.join(meters)}"
        )
    return Baseline(key=dict(sorted(run.manifest.comparability.items())), point=points)


def recorded_points(
    run: Run,
    *,
    reason: str,
    accepted: str,
    meters: Collection[str] = GATED_METERS,
    settled: Callable[[Sequence[int]], int] = min,
) -> dict[str, BaselinePoint]:
    """What every point of a run took, by name, as far as it was measured; as ``from_run``, of an
    incomplete run too.

    Of several repeats the smallest counts; of a point that was measured again, the one that
    ``settled`` chooses.
    """
    by = _acceptance(run, reason.strip(), accepted)
    amounts, sources = amounts_by_place(run.phases), sources_of(run.phases)
    return {
        point.name: _accepted_point(
            point,
            amounts,
            sources,
            meters,
            _for(point, by, run),
            typical=settled if run.further.get(point.name) else min,
        )
        for point in run.points
    }


def launchers_of(run: Run) -> str:
    """How the children of a run were started, as its ends say: ``"zygote"``, or ``"spawn, zygote"``
    where both were.
    """
    return (
        ", ".join(sorted({str(name) for name in run.ends["launcher"].dropna()})) or "not recorded"
    )


def sources_of(phases: pd.DataFrame) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Which counters were read, by point and meter; more than one cannot be compared."""
    named = phases[
        phases["finished"] & phases["meter"].notna() & phases["source"].fillna("").ne("")
    ]
    return {
        (str(point), str(meter)): tuple(sorted(set(own["source"])))
        for (point, meter), own in named.groupby(["point", "meter"])
    }


def counter_of(source: str) -> str:
    """What was read, without how far the kernel's counters may lag.

    The lag grows with the number of processors, and is part of the reading's upper bound; what is
    counted is the same on a machine with more of them, and its amounts may be compared.
    """
    return source.partition(_LAG)[0]


def _for(point: Point, by: Acceptance, run: Run) -> Acceptance:
    """With as many repeats as this point has."""
    return by.model_copy(update={"repeats": len(run.repeats_of(point.name))})


def _acceptance(run: Run, reason: str, date: str) -> Acceptance:
    environment, code = run.manifest.environment, run.manifest.code
    # not what lay in the folder, but a revision taken from git
    if code is not None and code.commit:
        environment = {**environment, "git_commit": code.commit, "git_dirty": False}
    return Acceptance(
        date=date,
        run=run.manifest.run_id,
        commit=str(environment.get("git_commit", "unavailable: not recorded")),
        changed=str(environment.get("git_dirty", "unavailable: not recorded")).lower(),
        device=run.manifest.device.name,
        isolation=launchers_of(run),
        repeats=run.manifest.repeats,
        reason=reason,
    )


def key_in_words(key: Mapping[str, str | int]) -> str:
    """The key of comparability for people."""
    return ", ".join(_part_in_words(name, value) for name, value in sorted(key.items()))


def _part_in_words(name: str, value: str | int) -> str:
    words = name.removesuffix("_bytes").replace("_", " ")
    return (
        f"{words} "
        f"{format_bytes(value) if isinstance(value, int) and name.endswith('_bytes') else value}"
    )


def _spread(amounts: Sequence[int]) -> int:
    """How far above the least a majority of the repeats stays: of two the other one, of three the
    middle one.

    The least is what is accepted and compared. One of three or more that has by chance more than
    all others says nothing of it.
    """
    ordered = sorted(amounts)
    return ordered[len(ordered) // 2] - ordered[0]


def _accepted_point(
    point: Point,
    amounts: Mapping[Place, tuple[int, ...]],
    sources: Mapping[tuple[str, str], tuple[str, ...]],
    meters: Collection[str],
    accepted: Acceptance,
    *,
    typical: Callable[[Sequence[int]], int] = min,
) -> BaselinePoint:
    phases: dict[str, dict[str, Recorded]] = {}
    for phase in point.phases:
        for meter in meters:
            read = {
                field: amounts.get((point.name, phase, meter, field)) for field in RECORDED_FIELDS
            }
            if all(read.values()):
                found = {field: values for field, values in read.items() if values}
                settled = {f"{field}_bytes": typical(values) for field, values in found.items()}
                spread = {
                    f"{field}_spread_bytes": _spread(values) for field, values in found.items()
                }
                source = ", ".join(sources.get((point.name, meter), ())) or None
                phases.setdefault(phase, {})[meter] = Recorded(**settled, **spread, source=source)
    fixed = {name: value for name, value in point.fixed.items() if value is not None}
    return BaselinePoint(
        fixed=fixed, device_budget_bytes=point.device_budget_bytes, accepted=accepted, phase=phases
    )


def gaps_of(run: Run) -> Iterator[str]:
    """Why a run is incomplete or did not end as planned, a sentence for each reason."""
    commands = Commands.of(run.path, run.manifest)
    yield from missing_from_run(run, commands)
    census = count_runs(run)
    for point in run.points:
        for repeat in run.repeats_of(point.name):
            where = f"{point.name}, repeat {repeat}"
            yield from (
                f"{where}: {gap}" for gap in missing_from_point(census, point, repeat, commands)
            )
            end = census.ends.get((point.name, repeat))
            if end is not None and end.outcome is not point.expected:
                yield f"{where}: it ended {end.outcome}, not {point.expected}: {end.reason}"


def _settings(point: Point) -> dict[str, Scalar]:
    return {
        **{name: value for name, value in point.fixed.items() if value is not None},
        **budget_setting(point.device_budget_bytes),
    }


def budget_setting(budget_bytes: int | None) -> dict[str, Scalar]:
    """A device of its own as one of a point's settings."""
    return {} if budget_bytes is None else {"device_budget_bytes": budget_bytes}
