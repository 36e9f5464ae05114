"""Baselines: what each point took when somebody accepted it, with the evidence; and how a run makes
one.
"""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from harness.errors import BaselineError, RunDirectoryError
from harness.judge.advice import Commands
from harness.judge.completeness import count_runs, missing_from_point, missing_from_run
from harness.judge.limits import Tolerance
from harness.judge.policy import Policy
from harness.judge.table import Place, Run, amounts_by_place, load_run
from harness.meters import DEVICE_IN_USE, GATED_METERS, HOST_ANON, WITNESS_METERS
from harness.records import THEN_FOLDER, Outcome, Point, Scalar
from harness.rundir.manifest import CodeSide
from harness.words import format_bytes

SCHEMA_VERSION = 2
"""Version of the baseline file that this program writes."""

RECORDED_FIELDS = ("growth", "retained", "net_start")
"""The amounts of a phase and meter that a baseline keeps."""


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
    """The evidence that a point was accepted on."""

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

    def is_judged_like(self, other: "BaselinePoint") -> bool:
        """Whether all that limits are about is the same in both; the evidence, and what is only
        recorded beside it, may differ.
        """
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
    amounts, sources = amounts_by_place(run), sources_of(run)
    return {
        point.name: _accepted_point(
            point,
            amounts,
            sources,
            meters,
            by.model_copy(update={"repeats": len(run.repeats_of(point.name))}),
            typical=settled if run.further.get(point.name) else min,
        )
        for point in run.points
    }


def launchers_of(run: Run) -> str:
    """How the children of a run were started, as its ends say: ``"zygote"``, or ``"spawn, zygote"``
    where both were.
    """
    return ", ".join(sorted({end.launcher for end in run.run_ends})) or "not recorded"


def sources_of(run: Run) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Which counters were read, by point and meter; more than one cannot be compared."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in run.rows:
        if row.finished and row.reading is not None and row.reading.source:
            found.setdefault((row.run[0], row.reading.meter), set()).add(row.reading.source)
    return {place: tuple(sorted(found[place])) for place in sorted(found)}


def counter_of(source: str) -> str:
    """What was read, without how far the kernel's counters may lag.

    The lag grows with the number of processors, and is part of the reading's upper bound; what is
    counted is the same on a machine with more of them, and its amounts may be compared.
    """
    return source.partition(_LAG)[0]


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


# The earlier code of a comparison: a baseline made of what was measured beside the run, never
# accepted and never stale.


_REASON = "measured beside the run that is compared with it"
_BECAUSE = (
    "What two codes measured in one run on one machine may differ by where the policy has no "
    "[[tolerance]] of its own: "
)
DEFAULT_TOLERANCES = (
    Tolerance.model_validate(
        {
            "meter": DEVICE_IN_USE,
            "percent": 2,
            "floor": "64 KiB",
            "because": _BECAUSE
            + "phases of loaders repeat to the byte, and small chunks are rounded.",
        }
    ),
    Tolerance.model_validate(
        {
            "meter": HOST_ANON,
            "percent": 25,
            "floor": "4 MiB",
            "because": _BECAUSE
            + "runs of one point were seen to differ by less than 0.6 MiB, and threads have "
            "arenas of their own.",
        }
    ),
)
"""For a policy without any: what a user's own tests bring along are limits, not distances."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Against:
    """What a run is compared with."""

    name: str
    """``"main (abc1234)"``, as sentences call the earlier code."""
    now_name: str
    """What sentences call the code of the run itself: ``"the working tree"``."""
    run: Run | None
    """The run of the earlier code; None where it could not be read."""
    baseline: Baseline
    """What it took; the points that it lacks are in ``unmeasured``."""
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    """Why a point of it says nothing, by the name of the point."""
    then: CodeSide | None = None
    now: CodeSide | None = None
    """Which code was to be measured, where run.json says so."""
    problem: str = ""
    """Why it could not be read."""

    @property
    def words(self) -> str:
        """``"at main (abc1234)"``."""
        return f"at {self.name}" if self.then is not None else f"in {self.name}"

    @property
    def now_words(self) -> str:
        """``"in the working tree"``."""
        return (
            f"at {self.now_name}"
            if self.now is not None and self.now.commit
            else f"in {self.now_name}"
        )

    @property
    def sentence(self) -> str:
        """What was compared with what."""
        return f"{self.now_name} was compared with {self.name}"

    @property
    def left_empty(self) -> str:
        """Which submodules a side lacks, in a sentence of its own; empty where it lacks none."""
        lacking: dict[tuple[str, ...], list[str]] = {}
        for words, side in ((self.words, self.then), (self.now_words, self.now)):
            if side is not None and side.left_empty:
                lacking.setdefault(side.left_empty, []).append(words)
        return " ".join(_left_empty(paths, " and ".join(words)) for paths, words in lacking.items())

    @property
    def to_do(self) -> str:
        """What to type to see what changed."""
        if self.then is None or self.now is None or not self.then.commit:
            return "find what changed between the two runs"
        commits = [commit[:7] for commit in (self.then.commit, self.now.commit) if commit]
        return f"look at {shlex.join(['git', 'diff', *commits, '--', *self.then.subjects])}"


def load_against(run: Run, folder: Path | None) -> Against | None:
    """What the run is compared with: the run in ``folder``, else the one that was measured beside
    it; None for neither.

    A run that was to be compared and whose other half is gone is compared with nothing, and says
    so. Raises RunDirectoryError when a folder that the user named is no run directory.
    """
    then, now = run.manifest.against, run.manifest.code
    if folder is None and then is None:
        return None
    place = folder or run.path / THEN_FOLDER
    try:
        earlier = load_run(place)
    except RunDirectoryError as error:
        if folder is not None:
            raise
        return _unreadable(run, then, now, str(error))
    unmeasured = dict(_unmeasured(earlier))
    if folder is not None and earlier.manifest.code is not None:
        then = earlier.manifest.code
    return Against(
        name=_name(then, f"run {earlier.manifest.run_id}"),
        now_name=_name(now, f"run {run.manifest.run_id}"),
        run=earlier,
        baseline=Baseline(
            key=dict(run.manifest.comparability), point=_recorded(earlier, unmeasured)
        ),
        unmeasured=unmeasured,
        then=then,
        now=now,
    )


def with_tolerances(policy: Policy) -> Policy:
    """A policy that compares: with the default tolerances where it has none."""
    if policy.tolerance:
        return policy
    return policy.model_copy(update={"tolerance": DEFAULT_TOLERANCES}).called(policy.source)


def _left_empty(paths: Sequence[str], words: str) -> str:
    many = len(paths) > 1
    these = (
        f"submodules {', '.join(paths[:-1])} and {paths[-1]} are"
        if many
        else f"submodule {paths[0]} is"
    )
    return (
        f"The {these} empty {words}: git keeps the files of a submodule in a repository of "
        f"{'their' if many else 'its'} own."
    )


def _unreadable(run: Run, then: CodeSide | None, now: CodeSide | None, problem: str) -> Against:
    return Against(
        name=_name(then, "another run"),
        now_name=_name(now, f"run {run.manifest.run_id}"),
        run=None,
        baseline=Baseline(key=dict(run.manifest.comparability), point={}),
        then=then,
        now=now,
        problem=problem,
    )


def _name(side: CodeSide | None, otherwise: str) -> str:
    if side is None:
        return otherwise
    if not side.commit:
        return "the working tree"
    base = side.asked.removeprefix("merge-base:")
    asked = side.asked if base == side.asked else f"the merge base with {base}"
    return side.commit[:7] if side.commit.startswith(asked) else f"{asked} ({side.commit[:7]})"


def _unmeasured(run: Run) -> Iterator[tuple[str, str]]:
    """Points whose runs of the earlier code say nothing about its memory; the first reason of each.

    Whether every run has its rows is asked of them as of any other run; here it is how they ended
    that counts.
    """
    census = count_runs(run)
    for point in run.points:
        for repeat in run.repeats_of(point.name):
            end = census.ends.get((point.name, repeat))
            if end is None:
                yield point.name, "it has no end there: it was never started, or lost"
                break
            if end.outcome is not point.expected:
                yield point.name, f"it ended {end.outcome} there{_expectation(point)}: {end.reason}"
                break


def _expectation(point: Point) -> str:
    return "" if point.expected is Outcome.OK else f", where {point.expected} is expected"


def _recorded(run: Run, unmeasured: Mapping[str, str]) -> dict[str, BaselinePoint]:
    read = [row.reading.meter for row in run.rows if row.reading is not None]
    meters = tuple(dict.fromkeys([*GATED_METERS, *read]))
    date = run.manifest.started.partition("T")[0]
    # Measured again, one lucky run must not decide for the earlier code, any more than an unlucky
    # one for the later.
    found = recorded_points(run, reason=_REASON, accepted=date, meters=meters, settled=median_low)
    return {name: point for name, point in found.items() if name not in unmeasured}
