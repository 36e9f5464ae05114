"""A sweep that is broken off in every way loses no finished row, and ``--resume`` measures what is missing. Children are faked."""

import json

import pytest

from harness.judge.completeness import missing_from_run
from harness.judge.table import load_run
from harness.records import TRACED_REPEAT

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
from harness.records import TRACED_REPEAT, Outcome, PhaseRecord, RunEnd, TraceEnd, append_row, open_rows, to_json

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
            end = TraceEnd(point=point.name, outcome=Outcome.OK, cause="", reason="", file="f", launcher="fake", duration_s=0.0)
            append_row(rows, {"kind": "traced", **to_json(end)})
        else:
            append_row(rows, {"kind": "begin", **run, "phase": "construct", "index": 0})
            if name == trouble.get("at") and not Path("troubled").exists():
                Path("troubled").touch()
                TROUBLES[trouble["what"]](rows)
            phase = PhaseRecord(**run, phase="construct", index=0, finished=True, duration_s=0.0, readings=())
            append_row(rows, {"kind": "phase", **to_json(phase)})
            append_row(rows, {"kind": "done", **run, "outcome": "ok", "cause": "", "reason": ""})
            end = RunEnd(
                **run, outcome=Outcome.OK, cause="", reason="", phase=None, exit_code=0, launcher="fake", duration_s=0.0
            )
            append_row(rows, {"kind": "end", **to_json(end)})
        os.close(rows)
        return end

def interrupt(rows):
    raise KeyboardInterrupt

def terminate(rows):
    os.kill(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid(), signal.SIGTERM)
    signal.pause()

def kill_this_process(rows):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_the_controller(rows):
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()

def tear(rows):
    os.write(rows, b'{"kind": "phase", "point": "s-im')
    raise RunDirectoryError("the end of s cannot be written to rows.jsonl: No space left on device")

TROUBLES = {
    "interrupt": interrupt, "terminate": terminate, "kill": kill_this_process, "kill_controller": kill_the_controller, "tear": tear
}

@pytest.fixture(scope="session")
def memory_runner(pytestconfig):
    from harness.pytest_plugin import _DIRECTORY
    return FakeRunner(pytestconfig.stash[_DIRECTORY])
"""


@pytest.fixture
def sweep(pytester, monkeypatch):
    """A project with a sweep of four points, two repeats and a trace of each; ``at`` one run, something happens once."""
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
    """Runs that have an end row, whole."""
    rows = []
    for line in (pytester.path / "out" / "rows.jsonl").read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [
        (row["point"], TRACED_REPEAT if row["kind"] == "traced" else row["repeat"])
        for row in rows
        if row["kind"] in ("end", "traced")
    ]


def started(pytester):
    path = pytester.path / "started.txt"
    return path.read_text().splitlines() if path.exists() else []


def missing(pytester):
    return list(missing_from_run(load_run(pytester.path / "out")))


WAYS = ["interrupt", "terminate", "kill", "kill_controller", "tear"]


@pytest.mark.parametrize(
    ("what", "workers"),
    [(what, workers) for what in WAYS for workers in ((), ("-n", "2")) if not (what == "kill_controller" and not workers)],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "serial",
)
def test_a_sweep_that_is_broken_off_is_resumed_without_measuring_anything_twice(sweep, pytester, what, workers):
    """Ctrl-C, SIGTERM, a killed worker or controller, a full disk: what has ended stays, what is missing is measured."""
    sweep("--memory-out", "out", *workers, what=what)
    before = ended(pytester)
    resumed = sweep("--resume", "out", *workers)

    assert 0 < len(before) < 12
    assert ("s-image_count=500", 0) not in before or what == "kill", "a worker that is killed is replaced"
    assert resumed.ret == pytest.ExitCode.OK
    assert sorted(started(pytester)) == sorted(f"{p} {r}" for p, r in ALL if (p, r) not in before)
    assert sorted(ended(pytester)) == sorted(ALL)
    resumed.stdout.fnmatch_lines([f"{len(before)} of 12 runs were there already"])
    assert missing(pytester) == []
    assert [note["runs_there_already"] for note in manifest(pytester)["resumed"]] == [len(before)]


ALL = [(f"s-image_count={count}", repeat) for count in (100, 500, 1000, 2000) for repeat in (TRACED_REPEAT, 0, 1)]
