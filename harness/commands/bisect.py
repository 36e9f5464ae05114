"""The command ``bisect``: find the commit that made memory worse, or better. Every step measures a
commit and GOOD in turns.
"""

import argparse
import glob
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from harness.commands import explain, showing_progress, to_stderr, to_stdout
from harness.errors import RunDirectoryError, UsageError
from harness.judge import Check, ExitCode, FindingKind, Verdict
from harness.judge.baseline import load_against
from harness.judge.gate import judge
from harness.judge.policy import DEFAULT_POLICY, choose_policy
from harness.judge.rules import rule_of
from harness.judge.table import Run, load_run
from harness.records import RUN_FILE, THEN_FOLDER
from harness.run.revisions import PackageUnderTest, commits_between, read_subjects
from harness.system import write_text
from harness.system.git import describe, resolve
from harness.words import count

# What a bisection looks for, and the search itself: which commit is measured next, and which
# ones are left.


Offence = tuple[str, str]
"""Rule and subject of a check."""
SKIPPED = "skipped"
"""The state of a commit that could not be measured."""
RECORD_FILE = "bisect.json"
_NOT_MEASURED: Mapping[int, ExitCode] = {
    2: ExitCode.INCOMPLETE,
    3: ExitCode.INCOMPLETE,
    4: ExitCode.USAGE,
}
"""Exit code of the bisection for those of pytest: 2 interrupted, 3 broken itself or no device, 4
options that cannot be used (docs.pytest.org, exit codes)."""
_DECLINED_OPTIONS = 4


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    explain(
        parser,
        "Find the commit that made memory worse, or with --better better: every step measures a "
        "commit and GOOD in turns, and halves what is left. What follows -- is for pytest: what "
        "is measured, and how (default: scenarios, or what its settings select).",
        examples=("v1.0 -- scenarios -n 2 -k lazy", "--better merge-base:origin/main HEAD"),
        exit_codes={
            0: "nothing got worse (--better: nothing got better) since GOOD",
            1: "the commit is named",
            2: "usage: an argument or a revision cannot be used",
            3: "one of the two ends could not be measured",
        },
    )
    parser.usage = (
        "%(prog)s [-h] [--better] [--out DIR] [--policy FILE]\n"
        "                               GOOD [BAD] [-- PYTEST OPTIONS]"
    )
    parser.add_argument(
        "good", metavar="GOOD", help="the earlier revision, which is good, or merge-base:REV"
    )
    parser.add_argument(
        "bad",
        metavar="BAD",
        nargs="?",
        default="HEAD",
        help="the later revision, which is bad (default: %(default)s)",
    )
    parser.add_argument(
        "--better",
        action="store_true",
        help="find the commit that made memory better: BAD takes less than GOOD",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="folder for the runs of all steps (default: artifacts/bisect-TIME)",
    )
    parser.add_argument("--policy", metavar="FILE", type=Path, help="file of limits, as for gate")


def run(options: argparse.Namespace) -> int:
    """Search with pytest as the measurer; the exit code. ``options.pytest`` is for pytest.

    Raises UsageError as ``Bisection.run`` does, and where the folder holds a search.
    """
    folder = options.out or Path("artifacts", f"bisect-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    if (folder / RECORD_FILE).exists():
        raise UsageError(
            f"{folder} already holds a search; name another folder, or delete this one first"
        )

    project = Path.cwd()
    for_pytest = options.pytest or (["scenarios"] if DEFAULT_POLICY.is_file() else [])
    search = Bisection(
        project=project,
        good=options.good,
        bad=options.bad,
        folder=folder,
        measure=lambda *what: _with_pytest(project, for_pytest, *what),
        judge=lambda path: _judged(path, options.policy),
        to_stdout=to_stdout,
        sought=IMPROVEMENT if options.better else REGRESSION,
    )
    try:
        return search.run()
    except BrokenOffError as error:
        to_stdout(f"bisect: {error}")
        return error.code


# What is searched for, and the search itself: which commit is measured next, and which are left.


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A change of memory; the first commit that has it is searched for."""

    noun: str
    before: str
    """The state of a commit without it."""
    after: str
    """The state of a commit with it."""
    none: str
    """What BAD does beside GOOD where there is nothing to find."""
    of: Callable[[Verdict, Verdict], tuple[Check, ...]]
    """(verdict, that of GOOD alone) -> the checks that show it."""


def regressions(verdict: Verdict) -> tuple[Check, ...]:
    """The findings which say that memory is worse than a limit or GOOD allows."""
    return tuple(
        check
        for check in verdict.findings
        if check.finding in (FindingKind.REGRESSION, FindingKind.FAILED)
    )


def offence(check: Check) -> Offence:
    """What identifies a check at every commit."""
    return check.rule, check.subject


def _worse(verdict: Verdict, good: Verdict) -> tuple[Check, ...]:
    known = {offence(check) for check in good.findings}
    return tuple(check for check in regressions(verdict) if offence(check) not in known)


def _better(verdict: Verdict, good: Verdict) -> tuple[Check, ...]:
    """What takes less than at GOOD, and what holds but does not at GOOD: a limit, or memory that
    ran out there.
    """
    broken = {offence(check) for check in regressions(good)}
    return (
        *verdict.better,
        *(check for check in verdict.checks if not check.finding and offence(check) in broken),
    )


REGRESSION = Sought(
    noun="regression", before="good", after="bad", none="takes no more than", of=_worse
)
IMPROVEMENT = Sought(
    noun="improvement",
    before="as before",
    after="better",
    none="takes no less, beyond tolerance, than",
    of=_better,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One commit, and what was found about it."""

    commit: str
    date: str
    title: str
    state: str
    """``"good"`` or ``"bad"``, ``"as before"`` or ``"better"``, or ``"skipped"``: it could not be
    measured."""
    sentence: str
    """The check that shows the state, or why the commit was skipped; empty where it is like
    GOOD."""


@dataclass(slots=True)
class Search:
    """First-parent commits after GOOD that touch the code under test, oldest first; the last is
    like BAD.
    """

    commits: Sequence[str]
    good: int = -1
    """Place of the last commit known to be like GOOD; -1 is GOOD itself."""
    bad: int = field(init=False)
    """Place of the first commit known to have the change."""
    skipped: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bad = len(self.commits) - 1

    def next(self) -> int | None:
        """The place to measure next, the nearest to the middle that was not skipped; None when none
        is left.
        """
        left = [place for place in range(self.good + 1, self.bad) if place not in self.skipped]
        middle = (self.good + self.bad) / 2
        return min(left, key=lambda place: abs(place - middle), default=None)

    def note(self, place: int, *, found: bool | None) -> None:
        """Record whether the commit there has the change; None where it could not be measured."""
        if found is None:
            self.skipped.add(place)
        elif found:
            self.bad = place
        else:
            self.good = place

    @property
    def suspects(self) -> tuple[str, ...]:
        """The commits that may be the first with the change: one, unless its neighbours could not
        be measured.
        """
        return tuple(self.commits[self.good + 1 : self.bad + 1])


# A step measures a commit and GOOD in turns, and judges what was read.


MeasureCommit = Callable[[str, str, Path, Sequence[str]], int]
"""(good, commit, run directory, points) -> pytest's exit code. No points: all that are selected."""


class BrokenOffError(Exception):
    """No further step can be made; the message says why."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class Judge(Protocol):
    """How a run directory with both sides of a comparison is judged."""

    def __call__(self, path: Path, /) -> tuple[Run, Verdict]:
        """The run, and its verdict."""


@dataclass(slots=True, kw_only=True)
class Bisection:
    """One search, with everything that it needs."""

    project: Path
    good: str
    bad: str
    folder: Path
    """Where the runs of its steps and its record are kept."""
    measure: MeasureCommit
    judge: Judge
    to_stdout: Callable[[str], None]
    sought: Sought = REGRESSION
    steps: list[Step] = field(default_factory=list)

    def run(self) -> int:
        """Search; the exit code: 0 where there is nothing to find, 1 where it was found.

        Raises UsageError for revisions that cannot be searched between, BrokenOffError where
        nothing further can be measured.
        """
        good, bad = resolve(self.project, self.good), resolve(self.project, self.bad)
        if good == bad:
            raise UsageError(
                f"{self.good} and {self.bad} are the same commit, {good[:7]}; name an "
                "earlier one as the good one"
            )

        self.to_stdout(
            f"{self.good} ({good[:7]}) against {self.bad} ({bad[:7]}), "
            f"{count(len(commits_between(self.project, good, bad, ())), 'commit')} between them"
        )
        measured, ends, found = self._first(good, bad)
        if found:
            self.to_stdout(f"{bad[:7]} is {self.sought.after}: {found[0].sentence}")
        else:
            sides = f"{self.bad} ({bad[:7]}) {self.sought.none} {self.good} ({good[:7]})"
            self._conclude(f"No {self.sought.noun}: {sides}.{self._otherwise(ends)}", ())
            return ExitCode.PASS
        commits = commits_between(self.project, good, bad, _subjects(measured))
        self._search(good, commits, found, ends[1])
        return ExitCode.REGRESSION

    def _search(
        self, good: str, commits: Sequence[str], found: Sequence[Check], before: Verdict
    ) -> None:
        """Halve ``commits``, the last of which has what was ``found``, until one is left.

        ``before`` is the verdict of GOOD alone.
        """
        points = _points_of(found)
        self.to_stdout(
            f"{count(len(commits), 'commit touches', 'commits touch')} the code under test; "
            f"measuring {', '.join(points) or 'everything selected'}"
        )

        search, sentences = Search(commits), {len(commits) - 1: found[0].sentence}
        offences = {offence(check) for check in found}
        while (place := search.next()) is not None:
            step = self._step(good, commits[place], points, offences, before)
            is_found = None if step.state == SKIPPED else step.state == self.sought.after
            search.note(place, found=is_found)
            sentences[place] = step.sentence
            self._print_step(step, search)
        self._conclude(self._answer(search, sentences), search.suspects)

    def _print_step(self, step: Step, search: Search) -> None:
        left = search.bad - search.good - 1
        why = f": {step.sentence}" if step.sentence else ""
        self.to_stdout(f"{step.commit[:7]} is {step.state} ({step.title}); {left} left{why}")

    def _otherwise(self, ends: tuple[Verdict, Verdict]) -> str:
        """What to search for instead, where BAD has changed the other way."""
        other, option = (
            (IMPROVEMENT, "with --better")
            if self.sought is REGRESSION
            else (REGRESSION, "without --better")
        )
        shown = other.of(*ends)
        return (
            f" It is {other.after}; search {option} for the commit: {shown[0].sentence}"
            if shown
            else ""
        )

    def _first(self, good: str, bad: str) -> tuple[Run, tuple[Verdict, Verdict], tuple[Check, ...]]:
        """Measure all that is selected at both ends: the run, the verdicts of BAD and of GOOD
        alone, and the checks that show the change.
        """
        folder = self.folder / f"0-{bad[:7]}"
        self._measure_step(good, bad, folder, ())
        run, verdict = self.judge(folder)
        _, before = self.judge(folder / THEN_FOLDER)
        found = self.sought.of(verdict, before)
        gaps = [
            check
            for check in verdict.findings
            if check.finding is FindingKind.INCOMPLETE and rule_of(check.rule).about_the_run
        ]
        if not found and gaps:
            raise BrokenOffError(
                f"{bad[:7]} could not be compared with {good[:7]}: {gaps[0].sentence}",
                ExitCode.INCOMPLETE,
            )
        return run, (verdict, before), found

    def _step(
        self, good: str, commit: str, points: Sequence[str], offences: set[Offence], before: Verdict
    ) -> Step:
        folder = self.folder / f"{len(self.steps) + 1}-{commit[:7]}"
        date, title = describe(self.project, commit)
        state, sentence = SKIPPED, ""
        try:
            self._measure_step(good, commit, folder, points)
            _, verdict = self.judge(folder)
        except UsageError as error:  # for example a package that does not exist at that commit
            sentence = str(error)
        else:
            state, sentence = self._state(verdict, before, offences)
        step = Step(commit=commit, date=date, title=title, state=state, sentence=sentence)
        self.steps.append(step)
        return step

    def _state(self, verdict: Verdict, before: Verdict, offences: set[Offence]) -> tuple[str, str]:
        """The state of a commit, and the sentence that shows it."""
        for check in self.sought.of(verdict, before):
            if offence(check) in offences:
                return self.sought.after, check.sentence
        if any(offence(check) in offences for check in regressions(verdict)):
            # broken as at GOOD, which may be why nothing can be compared
            return self.sought.before, ""
        rules = {rule for rule, _ in offences}
        gap = next(
            (
                check
                for check in verdict.findings
                if check.finding is FindingKind.INCOMPLETE
                # Other rules may miss sizes: only the points that offend are measured.
                and (check.rule in rules or rule_of(check.rule).about_the_run)
            ),
            None,
        )
        return (self.sought.before, "") if gap is None else (SKIPPED, gap.sentence)

    def _measure_step(self, good: str, commit: str, folder: Path, points: Sequence[str]) -> None:
        """Raises UsageError where the commit is to be skipped, BrokenOffError where nothing further
        can be measured.
        """
        code = self.measure(good, commit, folder, points)
        if (folder / RUN_FILE).exists() and code not in _NOT_MEASURED:
            return
        if code == _DECLINED_OPTIONS and points:
            raise UsageError(f"pytest refused to measure {commit[:7]}; it says why above")
        if code in _NOT_MEASURED:
            raise BrokenOffError(
                f"pytest ended with {code} at {commit[:7]}; it says why above", _NOT_MEASURED[code]
            )
        raise BrokenOffError(
            "nothing was measured: name what to measure after --, as in: python -m harness "
            "bisect GOOD -- scenarios -n 2",
            ExitCode.INCOMPLETE,
        )

    def _answer(self, search: Search, sentences: Mapping[int, str]) -> str:
        suspects = search.suspects
        if len(suspects) > 1:
            first, last = suspects[0], suspects[-1]
            return (
                f"The {self.sought.noun} came with one of {len(suspects)} commits, "
                f"{first[:7]} to {last[:7]}: all but the last could not be measured. At "
                f"{last[:7]}: {sentences[search.bad]}"
            )
        date, title = describe(self.project, suspects[0])
        return (
            f"{suspects[0]} is the first {self.sought.after} commit, of {date}: "
            f"{title}\n{sentences[search.bad]}"
        )

    def _conclude(self, answer: str, suspects: Sequence[str]) -> None:
        record = {
            "good": self.good,
            "bad": self.bad,
            "sought": self.sought.noun,
            "answer": answer,
            "suspects": [
                {"commit": commit, "title": describe(self.project, commit)[1]}
                for commit in suspects
            ],
            "steps": [
                {name: getattr(step, name) for name in Step.__slots__} for step in self.steps
            ],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(
            self.folder / RECORD_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        )
        self.to_stdout(answer)
        self.to_stdout(f"record: {self.folder / RECORD_FILE}")


def _with_pytest(
    project: Path,
    options: Sequence[str],
    good: str,
    commit: str,
    folder: Path,
    points: Sequence[str],
) -> int:
    named = [argument for name in points for argument in ("--memory-points", glob.escape(name))]
    comparison = [
        "--memory-against",
        good,
        "--memory-revision",
        commit,
        "--memory-out",
        str(folder),
        "--memory-no-trace",
    ]
    # As the command pytest: -m alone would put the working directory first, and whatever lies
    # there.
    command = [sys.executable, "-P", "-m", "pytest", "-q", *options, *comparison, *named]
    # what pytest says is only of interest where it could not measure; xdist says more than -q asks
    showing = showing_progress([folder, folder / THEN_FOLDER], f"measuring {commit[:7]}:")
    with tempfile.TemporaryFile() as said, showing:
        code = subprocess.run(
            command, cwd=project, check=False, stdout=said, stderr=subprocess.STDOUT
        ).returncode
        said.seek(0)
        printed = said.read().decode(errors="replace").strip()
    if code in _NOT_MEASURED or not (folder / RUN_FILE).exists():
        to_stderr(printed)
    return code


def _judged(path: Path, policy: Path | None) -> tuple[Run, Verdict]:
    run = load_run(path)
    against = load_against(run, None)
    chosen = choose_policy(policy, run.manifest)
    return run, judge(run, chosen, Path("no baselines"), partial=True, against=against).verdict


def _points_of(checks: Sequence[Check]) -> list[str]:
    """The names of all points that the checks are about."""
    names = (check.points or ((check.point,) if check.point else ()) for check in checks)
    return list(dict.fromkeys(name for each in names for name in each))


def _subjects(run: Run) -> tuple[PackageUnderTest, ...]:
    if run.manifest.code is None:
        raise RunDirectoryError(f"{run.path} does not say which code it measured; measure again")
    return read_subjects(run.manifest.code.subjects)
