"""The extra, traced run of a point: where its files lie, what its end is made of, and what a dead
child leaves of it.
"""

import glob
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError
from harness.records import ROWS_FILE, TRACED_REPEAT, TRACES_FOLDER, RunEnd, TraceEnd
from harness.rundir.rows import rows_since, trace_end_from_json
from harness.words import file_stem


def repeat_id(repeat: int) -> str:
    """``"repeat=0"``, or ``"traced"``: the run in the names of tests and logs."""
    return "traced" if repeat == TRACED_REPEAT else f"repeat={repeat}"


def log_name(point: str, repeat: int) -> str:
    """The name of a run's log in the folder of logs."""
    return f"{file_stem(point)}-{repeat_id(repeat)}.log"


def trace_path(run_directory: Path, point: str) -> Path:
    """The trace of a point."""
    return run_directory / TRACES_FOLDER / f"{file_stem(point)}.json.gz"


def trace_end(end: RunEnd, rows: Sequence[dict[str, Any]]) -> TraceEnd:
    """What rows.jsonl says of a traced run, from its end and the rows of its child.

    A child that was killed has told nothing of its trace: there is none, because of what ended it.
    """
    told = next((row for row in rows if row["kind"] == "trace"), None)
    file = None if told is None else told["file"]
    reasons = [end.reason, *([told["reason"]] if told is not None and file is None else [])]
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
    whole = trace_path(run_directory, point)
    shutil.rmtree(whole.with_name(f"{whole.name}.profile"), ignore_errors=True)
    for half in whole.parent.glob(f".{glob.escape(whole.name)}.*"):
        half.unlink(missing_ok=True)


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
    rows = (row for row in rows_since(run_directory / ROWS_FILE, 0) if row["kind"] == "traced")
    return [trace_end_from_json(row) for row in rows]


def traces_in_words(run_directory: Path) -> list[str]:
    """How many points were traced, and each of them that has no trace, with the reason; nothing
    where none was to be.
    """
    ends = traces_of(run_directory)
    if not ends:
        return []
    absent = [
        f"no trace of {end.point}, because {end.reason or 'its child told nothing of it'}"
        for end in ends
        if end.file is None
    ]
    return [
        f"{len(ends) - len(absent)} of {len(ends)} traced points have a trace in {TRACES_FOLDER}/",
        *absent,
    ]
