"""The command ``why``: run anybody's TensorFlow script, traced, and tell what was alive when the
device's memory ran out, or at its peak.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import shlex
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.commands import (
    byte_amount,
    device_budget,
    explain,
    folder,
    load_pages,
    to_stderr,
    to_stdout,
    write_outputs,
)
from harness.errors import UsageError
from harness.judged_run import Gate
from harness.measure.script import SCRIPT_PHASE, STREAMS_VARIABLE
from harness.measure.worker import SCRIPT_BODY
from harness.records import RUN_FILE, TRACED_REPEAT, Point
from harness.run.cards import usable_device
from harness.run.devices import Device
from harness.run.ends import ChildEnd
from harness.run.launchers import ChildOrder, SpawnLauncher
from harness.run.runner import METERS, ChildSettings, Runner
from harness.rundir.manifest import end_run, start_run
from harness.rundir.rows import RunEnd, RunRow, TraceWritten, rows_since, write_row
from harness.rundir.traces import ScriptNote, log_name, trace_rows_path
from harness.system.memory import host_memory_bytes
from harness.words import nearest_path

_LOOK_S = 0.05
"""How often the script's standard error is looked at. Chosen: nobody sees the delay."""
_INTERRUPTED = 130
"""What shells make of SIGINT: 128 and its number."""

EXIT_CODES: Mapping[int | str, str] = {
    0: "the script ended, and its peak on the device was told",
    1: "it ran out of the device's memory, or ended with an error of its own",
    2: "the script, an option or the folder cannot be used; nothing was run",
    3: "it ended, and no memory of the device was recorded; or the device cannot be used",
    "N": "what the script itself exits with, sys.exit(N); 128 + the signal where one ended it",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the help ends with an example and the exit codes."""
    explain(
        parser,
        "Run a TensorFlow script, recording every allocation, and tell what was alive when memory "
        "ran out, or at its peak. No test file is needed.",
        examples=("--device-budget 2GiB -- train.py --epochs 1",),
        exit_codes=EXIT_CODES,
    )
    parser.usage = "%(prog)s [options] -- SCRIPT [ARGUMENT ...]"
    parser.add_argument(
        "script",
        metavar="-- SCRIPT [ARGUMENT ...]",
        nargs=argparse.REMAINDER,
        help="a Python file, and what it is given; it runs here, as python SCRIPT does",
    )
    parser.add_argument(
        "--device-budget",
        metavar="SIZE",
        type=device_budget,
        help="how much of the device it may take, such as 2GiB (default: 3GiB on the emulated "
        "device; on a card, all that is free)",
    )
    parser.add_argument(
        "--host-budget",
        metavar="SIZE",
        type=byte_amount,
        help="end it where it and its processes hold more of the host's memory, beside the "
        "emulated device (default: when the machine's last memory is about to go)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu", "pretended"),
        default="auto",
        help="the device that it runs on (default: %(default)s: the card, or TensorFlow's own "
        "allocator with a limit, on the CPU)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=folder,
        help="keep the run directory, with its trace, in this new folder",
    )
    parser.add_argument("--page", action="store_true", help="with --out: also write report.html")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print what was found as JSON; what the script prints goes to standard error then",
    )


def run(options: argparse.Namespace) -> int:
    """Run the script, and tell what was alive; the exit code as the help says."""
    script, arguments = _script_of(options.script)
    if options.page and options.out is None:
        raise UsageError("--page was given without --out; name a folder to keep it in")
    if options.out is not None and (options.out / RUN_FILE).exists():
        raise UsageError(f"--out {options.out} holds a run already; name a new folder")
    device = usable_device(options.device, Path.cwd(), budget_bytes=options.device_budget)

    with _run_directory(options.out) as directory:
        try:
            found = examine(
                script,
                arguments,
                device=device,
                directory=directory,
                host_budget_bytes=options.host_budget,
                output=2 if options.json else 1,
            )
        except KeyboardInterrupt:
            to_stderr(f"{script} was stopped, and what it held is unknown")
            return _INTERRUPTED
        page = _write_page(directory) if options.page else None

    if options.json:
        to_stdout(json.dumps(found.to_json(), indent=1))
    else:
        for line in found.lines():
            to_stdout(line)
        if options.out is not None:
            to_stdout(f"kept in {page or options.out}")
    return int(found.exit_code)


def _script_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """The script and its arguments. Raises UsageError where it cannot be read."""
    script, *arguments = (words[1:] if words[:1] == ["--"] else words) or [""]
    if not script:
        raise UsageError("no script was named; write it after two dashes: why -- train.py")
    path = Path(script)
    if path.is_dir():
        raise UsageError(f"{script} is a folder; name the Python file in it that is to be run")
    if not path.exists():
        raise UsageError(f"there is no file {script} ({nearest_path(path)})")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"{script} cannot be read: {error.strerror}") from error
    return script, arguments


@contextlib.contextmanager
def _run_directory(out: Path | None) -> Iterator[Path]:
    """The folder that is to be kept, or one that is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="memory-why-") as place:
        yield Path(place) / "run"


def _write_page(directory: Path) -> Path | None:
    measured, _, judgement = Gate(directory=directory).judge()
    return write_outputs(measured, judgement, page=True)


# Running it: one child, traced, whose output is shown while it runs.


def examine(
    script: str,
    arguments: Sequence[str],
    *,
    device: Device,
    directory: Path,
    host_budget_bytes: int | None = None,
    output: int = 1,
) -> Any:  # noqa: ANN401 - a record of the pages
    """Run the script once in a child, recording every allocation, and read what was found.

    ``directory`` becomes a run directory of one point, ``output`` is the descriptor that the
    script's standard output goes to. Raises RunDirectoryError where the directory cannot be
    written, KeyboardInterrupt when it is stopped.
    """
    point = Point(
        scenario="why",
        body=SCRIPT_BODY,
        parameters={"script": script},
        fixed={"arguments": json.dumps(list(arguments))},
        inputs={"path": str(Path(script).resolve())},
        phases=(SCRIPT_PHASE,),
    )
    start_run(
        directory,
        points=[point],
        repeats=1,
        device=device,
        command=shlex.join(["python", "-m", "harness", *sys.argv[1:]]),
        root=Path.cwd(),
        # Nothing promises what a script may take: how it ends is judged, and nothing else.
        settings={"traces": True, "judged_by_pytest": True, "isolation": "spawn"},
    )
    sys.stdout.flush()
    with _streams(output) as streams:
        runner = _runner(device, directory, host_budget_bytes, streams)
        with contextlib.closing(runner):
            end = runner.measure(point, TRACED_REPEAT)
    _note_as_repeat(directory, end)
    end_run(directory)
    found: Any = load_pages("script").found_in(directory, point, end, device.for_manifest())
    return found


def _runner(
    device: Device, directory: Path, host_budget_bytes: int | None, streams: Sequence[int | None]
) -> Runner:
    kept = tuple(stream for stream in streams if stream is not None)
    named = ",".join("" if stream is None else str(stream) for stream in streams)
    return Runner(
        run_directory=directory,
        device=device,
        launcher=_ShownLauncher(kept),
        children=ChildSettings(
            root=Path.cwd(),
            workspace=directory,
            host_limit_bytes=host_budget_bytes or host_memory_bytes(),
            host_limit_option="--host-budget",
            timeout_s=math.inf,
            traced_meters=METERS,
            environment={**os.environ, STREAMS_VARIABLE: named},
        ),
    )


@contextlib.contextmanager
def _streams(output: int) -> Iterator[tuple[int | None, int | None]]:
    """Copies of our standard input, unless it is a terminal that another session cannot read, and
    of a descriptor for output; None for what is closed.
    """
    copies = [None if os.isatty(0) else _copy(0), _copy(output)]
    try:
        yield copies[0], copies[1]
    finally:
        for copy in copies:
            if copy is not None:
                os.close(copy)


def _copy(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:
        return None


class _ShownLauncher:
    """A fresh interpreter whose output is seen while it runs."""

    def __init__(self, inherited: tuple[int, ...]) -> None:
        self._spawn = SpawnLauncher()
        self._inherited = inherited
        self.name = self._spawn.name

    def run(self, order: ChildOrder) -> ChildEnd:
        """Run the child, and copy what the script adds to its log to standard error."""
        inherited = (*order.inherited, *self._inherited)
        with _followed(order.log, Path(order.job.workspace)):
            return self._spawn.run(dataclasses.replace(order, inherited=inherited))

    def close(self) -> None:
        """Nothing is kept."""


@contextlib.contextmanager
def _followed(log: Path, workspace: Path) -> Iterator[None]:
    """Copy what a script adds to the log to standard error, until the block ends; the whole log
    where the child never came to the script.
    """
    over = threading.Event()

    def follow() -> None:
        while (begun := ScriptNote.read(workspace)) is None:
            if over.wait(_LOOK_S):
                break
        ending = False
        with log.open("rb") as file:
            file.seek((begun or ScriptNote()).log_bytes)
            while True:
                if text := file.read():
                    sys.stderr.write(text.decode(errors="replace"))
                    sys.stderr.flush()
                elif ending:
                    return
                ending = over.wait(_LOOK_S)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def _note_as_repeat(directory: Path, end: RunEnd) -> None:
    """Put what was read beside the trace among the rows of the run as well, and the log under that
    name: the script ran once, and the page of the run shows what was read of it.
    """
    logs = directory / "logs"
    with contextlib.suppress(FileNotFoundError):  # where no child was started
        (logs / log_name(end.point, TRACED_REPEAT)).replace(logs / log_name(end.point, 0))
    for row in rows_since(trace_rows_path(directory, end.point), 0):
        if isinstance(row, RunRow) and not isinstance(row, TraceWritten):
            write_row(directory, dataclasses.replace(row, repeat=0))
    write_row(directory, dataclasses.replace(end, repeat=0))
