"""The loading scenario with a watch around it: once as the harness measures it, once without any of
the harness's meters.
"""

import json
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.measure.device import prepare_device
from scenarios.bodies import loading
from scenarios.bodies.memory import Memory


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


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """The body of ``loading``; what it took of this process goes to ``parameters["cost_file"]``."""
    before, start_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    loading.measure(memory, parameters)
    wall_s, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_SELF)

    cost = {
        "wall_s": wall_s,
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "faults": after.ru_minflt - before.ru_minflt,
    }
    Path(parameters["cost_file"]).write_text(json.dumps(cost), encoding="utf-8")


def bare(workspace: Path, parameters: Mapping[str, Any]) -> None:
    """The same on the same device, without meters and without rows."""
    prepare_device({"kind": "emulated", "limit_bytes": parameters["limit_bytes"]})
    measure(Unmeasured(workspace), parameters)
