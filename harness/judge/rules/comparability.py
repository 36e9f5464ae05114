"""May the run be compared with the baseline at all, and its own runs with each other: device,
allocator, TensorFlow, isolation.
"""

import filecmp
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.judge.acceptance import accept_words
from harness.judge.advice import Commands, stopped
from harness.judge.baseline import Baseline, counter_of, key_in_words, launchers_of, sources_of
from harness.judge.baseline_file import Nearest, file_name, key_with_evidence, nearest_baselines
from harness.judge.comparison import THEN_FOLDER, Against
from harness.judge.completeness import (
    OF_THE_CARD,
    missing_from_point,
    missing_from_run,
    take_census,
)
from harness.judge.rules.evidence import Evidence
from harness.judge.table import Run
from harness.judge.verdict import Check, FindingKind
from harness.meters import HOST_RSS, meter_words
from harness.records import ROWS_FILE, Outcome
from harness.rundir.manifest import CodeSide

RULE = "comparability"

ISOLATED_METERS = frozenset({HOST_RSS})
"""Meters whose amounts depend on how the child was started. Measured with the first batch of
arrays: resident memory grows by 14.4 MiB in a fork and by 7.1 MiB in a fresh interpreter, anonymous
memory by 4.1 MiB in both, the device's to the byte."""


def check_comparability(evidence: Evidence) -> Iterator[Check]:
    """No baseline for the run's key is one finding that says what the nearest one differs in;
    without tolerances, none.
    """
    if not evidence.policy.tolerance or not evidence.run.points:
        return
    if evidence.baseline is None:
        yield _no_baseline(evidence)
    elif evidence.against is None:
        key = key_with_evidence(evidence.baseline, evidence.run.manifest.comparability)
        yield Check(rule=RULE, subject="baseline", sentence=f"baseline: it is for {key}.")
    yield from _sources(evidence)
    yield from _isolation(evidence, evidence.baseline)


def accept_command(evidence: Evidence) -> str:
    """What to do once a run has been looked at."""
    if evidence.against is not None:
        return "measure both codes again, in one run"
    planned = {point.name for point in evidence.run.points}
    others = evidence.baseline is not None and not planned.issuperset(evidence.baseline.point)
    return accept_words(evidence.commands.accept(*(["--keep-others"] if others else [])))


def _no_baseline(evidence: Evidence) -> Check:
    key = evidence.run.manifest.comparability
    nearest = nearest_baselines(evidence.baselines_folder, key)
    sentence = (
        f"there is no baseline for {key_in_words(key)} "
        f"({evidence.baselines_folder / file_name(key)}){_nearest_in_words(nearest)}. To "
        f"do: look at the run, then {accept_command(evidence)}"
    )
    return Check(rule=RULE, subject="baseline", sentence=sentence, finding=FindingKind.NO_BASELINE)


def _nearest_in_words(nearest: Sequence[Nearest]) -> str:
    if not nearest:
        return "; the folder holds none at all"
    first = nearest[0]
    if first.differences:
        return (
            f"; the nearest, {first.path.name}, is not comparable: {'; '.join(first.differences)}"
        )
    return f"; {first.path.name} is for the same under another name: rename it back"


def _sources(evidence: Evidence) -> Iterator[Check]:
    """Counters of one meter that must not be compared: within the run, and with what was
    accepted.
    """
    gated = {tolerance.meter for tolerance in evidence.policy.tolerance}
    gated.update(meter for _, rule in evidence.policy.rules() for meter in rule.meters)
    by_meter: dict[str, set[str]] = {}
    for (point, meter), found in sources_of(evidence.run).items():
        if meter in gated:
            sources = sorted({counter_of(source) for source in found})
            by_meter.setdefault(meter, set()).update(sources)
            accepted = None if evidence.baseline is None else evidence.baseline.point.get(point)
            then = (
                {
                    counter_of(own[meter].source or "")
                    for own in accepted.phase.values()
                    if meter in own
                }
                if accepted
                else set()
            )
            if len(sources) == 1 and then - {"", *sources}:
                was = ", ".join(sorted(then))
                words = (
                    f"{point}: {meter_words(meter)} was accepted from {was} and is read from "
                    f"{sources[0]}, which count differently"
                )
                yield _not_comparable(
                    point,
                    meter,
                    f"{words}. To do: {accept_command(evidence)}",
                    FindingKind.NO_BASELINE,
                )
    for meter, all_sources in by_meter.items():
        # of that one completeness says so, gated or not
        if len(all_sources) > 1 and meter != OF_THE_CARD:
            words = (
                f"{meter_words(meter)} was read from {' and '.join(sorted(all_sources))}, which "
                "count differently"
            )
            yield _not_comparable(
                "", meter, f"{words}. To do: measure again with one driver", FindingKind.INCOMPLETE
            )


def _isolation(evidence: Evidence, baseline: Baseline | None) -> Iterator[Check]:
    """Only where a gated meter depends on how children were started."""
    gated = {tolerance.meter for tolerance in evidence.policy.tolerance} & ISOLATED_METERS
    gated.update(
        meter
        for _, rule in evidence.policy.rules()
        for meter in rule.meters
        if meter in ISOLATED_METERS
    )
    now = launchers_of(evidence.run)
    for meter in sorted(gated):
        if ", " in now:
            words = (
                f"{meter_words(meter)} depends on how children start, and those of this run "
                f"were started by {now}"
            )
            yield _not_comparable(
                "",
                meter,
                f"{words}. To do: measure again with --memory-isolation spawn",
                FindingKind.INCOMPLETE,
            )
            continue
        then = {
            point.accepted.isolation
            for point in (baseline.point.values() if baseline else ())
            if any(meter in meters for meters in point.phase.values())
        }
        if then - {now}:
            words = (
                f"{meter_words(meter)} was accepted from children started by "
                f"{', '.join(sorted(then))}, and now by {now}"
            )
            yield _not_comparable(
                "", meter, f"{words}. To do: {accept_command(evidence)}", FindingKind.NO_BASELINE
            )


def _not_comparable(point: str, meter: str, sentence: str, finding: FindingKind) -> Check:
    subject = " / ".join(part for part in (point, meter_words(meter)) if part)
    return Check(
        rule=RULE,
        subject=subject,
        sentence=stopped(sentence),
        finding=finding,
        point=point,
        meter=meter,
    )


# Was the earlier code measured beside the run, and was it other code: two sides that are one
# would agree about everything.


OTHER_CODE_RULE = "against"


def check_against(evidence: Evidence) -> Iterator[Check]:
    """The other side is whole and comparable, and each side has measured its own code; nothing
    where nothing is compared.
    """
    against = evidence.against
    if against is None:
        return
    if against.run is None:
        yield _incomplete(
            against.words, f"the run of the earlier code cannot be read: {against.problem}"
        )
        return
    if _is_one_run(evidence.run, against.run):
        sentence = (
            f"it has the very rows of this run ({against.run.path}), so that the run was "
            "compared with itself; name the run of the earlier code"
        )
        yield _incomplete(against.words, sentence)
    yield from _comparability(evidence, against, against.run)
    yield from _unmeasured_checks(against, against.run)
    yield from (_incomplete(against.words, gap) for gap in _gaps(evidence, against, against.run))
    strays = [
        *_strays(against.words, against.run, against.then),
        *_strays(against.now_words, evidence.run, against.now),
    ]
    yield from (_incomplete("code", sentence) for sentence in strays)
    if not strays and against.then is not None and against.now is not None:
        yield _code_check(against, against.then, against.now)


def _is_one_run(now: Run, then: Run) -> bool:
    """Whether both are one measurement, or a copy of it: no two runs take the same time in every
    phase.
    """
    return filecmp.cmp(now.path / ROWS_FILE, then.path / ROWS_FILE, shallow=False)


def _incomplete(subject: str, sentence: str) -> Check:
    said = (
        sentence if sentence.startswith(subject) or subject == "code" else f"{subject}: {sentence}"
    )
    return Check(
        rule=OTHER_CODE_RULE,
        subject=subject,
        sentence=stopped(said),
        finding=FindingKind.INCOMPLETE,
    )


def _comparability(evidence: Evidence, against: Against, run: Run) -> Iterator[Check]:
    then, now = run.manifest.comparability, evidence.run.manifest.comparability
    if dict(then) != dict(now):
        commit = "" if against.then is None else against.then.commit
        how = f", with: {evidence.commands.compare(commit)}" if commit else ""
        sentence = (
            f"it was measured on {key_in_words(then)}, and this run on {key_in_words(now)}; "
            f"measure both on one machine{how}"
        )
        yield _incomplete(against.words, sentence)
    absent = [
        point.name
        for point in evidence.run.points
        if point.name not in {other.name for other in run.points}
    ]
    if absent:
        yield _incomplete(
            against.words,
            f"{_count(absent)} of this run {_were(absent)} not measured there, first {absent[0]}",
        )


def _unmeasured_checks(against: Against, run: Run) -> Iterator[Check]:
    """One finding for each reason: a name that did not exist yet is missing at every point."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in against.unmeasured.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        sentence = (
            f"{_count(names)} of {len(run.points)} could not be measured there, first "
            f"{names[0]}: {reason}. To do: if that code lacks what today's bodies use, "
            "compare with a later revision, or let the bodies do without it; else see "
            f"{run.path / 'logs'}"
        )
        yield Check(
            rule=OTHER_CODE_RULE,
            subject=against.words,
            sentence=" ".join(filter(None, [f"{against.words}: {sentence}.", against.left_empty])),
            finding=FindingKind.INCOMPLETE,
            point=names[0] if len(names) == 1 else "",
        )


def _gaps(evidence: Evidence, against: Against, run: Run) -> Iterator[str]:
    # What was measured beside the run goes on with it; another run is gone on with on its own.
    beside = run.path == evidence.run.path / THEN_FOLDER
    commands = evidence.commands if beside else Commands.of(run.path, run.manifest)
    yield from missing_from_run(run, commands)
    census = take_census(run)
    for point in run.points:
        if point.name in against.unmeasured:
            continue
        for repeat in run.repeats_of(point.name):
            yield from (
                f"{point.name}, repeat {repeat}: {gap}"
                for gap in missing_from_point(census, point, repeat, commands)
            )


def _strays(words: str, run: Run, side: CodeSide | None) -> Iterator[str]:
    """Where a side has not measured the code that it stands for; nothing where no code was
    named.
    """
    if side is None:
        return
    ended_well = _ended_well(run)
    for (name, repeat), packages in run.code.items():
        where = {package: packages[package] for package in side.packages if package in packages}
        wrong = next(
            (
                package
                for package, file in where.items()
                if not Path(file).is_relative_to(side.packages[package])
            ),
            None,
        )
        if wrong is not None:
            yield (
                f"{name}, repeat {repeat}, {words}: it took {wrong} from {where[wrong]} "
                f"instead of {side.packages[wrong]}, so that other code was measured than "
                "was asked for"
            )
            return
        if not where and (name, repeat) in ended_well:
            packages_words = " or ".join(side.packages)
            yield (
                f"{name}, {words}: its body does not import {packages_words}, so that both "
                "sides are the same for it; leave the point out with --memory-points, or "
                "name what it measures in memory_subject"
            )
            return
    if run.points and not run.code:
        yield f"no run {words} says where its packages came from; measure again"


def _ended_well(run: Run) -> frozenset[tuple[str, int]]:
    return frozenset((end.point, end.repeat) for end in run.run_ends if end.outcome is Outcome.OK)


def _code_check(against: Against, then: CodeSide, now: CodeSide) -> Check:
    packages = ", ".join(now.packages)
    if dict(then.packages) == dict(now.packages):
        return _incomplete(
            "code",
            f"both sides took {packages} from {_first(now.packages)}, so that it was "
            "compared with itself",
        )
    if dict(then.content) == dict(now.content):
        sentence = (
            f"code: {packages} is the same {against.words} and {against.now_words}, file by "
            "file; nothing under test has changed."
        )
    else:
        sentence = (
            f"code: {packages} was measured {against.now_words} and {against.words} in turns, "
            "each from its own folder."
        )
    return Check(
        rule=OTHER_CODE_RULE,
        subject="code",
        sentence=" ".join(filter(None, [sentence, against.left_empty])),
    )


def _first(packages: Mapping[str, str]) -> str:
    return next(iter(packages.values()))


def _count(names: list[str]) -> str:
    return f"{len(names)} {'point' if len(names) == 1 else 'points'}"


def _were(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"
