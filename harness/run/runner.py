"""Point -> leased device -> child -> rows. Whatever happens to the child, the point has an end,
with a reason.
"""

import contextlib
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from harness.errors import DeviceUnavailable, RunDirectoryError
from harness.records import ROWS_FILE, TRACED_REPEAT, Ending, Job, Outcome, Point
from harness.run.cards import with_room
from harness.run.devices import Device, Lease, lease, lease_folder
from harness.run.ends import (
    classify,
    end_without_child,
    phase_at_death,
    read_log,
    why_not_prepared,
)
from harness.run.launchers import (
    QUIET,
    ChildOrder,
    Isolation,
    Launcher,
    Sampling,
    SpawnLauncher,
    open_launcher,
)
from harness.run.revisions import Code, own_packages, shadowing_packages
from harness.rundir.rows import PhaseRecord, Row, RunEnd, RunRow, discard_run, rows_since, write_row
from harness.rundir.traces import clear_unfinished, log_name, new_trace_rows, trace_end, trace_path
from harness.system import lock

PAUSES_S = (1.0, 5.0)
"""Before each further attempt. Chosen: long enough for something brief, such as a notebook that is
closing; a neighbour that stays costs each point only seconds."""
METERS = (
    # The host's meter begins last and ends first, so that it does not count the others' work.
    "harness.measure.card_meter:NvmlMeter",
    "harness.measure.device:AllocatorMeter",
    "harness.measure.host_meter:HostMeter",
)
"""The instruments of a child, in the order in which they begin; loaded there by name."""
TRACED_METERS = ("harness.measure.host_meter:SharesMeter", *METERS)
"""The instruments of the traced run; they may include meters too costly for measured runs."""
TRACER = "harness.measure.tracing:Tracer"
"""What records every allocation of the traced run."""
PREPARE_DEVICE = "harness.measure.device:prepare_device"
"""What makes TensorFlow use the leased device, in the child."""
ALLOCATOR_WAIT_S = 11.0
"""What an idle child may take beyond its time-out: BFC waits 10 s for memory before it refuses it
(bfc_allocator.h, AllocatorRetry), and then the body has to end."""

Attempt = tuple[RunEnd, Sequence[Row]]
"""How one attempt ended, and the rows that its child left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSettings:
    """What the children of a run are given, whichever point they measure."""

    root: Path
    """Their working directory, from which scenario bodies are imported."""
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
    host_limit_option: str = "--memory-host-budget"
    """The option that sets ``host_limit_bytes``."""
    timeout_s: float
    meters: tuple[str, ...] = METERS
    traced_meters: tuple[str, ...] = TRACED_METERS
    prepare_device: str = PREPARE_DEVICE
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def preparation(self, point: Point, repeat: int, device: Device, rows: Path) -> Job:
        """The job of a child that makes the input files of a point."""
        # A body from another folder must not be given what lies beside this harness when its own
        # folder lacks it, nor one from the root what would hide the root's own.
        kept_out = own_packages() if point.path else shadowing_packages(self.root)
        return Job(
            point=point.name,
            repeat=repeat,
            body=None,
            prepare=point.prepare,
            parameters={**point.fixed, **point.inputs, **point.parameters},
            workspace=str(self.workspace.resolve()),
            rows_path=str(rows.resolve()),
            device=device.for_child(),
            host_limit_bytes=self.host_limit_bytes + device.host_bytes,
            import_paths=self._import_paths(point),
            kept_out=kept_out,
            subjects={name: str(folder) for name, folder in self.code.packages.items()},
        )

    def measurement(self, point: Point, repeat: int, device: Device, rows: Path) -> Job:
        """The job of a child that measures a point; who starts it adds sampler and tracer."""
        traced = repeat == TRACED_REPEAT
        return dataclasses.replace(
            self.preparation(point, repeat, device, rows),
            body=point.body,
            prepare=None,
            prepare_device=self.prepare_device,
            meters=self.traced_meters if traced else self.meters,
        )

    def order(
        self, job: Job, device: Device, log: Path, environment: Mapping[str, str]
    ) -> ChildOrder:
        """A child for a job, with variables of its own beside those of the run."""
        return ChildOrder(
            job=job,
            environment={**self.environment, **environment, **QUIET},
            folder=self.root,
            log=log,
            timeout_s=self.timeout_s,
            limit_made_of=device.limit_in_words(self.host_limit_option, self.host_limit_bytes),
        )

    def _import_paths(self, point: Point) -> tuple[str, ...]:
        """The code under test, the point's own folder, those of the session; the root follows, as
        the folder of every child.
        """
        folders = [
            *self.code.import_paths,
            *([self.root / point.path] if point.path else []),
            *self.further_paths,
        ]
        return tuple(str(folder.resolve()) for folder in folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChildFiles:
    """Where one child writes, and what was there before: the rest is its own."""

    rows: Path
    log: Path
    rows_from_byte: int
    log_from_byte: int

    @classmethod
    def of(cls, run_directory: Path, point: Point, repeat: int) -> Self:
        """Make the log; of the traced run also the rows, in a file beside its trace. Raises
        RunDirectoryError.
        """
        traced = repeat == TRACED_REPEAT
        rows = new_trace_rows(run_directory, point.name) if traced else run_directory / ROWS_FILE
        log = _open_log(run_directory, point, repeat)
        return cls(rows=rows, log=log, rows_from_byte=_size(rows), log_from_byte=_size(log))

    def new_rows(self, point: Point, repeat: int) -> list[RunRow]:
        """The rows of this child; other workers write into the same file. Raises
        RunDirectoryError.
        """
        try:
            return [
                row
                for row in rows_since(self.rows, self.rows_from_byte)
                if isinstance(row, RunRow) and row.run == (point.name, repeat)
            ]
        except OSError as error:
            raise RunDirectoryError(f"{self.rows} cannot be read: {error.strerror}") from error

    def new_log(self) -> str:
        """What the child has logged."""
        return read_log(self.log, self.log_from_byte)


def _open_log(run_directory: Path, point: Point, repeat: int) -> Path:
    log = run_directory / "logs" / log_name(point.name, repeat)
    try:
        log.parent.mkdir(exist_ok=True)
        log.touch()
    except OSError as error:
        raise RunDirectoryError(
            f"the log of {point.name} cannot be written to {log}: {error.strerror}"
        ) from error
    return log


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from error


class Preparer:
    """Makes the input files of points, each once, in children that need no TensorFlow and leave no
    trace in a later child.
    """

    def __init__(self, launcher: Launcher | None = None) -> None:
        """``launcher`` starts the children, by default fresh interpreters."""
        self.launcher = launcher or SpawnLauncher()
        self._made: set[str] = set()
        """Preparations that have succeeded, so that repeats start no child to find their input
        there."""

    def prepare(
        self,
        point: Point,
        repeat: int,
        *,
        device: Device,
        settings: ChildSettings,
        run_directory: Path,
    ) -> RunEnd | None:
        """Make the point's input files, unless another worker does; the end of the run where that
        fails. Raises RunDirectoryError.
        """
        if point.prepare is None:
            return None
        job = settings.preparation(point, repeat, device, run_directory / ROWS_FILE)
        what = json.dumps([job.prepare, job.parameters], sort_keys=True)
        if what in self._made:
            return None

        log = _open_log(run_directory, point, repeat)
        from_byte = _size(log)
        with _one_preparation_at_a_time(settings.workspace):
            child = self.launcher.run(settings.order(job, device, log, {}))
        if child.exit_code == 0 and not child.timed_out:
            self._made.add(what)
            return None

        why = why_not_prepared(child, read_log(log, from_byte))
        ending = Ending(Outcome.ERROR, "preparation", f"its input could not be prepared: {why}")
        failed = end_without_child(point, repeat, ending, launcher=self.launcher.name)
        return dataclasses.replace(failed, exit_code=child.exit_code, duration_s=child.duration_s)


@contextlib.contextmanager
def _one_preparation_at_a_time(workspace: Path) -> Iterator[None]:
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        file = (workspace / ".prepare.lock").open("w")
    except OSError as error:
        raise RunDirectoryError(
            f"inputs cannot be kept in {workspace}: {error.strerror}"
        ) from error
    with file:
        lock(file.fileno())
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Measures points one after the other, into one run directory."""

    run_directory: Path
    device: Device
    launcher: Launcher
    children: ChildSettings
    preparer: Preparer = field(default_factory=Preparer)
    sampling: Sampling = field(default_factory=Sampling)
    """The process that looks at the children and at the card; started with the first of them."""
    lease_folder: Path = field(default_factory=lease_folder)
    """Where the devices' locks are; all runs of the machine share it."""
    with_room: Callable[[Device], Device] = with_room
    """What gives the held card its limit, by what the driver says is free on it."""
    pauses_s: tuple[float, ...] = PAUSES_S
    """Before each further attempt at a run that was not alone on the device."""

    def measure(self, point: Point, repeat: int) -> RunEnd:
        """Run one repeat of one point in a child of its own; its rows and its end are on disk when
        this returns.

        ``TRACED_REPEAT`` is the extra run in which every allocation is recorded. The recording
        takes host memory and time, so its rows go to a file of their own beside the trace;
        rows.jsonl has one row that says how it ended. A repeat that was not alone on the device is
        measured again (``retry_when_shared``). Raises RunDirectoryError when the run directory
        cannot be written, UsageError for a budget the device cannot have, DeviceUnavailable when
        its lock cannot be taken.
        """
        discard = functools.partial(discard_run, self.run_directory, point.name, repeat)
        # A neighbour changes what the card has left, not what a trace says of this process.
        pauses_s = () if repeat == TRACED_REPEAT else self.pauses_s
        return retry_when_shared(lambda: self._measure_once(point, repeat), discard, pauses_s)

    def with_code(self, code: Code, run_directory: Path) -> Self:
        """The same for other packages under test, into another run directory; it shares launcher
        and sampler.
        """
        children = dataclasses.replace(self.children, code=code)
        # What one code has prepared is no input of the other's.
        preparer = Preparer(self.preparer.launcher)
        return dataclasses.replace(
            self, run_directory=run_directory, children=children, preparer=preparer
        )

    def close(self) -> None:
        """End the sampler. Children are gone already, and the launchers are their opener's."""
        self.sampling.close()

    def _measure_once(self, point: Point, repeat: int) -> Attempt:
        failed = self.preparer.prepare(
            point,
            repeat,
            device=self.device,
            settings=self.children,
            run_directory=self.run_directory,
        )
        if failed is not None:
            return self._record_end(failed, []), []

        remaining: Device | None = self.device.for_point(point)
        left_out: list[str] = []
        while remaining is not None:
            with lease(remaining, self.lease_folder) as held:
                try:
                    return self._measure_on(held, point, repeat, left_out)
                except DeviceUnavailable as reason:
                    left_out.append(str(reason))
                    last, remaining = held.device, remaining.without(held.device)

        # Skipped, not failed: else the loader would be blamed for what another process holds, or
        # for a card that is gone.
        absent = Ending(Outcome.SKIPPED, "device", left_out[-1])
        end = end_without_child(
            point, repeat, absent, launcher=self.launcher.name, device=last.uuid
        )
        return self._record_end(end, []), []

    def _measure_on(
        self, held: Lease, point: Point, repeat: int, left_out: Sequence[str]
    ) -> Attempt:
        """Measure on the card that is held. Raises DeviceUnavailable where it cannot be used, or
        was lost during the run.
        """
        device = self.with_room(held.device)
        files = _ChildFiles.of(self.run_directory, point, repeat)
        child = self.launcher.run(self._order(point, repeat, device, files, held.inherited))

        rows = files.new_rows(point, repeat)
        ending = classify(
            child,
            rows,
            files.new_log(),
            limit_bytes=device.limit_bytes,
            timeout_s=self.children.timeout_s,
        )
        if ending.outcome is not point.expected and repeat != TRACED_REPEAT:
            self._check_not_lost(held.device, point, repeat)

        phase = None if ending.outcome is Outcome.OK else phase_at_death(rows)
        end = RunEnd(
            point=point.name,
            repeat=repeat,
            outcome=ending.outcome,
            cause=ending.cause,
            reason=ending.reason,
            phase=phase,
            exit_code=child.exit_code,
            launcher=self.launcher.name,
            duration_s=child.duration_s,
            device=device.uuid or "",
            device_limit_bytes=device.limit_bytes,
            left_out=tuple(left_out),
        )
        return self._record_end(end, rows), rows

    def _check_not_lost(self, held: Device, point: Point, repeat: int) -> None:
        """Discard a run whose card cannot be used any more. Raises DeviceUnavailable, with the
        driver's words.
        """
        try:
            self.with_room(held)
        except DeviceUnavailable as reason:
            why = f"the card was lost during the run: {reason}"
            discard_run(self.run_directory, point.name, repeat, why)
            raise

    def _order(
        self,
        point: Point,
        repeat: int,
        device: Device,
        files: _ChildFiles,
        inherited: tuple[int, ...],
    ) -> ChildOrder:
        sampler, note = self.sampling.address()
        job = dataclasses.replace(
            self.children.measurement(point, repeat, device, files.rows),
            sampler=sampler,
            sampler_note=note,
        )
        if repeat == TRACED_REPEAT:
            trace = trace_path(self.run_directory, point.name).resolve()
            job = dataclasses.replace(job, tracer=TRACER, trace_path=str(trace))
        environment = {**point.environment, **device.environment()}
        return dataclasses.replace(
            self.children.order(job, device, files.log, environment),
            allocator_wait_s=ALLOCATOR_WAIT_S,
            inherited=inherited,
        )

    def _record_end(self, end: RunEnd, rows: Sequence[Row]) -> RunEnd:
        """Write down how a run ended."""
        row: Row = end
        if end.repeat == TRACED_REPEAT:
            clear_unfinished(self.run_directory, end.point)
            row = trace_end(end, rows)
        write_row(self.run_directory, row)
        return end


@contextlib.contextmanager
def opened_runner(
    run_directory: Path,
    device: Device,
    children: ChildSettings,
    *,
    isolation: Isolation,
    preload: Sequence[str],
) -> Iterator[Runner]:
    """A runner with a launcher of its own, as ``isolation`` means it here; what both keep running
    ends with the block.
    """
    launcher = open_launcher(
        isolation, environment=os.environ, folder=children.root, preload=preload
    )
    runner = Runner(
        run_directory=run_directory, device=device, launcher=launcher, children=children
    )
    try:
        yield runner
    finally:
        runner.close()
        launcher.close()


# A run that shared the device with another process is measured again.


def retry_when_shared(
    attempt: Callable[[], Attempt],
    discard: Callable[[str], None],
    pauses_s: Sequence[float] = PAUSES_S,
) -> RunEnd:
    """The end of the first attempt that was alone on the device, of at most ``1 + len(pauses_s)``,
    else of the last.

    Before each further one ``discard`` is called with who else used it: what the earlier one left
    is void. What the last one left stays, neighbours named in it, and the judge says that the point
    was not measured alone.
    """
    for pause_s in pauses_s:
        end, rows = attempt()
        others = others_on_device(rows)
        if not others:
            return end
        discard(f"not alone on the device: {others}")
        time.sleep(pause_s)
    return attempt()[0]


def others_on_device(rows: Sequence[Row]) -> str:
    """Who used the device besides this run, by what its readings say; empty for nobody."""
    readings = [one for row in rows if isinstance(row, PhaseRecord) for one in row.readings]
    return "; ".join(dict.fromkeys(one.contended for one in readings if one.contended))
