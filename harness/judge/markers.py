"""What tests promise by their markers has limits and no tolerances: where their runs are compared
with baselines all the same.
"""

from collections.abc import Iterator
from pathlib import Path

from harness.errors import BaselineError
from harness.judge.baseline import Baseline, read
from harness.judge.comparison import with_tolerances
from harness.judge.manifest import Manifest
from harness.judge.policy import DEFAULT_POLICY, RUNS_OWN, Policy
from harness.judge.table import Run


def comparing(run: Run, policy: Policy, folder: Path, *, named: bool) -> Policy:
    """The policy to hold a run against baselines by: of tests with the default tolerances, where
    there are baselines of theirs.

    A project that has accepted none is compared with nothing, unless ``named``: somebody has typed
    the folder. Baselines for another device or TensorFlow count too, as nobody would notice that
    nothing is compared any more.
    """
    if is_of_tests(policy, run.manifest) and (
        named or any(_is_of_run(baseline, run) for baseline in _readable(folder))
    ):
        return with_tolerances(policy)
    return policy


def acceptable(policy: Policy, manifest: Manifest) -> Policy:
    """The policy to accept a run by: the one that the next run will be compared by."""
    return with_tolerances(policy) if is_of_tests(policy, manifest) else policy


def is_of_tests(policy: Policy, manifest: Manifest) -> bool:
    """Whether it is what tests have brought along: their markers' limits, or nothing where they
    assert for themselves.
    """
    return policy.source == RUNS_OWN or (
        not policy.promises and bool(manifest.settings.get("judged_by_pytest", False))
    )


def _is_of_run(baseline: Baseline, run: Run) -> bool:
    """A project with a policy has sweeps, whose baselines are none of a test's; without one all are
    of its tests.
    """
    return not DEFAULT_POLICY.exists() or any(point.name in baseline.point for point in run.points)


def _readable(folder: Path) -> Iterator[Baseline]:
    for path in sorted(folder.glob("*.toml")):
        try:
            yield read(path)
        except BaselineError:
            continue  # it cannot be compared with; whoever needs it is told when it is read
