"""What is tried on pretended cards. Each step gives a line about what it saw, and raises StepError
for anything else.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from harness.judge import ExitCode
from harness.pretended import Machine
from harness.records import ROWS_FILE
from harness.words import MIB, format_bytes
from scenarios.card.bench import CARD_BYTES, Bench, StepError
from scenarios.card.planted import KINDS, WORKERS
from scenarios.ways import WAYS

NEIGHBOUR_BYTES = 256 * MIB
"""What somebody else holds on the card; chosen: a small model's."""
FEW = "arrays and lazy"
"""Points for steps that are about the cards and not about the loaders: they read no scan, and take
half a second each."""
_UNTRACED = ("--no-trace",)
_WITHOUT_WAYS = " and ".join(f"not {scenario.name}" for scenario in WAYS)
_POLL_S = 0.05  # chosen: a tenth of the shortest run
_FIRST_RUN_S = 120.0
"""Chosen: ten times what a session takes to its first run on a busy machine."""


def reserved(bench: Bench) -> str:
    """The complete catalogue on two cards, each pool reserved at the start; the gate passes by its
    committed baseline.
    """
    return _catalogue(bench, "reserved")


def grown(bench: Bench) -> str:
    """The same with pools that grow on demand, without the ways that differ in how files are
    read.
    """
    return _catalogue(bench, "grown", "--growth", *(() if bench.accept else ("-k", _WITHOUT_WAYS)))


def _catalogue(bench: Bench, step: str, *options: str) -> str:
    machine = bench.machine(step, cards=WORKERS)
    # of three, one that has more by chance decides nothing
    repeats = ("--repeats", "3") if bench.accept else ()
    selected = "-k" in options
    swept = bench.sweep(
        machine,
        step,
        "-n",
        str(WORKERS),
        *_UNTRACED,
        *repeats,
        *options,
        partial=selected,
        again=not bench.accept,
    )
    swept.expect_code(ExitCode.PASS)
    swept.expect_devices(_uuids(machine))
    return (
        f"{len(swept.rows('end'))} runs on {len(swept.used)} cards, one at a time on each; the "
        "gate passes"
    )


def traced(bench: Bench) -> str:
    """A few points with their traces, on one card: every one has what TensorFlow's GPU allocator
    did.
    """
    swept = bench.sweep(
        bench.machine("traced"), "traced", "-k", "arrays and 1000", "--repeats", "1", partial=True
    )
    traces = swept.rows("traced")
    absent = [row for row in traces if not row["file"]]
    if absent or not traces:
        raise StepError(
            f"{len(absent)} of {len(traces)} traces of {swept.run} are missing: {absent[:1]}"
        )
    return f"{len(traces)} traces of GPU_0_bfc"


def lost(bench: Bench) -> str:
    """One of two cards falls off the bus under a run: it is named, and the other one measures that
    run and all others.
    """
    machine = bench.machine("lost", cards=WORKERS)

    def lose(run: Path) -> None:
        _wait_for_an_end(run)
        machine.devices[0].lost = 1

    # TensorFlow may wait for a lost card for ever.
    options = ("-k", FEW, "--memory-timeout", "15", *_UNTRACED)
    swept = bench.sweep(machine, "lost", *options, partial=True, meanwhile=lose)
    swept.expect_code(ExitCode.PASS)
    named = [
        row
        for row in swept.rows("end")
        if any(_uuids(machine)[0] in reason for reason in row["left_out"])
    ]
    if not named:
        raise StepError(f"no run of {swept.run} says that {_uuids(machine)[0]} was lost")
    return (
        f"{len(swept.rows('end'))} runs are there, {len(named)} of them on the other card, "
        "saying why"
    )


def neighbour(bench: Bench) -> str:
    """Somebody else computes on the card: named with its process and bytes, measured again, and
    incomplete as it stays.
    """
    machine = bench.machine("neighbour")
    machine.devices[0].used_bytes = NEIGHBOUR_BYTES
    machine.control.add_process(machine.devices[0], os.getpid(), NEIGHBOUR_BYTES, name="notebook")
    swept = bench.sweep(
        machine, "neighbour", "-k", f"{FEW} and 500", "--repeats", "1", *_UNTRACED, partial=True
    )
    swept.expect_code(ExitCode.INCOMPLETE)
    again = swept.rows("again")
    if not again or str(os.getpid()) not in again[0]["reason"]:
        raise StepError(
            f"process {os.getpid()} with {format_bytes(NEIGHBOUR_BYTES)} is not named in "
            f"{swept.run}: {again[:1]}"
        )
    return (
        f"measured {len(again) + 1} times beside a neighbour that stays; the gate ends with "
        f"{swept.code}"
    )


def instances(bench: Bench) -> str:
    """A divided card (MIG): each instance is a device with a lease of its own, as far as the stub's
    driver goes.
    """
    machine = bench.machine("instances")
    uuids = tuple(
        machine.control.add_instance(machine.devices[0], total_bytes=CARD_BYTES // 2).uuid.decode()
        for _ in range(WORKERS)
    )
    swept = bench.sweep(
        machine,
        "instances",
        "-n",
        str(WORKERS),
        "-k",
        FEW,
        "--device-budget",
        "512MiB",
        *_UNTRACED,
        partial=True,
    )
    swept.expect_code(ExitCode.NO_BASELINE)  # the only finding: no baseline is kept for instances
    swept.expect_devices(uuids)
    return f"{len(swept.rows('end'))} runs on {len(swept.used)} instances"


def planted(bench: Bench) -> str:
    """Bugs of the detector: each is found on a card for what it is."""
    machine = bench.machine("planted", cards=WORKERS)
    done = bench.python(machine, "-m", "scenarios.card.planted", str(bench.out / "planted"))
    if done.returncode != 0:
        raise StepError(
            f"not all of {len(KINDS)} planted kinds are "
            f"found:\n{(done.stdout or done.stderr).strip()}"
        )
    return f"{len(KINDS)} of {len(KINDS)} planted kinds are found"


def _uuids(machine: Machine) -> tuple[str, ...]:
    return tuple(device.uuid.decode() for device in machine.devices)


def _wait_for_an_end(run: Path) -> None:
    until_s = time.monotonic() + _FIRST_RUN_S
    while time.monotonic() < until_s:
        rows = run / ROWS_FILE
        if rows.exists() and '"kind": "end"' in rows.read_text(encoding="utf-8"):
            return
        time.sleep(_POLL_S)
    raise StepError(f"no run of {run} has ended after {_FIRST_RUN_S:.0f} s")


LANES: tuple[tuple[Callable[[Bench], str], ...], ...] = (
    (reserved, grown),
    (traced, lost, neighbour, instances, planted),
)
"""What is tried side by side, each in its order: a sweep leaves processors idle while BFC waits for
memory, 10 s at a time."""
STEPS: Mapping[str, Callable[[Bench], str]] = MappingProxyType(
    {step.__name__: step for lane in LANES for step in lane}
)
