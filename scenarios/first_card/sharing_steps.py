"""A card that others want or use: leases, neighbours, and the pools of frameworks."""

import dataclasses
import time
from collections.abc import Iterator

from harness.errors import MeterUnavailable
from harness.meters import NVML_DEVICE_USED
from harness.run.devices import lease_folder
from harness.words import GIB, MIB
from scenarios.first_card.bench import Bench
from scenarios.first_card.cuda import GRANULARITY_BYTES
from scenarios.first_card.frameworks import FRAMEWORKS, installed
from scenarios.first_card.holding import (
    AMOUNTS,
    FREE,
    OPEN,
    HolderError,
    phase,
    readings_of,
    retained,
    taking,
)
from scenarios.first_card.rows import Row, amount, expect, fact, fact_bytes, failed, unavailable

_HELD_S = 0.5
"""Chosen: five looks of a process that waits for a lease (harness/run/devices.py, every 0.1 s)."""
_FREED_S = 5.0  # chosen: fifty of them
_NEIGHBOUR_BYTES = 256 * MIB
_POOL_BYTES = GIB
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""JAX, GPU memory allocation: without it three quarters of the card are taken at once."""


def leases(bench: Bench) -> Iterator[Row]:
    """A second process that asks for the same card waits, and has it once the first was killed."""
    request = {"lease": [dataclasses.asdict(bench.device), str(lease_folder())]}
    with bench.holder() as first, bench.holder() as second:
        first.ask(request)
        second.tell(request)
        waits = second.hear(_HELD_S) is None
        yield expect(
            "a lease that is held",
            "a second process waits",
            "it waits" if waits else "it has the card too",
            holds=waits,
        )
        began_s = time.monotonic()
        first.kill()
        has_it = second.hear(_FREED_S) == {}
        after = (
            f"after {1e3 * (time.monotonic() - began_s):.0f} ms"
            if has_it
            else f"not within {_FREED_S:.0f} s"
        )
        yield expect(
            "the lease of a process that was killed", "the second has it", after, holds=has_it
        )


def neighbour(bench: Bench) -> Iterator[Row]:
    """Another process on the card is named, with what it holds."""
    with bench.holder() as own, bench.holder() as other:
        own.ask(OPEN)
        before = bench.card.neighbours({own.pid})
        yield fact("neighbours before", str(before) or "none", before.unknown)
        other.ask(OPEN)
        context_bytes = _held(bench, other.pid)
        other.ask(taking(_NEIGHBOUR_BYTES))
        found = bench.card.neighbours({own.pid})
        if found.unknown or context_bytes is None:
            yield unavailable("a neighbour", found.unknown or "the driver does not list it")
            return
        named = str(other.pid) in str(found)
        yield expect(
            "a neighbour", f"process {other.pid} is named", str(found) or "nobody", holds=named
        )
        yield amount(
            "what the neighbour holds",
            context_bytes + _NEIGHBOUR_BYTES,
            _held(bench, other.pid) or 0,
            above_bytes=GRANULARITY_BYTES,
            why="its context and 256 MiB",
        )
        beside = readings_of(own.ask(phase()))[NVML_DEVICE_USED]
        marked = str(other.pid) in beside.contended
        yield expect(
            "the reading beside it",
            "is marked as contended",
            beside.contended or beside.reason or "no",
            holds=marked,
        )


def _held(bench: Bench, pid: int) -> int | None:
    return next(
        (process.used_bytes for process in bench.card.processes() if process.pid == pid), None
    )


def frameworks(bench: Bench) -> Iterator[Row]:
    """The pools of PyTorch, CuPy and JAX, where they are installed, beside nvml_device_used."""
    for name in FRAMEWORKS:
        if not installed(name):
            yield unavailable(name, "it is not installed here")
            continue
        try:
            yield from _pool(bench, name)
        except (HolderError, MeterUnavailable) as reason:
            yield failed(name, reason)


def _pool(bench: Bench, name: str) -> Iterator[Row]:
    with bench.holder(name, **_ENVIRONMENT) as holder:
        opened = readings_of(holder.ask(phase(OPEN)))[NVML_DEVICE_USED]
        yield fact_bytes(f"{name}: its context, of the card", retained(opened))
        for what, size_bytes in (("1 MiB", MIB), ("1 GiB", _POOL_BYTES)):
            before = holder.ask(AMOUNTS)
            reading = readings_of(holder.ask(phase(taking(size_bytes), rest_s=0.03)))[
                NVML_DEVICE_USED
            ]
            after = holder.ask(AMOUNTS)
            in_use_bytes = after["in_use_bytes"] - before["in_use_bytes"]
            yield amount(f"{name}: {what} in use by its own count", size_bytes, in_use_bytes)
            pool_bytes = after["pool_bytes"] - before["pool_bytes"]
            yield fact(
                f"{name}: {what}, the pool's growth beside nvml_device_used",
                f"{pool_bytes:,} B beside {retained(reading):,} B",
                f"difference {retained(reading) - pool_bytes:,} B",
            )
        freed = readings_of(holder.ask(phase(FREE, rest_s=0.03)))[NVML_DEVICE_USED]
        yield fact_bytes(f"{name}: all given back", retained(freed))
