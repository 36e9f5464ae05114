"""Make a run the earlier truth: only one that keeps the policy's limits, and without losing what was accepted before."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from harness.errors import BaselineError
from harness.judge.baseline import Baseline, diff, find, from_run, write
from harness.judge.gate import judge
from harness.judge.policy import Policy
from harness.judge.table import Run
from harness.judge.verdict import FindingKind
from harness.units import format_bytes

Others = Literal["refuse", "keep", "forget"]
"""What becomes of accepted points that the run did not measure."""


def accept(run: Run, policy: Policy, folder: Path, *, reason: str, others: Others = "refuse") -> tuple[str, ...]:
    """Make a run the baseline for its key; the lines to show: what changed, old -> new, and the file.

    Raises BaselineError for an empty reason, a run that is incomplete, did not end as planned, breaks a limit of the
    policy or whose repeats differ by more than its tolerance, and for accepted points that would be lost unasked.
    Raises RunDirectoryError when the file cannot be written.
    """
    earlier = find(folder, run.manifest.comparability)
    fresh = from_run(run, reason=reason, accepted=datetime.now(UTC).date().isoformat())
    _refuse(f"{run.path} cannot become a baseline", [*_broken_limits(run, policy, folder), *_unsteady(fresh, run, policy)])
    absent = {} if earlier is None else {name: point for name, point in earlier.point.items() if name not in fresh.point}
    if absent and others == "refuse":
        raise BaselineError(
            f"{run.path} did not measure {len(absent)} of {len(absent) + len(fresh.point)} points that the baseline holds, "
            f"such as {next(iter(absent))}; measure them all, or say --keep-others or --forget-others"
        )
    kept = absent if others == "keep" else {}
    merged = fresh.model_copy(update={"point": {**kept, **fresh.point}})
    changes = tuple(diff(earlier, merged))
    return (*(changes or ("nothing changed",)), f"baseline: {write(merged, folder)}")


def _refuse(what: str, reasons: list[str]) -> None:
    if reasons:
        more = f" ({len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise BaselineError(f"{what}: {reasons[0]}{more}")


def _broken_limits(run: Run, policy: Policy, folder: Path) -> Iterator[str]:
    """What the policy itself forbids; distance from the earlier baseline is what accepting is about."""
    for check in judge(run, policy, folder, partial=True).verdict.findings:
        if check.finding is FindingKind.REGRESSION and check.rule != "baseline":
            yield f"{check.sentence} Mend it, or change the limit in the policy with its reason"


def _unsteady(fresh: Baseline, run: Run, policy: Policy) -> Iterator[str]:
    """A baseline of repeats that differ by more than the tolerance would be a matter of luck."""
    scenarios = {point.name: point.scenario for point in run.points}
    for name, point in fresh.point.items():
        for phase, meters in point.phase.items():
            tolerances = {tolerance.meter: tolerance for tolerance in policy.tolerances(scenarios[name], phase)}
            for meter, recorded in meters.items():
                if meter not in tolerances:
                    continue
                allowed_bytes = max(recorded.growth_bytes * tolerances[meter].percent / 100, tolerances[meter].floor)
                if recorded.growth_spread_bytes > allowed_bytes:
                    yield (
                        f"{name} / {phase} / {meter}: its repeats differ by {format_bytes(recorded.growth_spread_bytes)}, "
                        f"tolerance {format_bytes(allowed_bytes)}; measure again on a quieter machine"
                    )
