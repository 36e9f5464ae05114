"""The one place that starts children: fresh interpreters and forks of a zygote, and the sampler
beside them.
"""

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.errors import HarnessError
from harness.records import Job, to_json
from harness.run.ends import ChildEnd, Stop, wait_for_end
from harness.system.memory import Counters, Limit, Watchdog, count_oom_kills, where_it_killed
from harness.system.proc import HasEnded, end_of, stop

Isolation = Literal["auto", "zygote", "spawn"]

HOME = Path(__file__).resolve().parents[2]
"""The folder that this harness was imported from: the root of its checkout, or site-packages."""
# Neither the working directory nor PYTHONPATH may put another package of the same name in its place
# (-P leaves the first out, the front of sys.path beats the second). Once it is imported, its folder
# has no place of its own any more.
_IMPORT_OURS = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import harness; del sys.path[0]; "
    "from importlib import import_module; sys.exit(import_module(sys.argv.pop(1)).main())"
)
_WORKER = "harness.measure.worker"
_SAMPLER = "harness.measure.sampler"

# Chosen: long enough for an interpreter to unwind, short beside the time-out that was already
# missed.
_GRACE_S = 1.0
# Chosen: thirty times what importing TensorFlow takes on two busy cores.
_START_S = 180.0
_SAMPLER_START_S = 30.0  # chosen: a hundred times what an interpreter takes on a busy machine
_SAMPLER_END_S = 2.0  # chosen: it has nothing to finish; only a call of the driver can hold it
_MESSAGE_BYTES = 1 << 16  # chosen: what the zygote says takes some hundred bytes
_SOCKET = "s"
_LONGEST_ADDRESS = 100
"""Bytes of a socket's path. Linux takes 107 and macOS 103 (unix(7), unix(4)); chosen below both."""

# TensorFlow's start-up chatter is kept out of the logs, but not its warnings: the only trace that a
# refused copy leaves is a warning of the allocator. OpenBLAS would start a thread for each core at
# numpy's import: their arenas would count as host memory, and no fork would be safe. So would the
# allocator inside pyarrow, which Keras imports with pandas where it is installed: seen on a machine
# with a card, where no child could be forked and each took 12 s instead of 2.
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTHONUNBUFFERED": "1",
}


class ZygoteRefused(HarnessError):  # noqa: N818 - a state of the machine, not a mistake
    """The zygote cannot serve here; the message is its reason."""


def own_command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of a module of ours in a fresh interpreter, whatever its
    working directory holds.
    """
    return [sys.executable, "-P", "-c", _IMPORT_OURS, str(HOME), module, *arguments]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOrder:
    """One child to run.

    ``environment`` is the child's whole environment, ``folder`` its working
    directory and an import path behind those of the job, ``inherited`` the descriptors it keeps,
    such as the lock of its device.
    """

    job: Job
    environment: Mapping[str, str]
    folder: Path
    log: Path
    timeout_s: float
    allocator_wait_s: float = 0.0
    """How much longer an idle child may take: TensorFlow's allocator sleeps before it reports that
    memory ran out."""
    limit_made_of: str = ""
    """Which option sets the limit of the job's memory, and what is in it besides."""
    inherited: tuple[int, ...] = ()

    def watchdog(self, pid: int) -> Watchdog:
        """What bounds the memory of the order's child and of what that starts."""
        return Watchdog(pid, Limit(self.job.host_limit_bytes, self.limit_made_of))


class Launcher(Protocol):
    """Runs one child at a time and waits for its end.

    After ``timeout_s`` the child's whole process group gets SIGTERM, and SIGKILL a second later; a
    child that is idle then may take ``allocator_wait_s`` more. A child whose memory goes over its
    job's limit is killed at once (see ``Watchdog``). Whatever the child has started in its group is
    ended with it, also when it ends by itself or the wait is interrupted. The zygote also ends what
    has left the group (setsid); without one that is done with a child that went over its limit.
    """

    name: str

    def run(self, order: ChildOrder) -> ChildEnd:
        """Run the child; what it prints goes to the order's log."""

    def close(self) -> None:
        """End what the launcher itself keeps running."""


class SpawnLauncher:
    """A fresh interpreter for each child. Only its group is ended with it: what leaves the group
    (setsid) lives on.
    """

    def __init__(self, name: str = "spawn") -> None:
        self.name = name

    def run(self, order: ChildOrder) -> ChildEnd:
        """Start, wait, clean up."""
        started_s, kills = time.monotonic(), count_oom_kills()
        with order.log.open("ab") as output:
            child = subprocess.Popen(
                own_command(_WORKER),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(order.environment),
                cwd=order.folder,
                start_new_session=True,
                pass_fds=order.inherited,
            )

        try:
            _hand_over(child, json.dumps(to_json(order.job)))
            with end_of(child.pid) as has_ended:
                stopped = self._wait(child, has_ended, order)
        finally:
            # The child has not been reaped yet, so its id still names its group and nobody else's.
            _signal_group(child, signal.SIGKILL)
            child.wait()
        return _child_end(child.returncode, stopped, started_s, kills)

    def _wait(
        self, child: subprocess.Popen[bytes], has_ended: HasEnded, order: ChildOrder
    ) -> Stop | None:
        watchdog = order.watchdog(child.pid)
        stopped = wait_for_end(has_ended, watchdog, order.timeout_s, order.allocator_wait_s)
        if stopped is not None and stopped.overrun:
            _end_family(watchdog)  # whoever fills the memory may have left the group
        if stopped is not None:
            stop(
                has_ended,
                ask=functools.partial(_signal_group, child, signal.SIGTERM),
                kill=functools.partial(_signal_group, child, signal.SIGKILL),
                grace_s=stopped.grace_s(_GRACE_S),
            )
        return stopped

    def close(self) -> None:
        """Nothing is kept."""


class ZygoteLauncher:
    """A fork, for each child, of one process that has imported TensorFlow and done nothing else."""

    name = "zygote"

    def __init__(
        self, *, environment: Mapping[str, str], folder: Path, preload: Sequence[str] = ()
    ) -> None:
        """Start the zygote, which imports ``preload`` as well. Raises ZygoteRefused when it finds
        itself unfit to fork.
        """
        if not hasattr(os, "pidfd_open"):
            raise ZygoteRefused("it needs Linux")
        self._environment = {**environment, **QUIET}
        self._folder = folder
        self._preload = tuple(preload)
        self._zygote = self._start()

    def run(self, order: ChildOrder) -> ChildEnd:
        """Have the zygote fork, wait for its word, and have it clean up."""
        if not self._zygote.is_alive():
            self.close()
            self._zygote = self._start()
        started_s, kills = time.monotonic(), count_oom_kills()

        try:
            child = self._zygote.fork(order)
            stopped = None if child is None else self._wait(child, order)
        except BaseException:
            # Interrupted in mid-measurement: without its parent the zygote ends the child's group,
            # and then itself.
            self.close()
            raise

        exit_code = None if child is None else child.exit_code
        if exit_code is None:
            # A zygote that is killed takes its child with it, and what killed it is what ended the
            # child. One that is stuck has nothing to say any more.
            exit_code = self._zygote.kill()
        return _child_end(exit_code, stopped, started_s, kills)

    def close(self) -> None:
        """Let the zygote end."""
        self._zygote.close()

    def _start(self) -> "_Zygote":
        zygote = _Zygote(self._environment, self._folder, self._preload)
        answer = zygote.next_message(_START_S)
        if answer is None or "ready" not in answer:
            exit_code = zygote.close()
            raise ZygoteRefused(
                answer["refused"] if answer else f"it did not answer (exit code {exit_code})"
            )
        return zygote

    def _wait(self, child: "_Fork", order: ChildOrder) -> Stop | None:
        watchdog = order.watchdog(child.pid)
        stopped = wait_for_end(child.has_ended, watchdog, order.timeout_s, order.allocator_wait_s)
        if stopped is not None:
            stop(
                child.has_ended,
                ask=functools.partial(child.signal, signal.SIGTERM),
                kill=functools.partial(child.signal, signal.SIGKILL),
                grace_s=stopped.grace_s(_GRACE_S),
            )
        return stopped


class _Zygote:
    """The zygote (``harness.measure.worker``), and the line to it, which it ends with."""

    def __init__(
        self, environment: Mapping[str, str], folder: Path, preload: Sequence[str]
    ) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                own_command(_WORKER, "--zygote", *preload),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, order: ChildOrder) -> "_Fork | None":
        """The child of an order; None where the zygote has ended instead."""
        request = {
            "job": to_json(order.job),
            "environment": dict(order.environment),
            "folder": str(order.folder.resolve()),
            "log": str(order.log.resolve()),
        }
        self.send({"job": request}, order.inherited)
        forked = self.next_message(_START_S)
        return None if forked is None else _Fork(self, int(forked["forked"]))

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        # The zygote may just have been killed; its exit code shows it.
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(self._line, [json.dumps(message).encode()], descriptors)

    def next_message(self, timeout_s: float) -> dict[str, Any] | None:
        """The zygote's next message; None when it does not come in time, or the zygote is gone."""
        if not select.select([self._line], [], [], timeout_s)[0]:
            return None
        try:
            text = self._line.recv(_MESSAGE_BYTES)
        except ConnectionResetError:
            text = b""
        if not text:
            self._process.wait()
            return None
        message: dict[str, Any] = json.loads(text)
        return message

    def kill(self) -> int:
        """End it at once; its exit code."""
        self._process.kill()
        return self._process.wait()

    def close(self) -> int:
        """Let it end; its exit code."""
        return _stop_started(self._process, self._line.close, _GRACE_S)


class _Fork:
    """A child of the zygote, which the zygote signals, and whose end it reports."""

    def __init__(self, zygote: _Zygote, pid: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        """None until the zygote has reported it."""
        self._zygote = zygote

    def has_ended(self, timeout_s: float) -> bool:
        """Wait so long for the end of the child, or of the zygote."""
        if self.exit_code is None:
            answer = self._zygote.next_message(timeout_s)
            if answer is not None:
                self.exit_code = int(answer["ended"])
        return self.exit_code is not None or not self._zygote.is_alive()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child and its group."""
        self._zygote.send({"signal": number})


def _stop_started(
    process: subprocess.Popen[bytes], ask: Callable[[], object], grace_s: float
) -> int:
    """Have a process end that ends when ``ask`` has closed its line; its exit code."""

    def has_ended(timeout_s: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return process.returncode is not None

    stop(has_ended, ask=ask, kill=process.kill, grace_s=grace_s)
    return process.wait()


def _hand_over(child: subprocess.Popen[bytes], job: str) -> None:
    assert child.stdin is not None  # noqa: S101 - it was opened as a pipe
    with contextlib.suppress(BrokenPipeError):  # the child is gone already; its exit code shows it
        child.stdin.write(job.encode())
        child.stdin.close()


def _child_end(exit_code: int, stopped: Stop | None, started_s: float, kills: Counters) -> ChildEnd:
    stopped = stopped or Stop()
    return ChildEnd(
        exit_code=exit_code,
        timed_out=stopped.timed_out,
        duration_s=time.monotonic() - started_s,
        overrun=stopped.overrun,
        oom_kills=where_it_killed(kills, count_oom_kills()),
    )


def _end_family(watchdog: Watchdog) -> None:
    for pid in watchdog.family:
        # ended since it was seen, some milliseconds ago
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # the whole group has ended already
        os.killpg(child.pid, number)


def open_launcher(
    isolation: Isolation,
    *,
    environment: Mapping[str, str],
    folder: Path,
    preload: Sequence[str] = (),
) -> Launcher:
    """The launcher that ``isolation`` means here; ``preload`` names libraries that the zygote
    imports before it forks.

    ``"auto"`` is the zygote, or fresh interpreters where it refuses; the launcher's name, which is
    in every row, then says why. ``"zygote"`` insists, and raises ZygoteRefused.
    """
    if isolation == "spawn":
        return SpawnLauncher()
    try:
        return ZygoteLauncher(environment=environment, folder=folder, preload=preload)
    except ZygoteRefused as refusal:
        if isolation == "zygote":
            raise
        return SpawnLauncher(name=f"spawn (no zygote: {refusal})")


# The sampler: one process beside the children of one runner, started, seen to live, and ended.


class Sampling:
    """The sampler of one runner, started when the first child needs it and again when it was found
    dead.
    """

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, options: tuple[str, ...] = ()
    ) -> None:
        """``environment`` is that of the sampler, by default this process's own when it is
        started.
        """
        self._environment = environment
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._end: weakref.finalize[..., Sampling] | None = None

    def address(self) -> tuple[str, str]:
        """Where the sampler listens, and a word about it; without one, an empty address and the
        reason.
        """
        died = ""
        if self._process is not None:
            if self._process.poll() is None:
                return str(self._socket), ""
            died = (
                "the sampler before this one ended with code "
                f"{self._process.returncode}{self._last_words()}"
            )
            self.close()
        try:
            refused = self._start()
        except OSError as error:
            refused = str(error)
        if refused:
            reason = f"the sampler could not be started: {refused}"
            self.close()
            return "", "; ".join(filter(None, [reason, died]))
        return str(self._socket), died

    def close(self) -> None:
        """End the sampler and take its folder away."""
        if self._end is not None:
            self._end()
        self._process = self._folder = self._end = None

    @property
    def process_id(self) -> int | None:
        """The sampler's, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def _socket(self) -> Path:
        assert self._folder is not None  # noqa: S101 - set by _start()
        return self._folder / _SOCKET

    def _start(self) -> str:
        """Start the sampler and wait for its first line; why it did not start, or nothing."""
        self._folder = _private_folder()
        if self._folder is None:
            return (
                f"{tempfile.gettempdir()} is too long a path for a socket; set TMPDIR to a "
                "shorter one"
            )
        self._process = process = self._launch(self._folder)
        # Also at the interpreter's exit, and when the runner is dropped: nothing is left behind.
        self._end = weakref.finalize(self, _finish, process, self._folder)

        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        listens = select.select([process.stdout], [], [], _SAMPLER_START_S)[0]
        if listens and process.stdout.readline():
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLER_END_S)
        return f"it ended with code {process.poll()}{self._last_words()}"

    def _launch(self, folder: Path) -> subprocess.Popen[bytes]:
        arguments = [str(folder / _SOCKET), "--parent", str(os.getpid()), *self._options]
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                own_command(_SAMPLER, *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(os.environ if self._environment is None else self._environment),
                cwd=folder,
                start_new_session=True,
            )

    def _last_words(self) -> str:
        assert self._folder is not None  # noqa: S101 - set by _start()
        with contextlib.suppress(OSError):
            log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
            lines = log.strip().splitlines()
            return f": {lines[-1]}" if lines else ""
        return ""


def _private_folder() -> Path | None:
    """A new folder that only this user may enter (mode 0700), with a path short enough for a
    socket; None for none.
    """
    for where in (None, "/tmp"):  # noqa: S108 - only where TMPDIR is too long a path; mkdtemp makes it private
        folder = Path(tempfile.mkdtemp(prefix="memory-", dir=where))
        if len(os.fsencode(folder / _SOCKET)) <= _LONGEST_ADDRESS:
            return folder
        folder.rmdir()
    return None


def _finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Have the sampler end, and take its folder away."""

    def close_pipes() -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    _stop_started(process, close_pipes, _SAMPLER_END_S)
    shutil.rmtree(folder, ignore_errors=True)
