"""Point -> leased device -> child -> rows. Whatever happens to the child, the point has an end, with a reason."""

import fcntl
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError
from harness.records import ROWS_FILE, Outcome, Point, RunEnd, append_row, end_from_json, to_json
from harness.run.devices import Device, lease
from harness.run.isolation import QUIET, ChildEnd, ChildOrder, Launcher

_LOG_TAIL_CHARACTERS = 400
# TensorFlow's log lines of the levels I, W and E, from either of its loggers (tsl/platform/default/logging.cc,
# absl/log/internal/log_format.cc). It reports every missing driver as an error; only F ends a process.
_CHATTER = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    r"|[IWE]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ "
    r"|WARNING: All log messages before absl"
)


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
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
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
            order = ChildOrder(
                job=self._job(point, repeat, device, body=point.body, prepare=None),
                environment={**self.environment, **point.environment, **device.environment(), **QUIET},
                folder=self.root,
                log=self._log(point, repeat),
                timeout_s=self.timeout_s,
                inherited=inherited,
            )
            child = self.launcher.run(order)
        own = [row for row in _rows_since(rows, already_bytes) if row.get("point") == point.name and row.get("repeat") == repeat]
        outcome, reason = classify(child, own, self._log_tail(point, repeat))
        phase = None if outcome is Outcome.OK else _phase_at_death(own)
        return self._close(
            RunEnd(
                point=point.name,
                repeat=repeat,
                outcome=outcome,
                reason=reason,
                phase=phase,
                exit_code=child.exit_code,
                launcher=self.launcher.name,
                duration_s=child.duration_s,
            )
        )

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
            reason=f"its input could not be prepared: {self._log_tail(point, repeat) or _exit_in_words(child.exit_code)}",
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


def last_words(log: str) -> str:
    """The last line of a child's log that is not TensorFlow's chatter, cut to a table cell; empty when there is none."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _CHATTER.match(line)]
    return lines[-1][:_LOG_TAIL_CHARACTERS] if lines else ""


def classify(child: ChildEnd, rows: list[dict[str, Any]], log_tail: str) -> tuple[Outcome, str]:
    """Name how a child ended, from its exit code and its own rows. Only exit code 0 **and** a done row is ok."""
    done = next((row for row in rows if row["kind"] == "done"), None)
    where = f" in phase {phase}" if (phase := _phase_at_death(rows)) else ""
    if child.timed_out:
        return Outcome.TIMED_OUT, f"still running after {child.duration_s:.0f} s{where}; it was stopped"
    if child.exit_code == 0 and done is not None:
        return Outcome(done["outcome"]), str(done["reason"])
    if child.exit_code == 0:
        return Outcome.ERROR, f"exited with code 0{where} without finishing"
    tail = f"; its last words: {log_tail}" if log_tail else ""
    if child.exit_code < 0:
        return Outcome.CRASHED, f"killed by {_exit_in_words(child.exit_code)}{where}{tail}"
    if "MemoryError" in log_tail or "bad_alloc" in log_tail:
        return Outcome.HOST_OOM, f"{_exit_in_words(child.exit_code)}{where}{tail}"
    return Outcome.ERROR, f"{_exit_in_words(child.exit_code)}{where}{tail}"


def _exit_in_words(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _phase_at_death(rows: list[dict[str, Any]]) -> str | None:
    """The phase that was entered last and not finished, or None between phases."""
    entered = [row["phase"] for row in rows if row["kind"] == "begin"]
    finished = {row["phase"] for row in rows if row["kind"] == "phase" and row["finished"]}
    return entered[-1] if entered and entered[-1] not in finished else None


def _rows_since(path: Path, offset: int) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a damaged line stays in the file, where the judge finds it and says so
            if isinstance(row, dict) and "kind" in row:
                yield row


def ends_of(run_directory: Path) -> list[RunEnd]:
    """The ends that are on disk so far, in the order in which they were written."""
    return [end_from_json(row) for row in _rows_since(run_directory / ROWS_FILE, 0) if row["kind"] == "end"]
