"""Make a run the earlier truth: only one that keeps the policy's limits, and without losing what
was accepted before.
"""

import difflib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from harness.commands.history import (
    NO_HISTORY,
    AmountPlace,
    History,
    amounts_of,
    drift,
    read_history,
)
from harness.errors import BaselineError
from harness.judge.acceptance import broken_limits, gated_meters, unsteady
from harness.judge.advice import ends_with_command
from harness.judge.baseline import (
    Baseline,
    BaselinePoint,
    Held,
    budget_setting,
    from_run,
    key_in_words,
)
from harness.judge.baseline_file import VERSION, file_name, find, write
from harness.judge.gate import acceptable, judge
from harness.judge.policy import Policy
from harness.judge.table import Run
from harness.units import format_bytes

# What accepting a run changes, line by line, and how each amount has moved over its acceptances
# before.


def diff(old: Baseline | None, new: Baseline, history: History = NO_HISTORY) -> Iterator[str]:
    """What accepting ``new`` changes, one line for each amount: ``point / phase / meter growth: old
    -> new``.

    Where ``history`` knows earlier acceptances, the line ends with the whole way: ``(4.00 -> 4.10
    -> 4.30 MiB over ...)``.
    """
    before = {} if old is None else old.point
    for name in dict.fromkeys([*before, *new.point]):
        if name not in before:
            yield f"{name}: none -> {_count(new.point[name])}"
        elif name not in new.point:
            yield f"{name}: {_count(before[name])} -> none"
        else:
            yield from (
                f"{name}{line}"
                for line in _diff_point(name, before[name], new.point[name], history)
            )


def _diff_point(
    name: str, old: BaselinePoint, new: BaselinePoint, history: History
) -> Iterator[str]:
    then = {**old.fixed, **budget_setting(old.device_budget_bytes)}
    now = {**new.fixed, **budget_setting(new.device_budget_bytes)}
    for setting in dict.fromkeys([*then, *now]):
        if then.get(setting) != now.get(setting):
            yield f" / {setting}: {then.get(setting, 'none')} -> {now.get(setting, 'none')}"
    before, after = amounts_of(old), amounts_of(new)
    for place in dict.fromkeys([*before, *after]):
        if before.get(place) != after.get(place):
            phase, meter, field = place
            way = _way(name, place, new, history)
            yield (
                f" / {phase} / {meter} {field}: {_amount(before.get(place))} -> "
                f"{_amount(after.get(place))}{way}"
            )


def _way(name: str, place: AmountPlace, new: BaselinePoint, history: History) -> str:
    """The drift over more than the two acceptances that the line shows anyway."""
    accepted = [*history.of(name), new]
    return f" ({drift(accepted, place)})" if len(accepted) > 2 else ""


def _amount(amount: int | None) -> str:
    return "none" if amount is None else f"{format_bytes(amount)} ({amount:,} B)"


def _count(point: BaselinePoint) -> str:
    lines = sum(len(meters) for meters in point.phase.values())
    return f"{lines} phases and meters"


Others = Literal["refuse", "keep", "forget"]
"""What becomes of accepted points that the run did not measure."""


def accept(
    run: Run,
    policy: Policy,
    folder: Path,
    *,
    reason: str,
    others: Others = "refuse",
    only: str | None = None,
) -> tuple[str, ...]:
    """Make a run the baseline for its key; the lines to show: what changed, old -> new, and the
    file.

    With ``only``, a pattern such as ``"loading-lazy-*"``, just the points whose names match it are
    taken, and all others stay as they were accepted before; the run has to be complete all the
    same. A point that is the same as before keeps its block, with its earlier evidence.

    Raises BaselineError for an empty reason, a run that is incomplete, did not end as planned,
    breaks a limit of the policy or whose repeats differ by more than its tolerance, for accepted
    points that would be lost unasked, and for a pattern that no point matches. Raises
    RunDirectoryError when the file cannot be written.
    """
    policy = acceptable(policy, run.manifest)
    earlier = find(folder, run.manifest.comparability)
    fresh = from_run(
        run,
        reason=reason,
        accepted=datetime.now(UTC).date().isoformat(),
        meters=gated_meters(policy),
    )
    chosen = {
        name: point
        for name, point in fresh.point.items()
        if only is None or fnmatchcase(name, only)
    }
    if not chosen:
        raise BaselineError(_no_match(str(only), list(fresh.point)))
    _refuse_broken_limits(run, policy, folder, chosen)
    _refuse(
        f"{run.path} cannot become a baseline",
        [obstacle.sentence for obstacle in unsteady(chosen, run, policy)],
    )
    before = {} if earlier is None else earlier.point
    absent = {name: point for name, point in before.items() if name not in chosen}
    if absent and only is None and others == "refuse":
        raise BaselineError(
            f"{run.path} did not measure {len(absent)} of {len(absent) + len(chosen)} "
            f"points that the baseline holds, such as {next(iter(absent))}; measure them "
            "all, or say --keep-others or --forget-others"
        )
    kept = absent if only is not None or others == "keep" else {}
    points = {**kept, **{name: _unless_same(before.get(name), chosen[name]) for name in chosen}}
    merged = fresh.model_copy(
        update={"point": points, "also": {} if earlier is None else earlier.also}
    )
    history = (
        NO_HISTORY
        if earlier is None
        else read_history(folder / file_name(run.manifest.comparability))
    )
    return (*_lines(earlier, merged, history), f"baseline: {write(merged, folder)}")


def accept_as_same(
    run: Run, policy: Policy, folder: Path, *, as_version: str, reason: str
) -> tuple[str, ...]:
    """Note in the baseline of TensorFlow ``as_version`` that it holds for the run's version too;
    the lines to show.

    No amount changes. Raises BaselineError for an empty reason, where there is no such baseline,
    where the run's version has one of its own, and for a run that the gate does not pass when it is
    held against that baseline.
    """
    policy = acceptable(policy, run.manifest)
    key = run.manifest.comparability
    version = str(key.get(VERSION))
    if not reason.strip():
        raise BaselineError("a baseline needs a reason: say why these numbers are right")
    if find(folder, key) is not None:
        own = folder / file_name(key)
        raise BaselineError(
            f"TensorFlow {version} has a baseline of its own, {own}; delete that first, or "
            "leave out --same-as"
        )
    baseline = find(folder, {**key, VERSION: as_version})
    if baseline is None:
        wanted = key_in_words({**key, VERSION: as_version})
        raise BaselineError(
            f"{folder} has no baseline for {wanted}; accept a run of TensorFlow {as_version} first"
        )
    shared = baseline.model_copy(
        update={"also": {**baseline.also, version: _evidence(run, reason)}}
    )
    with TemporaryDirectory() as scratch:
        write(shared, Path(scratch))
        findings = judge(run, policy, Path(scratch)).verdict.findings
    _refuse(
        f"the baseline of TensorFlow {as_version} does not hold for {version} (leave out "
        "--same-as for one of its own)",
        [check.sentence for check in findings],
    )
    return (
        f"TensorFlow {version}: within every tolerance of what {as_version} takes",
        f"baseline: {write(shared, folder)}",
    )


def _evidence(run: Run, reason: str) -> Held:
    environment = run.manifest.environment
    return Held(
        date=datetime.now(UTC).date().isoformat(),
        run=run.manifest.run_id,
        commit=str(environment.get("git_commit", "unavailable: not recorded")),
        changed=str(environment.get("git_dirty", "unavailable: not recorded")).lower(),
        reason=reason.strip(),
    )


def _unless_same(before: BaselinePoint | None, now: BaselinePoint) -> BaselinePoint:
    return before if before is not None and before.is_judged_like(now) else now


def _lines(earlier: Baseline | None, merged: Baseline, history: History) -> Iterator[str]:
    changes = tuple(diff(earlier, merged, history))
    yield from changes or ("nothing changed",)
    if changes and history.note:
        yield f"history: {history.note}"


def _no_match(pattern: str, names: list[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.3)
    hint = f", such as {near[0]}" if near else ""
    return (
        f"--only {pattern}: none of the {len(names)} points of the run has such a name; write a "
        f"name or a pattern with *{hint}"
    )


def _refuse_broken_limits(run: Run, policy: Policy, folder: Path, chosen: Collection[str]) -> None:
    obstacles = broken_limits(judge(run, policy, folder, partial=True).verdict.findings, chosen)
    advice = "Fix it, or change the limit in the policy with its reason"
    _refuse(
        f"{run.path} cannot become a baseline",
        [_with(advice, obstacle.sentence) for obstacle in obstacles],
    )


def _with(advice: str, sentence: str) -> str:
    return sentence if ends_with_command(sentence) else f"{sentence} {advice}"


def _refuse(what: str, reasons: Sequence[str]) -> None:
    if reasons:
        more = f" ({len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise BaselineError(f"{what}: {reasons[0]}{more}")
