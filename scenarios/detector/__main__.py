"""Prove the gate as a detector: exit code 0 when every bar is kept, 1 when one is missed, 2 for a
bad option.
"""

import argparse
import hashlib
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.errors import HarnessError, UsageError
from harness.rundir.manifest import describe_environment
from scenarios.detector.bugs.registry import (
    ARRAYS,
    EAGER,
    FORMATS,
    INFERENCE,
    LAZY,
    PLANTS,
    SCRIPTS,
    SETTINGS,
    TRAINING,
    Plant,
    plant_named,
)
from scenarios.detector.ledger import CLEAN, Ledger, Sweep
from scenarios.detector.result import Result
from scenarios.detector.sweeps import MODES, Detector, DetectorError

RUNNER = "runner"
"""How clean sweeps are measured: as the plug-in does, without pytest around it."""
ACCEPTED = "not oom"
"""The points that the baseline is made of: all that a plant or a clean sweep is measured at."""
CLEAN_IN_MODES = 3
"""Chosen: clean sweeps that are run in every mode as well."""
_EPILOG = f"""\
{len(PLANTS)} kinds of planted regressions are in scenarios/detector/bugs/registry.py. One by hand:
  pytest scenarios --plant full_tensor_kept -k "loading and lazy" --memory-out RUN
  python -m harness gate RUN --partial

The whole takes about 80 minutes on two processors. It can be stopped at any time: the same \
command with the same --out
goes on where it was. exit codes: 0 every bar is kept, 1 one is missed, 2 usage.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, count it, and keep the tables."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except HarnessError as error:
        print(f"detector: {error}", file=sys.stderr)
        return 1 if isinstance(error, DetectorError) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.detector",
        description=(
            "The gate as a detector: what share of planted regressions it finds, and of clean "
            "runs it refuses."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [plant.name for plant in PLANTS]
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="KIND",
        choices=names,
        help="plant these kinds alone; none: clean runs alone",
    )
    parser.add_argument(
        "--clean",
        metavar="N",
        type=_count,
        default=200,
        help="clean sweeps of the lazy loader; a tenth as many of each other selection of "
        "points (default: %(default)s)",
    )
    parser.add_argument(
        "--modes",
        metavar="MODE,...",
        type=_modes,
        default=MODES,
        help=f"how planted sweeps are run, of {','.join(MODES)} (default: all three)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_count,
        default=2,
        help="sweeps at the same time (default: %(default)s)",
    )
    out = Path(f"artifacts/detector-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=out,
        help="where everything goes; one that was broken off is gone on with",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    root, console = Path.cwd(), Console(stderr=True)
    if not (root / "scenarios" / "gate.toml").exists():
        raise UsageError(
            f"{root} has no scenarios/gate.toml; start the detector in the project's root"
        )
    environment = describe_environment(root, isolation="auto")
    about = {
        "code": _code(root),
        **{name: environment[name] for name in ("python", "tensorflow", "numpy", "cpu_count")},
    }
    detector = Detector(options.out.resolve(), root)
    ledger = Ledger(detector.out, about)
    plants = PLANTS if options.only is None else tuple(plant_named(name) for name in options.only)
    wanted = _wanted(plants, options.modes, options.clean)
    missing = [sweep for sweep in wanted if sweep.key not in ledger.sweeps]
    try:
        if missing and not detector.baselines.exists():
            console.print("measuring the clean run that becomes the baseline, about two minutes")
            shutil.rmtree(detector.out / "accepted", ignore_errors=True)
            console.print(detector.accept(ACCEPTED, options.workers), markup=False, highlight=False)
        _measure(detector, ledger, missing, options.workers, console)
    except KeyboardInterrupt:
        console.print(
            "stopped; what is there so far follows, and the same command with --out "
            f"{options.out} goes on"
        )
    finally:
        detector.close()
    result = Result(
        tuple(ledger.sweeps[sweep.key] for sweep in wanted if sweep.key in ledger.sweeps), plants
    )
    _keep(detector.out, result, about)
    _show(Console(width=None if sys.stdout.isatty() else 140), result)
    print(f"kept as {options.out / 'detector.json'} and {options.out / 'detector.md'}")
    return 0 if result.holds and len(result.sweeps) == len(wanted) else 1


def _code(root: Path) -> str:
    """A digest of all that decides what a sweep measures and what the gate says about it."""
    folders = ("harness", "ptycho", "scenarios/bodies", "scenarios/detector/bugs")
    files = [*(path for folder in folders for path in sorted((root / folder).rglob("*.py")))]
    files += [
        root / "scenarios" / name
        for name in ("catalog.py", "conftest.py", "gate.toml", "test_scenarios.py")
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _wanted(plants: tuple[Plant, ...], modes: tuple[str, ...], clean: int) -> list[Sweep]:
    """Every sweep of this run of the detector, in the order in which they are run: what shows
    misses and false alarms first.
    """
    first, *more = [
        [Sweep(kind=plant.name, chosen=plant.points, mode=mode) for plant in plants]
        for mode in modes
    ]
    both = [
        Sweep(kind=CLEAN, chosen=LAZY, mode=mode, number=n)
        for n in range(min(CLEAN_IN_MODES, clean))
        for mode in modes
    ]
    lazy = [Sweep(kind=CLEAN, chosen=LAZY, mode=RUNNER, number=n) for n in range(clean)]
    others = [
        Sweep(kind=CLEAN, chosen=chosen, mode=RUNNER, number=n)
        for chosen in (EAGER, ARRAYS, TRAINING, INFERENCE, FORMATS, SCRIPTS, SETTINGS)
        for n in range(clean // 10)
    ]
    # By kind, so that a broken-off run has both ways of some.
    modes_of_kinds = [sweep for of_both in zip(*more, strict=True) for sweep in of_both]
    return [*first, *both, *lazy, *modes_of_kinds, *others]


def _measure(
    detector: Detector, ledger: Ledger, missing: list[Sweep], workers: int, console: Console
) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(workers) as pool:
        bars = {
            kind: progress.add_task(
                kind,
                total=sum((sweep.kind == CLEAN) == (kind == "clean sweeps") for sweep in missing),
            )
            for kind in ("planted sweeps", "clean sweeps")
        }

        def run(sweep: Sweep) -> None:
            done = _done(detector, sweep)
            ledger.add(done)
            progress.advance(bars["clean sweeps" if sweep.kind == CLEAN else "planted sweeps"])
            said = _remark(done)
            if said:
                console.print(said, markup=False, highlight=False)

        try:
            for _ in pool.map(run, missing):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _done(detector: Detector, sweep: Sweep) -> Sweep:
    name = f"{sweep.name}-{sweep.mode}"
    # of a detector that was broken off in it
    shutil.rmtree(detector.out / "runs" / name, ignore_errors=True)
    try:
        if sweep.mode == RUNNER:
            seen = detector.clean(sweep.chosen, name)
        else:
            plant = None if sweep.kind == CLEAN else plant_named(sweep.kind)
            seen = detector.sweep(plant, sweep.chosen, sweep.mode, sweep.name)
    except HarnessError as error:
        return Sweep(
            kind=sweep.kind,
            chosen=sweep.chosen,
            mode=sweep.mode,
            number=sweep.number,
            failure=str(error),
        )
    return Sweep(
        kind=sweep.kind, chosen=sweep.chosen, mode=sweep.mode, number=sweep.number, seen=seen
    )


def _remark(sweep: Sweep) -> str:
    """What is worth a line while it runs: a miss, a false alarm, a failure."""
    if sweep.seen is None:
        return f"{sweep.name} ({sweep.mode}) failed: {sweep.failure}"
    if sweep.kind == CLEAN:
        return (
            ""
            if sweep.seen.exit_code == 0
            else f"{sweep.name} ({sweep.mode}) refused: {sweep.seen.sentence_about(None)}"
        )
    plant = plant_named(sweep.kind)
    if plant.expected is None or sweep.seen.tells(plant):
        return ""
    return (
        f"{sweep.name} ({sweep.mode}) missed: exit code {sweep.seen.exit_code}; "
        f"{sweep.seen.sentence_about(plant)}"
    )


def _keep(out: Path, result: Result, about: dict[str, object]) -> None:
    document = {"schema_version": 1, "about": about, **result.to_json()}
    (out / "detector.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "detector.md").write_text(
        f"{result.figures('nox -s detector')}\n{result.table()}", encoding="utf-8"
    )


def _show(console: Console, result: Result) -> None:
    console.print(result.figures("nox -s detector"), markup=False, highlight=False)
    for bar, kept in result.bars:
        console.print(f"{'kept' if kept else 'MISSED'}: {bar}", markup=False, highlight=False)
    for plant, mode, said in result.misses:
        console.print(
            f"missed: {plant.name} ({mode}), {plant.bug}: {said}", markup=False, highlight=False
        )
    for sweep, said in result.alarms:
        console.print(
            f"false alarm: {sweep.name} ({sweep.mode}): {said}", markup=False, highlight=False
        )
    for plant, mode, first in result.unnamed:
        console.print(
            f"not named by its first cause: {plant.name} ({mode}): {first}",
            markup=False,
            highlight=False,
        )
    for kind, what in result.differing:
        console.print(f"differs: {kind}: {what}", markup=False, highlight=False)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of sweeps; write 0 or more")
    return int(text)


def _modes(text: str) -> tuple[str, ...]:
    modes = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is no way to run a sweep; choose from {','.join(MODES)}"
        )
    return modes


if __name__ == "__main__":
    sys.exit(main())
