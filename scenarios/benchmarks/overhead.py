"""What measuring costs: the loading scenario with the harness and without it, in pairs. Imports no
TensorFlow.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.records import TRACED_REPEAT, Job, Outcome, Point
from harness.run.launchers import QUIET, ChildOrder
from harness.run.runner import Runner
from scenarios.benchmarks.bars import limit_of
from scenarios.benchmarks.measured import HOST_LIMIT_BYTES, TIMEOUT_S, loading_point, open_runner
from scenarios.benchmarks.spread import Spread, until_settled

_IMAGE_COUNT = 32_768
"""Two epochs of 512 batches, some seconds: a study of the size that the lazy loader is for. The
looks at PSS and USS in a traced run take 0.14 s, whatever its length."""
_STACK_SIZE = 4_096  # the same scan as the feeds are raced on
_WAYS = ("bare", "measured", "traced")
_FIGURES = {"measured": "overhead", "traced": "overhead_traced"}
_MOST_TIMES = 3
"""Chosen: so many times the least number of pairs, some 9 minutes, before a figure that is not
resolved stays so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run of the body took, the edges of its phases included; as ``timed`` writes it."""

    wall_s: float
    user_s: float
    system_s: float
    faults: int
    """Minor page faults."""

    @property
    def cpu_s(self) -> float:
        """Processor time of the child, all threads together; noise of the machine moves it less."""
        return self.user_s + self.system_s


def overhead(
    out: Path, workspace: Path, least_pairs: int
) -> tuple[dict[str, Spread], dict[str, dict[str, float]]]:
    """Wall time of the body under the harness, over that of its neighbour without it, less 1:
    medians over pairs, with their spread.

    There are ``least_pairs``, and more while a spread reaches to both sides of its bar. Figures
    ``overhead`` and ``overhead_traced``; tables of batches a second and of where the time goes. The
    first round warms up.
    """
    cost_file = out / "cost.json"
    point = _timed(
        loading_point(
            "lazy", image_count=_IMAGE_COUNT, stack_size=_STACK_SIZE, frame_size=64, batch_size=64
        ),
        cost_file,
    )
    costs: dict[str, list[Cost]] = {way: [] for way in _WAYS}
    most_pairs = _MOST_TIMES * least_pairs
    with open_runner(out, workspace, [point], most_pairs + 1) as runner:

        def measure(round_: int) -> None:
            # Turned around each time, so that nobody always comes after the same neighbour.
            for way in _WAYS if round_ % 2 else reversed(_WAYS):
                costs[way].append(_run(runner, point, way, round_, cost_file))

        def is_settled() -> bool:
            return all(
                added(costs, way).lies_apart(limit_of(figure)) for way, figure in _FIGURES.items()
            )

        measure(0)
        for taken in costs.values():
            taken.clear()
        until_settled(measure, is_settled, least=least_pairs, most=most_pairs)

    figures = {figure: added(costs, way) for way, figure in _FIGURES.items()}
    return figures, _tables(costs)


def added(costs: Mapping[str, list[Cost]], way: str, amount: str = "wall_s") -> Spread:
    """What a way of running adds to the bare one: the ratios of neighbours, less 1."""
    return Spread.of(
        [
            getattr(taken, amount) / getattr(bare, amount) - 1
            for bare, taken in zip(costs["bare"], costs[way], strict=True)
        ]
    )


def _tables(costs: Mapping[str, list[Cost]]) -> dict[str, dict[str, float]]:
    batches = 2 * _IMAGE_COUNT / 64
    tables = {
        "the scenario loading, batches/s": {
            way: batches / median(cost.wall_s for cost in taken) for way, taken in costs.items()
        }
    }
    for way, taken in costs.items():
        tables[f"one run, {way}, ms and faults"] = {
            "wall": 1000 * median(cost.wall_s for cost in taken),
            "user": 1000 * median(cost.user_s for cost in taken),
            "system": 1000 * median(cost.system_s for cost in taken),
            "faults": median(cost.faults for cost in taken),
        }
    tables["processor time of the child, more than bare, 1/1000"] = {
        way: 1000 * added(costs, way, "cpu_s").value for way in _FIGURES
    }
    return tables


def _timed(point: Point, cost_file: Path) -> Point:
    return dataclasses.replace(
        point,
        body="scenarios.benchmarks.timed:measure",
        inputs={**point.inputs, "cost_file": str(cost_file.resolve())},
    )


def _run(runner: Runner, point: Point, way: str, round_: int, cost_file: Path) -> Cost:
    """What the body took. Raises RuntimeError when it did not come to its end."""
    cost_file.unlink(missing_ok=True)
    if way == "bare":
        _run_bare(runner, point)
    else:
        end = runner.measure(point, TRACED_REPEAT if way == "traced" else round_)
        if end.outcome is not Outcome.OK:
            raise RuntimeError(f"the {way} run ended {end.outcome}: {end.reason}")
    if not cost_file.exists():
        raise RuntimeError(
            f"the {way} run did not come to its end; see {runner.run_directory / 'logs'}"
        )
    return Cost(**json.loads(cost_file.read_text(encoding="utf-8")))


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
