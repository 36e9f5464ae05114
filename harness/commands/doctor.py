"""``python -m harness doctor``: its options, and what it does."""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from harness.commands import device_budget
from harness.doctor import Examination
from harness.errors import UsageError
from harness.judge.verdict import ExitCode
from harness.meters import GATED_METERS
from harness.records import PRETENDED_NOTE, PoolKind
from harness.run.devices import Device
from harness.units import MIB, format_bytes

DRIVER_ALONE, WITH_TENSORFLOW = "driver", "tensorflow"
_LEAST_BUDGET_BYTES = 64 * MIB
"""Chosen: twice the largest tensor that the doctor asks for (harness/doctor.py, LARGE_BYTES)."""


def add_doctor(parser: argparse.ArgumentParser, tell: Callable[[str], None]) -> None:
    """Declare the options, and the command, which prints with ``tell``."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu", "pretended"),
        default="auto",
        help="default: %(default)s; pretended (experimental): TensorFlow's own GPU device over "
        "a stub of the driver",
    )
    parser.add_argument(
        "--device-budget",
        metavar="SIZE",
        type=device_budget,
        help="limit of the device's memory, as 512MiB (default: 3GiB of the emulated device; of "
        "a card all that there is room for)",
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="on a card: have TensorFlow's pool grow on demand instead of reserving it; not "
        "together with a budget",
    )
    parser.add_argument(
        "--find",
        nargs="?",
        choices=(DRIVER_ALONE, WITH_TENSORFLOW),
        const=WITH_TENSORFLOW,
        help="only look for the device, and measure nothing: ask the driver alone, or "
        "TensorFlow as well whether it sees the card (default: %(const)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=functools.partial(_doctor, tell))


def _doctor(tell: Callable[[str], None], options: argparse.Namespace) -> int:
    from harness.run.usable import usable_device

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
    device = usable_device(
        options.device,
        Path.cwd(),
        budget_bytes=options.device_budget,
        growth=options.growth,
        ask_tensorflow=options.find != DRIVER_ALONE,
    )
    if options.find:
        tell(f"{device.name} ({device.kind})\ndriver: {device.driver}")
        return ExitCode.PASS
    from harness.doctor import examine

    found = examine(device, Path.cwd())
    if options.json:
        tell(json.dumps(examination_json(device, found), indent=1))
    else:
        show_examination(device, found)
    return ExitCode.PASS if found.usable else ExitCode.INCOMPLETE


# What the doctor found: a table for people, or JSON.


_PIPED_WIDTH = 120
"""Columns where nobody knows how wide the reader's page is; chosen: the table fits."""


def show_examination(device: Device, found: Examination) -> None:
    """Print what each meter read of what was allocated, and whether a gate can be trusted here."""
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    console.print(
        f"device: {device.name} ({device.kind})\ndriver: {device.driver}\npool: "
        f"{pool_in_words(device, found)}",
        markup=False,
    )
    if device.pretended:
        console.print(PRETENDED_NOTE, markup=False)
    table = Table(
        "meter",
        "phase",
        *(Column(name, justify="right") for name in ("asked", "read", "error")),
        "quality",
        "finding",
    )
    readable = [check for check in found.checks if check.read_bytes is not None]
    for check in readable:
        bound = "" if check.bound_bytes is None else f" to {format_bytes(check.bound_bytes)}"
        read, error = f"{format_bytes(check.read_bytes or 0)}{bound}", f"{check.error_bytes:+,} B"
        table.add_row(
            check.meter,
            check.phase,
            format_bytes(check.asked_bytes),
            read,
            error,
            check.quality,
            check.finding,
        )
    console.print(table)
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
