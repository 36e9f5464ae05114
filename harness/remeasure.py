"""``gate --remeasure``: announce further repeats of the points of findings, measure them, and seal
the run again.

Nothing is lost, whatever happens meanwhile: rows are only added, a run without an end is
incomplete, and announced repeats that are missing are measured by the next attempt.
"""

import contextlib
import ctypes
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Self

from harness.errors import UsageError
from harness.judge import Check, Verdict
from harness.judge.advice import Commands
from harness.judge.policy import Policy
from harness.judge.table import Run
from harness.records import Point
from harness.run.cards import choose_device
from harness.run.devices import Device
from harness.run.revisions import Code, read_subjects, revision_side, working_tree
from harness.run.runner import ChildSettings, opened_runner
from harness.rundir.manifest import Manifest, end_run, note_remeasuring, read_manifest
from harness.rundir.reading import forget_judgement
from harness.rundir.resume import Resumption, check_same_here, read_resumption
from harness.rundir.rows import Remeasure, RunEnd, discard_run, write_row
from harness.words import count

# Which points are measured again: those of findings that may be noise, within a bound of time.


@dataclass(frozen=True, slots=True, kw_only=True)
class Offender:
    """A point to be measured again."""

    point: str
    repeats: int
    """How many further runs, numbered after those that there are."""
    reason: str
    """The sentence of its first finding, and how many more there are."""

    def row(self) -> Remeasure:
        """What announces it in rows.jsonl; without this row its further repeats are refused."""
        return Remeasure(point=self.point, repeats=self.repeats, reason=self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offenders:
    """What is measured again, and which findings stand as they are because that would have taken
    too long.
    """

    points: tuple[Offender, ...]
    left: tuple[Check, ...] = ()


def find_offenders(run: Run, policy: Policy, verdict: Verdict) -> Offenders:
    """The points of every finding that measuring again could settle, in the order of the run's
    points; none where the policy does not ask for it.

    - A point is measured again once. Whatever it shows then, a quorum has decided.
    - Of a finding all points are measured, or none: a line needs all of its sizes.
    - The points of the gravest finding always are. Those of further findings are as long as all
      together take no longer than the run itself has: more is hardly noise. A finding that is left
      stands as it is.
    """
    if policy.remeasure is None:
        return Offenders(points=())
    costs_s = _seconds_each(run)
    left_s = sum(end.duration_s for end in run.run_ends) + sum(
        t.duration_s for t in run.traces.values()
    )

    reasons: dict[str, list[str]] = {}
    left = []
    for check in verdict.findings:
        if not check.remeasure:
            continue
        new = [name for name in check.points if name not in reasons and not run.further.get(name)]
        needed_s = policy.remeasure.repeats * sum(costs_s.get(name, 0.0) for name in new)
        if needed_s > left_s and reasons:
            left.append(check)
            continue
        left_s -= needed_s
        for point in check.points:
            reasons.setdefault(point, []).append(check.sentence)

    again = [
        point.name
        for point in run.points
        if point.name in reasons and not run.further.get(point.name)
    ]
    found = tuple(
        Offender(point=name, repeats=policy.remeasure.repeats, reason=_reason(reasons[name]))
        for name in again
    )
    return Offenders(points=found, left=tuple(left))


def _seconds_each(run: Run) -> Mapping[str, float]:
    """How long one run of each point has taken, on the average of its repeats."""
    durations_s: dict[str, list[float]] = {}
    for end in run.run_ends:
        durations_s.setdefault(end.point, []).append(end.duration_s)
    return {name: mean(each_s) for name, each_s in durations_s.items()}


def _reason(sentences: list[str]) -> str:
    first, *others = sentences
    more = f" ({count(len(others), 'more finding')})" if others else ""
    return f"{first}{more}"


# Measuring them.


Measure = Callable[[Point, int], RunEnd]
"""Measures one repeat of one point; what it read is on disk when it returns."""
OpenMeasure = Callable[[], contextlib.AbstractContextManager[Measure]]
"""Opens what one thread measures with; entered, used and left in that thread alone."""

_Waiting = queue.SimpleQueue[tuple[Point, int]]
_Ended = queue.SimpleQueue[RunEnd | BaseException | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemeasuredRun:
    """One further run that has ended."""

    done: int
    """How many have, this one included."""
    total: int
    point: str
    repeat: int
    outcome: str

    @classmethod
    def of(cls, end: RunEnd, done: int, total: int) -> Self:
        """That run, ``done`` of ``total``."""
        return cls(
            done=done,
            total=total,
            point=end.point,
            repeat=end.repeat,
            outcome=str(end.outcome),
        )


OnRun = Callable[[RemeasuredRun], None]
"""Called with each further run that has ended, in the thread that called ``remeasure``."""


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
    workers: int,
    on_run: OnRun | None = None,
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

    # the judgement goes first: it would be one of a run that has changed, should this be killed
    forget_judgement(directory)
    note_remeasuring(
        directory, command=command, root=root, points=[one.point for one in found.points]
    )
    for one in found.points:
        write_row(directory, one.row())

    announced = read_resumption(directory)
    points = {point.name: point for point in announced.points}
    runs = [(points[name], repeat) for name, repeat in _missing(announced)]
    for point, repeat in runs:
        if (point.name, repeat) in announced.void:
            discard_run(directory, point.name, repeat, "it was broken off, and measured again")
    _measure_all(runs, open_measure, max(1, min(workers, len(runs))), on_run)
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
    return device.with_budget(manifest.device.limit_bytes)


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
            children=ChildSettings(
                further_paths=tuple([Path(folder) for folder in settings.get("pythonpath", ())]),
                root=root,
                workspace=Path(settings.get("workspace", root / "artifacts" / "inputs")),
                code=code,
                host_limit_bytes=settings["host_limit_bytes"],
                timeout_s=settings["timeout_s"],
            ),
            isolation=settings.get("isolation", "auto"),
            preload=settings.get("preload", ()),
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
    runs: list[tuple[Point, int]], open_measure: OpenMeasure, workers: int, on_run: OnRun | None
) -> None:
    """Measure all of them, ``workers`` at a time. The first error of any ends the others, and is
    raised here.
    """
    waiting: _Waiting = queue.SimpleQueue()
    for run in runs:
        waiting.put(run)
    ended: _Ended = queue.SimpleQueue()
    threads = [_Worker(waiting, ended, open_measure) for _ in range(workers)]
    for worker in threads:
        worker.start()

    try:
        for done, end in enumerate(_ends(ended, workers), start=1):
            if on_run is not None:
                on_run(RemeasuredRun.of(end, done, len(runs)))
    except BaseException:
        for worker in threads:
            worker.interrupt()
        for worker in threads:
            worker.join()
        raise


def _ends(ended: _Ended, working: int) -> Iterator[RunEnd]:
    """Every run that ends, until all workers have. Raises what has ended one of them."""
    while working:
        last = ended.get()
        if isinstance(last, BaseException):
            raise last
        if last is None:
            working -= 1
        else:
            yield last


class _Worker(threading.Thread):
    """Measures run after run, until none is left; the last thing it puts is None, or what has ended
    it.
    """

    def __init__(self, waiting: _Waiting, ended: _Ended, open_measure: OpenMeasure) -> None:
        super().__init__(name="remeasure", daemon=True)
        self._waiting, self._ended, self._open_measure = waiting, ended, open_measure
        self._lock, self._is_over = threading.Lock(), False

    def run(self) -> None:
        """What the thread does."""
        # an interruption that comes after the last run
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
        (``harness.system.memory``), which is where the exception is raised; nothing that it could
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
        except BaseException as error:  # noqa: BLE001 - raised by the one that waits
            self._ended.put(error)
        else:
            self._ended.put(None)
