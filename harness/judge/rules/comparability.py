"""May the run be compared at all: with the baseline, its own runs with each other, and with the
other code that was measured beside it.
"""

import filecmp
from collections.abc import Iterator
from pathlib import Path

from harness.judge import FindingKind, RuleName
from harness.judge.advice import Commands
from harness.judge.baseline import (
    Against,
    Baseline,
    counter_of,
    key_in_words,
    launchers_of,
    sources_of,
)
from harness.judge.baseline_file import (
    accept_words,
    file_name,
    key_with_evidence,
    nearest_baselines,
)
from harness.judge.completeness import (
    OF_THE_CARD,
    count_runs,
    missing_from_point,
    missing_from_run,
)
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.findings import (
    BaselineFor,
    Codes,
    Details,
    Finding,
    Launchers,
    MixedCounters,
    NoBaseline,
    OtherCounter,
    OtherRun,
    Place,
    Unmeasured,
    WrongCode,
)
from harness.judge.table import Run
from harness.meters import HOST_RSS, meter_words
from harness.records import ROWS_FILE, THEN_FOLDER, Outcome
from harness.rundir.manifest import CodeSide

ISOLATED_METERS = frozenset({HOST_RSS})
"""Meters whose amounts depend on how the child was started. Measured with the first batch of
arrays: resident memory grows by 14.4 MiB in a fork and by 7.1 MiB in a fresh interpreter, anonymous
memory by 4.1 MiB in both, the device's to the byte."""


def check_comparability(evidence: Evidence) -> Iterator[Finding]:
    """No baseline for the run's key is one finding that says what the nearest one differs in;
    without tolerances, none.
    """
    if not evidence.policy.tolerance or not evidence.run.points:
        return
    if evidence.baseline is None:
        yield _finding(Place(words="baseline"), _no_baseline(evidence), FindingKind.NO_BASELINE)
    elif evidence.against is None:
        key = key_with_evidence(evidence.baseline, evidence.run.manifest.comparability)
        yield _finding(Place(words="baseline"), BaselineFor(key=key), None)
    yield from _other_counters(evidence)
    yield from _mixed_counters(evidence)
    yield from _launchers(evidence, evidence.baseline)


def _finding(place: Place, details: Details, kind: FindingKind | None) -> Finding:
    return Finding(rule=RuleName.COMPARABILITY, place=place, details=details, kind=kind)


def accept_command(evidence: Evidence) -> str:
    """What to do once a run has been looked at."""
    if evidence.against is not None:
        return "measure both codes again, in one run"
    planned = {point.name for point in evidence.run.points}
    others = evidence.baseline is not None and not planned.issuperset(evidence.baseline.point)
    return accept_words(evidence.commands.accept(*(["--keep-others"] if others else [])))


def _no_baseline(evidence: Evidence) -> NoBaseline:
    key = evidence.run.manifest.comparability
    nearest = nearest_baselines(evidence.baselines_folder, key)
    return NoBaseline(
        key=key_in_words(key),
        path=str(evidence.baselines_folder / file_name(key)),
        nearest=nearest[0].path.name if nearest else "",
        differences=nearest[0].differences if nearest else (),
        accept=accept_command(evidence),
    )


# Counters of one meter that must not be compared: within the run, and with what was accepted.


def _gated_meters(evidence: Evidence) -> set[str]:
    tolerated = {tolerance.meter for tolerance in evidence.policy.tolerance}
    return tolerated | {meter for _, rule in evidence.policy.rules() for meter in rule.meters}


def _gated_counters(evidence: Evidence) -> Iterator[tuple[str, str, list[str]]]:
    """Point, meter and the counters that it was read from."""
    gated = _gated_meters(evidence)
    for (point, meter), sources in sources_of(evidence.run).items():
        if meter in gated:
            yield point, meter, sorted({counter_of(source) for source in sources})


def _other_counters(evidence: Evidence) -> Iterator[Finding]:
    for point, meter, counters in _gated_counters(evidence):
        accepted = None if evidence.baseline is None else evidence.baseline.point.get(point)
        then = {
            counter_of(meters[meter].source or "")
            for meters in (accepted.phase.values() if accepted else ())
            if meter in meters
        }
        if len(counters) == 1 and then - {"", *counters}:
            details = OtherCounter(
                point=point,
                meter=meter,
                then=tuple(sorted(then)),
                now=counters[0],
                accept=accept_command(evidence),
            )
            place = Place(words=f"{point} / {meter_words(meter)}", point=point, meter=meter)
            yield _finding(place, details, FindingKind.NO_BASELINE)


def _mixed_counters(evidence: Evidence) -> Iterator[Finding]:
    by_meter: dict[str, set[str]] = {}
    for _, meter, read_from in _gated_counters(evidence):
        by_meter.setdefault(meter, set()).update(read_from)
    for meter, counters in by_meter.items():
        # of that one completeness says so, gated or not
        if len(counters) > 1 and meter != OF_THE_CARD:
            details = MixedCounters(meter=meter, counters=tuple(sorted(counters)))
            place = Place(words=meter_words(meter), meter=meter)
            yield _finding(place, details, FindingKind.INCOMPLETE)


def _launchers(evidence: Evidence, baseline: Baseline | None) -> Iterator[Finding]:
    """Only where a gated meter depends on how children were started."""
    now = launchers_of(evidence.run)
    for meter in sorted(_gated_meters(evidence) & ISOLATED_METERS):
        then = {
            point.accepted.isolation
            for point in (baseline.point.values() if baseline else ())
            if any(meter in meters for meters in point.phase.values())
        }
        mixed = ", " in now
        if mixed or then - {now}:
            details = Launchers(
                meter=meter,
                now=now,
                then=() if mixed else tuple(sorted(then)),
                accept=accept_command(evidence),
            )
            kind = FindingKind.INCOMPLETE if mixed else FindingKind.NO_BASELINE
            yield _finding(Place(words=meter_words(meter), meter=meter), details, kind)


# Was the earlier code measured beside the run, and was it other code? Two sides that are one would
# agree about everything.


def check_against(evidence: Evidence) -> Iterator[Finding]:
    """The other side is complete and comparable, and each side has measured its own code; nothing
    where nothing is compared.
    """
    against = evidence.against
    if against is None:
        return
    if against.run is None:
        unreadable = OtherRun(why="unreadable", detail=str(against.problem))
        yield _of_other_run(against, unreadable)
        return

    if _is_one_run(evidence.run, against.run):
        yield _of_other_run(against, OtherRun(why="same rows", detail=str(against.run.path)))
    yield from _other_machine(evidence, against, against.run)
    yield from _unmeasured(against, against.run)
    for gap in _gaps(evidence, against, against.run):
        yield _of_other_run(against, OtherRun(why="incomplete", detail=gap))
    wrong = [
        *_wrong_code(against.words, against.run, against.then),
        *_wrong_code(against.now_words, evidence.run, against.now),
    ]
    yield from (_of_code(details, FindingKind.INCOMPLETE) for details in wrong)
    if not wrong and against.then is not None and against.now is not None:
        yield _codes(against, against.then, against.now)


def _is_one_run(now: Run, then: Run) -> bool:
    """Whether both are one measurement, or a copy of it: no two runs take the same time in every
    phase.
    """
    return filecmp.cmp(now.path / ROWS_FILE, then.path / ROWS_FILE, shallow=False)


def _of_other_run(against: Against, details: Details, *, point: str = "") -> Finding:
    return Finding(
        rule=RuleName.AGAINST,
        place=Place(words=against.words, point=point),
        details=details,
        kind=FindingKind.INCOMPLETE,
    )


def _of_code(details: Details, kind: FindingKind | None) -> Finding:
    return Finding(rule=RuleName.AGAINST, place=Place(words="code"), details=details, kind=kind)


def _other_machine(evidence: Evidence, against: Against, run: Run) -> Iterator[Finding]:
    then, now = run.manifest.comparability, evidence.run.manifest.comparability
    if dict(then) != dict(now):
        commit = "" if against.then is None else against.then.commit
        details = OtherRun(
            why="other machine",
            then=key_in_words(then),
            now=key_in_words(now),
            command=evidence.commands.compare(commit) if commit else "",
        )
        yield _of_other_run(against, details)

    there = {point.name for point in run.points}
    absent = [point.name for point in evidence.run.points if point.name not in there]
    if absent:
        details = OtherRun(why="points missing", detail=absent[0], count=len(absent))
        yield _of_other_run(against, details)


def _unmeasured(against: Against, run: Run) -> Iterator[Finding]:
    """One finding for each reason: a name that did not exist yet is missing at every point."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in against.unmeasured.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        details = Unmeasured(
            count=len(names),
            of=len(run.points),
            first=names[0],
            reason=reason,
            logs=str(run.path / "logs"),
            left_empty=against.left_empty,
        )
        yield _of_other_run(against, details, point=names[0] if len(names) == 1 else "")


def _gaps(evidence: Evidence, against: Against, run: Run) -> Iterator[str]:
    # What was measured beside the run is resumed with it; another run is resumed by itself.
    beside = run.path == evidence.run.path / THEN_FOLDER
    commands = evidence.commands if beside else Commands.of(run.path, run.manifest)
    yield from missing_from_run(run, commands)
    census = count_runs(run)
    for point in run.points:
        if point.name in against.unmeasured:
            continue
        for repeat in run.repeats_of(point.name):
            yield from (
                f"{point.name}, repeat {repeat}: {gap}"
                for gap in missing_from_point(census, point, repeat, commands)
            )


def _wrong_code(words: str, run: Run, side: CodeSide | None) -> Iterator[WrongCode]:
    """Where a side has not measured the code that it stands for, once; nothing where no code was
    named.
    """
    if side is None:
        return
    ended_well = _ended_well(run)
    for (name, repeat), packages in run.code.items():
        where = {package: packages[package] for package in side.packages if package in packages}
        wrong = [
            package
            for package, file in where.items()
            if not Path(file).is_relative_to(side.packages[package])
        ]
        if wrong:
            yield WrongCode(
                why="elsewhere",
                side=words,
                point=name,
                repeat=repeat,
                packages=(wrong[0],),
                taken_from=where[wrong[0]],
                asked_from=side.packages[wrong[0]],
            )
            return
        if not where and (name, repeat) in ended_well:
            missing = tuple(side.packages)
            yield WrongCode(why="not imported", side=words, point=name, packages=missing)
            return
    if run.points and not run.code:
        yield WrongCode(why="not recorded", side=words)


def _ended_well(run: Run) -> frozenset[tuple[str, int]]:
    return frozenset((end.point, end.repeat) for end in run.run_ends if end.outcome is Outcome.OK)


def _codes(against: Against, then: CodeSide, now: CodeSide) -> Finding:
    packages = tuple(now.packages)
    if dict(then.packages) == dict(now.packages):
        details = WrongCode(
            why="same folder",
            side=against.words,
            packages=packages,
            taken_from=next(iter(now.packages.values())),
        )
        return _of_code(details, FindingKind.INCOMPLETE)
    codes = Codes(
        packages=packages,
        same_content=dict(then.content) == dict(now.content),
        then=against.words,
        now=against.now_words,
        left_empty=against.left_empty,
    )
    return _of_code(codes, None)
