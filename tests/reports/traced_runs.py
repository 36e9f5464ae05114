"""A synthetic run with traces: a short one, one of 40,000 events, one of a run that ran out of
memory, and one of the code it is compared with.
"""

import gzip
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.judge.table import Run, load_run
from harness.records import Outcome, to_json
from harness.rundir.reading import SEAL, seal_of
from harness.rundir.rows import TraceEnd
from harness.words import KIB, MIB
from tests.reports.conftest import PHASES, Sweep, point, whole_sweep

LONG_EVENTS = 40_000
BASE_BYTES = 2 * MIB
HOSTILE = '<img src=x onerror="alert(1)">'
COUNTS = ("from_before", "reordered", "jumps", "overwritten", "resized")
SHORT = "loading-lazy-image_count=500-stack_size=2048"
LONG = "loading-eager-image_count=500-stack_size=2048"


def side(title: str) -> dict[str, Any]:
    """One of two codes, as run.json has it."""
    return {
        "asked": title,
        "commit": title * 4,
        "date": "2026-11-20T12:00:00+00:00",
        "title": title,
        "subjects": ["ptycho"],
        "packages": {"ptycho": "ptycho"},
        "content": {"ptycho": title},
    }


def group(op: str, each_bytes: int, count: int = 1, **more: str) -> dict[str, Any]:
    """Allocations that are alive at a peak."""
    return {
        "op": op,
        "shape": "[64,64,64,4]",
        "dtype": "float32",
        "region": "output",
        "each_bytes": each_bytes,
        "count": count,
        "like": "",
        **more,
    }


GROUPS = [
    group("Empty", 4 * MIB, 2, like="1.00 x batch"),
    group("model/encoder/conv/Conv2D", MIB, shape="[64,32,32,8]"),
    group("model/encoder/relu/Relu", 512 * KIB, shape="[64,32,32,8]"),
    group("model/decoder/" + HOSTILE, 256 * KIB, shape="", dtype=""),
]
PEAK_BYTES = sum(one["each_bytes"] * one["count"] for one in GROUPS)


def amounts_of(phase: str, events: int) -> list[int]:
    """Requested bytes after each event of a phase: in epochs up to the peak in the middle, and back
    to nothing; in release nothing happens.
    """
    if phase == "release":
        return []
    if not phase.startswith("epoch"):
        return [KIB, 0]
    low = [(number * 7919) % (2 * MIB) for number in range(events)]
    low[events // 2], low[-1] = PEAK_BYTES, 0
    return low


def document(name: str, events: int, **more: Any) -> dict[str, Any]:
    """A trace over all phases, with ``events`` in all, half of them in each epoch; a phase takes
    10 ms.
    """
    requested: list[int] = []
    times: list[int] = []
    phases = []
    for index, phase in enumerate(PHASES):
        start_ns = index * 20_000_000
        mine = amounts_of(phase, (events - 6) // 2)
        step_ns = 10_000_000 // (len(mine) + 1)
        first = len(requested)
        requested += mine
        times += [start_ns + step_ns * (number + 1) for number in range(len(mine))]
        peak_bytes = max(mine, default=0)
        over = {"start_bytes": 0, "peak_bytes": peak_bytes, "end_bytes": 0}
        phases.append(
            {
                "phase": phase,
                "index": index,
                "finished": True,
                "start_ns": start_ns,
                "peak_ns": times[first + mine.index(peak_bytes)] if mine else start_ns,
                "end_ns": start_ns + 10_000_000,
                "requested": over,
                "allocator": {edge: amount + BASE_BYTES for edge, amount in over.items()},
                "alive": GROUPS
                if peak_bytes == PEAK_BYTES
                else [group("Const", KIB)]
                if mine
                else [],
            }
        )
    allocator = [BASE_BYTES + amount + amount % 256 for amount in requested]
    columns = {"time_ns": times, "requested_bytes": requested, "allocator_bytes": allocator}
    return {
        "schema_version": 1,
        "point": name,
        "device": "CPU:0",
        "allocator": "bfc_cpu_allocator_for_gpu",
        "tensorflow": "2.21.0",
        "limit_bytes": 4096 * MIB,
        "base_bytes": BASE_BYTES,
        "declared": {"batch": 4 * MIB, "X": 40 * MIB},
        "phases": phases,
        "timeline": {
            column: [after - before for before, after in pairwise([0, *amounts])]
            for column, amounts in columns.items()
        },
        "counts": {
            **dict.fromkeys(COUNTS, 0),
            "allocations": events // 2,
            "deallocations": events // 2,
            "other_allocators": {},
        },
        "out_of_memory": None,
        **more,
    }


def traces() -> dict[str, dict[str, Any]]:
    """Of three points, by name."""
    dead = point("eager", 2000, scenario="oom").name
    refused = {
        "phase": "construct",
        "shape": "[2000,64,64,4]",
        "dtype": "float32",
        "asked_bytes": 125 * MIB,
        "like": "1.00 x X",
        "requested_bytes": PEAK_BYTES,
        "allocator_bytes": PEAK_BYTES + BASE_BYTES,
        "alive": GROUPS,
    }
    return {
        SHORT: document(SHORT, 48),
        LONG: document(LONG, LONG_EVENTS),
        dead: document(dead, 48, limit_bytes=16 * MIB, out_of_memory=refused),
    }


def write_traced_run(folder: Path, sweep: Sweep | None = None) -> Run:
    """The whole sweep with these traces, beside an earlier code of which the first point was
    traced.
    """
    sweep = sweep or whole_sweep()
    settings = {"settings": {"traces": True}}
    sides = {"code": side("now"), "against": side("then")}
    found = traces()
    _write(folder / "then", replace(sweep, changes=settings), {SHORT: document(SHORT, 96)})
    return _write(folder, replace(sweep, changes={**settings, **sides}), found)


def _write(folder: Path, sweep: Sweep, found: dict[str, dict[str, Any]]) -> Run:
    run = sweep.write(folder)
    (folder / "traces").mkdir()
    with (folder / "rows.jsonl").open("a") as rows:
        for name, trace in found.items():
            file = f"{name}.json.gz"
            (folder / "traces" / file).write_bytes(gzip.compress(json.dumps(trace).encode(), 1))
            end = TraceEnd(
                point=name,
                outcome=Outcome.OK,
                cause="",
                reason="",
                file=file,
                launcher="zygote",
                duration_s=1.0,
            )
            rows.write(json.dumps({"kind": "traced", **to_json(end)}) + "\n")
    manifest, text = sweep.manifest(), (folder / "rows.jsonl").read_bytes()
    (folder / "run.json").write_text(json.dumps({**manifest, SEAL: seal_of(manifest, text)}))
    return load_run(run.path)
