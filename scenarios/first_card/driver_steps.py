"""Questions to the driver alone: versions, the two queries of memory, process lists, and what a
question costs.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pynvml

from harness.errors import DriverRefused
from harness.measure.sampler import INTERVAL_S
from harness.run.devices import lease_folder
from harness.system import nvml as driver
from harness.words import MIB
from scenarios.first_card.bench import Bench
from scenarios.first_card.holding import OPEN
from scenarios.first_card.rows import Row, amount, expect, fact, fact_bytes, unavailable

_CALLS = 1000
"""Chosen: enough for a 99th percentile, and under a second where a list takes a millisecond."""
_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)
_SMI_S = 30.0  # chosen: without the persistence daemon it initialises every card first


def versions(bench: Bench) -> Iterator[Row]:
    """Driver, card and machine."""
    yield _asked("driver", pynvml.nvmlSystemGetDriverVersion)
    yield _asked("NVML", pynvml.nvmlSystemGetNVMLVersion)
    yield _asked("CUDA of the driver", pynvml.nvmlSystemGetCudaDriverVersion)
    yield fact(
        "card",
        bench.device.name,
        f"{bench.device.uuid}, one of {driver.ask(pynvml.nvmlDeviceGetCount)}",
    )
    yield _asked("compute capability", pynvml.nvmlDeviceGetCudaComputeCapability, bench.handle)
    yield fact(
        "MIG mode", "on" if driver.in_mig_mode(bench.handle) else "off, or the card has none"
    )
    yield _asked("persistence mode", pynvml.nvmlDeviceGetPersistenceMode, bench.handle)
    yield _asked("accounting mode", pynvml.nvmlDeviceGetAccountingMode, bench.handle)
    yield fact("Python", platform.python_version(), f"{platform.platform()}, {_binding()}")
    yield fact(
        "process ids",
        _status("NSpid"),
        f"{Path('/proc/self/ns/pid').readlink()}; process 1 is {_line('/proc/1/comm')}",
    )
    folder = lease_folder()
    yield fact(
        "folder of the leases",
        folder,
        f"mode {folder.stat().st_mode & 0o7777:o}; /run/lock: {_mode(Path('/run/lock'))}",
    )


def _asked(what: str, function: Callable[..., Any], *arguments: object) -> Row:
    try:
        answer = driver.ask(function, *arguments)
    except DriverRefused as refusal:
        return unavailable(what, refusal)
    return fact(what, ".".join(map(str, answer)) if isinstance(answer, tuple) else answer)


def _binding() -> str:
    try:
        return f"nvidia-ml-py {version('nvidia-ml-py')}"
    except PackageNotFoundError:
        return f"a pynvml without a version, {pynvml.__file__}"


def _status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(
        (
            line.split(":", 1)[1].strip().replace("\t", " ")
            for line in lines
            if line.startswith(field)
        ),
        "not listed",
    )


def _line(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError as error:
        return f"not readable ({error.strerror})"


def _mode(folder: Path) -> str:
    try:
        return (
            f"mode {folder.stat().st_mode & 0o7777:o}, "
            f"{'' if os.access(folder, os.W_OK) else 'not '}writable"
        )
    except OSError as error:
        return str(error.strerror)


def queries(bench: Bench) -> Iterator[Row]:
    """The two queries of memory, beside each other and beside nvidia-smi."""
    yield expect(
        "query that the meter takes",
        driver.MEMORY_V2,
        bench.card.source,
        holds=bench.card.source == driver.MEMORY_V2,
    )
    second = driver.ask(pynvml.nvmlDeviceGetMemoryInfo, bench.handle, version=pynvml.nvmlMemory_v2)
    first = driver.ask(pynvml.nvmlDeviceGetMemoryInfo, bench.handle)
    yield fact_bytes("total, v2", int(second.total))
    yield fact_bytes("reserved, v2", int(second.reserved), "kept by the driver and the card")
    yield fact_bytes(
        "used, v2", int(second.used), "by whomever, before this programme has a context"
    )
    yield amount("total, v1 beside v2", int(second.total), int(first.total))
    yield amount(
        "used, v1 less v2",
        int(second.reserved),
        int(first.used) - int(second.used),
        why="the reserved bytes are v1's",
    )
    parts = int(second.used) + int(second.reserved) + int(second.free)
    yield amount("used + reserved + free, v2", int(second.total), parts)
    yield from _beside_nvidia_smi(bench, int(second.used))


def _beside_nvidia_smi(bench: Bench, used_bytes: int) -> Iterator[Row]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield unavailable("nvidia-smi", "it is not installed here")
        return
    fields = "memory.total,memory.reserved,memory.used,memory.free"
    command = [
        program,
        "-i",
        bench.device.uuid or "",
        f"--query-gpu={fields}",
        "--format=csv,noheader,nounits",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_S, check=False)
    try:
        _, _, said_mib, _ = (int(part) for part in done.stdout.split(","))
    except ValueError:
        yield unavailable("nvidia-smi", f"it said {(done.stdout or done.stderr).strip()[:200]!r}")
        return
    yield fact("nvidia-smi", done.stdout.strip(), f"{fields}, MiB")
    yield amount(
        "used, nvidia-smi beside v2",
        used_bytes,
        said_mib * MIB,
        above_bytes=MIB,
        below_bytes=MIB,
        why="it counts MiB",
    )


def lists(bench: Bench) -> Iterator[Row]:
    """Which lists of processes there are, and whether a process of ours is in them."""
    with bench.holder() as holder:
        holder.ask(OPEN)
        for name in _LISTS:
            yield _listed(bench, name, holder.pid)


def _listed(bench: Bench, name: str, pid: int) -> Row:
    try:
        found = driver.ask(getattr(pynvml, name), bench.handle)
    except DriverRefused as refusal:
        return unavailable(name, refusal)
    pids = [int(process.pid) for process in found]
    here = [number for number in pids if Path(f"/proc/{number}").exists()]
    listed = f"{len(pids)} listed: {pids}; {len(here)} of them are processes here"
    if "MPS" in name:
        return fact(name, len(pids), "clients of MPS alone")
    if pid in pids:
        return expect(name, f"process {pid} is listed", listed, holds=True)
    return unavailable(
        name,
        f"process {pid}, which has a context, is not among them ({listed}): the driver has "
        "other process ids",
    )


def cost(bench: Bench) -> Iterator[Row]:
    """What a question costs; the sampler asks the quick one every 2.5 ms."""
    with bench.holder() as holder:
        holder.ask(OPEN)
        quick = _times_us(bench.card.quick())
        yield expect(
            "time of a look of the sampler",
            f"under its interval, {1e6 * INTERVAL_S:,.0f} us",
            _in_words(quick),
            holds=median(quick) < 1e6 * INTERVAL_S,
            finding="Card.quick",
        )
        questions: dict[str, Callable[[], object]] = {
            "time of memory v2 through pynvml": lambda: driver.memory(
                bench.handle, driver.MEMORY_V2
            ),
            "time of memory v1 through pynvml": lambda: driver.memory(
                bench.handle, driver.MEMORY_V1
            ),
            "time of the list of processes": bench.card.processes,
        }
        for what, question in questions.items():
            yield fact(what, _in_words(_times_us(question)), "one process on the card")


def _times_us(question: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(_CALLS):
        began_ns = time.perf_counter_ns()
        question()
        found.append((time.perf_counter_ns() - began_ns) / 1e3)
    return found


def _in_words(times_us: list[float]) -> str:
    highest = quantiles(times_us, n=100)[98]
    return (
        f"median {median(times_us):,.1f} us, 99th percentile {highest:,.1f} us, of "
        f"{len(times_us):,}"
    )
