"""What the doctor found: a table for people, or JSON."""

import dataclasses
import sys

from rich.console import Console
from rich.table import Column, Table

from harness.doctor import GATED, Examination
from harness.records import PRETENDED_NOTE, PoolKind
from harness.run.devices import Device
from harness.units import format_bytes

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
        else f"No gate can be trusted here: {' and '.join(GATED)} have to find all that was "
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
