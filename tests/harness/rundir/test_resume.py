"""A sweep that is broken off in every way loses no finished row; what is missing is measured later.
Children are faked.
"""

import json
from fnmatch import fnmatch

import pytest

from harness.judge.completeness import missing_from_run
from harness.judge.table import load_run
from harness.records import TRACED_REPEAT
from harness.rundir.manifest import hold_run_directory

SWEEP = """
from harness.records import Point
import pytest

POINTS = [
    Point(scenario="s", body="bodies:b", parameters={"image_count": count}, phases=("construct",))
    for count in (100, 500, 1000, 2000)
]

@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
def test_point(point, repeat, measure):
    assert measure(point, repeat).outcome is point.expected
"""

FAKE_RUNNER = """
import json, os, signal, time
from pathlib import Path
import pytest
from harness.errors import RunDirectoryError
from harness.records import TRACED_REPEAT, Outcome
from harness.rundir.rows import Begin, Done, PhaseRecord, RunEnd, TraceEnd, append_row, open_rows

class FakeRunner:
    def __init__(self, directory):
        self.directory = directory

    def measure(self, point, repeat):
        run = {"point": point.name, "repeat": repeat}
        name = f"{point.name} {repeat}"
        trouble = json.loads(os.environ.get("TROUBLE", "{}"))
        rows = open_rows(self.directory / "rows.jsonl")
        with open("started.txt", "a") as file:
            file.write(name + "\\n")
        if repeat == TRACED_REPEAT:
            file = "f.json.gz"
            end = TraceEnd(point=point.name, outcome=Outcome.OK, cause="", reason="", file=file, \
launcher="fake", duration_s=0.0)
            append_row(rows, end)
        else:
            append_row(rows, Begin(**run, phase="construct", index=0))
            if name == trouble.get("at") and not Path("troubled").exists():
                Path("troubled").touch()
                TROUBLES[trouble["what"]](rows)
            phase = PhaseRecord(**run, phase="construct", index=0, finished=True, duration_s=0.0, \
readings=())
            append_row(rows, phase)
            append_row(rows, Done(**run, outcome=Outcome.OK, cause="", reason=""))
            end = RunEnd(
                **run, outcome=Outcome.OK, cause="", reason="", phase=None, exit_code=0, \
launcher="fake", duration_s=0.0
            )
            append_row(rows, end)
        os.close(rows)
        return end

def interrupt(rows):
    raise KeyboardInterrupt

def terminate(rows):
    os.kill(CONTROLLER, signal.SIGTERM)
    signal.pause()

def kill_this_process(rows):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_the_controller(rows):
    os.kill(CONTROLLER, signal.SIGKILL)
    signal.pause()

def tear(rows):
    os.write(rows, b'{"kind": "phase", "point": "s-im')
    raise RunDirectoryError("the end of s cannot be written to rows.jsonl: No space left on device")

TROUBLES = {
    "interrupt": interrupt, "terminate": terminate, "kill": kill_this_process, \
"kill_controller": kill_the_controller, "tear": tear
}

@pytest.fixture(scope="session")
def memory_runner(pytestconfig):
    from harness.plugin.session import SESSION
    global CONTROLLER
    # Not by an environment variable: this session may itself have been started by a worker of \
another one.
    CONTROLLER = os.getppid() if hasattr(pytestconfig, "workerinput") else os.getpid()
    return FakeRunner(pytestconfig.stash[SESSION].directory)
"""


@pytest.fixture
def sweep(pytester, monkeypatch):
    """A project with a sweep of four points, two repeats and a trace of each; ``at`` one run,
    something happens once.
    """
    pytester.makepyfile(test_sweep=SWEEP)
    pytester.makeconftest(FAKE_RUNNER)

    def run(*arguments, what=None, at="s-image_count=500 0"):
        monkeypatch.delenv("TROUBLE", raising=False)
        if what is not None:
            monkeypatch.setenv("TROUBLE", json.dumps({"what": what, "at": at}))
        (pytester.path / "started.txt").unlink(missing_ok=True)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=120)

    return run


def manifest(pytester):
    return json.loads((pytester.path / "out" / "run.json").read_text())


def ended(pytester):
    """Runs whose rows are all whole: the line that was cut short may have taken another worker's
    next one with it.
    """
    kinds: dict[tuple[str, int], set[str]] = {}
    for line in (pytester.path / "out" / "rows.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        run = row["point"], TRACED_REPEAT if row["kind"] == "traced" else row["repeat"]
        kinds.setdefault(run, set()).add(row["kind"])
    return [
        run
        for run, found in kinds.items()
        if found >= {"traced"} or found >= {"begin", "phase", "done", "end"}
    ]


def started(pytester):
    path = pytester.path / "started.txt"
    return path.read_text().splitlines() if path.exists() else []


def missing(pytester):
    return list(missing_from_run(load_run(pytester.path / "out")))


ALL = [
    (f"s-image_count={count}", repeat)
    for count in (100, 500, 1000, 2000)
    for repeat in (TRACED_REPEAT, 0, 1)
]
WAYS = ["interrupt", "terminate", "kill", "kill_controller", "tear"]


@pytest.mark.parametrize(
    ("what", "workers"),
    [
        (what, workers)
        for what in WAYS
        for workers in ((), ("-n", "2"))
        if not (what == "kill_controller" and not workers)
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "serial",
)
def test_a_sweep_that_is_broken_off_is_resumed_without_measuring_anything_twice(
    sweep, pytester, what, workers
):
    """Ctrl-C, SIGTERM, a killed worker or controller, a full disk: what has ended stays, what is
    missing is measured.
    """
    sweep("--memory-out", "out", *workers, what=what)
    before = ended(pytester)
    resumed = sweep("--memory-resume", "out", *workers)

    assert 0 < len(before) < 12
    assert ("s-image_count=500", 0) not in before or what == "kill", (
        "a worker that is killed is replaced"
    )
    assert resumed.ret == pytest.ExitCode.OK
    assert sorted(started(pytester)) == sorted(f"{p} {r}" for p, r in ALL if (p, r) not in before)
    assert sorted(ended(pytester)) == sorted(ALL)
    resumed.stdout.fnmatch_lines([f"{len(before)} of 12 runs were there already"])
    assert missing(pytester) == []
    assert [note["runs_there_already"] for note in manifest(pytester)["resumed"]] == [len(before)]


@pytest.fixture
def half(sweep):
    """A run that Ctrl-C has broken off."""
    return sweep("--memory-out", "out", what="interrupt")


def test_the_summary_of_a_run_that_was_broken_off_says_how_to_go_on(half):
    """And nobody has to look for the directory."""
    half.stdout.fnmatch_lines(
        ["broken off; nothing finished is lost, go on with:  pytest * --memory-resume=out"]
    )


def test_a_full_disk_ends_the_sweep_with_one_sentence(sweep):
    """No traceback, no failure for every run that could not be measured any more."""
    result = sweep("--memory-out", "out", what="tear")

    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*the end of s cannot be written to rows.jsonl: No space left on device*"]
    )
    assert "Traceback" not in result.stdout.str()


def test_a_run_that_is_whole_is_resumed_to_nothing_and_that_is_no_failure(sweep, pytester):
    """Exit code 0, though nothing was collected; and it has its end."""
    sweep("--memory-out", "out")
    result = sweep("--memory-resume", "out")

    assert (result.ret, started(pytester)) == (pytest.ExitCode.OK, [])
    result.assert_outcomes(deselected=12)
    result.stdout.fnmatch_lines(["12 of 12 runs were there already"])
    assert manifest(pytester)["ended"] is not None


def test_a_part_can_be_resumed_and_the_plan_stays_whole(half, sweep, pytester):
    """-k chooses among what is missing."""
    sweep("--memory-resume", "out", "-k", "2000")

    assert sorted(started(pytester)) == [f"s-image_count=2000 {repeat}" for repeat in (-1, 0, 1)]
    assert len(manifest(pytester)["planned"]) == 4


def test_points_that_the_run_did_not_select_are_not_measured_now(sweep, pytester):
    """The first run had -k; it need not be said again."""
    sweep("--memory-out", "out", "-k", "500", what="interrupt")
    result = sweep("--memory-resume", "out")

    assert result.ret == pytest.ExitCode.OK
    assert {name.split()[0] for name in started(pytester)} == {"s-image_count=500"}


def test_listing_what_is_missing_changes_nothing(half, sweep, pytester):
    """--collect-only."""
    before = (pytester.path / "out" / "run.json").read_bytes()
    result = sweep("--memory-resume", "out", "--collect-only", "-q")

    assert (pytester.path / "out" / "run.json").read_bytes() == before
    assert "s-image_count=100-repeat=0" not in result.stdout.str()
    assert "s-image_count=500-repeat=0" in result.stdout.str()


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--memory-repeats", "3"),
            (
                "--memory-repeats 3 was given, but out was started with 2; leave the option "
                "out, or start a new run"
            ),
        ),
        (
            ("--memory-timeout", "9"),
            "--memory-timeout 9.0 was given, but out was started with 300.0; leave*",
        ),
        (
            ("--memory-out", "other"),
            "--memory-resume out resumes the run in that directory; leave --memory-out other out",
        ),
        (
            ("--memory-resume", "nowhere"),
            (
                "nowhere is not a run directory; name a folder that pytest --memory-out wrote "
                "(this folder holds *)"
            ),
        ),
    ],
)
def test_options_that_contradict_the_run_are_refused_in_one_sentence(
    half, sweep, arguments, sentence, workers
):
    """Those that it was started with need not be given again, and may not differ."""
    result = sweep("--memory-resume", "out", *arguments, *workers)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{sentence}"])
    assert "Traceback" not in result.stderr.str()


def change(pytester, section, **values):
    found = manifest(pytester)
    found[section].update(values)
    (pytester.path / "out" / "run.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("section", "values", "sentence"),
    [
        (
            "environment",
            {"git_commit": "0123abcd"},
            "measured with git_commit 0123abcd, and here it is *; check that commit out, *",
        ),
        (
            "environment",
            {"git_changes": "0123abcd"},
            "measured with git_changes 0123abcd, and here it is *; bring the changes *",
        ),
        (
            "environment",
            {"numpy": "1.0"},
            "measured with numpy 1.0, and here it is *; go on where it was started, or start *",
        ),
        (
            "comparability",
            {"device": "a card"},
            "measured with device 'a card', and here it is 'emulated, 3.0 GiB'",
        ),
        (
            "comparability",
            {"tensorflow": "1.15"},
            "measured with tensorflow '1.15', and here it is *",
        ),
    ],
)
def test_another_device_version_or_commit_is_refused_in_one_sentence(
    half, sweep, pytester, section, values, sentence
):
    """One run is one thing."""
    change(pytester, section, **values)
    rows = (pytester.path / "out" / "rows.jsonl").read_bytes()
    result = sweep("--memory-resume", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*out cannot be resumed: it was {sentence}"])
    assert (pytester.path / "out" / "rows.jsonl").read_bytes() == rows


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            "(100, 500, 1000, 2000)",
            "(100, 500, 1000)",
            "1 of its 4 planned points are not among those collected now, the first is *",
        ),
        (
            'phases=("construct",)',
            'phases=("open",)',
            "the point s-image_count=100 is defined differently now (phases); *",
        ),
    ],
)
def test_a_plan_that_has_changed_is_refused_in_one_sentence(
    half, sweep, pytester, before, after, sentence, workers
):
    """Options that choose points must be given again; the sentence says how it was started."""
    pytester.makepyfile(test_sweep=SWEEP.replace(before, after))
    result = sweep("--memory-resume", "out", *workers)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "resumed" not in manifest(pytester)
    assert "INTERNALERROR" not in result.stdout.str()
    assert started(pytester) == []
    assert [
        line
        for line in result.outlines + result.errlines
        if fnmatch(line, f"*out cannot be resumed: {sentence}")
    ]
    assert "Traceback" not in result.stderr.str()


def test_two_sessions_do_not_measure_into_one_directory(half, sweep, pytester):
    """The lock is the kernel's: who is killed does not hold it."""
    with hold_run_directory(pytester.path / "out"):
        result = sweep("--memory-resume", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*out is still being measured by another session; wait for it, or stop it first"]
    )
