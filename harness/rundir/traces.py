"""The traced run of a point: the schema of its file, where its files are, what its end is made of,
and what a child that died leaves of it.
"""

import glob
import gzip
import json
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from harness import system as files
from harness.errors import RunDirectoryError
from harness.records import (
    ROWS_FILE,
    TRACE_SCHEMA_VERSION,
    TRACED_REPEAT,
    TRACES_FOLDER,
    RecordError,
    from_json,
    to_json,
)
from harness.rundir.rows import Row, RunEnd, TraceEnd, TraceWritten, rows_since
from harness.words import COPY_TO_CARD, file_stem, format_bytes, tensors_in_words, without_operation

_LARGEST_BYTES = 512 * 1024 * 1024
"""Chosen: what a file may hold unpacked, a hundred times the largest trace of the catalogue; a
small one can unpack to anything."""

LOGS_FOLDER = "logs"
"""Folder in the run directory with what each child has printed."""
_TAIL_BYTES = 64 * 1024
"""Chosen: of the end of a log; hundreds of lines of a traceback."""
_LONGEST_LINE = 400
"""Chosen: characters of a line; TensorFlow's lists of chunks have thousands."""
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
"""What terminals colour by (ECMA-48, SGR)."""

# What a file of traces/ holds. The child that records writes it, the judge and the reports read it.


_MOST = 2**60
"""More than any machine has in bytes, or any run lasts in nanoseconds, and far inside 64 bits, sums
of differences included."""
Amount = Annotated[int, range(_MOST + 1)]
Step = Annotated[int, range(-_MOST, _MOST + 1)]
"""A difference, or a time, that may be negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """Allocations of one operation, shape and size, live at the same moment; empty texts where
    TensorFlow named nothing.
    """

    op: str
    shape: str
    dtype: str
    region: str
    each_bytes: Amount
    count: Annotated[int, range(1, _MOST + 1)]
    like: str
    """``"1.00 x batch"`` where one is as large as an array that the scenario declared, else empty;
    small multiples of it where it became a tensor or was copied to the card, by no operation that
    would say what it is."""

    @property
    def total_bytes(self) -> int:
        """Of all of them."""
        return self.each_bytes * self.count

    @property
    def what(self) -> str:
        """``"float32 [64,64,64,4] by Empty"``."""
        tensor = f"{self.dtype} {self.shape}" if self.shape else self.dtype or "memory"
        if self.op == COPY_TO_CARD:
            return f"{COPY_TO_CARD} of {tensor}" if self.shape else COPY_TO_CARD
        return f"{tensor} by {self.op}" if self.op else f"{tensor} without an operation"

    @property
    def short(self) -> str:
        """``"Empty (64, 64, 64, 4) float32, 4.0 MiB, 1.00 x batch"``, for a list inside a
        sentence.
        """
        return tensors_in_words(
            op=self.op,
            shape=self.shape,
            dtype=self.dtype,
            count=self.count,
            total_bytes=self.total_bytes,
            like=self.like,
        )

    @property
    def counted(self) -> tuple[str, int, int]:
        """``short``, how many they are, and their bytes: what ``harness.words.largest_in_words``
        ranks.
        """
        return self.short, self.count, self.total_bytes

    @property
    def sentence(self) -> str:
        """What they are, in one line: how many, of which size, by whom, and what of the scenario's
        they are as large as.
        """
        if not self.op:
            words = without_operation(
                shape=self.shape,
                dtype=self.dtype,
                count=self.count,
                each_bytes=self.each_bytes,
                like=self.like,
            )
            return f"{format_bytes(self.total_bytes)}: {words}" if self.count > 1 else words
        like = f", {self.like}{' each' if self.count > 1 else ''}" if self.like else ""
        each = f", {format_bytes(self.each_bytes)} each" if self.count > 1 else ""
        return f"{format_bytes(self.total_bytes)}: {self.count:,} x {self.what}{each}{like}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Start, peak and end of one amount over a phase, in bytes."""

    start_bytes: Amount
    peak_bytes: Amount
    end_bytes: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPhase:
    """One phase; times in nanoseconds since the recording began."""

    phase: str
    index: Amount
    finished: bool
    start_ns: Step
    peak_ns: Step
    """When the requested bytes were highest, for the first time."""
    end_ns: Step
    requested: Edges
    """What was asked for since the recording began, unquantised."""
    allocator: Edges
    """What the allocator had in use by its own count."""
    alive: tuple[Alive, ...]
    """What the requested bytes were at their peak, the largest total first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What was live after each event: three columns of equal length, each value the difference to
    the one before.
    """

    time_ns: tuple[Step, ...]
    requested_bytes: tuple[Step, ...]
    allocator_bytes: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Raise ValueError where the columns differ in length."""
        if len({len(self.time_ns), len(self.requested_bytes), len(self.allocator_bytes)}) > 1:
            raise ValueError("its three columns differ in length")

    @classmethod
    def of(
        cls, times_ns: Sequence[int], requested: Sequence[int], allocator: Sequence[int]
    ) -> Self:
        """The timeline of these amounts, in bytes."""
        return cls(
            time_ns=_steps(times_ns),
            requested_bytes=_steps(requested),
            allocator_bytes=_steps(allocator),
        )

    def columns(self) -> tuple[list[int], list[int], list[int]]:
        """Times, requested bytes and allocator's bytes as they were."""
        return (
            list(accumulate(self.time_ns)),
            list(accumulate(self.requested_bytes)),
            list(accumulate(self.allocator_bytes)),
        )


def _steps(amounts: Sequence[int]) -> tuple[int, ...]:
    """The differences from each to the next, the first from 0."""
    return tuple(after - before for before, after in pairwise([0, *amounts]))


@dataclass(slots=True, kw_only=True)
class Counts:
    """What was replayed, and everything in it that did not fit."""

    allocations: Amount
    deallocations: Amount
    from_before: Amount
    """Deallocations of addresses that were allocated before the recording began; they lower the
    allocator's bytes alone."""
    reordered: Amount
    """Events that the allocator's own count places after others with later times."""
    jumps: Amount
    """Events whose count does not follow from the one before: something between them was not
    recorded."""
    overwritten: Amount
    """Allocations at an address that was live still: its deallocation was not recorded; the later
    one is kept."""
    resized: Amount
    """Deallocations of another size than was allocated at the address; the size that was allocated
    is taken off."""
    other_allocators: Mapping[str, Amount]
    """Events of other allocators, which are left out, by its name."""

    @classmethod
    def none(cls) -> Self:
        """Nothing was replayed yet."""
        return cls(
            allocations=0,
            deallocations=0,
            from_before=0,
            reordered=0,
            jumps=0,
            overwritten=0,
            resized=0,
            other_allocators={},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """The moment at which the device's memory was refused."""

    phase: str | None
    shape: str
    dtype: str
    asked_bytes: Amount | None
    """None where the error does not say."""
    like: str
    requested_bytes: Amount
    allocator_bytes: Amount
    alive: tuple[Alive, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One file of traces/."""

    schema_version: int
    point: str
    device: str
    allocator: str
    tensorflow: str
    limit_bytes: Amount | None
    base_bytes: Amount
    """In use by the allocator's count when the recording began."""
    declared: Mapping[str, Amount]
    phases: tuple[TracedPhase, ...]
    timeline: Timeline
    counts: Counts
    out_of_memory: OutOfMemory | None


def write_trace(path: Path, trace: Trace) -> None:
    """Write a trace, compressed, in one step; the same trace gives the same bytes. Raises
    OSError.
    """
    text = json.dumps(to_json(trace), separators=(",", ":"), ensure_ascii=False).encode()
    files.replace(path, gzip.compress(text, mtime=0))


def read_trace(path: Path, point: str) -> Trace:
    """The trace of ``point``. Raises RunDirectoryError where it is missing, damaged, of another
    version or point.
    """
    found = _read_object(path)
    version = found.get("schema_version")
    if version != TRACE_SCHEMA_VERSION:
        raise RunDirectoryError(
            f"{path} has schema_version {version!r}; this program reads version "
            f"{TRACE_SCHEMA_VERSION}: measure again"
        )
    try:
        trace = from_json(Trace, found)
    except RecordError as error:
        raise RunDirectoryError(f"{path} is damaged: {error}; measure again") from error
    if trace.point != point:
        raise RunDirectoryError(
            f"{path} is the trace of {trace.point}, not of {point}; measure again"
        )
    return trace


def _unpack(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            text = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is not there any more; measure again") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RunDirectoryError(
            f"{path} is damaged or cut short, not gzip: {error}; measure again"
        ) from error
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    if len(text) > _LARGEST_BYTES:
        raise RunDirectoryError(
            f"{path} unpacks to more than {format_bytes(_LARGEST_BYTES)}, which no trace has; "
            "measure again"
        )
    return text


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_unpack(path))
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} is damaged, not JSON; measure again") from error
    if not isinstance(found, dict):
        raise RunDirectoryError(
            f"{path} is damaged: it holds a {type(found).__name__} instead of an object; "
            "measure again"
        )
    return found


# Its files, and the row that says how it ended.


def repeat_id(repeat: int) -> str:
    """``"repeat=0"``, or ``"traced"``: the run in the names of tests and logs."""
    return "traced" if repeat == TRACED_REPEAT else f"repeat={repeat}"


def log_name(point: str, repeat: int) -> str:
    """The name of a run's log in the folder of logs."""
    return f"{file_stem(point)}-{repeat_id(repeat)}.log"


def log_path(run_directory: Path, point: str, repeat: int) -> Path:
    """The log of a run of a point."""
    return run_directory / LOGS_FOLDER / log_name(point, repeat)


def log_tail(run_directory: Path, point: str, repeat: int, most: int) -> tuple[str, ...]:
    """The last lines of a run's log that are not empty, ``most`` of them; none where it has no log.

    Of each, what can be shown, and no more than ``_LONGEST_LINE`` characters.
    """
    try:
        with log_path(run_directory, point, repeat).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            found = file.read().decode(errors="replace")
    except OSError:
        return ()
    lines = [_shown(line) for line in found.splitlines()]
    return tuple([line for line in lines if line][-most:])


def _shown(line: str) -> str:
    plain = _COLOURS.sub("", line).expandtabs(4).rstrip()
    text = "".join(char if char.isprintable() else "\ufffd" for char in plain)
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]} [...]"


def trace_path(run_directory: Path, point: str) -> Path:
    """The trace of a point."""
    return run_directory / TRACES_FOLDER / f"{file_stem(point)}.json.gz"


def trace_end(end: RunEnd, rows: Sequence[Row]) -> TraceEnd:
    """What rows.jsonl says of a traced run, from its end and the rows of its child.

    A child that was killed has said nothing of its trace: there is none, because of what ended it.
    """
    written = next((row for row in rows if isinstance(row, TraceWritten)), None)
    file = None if written is None else written.file
    reasons = [end.reason, *([written.reason] if written is not None and file is None else [])]
    return TraceEnd(
        point=end.point,
        outcome=end.outcome,
        cause=end.cause,
        reason="; ".join(reason for reason in reasons if reason),
        file=file,
        launcher=end.launcher,
        duration_s=end.duration_s,
    )


def clear_unfinished(run_directory: Path, point: str) -> None:
    """Delete what a child that died while it wrote has left behind: the profiler's folder, half a
    trace.
    """
    trace = trace_path(run_directory, point)
    shutil.rmtree(trace.with_name(f"{trace.name}.profile"), ignore_errors=True)
    for unfinished in trace.parent.glob(f".{glob.escape(trace.name)}-*"):
        unfinished.unlink(missing_ok=True)


def trace_rows_path(run_directory: Path, point: str) -> Path:
    """The rows of a point's traced run."""
    return run_directory / TRACES_FOLDER / f"{file_stem(point)}.jsonl"


def new_trace_rows(run_directory: Path, point: str) -> Path:
    """An empty file for the rows of a point's traced run. Raises RunDirectoryError when it cannot
    be made.
    """
    path = trace_rows_path(run_directory, point)
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}") from error
    return path


def traces_of(run_directory: Path) -> list[TraceEnd]:
    """How the traced runs ended that are on disk so far, in the order in which they were
    written.
    """
    rows = rows_since(run_directory / ROWS_FILE, 0)
    return [row for row in rows if isinstance(row, TraceEnd)]


def traces_in_words(run_directory: Path) -> list[str]:
    """How many points were traced, and each of them that has no trace, with the reason; nothing
    where none was to be.
    """
    ends = traces_of(run_directory)
    if not ends:
        return []
    absent = [
        f"no trace of {end.point}, because {end.reason or 'its child reported nothing about it'}"
        for end in ends
        if end.file is None
    ]
    return [
        f"{len(ends) - len(absent)} of {len(ends)} traced points have a trace in {TRACES_FOLDER}/",
        *absent,
    ]


# What a script that was run whole did besides allocating: it lies beside its trace.


SCRIPT_FILE = "script.json"
"""The file that holds a ``ScriptNote``, in the run directory."""


@dataclass(slots=True, kw_only=True)
class ScriptNote:
    """What a script did besides allocating."""

    exit_code: int = 0
    """That of the script itself, as Python would have ended with."""
    place: str = ""
    """Line of the user's code that raised what ended it: ``"train.py:12 in load"``."""
    ignored: list[str] = field(default_factory=list)
    """Settings of TensorFlow's that came too late."""
    forks: int = 0
    """Processes that it has forked."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """For each operation, shape and dtype the lines that called it, with how often; of one inside a
    function its name alone, with the lines that led to it when the function was made."""
    without_lines: str = ""
    """Why lines are unknown; empty where they were recorded."""
    log_bytes: int = 0
    """Size of the log when the script began: what is before it is not the script's."""

    def write(self, folder: Path) -> None:
        """Write it; a script that is killed leaves what was known when it began."""
        text = json.dumps(asdict(self), indent=1)
        (folder / SCRIPT_FILE).write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What a script has left so far; None before it began."""
        try:
            return cls(**json.loads((folder / SCRIPT_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
