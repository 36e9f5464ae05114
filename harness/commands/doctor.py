"""The command ``doctor``: allocate known amounts in children and compare what each meter read."""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from harness.commands import device_budget, explain, hanging, showing_progress, to_stdout
from harness.errors import UsageError
from harness.judge import ExitCode
from harness.judge.completeness import read_traces
from harness.judge.table import Run, load_run
from harness.meters import (
    DEVICE_IN_USE,
    GATED_METERS,
    HOST_ANON,
    HOST_MAPPED,
    HOST_PSS,
    HOST_RSS,
    HOST_USS,
    METERS,
    NVML_ACCOUNTING_PEAK,
    NVML_DEVICE_USED,
    NVML_PROCESS,
    Meter,
)
from harness.records import PRETENDED_NOTE, TRACED_REPEAT, Outcome, Point, PoolKind, Quality
from harness.run.cards import usable_device
from harness.run.devices import Device
from harness.run.launchers import SpawnLauncher
from harness.run.runner import ChildSettings, Runner
from harness.rundir.manifest import end_run, start_run
from harness.rundir.rows import PhaseRecord, RunEnd, rows_since
from harness.rundir.traces import trace_rows_path
from harness.words import GIB, MIB, format_bytes

DRIVER_ALONE, WITH_TENSORFLOW = "driver", "tensorflow"
_LEAST_BUDGET_BYTES = 64 * MIB
"""Chosen: twice the largest tensor that the doctor asks for (LARGE_BYTES)."""

_PIPED_WIDTH = 120
"""Columns where nobody knows how wide the reader's page is. Chosen: the table fits."""

SMALL_BYTES, LARGE_BYTES = MIB, 32 * MIB
"""What the self-check allocates. Chosen: the least that every allocator counts, and far above the
start-up of any library while far below the smallest machine."""
# chosen: many times what TensorFlow's import and the known amounts take
_HOST_LIMIT_BYTES = 2 * GIB
_TIMEOUT_S = 120.0

_SMALLEST_CHUNK_BYTES = 256
"""Of BFC (bfc_allocator.h, kMinAllocationSize)."""
_BFC_BYTES = 4 * _SMALLEST_CHUNK_BYTES
"""Chosen: for the arguments of the operation that allocates."""
_KERNEL_BYTES = MIB
"""What host memory promises. The kernel's own counters lag by pages for each processor, and Python
allocates beside."""
_POOL_BYTES = 2 * MIB
"""TensorFlow's pool takes whole regions of a card, of 2 MiB at least (bfc_allocator.cc): it may
have had that much in hand."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the help ends with the table of meters."""
    explain(
        parser,
        "Say which devices and meters work here, and why the others do not: known amounts are "
        "allocated in two children, and compared with what each meter read of them. Takes about "
        "twenty seconds.",
        examples=("", "--device gpu --find driver", "--json"),
        exit_codes={
            0: "the meters that a gate needs have found all that was allocated",
            2: "usage: an argument cannot be used",
            3: "they have not, or there is no such device: no gate can be trusted here",
        },
        more=["", "meters:", *(line for row in METERS for line in _meter_lines(row))],
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu", "pretended"),
        default="auto",
        help="the device to examine (default: %(default)s); pretended (experimental) is "
        "TensorFlow's own GPU device over a stub of the driver",
    )
    parser.add_argument(
        "--device-budget",
        metavar="SIZE",
        type=device_budget,
        help="limit of the device's memory, such as 512MiB (default: 3GiB on the emulated "
        "device; on a card, all that is free)",
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="on a card: let TensorFlow's pool grow on demand instead of reserving it; not "
        "together with --device-budget",
    )
    parser.add_argument(
        "--find",
        nargs="?",
        choices=(DRIVER_ALONE, WITH_TENSORFLOW),
        const=WITH_TENSORFLOW,
        help="only look for the device, and measure nothing: ask only the driver, or also "
        "TensorFlow, whether it sees the card (default: %(const)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _meter_lines(meter: Meter) -> Iterator[str]:
    gated = "gated, " if meter.gated else ""
    yield f"  {meter.name} ({meter.memory}, {gated}{meter.peak})"
    yield from hanging("    ", f"{meter.meaning} ({meter.counter})")


def run(options: argparse.Namespace) -> int:
    """Look for the device, measure known amounts on it, and print what was found; 3 where a meter
    that a gate needs did not find them.
    """
    _check_options(options)
    device = usable_device(
        options.device,
        Path.cwd(),
        budget_bytes=options.device_budget,
        growth=options.growth,
        ask_tensorflow=options.find != DRIVER_ALONE,
    )
    if options.find:
        to_stdout(f"{device.name} ({device.kind})\ndriver: {device.driver}")
        return ExitCode.PASS

    found = examine(device, Path.cwd())
    if options.json:
        to_stdout(json.dumps(examination_json(device, found), indent=1))
    else:
        print_examination(device, found)
    return ExitCode.PASS if found.usable else ExitCode.INCOMPLETE


def _check_options(options: argparse.Namespace) -> None:
    """Raises UsageError for those that do not go together."""
    if options.growth and options.device_budget is not None:
        raise UsageError(
            "--growth was given together with --device-budget "
            f"{format_bytes(options.device_budget)}, but a pool with a limit is reserved at "
            "once, and does not grow; leave one of them out"
        )
    if options.device_budget is not None and options.device_budget < _LEAST_BUDGET_BYTES:
        raise UsageError(
            f"--device-budget {format_bytes(options.device_budget)} has no room for what "
            f"the doctor allocates; ask for {format_bytes(_LEAST_BUDGET_BYTES)} or more"
        )


# The self-check: what each meter has to find, and what it found.


@dataclass(frozen=True, slots=True)
class Expectation:
    """A phase of the self-check, the meter that must find the amount in it, and how far off it may
    be.
    """

    meter: str
    phase: str
    asked_bytes: int
    within_bytes: int
    over_bytes: int | None = None
    """How far above the amount it may be, where that is further than below."""
    at_least: bool = False
    """Whether only too little is wrong: a card's pool takes more than it is asked for."""
    level: bool = False
    """Whether the whole reading is expected, and not its growth over the start of the phase."""

    def allows(self, error_bytes: int) -> bool:
        """Whether a meter with this error has found the amount."""
        over_bytes = self.within_bytes if self.over_bytes is None else self.over_bytes
        return -self.within_bytes <= error_bytes and (self.at_least or error_bytes <= over_bytes)


_KEPT = {
    "device": (DEVICE_IN_USE, _BFC_BYTES),
    "private": (HOST_ANON, _KERNEL_BYTES),
    "shared": (HOST_ANON, _KERNEL_BYTES),
}
EXPECTED = (
    *(
        Expectation(meter, f"{kind}_{size}", amount_bytes, within_bytes)
        for kind, (meter, within_bytes) in _KEPT.items()
        for size, amount_bytes in (("small", SMALL_BYTES), ("large", LARGE_BYTES))
    ),
    Expectation(HOST_ANON, "spike", LARGE_BYTES, _KERNEL_BYTES),
    Expectation(HOST_RSS, "private_large", LARGE_BYTES, _KERNEL_BYTES),
    Expectation(HOST_MAPPED, "mapped", LARGE_BYTES, _KERNEL_BYTES),
)
_DRIVER_METERS = (NVML_DEVICE_USED, NVML_PROCESS, NVML_ACCOUNTING_PEAK)
EXPECTED_TRACED = (
    Expectation(HOST_PSS, "private_large", LARGE_BYTES, _KERNEL_BYTES),
    Expectation(HOST_USS, "private_large", LARGE_BYTES, _KERNEL_BYTES),
)
TRACE = "allocation_trace"
"""The name under which the trace stands among the meters; what it finds is unquantised, so nothing
may be off."""
GATED = (DEVICE_IN_USE, HOST_ANON)
"""Without these there is nothing to gate on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterCheck:
    """What one meter was asked to find in one phase, and what it found."""

    meter: str
    phase: str
    quality: str
    asked_bytes: int
    read_bytes: int | None
    """The growth that it read; None where it cannot read."""
    bound_bytes: int | None
    """The upper bound of that growth, where the meter brackets it."""
    within_bytes: int
    over_bytes: int | None = None
    """How far above the amount it may be, where that is further than below."""
    found: bool
    source: str
    reason: str

    @property
    def error_bytes(self) -> int | None:
        """What was read minus what was asked for."""
        return None if self.read_bytes is None else self.read_bytes - self.asked_bytes

    @property
    def finding(self) -> str:
        """For people: found, or why the meter is not used."""
        if self.read_bytes is None:
            return f"unavailable, because {self.reason}"
        if self.found:
            return "found"
        over = (
            "" if self.over_bytes is None else f" below and {format_bytes(self.over_bytes)} above"
        )
        return (
            f"not found within {format_bytes(self.within_bytes)}{over}: its readings are not to "
            "be trusted here"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The result of the self-check."""

    ends: tuple[RunEnd, ...]
    checks: tuple[MeterCheck, ...]

    @property
    def usable(self) -> bool:
        """Whether the meters that a gate needs have found every amount."""
        gated = [check for check in self.checks if check.meter in GATED]
        return bool(gated) and all(check.found for check in gated)


def examine(device: Device, root: Path) -> Examination:
    """Run the self-check on ``device`` in two children, the second one traced, and compare what was
    read with what was allocated.
    """
    point = _self_check(device)
    with tempfile.TemporaryDirectory(prefix="memory-doctor-") as folder:
        run_directory = Path(folder) / "run"
        start_run(
            run_directory,
            points=[point],
            repeats=1,
            device=device,
            command="doctor",
            root=root,
            settings={"traces": True},
        )
        showing = showing_progress([run_directory], "allocating known amounts:")
        with contextlib.closing(_runner(device, run_directory, root)) as runner, showing:
            ends = runner.measure(point, 0), runner.measure(point, TRACED_REPEAT)
        end_run(run_directory)

        measured = load_run(run_directory)
        expected = expectations(device, ends[0].device_limit_bytes)
        checks = [
            *_checks(expected, measured.phases.to_dict("records"), ends[0]),
            *_traced_checks(measured, point, ends[1]),
        ]
    return Examination(ends=ends, checks=tuple(checks))


def _self_check(device: Device) -> Point:
    return Point(
        scenario="selfcheck",
        body="harness.measure.device:measure",
        parameters={},
        fixed={
            "device_name": "CPU:0" if device.kind == "emulated" else "GPU:0",
            "small_bytes": SMALL_BYTES,
            "large_bytes": LARGE_BYTES,
        },
        phases=tuple(_phases()),
    )


def _runner(device: Device, run_directory: Path, root: Path) -> Runner:
    return Runner(
        run_directory=run_directory,
        device=device,
        launcher=SpawnLauncher(),
        children=ChildSettings(
            root=root,
            workspace=run_directory.parent,
            host_limit_bytes=_HOST_LIMIT_BYTES,
            host_limit_option="the self-check's own",
            timeout_s=_TIMEOUT_S,
        ),
    )


def expectations(device: Device, limit_bytes: int | None) -> tuple[Expectation, ...]:
    """What the meters must find on this device. ``limit_bytes`` is the size of its pool, None where
    it had no limit.
    """
    expected = [_of_grown_pool(one) if device.pool is PoolKind.GROWN else one for one in EXPECTED]
    # A reserved pool is there before the first phase: the driver sees all of it, and no tensor in
    # it.
    reserved_bytes = limit_bytes if device.pool is PoolKind.RESERVED else None
    for meter in _DRIVER_METERS:
        asked_bytes, level = (
            (LARGE_BYTES, False) if reserved_bytes is None else (reserved_bytes, True)
        )
        expected.append(
            Expectation(meter, "device_large", asked_bytes, _POOL_BYTES, at_least=True, level=level)
        )
    return tuple(expected)


def _of_grown_pool(expectation: Expectation) -> Expectation:
    """The expectation on a pool that grows, where BFC hands out a chunk undivided unless it is at
    least twice the request, or 128 MiB larger (bfc_allocator.cc, FindChunkPtr).

    Our amounts are too small for the second. Chunks come in 256 B, and so do the amounts: the
    largest chunk that is not split is twice the amount less 256 B.
    """
    if expectation.meter != DEVICE_IN_USE:
        return expectation
    over_bytes = expectation.asked_bytes - _SMALLEST_CHUNK_BYTES + expectation.within_bytes
    return dataclasses.replace(expectation, over_bytes=over_bytes)


def _phases() -> Iterator[str]:
    for size in ("small", "large"):
        for kind in ("device", "private", "shared"):
            yield from (f"{kind}_{size}", f"{kind}_{size}_release")
    yield from ("spike", "mapped", "mapped_release")


def _checks(
    expected: tuple[Expectation, ...], rows: list[dict[Any, Any]], end: RunEnd
) -> Iterator[MeterCheck]:
    found = {(row["meter"], row["phase"]): row for row in rows}
    for expectation in expected:
        row = found.get((expectation.meter, expectation.phase))
        if row is None or row["quality"] == Quality.UNAVAILABLE:
            yield _absent(expectation, _why_absent(row, end))
        else:
            yield _compared(expectation, row)


def _why_absent(row: Mapping[Any, Any] | None, end: RunEnd) -> str:
    if row is not None and row["reason"]:
        return str(row["reason"])
    if end.outcome is not Outcome.OK:
        return f"the self-check ended {end.outcome}: {end.reason}"
    return "the self-check has no reading of it"


def _compared(expectation: Expectation, row: Mapping[Any, Any]) -> MeterCheck:
    from_bytes = 0 if expectation.level else int(row["start_bytes"])
    read_bytes = int(row["peak_bytes"]) - from_bytes
    bound = row.get("peak_bound_bytes")
    bound_bytes = None if bound is None or bound != bound else int(bound) - from_bytes  # noqa: PLR0124 - pandas' missing value
    return MeterCheck(
        meter=expectation.meter,
        phase=expectation.phase,
        quality=str(row["quality"]),
        asked_bytes=expectation.asked_bytes,
        read_bytes=read_bytes,
        bound_bytes=bound_bytes,
        within_bytes=expectation.within_bytes,
        over_bytes=expectation.over_bytes,
        found=expectation.allows(read_bytes - expectation.asked_bytes),
        source=str(row["source"]),
        reason=str(row["reason"]),
    )


def _absent(expectation: Expectation, reason: str) -> MeterCheck:
    return MeterCheck(
        meter=expectation.meter,
        phase=expectation.phase,
        quality=str(Quality.UNAVAILABLE),
        asked_bytes=expectation.asked_bytes,
        read_bytes=None,
        bound_bytes=None,
        within_bytes=expectation.within_bytes,
        found=False,
        source="",
        reason=reason,
    )


def _traced_checks(run: Run, point: Point, end: RunEnd) -> Iterator[MeterCheck]:
    """What only a traced run reads: PSS, USS, and the trace itself."""
    records = (
        row
        for row in rows_since(trace_rows_path(run.path, point.name), 0)
        if isinstance(row, PhaseRecord)
    )
    rows = [
        {**dataclasses.asdict(reading), "phase": record.phase}
        for record in records
        for reading in record.readings
    ]
    yield from _checks(EXPECTED_TRACED, rows, end)
    yield from _trace_checks(run, point)


def _trace_checks(run: Run, point: Point) -> Iterator[MeterCheck]:
    traces = read_traces(run)
    trace = traces.found.get(point.name)
    for size, asked_bytes in (("small", SMALL_BYTES), ("large", LARGE_BYTES)):
        expectation = Expectation(TRACE, f"device_{size}", asked_bytes, 0)
        if trace is None:
            yield _absent(expectation, traces.absent.get(point.name, "no trace was planned"))
            continue

        alive = next(
            (phase.alive for phase in trace.phases if phase.phase == expectation.phase), ()
        )
        read_bytes = max((allocation.each_bytes for allocation in alive), default=0)
        yield MeterCheck(
            meter=TRACE,
            phase=expectation.phase,
            quality=str(Quality.EXACT),
            asked_bytes=asked_bytes,
            read_bytes=read_bytes,
            bound_bytes=None,
            within_bytes=0,
            found=read_bytes == asked_bytes,
            source="TensorFlow's profiler",
            reason=alive[0].what if alive else "nothing was alive at the peak",
        )


# What the doctor found: a table for people, or JSON.


def print_examination(device: Device, found: Examination) -> None:
    """Print what each meter read of what was allocated, and whether a gate can be trusted here."""
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    console.print(
        f"device: {device.name} ({device.kind})\ndriver: {device.driver}\npool: "
        f"{pool_in_words(device, found)}",
        markup=False,
    )
    if device.pretended:
        console.print(PRETENDED_NOTE, markup=False)

    readable = [check for check in found.checks if check.read_bytes is not None]
    console.print(_table(readable))
    for check in found.checks:
        if check not in readable:
            console.print(f"{check.meter}: {check.finding}", markup=False)
    for end in found.ends:
        if end.reason:
            console.print(f"{end.outcome}: {end.reason}", markup=False)

    console.print(
        "The meters that a gate needs have found all that was allocated."
        if found.usable
        else f"No gate can be trusted here: {' and '.join(GATED_METERS)} have to find all that was "
        "allocated."
    )


def _table(readable: Sequence[MeterCheck]) -> Table:
    amounts = (Column(name, justify="right") for name in ("asked", "read", "error"))
    table = Table("meter", "phase", *amounts, "quality", "finding")
    for check in readable:
        bound = "" if check.bound_bytes is None else f" to {format_bytes(check.bound_bytes)}"
        table.add_row(
            check.meter,
            check.phase,
            format_bytes(check.asked_bytes),
            f"{format_bytes(check.read_bytes or 0)}{bound}",
            f"{check.error_bytes:+,} B",
            check.quality,
            check.finding,
        )
    return table


def pool_in_words(device: Device, found: Examination) -> str:
    """How TensorFlow's pool was taken, and what that means for the readings."""
    if device.pool is PoolKind.GROWN:
        return (
            "grows on demand, so that a tensor may count as up to twice its bytes (without "
            "--growth it is reserved)"
        )
    if device.pool is PoolKind.DRIVER:
        return f"the CUDA driver's own (TF_GPU_ALLOCATOR={device.allocator}), without a limit"
    limit_bytes = next(
        (end.device_limit_bytes for end in found.ends if end.device_limit_bytes is not None), None
    )
    return (
        "reserved"
        if limit_bytes is None
        else f"reserved, {format_bytes(limit_bytes)}, out of which every tensor is cut to 256 B"
    )


def examination_json(device: Device, found: Examination) -> dict[str, object]:
    """The same as plain JSON values, with every check."""
    return {
        "device": dataclasses.asdict(device),
        "usable": found.usable,
        "ends": [
            {"outcome": end.outcome, "cause": end.cause, "reason": end.reason} for end in found.ends
        ],
        "checks": [
            {
                **dataclasses.asdict(check),
                "error_bytes": check.error_bytes,
                "finding": check.finding,
            }
            for check in found.checks
        ],
    }
