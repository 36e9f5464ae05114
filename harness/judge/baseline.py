"""Earlier truth, committed and reviewable: what each point took when somebody accepted it, with the evidence."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from harness.errors import BaselineError, RunDirectoryError
from harness.judge.baseline_text import from_text, to_text
from harness.judge.completeness import missing_from_point, missing_from_run, take_census
from harness.judge.files import write_text
from harness.judge.manifest import first_error
from harness.judge.table import Run, amounts_by_place
from harness.records import Outcome, Point, Scalar
from harness.units import format_bytes

SCHEMA_VERSION = 1
"""Version of the baseline file that this program reads and writes."""

LOADER_METERS = ("device_in_use", "host_anon")
"""Meters of what the loader controls. The others are shown beside them: they also move with the kernel and other processes."""

_SLUG_CHARACTERS = 60  # chosen: the file name stays on one line of a listing; the digest tells keys apart


class Recorded(BaseModel):
    """One phase and meter: the smallest of the repeats, and largest minus smallest, in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    growth_bytes: StrictInt
    growth_spread_bytes: Annotated[StrictInt, Field(ge=0)]
    retained_bytes: StrictInt
    retained_spread_bytes: Annotated[StrictInt, Field(ge=0)]


class BaselinePoint(BaseModel):
    """One point as it was accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fixed: Mapping[str, StrictStr | StrictInt | StrictFloat | StrictBool]
    device_budget_bytes: StrictInt | None = None
    phase: Mapping[str, Mapping[str, Recorded]] = Field(default_factory=dict)
    """By phase, then meter; empty only where the point is expected to die before its first phase ends."""

    def differs_from(self, point: Point) -> str:
        """What makes a planned point another measurement than this one; empty when nothing does."""
        now = _settings(point)
        then = {**self.fixed, **_budget(self.device_budget_bytes)}
        changed = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
        return ", ".join(f"{name} was {then.get(name, 'not set')} and is {now.get(name, 'not set')}" for name in changed)


class Baseline(BaseModel):
    """One file: everything accepted under one key of comparability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: StrictInt = SCHEMA_VERSION
    key: Mapping[str, StrictStr | StrictInt]
    provenance: Mapping[str, StrictStr | StrictInt | StrictBool]
    """run_id, git_commit, git_dirty, device, accepted (date) and reason."""
    point: Mapping[str, BaselinePoint]


def file_name(key: Mapping[str, str | int]) -> str:
    """The name of the file for a key: readable words, and a digest of the whole key."""
    words = "-".join(str(value) for _, value in sorted(key.items()))
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")[:_SLUG_CHARACTERS].strip("-.")
    canonical = json.dumps(dict(key), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    return f"{slug}-{digest}.toml"


def find(folder: Path, key: Mapping[str, str | int]) -> Baseline | None:
    """The baseline for a key, or None where the folder has none. Raises BaselineError when its file is damaged."""
    path = folder / file_name(key)
    if not path.exists():
        return None
    baseline = read(path)
    if dict(baseline.key) != dict(key):
        raise BaselineError(
            f"{path} is a baseline for {key_in_words(baseline.key)}, not for what its name says; accept a run again"
        )
    return baseline


def read(path: Path) -> Baseline:
    """Read one file. Raises BaselineError when it cannot be read, is damaged, or of an unknown version."""
    try:
        document = from_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, BaselineError) as error:
        raise BaselineError(f"the baseline {path} cannot be read: {error}; restore it, or accept a run again") from error
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BaselineError(
            f"the baseline {path} has schema_version {version!r}; this program reads {SCHEMA_VERSION}: accept a run again"
        )
    try:
        return Baseline.model_validate(document)
    except ValidationError as error:
        raise BaselineError(f"the baseline {path} is damaged: {first_error(error)}; restore it, or accept a run again") from error


def write(baseline: Baseline, folder: Path) -> Path:
    """Write the file of the baseline's key into ``folder``, in one step. Raises RunDirectoryError if it cannot."""
    path = folder / file_name(baseline.key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"the folder of baselines {folder} cannot be made: {error.strerror}") from error
    write_text(path, to_text(baseline.model_dump(exclude_none=True)))
    return path


def from_run(run: Run, *, reason: str, accepted: str, meters: Collection[str] = LOADER_METERS) -> Baseline:
    """The baseline that a run would make; ``accepted`` is the date, ``meters`` those worth comparing later.

    Raises BaselineError for an empty reason, and for a run that is incomplete or did not end as planned.
    """
    if not reason.strip():
        raise BaselineError("a baseline needs a reason: say why these numbers are right")
    gaps = list(_gaps(run))
    if gaps:
        more = f" ({len(gaps) - 1} more)" if len(gaps) > 1 else ""
        raise BaselineError(f"{run.path} cannot become a baseline: {gaps[0]}{more}")
    amounts = amounts_by_place(run.phases)
    points = {point.name: _accepted_point(point, amounts, meters) for point in run.points}
    empty = next((point.name for point in run.points if point.expected is Outcome.OK and not points[point.name].phase), None)
    if empty is not None:
        raise BaselineError(f"{run.path} cannot become a baseline: {empty} has no reading of {' or '.join(meters)}")
    environment = run.manifest.environment
    return Baseline(
        key=dict(sorted(run.manifest.comparability.items())),
        provenance={
            "run_id": run.manifest.run_id,
            "git_commit": str(environment.get("git_commit", "unavailable: not recorded")),
            "git_dirty": str(environment.get("git_dirty", "unavailable: not recorded")).lower(),
            "device": run.manifest.device.name,
            "repeats": run.manifest.repeats,
            "accepted": accepted,
            "reason": reason.strip(),
        },
        point=points,
    )


def diff(old: Baseline | None, new: Baseline) -> Iterator[str]:
    """What accepting ``new`` changes, one line for each amount: ``point / phase / meter growth: old -> new``."""
    before = {} if old is None else old.point
    for name in dict.fromkeys([*before, *new.point]):
        if name not in before:
            yield f"{name}: none -> {_count(new.point[name])}"
        elif name not in new.point:
            yield f"{name}: {_count(before[name])} -> none"
        else:
            yield from (f"{name}{line}" for line in _diff_point(before[name], new.point[name]))


def key_in_words(key: Mapping[str, str | int]) -> str:
    """The key of comparability for people."""
    return ", ".join(_part_in_words(name, value) for name, value in sorted(key.items()))


def _part_in_words(name: str, value: str | int) -> str:
    words = name.removesuffix("_bytes").replace("_", " ")
    return f"{words} {format_bytes(value) if isinstance(value, int) and name.endswith('_bytes') else value}"


def _amounts_of(point: BaselinePoint) -> dict[tuple[str, str, str], int]:
    return {
        (phase, meter, name): getattr(recorded, f"{name}_bytes")
        for phase, meters in point.phase.items()
        for meter, recorded in meters.items()
        for name in ("growth", "retained")
    }


def _diff_point(old: BaselinePoint, new: BaselinePoint) -> Iterator[str]:
    then = {**old.fixed, **_budget(old.device_budget_bytes)}
    now = {**new.fixed, **_budget(new.device_budget_bytes)}
    for setting in dict.fromkeys([*then, *now]):
        if then.get(setting) != now.get(setting):
            yield f" / {setting}: {then.get(setting, 'none')} -> {now.get(setting, 'none')}"
    before, after = _amounts_of(old), _amounts_of(new)
    for place in dict.fromkeys([*before, *after]):
        if before.get(place) != after.get(place):
            phase, meter, name = place
            yield f" / {phase} / {meter} {name}: {_amount(before.get(place))} -> {_amount(after.get(place))}"


def _amount(amount: int | None) -> str:
    return "none" if amount is None else f"{format_bytes(amount)} ({amount:,} B)"


def _count(point: BaselinePoint) -> str:
    lines = sum(len(meters) for meters in point.phase.values())
    return f"{lines} phases and meters"


def _accepted_point(
    point: Point, amounts: Mapping[tuple[str, str, str, str], tuple[int, ...]], meters: Collection[str]
) -> BaselinePoint:
    phases: dict[str, dict[str, Recorded]] = {}
    for phase in point.phases:
        for meter in meters:
            growth = amounts.get((point.name, phase, meter, "growth"))
            retained = amounts.get((point.name, phase, meter, "retained"))
            if growth and retained:
                phases.setdefault(phase, {})[meter] = Recorded(
                    growth_bytes=min(growth),
                    growth_spread_bytes=max(growth) - min(growth),
                    retained_bytes=min(retained),
                    retained_spread_bytes=max(retained) - min(retained),
                )
    fixed = {name: value for name, value in point.fixed.items() if value is not None}
    return BaselinePoint(fixed=fixed, device_budget_bytes=point.device_budget_bytes, phase=phases)


def _gaps(run: Run) -> Iterator[str]:
    yield from missing_from_run(run)
    census = take_census(run)
    for point in run.points:
        for repeat in range(run.manifest.repeats):
            where = f"{point.name}, repeat {repeat}"
            yield from (f"{where}: {gap}" for gap in missing_from_point(census, point, repeat))
            end = census.ends.get((point.name, repeat))
            if end is not None and end.outcome is not point.expected:
                yield f"{where}: it ended {end.outcome}, not {point.expected}: {end.reason}"


def _settings(point: Point) -> dict[str, Scalar]:
    return {**{name: value for name, value in point.fixed.items() if value is not None}, **_budget(point.device_budget_bytes)}


def _budget(budget_bytes: int | None) -> dict[str, Scalar]:
    return {} if budget_bytes is None else {"device_budget_bytes": budget_bytes}
