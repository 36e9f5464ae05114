"""Options that compare two revisions, as users meet them: both run directories, turns, workers,
resuming. Children are faked.
"""

import json
import subprocess

import pytest

SWEEP = """
from harness.records import Point
import pytest

POINTS = [Point(scenario="s", body="bodies:b", parameters={"image_count": count}, \
phases=("load",)) for count in (100, 500)]

@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
def test_point(point, repeat, measure):
    assert measure(point, repeat).outcome is point.expected
"""

FAKE_RUNNER = """
import json
from dataclasses import dataclass
from pathlib import Path
import pytest
from harness.records import TRACED_REPEAT, Outcome, to_json
from harness.run.revisions import Code
from harness.rundir.rows import RunEnd, TraceEnd

@dataclass
class FakeRunner:
    run_directory: Path
    code: Code

    def with_code(self, code, run_directory):
        return FakeRunner(run_directory, code)

    def measure(self, point, repeat):
        end = RunEnd(
            point=point.name, repeat=repeat, outcome=Outcome.OK, cause="", reason="", phase=None, \
exit_code=0,
            launcher="fake", duration_s=0.0,
        )
        row = {"kind": "end", **to_json(end)}
        if repeat == TRACED_REPEAT:
            traced = TraceEnd(point=point.name, outcome=Outcome.OK, cause="", reason="", \
file=None, launcher="fake", duration_s=0.0)
            row = {"kind": "traced", **to_json(traced)}
        run = {"point": point.name, "repeat": repeat}
        phase = {"phase": "load", "index": 0, "finished": True, "duration_s": 0.1, "readings": []}
        rows = [{"kind": "phase", **run, **phase}, {"kind": "done", **run, "outcome": "ok", \
"cause": "", "reason": ""}]
        with open(self.run_directory / "rows.jsonl", "a") as file:
            file.write("".join(json.dumps(each) + "\\n" \
for each in ([row] if repeat == TRACED_REPEAT else [*rows, row])))
        folder = str(self.code.packages["pkg"])
        with open("turns", "a") as file:
            file.write(json.dumps([point.name, repeat, self.run_directory.name, \
"revisions" in folder]) + "\\n")
        return end

@pytest.fixture(scope="session")
def memory_runner(pytestconfig):
    from harness.plugin.session import SESSION
    session = pytestconfig.stash[SESSION]
    return FakeRunner(session.directory, session.run.sides.now.code)
"""
STOP = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if item.name == "test_point[s-image_count=500-repeat=1]":
        raise KeyboardInterrupt
"""


@pytest.fixture
def sweep(pytester):
    """A repository with a sweep of two points, two commits of the package under test, and a runner
    that starts no children.
    """
    pytester.makepyfile(test_sweep=SWEEP)
    pytester.makeconftest(FAKE_RUNNER)
    pytester.makeini("[pytest]\nmemory_subject = pkg\n")
    package = pytester.mkdir("pkg") / "__init__.py"
    for number in range(2):
        package.write_text(f"MARK = {number}\n")
        if number == 0:
            _git(pytester, "init", "-q", "-b", "main")
        _git(pytester, "add", "pkg")
        _git(pytester, "commit", "-q", "-m", f"change {number}")

    def run(*arguments):
        return pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "--memory-device", "cpu", *arguments, timeout=120
        )

    return run


def _git(pytester, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(
        ["git", *identity, *arguments], cwd=pytester.path, check=True, capture_output=True
    )


def _turns(pytester):
    return [json.loads(line) for line in (pytester.path / "turns").read_text().splitlines()]


def _manifest(pytester, name):
    return json.loads((pytester.path / name / "run.json").read_text())


def _ends(pytester, name):
    rows = [
        json.loads(line) for line in (pytester.path / name / "rows.jsonl").read_text().splitlines()
    ]
    return sorted((row["point"], row["repeat"]) for row in rows if row["kind"] == "end")


EVERY_RUN = [
    ("s-image_count=100", 0),
    ("s-image_count=100", 1),
    ("s-image_count=500", 0),
    ("s-image_count=500", 1),
]


def test_both_codes_are_measured_in_turns_and_only_the_later_is_traced(sweep, pytester):
    """The order alternates with the repeat; each side has its own run directory, its own code, and
    says which.
    """
    done = sweep("--memory-against", "HEAD~1", "--memory-out", "out", "-k", "100")

    assert done.ret == 0, done.outlines
    assert [turn[1:] for turn in _turns(pytester)] == [
        [0, "then", True],
        [0, "out", False],
        [1, "out", False],
        [1, "then", True],
        [-1, "out", False],
    ]
    now, then = _manifest(pytester, "out"), _manifest(pytester, "out/then")
    assert (now["code"]["commit"], now["against"]["asked"]) == ("", "HEAD~1")
    assert now["against"] == then["code"]
    assert now["code"]["content"] != then["code"]["content"]
    assert now["seal"]
    assert then["seal"]
    assert "2 runs of HEAD~1 beside them in out/then" in done.stdout.str()


def test_a_submodule_in_the_package_is_said_to_be_empty_where_the_runs_are_counted(sweep, pytester):
    """Also in run.json; the session measures as ever, and resumed it still knows the same code
    again.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=pytester.path, capture_output=True, text=True, check=True
    ).stdout
    _git(pytester, "update-index", "--add", "--cacheinfo", f"160000,{commit.strip()},pkg/inner")
    _git(pytester, "commit", "-q", "-m", "with a submodule")
    done = sweep("--memory-against", "HEAD", "--memory-out", "out", "-k", "100")

    assert done.ret == 0, done.outlines
    assert (
        "2 runs of HEAD beside them in out/then; left empty there, as git leaves "
        "submodules: pkg/inner" in done.stdout.str()
    )
    assert _manifest(pytester, "out")["against"]["left_empty"] == ["pkg/inner"]
    assert sweep("--memory-against", "HEAD", "--memory-resume", "out", "-k", "100").ret == 0


def test_workers_measure_the_same_as_one_process(sweep, pytester):
    """All runs, on both sides, once."""
    assert sweep("--memory-against", "HEAD~1", "--memory-out", "out", "-n", "2").ret == 0

    assert _ends(pytester, "out") == _ends(pytester, "out/then") == EVERY_RUN


def test_a_revision_can_stand_for_the_working_tree(sweep, pytester):
    """Both sides from git: what lies in the folder does not matter."""
    (pytester.path / "pkg/__init__.py").write_text("MARK = 'unfinished'\n")

    assert (
        sweep("--memory-against", "HEAD~1", "--memory-revision", "main", "--memory-out", "out").ret
        == 0
    )
    assert all(from_git for *_, from_git in _turns(pytester))
    assert _manifest(pytester, "out")["code"]["asked"] == "main"


def test_what_is_missing_of_either_side_is_measured_when_the_run_is_resumed(sweep, pytester):
    """And nothing twice, although the branch has moved on; the code has to be what it was."""
    pytester.makepyfile(stop=STOP)
    assert sweep("--memory-against", "main~1", "--memory-out", "out", "-p", "stop").ret == 2
    lost = pytester.path / "out" / "then" / "rows.jsonl"
    lost.write_text(
        "".join(
            line for line in lost.read_text().splitlines(keepends=True) if '"repeat": 1' not in line
        )
    )
    (pytester.path / "turns").unlink()

    assert sweep("--memory-resume", "out").ret == 0
    assert _ends(pytester, "out") == _ends(pytester, "out/then") == EVERY_RUN
    assert sorted(turn[:3] for turn in _turns(pytester) if turn[1] >= 0) == [
        ["s-image_count=100", 1, "then"],
        ["s-image_count=500", 1, "out"],
        ["s-image_count=500", 1, "then"],
    ]


def test_a_run_is_not_resumed_with_other_code(sweep, pytester):
    """Two codes in one side would be neither."""
    pytester.makepyfile(stop=STOP)
    assert sweep("--memory-against", "main~1", "--memory-out", "out", "-p", "stop").ret == 2
    (pytester.path / "pkg/table.csv").write_text("1\n")
    done = sweep("--memory-resume", "out")

    assert done.ret == 4
    assert (
        "--memory-resume out: the working tree is not what it was when the run was started"
        in done.stderr.str()
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--memory-against", "v9"],
            "has no revision 'v9'; git branch --all and git tag list some",
        ),
        (
            ["--memory-revision", "main"],
            "--memory-revision main needs a revision to be compared with; add --memory-against REV",
        ),
        (
            ["--memory-against", "main", "-o", "memory_subject="],
            "where memory_subject says which packages are under test",
        ),
        (
            ["--memory-against", "main", "-o", "memory_subject=src/gone"],
            "has no src/gone, which memory_subject names",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_before_anything_is_measured(
    sweep, pytester, arguments, sentence
):
    """Exit code 4 of pytest, and no run directory."""
    done = sweep(*arguments, "--memory-out", "out")

    assert done.ret == 4
    assert sentence in done.stderr.str()
    assert not (pytester.path / "out").exists()
