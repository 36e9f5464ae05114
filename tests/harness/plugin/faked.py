"""conftest.py of the faked project: what its bodies would have left in rows.jsonl, by their
names.
"""

import contextlib
import os
from pathlib import Path

from harness.plugin import turns
from harness.records import TRACED_REPEAT, Outcome, Quality, Reading
from harness.rundir.rows import (
    Begin,
    Declared,
    Done,
    PhaseRecord,
    RunEnd,
    TraceEnd,
    append_row,
    open_rows,
)

MIB = 1024 * 1024
IMAGE = 16 * 1024


def grown_bytes(point, repeat, phase):
    """What a phase grows by on the device."""
    name = point.body.partition(":")[2]
    count = point.parameters.get("image_count", 0)
    if name == "eager" and phase == "load":
        return IMAGE * count
    if name == "wavering" and phase == "load":
        return (IMAGE + 4096 * (repeat % 2)) * count
    if name == "noisy" and repeat == 0:
        return 64 * MIB
    if name == "leaky" and phase == "epoch_1":
        return 2 * MIB
    return MIB


def host_kept_bytes(point, phase):
    """What a phase leaves behind on the host, besides the 16 MiB that every body takes in its first
    phase.
    """
    name = point.body.partition(":")[2]
    if name.startswith("hoarding_") and phase.startswith("epoch"):
        return int(name.removeprefix("hoarding_"))
    if name == "caching" and phase == "epoch_0":
        return IMAGE * point.parameters["image_count"]
    return 16 * MIB if phase == "load" else 0


class FakedRunner:
    """Leaves the rows of a child that was never started."""

    def __init__(self, directory):
        self.directory = directory

    def measure(self, point, repeat):
        with open("measured.txt", "a") as file:  # noqa: PTH123 - the folder that the session runs in
            file.write(f"{point.name} {repeat}\n")
        trouble = (
            os.environ.get("TROUBLE_AT") == f"{point.name} {repeat}"
            and not Path("troubled").exists()
        )
        if trouble:
            Path("troubled").touch()
            TROUBLES[os.environ["TROUBLE"]]()
        rows = open_rows(self.directory / "rows.jsonl")
        try:
            return self._write(rows, point, repeat)
        finally:
            os.close(rows)

    def _write(self, rows, point, repeat):
        name, run = point.body.partition(":")[2], {"point": point.name, "repeat": repeat}
        dies = name in ("oom", "missing")
        outcome = {"oom": Outcome.DEVICE_OOM, "missing": Outcome.ERROR}.get(name, Outcome.OK)
        cause, reason = ("", "") if outcome is Outcome.OK else ("allocator", f"the faked {name}")
        ending = {"outcome": outcome, "cause": cause, "reason": reason}
        end = RunEnd(
            **run,
            **ending,
            phase="load" if name == "oom" else None,
            exit_code=0,
            launcher="fake",
            duration_s=0.0,
        )
        if repeat == TRACED_REPEAT:
            traced = TraceEnd(
                point=point.name, **ending, file="t.json.gz", launcher="fake", duration_s=0.0
            )
            append_row(rows, traced)
            return end
        append_row(rows, Declared(**run, values={"image": IMAGE, "batch": MIB}))
        phases = ("load", *(f"epoch_{number}" for number in range(point.fixed.get("epochs", 2))))
        host_bytes = 200 * MIB
        for index, phase in enumerate(() if name in ("phaseless", "missing") else phases):
            append_row(rows, Begin(**run, phase=phase, index=index))
            grown = grown_bytes(point, repeat, phase)
            start, kept = 2 * MIB, grown if phase == "load" or name == "leaky" else 0
            readings = (
                Reading(
                    meter="device_in_use",
                    quality=Quality.EXACT,
                    start_bytes=start,
                    peak_bytes=start + grown,
                    end_bytes=start + kept,
                ),
                Reading(
                    meter="host_anon",
                    quality=Quality.EXACT,
                    start_bytes=host_bytes,
                    peak_bytes=host_bytes + host_kept_bytes(point, phase),
                    end_bytes=host_bytes + host_kept_bytes(point, phase),
                ),
                Reading.unavailable("nvml_process", "there is no card to ask"),
            )
            host_bytes += host_kept_bytes(point, phase)
            record = PhaseRecord(
                **run,
                phase=phase,
                index=index,
                finished=not dies,
                duration_s=0.1,
                readings=readings,
            )
            append_row(rows, record)
            if dies:
                break
        append_row(rows, Done(**run, **ending))
        append_row(rows, end)
        return end


def _interrupt():
    raise KeyboardInterrupt


def _wait():
    """Until somebody writes into the pipe ``go``."""
    Path("go").read_text()


TROUBLES = {"interrupt": _interrupt, "die": lambda: os._exit(1), "wait": _wait}


@contextlib.contextmanager
def open_faked_runner(session):
    yield FakedRunner(session.directory)


turns.open_runner = open_faked_runner
