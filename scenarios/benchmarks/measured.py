"""Figures of memory, by the harness: slopes over images and frames, and the dense study under 16
MiB. Imports no TensorFlow.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.judge.growth import fit_run
from harness.judge.table import load_run
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Outcome, Point, Scalar
from harness.run.cards import choose_device
from harness.run.launchers import Sampling, open_launcher
from harness.run.runner import ChildSettings, Runner
from harness.rundir.manifest import start_run
from harness.rundir.rows import PhaseRecord
from harness.words import GIB, MIB
from scenarios.benchmarks.large import BATCH_SIZE, FRAME_COUNT, FRAME_SIZE, IMAGE_COUNT, path_in
from scenarios.catalog import SCENARIOS

STUDY_BUDGET_BYTES = 16 * MIB
_IMAGE_COUNTS, _STACK_SIZES = (2_048, 8_192, 16_384), (2_048, 8_192, 32_768)
"""A factor of 8 and of 16, so that a spread of 0.1 MiB between runs is 7 B for an image and 3 B for
a frame."""
_REPEATS = 3
HOST_LIMIT_BYTES = 4 * GIB
TIMEOUT_S = 600.0


def slopes(run_directory: Path, workspace: Path) -> dict[str, float]:
    """Steepest growth of any phase of the lazy loader: upper end of the 95 % interval, bytes for
    each image and each frame.
    """
    points = [
        loading_point(
            "lazy", image_count=count, stack_size=max(_IMAGE_COUNTS), frame_size=64, batch_size=64
        )
        for count in _IMAGE_COUNTS
    ]
    points += [
        loading_point("lazy", image_count=2_000, stack_size=size, frame_size=64, batch_size=64)
        for size in _STACK_SIZES
    ]
    _run(run_directory, workspace, points, _REPEATS)
    steepest: dict[tuple[str, str], float] = {}
    for fit in fit_run(load_run(run_directory)):
        if fit.field == "growth":
            key = (fit.series.over, fit.meter)
            steepest[key] = max(steepest.get(key, 0.0), fit.line.slope_high)
    return {
        "slope_device": steepest["image_count", DEVICE_IN_USE],
        "slope_host": steepest["image_count", HOST_ANON],
        "slope_stack_device": steepest["stack_size", DEVICE_IN_USE],
        "slope_stack_host": steepest["stack_size", HOST_ANON],
    }


def study(run_directory: Path, workspace: Path) -> tuple[dict[str, float], list[str]]:
    """The dense study from disk, lazy and eager, on a device of 16 MiB: figures, and how each
    ended.
    """
    sizes = {
        "image_count": IMAGE_COUNT,
        "stack_size": FRAME_COUNT,
        "frame_size": FRAME_SIZE,
        "batch_size": BATCH_SIZE,
    }
    inputs = {"scan_file": str(path_in(workspace).resolve())}
    points = [
        loading_point(loader, **sizes, inputs=inputs, budget_bytes=STUDY_BUDGET_BYTES)
        for loader in ("lazy", "eager")
    ]
    ends = _run(run_directory, workspace, points, 1)
    lazy = [record for record in _phases(run_directory) if "-lazy-" in record.point]
    figures = {"study_eager": float(ends[1] == Outcome.DEVICE_OOM)}
    if ends[0] is Outcome.OK:
        epochs = [record for record in lazy if record.phase.startswith("epoch")]
        figures["study_peak"] = (
            max(_bytes(record, DEVICE_IN_USE, "peak_bytes") for record in epochs) / MIB
        )
        start = _bytes(lazy[0], HOST_ANON, "start_bytes")
        figures["study_host"] = (
            max(_bytes(record, HOST_ANON, "peak_bytes") for record in lazy) - start
        ) / MIB
    return figures, [
        f"{loader}: {end}" for loader, end in zip(("lazy", "eager"), ends, strict=True)
    ]


def loading_point(
    loader: str,
    *,
    image_count: int,
    stack_size: int,
    frame_size: int,
    batch_size: int,
    inputs: dict[str, str] | None = None,
    budget_bytes: int | None = None,
) -> Point:
    """A point of the scenario ``loading`` at sizes of one's own."""
    loading = SCENARIOS[0]
    parameters: dict[str, Scalar] = {
        "loader": loader,
        "image_count": image_count,
        "stack_size": stack_size,
    }
    return Point(
        scenario=loading.name,
        body=loading.body,
        prepare=loading.prepare,
        phases=loading.phases,
        parameters=parameters,
        fixed={"frame_size": frame_size, "gridsize": 2, "batch_size": batch_size},
        inputs=inputs or {},
        device_budget_bytes=budget_bytes,
    )


@contextmanager
def open_runner(
    run_directory: Path,
    workspace: Path,
    points: list[Point],
    repeats: int,
    sampling: Sampling | None = None,
) -> Iterator[Runner]:
    """A runner on the emulated device, whose run directory plans ``points``; with a sampler of its
    own, or with ``sampling``.
    """
    root = Path.cwd()
    device = choose_device("cpu")
    launcher = open_launcher("auto", environment=os.environ, folder=root)
    try:
        start_run(
            run_directory,
            points=points,
            repeats=repeats,
            device=device,
            command="benchmarks",
            root=root,
            settings={},
        )
        runner = Runner(
            run_directory=run_directory,
            device=device,
            launcher=launcher,
            children=ChildSettings(
                root=root,
                workspace=workspace,
                host_limit_bytes=HOST_LIMIT_BYTES,
                timeout_s=TIMEOUT_S,
            ),
            sampling=sampling or Sampling(),
        )
        try:
            yield runner
        finally:
            runner.close()
    finally:
        launcher.close()


def _run(run_directory: Path, workspace: Path, points: list[Point], repeats: int) -> list[Outcome]:
    """Measure every point, each run in a child of its own; how the first run of each ended."""
    with open_runner(run_directory, workspace, points, repeats) as runner:
        ends = [[runner.measure(point, repeat) for repeat in range(repeats)] for point in points]
    return [of_point[0].outcome for of_point in ends]


def _phases(run_directory: Path) -> Iterator[PhaseRecord]:
    for line in (run_directory / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "phase":
            yield PhaseRecord.from_json(row)


def _bytes(record: PhaseRecord, meter: str, field: str) -> int:
    value = next(getattr(reading, field) for reading in record.readings if reading.meter == meter)
    return int(value)
