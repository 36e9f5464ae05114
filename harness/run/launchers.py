"""The one place that starts, waits for and kills children, in two ways: fresh interpreters, and
forks of a zygote.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.errors import HarnessError
from harness.run.packages import own_command
from harness.run.watchdog import Limit, Overrun, Stop, Watchdog, end_of, wait_for_end
from harness.system.memory import Counters, count_oom_kills, where_it_killed

Isolation = Literal["auto", "zygote", "spawn"]

_WORKER = "harness.measure.worker"
_ZYGOTE = "harness.measure.zygote"
# Chosen: long enough for an interpreter to unwind, short beside the time-out that was already
# missed.
_GRACE_S = 1.0
# Chosen: thirty times what importing TensorFlow takes on two busy cores.
_START_S = 180.0
_MESSAGE_BYTES = 1 << 16

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOrder:
    """One child to run.

    ``job`` is plain JSON; ``environment`` is the child's whole environment, ``folder`` its working
    directory and an import path behind those of the job, ``inherited`` the descriptors it keeps,
    such as the lock of its device.
    """

    job: Mapping[str, Any]
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
        return Watchdog(pid, Limit(int(self.job["host_limit_bytes"]), self.limit_made_of))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a child ended: its exit code (negative: the signal that killed it) and whether it had to
    be stopped.
    """

    exit_code: int
    timed_out: bool
    duration_s: float
    overrun: Overrun | None = None
    """Why the watchdog killed it; None when it did not."""
    oom_kills: tuple[str, ...] = ()
    """Where the kernel counted out-of-memory kills meanwhile."""


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
        """End whatever the launcher itself keeps running."""


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
            _hand_over(child, json.dumps(order.job))
            watchdog = order.watchdog(child.pid)
            with end_of(child) as has_ended:
                stop = wait_for_end(has_ended, watchdog, order.timeout_s, order.allocator_wait_s)
                if stop is not None and stop.overrun:
                    _end_family(watchdog)  # whoever fills the memory may have left the group
                if stop is not None and stop.timed_out:
                    _signal_group(child, signal.SIGTERM)
                    has_ended(_GRACE_S)
        finally:
            # The child has not been reaped yet, so its id still names its group and nobody else's.
            _signal_group(child, signal.SIGKILL)
            child.wait()
        return _child_end(child.returncode, stop, started_s, kills)

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
        self._start()

    def _start(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._zygote = subprocess.Popen(
            own_command(_ZYGOTE, *self._preload),
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=self._folder,
            start_new_session=True,
        )
        theirs.close()
        answer = self._next(_START_S)
        if answer is None or "ready" not in answer:
            self.close()
            raise ZygoteRefused(
                answer["refused"]
                if answer
                else f"it did not answer (exit code {self._zygote.returncode})"
            )

    def run(self, order: ChildOrder) -> ChildEnd:
        """Have the zygote fork, wait for its word, and have it clean up."""
        if self._zygote.poll() is not None:
            self.close()
            self._start()
        started_s, kills = time.monotonic(), count_oom_kills()
        request = {
            "job": dict(order.job),
            "environment": dict(order.environment),
            "folder": str(order.folder.resolve()),
            "log": str(order.log.resolve()),
        }
        answer: dict[str, Any] | None = None

        def has_answered(timeout_s: float) -> bool:
            nonlocal answer
            answer = self._next(timeout_s)
            return answer is not None or self._zygote.poll() is not None

        stop = None
        try:
            # the zygote has just been killed; its exit code will tell
            with contextlib.suppress(BrokenPipeError):
                socket.send_fds(
                    self._line, [json.dumps({"job": request}).encode()], order.inherited
                )
            forked = self._next(_START_S)
            if forked is not None:
                watchdog = order.watchdog(int(forked["forked"]))
                stop = wait_for_end(has_answered, watchdog, order.timeout_s, order.allocator_wait_s)
            if stop is not None and stop.timed_out:
                answer = self._signal(signal.SIGTERM, _GRACE_S)
            if stop is not None and answer is None:
                # gigabytes take their time to be given back
                answer = self._signal(signal.SIGKILL, _START_S)
        except BaseException:
            # Interrupted in mid-measurement: without its parent the zygote ends the child's group,
            # and then itself.
            self.close()
            raise
        if answer is None:
            # A zygote that is killed takes its child with it, and what killed it is what ended the
            # child. One that is stuck has nothing to say any more.
            self._zygote.kill()
        exit_code = int(answer["ended"]) if answer else self._zygote.wait()
        return _child_end(exit_code, stop, started_s, kills)

    def close(self) -> None:
        """Let the zygote end."""
        self._line.close()
        try:
            self._zygote.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()

    def _signal(self, number: signal.Signals, timeout_s: float) -> dict[str, Any] | None:
        with contextlib.suppress(BrokenPipeError):  # the zygote has just been killed
            self._line.sendall(json.dumps({"signal": number}).encode())
        return self._next(timeout_s)

    def _next(self, timeout_s: float) -> dict[str, Any] | None:
        """The zygote's next message; None when it does not come in time, or the zygote is gone."""
        if not select.select([self._line], [], [], timeout_s)[0]:
            return None
        try:
            text = self._line.recv(_MESSAGE_BYTES)
        except ConnectionResetError:
            text = b""
        if not text:
            self._zygote.wait()
            return None
        message: dict[str, Any] = json.loads(text)
        return message


def _hand_over(child: subprocess.Popen[bytes], job: str) -> None:
    assert child.stdin is not None  # noqa: S101 - it was opened as a pipe
    with contextlib.suppress(BrokenPipeError):  # the child is gone already; its exit code will tell
        child.stdin.write(job.encode())
        child.stdin.close()


def _child_end(exit_code: int, stop: Stop | None, started_s: float, kills: Counters) -> ChildEnd:
    stop = stop or Stop()
    return ChildEnd(
        exit_code=exit_code,
        timed_out=stop.timed_out,
        duration_s=time.monotonic() - started_s,
        overrun=stop.overrun,
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


# Start the sampler, see that it lives, and end it: one process beside the children of one
# runner.


_SAMPLER = "harness.measure.sampler"
_SOCKET = "s"
_LONGEST_ADDRESS = 100
"""Bytes of a socket's path. Linux takes 107 and macOS 103 (unix(7), unix(4)); chosen below both."""
_SAMPLER_START_S = (
    30.0  # chosen: a hundred times what an interpreter takes to start on a busy machine
)
_END_S = 2.0  # chosen: the sampler has nothing to finish; only a call of the driver can hold it


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
        self._folder = _private_folder()
        if self._folder is None:
            return (
                f"{tempfile.gettempdir()} is too long a path for a socket; set TMPDIR to a "
                "shorter one"
            )
        environment = dict(os.environ if self._environment is None else self._environment)
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *own_command(_SAMPLER),
                    str(self._socket),
                    "--parent",
                    str(os.getpid()),
                    *self._options,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._process = process
        # Also at the interpreter's exit, and when the runner is dropped: nothing is left behind.
        self._end = weakref.finalize(self, _finish, process, self._folder)
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        if (
            select.select([process.stdout], [], [], _SAMPLER_START_S)[0]
            and process.stdout.readline()
        ):
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        return f"it ended with code {process.poll()}{self._last_words()}"

    def _last_words(self) -> str:
        assert self._folder is not None  # noqa: S101 - set by _start()
        with contextlib.suppress(OSError):
            lines = (
                (self._folder / "log")
                .read_text(encoding="utf-8", errors="replace")
                .strip()
                .splitlines()
            )
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
    """Tell the sampler to end, see that it does, and take its folder away."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
