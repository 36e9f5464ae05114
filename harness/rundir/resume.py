"""A run that is resumed: what it requires, what is there, whether the same thing would be measured
now, and which damage has to be set aside.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from harness.errors import RunDirectoryError, UsageError
from harness.records import (
    OVER_MACHINE,
    ROWS_FILE,
    TRACED_REPEAT,
    Outcome,
    Point,
    from_json,
    to_json,
)
from harness.rundir.manifest import (
    MeasuredDevice,
    comparability,
    describe_environment,
    read_manifest,
)
from harness.rundir.reading import Repeats, Rows, read_rows
from harness.rundir.rows import RunEnd, RunKey

# What a run requires: the phases that it must have gone through, and when it need not be measured
# again.


OUTSIDE_THE_BODY = frozenset({"preparation", "import", "rows"})
"""Causes of errors that happened before the body, or to what it measured."""


def required_phases(point: Point, outcome: Outcome, phase: str | None) -> tuple[str, ...]:
    """The phases that a run must have finished: all when it ended ok, of one that died in ``phase``
    those before it.
    """
    if outcome is Outcome.OK:
        return point.phases
    return point.phases[: point.phases.index(phase)] if phase in point.phases else ()


def missing_phases(point: Point, end: RunEnd, finished: Collection[str]) -> tuple[str, ...]:
    """Those of them that are not in ``finished``, in their order."""
    required = required_phases(point, end.outcome, end.phase)
    return tuple(phase for phase in required if phase not in finished)


def is_measured(rows: Rows, point: Point, repeat: int) -> bool:
    """Whether the run has an end that can be judged, with every row that it requires. A death is
    one: it would happen again.

    A run that never came to its body (no device, no input), or whose rows could not be written, has
    measured nothing; one that was ended because the machine's memory ran out may fit where others
    hold less of it.
    """
    run = (point.name, repeat)
    end = rows.ends.get(run)
    if end is None or end.outcome is Outcome.SKIPPED or end.cause == OVER_MACHINE:
        return False
    if end.outcome is Outcome.ERROR and end.cause in OUTSIDE_THE_BODY:
        return False
    if end.outcome is Outcome.OK and rows.done.get(run) is not Outcome.OK:
        return False

    records = (rows.phases.get((*run, phase)) for phase in point.phases)
    finished = [record.phase for record in records if record is not None and record.finished]
    return not missing_phases(point, end, finished)


DAMAGED_FILE = "rows.damaged"
"""In a run directory: lines of rows.jsonl that were cut short, set aside when the run was
resumed."""

# What must be the same for all runs of one directory: keys of run.json's environment, and what to
# do where they differ.
_SAME = {
    "git_commit": "check that commit out, or start a new run",
    "git_changes": "bring the changes to tracked files back to what they were, or start a new run",
    **dict.fromkeys(
        ("python", "tensorflow", "keras", "numpy", "h5py", "machine", "platform", "cpu_count"),
        "go on where it was started, or start a new run",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """What is there of a run: decided once, by the process that the user started, and handed to its
    workers.
    """

    directory: str
    repeats: Repeats
    """How often each point is to be measured, those repeats included that were announced later."""
    points: tuple[Point, ...] = ()
    """What is planned and announced; not handed to workers, who have collected the same."""
    planned: tuple[str, ...]
    """Names of the points that run.json plans, and those that were announced since."""
    asked: tuple[str, ...]
    """Tests that say only when they run what they measure."""
    repeats_given: bool
    """Whether an option had said how often, which goes before what a test says of its own
    points."""
    traced: tuple[str, ...]
    """Points that are to have a traced run."""
    measured: frozenset[RunKey]
    """Runs with an end that can be judged, the traced ones included."""
    void: frozenset[RunKey]
    """Runs that left rows, and have to be measured from their start again."""

    @property
    def further(self) -> Mapping[str, int]:
        """Repeats that were announced because a point offended, by its name."""
        return self.repeats.further

    def repeats_of(self, point: str) -> range:
        """The numbers of the repeats that a point requires."""
        return self.repeats.of(point)

    def lacks(self, point: str, repeat: int) -> bool:
        """Whether this run is planned, and not measured yet."""
        required = (
            point in self.traced
            if repeat == TRACED_REPEAT
            else point in self.planned and repeat in self.repeats_of(point)
        )
        return required and (point, repeat) not in self.measured

    @property
    def most_repeats(self) -> int:
        """Repeats of the point that requires most of them."""
        counts = (len(self.repeats_of(point)) for point in self.planned)
        return max(counts, default=self.repeats.planned)

    @property
    def run_count(self) -> int:
        """Runs that the complete run has, traced ones included."""
        return sum(len(self.repeats_of(point)) for point in self.planned) + len(self.traced)

    def to_json(self) -> str:
        """As text, for a worker."""
        handed = {
            **to_json(replace(self, points=())),
            "measured": sorted(self.measured),
            "void": sorted(self.void),
        }
        return json.dumps(handed)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote."""
        found = json.loads(text)
        return cls(
            directory=found["directory"],
            repeats=from_json(Repeats, found["repeats"]),
            planned=tuple(found["planned"]),
            asked=tuple(found["asked"]),
            repeats_given=found["repeats_given"],
            traced=tuple(found["traced"]),
            measured=frozenset((point, repeat) for point, repeat in found["measured"]),
            void=frozenset((point, repeat) for point, repeat in found["void"]),
        )


def read_resumption(path: Path) -> Resumption:
    """What is there of the run in ``path``. Raises RunDirectoryError where it is no run directory,
    or damaged.
    """
    manifest = read_manifest(path)
    rows = read_rows(path / ROWS_FILE, manifest.planned, manifest.repeats)
    traces = bool(manifest.settings.get("traces", False))
    measured = measured_runs(rows)
    left_rows = {
        *rows.begun,
        *rows.declared,
        *rows.done,
        *rows.ends,
        *((point, repeat) for point, repeat, _ in rows.phases),
    }
    return Resumption(
        directory=str(path),
        repeats=rows.repeats,
        points=rows.points,
        planned=tuple(point.name for point in rows.points),
        asked=manifest.asked,
        repeats_given=bool(manifest.settings.get("repeats_given", True)),
        traced=tuple(point.name for point in rows.points if traces and point.traced),
        measured=measured,
        void=frozenset(left_rows - measured),
    )


def measured_runs(rows: Rows) -> frozenset[RunKey]:
    """The runs that need not be measured again. A trace that ended, with a file or without, is one:
    it would end so again.
    """
    found = {
        (p.name, repeat)
        for p in rows.points
        for repeat in rows.repeats_of(p.name)
        if is_measured(rows, p, repeat)
    }
    return frozenset(found | {(point, TRACED_REPEAT) for point in rows.traces})


def settings_of(path: Path) -> dict[str, Any]:
    """The options that the run in ``path`` was started with, by their names in pytest's
    configuration.
    """
    manifest = read_manifest(path)
    settings = manifest.settings
    return {
        "memory_repeats": manifest.repeats,
        "memory_device": settings.get("device"),
        "memory_device_budget": manifest.device.limit_bytes,
        "memory_growth": bool(settings.get("growth", False)),
        "memory_isolation": settings.get("isolation"),
        "memory_host_budget": settings.get("host_limit_bytes"),
        "memory_timeout": settings.get("timeout_s"),
        "memory_no_trace": not settings.get("traces", False),
        "memory_against": settings.get("against"),
        "memory_revision": settings.get("revision"),
    }


def check_same_here(
    path: Path, device: MeasuredDevice, root: Path, *, what: str = "be resumed"
) -> None:
    """Refuse to mix two things in one run: raises UsageError when device, versions or code are not
    what they were.
    """
    manifest = read_manifest(path)
    measured = manifest.comparability
    for key, value in comparability(device).items():
        if measured.get(key) != value:
            raise UsageError(
                f"{path} cannot {what}: it was measured with {key} {measured.get(key)!r}, and "
                f"here it is {value!r}"
            )

    available = device.for_manifest()
    if manifest.device.uuid not in {available["uuid"], *available["equals"]}:
        raise UsageError(
            f"{path} cannot {what}: it was measured on the card {manifest.device.uuid}, and "
            f"here it is {available['uuid']}"
        )

    here = describe_environment(root, isolation="")
    for key, remedy in _SAME.items():
        before = manifest.environment.get(key)
        if before is not None and before != here[key]:
            raise UsageError(
                f"{path} cannot {what}: it was measured with {key} {before}, and here it is "
                f"{here[key]}; {remedy}"
            )


def check_plan(path: Path, collected: Sequence[Point]) -> None:
    """Raises UsageError when a point that the run planned is not collected now, or is another one
    of the same name.
    """
    manifest, found = read_manifest(path), {point.name: point for point in collected}
    absent = [point.name for point in manifest.planned if point.name not in found]
    if absent:
        raise UsageError(
            f"{path} cannot be resumed: {len(absent)} of its {len(manifest.planned)} "
            f"planned points are not among those collected now, the first is {absent[0]}; "
            f"repeat the options that choose points (it was started as: {manifest.command})"
        )

    changed = [point for point in manifest.planned if found[point.name] != point]
    if changed:
        differs = next(
            key
            for key in Point.__slots__
            if getattr(changed[0], key) != getattr(found[changed[0].name], key)
        )
        raise UsageError(
            f"{path} cannot be resumed: the point {changed[0].name} is defined differently "
            f"now ({differs}); start a new run for it"
        )


def set_damage_aside(path: Path) -> int:
    """Move lines that were cut short out of rows.jsonl, so that a finished run can be judged; how
    many they were.

    Raises RunDirectoryError when they cannot be moved; then rows.jsonl is as it was.
    """
    rows = path / ROWS_FILE
    try:
        lines = rows.read_bytes().split(b"\n")
        damaged = [line for line in lines if line and not _is_row(line)]
        if not damaged and lines[-1] == b"":
            return 0

        usable = [line for line in lines if line and _is_row(line)]
        with (path / DAMAGED_FILE).open("ab") as file:
            file.write(b"".join(line + b"\n" for line in damaged))
        repaired = rows.with_name(f".{ROWS_FILE}.repaired")
        repaired.write_bytes(b"".join(line + b"\n" for line in usable))
        repaired.replace(rows)
    except OSError as error:
        raise RunDirectoryError(
            f"{rows} has lines that were cut short and cannot be set aside: {error.strerror}"
        ) from error
    return len(damaged)


def _is_row(line: bytes) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, Mapping) and isinstance(row.get("kind"), str)
