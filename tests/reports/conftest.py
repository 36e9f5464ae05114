"""Synthetic run directories with known numbers, from nothing to a whole sweep; no TensorFlow, no
device.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.judge import Check, FindingKind, Verdict
from harness.judge.advice import Commands
from harness.judge.causes.telling import causes_of
from harness.judge.completeness import count_runs, read_traces
from harness.judge.gate import Judgement
from harness.judge.growth import fit_run
from harness.judge.policy import Policy
from harness.judge.rules.evidence import Evidence
from harness.judge.table import Run, declared_by_point, load_run, readings_by_place
from harness.records import SCHEMA_VERSION, Outcome, Point, Quality, Reading, to_json
from harness.rundir.reading import SEAL, seal_of
from harness.rundir.rows import PhaseRecord, RunEnd
from harness.words import GIB, KIB, MIB
from reports.writing import write_outputs

PHASES = ("open", "construct", "first_batch", "epoch_0", "epoch_1", "release")
NVML_REASON = "no NVIDIA driver library (libnvidia-ml.so.1) on this machine"
BATCH_BYTES = 4 * MIB
ARRAY_BYTES_PER_IMAGE = 327_680
PEAK_BYTES_PER_IMAGE = 735_000


def point(
    loader: str,
    image_count: int,
    stack_size: int | None = 2048,
    scenario: str = "loading",
    **more: Any,
) -> Point:
    """A point of a loader scenario; ``more`` are fields of Point."""
    parameters = {"loader": loader, "image_count": image_count}
    return Point(
        scenario=scenario,
        body="scenarios.bodies.loading:measure",
        parameters=parameters if stack_size is None else {**parameters, "stack_size": stack_size},
        fixed={"frame_size": 64, "gridsize": 2, "batch_size": 64},
        **{"phases": PHASES if stack_size else PHASES[1:], **more},
    )


def device_bytes(cell: Point, phase: str) -> tuple[int, int, int]:
    """Start, peak and end of the device over a phase: the eager loader keeps its arrays, the lazy
    one two batches.
    """
    images = int(cell.parameters["image_count"])
    if cell.parameters.get("loader") == "eager":
        kept = images * ARRAY_BYTES_PER_IMAGE + 4 * KIB
        return {
            "open": (0, 0, 0),
            "construct": (0, images * PEAK_BYTES_PER_IMAGE, kept),
            "release": (kept, kept, 0),
        }.get(phase, (kept, kept + 2 * BATCH_BYTES, kept))
    batches = {"first_batch": 2, "epoch_0": 3, "epoch_1": 3}.get(phase, 0)
    return 0, batches * BATCH_BYTES, 0


def host_bytes(cell: Point, phase: str, repeat: int) -> tuple[int, int, int]:
    """Start, peak and end of host anonymous memory, with a run-to-run spread of 512 KiB."""
    images, base = int(cell.parameters["image_count"]), 232 * MIB
    wobble = repeat * 512 * KIB
    if cell.parameters.get("loader") == "eager" and phase == "construct":
        return base, base + images * ARRAY_BYTES_PER_IMAGE + wobble, base + images * 16 * KIB
    growth = {"open": 1, "construct": 10, "first_batch": 14, "epoch_0": 18, "epoch_1": 12}.get(
        phase, 0
    ) * MIB
    return base, base + growth + (wobble if growth else 0), base + growth // 8


def readings(cell: Point, phase: str, repeat: int) -> tuple[Reading, ...]:
    """All five meters: one exact, one bounded, one exact, two unavailable."""
    start, peak, end = device_bytes(cell, phase)
    host_start, host_peak, host_end = host_bytes(cell, phase, repeat)
    rest = 30 * MIB
    return (
        Reading(
            meter="device_in_use",
            quality=Quality.EXACT,
            start_bytes=start,
            peak_bytes=peak,
            end_bytes=end,
        ),
        Reading(
            meter="host_anon",
            quality=Quality.BOUNDED,
            start_bytes=host_start,
            peak_bytes=host_peak,
            peak_bound_bytes=host_peak + 256 * KIB,
            end_bytes=host_end,
            samples=40,
            largest_gap_s=0.004,
        ),
        Reading(
            meter="host_rss",
            quality=Quality.EXACT,
            start_bytes=host_start + rest,
            peak_bytes=host_peak + rest,
            end_bytes=host_end + rest,
        ),
        Reading.unavailable("nvml_device_used", NVML_REASON),
        Reading.unavailable("nvml_process", NVML_REASON),
    )


@dataclass
class Sweep:
    """What a synthetic run planned and how each of its points ended; written by ``write``."""

    points: tuple[Point, ...]
    repeats: int = 2
    deaths: dict[str, tuple[Outcome, str, str]] = field(default_factory=dict)
    """By name of the point: outcome, phase it died in, reason."""
    missing: frozenset[str] = frozenset()
    """Points of which nothing was recorded."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Entries of run.json that are not as usual."""

    def rows(self) -> Iterable[dict[str, Any]]:
        """The rows of every run, as the worker and its parent write them."""
        for cell in self.points:
            for repeat in range(0 if cell.name in self.missing else self.repeats):
                yield from self._run(cell, repeat)

    def _run(self, cell: Point, repeat: int) -> Iterable[dict[str, Any]]:
        key = {"point": cell.name, "repeat": repeat}
        outcome, died_in, reason = self.deaths.get(cell.name, (Outcome.OK, None, ""))
        kept = int(cell.parameters["image_count"]) * ARRAY_BYTES_PER_IMAGE
        yield {
            "kind": "declared",
            **key,
            "values": {"frame": 16_384, "image": 65_536, "batch": BATCH_BYTES, "arrays": kept},
        }
        for index, phase in enumerate(cell.phases):
            yield {"kind": "begin", **key, "phase": phase, "index": index}
            if phase == died_in:
                break
            record = PhaseRecord(
                **key,
                phase=phase,
                index=index,
                finished=True,
                duration_s=0.25,
                readings=readings(cell, phase, repeat),
            )
            yield {"kind": "phase", **to_json(record)}
        if outcome is Outcome.OK:
            yield {"kind": "done", **key, "outcome": "ok", "cause": "", "reason": ""}
        end = RunEnd(
            **key,
            outcome=outcome,
            cause="",
            reason=reason,
            phase=died_in,
            exit_code=0,
            launcher="spawn",
            duration_s=6.5,
        )
        yield {"kind": "end", **to_json(end)}

    def manifest(self) -> dict[str, Any]:
        """run.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": "2026-11-23T20-00-00-1a2b3c",
            "started": "2026-11-23T20:00:00+00:00",
            "ended": "2026-11-23T20:03:41+00:00",
            "command": "python -m harness gate --repeats 2",
            "repeats": self.repeats,
            "environment": {
                "python": "3.11.9",
                "platform": "Linux-6.1-x86_64",
                "tensorflow": "2.21.0",
                "git_commit": "e559833c0ffee",
                "git_dirty": False,
                "isolation": "spawn",
            },
            "device": {
                "kind": "emulated",
                "name": "CPU with the BFC allocator",
                "uuid": None,
                "memory_bytes": 4 * GIB,
                "allocator": "bfc",
                "driver": "none: no NVIDIA driver",
            },
            "comparability": {
                "device": "emulated",
                "allocator": "bfc",
                "device_memory_bytes": 4 * GIB,
                "tensorflow": "2.21",
            },
            "settings": {"repeats": self.repeats, "scan": "simulated, seed 0"},
            "planned": [to_json(cell) for cell in self.points],
            **self.changes,
        }

    def write(self, folder: Path) -> Run:
        """The run as a directory, read back as the judge reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in self.rows())
        (folder / "rows.jsonl").write_text(text)
        manifest = self.manifest()
        (folder / "run.json").write_text(
            json.dumps({**manifest, SEAL: seal_of(manifest, text.encode())})
        )
        return load_run(folder)


def whole_sweep() -> Sweep:
    """Both loaders over four sizes and two stacks, from arrays too, and the eager one out of memory
    at 256 MiB.
    """
    loaders = ("eager", "lazy")
    budget = {"scenario": "oom", "device_budget_bytes": 256 * MIB}
    dying = point("eager", 2000, expected=Outcome.DEVICE_OOM, **budget)
    reason = "asked for 250.0 MiB with 62.5 MiB in use, of 256.0 MiB"
    return Sweep(
        points=(
            *(point(loader, images) for loader in loaders for images in (100, 500, 1000, 2000)),
            *(point(loader, 500, 8192) for loader in loaders),
            *(
                point(loader, images, None, "arrays")
                for loader in loaders
                for images in (100, 500, 1000)
            ),
            dying,
            point("lazy", 2000, **budget),
        ),
        deaths={dying.name: (Outcome.DEVICE_OOM, "construct", reason)},
    )


@pytest.fixture
def sweep() -> Sweep:
    return whole_sweep()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Read it, do not change it: drawing is slow enough to be done once for all tests."""
    return whole_sweep().write(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="session")
def whole_path(whole_run: Run) -> Path:
    """The page of the whole run, with one finding and one check that holds."""
    return write_outputs(whole_run, judgement_of(whole_run, FINDING, HELD), page=True)


@pytest.fixture
def only() -> Callable[..., Sweep]:
    """The whole sweep, cut down to the points that a predicate keeps."""

    def cut(keep: Callable[[Point], bool], **changes: Any) -> Sweep:
        full = whole_sweep()
        return replace(full, points=tuple(cell for cell in full.points if keep(cell)), **changes)

    return cut


def judgement_of(run: Run, *checks: Check) -> Judgement:
    """A judgement of given checks, with the fits that the run allows, and the causes."""
    evidence = Evidence(
        run=run,
        policy=Policy(schema_version=1),
        fits={},
        readings=readings_by_place(run),
        declared=declared_by_point(run),
        census=count_runs(run),
        baseline=None,
        against=None,
        baselines_folder=Path("none"),
        traces=lambda: read_traces(run).found,
        partial=False,
        commands=Commands.of(run.path, run.manifest),
    )
    return Judgement(Verdict(checks), fit_run(run), causes=causes_of(checks, evidence))


FINDING = Check(
    rule="slope",
    subject="loading / lazy / construct / device in use",
    sentence=(
        "loading / lazy / construct / device in use: grows by 65,536 B per image, limit 1,024."
    ),
    finding=FindingKind.REGRESSION,
    scenario="loading",
    phase="construct",
    meter="device_in_use",
    measured=65_536,
    limit=1024,
    bound="upper",
    unit="B/image",
    because="1/64 of X of one image.",
)
HELD = Check(
    rule="budget",
    subject="loading / lazy",
    sentence="loading / lazy: peaks at 3 batches, limit 4.",
    because="Read-ahead.",
)


@pytest.fixture
def judged() -> Callable[..., Judgement]:
    return judgement_of


@pytest.fixture
def finding() -> Check:
    return FINDING


@pytest.fixture
def held() -> Check:
    return HELD


class Reader(HTMLParser):
    """What a browser would see of a page: text, headings, tables, ids and attributes; and whether
    all tags are closed.
    """

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.texts.append((inside, " ".join(data.split())))
        if inside in {"td", "th"}:
            self.rows[-1][-1] += data

    def text(self, *tags: str) -> str:
        """All text, or that directly inside the given tags; style sheets and scripts left out."""
        return " ".join(
            text
            for tag, text in self.texts
            if text and tag not in {"style", "script"} and (not tags or tag in tags)
        )

    def values(self, name: str) -> list[str]:
        """The values of an attribute, in order."""
        return [value for _, found, value in self.attributes if found == name]


@pytest.fixture
def read_text() -> Callable[[str], Reader]:
    return Reader


@pytest.fixture
def read_page() -> Callable[[Path], Reader]:
    return lambda path: Reader(path.read_text(encoding="utf-8"))
