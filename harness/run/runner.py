"""Point -> leased device -> child -> rows. Whatever happens to the child, the point has an end, with a reason."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError
from harness.records import ROWS_FILE, Outcome, Point, RunEnd, append_row, to_json
from harness.run.devices import Device, lease
from harness.run.ends import classify, exit_in_words, last_words, phase_at_death, rows_since
from harness.run.isolation import QUIET, ChildOrder, Launcher
from harness.run.sampling import Sampling

METERS = (
    # The host's meter begins last and ends first, so that it does not count the others' work.
    "harness.measure.meters.nvml:NvmlMeter",
    "harness.measure.meters.tensorflow:AllocatorMeter",
    "harness.measure.meters.host:HostMeter",
)
"""The instruments of a child, in the order in which they begin; loaded there by name."""
PREPARE_DEVICE = "harness.measure.device:prepare_device"
"""What makes TensorFlow use the leased device, in the child."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Measures points one after the other, into one run directory."""

    run_directory: Path
    device: Device
    launcher: Launcher
    preparer: Launcher
    """Starts the preparations, which need no TensorFlow and must leave no trace in a later child."""
    root: Path
    """Working directory of the children, from which scenario bodies are imported."""
    workspace: Path
    """Where preparations keep the input files they make."""
    host_limit_bytes: int
    """What a child may hold besides the emulated device."""
    timeout_s: float
    meters: tuple[str, ...] = METERS
    prepare_device: str = PREPARE_DEVICE
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    sampling: Sampling = field(default_factory=Sampling)
    """The process that looks at the children and at the card; started with the first of them."""
    _prepared: set[str] = field(default_factory=set, init=False)
    """Preparations that this runner has seen succeed, so that repeats do not start a child to find their input there."""

    def measure(self, point: Point, repeat: int) -> RunEnd:
        """Run one repeat of one point in a child of its own; its rows and its end are on disk when this returns.

        Raises RunDirectoryError when the run directory cannot be written, UsageError for a budget the device cannot have.
        """
        device = self.device.with_budget(point.device_budget_bytes)
        failed = self._prepare(point, repeat)
        if failed is not None:
            return self._close(failed)
        rows = self.run_directory / ROWS_FILE
        already_bytes = rows.stat().st_size
        with lease(device) as inherited:
            sampler, note = self.sampling.address()
            job = self._job(point, repeat, device, body=point.body, prepare=None)
            order = ChildOrder(
                job={**job, "sampler": sampler, "sampler_note": note},
                environment={**self.environment, **point.environment, **device.environment(), **QUIET},
                folder=self.root,
                log=self._log(point, repeat),
                timeout_s=self.timeout_s,
                inherited=inherited,
            )
            child = self.launcher.run(order)
        own = [row for row in rows_since(rows, already_bytes) if row.get("point") == point.name and row.get("repeat") == repeat]
        ending = classify(child, own, self._log_tail(point, repeat))
        phase = None if ending.outcome is Outcome.OK else phase_at_death(own)
        return self._close(
            RunEnd(
                point=point.name,
                repeat=repeat,
                outcome=ending.outcome,
                cause=ending.cause,
                reason=ending.reason,
                phase=phase,
                exit_code=child.exit_code,
                launcher=self.launcher.name,
                duration_s=child.duration_s,
            )
        )

    def close(self) -> None:
        """End the sampler. Children are gone already, and the launchers are their opener's."""
        self.sampling.close()

    def _prepare(self, point: Point, repeat: int) -> RunEnd | None:
        """Make the point's input files, unless another worker is at it already. The end of the run, if that fails."""
        job = self._job(point, repeat, self.device, body=None, prepare=point.prepare)
        what = json.dumps([job["prepare"], job["parameters"]], sort_keys=True)
        if point.prepare is None or what in self._prepared:
            return None
        self.workspace.mkdir(parents=True, exist_ok=True)
        with (self.workspace / ".prepare.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            order = ChildOrder(
                job=job,
                environment={**self.environment, **QUIET},
                folder=self.root,
                log=self._log(point, repeat),
                timeout_s=self.timeout_s,
            )
            child = self.preparer.run(order)
        if child.exit_code == 0 and not child.timed_out:
            self._prepared.add(what)
            return None
        return RunEnd(
            point=point.name,
            repeat=repeat,
            outcome=Outcome.ERROR,
            cause="preparation",
            reason=f"its input could not be prepared: {self._log_tail(point, repeat) or exit_in_words(child.exit_code)}",
            phase=None,
            exit_code=child.exit_code,
            launcher=self.preparer.name,
            duration_s=child.duration_s,
        )

    def _job(self, point: Point, repeat: int, device: Device, *, body: str | None, prepare: str | None) -> dict[str, Any]:
        return {
            "point": point.name,
            "repeat": repeat,
            "body": body,
            "prepare": prepare,
            "parameters": {**point.fixed, **point.inputs, **point.parameters},
            "workspace": str(self.workspace.resolve()),
            "rows_path": str((self.run_directory / ROWS_FILE).resolve()),
            "device": device.for_child(),
            "prepare_device": self.prepare_device,
            "meters": self.meters,
            # The emulated device is host memory too, and is limited by its own allocator.
            "host_limit_bytes": self.host_limit_bytes + (device.limit_bytes or 0 if device.kind == "emulated" else 0),
        }

    def _log(self, point: Point, repeat: int) -> Path:
        logs = self.run_directory / "logs"
        logs.mkdir(exist_ok=True)
        return logs / f"{point.name}-repeat={repeat}.log"

    def _log_tail(self, point: Point, repeat: int) -> str:
        return last_words(self._log(point, repeat).read_text(encoding="utf-8", errors="replace"))

    def _close(self, end: RunEnd) -> RunEnd:
        rows = self.run_directory / ROWS_FILE
        try:
            descriptor = os.open(rows, os.O_WRONLY | os.O_APPEND)
            try:
                append_row(descriptor, {"kind": "end", **to_json(end)})
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RunDirectoryError(f"the end of {end.point} cannot be written to {rows}: {error}") from error
        return end
