"""The end of a child: waited for, then named from what its parent saw: exit code, signal, counters
of the kernel, rows and log.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.records import OVER_TIME, Ending, Outcome, Point
from harness.rundir.rows import Begin, Done, PhaseRecord, Row, RunEnd
from harness.system.memory import Overrun
from harness.system.proc import HasEnded
from harness.words import format_bytes

_BUSY = 0.25
"""Chosen: share of a processor above which a child is at work, not waiting for an allocator; a
waiting one takes none."""
_BUSY_S = 1.0
"""Time over which that share is taken. Chosen: a hundred of the kernel's ticks."""

_LOG_BYTES = 1 << 18
"""As much of a log's end is read. Chosen: a thousand lines."""
_WORDS_CHARACTERS = 400
# TensorFlow's log lines of the levels I, W and E, from either of its loggers
# (tsl/platform/default/logging.cc, absl/log/internal/log_format.cc). It reports every missing
# driver as an error; only F ends a process. The last two are how its allocator's warning goes on
# (bfc_allocator.cc).
_CHATTER = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    r"|[IWE]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ "
    r"|WARNING: All log messages before absl"
    r"|If the cause is memory fragmentation maybe the environment variable"
    r"|Current allocation summary follows\."
)
# What Python's faulthandler writes when a signal of a crash arrives, on standard error as
# everything else.
_CRASH = "Fatal Python error: "
_FRAME = re.compile(
    r'^Current thread .*\n  File "(?:.*/)?(?P<file>[^"/]+)", line (?P<line>\d+) in '
    r"(?P<function>.+)$",
    re.MULTILINE,
)
# The last attempt's warning of BFCAllocator::AllocateRawInternal. It also logs attempts that may
# fail, in other words.
_REFUSAL = re.compile(
    r"Allocator \((?P<allocator>[^)]+)\) ran out of memory trying to allocate \S+ \(rounded "
    r"to (?P<asked>\d+)\)"
)
# BFCAllocator::RenderOccupancy: one character for each hundredth of its pool, * held, x lost to
# rounding, _ free.
_OCCUPANCY = re.compile(r"\] (?P<map>[*x_]{20,})$", re.MULTILINE)
# How TensorFlow goes on when the refusal has become an error that the caller gets
# (OP_REQUIRES, Status).
_REPORTED = re.compile(r"RESOURCE_EXHAUSTED|OOM when allocating")


# What harness.measure.exceptions says of a copy or a buffer that found no room: TensorFlow's error
# does not say how large it was.
_NO_ROOM = re.compile(r"had no room for [^;(]*[^;( ]")


# Wait for the end of a child: until its time is over, its memory goes over a limit, or it ends
# by itself.


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


class Watch(Protocol):
    """What is looked at meanwhile; see ``Watchdog``."""

    pause_s: float
    """Time until the next look."""

    def look(self) -> Overrun | None:
        """Why the child must be killed now; None when it may go on."""

    def used_cpu_s(self) -> float:
        """Processor time that the child has used so far."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a child has to be ended: its time is over, or its memory."""

    timed_out: bool = False
    overrun: Overrun | None = None

    def grace_s(self, usual_s: float) -> float:
        """Time to unwind after it was asked to end: none where it fills the memory."""
        return usual_s if self.timed_out else 0.0


def wait_for_end(
    has_ended: HasEnded,
    watch: Watch,
    timeout_s: float,
    allocator_wait_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Stop | None:
    """Wait for the end of the child; None when it ended by itself, else why it has to be ended.

    A child that is late and at work is stopped within a second. One that is late and idle may be
    waiting inside TensorFlow's allocator, which is about to report that memory ran out: it gets
    ``allocator_wait_s`` more.
    """
    deadline_s = clock() + timeout_s
    last_s = deadline_s + allocator_wait_s
    late: tuple[float, float] | None = None
    while not has_ended(_until_next_look(watch.pause_s, deadline_s - clock())):
        if overrun := watch.look():
            return Stop(overrun=overrun)
        now_s = clock()
        if now_s >= last_s:
            return Stop(timed_out=True)
        if now_s < deadline_s or (late is not None and now_s - late[0] < _BUSY_S):
            continue
        before, late = late, (now_s, watch.used_cpu_s())
        if before is not None and late[1] - before[1] > _BUSY * (late[0] - before[0]):
            return Stop(timed_out=True)
    return None


def _until_next_look(pause_s: float, left_s: float) -> float:
    return min(pause_s, left_s) if left_s > 0 else pause_s


# What a child's log says about its end: its last words, where it crashed, and memory that
# TensorFlow was refused.


def read_log(path: Path, from_byte: int) -> str:
    """The end of what was logged from there on: earlier lines are those of a preparation, or of an
    earlier attempt.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(from_byte, path.stat().st_size - _LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""  # a log that cannot be read is no reason to lose the end


def with_asked(reason: str, log: str) -> str:
    """The reason of a refused copy with how much the allocator was asked for, where its log says
    so; any other as it is.
    """
    found = _REFUSAL.findall(log)
    if not found or f" ({format_bytes(int(found[-1][1]))})" in reason:
        return reason
    return _NO_ROOM.sub(
        lambda said: f"{said[0]} ({format_bytes(int(found[-1][1]))})", reason, count=1
    )


def last_words(log: str) -> str:
    """The last line before a crash that is not TensorFlow's chatter, cut to a table cell; empty
    when there is none.
    """
    said = log.partition(_CRASH)[0]
    lines = [
        line.strip() for line in said.splitlines() if line.strip() and not _CHATTER.match(line)
    ]
    return lines[-1][:_WORDS_CHARACTERS] if lines else ""


def crash_site(log: str) -> str:
    """Where in Python the thread that crashed was, as ``"feeds.py:31 in gather"``; empty when the
    log does not say.
    """
    frame = _FRAME.search(log.partition(_CRASH)[2])
    return "" if frame is None else f"{frame['file']}:{frame['line']} in {frame['function']}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Memory that TensorFlow's allocator did not have."""

    allocator: str
    asked_bytes: int
    held: float | None
    """Share of its pool that was in use; None when the log does not show it."""
    rounded: float | None
    """Share lost to rounding: BFC hands out whole chunks."""

    def sentence(self, limit_bytes: int | None) -> str:
        """What was asked for, of how much, and what was in use."""
        whole = "" if limit_bytes is None else f" of its {format_bytes(limit_bytes)}"
        shares = (
            ""
            if self.held is None
            else f", with {self.held:.0%} of its pool held and {self.rounded:.0%} lost to rounding"
        )
        return (
            f"the allocator {self.allocator} was asked for "
            f"{format_bytes(self.asked_bytes)}{whole}{shares}"
        )


def unreported_refusal(log: str) -> Refusal | None:
    """The refusal that the log ends with, when TensorFlow reported it to nobody: a copy that
    found no room goes on without any.

    A refused operation is logged twice, by the allocator and as the error that the caller gets; a
    refused copy of a numpy array only by the allocator, and then TensorFlow writes to a null
    pointer.
    """
    said = log.partition(_CRASH)[0]
    found = list(_REFUSAL.finditer(said))
    if not found or _REPORTED.search(said, found[-1].end()):
        return None
    occupancy = _OCCUPANCY.search(said, found[-1].end())
    shares = occupancy["map"] if occupancy else ""
    return Refusal(
        allocator=found[-1]["allocator"],
        asked_bytes=int(found[-1]["asked"]),
        held=shares.count("*") / len(shares) if shares else None,
        rounded=shares.count("x") / len(shares) if shares else None,
    )


def classify(
    child: ChildEnd,
    rows: Sequence[Row],
    log: str,
    *,
    limit_bytes: int | None = None,
    timeout_s: float | None = None,
) -> Ending:
    """Name how a child ended. Only exit code 0 **and** a done row is ok.

    ``limit_bytes`` is the size of its device, ``timeout_s`` the time that it was given.
    """
    done = next((row for row in rows if isinstance(row, Done)), None)
    where = f" in phase {phase}" if (phase := phase_at_death(rows)) else ""
    if child.overrun:
        return Ending(
            Outcome.HOST_OOM,
            child.overrun.cause,
            f"the harness killed it{where}: {child.overrun.words}",
        )
    if child.timed_out:
        given = "" if timeout_s is None else f", as it was given {timeout_s:g} s (--memory-timeout)"
        stopped = (
            f"still running after {child.duration_s:.0f} s{where}; the harness stopped it{given}"
        )
        return Ending(Outcome.TIMED_OUT, OVER_TIME, stopped)
    if child.exit_code == 0 and done is not None:
        refused = done.outcome is Outcome.DEVICE_OOM
        reason = with_asked(done.reason, log) if refused else done.reason
        return Ending(done.outcome, done.cause, reason)
    if child.exit_code == 0:
        return Ending(Outcome.EXITED, "0", f"exited with code 0{where} without finishing")
    return _name_death(child, where, log, limit_bytes)


def end_without_child(
    point: Point, repeat: int, ending: Ending, *, launcher: str, device: str | None = None
) -> RunEnd:
    """The end of a run whose body was never started."""
    return RunEnd(
        point=point.name,
        repeat=repeat,
        outcome=ending.outcome,
        cause=ending.cause,
        reason=ending.reason,
        phase=None,
        exit_code=None,
        launcher=launcher,
        duration_s=0.0,
        device=device or "",
    )


def _name_death(child: ChildEnd, where: str, log: str, limit_bytes: int | None) -> Ending:
    how, words = exit_in_words(child.exit_code), last_words(log)
    site = f" at {site}" if (site := crash_site(log)) else ""
    tail = f"; its last words: {words}" if words else ""
    if child.exit_code == os.EX_IOERR:
        return Ending(Outcome.ERROR, "rows", f"what it measured{where} could not be written{tail}")
    if child.exit_code == -signal.SIGSEGV and (refusal := unreported_refusal(log)) is not None:
        sentence = (
            f"{refusal.sentence(limit_bytes)}; the copy that got no memory{site} ended by "
            f"SIGSEGV{where}"
        )
        return Ending(Outcome.DEVICE_OOM, "copy", sentence)
    if cause := _host_cause(child, words):
        killer = (
            f"; the kernel counted out-of-memory kills for {' and '.join(child.oom_kills)}"
            if cause == "kernel"
            else ""
        )
        return Ending(Outcome.HOST_OOM, cause, f"{how}{where}{killer}{tail}")
    if child.exit_code < 0:
        return Ending(Outcome.CRASHED, how, f"killed by {how}{where}{site}{tail}")
    return Ending(Outcome.EXITED, str(child.exit_code), f"{how}{where}{tail}")


def _host_cause(child: ChildEnd, words: str) -> str:
    """Why host memory ended the child, in one word; empty when nothing says that it did."""
    if child.exit_code == -signal.SIGKILL and child.oom_kills:
        return "kernel"
    if "bad_alloc" in words:
        return "bad_alloc"
    return "refused" if "MemoryError" in words and child.exit_code > 0 else ""


def why_not_prepared(child: ChildEnd, log: str) -> str:
    """Why a child that was to make input files has not, in one clause."""
    if child.overrun:
        return f"the harness killed it: {child.overrun.words}"
    if child.timed_out:
        return f"still running after {child.duration_s:.0f} s"
    return last_words(log) or exit_in_words(child.exit_code)


def exit_in_words(exit_code: int) -> str:
    """``"exit code 3"``, or the name of the signal that a negative code means."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def phase_at_death(rows: Sequence[Row]) -> str | None:
    """The phase that was entered last and not finished, or None between phases."""
    entered = [row.phase for row in rows if isinstance(row, Begin)]
    finished = {row.phase for row in rows if isinstance(row, PhaseRecord) and row.finished}
    return entered[-1] if entered and entered[-1] not in finished else None
