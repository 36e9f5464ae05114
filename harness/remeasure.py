"""``gate --remeasure``: announce further repeats of the points of findings, measure them, and seal
the run again.

Nothing that is there is lost by it, whatever happens meanwhile: rows are only added, a run without
an end is incomplete, and what was announced and is missing is measured by the next attempt.
"""

import contextlib
import ctypes
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.judge.advice import Commands
from harness.judge.manifest import Manifest, read_manifest
from harness.judge.remeasure import Offenders
from harness.records import Point, RunEnd
from harness.run.announcing import write_row
from harness.run.devices import Device, choose_device
from harness.run.packages import Code, read_subjects
from harness.run.runner import opened_runner, void_run
from harness.run.sides import revision_side, working_tree
from harness.rundir.manifest import end_run, note_remeasuring
from harness.rundir.resume import Resumption, check_same_here, read_resumption
from harness.rundir.seal import forget_judgement

Measure = Callable[[Point, int], RunEnd]
"""Measures one repeat of one point; what it read is on disk when it returns."""
OpenMeasure = Callable[[], contextlib.AbstractContextManager[Measure]]
"""Opens what one thread measures with; entered, used and left in that thread alone."""

_Waiting = queue.SimpleQueue[tuple[Point, int]]
_Ended = queue.SimpleQueue[RunEnd | BaseException | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One further run that has ended."""

    done: int
    """How many have, this one included."""
    total: int
    point: str
    repeat: int
    outcome: str


Show = Callable[[Step], None]
"""Told of each further run as it ends, in the thread that called."""


def was_broken_off(directory: Path) -> bool:
    """Whether the run has no end because it was broken off while it was measured again, not while
    it was measured first.
    """
    manifest = read_manifest(directory)
    return manifest.ended is None and bool(manifest.remeasured)


def remeasure(
    directory: Path,
    found: Offenders,
    *,
    command: str,
    show: Show,
    workers: int,
    open_measure: OpenMeasure | None = None,
) -> int:
    """Measure the points in ``found`` again, and what earlier announcements still lack; how many
    runs that were.

    Whoever calls holds the run directory (``hold_run_directory``). With nothing to measure the
    directory stays untouched, but for the end that an attempt before this one may have failed to
    note. ``open_measure`` is by default a runner with the settings of run.json.

    Raises UsageError where the run was never measured to its end, or where device, versions or code
    are not what they were when it was; DeviceUnavailable where there is no device;
    RunDirectoryError when the directory cannot be written. After an interruption
    (KeyboardInterrupt) the children have ended and the run has no end: call again to go on.
    """
    manifest, before = read_manifest(directory), read_resumption(directory)
    if not found.points and not _missing(before):
        if was_broken_off(directory):
            end_run(directory)  # it was stopped between its last row and its seal
        return 0
    if manifest.ended is None and not manifest.remeasured:
        raise UsageError(
            f"{directory} was not measured to its end, so nothing can be measured again "
            f"yet; go on with it first: {Commands.of(directory, manifest).resume()}"
        )
    root = root_of(manifest, directory)
    if open_measure is None:
        check_same_here(directory, device_of(manifest), root, what="be measured again")
        open_measure = runner_opener(directory, manifest, root)
    # it would speak for a run that has changed, should this one be killed
    forget_judgement(directory)
    note_remeasuring(
        directory, command=command, root=root, points=[one.point for one in found.points]
    )
    for one in found.points:
        write_row(directory, one.row())
    now = read_resumption(directory)
    points = {point.name: point for point in now.points}
    runs = [(points[name], repeat) for name, repeat in _missing(now)]
    for point, repeat in runs:
        if (point.name, repeat) in now.void:
            void_run(directory, point.name, repeat, "it was broken off, and measured again")
    _measure_all(runs, open_measure, max(1, min(workers, len(runs))), show)
    end_run(directory)
    return len(runs)


def root_of(manifest: Manifest, directory: Path) -> Path:
    """The folder that the children of a run worked in. Raises UsageError where it is not known, or
    gone.
    """
    if manifest.root is None or not Path(manifest.root).is_dir():
        where = (
            "is not recorded"
            if manifest.root is None
            else f"was {manifest.root}, which is not there"
        )
        raise UsageError(
            f"{directory} cannot be measured again here: the folder that it was measured in "
            f"{where}; judge it without --remeasure, or measure it anew"
        )
    return Path(manifest.root)


def device_of(manifest: Manifest) -> Device:
    """The device that the settings of a run mean here. Raises DeviceUnavailable or UsageError."""
    # Not what "auto" would mean now, but what it meant.
    pretended = manifest.settings.get("device") == "pretended"
    device = choose_device(
        "cpu" if manifest.device.kind == "emulated" else "pretended" if pretended else "gpu"
    )
    if manifest.settings.get("growth"):
        return device.with_growth()
    return device.with_budget((manifest.device.model_extra or {}).get("limit_bytes"))


def runner_opener(directory: Path, manifest: Manifest, root: Path) -> OpenMeasure:
    """What opens a runner with the settings that the run was started with; a launcher and a sampler
    for each thread.
    """
    settings: Mapping[str, Any] = manifest.settings
    device, code = device_of(manifest), _code_of(manifest, root)

    @contextlib.contextmanager
    def opened() -> Iterator[Measure]:
        with opened_runner(
            run_directory=directory,
            device=device,
            isolation=settings.get("isolation", "auto"),
            preload=settings.get("preload", ()),
            further_paths=[Path(folder) for folder in settings.get("pythonpath", ())],
            root=root,
            workspace=Path(settings.get("workspace", root / "artifacts" / "inputs")),
            code=code,
            host_limit_bytes=settings["host_limit_bytes"],
            timeout_s=settings["timeout_s"],
        ) as runner:
            yield runner.measure

    return opened


def _code_of(manifest: Manifest, root: Path) -> Code:
    """The code that a run measured, where it was one of two; a revision is unpacked again where its
    copy is not whole.

    Raises UsageError where the code is not what it was.
    """
    was = manifest.code
    if was is None:
        return Code()
    subjects = read_subjects(was.subjects)
    side = revision_side(root, was.commit, subjects) if was.commit else working_tree(root, subjects)
    if dict(side.content) != dict(was.content):
        raise UsageError(
            f"{was.asked or 'the working tree'} is not what it was when the run was "
            "measured; measure it anew"
        )
    return side.code


def _missing(resumption: Resumption) -> list[tuple[str, int]]:
    """Announced repeats that are not measured yet."""
    return [
        (point, repeat)
        for point, more in resumption.further.items()
        for repeat in resumption.repeats_of(point)[-more:]
        if resumption.lacks(point, repeat)
    ]


def _measure_all(
    runs: list[tuple[Point, int]], open_measure: OpenMeasure, workers: int, show: Show
) -> None:
    """Measure all of them, ``workers`` at a time; the first error of any ends the others, and is
    raised here.
    """
    waiting: _Waiting = queue.SimpleQueue()
    for run in runs:
        waiting.put(run)
    ended: _Ended = queue.SimpleQueue()
    team = [_Worker(waiting, ended, open_measure) for _ in range(workers)]
    for worker in team:
        worker.start()
    try:
        _hear(ended, len(runs), len(team), show)
    except BaseException:
        for worker in team:
            worker.interrupt()
        for worker in team:
            worker.join()
        raise


def _hear(ended: _Ended, total: int, working: int, show: Show) -> None:
    """Tell of every run that has ended, until all workers have."""
    done = 0
    while working:
        told = ended.get()
        if isinstance(told, BaseException):
            raise told
        if told is None:
            working -= 1
            continue
        done += 1
        show(
            Step(
                done=done,
                total=total,
                point=told.point,
                repeat=told.repeat,
                outcome=str(told.outcome),
            )
        )


class _Worker(threading.Thread):
    """Measures whatever is next, until nothing is; its last word is None, or what has ended it."""

    def __init__(self, waiting: _Waiting, ended: _Ended, open_measure: OpenMeasure) -> None:
        super().__init__(name="remeasure", daemon=True)
        self._waiting, self._ended, self._open_measure = waiting, ended, open_measure
        self._lock, self._is_over = threading.Lock(), False

    def run(self) -> None:
        """What the thread does."""
        # one that comes when its last word is said already
        with contextlib.suppress(KeyboardInterrupt):
            try:
                self._measure()
            finally:
                with self._lock:
                    self._is_over = True

    def interrupt(self) -> None:
        """End it as Ctrl-C ends a main thread: its child is ended with all that it has started, its
        launcher closed.

        Signals reach the main thread alone. A launcher looks at its child every 20 ms
        (``harness.run.waiting``), which is where the exception is raised; nothing that it could
        interrupt is written in more than one step.
        """
        with self._lock:
            if not self._is_over and self.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self.ident), ctypes.py_object(KeyboardInterrupt)
                )

    def _measure(self) -> None:
        try:
            with self._open_measure() as measure, contextlib.suppress(queue.Empty):
                while True:
                    self._ended.put(measure(*self._waiting.get_nowait()))
        except BaseException as error:  # noqa: BLE001 - whatever ends a thread is for the one that waits to raise
            self._ended.put(error)
        else:
            self._ended.put(None)
