"""Which commit made memory worse: the search over a real repository, with runs written by hand
instead of children.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.commands.bisect import IMPROVEMENT, REGRESSION, Bisection, BrokenOffError, Search
from harness.errors import UsageError
from harness.judge.baseline import load_against
from harness.judge.gate import judge
from harness.judge.table import load_run
from harness.records import Outcome
from tests.harness.conftest import KIB, MIB, SyntheticRun, loading_point

POINTS = [loading_point("lazy", count) for count in (100, 500)]
COMMITS = 8


@pytest.fixture
def repository(tmp_path):
    """Eight commits, each of which touches the package but the third; tagged c0 to c7."""
    folder = tmp_path / "repository"
    (folder / "pkg").mkdir(parents=True)

    def git(*arguments):
        identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q", "-b", "main")
    for number in range(COMMITS):
        (folder / ("notes" if number == 3 else "pkg/__init__.py")).write_text(f"{number}\n")
        git("add", "-A")
        git("commit", "-q", "-m", f"change {number}")
        git("tag", f"c{number}")
    commits = git("rev-list", "--reverse", "main").split()
    return folder, commits


@pytest.fixture
def search(repository, tmp_path, policy):
    """Search for a commit; ``takes(number)`` is what the lazy loader keeps at a commit, in bytes,
    or "error", or "refused".
    """
    folder, commits = repository
    said, measured = [], []

    def run(takes, good="c0", bad="main", sought=REGRESSION):
        def measure(good_commit, commit, directory, points):
            chosen = [point for point in POINTS if not points or point.name in points]
            measured.append((commits.index(commit), [point.name for point in chosen]))
            if takes(commits.index(commit)) == "refused":
                return 4
            _write(
                directory / "then",
                chosen,
                takes(commits.index(good_commit)),
                _side(good_commit),
                {},
            )
            now = _side(commit)
            _write(
                directory,
                chosen,
                takes(commits.index(commit)),
                now,
                {"against": _side(good_commit)},
            )
            return 0

        def judged(path):
            loaded = load_run(path)
            against = load_against(loaded, None)
            return loaded, judge(
                loaded, policy, Path("none"), partial=True, against=against
            ).verdict

        bisection = Bisection(
            project=folder,
            good=good,
            bad=bad,
            folder=tmp_path / "out",
            measure=measure,
            judge=judged,
            to_stdout=said.append,
            sought=sought,
        )
        return bisection.run(), said, measured

    return run


def _side(commit):
    return {
        "asked": commit,
        "commit": commit,
        "date": "",
        "title": "",
        "subjects": ["pkg"],
        "packages": {"pkg": f"/{commit}"},
        "content": {"pkg": commit},
    }


def _write(path, points, taken, code, more):
    run = SyntheticRun(path, points=points, manifest={"code": code, **more})
    if taken == "error":
        run.ends = {
            (point.name, repeat): (Outcome.ERROR, "no such name", "open")
            for point in points
            for repeat in range(2)
        }
    elif taken == "oom":
        run.ends = {
            (point.name, repeat): (Outcome.DEVICE_OOM, "refused", "construct")
            for point in points
            for repeat in range(2)
        }
    else:
        run.plant(
            phase="construct", meter="device_in_use", extra=lambda point, repeat: taken, keep=True
        )
    rows = run.rows()
    runs = dict.fromkeys((row["point"], row["repeat"]) for row in rows if "repeat" in row)
    packages = {"pkg": f"/{code['commit']}/pkg/__init__.py"}
    run.write(
        [{"kind": "code", "point": p, "repeat": r, "packages": packages} for p, r in runs] + rows
    )


@pytest.mark.parametrize("first_bad", [1, 4, 7])
def test_the_first_bad_commit_is_found_in_few_steps(search, repository, tmp_path, first_bad):
    """Wherever it is; the answer has the commit, its title and the finding, and is kept as a
    record.
    """
    code, said, measured = search(lambda number: MIB * (number >= first_bad))
    record = json.loads((tmp_path / "out" / "bisect.json").read_text())

    assert code == 1
    assert f"{repository[1][first_bad]} is the first bad commit" in said[-2]
    assert f"change {first_bad}" in said[-2]
    assert "grows by 1.0 MiB, at " in said[-2]
    assert [suspect["title"] for suspect in record["suspects"]] == [f"change {first_bad}"]
    # Both ends, then at most log2 of the six commits that touch the package.
    assert len(measured) <= 1 + 3
    assert 3 not in [number for number, _ in measured]


def test_only_the_points_that_offend_are_measured_on_the_way(search):
    """The ends are measured whole."""
    _, _, measured = search(lambda number: MIB * (number >= 4))

    assert measured[0] == (7, [point.name for point in POINTS])
    assert all(set(names) <= {point.name for point in POINTS} for _, names in measured[1:])


@pytest.mark.parametrize("first_better", [1, 4, 7])
def test_the_commit_that_made_memory_better_is_found_in_the_same_way(
    search, repository, tmp_path, first_better
):
    """Wherever it is: with what it takes less, and in the record what was searched for."""
    code, said, measured = search(lambda number: MIB * (number < first_better), sought=IMPROVEMENT)
    record = json.loads((tmp_path / "out" / "bisect.json").read_text())

    assert code == 1
    assert f"{repository[1][first_better]} is the first better commit" in said[-2]
    assert "1.0 MiB less" in said[-2]
    assert (record["sought"], [suspect["title"] for suspect in record["suspects"]]) == (
        "improvement",
        [f"change {first_better}"],
    )
    assert {step["state"] for step in record["steps"]} <= {"as before", "better"}
    assert len(measured) <= 1 + 3
    # As words: the hash of a commit may hold the letters "bad".
    assert not any(re.search(r"\b(bad|regression)\b", line) for line in said)


@pytest.mark.parametrize("first_better", [1, 4, 7])
def test_a_commit_that_runs_where_memory_ran_out_before_is_better(search, repository, first_better):
    """GOOD cannot be compared with then: it is what broke there and holds now that is searched for;
    errors are passed by.
    """
    takes = {first_better + 1: "error"}
    code, said, _ = search(
        lambda number: takes.get(number, "oom" if number < first_better else 0), sought=IMPROVEMENT
    )

    assert code == 1
    assert f"{repository[1][first_better]} is the first better commit" in said[-2]
    assert said[-2].splitlines()[1].endswith("ended ok, as planned.")


def test_memory_that_runs_out_at_both_ends_is_no_improvement(search):
    """Nor can anything be compared: exit code 3."""
    with pytest.raises(BrokenOffError, match="it ended device_oom there: refused") as broken:
        search(lambda number: "oom", sought=IMPROVEMENT)

    assert broken.value.code == 3


@pytest.mark.parametrize(("less", "code"), [(64 * KIB, 0), (64 * KIB + 1, 1)])
def test_an_improvement_within_the_tolerance_is_none(search, less, code):
    """At the limit, and one byte past it."""
    found, said, _ = search(lambda number: MIB - less * (number >= 4), sought=IMPROVEMENT)

    assert found == code
    assert ("No improvement: main (" in said[-2]) is (code == 0)


def test_an_improvement_beside_commits_that_cannot_be_measured_is_a_range(search, repository):
    """As a regression is."""
    code, said, _ = search(
        lambda number: "error" if number in (4, 5) else MIB * (number < 6), sought=IMPROVEMENT
    )

    assert code == 1
    assert (
        f"The improvement came with one of 3 commits, {repository[1][4][:7]} to "
        f"{repository[1][6][:7]}" in said[-2]
    )


@pytest.mark.parametrize(
    ("sought", "none", "hint"),
    [
        (
            REGRESSION,
            "No regression: main (",
            "It is better; search with --better for the commit: ",
        ),
        (
            IMPROVEMENT,
            "No improvement: main (",
            "It is bad; search without --better for the commit: ",
        ),
    ],
)
def test_where_there_is_nothing_to_find_nothing_else_is_measured(search, sought, none, hint):
    """Exit code 0; whoever has looked for the wrong one is told what to look for."""
    code, said, measured = search(
        lambda number: MIB * ((number < 4) is (sought is REGRESSION)), sought=sought
    )

    assert (code, len(measured)) == (0, 1)
    assert said[-2].startswith(none)
    assert hint in said[-2]


@pytest.mark.parametrize("sought", [REGRESSION, IMPROVEMENT])
def test_two_ends_that_are_alike_are_neither_better_nor_worse(search, sought):
    """Nor is there anything to look for instead."""
    code, said, _ = search(lambda number: MIB, sought=sought)

    assert (code, said[-2][-2:]) == (0, ").")


@pytest.mark.parametrize("how", ["error", "refused"])
def test_commits_that_cannot_be_measured_are_passed_by(search, repository, how):
    """As git bisect skips: where the first bad one is beside them, the answer is a range."""
    code, said, _ = search(lambda number: how if number in (4, 5) else MIB * (number >= 6))

    assert code == 1
    assert "The regression came with one of 3 commits" in said[-2]
    assert f"{repository[1][4][:7]} to {repository[1][6][:7]}" in said[-2]


def test_skipped_commits_away_from_the_change_do_not_blur_the_answer(search, repository):
    """The first bad one and the one before it were measured."""
    code, said, _ = search(lambda number: "error" if number == 4 else MIB * (number >= 6))

    assert code == 1
    assert f"{repository[1][6]} is the first bad commit" in said[-2]


@pytest.mark.parametrize(
    ("good", "bad", "sentence"),
    [
        ("c1", "c1", "c1 and c1 are the same commit"),
        ("c5", "c1", "is not an ancestor of"),
        ("v9", "main", "has no revision 'v9'"),
    ],
)
def test_revisions_that_cannot_be_searched_between_are_told_before_anything_is_measured(
    search, good, bad, sentence
):
    """In one sentence."""
    with pytest.raises(UsageError, match=sentence):
        search(lambda number: 0, good=good, bad=bad)


def test_ends_that_cannot_be_compared_end_the_search(search):
    """Exit code 3: nothing is known, so nothing is searched for."""
    with pytest.raises(BrokenOffError, match="could not be compared with") as broken:
        search(lambda number: "error" if number == 0 else 64 * KIB)

    assert broken.value.code == 3


def test_of_commits_not_skipped_the_nearest_to_the_middle_is_next():
    """Until none is left between the last good and the first bad one."""
    search = Search(["a", "b", "c", "d", "e"])
    assert search.next() == 2 or search.next() == 1
    search.note(1, found=None)
    search.note(2, found=None)
    search.note(0, found=False)

    assert search.next() == 3
    search.note(3, found=True)
    assert search.next() is None
    assert search.suspects == ("b", "c", "d")


def test_what_follows_two_dashes_is_for_pytest_and_not_the_bad_revision(
    repository, monkeypatch, capsys
):
    """BAD is HEAD where it is left out; a revision that there is not is one sentence, and exit code
    2.
    """
    monkeypatch.chdir(repository[0])

    assert main(["bisect", "c7", "--", "scenarios", "-n", "2"]) == 2
    assert "c7 and HEAD are the same commit" in capsys.readouterr().err
    assert main(["bisect", "--better", "c7", "--", "scenarios"]) == 2
    assert "c7 and HEAD are the same commit" in capsys.readouterr().err
    assert main(["bisect", "v9", "c1", "--", "scenarios"]) == 2
    assert "has no revision 'v9'; git branch --all" in capsys.readouterr().err
