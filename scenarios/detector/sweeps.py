"""One sweep of the detector: measured through the plug-in in one of three ways, or by the runner,
and judged by the command.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError
from harness.judge import ExitCode
from harness.plugin.options import DEFAULT_HOST_LIMIT_BYTES, DEFAULT_REPEATS, DEFAULT_TIMEOUT_S
from harness.records import ROWS_FILE, RUN_FILE, Point
from harness.run.cards import usable_device
from harness.run.launchers import Launcher, open_launcher
from harness.run.runner import ChildSettings, Runner
from harness.rundir.manifest import end_run, start_run
from scenarios.catalog import points
from scenarios.detector.bugs.registry import Plant, planted
from scenarios.detector.observed import Seen, seen_in

MODES = ("serial", "workers", "resumed")
"""In one process; under pytest-xdist with two; killed half-way (SIGKILL) and resumed."""
_JUDGEABLE = (0, 1)
"""What pytest exits with when all tests passed, or some failed: a planted bug may end its run
another way than is expected."""
_VERDICTS = frozenset(ExitCode) - {ExitCode.USAGE}
_PRELOAD = "scipy.spatial"
"""As pyproject.toml has it for the zygotes of pytest (memory_preload)."""
_POLL_S = 0.02  # chosen: a child takes 0.5 s
_SESSION_S = 1800.0
"""Chosen: thirty times the longest sweep; one that hangs ends the detector, not the day."""


class DetectorError(HarnessError, RuntimeError):
    """A sweep that could not be measured or judged at all."""


@dataclass(frozen=True, slots=True)
class Detector:
    """Where the sweeps of one run of the detector go, and what they are judged with."""

    out: Path
    root: Path
    committed: Path | None = None
    """The folder of another baseline than the one of the start."""
    _own: threading.local = field(default_factory=threading.local)
    _opened: list[Launcher] = field(default_factory=list)

    @property
    def baselines(self) -> Path:
        """The folder of the baseline that was accepted at the start."""
        return self.committed or self.out / "baselines"

    def accept(self, chosen: str, workers: int) -> str:
        """Measure the points that ``chosen`` names, as they are, and make them the baseline; what
        the command said.
        """
        run = self.out / "accepted"
        self._pytest(
            [
                "-k",
                chosen,
                "-n",
                str(workers),
                "--repeats",
                "3",
                "--no-trace",
                "--memory-out",
                str(run),
            ]
        )
        done = self._python(
            "-m",
            "harness",
            "accept",
            str(run),
            "--reason",
            "clean",
            "--baselines",
            str(self.baselines),
        )
        if done.returncode != 0:
            raise DetectorError(f"the clean run {run} cannot become the baseline: {_last(done)}")
        return done.stdout.strip().splitlines()[-1]

    def sweep(self, plant: Plant | None, chosen: str, mode: str, name: str) -> Seen:
        """Measure through pytest what ``chosen`` names, with ``plant`` in it or nothing, and judge
        it.

        Raises DetectorError where pytest cannot measure, or the gate not judge.
        """
        run = self.out / "runs" / f"{name}-{mode}"
        options = ["-k", chosen, *(["--plant", plant.name] if plant else [])]
        fresh = [*options, "--no-trace", "--memory-out", str(run)]
        if mode == "resumed":
            self._break_off(fresh, run)
            self._pytest([*options, "--resume", str(run)])
        else:
            self._pytest([*fresh, *(["-n", "2"] if mode == "workers" else [])])
        return self.judge(run)

    def clean(self, chosen: str, name: str) -> Seen:
        """Measure what ``chosen`` names by a runner, as the plug-in does, and judge it."""
        return self.judge(self._measured(_chosen(chosen), name, DEFAULT_REPEATS))

    def planted(self, plant: Plant, name: str, repeats: int, left_out: Sequence[str] = ()) -> Seen:
        """The same with ``plant`` in the points that it is for; nothing is measured again, so that
        single runs decide.

        Points with a word of ``left_out`` in their names are not measured.
        """
        own = [
            planted(point, plant)
            for point in _chosen(plant.points)
            if not any(word in point.name for word in left_out)
        ]
        return self.judge(self._measured(own, name, repeats), again=())

    def _measured(self, own: Sequence[Point], name: str, repeats: int) -> Path:
        run = self.out / "runs" / name
        device = usable_device("auto", self.root)
        run.mkdir(parents=True, exist_ok=True)
        start_run(
            run,
            points=own,
            swept=points(),
            repeats=repeats,
            device=device,
            command=name,
            root=self.root,
            settings={
                "host_limit_bytes": DEFAULT_HOST_LIMIT_BYTES,
                "timeout_s": DEFAULT_TIMEOUT_S,
                "device": "auto",
                "isolation": "auto",
                "preload": [_PRELOAD],
                "traces": False,
            },
        )
        runner = Runner(
            run_directory=run,
            device=device,
            launcher=self._launcher(),
            children=ChildSettings(
                root=self.root,
                workspace=self.root / "artifacts" / "inputs",
                host_limit_bytes=DEFAULT_HOST_LIMIT_BYTES,
                timeout_s=DEFAULT_TIMEOUT_S,
            ),
        )
        try:
            for point in own:
                for repeat in range(repeats):
                    runner.measure(point, repeat)
        finally:
            runner.close()
        end_run(run)
        return run

    def judge(
        self, run: Path, *, again: tuple[str, ...] = ("--remeasure", "--workers", "1")
    ) -> Seen:
        """The gate's command, with the baseline of the start and a quorum; raises DetectorError
        where it could not judge.
        """
        done = self._python(
            "-m",
            "harness",
            "gate",
            str(run),
            "--partial",
            *again,
            "--baselines",
            str(self.baselines),
        )
        if done.returncode not in _VERDICTS:
            raise DetectorError(f"{run} cannot be judged: {_last(done)}")
        return seen_in(run, done.returncode)

    def close(self) -> None:
        """End what the clean sweeps were forked from."""
        while self._opened:
            self._opened.pop().close()

    def _launcher(self) -> Launcher:
        """One for each thread: a launcher runs one child at a time."""
        if not hasattr(self._own, "launcher"):
            self._own.launcher = open_launcher(
                "auto", environment=os.environ, folder=self.root, preload=[_PRELOAD]
            )
            self._opened.append(self._own.launcher)
        launcher: Launcher = self._own.launcher
        return launcher

    def _pytest(self, options: Sequence[str]) -> None:
        done = self._python("-m", "pytest", *_SESSION, *options)
        if done.returncode not in _JUDGEABLE:
            raise DetectorError(
                f"pytest {' '.join(options)} ended with {done.returncode}: {_last(done)}"
            )

    def _break_off(self, options: Sequence[str], run: Path) -> None:
        """Start the sweep, and kill its process group once half of its runs have ended."""
        log = self.out / "runs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as output:
            session = subprocess.Popen(
                [sys.executable, "-m", "pytest", *_SESSION, *options],
                cwd=self.root,
                env=_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while session.poll() is None and not _is_half_done(run):
                    time.sleep(_POLL_S)
            finally:
                is_running = session.poll() is None
                if is_running:
                    # not reaped yet, so that its id still names its group
                    os.killpg(session.pid, signal.SIGKILL)
                session.wait()
        if not is_running:
            raise DetectorError(
                f"the sweep {run} ended with {session.returncode} before it could be broken "
                f"off; see {log}"
            )

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SESSION_S,
        )


_SESSION = ("scenarios", "-q", "-p", "no:cacheprovider")


def _environment() -> dict[str, str]:
    # Of a pytest around this one, as in the tests of the detector.
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def _is_half_done(run: Path) -> bool:
    try:
        manifest = json.loads((run / RUN_FILE).read_bytes())
        ended = (run / ROWS_FILE).read_text(encoding="utf-8").count('"kind": "end"')
    except (OSError, ValueError):
        return False  # it has not begun
    return 2 * ended >= len(manifest["planned"]) * int(manifest["repeats"])


def _chosen(chosen: str) -> list[Point]:
    """The points whose names have all the words of ``chosen``, which are joined by "and"."""
    words = chosen.split(" and ")
    return [point for point in points() if all(word in point.name for word in words)]


def _last(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["nothing was said"]
    return said[-1]
