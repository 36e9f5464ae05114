"""What a child costs: forked from the zygote, and as a fresh interpreter. Imports no TensorFlow."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from harness.records import Job
from harness.run.devices import emulated_device
from harness.run.launchers import QUIET, ChildOrder, Launcher, SpawnLauncher, open_launcher
from harness.run.runner import PREPARE_DEVICE
from harness.words import GIB, MIB
from scenarios.bodies.isolation import ANSWER

_DEVICE_BYTES = 512 * MIB
_HOST_LIMIT_BYTES = 4 * GIB
_TIMEOUT_S = 120.0
_ANSWER_FILE = "first_operation.txt"


def isolation(workspace: Path, repeats: int) -> dict[str, float]:
    """Medians in ms, from the order to the end of an empty child and to the first finished
    operation; zygote and spawn.

    A fresh interpreter takes seconds, so it is asked three times only. Raises RuntimeError when a
    child fails.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    zygote = open_launcher("zygote", environment=os.environ, folder=Path.cwd())
    try:
        empty_ms = _median_ms(lambda: _empty(zygote, workspace), 3 * repeats)
        forked_ms = _median_ms(lambda: _first_operation(zygote, workspace), 3 * repeats)
    finally:
        zygote.close()
    fresh_ms = _median_ms(lambda: _first_operation(SpawnLauncher(), workspace), 3)
    return {
        "zygote_empty": empty_ms,
        "zygote_first_operation": forked_ms,
        "spawn_first_operation": fresh_ms,
        "spawn_of_zygote": fresh_ms / forked_ms,
    }


def _median_ms(seconds: Callable[[], float], repeats: int) -> float:
    seconds()  # the first one warms up and is not counted
    return 1000 * median(seconds() for _ in range(repeats))


def _empty(launcher: Launcher, workspace: Path) -> float:
    return _run(launcher, workspace, prepare="scenarios.bodies.isolation:nothing", body=None)


def _first_operation(launcher: Launcher, workspace: Path) -> float:
    answer_file = workspace / _ANSWER_FILE
    answer_file.unlink(missing_ok=True)
    started_s = time.monotonic()
    _run(launcher, workspace, prepare=None, body="scenarios.bodies.isolation:one_operation")
    finished_s, answer = answer_file.read_text(encoding="utf-8").split()
    if int(answer) != ANSWER:
        raise RuntimeError(f"a child of {launcher.name} found {answer} instead of {ANSWER}")
    return float(finished_s) - started_s


def _run(launcher: Launcher, workspace: Path, *, prepare: str | None, body: str | None) -> float:
    device = emulated_device("a benchmark").with_budget(_DEVICE_BYTES)
    job = Job(
        point="isolation",
        repeat=0,
        body=body,
        prepare=prepare,
        parameters={"told_in": _ANSWER_FILE},
        workspace=str(workspace.resolve()),
        rows_path=str((workspace / "isolation.jsonl").resolve()),
        device=device.for_child(),
        prepare_device=PREPARE_DEVICE,
        host_limit_bytes=_HOST_LIMIT_BYTES,
    )
    order = ChildOrder(
        job=job,
        environment={**os.environ, **device.environment(), **QUIET},
        folder=Path.cwd(),
        log=workspace / "isolation.log",
        timeout_s=_TIMEOUT_S,
    )
    end = launcher.run(order)
    if end.exit_code != 0:
        raise RuntimeError(
            f"a child of {launcher.name} ended with {end.exit_code}; see {order.log}"
        )
    return end.duration_s
