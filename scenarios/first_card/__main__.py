"""The measuring beside a true card: exit code 0 when all holds, 1 when something is off, 2 for a
bad option, 3 without one.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pynvml

from harness.errors import DeviceUnavailable, DriverRefused, HarnessError, MeterUnavailable
from harness.run.cards import choose_device
from scenarios.first_card import driver_steps, memory_steps, runner_step, sharing_steps
from scenarios.first_card.bench import Bench, open_bench
from scenarios.first_card.rows import Kind, Row, exit_code, failed, unavailable

STEPS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "versions": driver_steps.versions,
    "queries": driver_steps.queries,
    "context": memory_steps.context,
    "lists": driver_steps.lists,
    "allocations": memory_steps.allocations,
    "refused": memory_steps.refused,
    "killed": memory_steps.killed,
    "accounting": memory_steps.accounting,
    "neighbour": sharing_steps.neighbour,
    "leases": sharing_steps.leases,
    "runner": runner_step.runner,
    "cost": driver_steps.cost,
    "spikes": memory_steps.spikes,
    "frameworks": sharing_steps.frameworks,
}
NO_CARD = 3
_MOST_SPIKES = 1000
"""Chosen: of 20 ms each they take half a minute."""
_EPILOG = """\
It needs nvidia-ml-py (pynvml) and an NVIDIA driver; no TensorFlow. Memory is taken through the \
driver itself, 2 GiB at
most, and through PyTorch, CuPy and JAX where they are installed. No setting of the card is \
changed. Each step is guarded:
where one cannot be done, its row says why, and the rest goes on.

Each row is what was asked, what was read, the difference in bytes, and one of four words:
  holds        an expectation was kept
  off          it was not: something of ours is wrong for this driver; please tell us, with the file
  fact         a figure of this card, to which nobody is held
  unavailable  this driver or machine does not tell; the row says why

exit codes: 0 all expectations hold, 1 one is off, 2 usage, 3 there is no card
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the steps, print the rows, write the file."""
    options = _parser().parse_args(arguments)
    began_s = time.monotonic()
    try:
        device = choose_device("gpu")
        with open_bench(device, options.spikes) as bench:
            found = {
                name: list(_step(name, bench, began_s + options.limit_s))
                for name in options.only or STEPS
            }
    except (DeviceUnavailable, MeterUnavailable, DriverRefused) as reason:
        print(f"first_card: no card to measure on: {reason}", file=sys.stderr)
        return NO_CARD
    rows = [row for step in found.values() for row in step]
    code = exit_code(rows)
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "card": {
            "name": device.name,
            "uuid": device.uuid,
            "memory_bytes": device.memory_bytes,
            "driver": device.driver,
        },
        "platform": platform.platform(),
        "exit_code": code,
        "steps": {name: [row.to_json() for row in step] for name, step in found.items()},
    }
    try:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(
            f"first_card: the result cannot be written to {options.out}: {error.strerror}",
            file=sys.stderr,
        )
        return 2
    counts = ", ".join(f"{sum(row.kind is kind for row in rows)} {kind}" for kind in Kind)
    print(
        f"\n{device.name}, driver {device.driver}: {counts}; "
        f"{time.monotonic() - began_s:.0f} s; written to {options.out}"
    )
    return code


def _step(name: str, bench: Bench, end_s: float) -> Iterator[Row]:
    """The rows of one step, each printed as it comes; whatever it fails of becomes its last."""
    print(f"\n{name}: {STEPS[name].__doc__}", flush=True)
    for row in _guarded(name, bench, end_s):
        _show(row)
        yield row


def _guarded(name: str, bench: Bench, end_s: float) -> Iterator[Row]:
    if time.monotonic() > end_s:
        yield unavailable(
            name, "the time was used up by the steps before it; ask for it alone with --only"
        )
        return
    try:
        yield from STEPS[name](bench)
    except (DriverRefused, MeterUnavailable) as refusal:
        yield unavailable(name, refusal)
    except (
        HarnessError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        pynvml.NVMLError,
    ) as error:
        yield failed(name, f"{type(error).__name__}: {error}")


def _show(row: Row) -> None:
    asked = f"asked {row.asked}, " if row.asked else ""
    error = "" if row.error_bytes is None else f", error {row.error_bytes:+,} B"
    read = f"{asked}read {row.read}{error}" if row.read else ""
    print(
        f"  {row.kind:<11}  {row.what}: {'; '.join(filter(None, [read, row.finding]))}", flush=True
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.first_card",
        description=(
            "Hold the card side of the harness (NVML meters, sampler, process lists, leases) "
            "against known memory."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="where the rows are written"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=STEPS,
        metavar="STEP",
        help=f"some of the steps: {', '.join(STEPS)}",
    )
    parser.add_argument(
        "--spikes",
        type=_count,
        default=50,
        metavar="N",
        help="spikes of each length (default: %(default)s)",
    )
    parser.add_argument(
        "--limit-s",
        type=float,
        default=240.0,
        help="no step begins later than this (default: %(default)s)",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_SPIKES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_MOST_SPIKES}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
