"""The child: confine itself, run one scenario body, emit one JSON line per finished phase; and the
zygote, which forks children.

Started as ``python -m harness.measure.worker`` with one job, as JSON, on standard input, or forked
from the zygote (``--zygote``). Nothing heavy is imported here: bodies, preparations and meters are
loaded by name, after the environment that their libraries read is set.
"""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
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
from harness.system.proc import end_of, stop

ZYGOTE = "--zygote"
"""What makes the process the zygote; modules that it is to import as well may follow."""
SCRIPT_BODY = "harness.measure.script:run_script"
"""The body that runs somebody's script."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal this process gets when its parent dies
# proc(5): the highest oom_score_adj; the kernel takes the child before its parent
_FIRST_VICTIM = "1000"


def main() -> int:
    """Run the job on standard input; as the zygote, serve until the parent closes the socket."""
    if sys.argv[1:2] == [ZYGOTE]:
        return serve(sys.argv[2:])
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
    except BaseException as error:  # noqa: BLE001 - what ends the body is the result
        ending = name_exception(error, look_for_room(job.device))
        if ending.outcome is Outcome.ERROR and job.body != SCRIPT_BODY:
            _log_traceback()  # a script's own has been printed, as Python prints it
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
    except BaseException as error:  # noqa: BLE001 - the parent wants one sentence
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


# The zygote: a process that has imported TensorFlow and done nothing with it, and forks one
# child for each job. A fresh interpreter pays seconds for that import at every measurement; a
# fork pays milliseconds. It is only right while nothing but the import has happened: a fork
# after the first operation inherits locks and queues of threads that do not exist in the child,
# and hangs. So the zygote checks itself before it offers its service, tries one child out, and
# otherwise refuses with the reason; the parent then starts fresh interpreters instead. Talks
# JSON lines over the socket on its standard input. To the parent: ``ready`` or ``refused``, then
# for each job ``forked`` with the child's id and ``ended`` with its exit code. From the parent:
# ``job`` (with descriptors the child keeps), or ``signal``.


_MESSAGE_BYTES = 1 << 20  # chosen: a job with its environment takes some kilobytes
_CANARY_S = 60.0  # chosen: a hundred times what a first operation takes on a busy machine
# linux/prctl.h: orphans below this process become its children, not those of init
_PR_SET_CHILD_SUBREAPER = 36
# Libraries of the driver: once one is mapped, the process may have a context that a fork cannot
# share (CUDA programming guide: a CUDA context does not survive fork).
_DRIVER_LIBRARIES = ("libcuda.so", "libnvidia-ml.so")

# What every measured child imports: TensorFlow for seconds, the rest for ten milliseconds. None of
# it does anything.
_PRELOADED = (
    "tensorflow",
    "harness.measure.device",
    "harness.measure.host_meter",
    "harness.measure.card_meter",
)


def serve(preload: Sequence[str]) -> int:
    """Import what the jobs share and ``preload``, check, and fork a child for each job until the
    parent closes the socket.
    """
    line = socket.socket(fileno=os.dup(0))
    die_with_parent()
    cannot_adopt = _adopt_orphans()
    try:
        for name in (*_PRELOADED, *preload):
            import_module(name)
    except ImportError as error:
        _send(line, {"refused": f"{name} cannot be imported: {error}"})
        return 1
    gc.collect()
    # the children's collector leaves the imported objects alone, so their pages stay shared
    gc.freeze()
    refusal = cannot_adopt or unfit_to_fork() or _canary()
    if refusal:
        _send(line, {"refused": refusal})
        return 1
    _send(line, {"ready": True})
    while True:
        message, *descriptors = _receive(line)
        if not message:
            return 0
        if "job" in message:  # a signal that comes too late finds nobody left
            _serve(line, message["job"], descriptors)


def _adopt_orphans() -> str:
    """Become the parent of what a job leaves behind; why that cannot be, or nothing. Forks do
    not inherit it.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        return f"the kernel does not let it adopt orphans ({os.strerror(ctypes.get_errno())})"
    if not _children_file().exists():
        return f"the kernel does not list children in {_children_file()}"
    return ""


def unfit_to_fork() -> str:
    """Why this process must not be forked from, in one clause; empty when it may."""
    threads = sorted(
        (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    )
    if len(threads) != 1:
        return f"the import left {len(threads)} threads running: {', '.join(threads)}"
    context = import_module("tensorflow.python.eager.context").context_safe()
    if context is not None and context._initialized:  # TensorFlow offers no public way to ask
        return "TensorFlow's runtime has been started already"
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    mapped = [library for library in _DRIVER_LIBRARIES if library in maps]
    if mapped:
        return f"the import has loaded {' and '.join(mapped)}"
    return ""


def _canary() -> str:
    """Fork once and run one operation; why it did not work, or nothing."""
    child = os.fork()
    if child == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        total = int(import_module("tensorflow").reduce_sum([1, 2, 3]))
        os._exit(0 if total == 6 else 1)
    with end_of(child) as has_ended:
        ended = stop(
            has_ended,
            ask=lambda: None,  # it ends by itself, or it hangs
            kill=lambda: os.kill(child, signal.SIGKILL),
            grace_s=_CANARY_S,
        )
    _, status = os.waitpid(child, 0)
    if not ended:
        return f"a forked child did not finish one operation in {_CANARY_S:.0f} s"
    code = os.waitstatus_to_exitcode(status)
    return "" if code == 0 else f"a forked child ended with {code} on its first operation"


def _serve(line: socket.socket, request: Mapping[str, Any], descriptors: list[int]) -> None:
    child = os.fork()
    if child == 0:
        line.close()
        os._exit(_become(request))
    for descriptor in descriptors:
        os.close(descriptor)
    _send(line, {"forked": child})
    parent_is_there = True
    ended = os.pidfd_open(child)
    while parent_is_there and ended not in select.select([line.fileno(), ended], [], [])[0]:
        message, *_ = _receive(line)
        parent_is_there = message is not None
        if message is not None:
            _signal_group(child, message["signal"])
    os.close(ended)
    # Whatever the body started must not outlive it. The child is not reaped yet, so its id still
    # names its group.
    _signal_group(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _end_orphans()
    if parent_is_there:
        _send(line, {"ended": os.waitstatus_to_exitcode(status)})


def _become(request: Mapping[str, Any]) -> int:
    """Turn the fork into the child of one job: session, environment, folder and output of its
    own.
    """
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        return run(Job(**request["job"]))
    except BaseException:  # noqa: BLE001 - nothing may unwind into the zygote's own frames
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _end_orphans() -> None:
    """End what the job started in groups of its own (setsid). The death of one may bring its
    children here in turn.
    """
    while orphans := [int(number) for number in _children_file().read_text().split()]:
        for orphan in orphans:
            os.kill(orphan, signal.SIGKILL)  # nobody else reaps it, so its id still names it
            os.waitpid(orphan, 0)


def _children_file() -> Path:
    # The zygote has one thread, its first, whose id is that of the process (proc(5)).
    return Path(f"/proc/self/task/{os.getpid()}/children")


def _signal_group(child: int, number: int) -> None:
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        # Either all of the group has ended, or the fork has not become its leader yet.
        os.kill(child, number)


def _send(line: socket.socket, message: Mapping[str, Any]) -> None:
    line.sendall(json.dumps(message).encode())


def _receive(line: socket.socket) -> tuple[Any, ...]:
    text, descriptors, _, _ = socket.recv_fds(line, _MESSAGE_BYTES, 8)
    return (json.loads(text) if text else None, *descriptors)


if __name__ == "__main__":
    sys.exit(main())
