"""Name how a child ended, from what its parent saw: exit code, rows and log."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records import ROWS_FILE, Ending, Outcome, RunEnd, end_from_json
from harness.run.isolation import ChildEnd

_LOG_TAIL_CHARACTERS = 400
# TensorFlow's log lines of the levels I, W and E, from either of its loggers (tsl/platform/default/logging.cc,
# absl/log/internal/log_format.cc). It reports every missing driver as an error; only F ends a process.
_CHATTER = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    r"|[IWE]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ "
    r"|WARNING: All log messages before absl"
)


def last_words(log: str) -> str:
    """The last line of a child's log that is not TensorFlow's chatter, cut to a table cell; empty when there is none."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _CHATTER.match(line)]
    return lines[-1][:_LOG_TAIL_CHARACTERS] if lines else ""


def classify(child: ChildEnd, rows: list[dict[str, Any]], log_tail: str) -> Ending:
    """Name how a child ended, from its exit code and its own rows. Only exit code 0 **and** a done row is ok."""
    done = next((row for row in rows if row["kind"] == "done"), None)
    where = f" in phase {phase}" if (phase := phase_at_death(rows)) else ""
    if child.timed_out:
        return Ending(Outcome.TIMED_OUT, "time-out", f"still running after {child.duration_s:.0f} s{where}; it was stopped")
    if child.exit_code == 0 and done is not None:
        return Ending(Outcome(done["outcome"]), str(done["cause"]), str(done["reason"]))
    if child.exit_code == 0:
        return Ending(Outcome.EXITED, "0", f"exited with code 0{where} without finishing")
    how = exit_in_words(child.exit_code)
    tail = f"; its last words: {log_tail}" if log_tail else ""
    if child.exit_code < 0:
        return Ending(Outcome.CRASHED, how, f"killed by {how}{where}{tail}")
    if "MemoryError" in log_tail or "bad_alloc" in log_tail:
        return Ending(Outcome.HOST_OOM, "bad_alloc", f"{how}{where}{tail}")
    return Ending(Outcome.EXITED, str(child.exit_code), f"{how}{where}{tail}")


def exit_in_words(exit_code: int) -> str:
    """``"exit code 3"``, or the name of the signal that a negative code means."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def phase_at_death(rows: list[dict[str, Any]]) -> str | None:
    """The phase that was entered last and not finished, or None between phases."""
    entered = [row["phase"] for row in rows if row["kind"] == "begin"]
    finished = {row["phase"] for row in rows if row["kind"] == "phase" and row["finished"]}
    return entered[-1] if entered and entered[-1] not in finished else None


def rows_since(path: Path, offset: int) -> Iterator[dict[str, Any]]:
    """The rows of rows.jsonl from ``offset`` (bytes) on; damaged lines are left to the judge."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a damaged line stays in the file, where the judge finds it and says so
            if isinstance(row, dict) and "kind" in row:
                yield row


def ends_of(run_directory: Path) -> list[RunEnd]:
    """The ends that are on disk so far, in the order in which they were written."""
    return [end_from_json(row) for row in rows_since(run_directory / ROWS_FILE, 0) if row["kind"] == "end"]
