"""Write the table: exit code 0 when it is written, 2 for runs that cannot be compared, 3 when
nothing could be compared.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.judge.table import load_run
from harness.records import RUN_FILE
from scenarios.fidelity.compare import Row, rows_of, sides_of
from scenarios.fidelity.words import as_json, page, summary

SELECTION = (
    "((loading or arrays) and not 500 and not 1000 and not 2000) or (feeds and 128) or "
    "(training and 64) or (inference and not 96 and not 192) or oom"
)
"""The points that the emulated device measures beside a run on a card: the smallest of each
scenario and loader, and those that have a budget of their own. Measured on two cores shared with
others: 33 runs, traces included, take under 4 minutes."""
EMULATED = "emulated"
"""The folder in a card's run directory for the run beside it."""
PAGE = "fidelity.md"
NOTHING = 3
_MOST_WORKERS = 4
"""Chosen: each holds an emulated device of up to 3 GiB of this machine's memory."""
_EPILOG = """\
By hand, three runs, of which the emulated one is needed; in any order:
  python -m scenarios.fidelity RUNS/emulated RUNS/pretended RUNS/real --out fidelity.md

After a sweep on a card, the emulated counterpart included (what `nox -s gpu` does at its end):
  python -m scenarios.fidelity --beside RUN

run.json says which device is which. Where both runs were traced, a difference is split by what was
alive at the peak; else by batches and small tensors. What no rule covers is "unexplained".

exit codes: 0 written, 2 usage, 3 no amount was measured on two devices
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, compare, write."""
    options = _parser().parse_args(arguments)
    try:
        runs, out = _asked(options)
        sides = sides_of([load_run(run) for run in runs])
        rows = rows_of(sides)
        out.write_text(page(sides, rows), encoding="utf-8")
        out.with_suffix(".json").write_text(
            json.dumps(as_json(sides, rows), indent=1) + "\n", encoding="utf-8"
        )
    except HarnessError as error:
        print(f"fidelity: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fidelity: the table cannot be written: {error}", file=sys.stderr)
        return 2
    print(f"{summary(rows)}\nwritten to {out}, and as JSON beside it")
    return 0 if _any_compared(rows) else NOTHING


def _any_compared(rows: Sequence[Row]) -> bool:
    return any(row.differences for row in rows)


def _asked(options: argparse.Namespace) -> tuple[list[Path], Path]:
    """The runs to compare, and where the table goes. Raises UsageError."""
    if options.beside is None:
        if not options.runs or options.out is None:
            raise UsageError("name the runs and --out FILE.md, or --beside RUN")
        if options.out.suffix != ".md":
            raise UsageError(
                f"--out {options.out} does not end in .md; the rows as JSON are written beside it"
            )
        return options.runs, options.out
    if options.runs:
        raise UsageError("--beside measures the emulated device itself; name no other run with it")
    load_run(options.beside)  # before minutes are spent
    emulated = options.beside / EMULATED
    if not (emulated / RUN_FILE).exists() or load_run(emulated).manifest.ended is None:
        _measure(emulated)
    return [emulated, options.beside], options.out or options.beside / PAGE


def _measure(folder: Path) -> None:
    """Measure the selection on the emulated device, or what a run that was broken off lacks. Raises
    UsageError.
    """
    begun = (folder / RUN_FILE).exists()
    run = (
        ["--resume", str(folder)]
        if begun
        else ["--device", "cpu", "--repeats", "2", "--memory-out", str(folder)]
    )
    workers = str(min(os.cpu_count() or 1, _MOST_WORKERS))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "scenarios",
        "-q",
        "-n",
        workers,
        "-k",
        SELECTION,
        *run,
    ]
    code = subprocess.run(command, check=False).returncode
    if not (folder / RUN_FILE).exists():
        raise UsageError(
            f"the emulated device could not be measured: pytest ended with code {code}, and "
            "says why above"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.fidelity",
        description=(
            "device_in_use of the same points on the emulated device, on a pretended card and on "
            "a real one."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run directories, one of each device"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="where the table goes")
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="RUN",
        help="a run on a card; measure the emulated device beside it",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
