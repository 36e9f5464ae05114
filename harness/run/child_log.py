"""What a child's log says about its end: its last words, where it crashed, and memory that
TensorFlow was refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from harness.units import format_bytes

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
# How TensorFlow goes on when the refusal has become an error that the caller is told of
# (OP_REQUIRES, Status).
_REPORTED = re.compile(r"RESOURCE_EXHAUSTED|OOM when allocating")


# What harness.measure.refusals says of a copy or a buffer that found no room: TensorFlow's error
# does not say how large it was.
_NO_ROOM = re.compile(r"had no room for [^;(]*[^;( ]")


def read_log(path: Path, from_byte: int) -> str:
    """The end of what was logged from there on: earlier lines are those of a preparation, or of an
    earlier attempt.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(from_byte, path.stat().st_size - _LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""  # what a child said is not worth losing its end for


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
    """The refusal that the log ends with, when TensorFlow told nobody: a copy that found no room
    goes on without any.

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
