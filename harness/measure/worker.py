"""The child: confine itself, run one scenario body, emit one JSON line per finished phase.

Started as ``python -m harness.measure.worker`` with one job, as JSON, on standard input, or forked
from the zygote. Nothing heavy is imported here: bodies, preparations and meters are loaded by name,
after the environment that their libraries read is set.
"""

import contextlib
import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import MeterUnavailable, UsageError
from harness.measure import AbsentMeter, Memory, Meter, MeterContext, SamplerLine
from harness.measure.exceptions import look_for_room, name_exception
from harness.measure.importing import (
    arrange_imports,
    load,
    origins,
    refuse_deferred,
    refuse_returned,
)
from harness.records import Ending, Job, Outcome
from harness.rundir.rows import CodeFiles, Done, Row, append_row, open_rows

_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal this process gets when its parent dies
# proc(5): the highest oom_score_adj; the kernel takes the child before its parent
_FIRST_VICTIM = "1000"


def main() -> int:
    """Run the job on standard input."""
    return run(Job.from_json(sys.stdin.read()))


def run(job: Job) -> int:
    """Run one job in this process; 0 when its last word is on disk, whatever that word is."""
    confine(job.host_limit_bytes)
    faulthandler.enable()  # a crash of native code leaves its place in Python in the log
    if job.body is None:
        return _prepare(job)

    try:
        rows = _Rows(job)
        ending = _ending_of(job, rows)
        rows.write_ending(ending)
    except RowsError as error:
        sys.stderr.write(f"error: {error}\n")
        return os.EX_IOERR

    sys.stderr.flush()
    return 0


class RowsError(BaseException):
    """A row of the run could not be written.

    It is raised inside the body, by ``memory.phase``. It is no Exception, because a body that
    catches everything would go on, and its run would end as "ok" with phases missing.
    """


class _Rows:
    """The rows of one job. Every method raises RowsError where they cannot be written."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._packages: Mapping[str, str] = {}
        with self._as_rows_error():
            self._descriptor = open_rows(Path(job.rows_path))

    def emit(self, row: Row) -> None:
        """Append a row."""
        with self._as_rows_error():
            append_row(self._descriptor, row)

    def write_ending(self, ending: Ending) -> None:
        """Append how the body ended: the last row of a child."""
        self.emit(
            Done(
                point=self._job.point,
                repeat=self._job.repeat,
                outcome=ending.outcome,
                cause=ending.cause,
                reason=ending.reason,
            )
        )

    def write_code(self) -> None:
        """Append which code this is, where that has changed: a run proves what it has measured."""
        job = self._job
        body_package = str(job.body).partition(":")[0].partition(".")[0]
        packages = origins({body_package, *job.kept_out, *job.subjects})
        if packages != self._packages:
            self._packages = packages
            self.emit(CodeFiles(point=job.point, repeat=job.repeat, packages=packages))

    @contextlib.contextmanager
    def _as_rows_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RowsError(f"{self._job.rows_path} cannot be written: {error.strerror}") from error


def _ending_of(job: Job, rows: _Rows) -> Ending:
    """Run the body; how it ended. Raises RowsError."""
    try:
        _measure(job, rows)
    except RowsError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever ends the body is the result
        ending = name_exception(error, look_for_room(job.device))
        if ending.outcome is Outcome.ERROR:
            _log_traceback()
        return ending
    return Ending(Outcome.OK)


def _log_traceback() -> None:
    """Where in the user's code it was, also of a mistake that the harness has found: advice sends
    people to this log.
    """
    import traceback  # for the log of code that failed, nowhere else

    traceback.print_exc()


def confine(host_limit_bytes: int) -> None:
    """Bound this process: its rank for the kernel's out-of-memory killer, and its parent's life.

    Whoever starts it bounds its memory (``harness.system.memory``). A kernel limit on address space
    would count stacks and untouched arrays: loose enough for those, it would not stop a process
    that fills the machine. Without Linux nobody can watch, so the data segment is limited instead.
    Raises OSError where the kernel refuses that.
    """
    if sys.platform != "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (host_limit_bytes, host_limit_bytes))
        return
    Path("/proc/self/oom_score_adj").write_text(_FIRST_VICTIM)
    die_with_parent()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prepare(job: Job) -> int:
    if job.prepare is None:
        raise UsageError("the job has neither a body nor a preparation")
    try:
        _arrange(job)
        prepare = load(job.prepare)
        refuse_deferred(job.prepare, prepare, what="preparation")
        returned = prepare(Path(job.workspace), job.parameters)
        refuse_returned(job.prepare, returned, what="preparation")
    except BaseException as error:  # noqa: BLE001 - the parent wants one sentence, whatever went wrong
        ending = name_exception(error)
        _log_traceback()  # before the sentence, which the parent takes from the last line
        sys.stderr.write(f"{ending.outcome}: {ending.reason}\n")
        return 1
    return 0


def _arrange(job: Job) -> None:
    arrange_imports(
        job.import_paths, root=str(Path.cwd()), kept_out=job.kept_out, subjects=job.subjects
    )


def _import_ours(job: Job) -> None:
    """Import our instruments while our folders still come first: a user's file may have the name
    of a module that they need.
    """
    for name in filter(None, (job.prepare_device, *job.meters, job.tracer)):
        module = name.partition(":")[0]
        if module.partition(".")[0] == __name__.partition(".")[0]:
            importlib.import_module(module)


def _measure(job: Job, rows: _Rows) -> None:
    assert job.body is not None  # noqa: S101 - run() has branched on it
    _import_ours(job)
    _arrange(job)
    body = load(job.body)
    refuse_deferred(job.body, body)

    rows.write_code()
    try:
        _run_body(job, body, rows)
    finally:
        rows.write_code()  # bodies may import in mid-phase


def _run_body(job: Job, body: Callable[..., Any], rows: _Rows) -> None:
    """Start the device, open the meters, run the body."""
    device_name = load(job.prepare_device)(job.device)
    meters, emit = _open_meters(job, device_name), rows.emit

    with contextlib.ExitStack() as recording:
        if job.tracer:
            tracer = load(job.tracer)(
                point=job.point,
                repeat=job.repeat,
                device_name=device_name,
                device=job.device,
                path=Path(job.trace_path),
                emit=emit,
            )
            recording.enter_context(tracer)
            # As the last meter it begins last and ends first: its marks enclose the body alone.
            meters, emit = [*meters, tracer], tracer.hear
        memory = Memory(
            point=job.point,
            repeat=job.repeat,
            workspace=Path(job.workspace),
            meters=meters,
            emit=emit,
        )
        returned = body(memory, job.parameters)
        refuse_returned(str(job.body), returned)


def _open_meters(job: Job, device_name: str) -> list[Meter]:
    # The line is opened here and not before: nothing may be open when the zygote forks.
    sampler, without = _connect_sampler(job)
    context = MeterContext(
        device_name=device_name,
        device=job.device,
        sampler=sampler,
        without_sampler=without,
        sampler_note=job.sampler_note,
    )
    return [_open_meter(name, context) for name in job.meters]


def _connect_sampler(job: Job) -> tuple[SamplerLine | None, str]:
    """The line to the sampler, or the reason why there is none."""
    if not job.sampler:
        return None, job.sampler_note or "none was started"
    try:
        return SamplerLine.connect(job.sampler), ""
    except MeterUnavailable as reason:
        return None, str(reason)


def _open_meter(name: str, context: MeterContext) -> Meter:
    meter: Meter = load(name)(context)
    try:
        meter.open()
    except MeterUnavailable as reason:
        return AbsentMeter(meter.names, str(reason))
    return meter


if __name__ == "__main__":
    sys.exit(main())
