"""The one place that starts, waits for and kills children. A child is a fresh interpreter, in a session of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_WORKER = "harness.measure.worker"
# Chosen: far below the seconds that a child takes, and two hundred looks a second cost nothing.
_POLL_S = 0.005
# Chosen: long enough for an interpreter to unwind, short beside the time-out that was already missed.
_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a child ended: its exit code (negative: the signal that killed it) and whether it had to be stopped."""

    exit_code: int
    timed_out: bool
    duration_s: float


def run_child(
    job: str,
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    timeout_s: float,
    inherited: tuple[int, ...] = (),
) -> ChildEnd:
    """Run one worker on one job (JSON) and wait for its end; what it prints goes to ``log``.

    ``environment`` is the child's whole environment, ``folder`` its working directory and first import path,
    ``inherited`` the descriptors it keeps, such as the lock of its device. After ``timeout_s`` seconds its whole
    process group gets SIGTERM, and SIGKILL a second later. The group is also killed when the wait is interrupted.
    """
    started_s = time.monotonic()
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            pass_fds=inherited,
        )
    timed_out = False
    try:
        _hand_over(child, job)
        if not _has_ended(child, timeout_s):
            timed_out = True
            _signal_group(child, signal.SIGTERM)
            _has_ended(child, _GRACE_S)
    finally:
        # Also after a clean end: whatever the body started in its group must not outlive the measurement. The child
        # has not been reaped yet, so its id still names its group and nobody else's.
        _signal_group(child, signal.SIGKILL)
        child.wait()
    return ChildEnd(exit_code=child.returncode, timed_out=timed_out, duration_s=time.monotonic() - started_s)


def _hand_over(child: subprocess.Popen[bytes], job: str) -> None:
    assert child.stdin is not None  # noqa: S101 - it was opened as a pipe
    with contextlib.suppress(BrokenPipeError):  # the child is gone already; its exit code will tell
        child.stdin.write(job.encode())
        child.stdin.close()


def _has_ended(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the child's end without reaping it; False when the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # the whole group has ended already
        os.killpg(child.pid, number)
