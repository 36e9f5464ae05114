"""``python -m harness doctor``: its options, and what it does."""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path

from harness.errors import UsageError
from harness.judge.verdict import ExitCode
from harness.run.options import device_budget
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
    from harness.doctor_words import examination_json, show_examination

    found = examine(device, Path.cwd())
    if options.json:
        tell(json.dumps(examination_json(device, found), indent=1))
    else:
        show_examination(device, found)
    return ExitCode.PASS if found.usable else ExitCode.INCOMPLETE
