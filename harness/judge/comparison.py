"""The earlier code of a comparison: a baseline made of what was measured beside the run, never
accepted and never stale.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low

from harness.errors import RunDirectoryError
from harness.judge.baseline import Baseline, BaselinePoint, recorded_points
from harness.judge.completeness import count_runs
from harness.judge.limits import Tolerance
from harness.judge.policy import Policy
from harness.judge.table import Run, load_run
from harness.meters import DEVICE_IN_USE, GATED_METERS, HOST_ANON
from harness.records import Outcome, Point
from harness.rundir.manifest import CodeSide

THEN_FOLDER = "then"
"""The run of the earlier code, in the run directory of the later (``harness.run.revisions``)."""
_REASON = "measured beside the run that is compared with it"
_BECAUSE = (
    "What two codes measured in one run on one machine may differ by where the policy has no "
    "[[tolerance]] of its own: "
)
DEFAULT_TOLERANCES = (
    Tolerance.model_validate(
        {
            "meter": DEVICE_IN_USE,
            "percent": 2,
            "floor": "64 KiB",
            "because": _BECAUSE
            + "phases of loaders repeat to the byte, and small chunks are rounded.",
        }
    ),
    Tolerance.model_validate(
        {
            "meter": HOST_ANON,
            "percent": 25,
            "floor": "4 MiB",
            "because": _BECAUSE
            + "runs of one point were seen to differ by less than 0.6 MiB, and threads have "
            "arenas of their own.",
        }
    ),
)
"""For a policy without any: what a user's own tests bring along are limits, not distances."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Against:
    """What a run is compared with."""

    name: str
    """``"main (abc1234)"``, as sentences call the earlier code."""
    now_name: str
    """What sentences call the code of the run itself: ``"the working tree"``."""
    run: Run | None
    """The run of the earlier code; None where it could not be read."""
    baseline: Baseline
    """What it took; the points that it lacks are in ``unmeasured``."""
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    """Why a point of it says nothing, by the name of the point."""
    then: CodeSide | None = None
    now: CodeSide | None = None
    """Which code was to be measured, where run.json says so."""
    problem: str = ""
    """Why it could not be read."""

    @property
    def words(self) -> str:
        """``"at main (abc1234)"``."""
        return f"at {self.name}" if self.then is not None else f"in {self.name}"

    @property
    def now_words(self) -> str:
        """``"in the working tree"``."""
        return (
            f"at {self.now_name}"
            if self.now is not None and self.now.commit
            else f"in {self.now_name}"
        )

    @property
    def sentence(self) -> str:
        """What was compared with what."""
        return f"{self.now_name} was compared with {self.name}"

    @property
    def left_empty(self) -> str:
        """Which submodules a side lacks, in a sentence of its own; empty where it lacks none."""
        lacking: dict[tuple[str, ...], list[str]] = {}
        for words, side in ((self.words, self.then), (self.now_words, self.now)):
            if side is not None and side.left_empty:
                lacking.setdefault(side.left_empty, []).append(words)
        return " ".join(_left_empty(paths, " and ".join(words)) for paths, words in lacking.items())

    @property
    def to_do(self) -> str:
        """What to type to see what changed."""
        if self.then is None or self.now is None or not self.then.commit:
            return "find what changed between the two runs"
        commits = [commit[:7] for commit in (self.then.commit, self.now.commit) if commit]
        return f"look at {shlex.join(['git', 'diff', *commits, '--', *self.then.subjects])}"


def load_against(run: Run, folder: Path | None) -> Against | None:
    """What the run is compared with: the run in ``folder``, else the one that was measured beside
    it; None for neither.

    A run that was to be compared and whose other half is gone is compared with nothing, and says
    so. Raises RunDirectoryError when a folder that the user named is no run directory.
    """
    then, now = run.manifest.against, run.manifest.code
    if folder is None and then is None:
        return None
    place = folder or run.path / THEN_FOLDER
    try:
        earlier = load_run(place)
    except RunDirectoryError as error:
        if folder is not None:
            raise
        return _unreadable(run, then, now, str(error))
    unmeasured = dict(_unmeasured(earlier))
    if folder is not None and earlier.manifest.code is not None:
        then = earlier.manifest.code
    return Against(
        name=_name(then, f"run {earlier.manifest.run_id}"),
        now_name=_name(now, f"run {run.manifest.run_id}"),
        run=earlier,
        baseline=Baseline(
            key=dict(run.manifest.comparability), point=_recorded(earlier, unmeasured)
        ),
        unmeasured=unmeasured,
        then=then,
        now=now,
    )


def with_tolerances(policy: Policy) -> Policy:
    """A policy that compares: with the default tolerances where it has none."""
    if policy.tolerance:
        return policy
    return policy.model_copy(update={"tolerance": DEFAULT_TOLERANCES}).called(policy.source)


def _left_empty(paths: Sequence[str], words: str) -> str:
    many = len(paths) > 1
    these = (
        f"submodules {', '.join(paths[:-1])} and {paths[-1]} are"
        if many
        else f"submodule {paths[0]} is"
    )
    return (
        f"The {these} empty {words}: git keeps the files of a submodule in a repository of "
        f"{'their' if many else 'its'} own."
    )


def _unreadable(run: Run, then: CodeSide | None, now: CodeSide | None, problem: str) -> Against:
    return Against(
        name=_name(then, "another run"),
        now_name=_name(now, f"run {run.manifest.run_id}"),
        run=None,
        baseline=Baseline(key=dict(run.manifest.comparability), point={}),
        then=then,
        now=now,
        problem=problem,
    )


def _name(side: CodeSide | None, otherwise: str) -> str:
    if side is None:
        return otherwise
    if not side.commit:
        return "the working tree"
    base = side.asked.removeprefix("merge-base:")
    asked = side.asked if base == side.asked else f"the merge base with {base}"
    return side.commit[:7] if side.commit.startswith(asked) else f"{asked} ({side.commit[:7]})"


def _unmeasured(run: Run) -> Iterator[tuple[str, str]]:
    """Points whose runs of the earlier code say nothing about its memory; the first reason of each.

    Whether every run has its rows is asked of them as of any other run; here it is how they ended
    that counts.
    """
    census = count_runs(run)
    for point in run.points:
        for repeat in run.repeats_of(point.name):
            end = census.ends.get((point.name, repeat))
            if end is None:
                yield point.name, "it has no end there: it was never started, or lost"
                break
            if end.outcome is not point.expected:
                yield point.name, f"it ended {end.outcome} there{_expectation(point)}: {end.reason}"
                break


def _expectation(point: Point) -> str:
    return "" if point.expected is Outcome.OK else f", where {point.expected} is expected"


def _recorded(run: Run, unmeasured: Mapping[str, str]) -> dict[str, BaselinePoint]:
    read = [row.reading.meter for row in run.rows if row.reading is not None]
    meters = tuple(dict.fromkeys([*GATED_METERS, *read]))
    date = run.manifest.started.partition("T")[0]
    # Measured again, one lucky run must not decide for the earlier code, any more than an unlucky
    # one for the later.
    found = recorded_points(run, reason=_REASON, accepted=date, meters=meters, settled=median_low)
    return {name: point for name, point in found.items() if name not in unmeasured}
