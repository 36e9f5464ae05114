"""What measuring costs: the loading scenario with the harness and without it, in turns in one
process. Imports no TensorFlow.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.records import Outcome, Point
from harness.run.runner import Runner
from scenarios.benchmarks.bars import limit_of
from scenarios.benchmarks.measured import loading_point, open_runner
from scenarios.benchmarks.spread import Spread, until_settled

_IMAGE_COUNT = 32_768
"""Two epochs of 512 batches, some seconds: a study of the size that the lazy loader is for. The
looks at PSS and USS in a traced run take 0.07 to 0.14 s, whatever its length."""
_STACK_SIZE = 4_096  # the same scan as the feeds are raced on
_BATCH_SIZE = 64
_WAYS = ("bare", "measured", "traced")
_FIGURES = {"measured": "overhead", "traced": "overhead_traced"}
_ROUNDS = 5
"""Of one child. Chosen: with the one that warms up 40 s, so that a child stays under its
time-out."""
_MOST_TIMES = 4
"""Chosen: so many times the least number of rounds, some 8 minutes, before a figure that is not
resolved stays so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one turn of the body took, the edges of its phases included; as ``timed`` writes it."""

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
    out: Path, workspace: Path, least_rounds: int
) -> tuple[dict[str, Spread], dict[str, dict[str, float]]]:
    """Wall time of the body under the harness, over that of its neighbour without it, less 1:
    medians over rounds, with their spread.

    The neighbours are in one process: what differs from process to process (where its memory lies,
    what it found in caches) is no cost of the harness. There are ``least_rounds``, and more while a
    spread reaches to both sides of its bar. Figures ``overhead`` and ``overhead_traced``; tables of
    batches a second and of where the time goes. Raises RuntimeError when a child does not come to
    its end.
    """
    cost_file = out / "cost.json"
    point = dataclasses.replace(
        loading_point(
            "lazy",
            image_count=_IMAGE_COUNT,
            stack_size=_STACK_SIZE,
            frame_size=64,
            batch_size=_BATCH_SIZE,
        ),
        body="scenarios.benchmarks.timed:in_turns",
    )
    costs: dict[str, list[Cost]] = {way: [] for way in _WAYS}
    least = -(-least_rounds // _ROUNDS)
    with open_runner(out, workspace, [point], _MOST_TIMES * least + 1) as runner:
        timed = dataclasses.replace(
            point,
            inputs={**point.inputs, "cost_file": str(cost_file.resolve())},
            fixed={
                **point.fixed,
                "rounds": _ROUNDS,
                "limit_bytes": runner.device.memory_bytes,
            },
        )

        def measure(number: int) -> None:
            for way, taken in _run(runner, timed, number, cost_file).items():
                costs[way] += taken

        def is_settled() -> bool:
            return all(
                added(costs, way).lies_apart(limit_of(figure)) for way, figure in _FIGURES.items()
            )

        until_settled(measure, is_settled, least=least, most=_MOST_TIMES * least, step=1)

    return {figure: added(costs, way) for way, figure in _FIGURES.items()}, _tables(costs)


def added(costs: Mapping[str, list[Cost]], way: str, amount: str = "wall_s") -> Spread:
    """What a way of running adds to the bare one: the ratios of neighbours, less 1."""
    return Spread.of(
        [
            getattr(taken, amount) / getattr(bare, amount) - 1
            for bare, taken in zip(costs["bare"], costs[way], strict=True)
        ]
    )


def _tables(costs: Mapping[str, list[Cost]]) -> dict[str, dict[str, float]]:
    batches = 2 * _IMAGE_COUNT / _BATCH_SIZE
    tables = {
        "the scenario loading, batches/s": {
            way: batches / median(cost.wall_s for cost in taken) for way, taken in costs.items()
        }
    }
    for way, taken in costs.items():
        tables[f"one turn, {way}, ms and faults"] = {
            "wall": 1000 * median(cost.wall_s for cost in taken),
            "user": 1000 * median(cost.user_s for cost in taken),
            "system": 1000 * median(cost.system_s for cost in taken),
            "faults": median(cost.faults for cost in taken),
        }
    for way in _FIGURES:
        spread = added(costs, way, "cpu_s")
        tables[f"processor time of the child, {way}, more than bare, 1/1000"] = {
            "median": 1000 * spread.value,
            "low": 1000 * spread.low,
            "high": 1000 * spread.high,
        }
    return tables


def _run(runner: Runner, point: Point, number: int, cost_file: Path) -> dict[str, list[Cost]]:
    """What the turns of one child took, by way. Raises RuntimeError when it did not come to its
    end.
    """
    cost_file.unlink(missing_ok=True)
    end = runner.measure(point, number)
    if end.outcome is not Outcome.OK or not cost_file.exists():
        raise RuntimeError(
            f"a child ended {end.outcome}: {end.reason}; see {runner.run_directory / 'logs'}"
        )
    found = json.loads(cost_file.read_text(encoding="utf-8"))
    return {way: [Cost(**cost) for cost in found[way]] for way in _WAYS}
