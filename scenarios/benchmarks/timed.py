"""The loading scenario with a watch around it, in turns in one process: without the harness's
meters, with those of a measured run, and with those of the traced one.
"""

import contextlib
import json
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.measure import Memory, MeterContext
from harness.measure.host_meter import SharesMeter
from harness.measure.tracing import Tracer
from scenarios.bodies import loading
from scenarios.bodies.memory import Memory as Phases

WAYS = ("bare", "measured", "traced")


class Unmeasured:
    """Phases that nobody reads: what the body costs by itself."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The block, and nothing else."""
        del name
        yield

    def declare(self, **amounts_bytes: int) -> None:
        """Nobody asks."""


class Renamed:
    """The phases of a run, under names that end in their turn, since a run has each name once."""

    def __init__(self, memory: Memory, turn: int) -> None:
        self._memory = memory
        self._turn = turn
        self.workspace = memory.workspace

    def phase(self, name: str) -> contextlib.AbstractContextManager[None]:
        """As the run has it."""
        return self._memory.phase(f"{name}_{self._turn}")

    def declare(self, **amounts_bytes: int) -> None:
        """As the run has it."""
        self._memory.declare(**amounts_bytes)


def in_turns(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """The body of ``loading`` each way, ``parameters["rounds"]`` times after one to warm up.

    What each turn took of this process goes to ``parameters["cost_file"]``, by way, as a list. The
    ways turn their order around each time, so that none always comes after the same neighbour.
    """
    costs: dict[str, list[Mapping[str, float]]] = {way: [] for way in WAYS}
    for turn in range(parameters["rounds"] + 1):
        for way in WAYS if turn % 2 else reversed(WAYS):
            taken = _TURNS[way](memory, parameters, turn)
            if turn:
                costs[way].append(taken)
    Path(parameters["cost_file"]).write_text(json.dumps(costs), encoding="utf-8")


def _bare(memory: Memory, parameters: Mapping[str, Any], turn: int) -> Mapping[str, float]:
    del turn
    return _timed(Unmeasured(memory.workspace), parameters)


def _measured(memory: Memory, parameters: Mapping[str, Any], turn: int) -> Mapping[str, float]:
    return _timed(Renamed(memory, turn), parameters)


def _traced(memory: Memory, parameters: Mapping[str, Any], turn: int) -> Mapping[str, float]:
    """As ``harness.measure.worker`` arranges a traced run. Starting the recording, reading it and
    writing the trace lie outside the body, and outside the watch.
    """
    context = MeterContext(device_name="CPU:0", device={})
    shares: Any = SharesMeter(context)  # as the worker's, which are loaded by name
    shares.open()
    tracer = Tracer(
        point=memory._point,
        repeat=memory._repeat,
        device_name=context.device_name,
        device={"limit_bytes": parameters["limit_bytes"]},
        path=Path(parameters["cost_file"]).with_name(f"trace-{turn}.json.gz"),
        emit=memory._emit,
    )
    with tracer:
        traced = Memory(
            point=memory._point,
            repeat=memory._repeat,
            workspace=memory.workspace,
            meters=[shares, *memory._meters, tracer],
            emit=tracer.hear,
        )
        return _timed(traced, parameters)


_TURNS = {"bare": _bare, "measured": _measured, "traced": _traced}


def _timed(memory: Phases, parameters: Mapping[str, Any]) -> Mapping[str, float]:
    """What the body took of this process, the edges of its phases included."""
    before, start_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    loading.measure(memory, parameters)
    wall_s, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_SELF)

    return {
        "wall_s": wall_s,
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "faults": after.ru_minflt - before.ru_minflt,
    }
