"""What was found of a script that ``python -m harness why`` has run: how it ended and what was
alive, in sentences, as a table and as JSON.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError
from harness.judge import ExitCode
from harness.meters import HOST_ANON
from harness.records import PRETENDED_NOTE, Outcome, Point, Quality, Reading, is_pretended, to_json
from harness.rundir.rows import PhaseRecord, RunEnd, TraceEnd, rows_since
from harness.rundir.traces import (
    Alive,
    ScriptNote,
    Trace,
    log_name,
    read_trace,
    trace_path,
    trace_rows_path,
    traces_of,
)
from harness.words import ALIVE, count, format_bytes, plural, text_table

_MOST_SHOWN = 12
"""Kinds of tensors that the table lists. Chosen: what is read at a glance; --json has all."""
_MOST_LINES = 2
"""Lines of the script that a row of the table names. Chosen: the table keeps its width."""
_LEAST_SHARE = 0.001
"""Of all that was alive: smaller kinds are counted, and not listed. Chosen."""
_LONGEST_PATH = 44
"""Characters of an operation in the table; of a longer path the end is shown. Chosen."""
_ENDED = {
    Outcome.ERROR: "failed",
    Outcome.HOST_OOM: "ran out of the host's memory",
    Outcome.CRASHED: "crashed",
    Outcome.EXITED: "left by itself, before its end",
}
_REFUSED = re.compile(
    r"ran out of memory trying to allocate (?P<asked>\S+) \(rounded to \d+\)\s*"
    r"requested by op (?P<operation>\S+)"
)
"""The warning of TensorFlow's allocator (bfc_allocator.cc)."""
_CRASH_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.M)
"""A line of the stack that Python's faulthandler writes, the innermost first."""
_KILLED = 128
"""What shells add to the number of the signal that ended a process (POSIX, Shell Command Language,
2.8.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of a script that was run."""

    script: str
    end: RunEnd
    device: Mapping[str, Any]
    """As run.json records it."""
    trace: Trace | None
    without_trace: str
    """Why there is none."""
    note: ScriptNote
    refused: str = ""
    """What its log says that the device refused first; empty where it says nothing of that."""
    host: Reading | None
    """Private memory of the script's process; None where it died before it could be read."""

    @property
    def alive(self) -> tuple[Alive, ...]:
        """What was alive when memory ran out, or at the peak."""
        if self.trace is None:
            return ()
        refused = self.trace.out_of_memory
        if refused is not None:
            return refused.alive
        return self.trace.phases[0].alive if self.trace.phases else ()

    @property
    def peak_bytes(self) -> int | None:
        """Most that the allocator had in use while the script ran, over what was there before it;
        None where that is unknown.
        """
        if self.trace is None or not self.trace.phases:
            return None
        return self.trace.phases[0].allocator.peak_bytes - self.trace.base_bytes

    @property
    def recorded(self) -> bool:
        """Whether anything was allocated on the device while it was looked at."""
        return self.trace is not None and self.trace.counts.allocations > 0

    @property
    def exit_code(self) -> int:
        """As the help says."""
        end = self.end
        if end.outcome is Outcome.SKIPPED or end.cause == "import":
            return ExitCode.INCOMPLETE
        if end.outcome is Outcome.OK:
            return ExitCode.PASS if self.recorded else ExitCode.INCOMPLETE
        if end.outcome is Outcome.HOST_OOM and end.exit_code in (0, None):
            return 1
        return self.note.exit_code or _code_of(end.exit_code) or 1

    def lines(self) -> Iterator[str]:
        """The report, line by line."""
        yield ""
        yield self.sentence
        yield from self._alive_lines()
        yield from self._amounts()
        yield from self._notes()

    @property
    def sentence(self) -> str:
        """How it ended, and how much there was."""
        end, at = self.end, f" at {self.note.place}" if self.note.place else ""
        if end.outcome is Outcome.DEVICE_OOM:
            return f"{self.script} ran out of the device's memory{at}: {self._refusal()}."
        peak = self._peak()
        if end.outcome is Outcome.OK:
            return f"{self.script} ended. {peak}"
        if end.cause == "SystemExit":
            return f"{self.script} exited with code {self.note.exit_code}. {peak}"
        if end.outcome is Outcome.SKIPPED or end.cause == "import":
            return f"{self.script} was not run: {end.reason}."
        how = _ENDED.get(end.outcome, str(end.outcome))
        if end.outcome is Outcome.CRASHED and self.refused:
            how = f"crashed when the device refused {self.refused}"
        return f"{self.script} {how}{at}: {self._reason}. {peak}"

    @property
    def _reason(self) -> str:
        """How it ended, without the name of the only phase there is, and without what was alive."""
        said = self.end.reason.partition(f"; {ALIVE}")[0]
        return said.replace(f" in phase {self.end.phase}", "").rstrip(".")

    def to_json(self) -> dict[str, Any]:
        """The same, with everything that was alive."""
        lines = _lines_by_tensor(self.note)
        phase = self.trace.phases[0] if self.trace is not None and self.trace.phases else None
        return {
            "script": self.script,
            "outcome": str(self.end.outcome),
            "cause": self.end.cause,
            "exit_code": self.exit_code,
            "sentence": self.sentence,
            "place": self.note.place,
            "device": dict(self.device),
            "peak_bytes": self.peak_bytes,
            "before_bytes": None if self.trace is None else self.trace.base_bytes,
            "requested_peak_bytes": None if phase is None else phase.requested.peak_bytes,
            "host": None if self.host is None else to_json(self.host),
            "out_of_memory": None
            if self.trace is None or self.trace.out_of_memory is None
            else {
                name: value
                for name, value in to_json(self.trace.out_of_memory).items()
                if name != "alive"
            },
            "alive": [
                {**to_json(one), "lines": dict(_called_at(one, lines))} for one in self.alive
            ],
            "ignored": self.note.ignored,
            "forks": self.note.forks,
            "without_trace": self.without_trace,
        }

    def _refusal(self) -> str:
        """What was asked for, and what there was."""
        refused = None if self.trace is None else self.trace.out_of_memory
        if refused is None or refused.asked_bytes is None:
            return self._reason
        limit = self.trace.limit_bytes if self.trace is not None else None
        whole = "" if limit is None else f" of {format_bytes(limit)}"
        return (
            f"{format_bytes(refused.asked_bytes)} for {refused.dtype} {refused.shape} was asked "
            f"for, with {format_bytes(refused.allocator_bytes)}{whole} in use"
        )

    @property
    def _without_trace(self) -> str:
        if self.without_trace == self.end.reason.rstrip("."):
            return "its process ended before the recording was read"
        return self.without_trace

    def _peak(self) -> str:
        """What the device held at most."""
        if self.trace is None:
            return f"What it held on the device is unknown: {self._without_trace}."
        if not self.recorded:
            return (
                "It allocated no memory of TensorFlow's on the device, so there is nothing to tell."
            )
        limit = self.trace.limit_bytes
        whole = "" if limit is None else f" of {format_bytes(limit)}"
        return f"At its peak it held {format_bytes(self.peak_bytes or 0)}{whole} on the device."

    def _alive_lines(self) -> Iterator[str]:
        """The table of what was alive."""
        if not self.alive:
            if self.trace is None and (self.end.outcome is Outcome.DEVICE_OOM or self.refused):
                yield (
                    f"What was alive is unknown, because {self._without_trace}; with a larger "
                    "--device-budget its peak is told."
                )
            return
        when = "when memory ran out" if self.end.outcome is Outcome.DEVICE_OOM else "at the peak"
        number, total = (
            sum(one.count for one in self.alive),
            sum(one.total_bytes for one in self.alive),
        )
        yield ""
        yield f"Alive {when}: {count(number, 'tensor')}, {format_bytes(total)}{self._beside(total)}"
        lines = _lines_by_tensor(self.note)
        columns = ("operation", "type", "shape", "called at", "count", "each", "bytes")
        shown = [one for one in self.alive if one.total_bytes >= _LEAST_SHARE * total][:_MOST_SHOWN]
        rows = [_row(one, lines) for one in shown]
        yield from (f"  {line}" for line in text_table(columns, rows, words=4))
        if others := self.alive[len(shown) :]:
            more = format_bytes(sum(one.total_bytes for one in others))
            yield f"  and {len(others):,} other {plural(len(others), 'kind')}, {more} together"

    def _beside(self, total_bytes: int) -> str:
        """What else was in use when memory ran out; at a peak, what the allocator made of it."""
        refused = None if self.trace is None else self.trace.out_of_memory
        if self.trace is None or refused is None:
            peak = format_bytes(self.peak_bytes or 0)
            return f" requested; the allocator's own count peaked at {peak}"
        before_bytes = self.trace.base_bytes
        rounding_bytes = max(refused.allocator_bytes - before_bytes - total_bytes, 0)
        return (
            f"; {format_bytes(rounding_bytes)} lost to the allocator's rounding, "
            f"{format_bytes(before_bytes)} in use before the script began"
        )

    def _amounts(self) -> Iterator[str]:
        """Which meters the amounts are of."""
        yield ""
        driver = "emulated: " if self.device["kind"] == "emulated" else ""
        yield f"device  {driver}{self.device['name']}, {self._limit_in_words()}"
        if is_pretended(self.device["name"]):
            yield f"        {PRETENDED_NOTE}"
        yield f"host    {self._host_in_words()}"

    def _limit_in_words(self) -> str:
        limit = self.end.device_limit_bytes
        return "no limit" if limit is None else f"{format_bytes(limit)} (--device-budget)"

    def _host_in_words(self) -> str:
        host = self.host
        if host is None:
            return f"unavailable, because its process ended before {HOST_ANON} was read"
        if host.quality is Quality.UNAVAILABLE or host.peak_bytes is None:
            return f"unavailable, because {host.reason}"
        return (
            f"{format_bytes(host.peak_bytes)} private at the peak ({HOST_ANON}, {host.quality}), "
            f"{format_bytes(host.start_bytes or 0)} of it before the script began; the recording "
            "is in it"
        )

    def _notes(self) -> Iterator[str]:
        """What a reader would otherwise miss."""
        if self.note.ignored:
            yield (
                f"{', '.join(self.note.ignored)}: set by the script, and passed over, because "
                "TensorFlow had been started on this device before it"
            )
        if self.note.forks:
            yield (
                f"it forked {count(self.note.forks, 'process', 'processes')}, whose own "
                "allocations are not in these amounts"
            )
        if self.alive and self.note.without_lines:
            yield f"lines of the script are unavailable, because {self.note.without_lines}"


def _code_of(exit_code: int | None) -> int:
    """A child's exit code as a shell has it."""
    return 0 if exit_code is None else exit_code if exit_code >= 0 else _KILLED - exit_code


Lines = Mapping[tuple[str, str, str], Mapping[str, int]]
"""By operation, shape and type: the lines that called it, with how often."""


def _lines_by_tensor(note: ScriptNote) -> Lines:
    return {(one["operation"], one["shape"], one["dtype"]): one["lines"] for one in note.lines}


def _called_at(alive: Alive, lines: Lines) -> Mapping[str, int]:
    """The lines that called what allocated a tensor; of an operation inside a function those under
    its name, or the end of its path: TensorFlow puts the names of callers before it.
    """
    if (alive.op, alive.shape, alive.dtype) in lines:
        return lines[alive.op, alive.shape, alive.dtype]
    parts = alive.op.split("/")
    paths = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((lines[path, "", ""] for path in paths if (path, "", "") in lines), {})


def _end_of_path(operation: str) -> str:
    """The operation, or as many last parts of its path as fit the table."""
    kept, *before = reversed(operation.split("/"))
    for part in before:
        if len(part) + 1 + len(kept) > _LONGEST_PATH:
            return f".../{kept}"
        kept = f"{part}/{kept}"
    return kept


def _row(alive: Alive, lines: Lines) -> tuple[str, str, str, str, str, str, str]:
    called = list(_called_at(alive, lines))
    more = f" and {len(called) - _MOST_LINES} more" if len(called) > _MOST_LINES else ""
    return (
        _end_of_path(alive.op) or "none named",
        alive.dtype,
        alive.shape,
        f"{', '.join(called[:_MOST_LINES])}{more}",
        f"{alive.count:,}",
        format_bytes(alive.each_bytes),
        format_bytes(alive.total_bytes),
    )


# Reading it back.


def found_in(directory: Path, point: Point, end: RunEnd, device: Mapping[str, Any]) -> Found:
    """What the run directory of a script holds; ``device`` is as run.json records it."""
    trace, without = _trace_of(directory, point.name)
    note = ScriptNote.read(directory) or ScriptNote()
    log = _log_of(directory, point.name)
    note.place = note.place or _crash_place(log, str(point.parameters["script"]))
    refused = _REFUSED.search(log)
    return Found(
        script=str(point.parameters["script"]),
        end=end,
        device=device,
        trace=trace,
        without_trace=without,
        note=note,
        refused="" if refused is None else f"{refused['asked']} to {refused['operation']}",
        host=_host_of(directory, point.name),
    )


def _trace_of(directory: Path, point: str) -> tuple[Trace | None, str]:
    """The trace, or why there is none."""
    ended: list[TraceEnd] = traces_of(directory)
    if not ended or ended[-1].file is None:
        why = ended[-1].reason if ended else "its child reported nothing"
        return None, why.rstrip(".") or "its child reported nothing about it"
    try:
        return read_trace(trace_path(directory, point), point), ""
    except RunDirectoryError as error:
        return None, str(error)


def _log_of(directory: Path, point: str) -> str:
    try:
        path = directory / "logs" / log_name(point, 0)
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # no child was started


def _crash_place(log: str, script: str) -> str:
    """The script's own line that a crash of native code was under, as Python has logged it; empty
    where nothing was logged.
    """
    for frame in _CRASH_FRAME.finditer(log):
        if frame["file"] == script:
            inside = "" if frame["function"] == "<module>" else f" in {frame['function']}"
            return f"{script}:{frame['line']}{inside}"
    return ""


def _host_of(directory: Path, point: str) -> Reading | None:
    rows = rows_since(trace_rows_path(directory, point), 0)
    found = [
        reading
        for row in rows
        if isinstance(row, PhaseRecord)
        for reading in row.readings
        if reading.meter == HOST_ANON
    ]
    return found[-1] if found else None
