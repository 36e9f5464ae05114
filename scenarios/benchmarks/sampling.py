"""What the sampler costs and what it sees: spikes of a stub driver, a bare child's memory, the
loading scenario beside it.

Run as ``python -m scenarios.benchmarks.sampling``; imports no TensorFlow. The stub driver is one of
the tests', so this runs in a checkout.
"""

import argparse
import importlib
import json
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from harness.measure import (
    BeginCard,
    BeginHost,
    EndCard,
    EndHost,
    MeterContext,
    OpenCard,
    OpenHost,
    SamplerLine,
)
from harness.measure.host_meter import HostMeter
from harness.records import Outcome, Point, Reading
from harness.run.launchers import Sampling
from harness.run.runner import Runner
from harness.rundir.rows import PhaseRecord
from harness.system.proc import ProcCounters
from harness.words import GIB, MIB
from scenarios.benchmarks.bars import Figure
from scenarios.benchmarks.measured import loading_point, open_runner
from scenarios.benchmarks.spread import Spread

_USED = "nvmlDeviceGetMemoryInfo_v2"
_SPIKES = 150
_APART_NS = 10_000_000
_PIECE_S = 0.5
"""Chosen: 200 looks, and 17 pieces for each round of spikes."""


class NoSampling(Sampling):
    """Stands for a sampler that could not be started."""

    def address(self) -> tuple[str, str]:
        """Nowhere."""
        return "", "left out on purpose"


def figures(repeats: int, workspace: Path) -> dict[str, Figure]:
    """All of them, by name: percentages end in ``_percent``, times in their unit."""
    found: dict[str, Figure] = {**calls_us()}
    with tempfile.TemporaryDirectory(prefix="memory-sampling-") as folder:
        found |= detection(Path(folder), repeats)
    found |= brackets(repeats)
    found |= round_trips()
    return found | loading(repeats, workspace)


def detection(folder: Path, repeats: int) -> dict[str, Figure]:
    """Percent of spikes of 20, 5 and 1 ms in which the driver was asked, by the driver's own log,
    and the sampler's share of a core, of half a second each.
    """
    driver, card, library = _pretended_driver(folder)
    sampling = Sampling(environment={**os.environ, **driver.environment(library)})
    line = SamplerLine.connect(sampling.address()[0])
    line.ask(OpenCard(uuid="GPU-aaaa"))
    line.ask(OpenHost())

    seen: dict[int, list[float]] = {20: [], 5: [], 1: []}
    shares: list[float] = []
    for _ in range(repeats):
        for length_ms, percents in seen.items():
            line.ask(BeginCard())
            line.ask(BeginHost())
            percents.append(_seen_percent(driver, card, length_ms, sampling, shares))
            line.ask(EndHost())
            line.ask(EndCard())
    line.close()
    sampling.close()

    found: dict[str, Figure] = {
        f"sampler_{length_ms}ms_percent": median(percents) for length_ms, percents in seen.items()
    }
    return {**found, "sampler_cpu_percent": Spread.of(shares)}


def _pretended_driver(folder: Path) -> tuple[Any, Any, Path]:
    """A stub driver's control file, a card of it, and its library."""
    building: Any = importlib.import_module("harness.pretended.card")
    control: Any = importlib.import_module("harness.pretended.control")
    stub = building.build(folder / "stub", building.header())
    driver = control.StubControl.create(folder / "driver", stub.functions)
    card = driver.add_device("GPU-aaaa", total_bytes=40 * GIB, used_bytes=MIB)
    return driver, card, stub.library


def _seen_percent(
    driver: Any,  # noqa: ANN401 - the stub is loaded by name
    card: Any,  # noqa: ANN401 - likewise
    length_ms: int,
    sampling: Sampling,
    shares: list[float],
) -> float:
    """Percent of the spikes in which the card was asked; what the sampler took of a core meanwhile
    goes to ``shares``.
    """
    # Apart by no multiple of the interval, so that the looks do not always fall on the same part of
    # a spike.
    every_ns = length_ms * 1_000_000 + _APART_NS + 370_000
    starts = [index * every_ns for index in range(_SPIKES)]
    driver.script_spikes(card, [(start, length_ms * 1_000_000, MIB) for start in starts])
    driver.forget_calls()
    origin_ns = driver.start_spikes(card)
    shares += _shares_percent(sampling, seconds=_SPIKES * every_ns / 1e9)

    asked_ns = [at_ns - origin_ns for at_ns in driver.call_times_ns(_USED)]
    hits = sum(
        any(start <= at < start + length_ms * 1_000_000 for at in asked_ns) for start in starts
    )
    return 100 * hits / _SPIKES


def _shares_percent(sampling: Sampling, *, seconds: float) -> list[float]:
    """The sampler's share of a core in each of the pieces of ``seconds``, in percent."""
    shares = []
    for _ in range(max(1, round(seconds / _PIECE_S))):
        cpu_ns, began_ns = _cpu_ns(sampling), time.monotonic_ns()
        time.sleep(seconds / max(1, round(seconds / _PIECE_S)))
        shares.append(100 * (_cpu_ns(sampling) - cpu_ns) / (time.monotonic_ns() - began_ns))
    return shares


def brackets(repeats: int) -> dict[str, float]:
    """Widest bracket of host_anon, in MiB, and its worst miss of a known spike beside a file that
    is read through a mapping.
    """
    sampling = Sampling()
    meter = HostMeter(_context(SamplerLine.connect(sampling.address()[0])))
    meter.open()
    widths, misses = [], []
    with tempfile.TemporaryFile() as file:
        file.truncate(128 * MIB)
        for amount_bytes in (8 * MIB, 64 * MIB):
            _spike(amount_bytes)
            for _ in range(5 * repeats):
                anon, top_bytes = _beside_a_file(meter, file.fileno(), amount_bytes)
                assert anon.peak_bytes is not None  # noqa: S101 - a bounded reading has both
                assert anon.peak_bound_bytes is not None  # noqa: S101 - likewise
                widths.append((anon.peak_bound_bytes - anon.peak_bytes) / MIB)
                misses.append(
                    max(anon.peak_bytes - top_bytes, top_bytes - anon.peak_bound_bytes, 0) / MIB
                )
    sampling.close()
    return {
        "host_bracket_median_mib": median(widths),
        "host_bracket_widest_mib": max(widths),
        "host_bracket_miss_mib": max(misses),
    }


def round_trips() -> dict[str, float]:
    """Microseconds of beginning and of ending a phase: by the sampler, and without it."""
    sampling = Sampling()
    found: dict[str, float] = {}
    for name, line in (("with", SamplerLine.connect(sampling.address()[0])), ("without", None)):
        meter = HostMeter(_context(line))
        meter.open()
        begins, ends = [], []
        for _ in range(300):
            began_s = time.perf_counter()
            meter.begin()
            begun_s = time.perf_counter()
            meter.end()
            begins.append(begun_s - began_s)
            ends.append(time.perf_counter() - begun_s)
        found |= {f"begin_{name}_us": median(begins) * 1e6, f"end_{name}_us": median(ends) * 1e6}
    sampling.close()
    return found


def calls_us() -> dict[str, float]:
    """Microseconds of each read of /proc, of this process with 512 MiB touched."""
    counters = ProcCounters()
    with mmap.mmap(-1, 512 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for offset in range(0, len(pages), mmap.PAGESIZE):
            pages[offset] = 1
        found = {
            "status_us": _median_us(counters.full_read, 1000),
            "statm_and_faults_us": _median_us(counters.cheap_read, 1000),
            "clear_refs_us": _median_us(counters.reset_highest, 1000),
            "smaps_rollup_us": _median_us(Path("/proc/self/smaps_rollup").read_bytes, 20),
        }
    counters.close()
    return found


def loading(repeats: int, workspace: Path) -> dict[str, Spread]:
    """The lazy loader's run with the sampler, of that without, in turns: wall time, and time in its
    phases, in percent more.
    """
    point = loading_point("lazy", image_count=2000, stack_size=2048, frame_size=64, batch_size=64)
    ratios: dict[str, list[float]] = {"wall": [], "phases": []}
    with tempfile.TemporaryDirectory(prefix="memory-sampling-") as folder, ExitStack() as opened:
        contenders = {
            name: opened.enter_context(
                open_runner(Path(folder) / name, workspace, [point], repeats + 1, sampling)
            )
            for name, sampling in (("with", Sampling()), ("without", NoSampling()))
        }
        for repeat in range(repeats + 1):
            order = list(contenders.items()) if repeat % 2 else list(contenders.items())[::-1]
            seconds = {name: _seconds(runner, point, repeat) for name, runner in order}
            if repeat:  # the first one warms up
                for index, what in enumerate(ratios):
                    ratios[what].append(seconds["with"][index] / seconds["without"][index])
    return {
        f"sampler_{what}_percent": Spread.of([100 * (ratio - 1) for ratio in found])
        for what, found in ratios.items()
    }


def _seconds(runner: Runner, point: Point, repeat: int) -> tuple[float, float]:
    end = runner.measure(point, repeat)
    if end.outcome is not Outcome.OK:
        raise RuntimeError(f"the loading scenario ended with {end.outcome}: {end.reason}")
    rows = [
        json.loads(line)
        for line in (runner.run_directory / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    phases = [
        PhaseRecord.from_json(row)
        for row in rows
        if row["kind"] == "phase" and row["repeat"] == repeat
    ]
    return end.duration_s, sum(phase.duration_s for phase in phases)


def _context(line: SamplerLine | None) -> MeterContext:
    return MeterContext(
        device_name="CPU:0", device={"kind": "emulated", "uuid": None}, sampler=line
    )


def _spike(amount_bytes: int) -> None:
    with mmap.mmap(-1, amount_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for offset in range(0, amount_bytes, mmap.PAGESIZE):
            pages[offset] = 1


def _beside_a_file(meter: HostMeter, descriptor: int, amount_bytes: int) -> tuple[Reading, int]:
    with mmap.mmap(descriptor, 128 * MIB, prot=mmap.PROT_READ) as mapped:
        meter.begin()
        for offset in range(0, 64 * MIB, mmap.PAGESIZE):
            mapped[offset]
        _spike(amount_bytes)
        for offset in range(64 * MIB, 128 * MIB, mmap.PAGESIZE):
            mapped[offset]
        anon = meter.end()[0]
    return anon, (anon.start_bytes or 0) + amount_bytes


def _cpu_ns(sampling: Sampling) -> int:
    # Nanoseconds on a processor (Documentation/scheduler/sched-stats).
    return int(
        Path(f"/proc/{sampling.process_id}/schedstat").read_text(encoding="ascii").split()[0]
    )


def _median_us(call: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began_s = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began_s)
    return median(taken) * 1e6


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.benchmarks.sampling")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workspace", type=Path, default=Path("artifacts/inputs"))
    options = parser.parse_args()
    found = figures(options.repeats, options.workspace)
    print(json.dumps(found, default=Spread.to_json, indent=2))  # noqa: T201 - what it is for
    return 0


if __name__ == "__main__":
    sys.exit(main())
