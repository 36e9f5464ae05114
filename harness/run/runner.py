"""Point -> leased device -> child -> rows. Whatever happens to the child, the point has an end,
with a reason.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import DeviceUnavailable, RunDirectoryError
from harness.records import ROWS_FILE, TRACED_REPEAT, Ending, Outcome, Point
from harness.run.devices import Device
from harness.run.ends import classify, end_without_child, phase_at_death, read_log, why_not_prepared
from harness.run.launchers import (
    QUIET,
    ChildOrder,
    Isolation,
    Launcher,
    Sampling,
    SpawnLauncher,
    open_launcher,
)
from harness.run.leases import Lease, lease, lease_folder
from harness.run.packages import Code, packages_that_came_along, packages_that_would_shadow
from harness.run.usable import with_room
from harness.rundir.rows import (
    PhaseRecord,
    Row,
    RunEnd,
    RunRow,
    discard_run,
    rows_since,
    write_row,
)
from harness.rundir.traces import clear_unfinished, log_name, new_trace_rows, trace_end, trace_path

# A run that somebody else's process shared the device with is measured again.


PAUSES_S = (1.0, 5.0)
"""Before each further attempt. Chosen: two, with pauses that outlast what is short (a notebook that
is closing, another run's child), and cost a sweep beside a neighbour that stays no more than some
seconds at each point."""

Attempt = tuple[RunEnd, Sequence[Row]]
"""How one attempt ended, and the rows that its child left."""


def measure_alone(
    attempt: Callable[[], Attempt],
    discard: Callable[[str], None],
    pauses_s: Sequence[float] = PAUSES_S,
) -> RunEnd:
    """The end of the first attempt that nobody disturbed, of at most ``1 + len(pauses_s)``, else of
    the last.

    Before each further one ``discard`` is given the reason, who else used the device: the rows of
    the earlier one do not count. Those of the last one stay, with the others named in them, and the
    judge says that the point was not measured alone.
    """
    for pause_s in pauses_s:
        end, rows = attempt()
        who = who_else(rows)
        if not who:
            return end
        discard(f"not alone on the device: {who}")
        time.sleep(pause_s)
    return attempt()[0]


def who_else(rows: Sequence[Row]) -> str:
    """Who used the device besides this run, by what its readings say; empty for nobody."""
    readings = [r for row in rows if isinstance(row, PhaseRecord) for r in row.readings]
    return "; ".join(dict.fromkeys(r.contended for r in readings if r.contended))


METERS = (
    # The host's meter begins last and ends first, so that it does not count the others' work.
    "harness.measure.card_meter:NvmlMeter",
    "harness.measure.tensorflow_meter:AllocatorMeter",
    "harness.measure.host_meter:HostMeter",
)
"""The instruments of a child, in the order in which they begin; loaded there by name."""
TRACED_METERS = ("harness.measure.host_meter:SharesMeter", *METERS)
"""The instruments of the traced run; among them may be what costs too much for the measured
ones."""
TRACER = "harness.measure.tracing:Tracer"
"""What records every allocation of the traced run."""
PREPARE_DEVICE = "harness.measure.device:prepare_device"
"""What makes TensorFlow use the leased device, in the child."""
ALLOCATOR_WAIT_S = 11.0
"""What an idle child may take beyond its time-out: BFC waits 10 s for memory before it refuses it
(bfc_allocator.h, AllocatorRetry), and then the body has to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Measures points one after the other, into one run directory."""

    run_directory: Path
    device: Device
    launcher: Launcher
    preparer: Launcher
    """Starts the preparations, which need no TensorFlow and must leave no trace in a later
    child."""
    root: Path
    """Working directory of the children, from which scenario bodies are imported."""
    workspace: Path
    """Where preparations keep the input files they make."""
    code: Code = field(default_factory=Code)
    """The packages under test, where they may not be just those that Python finds."""
    further_paths: tuple[Path, ...] = ()
    """Folders that packages may come from as well, before the root: pytest's own setting
    pythonpath."""
    host_limit_bytes: int
    """What a child and the processes that it starts may hold besides the device's own share of host
    memory (``Device.host_bytes``)."""
    timeout_s: float
    host_limit_option: str = "--memory-host-budget"
    """Where ``host_limit_bytes`` is set, in the words of whoever may raise it."""
    meters: tuple[str, ...] = METERS
    traced_meters: tuple[str, ...] = TRACED_METERS
    prepare_device: str = PREPARE_DEVICE
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    lease_folder: Path = field(default_factory=lease_folder)
    """Where the devices' locks are; all runs of the machine share it."""
    with_room: Callable[[Device], Device] = with_room
    """What gives the held card its limit, by what the driver says is free on it."""
    pauses_s: tuple[float, ...] = PAUSES_S
    """Before each further attempt at a run that was not alone on the device."""
    sampling: Sampling = field(default_factory=Sampling)
    """The process that looks at the children and at the card; started with the first of them."""
    _prepared: set[str] = field(default_factory=set, init=False)
    """Preparations that this runner has seen succeed, so that repeats do not start a child to find
    their input there."""

    def measure(self, point: Point, repeat: int) -> RunEnd:
        """Run one repeat of one point in a child of its own; its rows and its end are on disk when
        this returns.

        ``TRACED_REPEAT`` is the extra run in which every allocation is recorded. The recording
        takes host memory and time, so its rows go to a file of their own beside the trace;
        rows.jsonl has one row that says how it ended. A repeat that was not alone on the device is
        measured again (``measure_alone``). Raises RunDirectoryError when the run directory cannot
        be written, UsageError for a budget the device cannot have, DeviceUnavailable when its lock
        cannot be taken.
        """

        def discard(reason: str) -> None:
            discard_run(self.run_directory, point.name, repeat, reason)

        # A neighbour changes what the card has left, not what a trace says of this process.
        pauses_s = () if repeat == TRACED_REPEAT else self.pauses_s
        return measure_alone(lambda: self._measure_once(point, repeat), discard, pauses_s)

    def _measure_once(self, point: Point, repeat: int) -> Attempt:
        failed = self._prepare(point, repeat)
        if failed is not None:
            return self._close(failed, []), []
        left: Device | None = self.device.for_point(point)
        left_out: list[str] = []
        while left is not None:
            with lease(left, self.lease_folder) as lent:
                try:
                    return self._measure_on(lent, point, repeat, left_out)
                except DeviceUnavailable as reason:
                    left_out.append(str(reason))
                    last, left = lent.device, left.without(lent.device)
        # The loader would be blamed for what somebody else holds, or for a card that is gone.
        absent = Ending(Outcome.SKIPPED, "device", left_out[-1])
        return self._close(
            end_without_child(point, repeat, absent, launcher=self.launcher.name, device=last.uuid),
            [],
        ), []

    def _measure_on(
        self, lent: Lease, point: Point, repeat: int, left_out: Sequence[str]
    ) -> Attempt:
        """Measure on the card that is held. Raises DeviceUnavailable where it cannot be used, or
        was lost under the run.
        """
        device = self.with_room(lent.device)
        traced = repeat == TRACED_REPEAT
        rows = (
            new_trace_rows(self.run_directory, point.name)
            if traced
            else self.run_directory / ROWS_FILE
        )
        log = self._log(point, repeat)
        already_bytes, logged_bytes = self._size(rows), self._size(log)
        child = self.launcher.run(self._order(point, repeat, device, rows, log, lent.inherited))
        own = [
            row
            for row in rows_since(rows, already_bytes)
            if isinstance(row, RunRow) and row.run == (point.name, repeat)
        ]
        said = read_log(log, logged_bytes)
        ending = classify(
            child, own, said, limit_bytes=device.limit_bytes, timeout_s=self.timeout_s
        )
        if ending.outcome is not point.expected and not traced:
            self._refuse_lost(lent.device, point, repeat)
        end = RunEnd(
            point=point.name,
            repeat=repeat,
            outcome=ending.outcome,
            cause=ending.cause,
            reason=ending.reason,
            phase=None if ending.outcome is Outcome.OK else phase_at_death(own),
            exit_code=child.exit_code,
            launcher=self.launcher.name,
            duration_s=child.duration_s,
            device=device.uuid or "",
            device_limit_bytes=device.limit_bytes,
            left_out=tuple(left_out),
        )
        return self._close(end, own), own

    def _refuse_lost(self, held: Device, point: Point, repeat: int) -> None:
        """Discard a run whose card cannot be used any more. Raises DeviceUnavailable, with the
        driver's words.
        """
        try:
            self.with_room(held)
        except DeviceUnavailable as reason:
            discard_run(
                self.run_directory, point.name, repeat, f"the card was lost under it: {reason}"
            )
            raise

    def _order(
        self,
        point: Point,
        repeat: int,
        device: Device,
        rows: Path,
        log: Path,
        inherited: tuple[int, ...],
    ) -> ChildOrder:
        sampler, note = self.sampling.address()
        job = self._job(point, repeat, device, rows, body=point.body, prepare=None)
        return ChildOrder(
            job={**job, "sampler": sampler, "sampler_note": note},
            environment={**self.environment, **point.environment, **device.environment(), **QUIET},
            folder=self.root,
            log=log,
            timeout_s=self.timeout_s,
            allocator_wait_s=ALLOCATOR_WAIT_S,
            limit_made_of=device.limit_in_words(self.host_limit_option, self.host_limit_bytes),
            inherited=inherited,
        )

    def close(self) -> None:
        """End the sampler. Children are gone already, and the launchers are their opener's."""
        self.sampling.close()

    def _prepare(self, point: Point, repeat: int) -> RunEnd | None:
        """Make the point's input files, unless another worker is at it already. The end of the run,
        if that fails.
        """
        job = self._job(
            point,
            repeat,
            self.device,
            self.run_directory / ROWS_FILE,
            body=None,
            prepare=point.prepare,
        )
        what = json.dumps([job["prepare"], job["parameters"]], sort_keys=True)
        if point.prepare is None or what in self._prepared:
            return None
        log = self._log(point, repeat)
        logged_bytes = self._size(log)
        with self._one_preparation_at_a_time():
            order = ChildOrder(
                job=job,
                environment={**self.environment, **QUIET},
                folder=self.root,
                log=log,
                timeout_s=self.timeout_s,
                limit_made_of=self.device.limit_in_words(
                    self.host_limit_option, self.host_limit_bytes
                ),
            )
            child = self.preparer.run(order)
        if child.exit_code == 0 and not child.timed_out:
            self._prepared.add(what)
            return None
        why = (
            "its input could not be prepared: "
            f"{why_not_prepared(child, read_log(log, logged_bytes))}"
        )
        failed = end_without_child(
            point, repeat, Ending(Outcome.ERROR, "preparation", why), launcher=self.preparer.name
        )
        return dataclasses.replace(failed, exit_code=child.exit_code, duration_s=child.duration_s)

    def _job(
        self,
        point: Point,
        repeat: int,
        device: Device,
        rows: Path,
        *,
        body: str | None,
        prepare: str | None,
    ) -> dict[str, Any]:
        traced = body is not None and repeat == TRACED_REPEAT
        return {
            "point": point.name,
            "repeat": repeat,
            "body": body,
            "prepare": prepare,
            "parameters": {**point.fixed, **point.inputs, **point.parameters},
            "workspace": str(self.workspace.resolve()),
            "rows_path": str(rows.resolve()),
            "device": device.for_child(),
            "prepare_device": self.prepare_device,
            "meters": self.traced_meters if traced else self.meters,
            "tracer": TRACER if traced else "",
            "trace_path": str(trace_path(self.run_directory, point.name).resolve())
            if traced
            else "",
            "import_paths": self._import_paths(point),
            # A body from another folder must not be given what lies beside this harness when its
            # own folder lacks it, nor one from the root what would hide the root's own.
            "kept_out": list(
                packages_that_came_along() if point.path else packages_that_would_shadow(self.root)
            ),
            "subjects": {name: str(folder) for name, folder in self.code.packages.items()},
            "host_limit_bytes": self.host_limit_bytes + device.host_bytes,
        }

    def _import_paths(self, point: Point) -> list[str]:
        """The code under test, the point's own folder, those of the session; the root follows, as
        the folder of every child.
        """
        folders = [
            *self.code.import_paths,
            *([self.root / point.path] if point.path else []),
            *self.further_paths,
        ]
        return [str(folder.resolve()) for folder in folders]

    def _log(self, point: Point, repeat: int) -> Path:
        log = self.run_directory / "logs" / log_name(point.name, repeat)
        try:
            log.parent.mkdir(exist_ok=True)
            log.touch()
        except OSError as error:
            raise RunDirectoryError(
                f"the log of {point.name} cannot be written to {log}: {error.strerror}"
            ) from error
        return log

    def _size(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from error

    @contextlib.contextmanager
    def _one_preparation_at_a_time(self) -> Iterator[None]:
        try:
            self.workspace.mkdir(parents=True, exist_ok=True)
            lock = (self.workspace / ".prepare.lock").open("w")
        except OSError as error:
            raise RunDirectoryError(
                f"inputs cannot be kept in {self.workspace}: {error.strerror}"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _close(self, end: RunEnd, own: Sequence[Row]) -> RunEnd:
        row: Row = end
        if end.repeat == TRACED_REPEAT:
            clear_unfinished(self.run_directory, end.point)
            row = trace_end(end, own)
        write_row(self.run_directory, row)
        return end


@contextlib.contextmanager
def opened_runner(
    *,
    run_directory: Path,
    device: Device,
    root: Path,
    workspace: Path,
    code: Code,
    isolation: Isolation,
    preload: Sequence[str],
    further_paths: Sequence[Path] = (),
    host_limit_bytes: int,
    timeout_s: float,
) -> Iterator[Runner]:
    """A runner with a launcher of its own, as ``isolation`` means it here; what both keep running
    ends with the block.
    """
    launcher = open_launcher(isolation, environment=os.environ, folder=root, preload=preload)
    runner = Runner(
        run_directory=run_directory,
        device=device,
        launcher=launcher,
        preparer=SpawnLauncher(),
        root=root,
        workspace=workspace,
        code=code,
        further_paths=tuple(further_paths),
        host_limit_bytes=host_limit_bytes,
        timeout_s=timeout_s,
    )
    try:
        yield runner
    finally:
        runner.close()
        launcher.close()
