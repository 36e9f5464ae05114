"""The zygote: a process that has imported TensorFlow and done nothing with it, and forks one child
for each job.

A fresh interpreter pays seconds for that import at every measurement; a fork pays milliseconds. It
is only right while nothing but the import has happened: a fork after the first operation inherits
locks and queues of threads that do not exist in the child, and hangs. So the zygote checks itself
before it offers its service, tries one child out, and otherwise refuses with the reason; the parent
then starts fresh interpreters instead.

Talks JSON lines over the socket on its standard input. To the parent: ``ready`` or ``refused``,
then for each job ``forked`` with the child's id and ``ended`` with its exit code. From the parent:
``job`` (with descriptors the child keeps), or ``signal``.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.measure import worker
from harness.records import Job
from harness.system.proc import end_of, stop

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


def main() -> int:
    """Import what the jobs share, check, and serve until the parent closes the socket."""
    line = socket.socket(fileno=os.dup(0))
    worker.die_with_parent()
    cannot_adopt = _adopt_orphans()
    try:
        for name in (*_PRELOADED, *sys.argv[1:]):
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
    """Become the parent of whatever a job leaves behind; why that cannot be, or nothing. Forks do
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
        return worker.run(Job(**request["job"]))
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
