"""A factory of run directories: run.json and rows.jsonl as the runner writes them, from plain
functions.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.commands.accept import accept
from harness.judge import Verdict
from harness.judge.gate import judge
from harness.judge.policy import Policy, read_policy
from harness.judge.table import load_run
from harness.records import SCHEMA_VERSION, Outcome, Point, Quality, Reading, to_json
from harness.rundir.reading import SEAL, seal_of
from harness.rundir.rows import PhaseRecord, RunEnd

KIB, MIB = 1024, 1024 * 1024
FRAME_BYTES = 64 * 64 * 4
BATCH_BYTES = 4 * MIB
ARRAYS_BYTES_PER_IMAGE = 327_680

LOADING_PHASES = ("open", "construct", "first_batch", "epoch_0", "epoch_1", "release")
ARRAYS_PHASES = ("arrays", *LOADING_PHASES[1:])
FIXED = {"frame_size": 64, "gridsize": 2, "batch_size": 64, "scan": "simulated, seed 0"}


@dataclass(frozen=True)
class Edges:
    """Start, peak and end of one reading, in bytes; ``bound`` is the upper bound of a bracketed
    peak.
    """

    start: int
    peak: int
    end: int
    bound: int | None = None


Amounts = Callable[[Point, int, str], Mapping[str, Edges | str]]
"""(point, repeat, phase) -> edges by meter; a text instead of edges is the reason why the meter is
unavailable."""


def loading_point(loader: str, image_count: int, stack_size: int = 2048, **changes: Any) -> Point:
    parameters = {"loader": loader, "image_count": image_count, "stack_size": stack_size}
    values: dict[str, Any] = {
        "scenario": "loading",
        "body": "scenarios.bodies.loading:measure",
        "parameters": parameters,
        "fixed": FIXED,
        "phases": LOADING_PHASES,
    }
    return Point(**(values | changes))


def arrays_point(loader: str, image_count: int) -> Point:
    return Point(
        scenario="arrays",
        body="scenarios.bodies.arrays:measure",
        parameters={"loader": loader, "image_count": image_count},
        fixed={"frame_size": 64, "gridsize": 2, "batch_size": 64},
        phases=ARRAYS_PHASES,
    )


def default_points() -> list[Point]:
    """The default sweep: loading over image count and stack size, arrays, and the two points of
    oom.
    """
    loaders = ("eager", "lazy")
    budget = {"scenario": "oom", "device_budget_bytes": 256 * MIB}
    return [
        *(loading_point(loader, count) for loader in loaders for count in (100, 500, 1000, 2000)),
        *(loading_point(loader, 500, 8192) for loader in loaders),
        *(arrays_point(loader, count) for loader in loaders for count in (100, 500, 1000)),
        loading_point("eager", 2000, expected=Outcome.DEVICE_OOM, **budget),
        loading_point("lazy", 2000, **budget),
    ]


def good_amounts(point: Point, repeat: int, phase: str) -> dict[str, Edges | str]:
    """What well-behaved loaders take: eager keeps its arrays, lazy nothing but a batch or two while
    it feeds.
    """
    count = int(point.parameters["image_count"] or 0)
    kept = ARRAYS_BYTES_PER_IMAGE * count if point.parameters["loader"] == "eager" else 0
    feeding = phase in ("first_batch", "epoch_0", "epoch_1")
    start = 0 if phase in ("open", "arrays", "construct") else kept
    end = 0 if phase in ("open", "arrays", "release") else kept
    peak = max(start, end) + 2 * BATCH_BYTES * feeding
    anon = 240 * MIB + 1000 * repeat
    return {
        "device_in_use": Edges(start, peak, end),
        # The emulated device's pages are host memory.
        "host_anon": Edges(anon + start, anon + peak + 2 * MIB, anon + end, anon + peak + 6 * MIB),
        "host_rss": Edges(anon + start, anon + peak + 2 * MIB, anon + end),
        "nvml_process": "there is no NVIDIA driver here",
    }


def images(point: Point) -> int:
    count = {**point.fixed, **point.parameters}["image_count"]
    assert isinstance(count, int)
    return count


def declared_amounts(point: Point) -> dict[str, int]:
    """What the bodies of the project declare, for N = 64 and C = 4."""
    return {
        "frame": FRAME_BYTES,
        "image": 4 * FRAME_BYTES,
        "batch": BATCH_BYTES,
        "arrays": ARRAYS_BYTES_PER_IMAGE * images(point),
    }


@dataclass
class SyntheticRun:
    """Builds one run directory; change its fields before ``write``."""

    path: Path
    points: Sequence[Point] = field(default_factory=default_points)
    repeats: int = 2
    amounts: Amounts = good_amounts
    ends: dict[tuple[str, int], tuple[Outcome, str, str | None]] = field(default_factory=dict)
    """(point, repeat) -> outcome, reason, phase it died in; by default each ends as it is expected
    to."""
    causes: dict[tuple[str, int], str] = field(default_factory=dict)
    """Causes of ends; none by default."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """Overrides of run.json."""
    further: dict[str, int] = field(default_factory=dict)
    """Repeats beyond the plan, announced, by point."""
    declared: Callable[[Point], dict[str, int]] = declared_amounts

    def plant(
        self,
        *,
        phase: str,
        meter: str,
        extra: Callable[[Point, int], int],
        loader: str = "lazy",
        keep: bool = False,
    ) -> "SyntheticRun":
        """Take ``extra(point, repeat)`` bytes more at the peak of one phase, kept to its end or
        given back.
        """
        base = self.amounts

        def amounts(point: Point, repeat: int, name: str) -> Mapping[str, Edges | str]:
            found = dict(base(point, repeat, name))
            edges = found.get(meter)
            if point.parameters["loader"] == loader and name == phase and isinstance(edges, Edges):
                more = extra(point, repeat)
                found[meter] = Edges(
                    edges.start,
                    edges.peak + more,
                    edges.end + more * keep,
                    edges.bound and edges.bound + more,
                )
            return found

        self.amounts = amounts
        return self

    def without_meter(self, meter: str, reason: str) -> "SyntheticRun":
        """Make a meter unavailable everywhere."""
        base = self.amounts
        self.amounts = lambda point, repeat, name: {**base(point, repeat, name), meter: reason}
        return self

    def keep_points(self, wanted: Callable[[Point], bool]) -> "SyntheticRun":
        """Plan only some of the points."""
        self.points = [point for point in self.points if wanted(point)]
        return self

    def rows(self) -> list[dict[str, Any]]:
        announced = [
            {"kind": "remeasure", "point": name, "repeats": number, "reason": "a finding"}
            for name, number in self.further.items()
        ]
        runs = [
            (point, repeat)
            for point in self.points
            for repeat in range(self.repeats + self.further.get(point.name, 0))
        ]
        return [
            *announced,
            *(row for point, repeat in runs for row in self._run_rows(point, repeat)),
        ]

    def write(self, rows: Sequence[dict[str, Any]] | None = None) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in (self.rows() if rows is None else rows))
        (self.path / "rows.jsonl").write_text(text)
        manifest = self.run_json()
        sealed = {} if manifest["ended"] is None else {SEAL: seal_of(manifest, text.encode())}
        (self.path / "run.json").write_text(json.dumps(manifest | sealed))
        return self.path

    def run_json(self) -> dict[str, Any]:
        comparability = {
            "device": "emulated",
            "device_memory_bytes": 4096 * MIB,
            "allocator": "bfc",
            "tensorflow": "2.21",
            "scan": "simulated, seed 0",
        }
        found = {
            "schema_version": SCHEMA_VERSION,
            "run_id": "20260101T000000Z-1",
            "started": "2026-01-01T00:00:00+00:00",
            "ended": "2026-01-01T00:03:00+00:00",
            "command": "pytest scenarios",
            "repeats": self.repeats,
            "environment": {"python": "3.11.9", "git_commit": "0123abcd", "git_dirty": False},
            "device": {
                "kind": "emulated",
                "name": "emulated",
                "uuid": None,
                "memory_bytes": 4096 * MIB,
                "allocator": "bfc",
                "driver": "none",
            },
            "comparability": comparability,
            "settings": {"repeats": self.repeats},
            "planned": [to_json(point) for point in self.points],
        }
        return found | self.manifest

    def _run_rows(self, point: Point, repeat: int) -> list[dict[str, Any]]:
        run: dict[str, Any] = {"point": point.name, "repeat": repeat}
        outcome, reason, died_in = self._end_of(point, repeat)
        found: list[dict[str, Any]] = [{"kind": "declared", **run, "values": self.declared(point)}]
        for index, phase in enumerate(point.phases):
            found.append({"kind": "begin", **run, "phase": phase, "index": index})
            if outcome is Outcome.CRASHED and phase == died_in:
                break
            readings = tuple(
                reading(meter, edges) for meter, edges in self.amounts(point, repeat, phase).items()
            )
            record = PhaseRecord(
                **run,
                phase=phase,
                index=index,
                finished=phase != died_in,
                duration_s=0.5,
                readings=readings,
            )
            found.append({"kind": "phase", **to_json(record)})
            if phase == died_in:
                break
        if outcome is not Outcome.CRASHED:
            found.append({"kind": "done", **run, "outcome": outcome, "cause": "", "reason": reason})
        how = {
            "outcome": outcome,
            "cause": self.causes.get((point.name, repeat), ""),
            "reason": reason,
        }
        end = RunEnd(**run, **how, phase=died_in, exit_code=0, launcher="spawn", duration_s=5.0)
        return [*found, {"kind": "end", **to_json(end)}]

    def _end_of(self, point: Point, repeat: int) -> tuple[Outcome, str, str | None]:
        if (point.name, repeat) in self.ends:
            return self.ends[point.name, repeat]
        if point.expected is Outcome.DEVICE_OOM:
            return Outcome.DEVICE_OOM, "the allocator refused 128 MiB", "construct"
        return point.expected, "", None


def reading(meter: str, edges: Edges | str) -> Reading:
    if isinstance(edges, str):
        return Reading.unavailable(meter, edges)
    return Reading(
        meter=meter,
        quality=Quality.BOUNDED if edges.bound is not None else Quality.EXACT,
        start_bytes=edges.start,
        peak_bytes=edges.peak,
        end_bytes=edges.end,
        peak_bound_bytes=edges.bound,
    )


Judge = Callable[..., Verdict]
"""(run, *, rows=None, partial=False) -> verdict of the run, written with these rows."""


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The policy of the project itself, without what it says of scenarios that the synthetic sweep
    does not have.
    """
    whole = read_policy(Path(__file__).parents[2] / "scenarios" / "gate.toml")
    swept = {point.scenario for point in default_points()}
    sections = ("slope", "growth_class", "budget", "leak", "arithmetic", "tolerance")
    return whole.model_copy(
        update={
            name: tuple(
                rule
                for rule in getattr(whole, name)
                if rule.scenarios is None or swept & set(rule.scenarios)
            )
            for name in sections
        }
    )


@pytest.fixture(scope="session")
def baselines(tmp_path_factory: pytest.TempPathFactory, policy: Policy) -> Path:
    """A folder that holds the accepted default sweep; only read."""
    folder = tmp_path_factory.mktemp("baselines")
    accept(
        load_run(SyntheticRun(tmp_path_factory.mktemp("accepted")).write()),
        policy,
        folder,
        reason="the first truth",
    )
    return folder


@pytest.fixture
def verdict_of(policy: Policy, baselines: Path) -> Judge:
    """Judge a synthetic run by the project's policy against the accepted default sweep."""

    def verdict_of(
        run: SyntheticRun, *, rows: Sequence[dict[str, Any]] | None = None, partial: bool = False
    ) -> Verdict:
        return judge(load_run(run.write(rows)), policy, baselines, partial=partial).verdict

    return verdict_of


@pytest.fixture
def synthetic_run(tmp_path: Path) -> SyntheticRun:
    """A default sweep in which everything is as it should be; not written yet."""
    return SyntheticRun(tmp_path / "run")


@pytest.fixture(scope="session")
def edges() -> type[Edges]:
    """Start, peak and end of one reading, for runs whose amounts are all a test's own."""
    return Edges
