"""Run the benchmarks and hold them against the bars: exit code 0 when all hold, 1 when one does not
or is not resolved, 2 for a bad option.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from harness.errors import HarnessError
from scenarios.benchmarks import measured
from scenarios.benchmarks.bars import Figure, Row, Verdict, judge
from scenarios.benchmarks.isolation import isolation
from scenarios.benchmarks.overhead import overhead
from scenarios.benchmarks.sampling import brackets, detection
from scenarios.benchmarks.spread import CONFIDENCE, Spread
from scenarios.bodies.scans import prepare, scan_path

SIEMENS_STAR = Path("../shared/data/siemens_star/siemens_star_contract.npz")
WARM_SCAN = {"stack_size": 4096, "frame_size": 64}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
_UNITS = ("batches/s", "ms and faults", "1/1000")
"""What a table shows, where its title ends so; else groups a second."""
STEPS = (
    "feeds",
    "peaks",
    "first_batch",
    "opening",
    "cold",
    "study",
    "slopes",
    "misfits",
    "overhead",
    "isolation",
    "sampling",
)


class Benchmarks:
    """Figures, tables and reasons, step by step."""

    def __init__(self, workspace: Path, out: Path, repeats: int, siemens_star: Path) -> None:
        self.workspace, self.out, self.repeats, self.siemens_star = (
            workspace,
            out,
            repeats,
            siemens_star,
        )
        self.figures: dict[str, Figure] = {}
        self.tables: dict[str, dict[str, float]] = {}
        self.notes: list[str] = []
        self.reasons: dict[str, str] = {}

    def feeds(self) -> None:
        """Warm feeds beside each other, on the emulated device."""
        found = self._child(
            "feeds", "--scan", self._warm_scan(), "--cache-dir", self.workspace, limit_mib=3072
        )
        self.figures |= found["figures"]
        self.tables |= found["tables"]

    def peaks(self) -> None:
        """Device peaks of an epoch."""
        self.figures |= self._child(
            "small",
            "peaks",
            "--scan",
            self._warm_scan(),
            "--cache-dir",
            self.workspace,
            limit_mib=512,
        )

    def first_batch(self) -> None:
        """Time to the first batch at ten times the images."""
        self.figures |= self._child(
            "small", "first_batch", "--scan", self._warm_scan(), "--cache-dir", self.workspace
        )

    def opening(self) -> None:
        """The large file, opened again and again in fresh processes."""
        self.figures["second_opening"] = median(
            self._large("opening")["milliseconds"] for _ in range(self.repeats)
        )

    def cold(self) -> None:
        """Cold epochs in turns: in scan order, shuffled, shuffled by chunks."""
        seconds: dict[str, list[float]] = {"none": [], "all": [], "chunks": []}
        groups = 1.0
        for _ in range(self.repeats):
            for shuffle, times in seconds.items():
                found = self._large("cold", "--shuffle", shuffle)
                times.append(found["seconds"])
                groups = found["groups"]
        for shuffle, figure in (("all", "cold_shuffle"), ("chunks", "cold_chunks")):
            self.figures[figure] = median(
                scan / other for scan, other in zip(seconds["none"], seconds[shuffle], strict=True)
            )
        names = {"none": "scan order", "all": "shuffled", "chunks": "shuffled by chunks"}
        self.tables["cold, batch 16 of N = 128"] = {
            names[key]: groups / median(times) for key, times in seconds.items()
        }

    def study(self) -> None:
        """The dense study: memory by the harness, speed beside the gather."""
        figures, ends = measured.study(self.out / "study", self._large_scan)
        self.figures |= figures
        self.notes += [f"dense study, {end}" for end in ends]
        speed = self._large("study", limit_mib=16)
        self.figures["study_feed"] = speed.pop("ratio")
        self.tables["dense study, batch 16 of N = 128, 16 MiB"] = speed

    def slopes(self) -> None:
        """Memory for each image and each frame."""
        self.figures |= measured.slopes(self.out / "slopes", self.workspace)

    def misfits(self) -> None:
        """The measured scan against the forward model."""
        if not self.siemens_star.exists():
            reason = f"the measured scan is not at {self.siemens_star}; name it with --siemens-star"
            self.reasons |= {"misfit": reason, "misfit_swapped": reason}
            return
        self.figures |= self._child(
            "small", "misfits", "--scan", self.siemens_star, "--cache-dir", self.workspace
        )

    def overhead(self) -> None:
        """The scenario loading with the harness and without it, in pairs."""
        figures, tables = overhead(self.out / "overhead", self.workspace, 2 * self.repeats + 1)
        self.figures |= figures
        self.tables |= tables

    def isolation(self) -> None:
        """What a child costs, forked and fresh."""
        self.figures |= isolation(self.out / "isolation", 2 * self.repeats)

    def sampling(self) -> None:
        """Spikes that the sampler sees, and its share of a core."""
        with tempfile.TemporaryDirectory(prefix="memory-sampling-") as folder:
            self.figures |= detection(Path(folder), max(1, self.repeats // 3))
        self.figures |= brackets(self.repeats)

    @functools.cached_property
    def _large_scan(self) -> Path:
        """The workspace, once the large file is in it and its energies are kept."""
        self._child("large", "make", "--workspace", self.workspace)
        return self.workspace

    def _warm_scan(self) -> Path:
        prepare(self.workspace, WARM_SCAN)
        return scan_path(self.workspace, WARM_SCAN)

    def _large(self, what: str, *arguments: str, limit_mib: int = 64) -> dict[str, Any]:
        found: dict[str, Any] = self._child(
            "large", what, "--workspace", self._large_scan, *arguments, limit_mib=limit_mib
        )
        return found

    def _child(self, module: str, *arguments: object, limit_mib: int | None = None) -> Any:  # noqa: ANN401 - what it printed
        """What a module of ours printed last, as JSON; ``limit_mib`` puts it on TensorFlow's BFC
        allocator of that size.
        """
        device = (
            {}
            if limit_mib is None
            else {"TF_CPU_ALLOCATOR_USE_BFC": "true", "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(limit_mib)}
        )
        repeats = (
            []
            if module == "large" and "study" not in arguments
            else ["--repeats", str(self.repeats)]
        )
        command = [
            sys.executable,
            "-m",
            f"scenarios.benchmarks.{module}",
            *map(str, arguments),
            *repeats,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, **QUIET, **device},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = [
                line
                for line in done.stderr.strip().splitlines()
                if not line.startswith(("I0000", "WARNING"))
            ]
            last = (said or ["no reason was given"])[-1]
            raise RuntimeError(f"{module} ended with code {done.returncode}: {last[:300]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    """Run the chosen steps, print and keep the table."""
    options = _options()
    console = Console(stderr=True)
    options.workspace.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    benchmarks = Benchmarks(options.workspace, options.out, options.repeats, options.siemens_star)
    steps = [step for step in STEPS if not options.only or step in options.only]
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for number, step in enumerate(steps, 1):
            run: Callable[[], None] = getattr(benchmarks, step)
            task = progress.add_task(f"{number} of {len(steps)}: {run.__doc__}")
            try:
                run()
            except (RuntimeError, OSError, ImportError, HarnessError) as error:
                benchmarks.notes.append(f"{step} could not be measured: {error}")
            progress.remove_task(task)
    rows = judge(benchmarks.figures, benchmarks.reasons)
    if options.only:
        rows = [row for row in rows if row.figure is not None]
    _show(Console(width=None if sys.stdout.isatty() else 140), rows, benchmarks)
    _keep(options.out, rows, benchmarks)
    return 0 if rows and all(row.holds for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.benchmarks",
        description="The feeds beside their alternatives, and the promises they have to keep.",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=STEPS,
        metavar="STEP",
        help=f"some of the steps: {', '.join(STEPS)}",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=7,
        help="rounds of each race, after one to warm up (default: %(default)s)",
    )
    parser.add_argument(
        "--workspace",
        type=Path,
        default=Path("artifacts/inputs"),
        help="where the scans are made and kept, 6 GB in all (default: %(default)s)",
    )
    parser.add_argument(
        "--siemens-star",
        type=Path,
        default=SIEMENS_STAR,
        help="the measured scan (default: %(default)s)",
    )
    out = Path(f"artifacts/benchmarks-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    parser.add_argument(
        "--out",
        type=Path,
        default=out,
        help="where the results go (default: artifacts/benchmarks-TIME)",
    )
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; at least 1 is needed")
    return options


def _show(console: Console, rows: list[Row], benchmarks: Benchmarks) -> None:
    table = Table(
        "figure",
        "measured",
        "bar",
        "",
        title=f"bars; in brackets the interval of a median, {CONFIDENCE:.0%}",
    )
    for row in rows:
        bar = row.bar
        value = "-" if row.figure is None else f"{_in_words(row.figure)} {bar.unit}".strip()
        verdict = str(row.verdict)
        if row.verdict is Verdict.NOT_MEASURED:
            verdict = f"{verdict}: {row.reason}"
        table.add_row(bar.what, value, f"{bar.kind} {bar.limit:g} {bar.unit}".strip(), verdict)
    console.print(table)
    for title, speeds in benchmarks.tables.items():
        unit = next((unit for unit in _UNITS if title.endswith(unit)), "groups/s")
        speed_table = Table("", unit, title=f"{title}, medians")
        for name, speed in speeds.items():
            speed_table.add_row(name, f"{speed:,.0f}")
        console.print(speed_table)
    for note in benchmarks.notes:
        console.print(note, markup=False)


def _in_words(figure: Figure) -> str:
    return f"{figure:.4g}" if isinstance(figure, float | int) else str(figure)


def _keep(out: Path, rows: list[Row], benchmarks: Benchmarks) -> None:
    result = {
        "figures": benchmarks.figures,
        "tables": benchmarks.tables,
        "notes": benchmarks.notes,
        "missed": [row.bar.figure for row in rows if row.verdict is Verdict.MISSED],
        "not_resolved": [row.bar.figure for row in rows if row.verdict is Verdict.NOT_RESOLVED],
        "not_measured": [row.bar.figure for row in rows if row.verdict is Verdict.NOT_MEASURED],
    }
    text = json.dumps(result, default=Spread.to_json, indent=2) + "\n"
    (out / "benchmarks.json").write_text(text, encoding="utf-8")
    print(f"kept as {out / 'benchmarks.json'}")


if __name__ == "__main__":
    sys.exit(main())
