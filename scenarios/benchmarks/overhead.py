"""What measuring costs: the loading scenario with the harness and without it, in pairs. Imports no
TensorFlow.
"""

import dataclasses
import os
from pathlib import Path
from statistics import median

from harness.records import TRACED_REPEAT, Job, Outcome, Point
from harness.run.launchers import QUIET, ChildOrder
from harness.run.runner import Runner
from scenarios.benchmarks.measured import HOST_LIMIT_BYTES, TIMEOUT_S, loading_point, open_runner

_IMAGE_COUNT = 32_768
"""Two epochs of 512 batches, some seconds: a study of the size that the lazy loader is for. The
looks at PSS and USS in a traced run take 0.14 s, whatever its length."""
_STACK_SIZE = 4_096  # the same scan as the feeds are raced on
_WAYS = ("bare", "measured", "traced")


def overhead(
    out: Path, workspace: Path, pairs: int
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Wall time of the body under the harness, over that of its neighbour without it, less 1:
    medians over ``pairs``.

    Figures ``overhead`` and ``overhead_traced``, and a table of batches a second. The first round
    warms up.
    """
    seconds_file = out / "seconds"
    point = _timed(
        loading_point(
            "lazy", image_count=_IMAGE_COUNT, stack_size=_STACK_SIZE, frame_size=64, batch_size=64
        ),
        seconds_file,
    )
    seconds: dict[str, list[float]] = {way: [] for way in _WAYS}
    with open_runner(out, workspace, [point], pairs + 1) as runner:
        for round_ in range(pairs + 1):
            # Turned around each time, so that nobody always comes after the same neighbour.
            for way in _WAYS if round_ % 2 else reversed(_WAYS):
                taken = _run(runner, point, way, round_, seconds_file)
                if round_:
                    seconds[way].append(taken)
    ratios = {
        way: median(b / a for a, b in zip(seconds["bare"], seconds[way], strict=True))
        for way in ("measured", "traced")
    }
    figures = {"overhead": ratios["measured"] - 1, "overhead_traced": ratios["traced"] - 1}
    batches = 2 * _IMAGE_COUNT / 64
    return figures, {
        "the scenario loading, batches/s": {
            way: batches / median(times) for way, times in seconds.items()
        }
    }


def _timed(point: Point, seconds_file: Path) -> Point:
    return dataclasses.replace(
        point,
        body="scenarios.benchmarks.timed:measure",
        inputs={**point.inputs, "seconds_file": str(seconds_file.resolve())},
    )


def _run(runner: Runner, point: Point, way: str, round_: int, seconds_file: Path) -> float:
    """Seconds of the body. Raises RuntimeError when it did not come to its end."""
    seconds_file.unlink(missing_ok=True)
    if way == "bare":
        _run_bare(runner, point)
    else:
        end = runner.measure(point, TRACED_REPEAT if way == "traced" else round_)
        if end.outcome is not Outcome.OK:
            raise RuntimeError(f"the {way} run ended {end.outcome}: {end.reason}")
    if not seconds_file.exists():
        raise RuntimeError(
            f"the {way} run did not come to its end; see {runner.run_directory / 'logs'}"
        )
    return float(seconds_file.read_text(encoding="utf-8"))


def _run_bare(runner: Runner, point: Point) -> None:
    """The body in a child like all others, but as a preparation: nothing is measured there."""
    device = runner.device
    order = ChildOrder(
        job=Job(
            point=point.name,
            repeat=0,
            body=None,
            prepare="scenarios.benchmarks.timed:bare",
            parameters={
                **point.fixed,
                **point.inputs,
                **point.parameters,
                "limit_bytes": device.memory_bytes,
            },
            workspace=str(runner.children.workspace.resolve()),
            rows_path=os.devnull,
            device=device.for_child(),
            host_limit_bytes=HOST_LIMIT_BYTES + device.memory_bytes,
        ),
        environment={**os.environ, **device.environment(), **QUIET},
        folder=runner.children.root,
        log=runner.run_directory / "logs" / "bare.log",
        timeout_s=TIMEOUT_S,
    )
    runner.launcher.run(order)
