"""The command ``accept``: make a run the baseline; only one that keeps the policy's limits, and
without losing what was accepted before.
"""

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from harness.commands import add_run, explain, to_stderr, to_stdout
from harness.commands.history import drift
from harness.errors import BaselineError
from harness.judge import ExitCode
from harness.judge.advice import DEFAULT_BASELINES, ends_with_command
from harness.judge.baseline import (
    Baseline,
    BaselinePoint,
    Held,
    budget_setting,
    from_run,
    key_in_words,
)
from harness.judge.baseline_file import (
    NO_HISTORY,
    VERSION,
    AmountPlace,
    History,
    amounts_of,
    broken_limits,
    file_name,
    find,
    gated_meters,
    read_history,
    unsteady,
    write,
)
from harness.judge.gate import acceptable, judge
from harness.judge.policy import Policy, choose_policy
from harness.judge.table import Run, load_run
from harness.words import closest, format_bytes

Others = Literal["refuse", "keep", "forget"]
"""What becomes of accepted points that the run did not measure."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    explain(
        parser,
        "Make a complete run the baseline that later runs are compared with, and print old -> new "
        "for every amount that moved. A run that breaks the policy's limits is refused.",
        examples=(
            'RUN --reason "the first truth"',
            "RUN --only 'arrays-*' --reason \"a smaller index\"",
        ),
        exit_codes={
            0: "accepted: the baseline is written",
            2: "refused: the run is incomplete, breaks a limit or would lose accepted points; "
            "or an argument cannot be used",
        },
    )
    parser.usage = (
        "%(prog)s [-h] [--policy FILE] [--baselines DIR]\n"
        "           --reason REASON [--keep-others | --forget-others |\n"
        "           --only PATTERN | --same-as VERSION] RUN"
    )
    add_run(parser)
    parser.add_argument(
        "--reason",
        required=True,
        help="why these numbers are right; it is written into the baseline",
    )
    others = parser.add_mutually_exclusive_group()
    others.add_argument(
        "--keep-others",
        dest="others",
        action="store_const",
        const="keep",
        default="refuse",
        help="keep the points of the baseline that this run did not measure",
    )
    others.add_argument(
        "--forget-others",
        dest="others",
        action="store_const",
        const="forget",
        help="drop the points of the baseline that this run did not measure: they are gone for "
        "good",
    )
    others.add_argument(
        "--only",
        metavar="PATTERN",
        help="accept only the points whose names match, such as 'loading-lazy-*', and leave all "
        "others as they were accepted before",
    )
    others.add_argument(
        "--same-as",
        metavar="VERSION",
        help="change no amount, but note that the baseline of TensorFlow VERSION, such as 2.21, "
        "also holds for the version of this run; refused unless the run passes against it",
    )


def run(options: argparse.Namespace) -> int:
    """Accept, and print what changed."""
    measured = load_run(options.run)
    policy = choose_policy(options.policy, measured.manifest)
    folder = options.baselines or DEFAULT_BASELINES
    if not folder.exists():
        to_stderr(f"{folder} does not exist yet, and is made")

    if options.same_as is None:
        lines = accept(
            measured,
            policy,
            folder,
            reason=options.reason,
            others=options.others,
            only=options.only,
        )
    else:
        lines = accept_as_same(
            measured, policy, folder, as_version=options.same_as, reason=options.reason
        )
    for line in lines:
        to_stdout(line)
    return ExitCode.PASS


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

    With ``only``, a pattern such as ``"loading-lazy-*"``, just the points whose names match are
    accepted, and all others stay as they were; the run has to be complete all the same. A point
    that is the same as before keeps its block, with its earlier evidence.

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
        raise BaselineError(_not_measured(run, absent, len(absent) + len(chosen)))
    kept = absent if only is not None or others == "keep" else {}
    points = {**kept, **{name: _unless_same(before.get(name), chosen[name]) for name in chosen}}
    merged = fresh.model_copy(
        update={"point": points, "also": {} if earlier is None else earlier.also}
    )

    path = folder / file_name(run.manifest.comparability)
    history = NO_HISTORY if earlier is None else read_history(path)
    return (*_lines(earlier, merged, history), f"baseline: {write(merged, folder)}")


def _not_measured(run: Run, absent: Mapping[str, BaselinePoint], total: int) -> str:
    return (
        f"{run.path} did not measure {len(absent)} of {total} points that the baseline holds, "
        f"such as {next(iter(absent))}; measure them all, or say --keep-others or --forget-others"
    )


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
    # it holds where the gate passes the run against it
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
    near = closest(pattern, names, cutoff=0.3)
    hint = f", such as {near}" if near else ""
    return (
        f"--only {pattern}: none of the {len(names)} points of the run has such a name; write a "
        f"name or a pattern with *{hint}"
    )


def _refuse_broken_limits(run: Run, policy: Policy, folder: Path, chosen: Collection[str]) -> None:
    obstacles = broken_limits(judge(run, policy, folder, partial=True).verdict.findings, chosen)
    advice = "Fix it, or change the limit in the policy with its reason"
    _refuse(
        f"{run.path} cannot become a baseline",
        [_advised(obstacle.sentence, advice) for obstacle in obstacles],
    )


def _advised(sentence: str, advice: str) -> str:
    return sentence if ends_with_command(sentence) else f"{sentence} {advice}"


def _refuse(what: str, reasons: Sequence[str]) -> None:
    """Raise BaselineError with the first of the reasons, where there are any."""
    if reasons:
        more = f" ({len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise BaselineError(f"{what}: {reasons[0]}{more}")


# What accepting changes, line by line.


def diff(old: Baseline | None, new: Baseline, history: History = NO_HISTORY) -> Iterator[str]:
    """What accepting ``new`` changes, one line for each amount: ``point / phase / meter growth: old
    -> new``.

    Where ``history`` knows earlier acceptances, the line ends with all amounts: ``(4.00 -> 4.10 ->
    4.30 MiB over ...)``.
    """
    before = {} if old is None else old.point
    for name in dict.fromkeys([*before, *new.point]):
        if name not in before:
            yield f"{name}: none -> {_amount_count(new.point[name])}"
        elif name not in new.point:
            yield f"{name}: {_amount_count(before[name])} -> none"
        else:
            yield from (
                f"{name}{line}"
                for line in _diff_point(name, before[name], new.point[name], history)
            )


def _diff_point(
    name: str, old: BaselinePoint, new: BaselinePoint, history: History
) -> Iterator[str]:
    earlier = {**old.fixed, **budget_setting(old.device_budget_bytes)}
    current = {**new.fixed, **budget_setting(new.device_budget_bytes)}
    for setting in dict.fromkeys([*earlier, *current]):
        if earlier.get(setting) != current.get(setting):
            yield f" / {setting}: {earlier.get(setting, 'none')} -> {current.get(setting, 'none')}"

    before, after = amounts_of(old), amounts_of(new)
    for place in dict.fromkeys([*before, *after]):
        if before.get(place) != after.get(place):
            phase, meter, field = place
            moved = _drift(name, place, new, history)
            yield (
                f" / {phase} / {meter} {field}: {_amount(before.get(place))} -> "
                f"{_amount(after.get(place))}{moved}"
            )


def _drift(name: str, place: AmountPlace, new: BaselinePoint, history: History) -> str:
    """How the amount moved over more than the two acceptances that the line shows anyway."""
    accepted = [*history.of(name), new]
    return f" ({drift(accepted, place)})" if len(accepted) > 2 else ""


def _amount(amount: int | None) -> str:
    return "none" if amount is None else f"{format_bytes(amount)} ({amount:,} B)"


def _amount_count(point: BaselinePoint) -> str:
    lines = sum(len(meters) for meters in point.phase.values())
    return f"{lines} phases and meters"
