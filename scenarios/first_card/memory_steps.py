"""Known memory on the card, beside what our meters read of it: a context, allocations, an end by
SIGKILL, spikes.
"""

import time
from collections.abc import Iterator
from statistics import median

import pynvml

from harness.meters import NVML_ACCOUNTING_PEAK, NVML_DEVICE_USED, NVML_PROCESS
from harness.records import Quality, Reading
from harness.system import nvml as driver
from harness.words import GIB, MIB, format_bytes
from scenarios.first_card.bench import Bench
from scenarios.first_card.cuda import GRANULARITY_BYTES, OUT_OF_MEMORY
from scenarios.first_card.holding import (
    AMOUNTS,
    FREE,
    OPEN,
    HolderError,
    Holding,
    phase,
    readings_of,
    retained,
    taking,
)
from scenarios.first_card.rows import Row, amount, expect, fact, fact_bytes, unavailable

_SIZES_BYTES = (MIB, 32 * MIB, GIB)
_REST_S = 0.03
"""Chosen: 15 looks of the sampler at what is held."""
_SPIKE_BYTES = 64 * MIB
_SPIKES_MS = (20, 5, 1)
_MUST_SEE_MS = 5
"""The sampler's promise (harness/measure/sampler.py: every spike of 5 ms and more)."""
_LOOK_S = 0.002
_GOLDEN = 0.6180339887
"""Multiples of it, less their whole part, spread evenly: spikes begin at every part of the
sampler's interval."""
_KILLED_BYTES = 256 * MIB
_GONE_S = 10.0  # chosen: a card whose memory is not back by then fails the next measurement
_DEVICE, _PROCESS, _ACCOUNTED = NVML_DEVICE_USED, NVML_PROCESS, NVML_ACCOUNTING_PEAK


def context(bench: Bench) -> Iterator[Row]:
    """What a context costs, and what is free by NVML and by CUDA."""
    before = driver.memory(bench.handle, bench.card.source)
    with bench.holder() as holder:
        readings = readings_of(holder.ask(phase(OPEN, rest_s=_REST_S)))
        yield fact_bytes(
            "a context, of the card", retained(readings[_DEVICE]), "the CUDA driver's own memory"
        )
        own = readings_of(holder.ask(phase()))[_PROCESS]
        what = "a context, of the process"
        yield _unread(own, what) or fact_bytes(
            what, own.start_bytes or 0, "the rest is counted for the card alone"
        )
        yield from _free(bench, holder.ask(AMOUNTS), before)


def _free(bench: Bench, cuda: dict[str, int], before: driver.DeviceMemory) -> Iterator[Row]:
    """What is free and how large the card is, by both; a budget must fit what CUDA says."""
    after = driver.ask(pynvml.nvmlDeviceGetMemoryInfo, bench.handle, version=pynvml.nvmlMemory_v2)
    yield amount(
        "free by CUDA beside NVML's v2",
        int(after.free),
        cuda["free_bytes"],
        why="both with the context",
    )
    less_bytes = int(after.total) - cuda["total_bytes"]
    yield fact_bytes(
        "total by NVML less total by CUDA",
        less_bytes,
        f"{int(after.reserved):,} B are reserved, by v2",
    )
    missing_bytes = before.total_bytes - cuda["free_bytes"]
    yield fact_bytes(
        "total by NVML less free by CUDA",
        missing_bytes,
        "what the largest pool of an idle card must leave",
    )


def allocations(bench: Bench) -> Iterator[Row]:
    """Known amounts, kept, and then given back."""
    with bench.holder() as holder:
        holder.ask(OPEN)
        for size_bytes in _SIZES_BYTES:
            readings = readings_of(holder.ask(phase(taking(size_bytes), rest_s=_REST_S)))
            yield from _seen(f"{format_bytes(size_bytes)} taken", size_bytes, readings)
        readings = readings_of(holder.ask(phase(FREE, rest_s=_REST_S)))
        yield from _seen("all of it given back", -sum(_SIZES_BYTES), readings)


def _seen(what: str, kept_bytes: int, readings: dict[str, Reading]) -> Iterator[Row]:
    """Rows of both meters: the driver hands out whole pages, so each piece may take up to one
    more.
    """
    slack_bytes = GRANULARITY_BYTES
    for meter in (_DEVICE, _PROCESS):
        reading = readings[meter]
        name = f"{what}, {meter}"
        yield _unread(reading, name) or amount(
            name,
            kept_bytes,
            retained(reading),
            above_bytes=slack_bytes if kept_bytes > 0 else 0,
            below_bytes=0 if kept_bytes > 0 else slack_bytes,
            why=f"pages of {format_bytes(GRANULARITY_BYTES)}; {reading.quality}, "
            f"{reading.samples} looks",
        )


def _unread(reading: Reading, what: str) -> Row | None:
    """A row for a reading that is unavailable; None where there is one."""
    return unavailable(what, reading.reason) if reading.quality is Quality.UNAVAILABLE else None


def refused(bench: Bench) -> Iterator[Row]:
    """More than there is: refused in words, with nothing taken."""
    with bench.holder() as holder:
        holder.ask(OPEN)
        before_bytes = bench.card.used_bytes()
        too_much_bytes = holder.ask(AMOUNTS)["free_bytes"] + GIB
        try:
            holder.ask(taking(too_much_bytes))
        except HolderError as refusal:
            asked = f"{format_bytes(too_much_bytes)} is refused"
            yield expect(
                "1 GiB more than is free", asked, str(refusal), holds=refusal.code == OUT_OF_MEMORY
            )
        else:
            holder.kill()
            yield expect("1 GiB more than is free", "a refusal", "it was given", holds=False)
            return
        yield amount("used after the refusal", before_bytes, bench.card.used_bytes())


def killed(bench: Bench) -> Iterator[Row]:
    """A child that ended by SIGKILL: its memory is back, and it is listed no more."""
    before_bytes = bench.card.used_bytes()
    with bench.holder() as holder:
        holder.ask(OPEN)
        holder.ask(taking(_KILLED_BYTES))
        yield fact_bytes(
            "held when SIGKILL came", bench.card.used_bytes() - before_bytes, "context and 256 MiB"
        )
        began_s = time.monotonic()
        holder.kill()
        reaped_s = time.monotonic()
        while bench.card.used_bytes() > before_bytes and time.monotonic() - began_s < _GONE_S:
            time.sleep(0.001)
        ended_s = time.monotonic()
        after = (
            f"{1e3 * (ended_s - began_s):.1f} ms after SIGKILL, "
            f"{1e3 * (ended_s - reaped_s):.1f} ms after the process had ended"
        )
        yield amount("used after SIGKILL", before_bytes, bench.card.used_bytes(), why=after)
        pids = [process.pid for process in bench.card.processes()]
        yield expect(
            "the list after SIGKILL",
            f"without process {holder.pid}",
            f"{pids}",
            holds=holder.pid not in pids,
        )


def accounting(bench: Bench) -> Iterator[Row]:
    """The one peak that the driver keeps itself, where an administrator has switched accounting
    on.
    """
    with bench.holder() as holder:
        holder.ask(OPEN)
        readings = readings_of(holder.ask(phase(taking(32 * MIB), rest_s=_REST_S)))
        name = "the driver's own peak of the process"
        unread = _unread(readings[_ACCOUNTED], name) or _unread(readings[_PROCESS], name)
        yield unread or amount(
            name,
            readings[_PROCESS].peak_bytes or 0,
            readings[_ACCOUNTED].peak_bytes or 0,
            above_bytes=GRANULARITY_BYTES,
            why="beside nvml_process",
        )


def spikes(bench: Bench) -> Iterator[Row]:
    """Spikes of known length, one a phase, as the sampler of a run sees them."""
    with bench.holder() as holder:
        holder.ask(OPEN)
        for length_ms in _SPIKES_MS:
            yield _spikes_of(bench, holder, length_ms)


def _spikes_of(bench: Bench, holder: Holding, length_ms: int) -> Row:
    """One row; a spike may be missed only where the reading tells of a gap as long between two
    looks (a busy machine).
    """
    what = f"spikes of {length_ms} ms and {format_bytes(_SPIKE_BYTES)} seen"
    seen, held_s, gaps_s = 0, [], []
    for number in range(bench.spike_count):
        offset_s = (1 + number * _GOLDEN % 1) * _LOOK_S
        answer = holder.ask(
            {"spike": _SPIKE_BYTES, "offset_s": offset_s, "length_s": length_ms / 1e3}
        )
        reading = readings_of(answer)[_DEVICE]
        if reading.growth_bytes is None:
            return unavailable(what, reading.reason)
        held_s.append(answer["held_s"])
        if reading.growth_bytes >= _SPIKE_BYTES:
            seen += 1
        elif (reading.largest_gap_s or 0.0) >= answer["held_s"]:
            gaps_s.append(reading.largest_gap_s or 0.0)
    read = f"{seen} of {bench.spike_count}"
    finding = f"held for {1e3 * median(held_s):.2f} ms (median)"
    if length_ms < _MUST_SEE_MS:
        return fact(what, read, finding)
    if gaps_s:
        finding += (
            f"; {len(gaps_s)} missed in gaps of up to {1e3 * max(gaps_s):.1f} ms, which the "
            "readings tell: a busy machine"
        )
    return expect(
        what,
        "all, but for gaps that are listed",
        read,
        holds=seen > 0 and seen + len(gaps_s) == bench.spike_count,
        finding=finding,
    )
