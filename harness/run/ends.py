"""Name how a child ended, from what its parent saw: exit code, signal, counters of the kernel, rows
and log.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.locking import read_whole
from harness.records import OVER_TIME, ROWS_FILE, Ending, Outcome, Point, RunEnd, end_from_json
from harness.run.child_log import crash_site, last_words, unreported_refusal, with_asked
from harness.run.launchers import ChildEnd


def classify(
    child: ChildEnd,
    rows: list[dict[str, Any]],
    log: str,
    *,
    limit_bytes: int | None = None,
    timeout_s: float | None = None,
) -> Ending:
    """Name how a child ended. Only exit code 0 **and** a done row is ok.

    ``limit_bytes`` is the size of its device, ``timeout_s`` the time that it was given.
    """
    done = next((row for row in rows if row["kind"] == "done"), None)
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
        outcome, reason = Outcome(done["outcome"]), str(done["reason"])
        return Ending(
            outcome,
            str(done["cause"]),
            with_asked(reason, log) if outcome is Outcome.DEVICE_OOM else reason,
        )
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
            f"{refusal.sentence(limit_bytes)}; the copy that got nothing{site} ended by "
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
        return f"still at it after {child.duration_s:.0f} s"
    return last_words(log) or exit_in_words(child.exit_code)


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
    for line in read_whole(path, offset).split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a damaged line stays in the file, where the judge finds it and says so
        if isinstance(row, dict) and "kind" in row:
            yield row


def ends_of(run_directory: Path) -> list[RunEnd]:
    """The ends that are on disk so far, in the order in which they were written, without those that
    are void.
    """
    found: dict[tuple[str, int], RunEnd] = {}
    for row in rows_since(run_directory / ROWS_FILE, 0):
        if row["kind"] == "again":
            found.pop((row.get("point", ""), row.get("repeat", 0)), None)
        elif row["kind"] == "end":
            # a damaged row is left to the judge
            with contextlib.suppress(KeyError, TypeError, ValueError):
                end = end_from_json(row)
                found[end.point, end.repeat] = end
    return list(found.values())
