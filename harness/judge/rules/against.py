"""Was the earlier code measured beside the run, and was it other code: two sides that are one would
agree about everything.
"""

import filecmp
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.judge.advice import Commands, stopped
from harness.judge.baseline import key_in_words
from harness.judge.comparison import THEN_FOLDER, Against
from harness.judge.completeness import missing_from_point, missing_from_run, take_census
from harness.judge.manifest import CodeSide
from harness.judge.rules.evidence import Evidence
from harness.judge.table import Run
from harness.judge.verdict import Check, FindingKind
from harness.records import ROWS_FILE

RULE = "against"


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
    return Check(rule=RULE, subject=subject, sentence=stopped(said), finding=FindingKind.INCOMPLETE)


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
            rule=RULE,
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
    ends = run.ends[run.ends["outcome"] == "ok"]
    return frozenset(zip(ends["point"], ends["repeat"].astype(int), strict=True))


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
        rule=RULE, subject="code", sentence=" ".join(filter(None, [sentence, against.left_empty]))
    )


def _first(packages: Mapping[str, str]) -> str:
    return next(iter(packages.values()))


def _count(names: list[str]) -> str:
    return f"{len(names)} {'point' if len(names) == 1 else 'points'}"


def _were(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"
