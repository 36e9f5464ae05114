"""Which two codes a session compares, and how their runs take turns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import RunDirectoryError, UsageError
from harness.plugin.options import as_typed
from harness.records import TRACED_REPEAT, Point, RunEnd
from harness.run.ends import ends_of
from harness.run.runner import Runner, void_run
from harness.run.sides import Side, Sides, checked_subjects, revision_side, working_tree
from harness.rundir.manifest import sides_of

if TYPE_CHECKING:
    from harness.rundir.resume import Resumption

NOW, THEN = "now", "then"


def settle_sides(config: pytest.Config, resume: Path | None) -> Sides | None:
    """The codes that the options ask to compare, unpacked; those of the run that is resumed. None
    where nothing is compared.

    Raises UsageError for a revision that there is not, and for a resumed run whose code is not what
    it was.
    """
    against, revision = config.getoption("memory_against"), config.getoption("memory_revision")
    if against is None:
        if revision is not None:
            raise UsageError(
                f"{as_typed(config, 'memory_revision')} {revision} needs a revision to be "
                "compared with; add "
                f"{as_typed(config, 'memory_revision').replace('revision', 'against')} REV"
            )
        return None
    subjects, root = checked_subjects(config.getini("memory_subject")), config.rootpath
    if resume is not None:
        return _resumed_sides(config, resume)
    now = (
        working_tree(root, subjects)
        if revision is None
        else revision_side(root, revision, subjects)
    )
    return Sides(now=now, then=revision_side(root, against, subjects))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Measures each run with the code of every side, one after the other, where two are
    compared.
    """

    runners: Mapping[str, Runner]
    """``now``, and ``then`` where there is one."""
    directories: Mapping[str, Path]
    """The run directory of each."""
    resumed: Mapping[str, "Resumption | None"]
    """What was there already of each."""

    def measure(self, point: Point, repeat: int, *, again: str = "") -> RunEnd | None:
        """Measure what is missing of one repeat of one point; with ``again``, the reason, also what
        is there.

        The end is that of ``now``; None of a traced run that was there already. Raises as the
        runners do.
        """
        ends = {
            side: self._measure(side, point, repeat, again)
            for side in order(repeat)
            if side in self.runners
        }
        return ends[NOW]

    def _measure(self, side: str, point: Point, repeat: int, again: str) -> RunEnd | None:
        there, directory, run = self.resumed[side], self.directories[side], (point.name, repeat)
        if again and repeat != TRACED_REPEAT:
            void_run(directory, *run, again)
        elif there is not None and run in there.measured:
            return next((end for end in ends_of(directory) if (end.point, end.repeat) == run), None)
        elif there is not None and run in there.void:
            void_run(directory, *run, "it was broken off, and the run was resumed")
        return self.runners[side].measure(point, repeat)


def order(repeat: int) -> tuple[str, ...]:
    """Whose turn it is: the two alternate, so that whatever drifts on the machine favours neither.
    Only ``now`` is traced.
    """
    if repeat == TRACED_REPEAT:
        return (NOW,)
    return (THEN, NOW) if repeat % 2 == 0 else (NOW, THEN)


def _resumed_sides(config: pytest.Config, resume: Path) -> Sides:
    """By commit: a branch may point elsewhere by now."""
    found = sides_of(resume)
    if "code" not in found or "against" not in found:
        raise RunDirectoryError(f"{resume} does not say which code was compared; start a new run")
    was = Sides(now=Side.from_json(found["code"]), then=Side.from_json(found["against"]))
    is_now = Sides(now=_again(config, was.now), then=_again(config, was.then))
    for before, here in ((was.now, is_now.now), (was.then, is_now.then)):
        if before != here:
            raise UsageError(
                f"{as_typed(config, 'memory_resume')} {resume}: "
                f"{before.asked or 'the working tree'} is not what it was when the run was "
                "started; bring the packages under test back to it, or start a new run"
            )
    return was


def _again(config: pytest.Config, side: Side) -> Side:
    subjects = checked_subjects(side.subjects)
    if not side.commit:
        return working_tree(config.rootpath, subjects)
    return revision_side(config.rootpath, side.commit, subjects, name=side.asked)
