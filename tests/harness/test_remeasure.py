"""gate --remeasure: what may be noise is measured again, sealed again, and judged again; nothing is
lost on the way.
"""

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from harness import remeasure as remeasuring
from harness.__main__ import main
from harness.commands.gate import _Lines
from harness.errors import UsageError
from harness.judge.table import load_run
from harness.records import Outcome, Point
from harness.remeasure import Offender, Offenders, RemeasuredRun
from harness.run.devices import emulated_device
from harness.rundir.manifest import end_run, start_run
from harness.rundir.rows import RunEnd, append_line, open_rows
from harness.words import MIB

NAME = "arrays-lazy-image_count=500"
OTHER = "arrays-lazy-image_count=1000"
POLICY = """
schema_version = 1
[remeasure]
repeats = 3
because = "chosen"
[[budget]]
scenarios = ["arrays"]
phases = ["release"]
meters = ["device_in_use"]
field = "net_end"
at_most = "1 MiB"
because = "chosen"
"""


class Fake:
    """Instead of children: the rows that the synthetic run has for a repeat, and a list of what was
    asked for.
    """

    def __init__(self, run):
        self.run, self.asked, self.opened = run, [], 0
        self.fails_at = None

    def rows_of(self, point, repeat):
        more = self.run.further
        self.run.further = {point.name: repeat}
        found = [
            row
            for row in self.run.rows()
            if (row["point"], row.get("repeat")) == (point.name, repeat)
        ]
        self.run.further = more
        return found

    @contextlib.contextmanager
    def open(self, *_):
        self.opened += 1
        yield self.measure

    def measure(self, point, repeat):
        self.asked.append((point.name, repeat))
        rows = self.rows_of(point, repeat)
        if len(self.asked) == self.fails_at:
            self.append(rows[:3])
            raise KeyboardInterrupt
        self.append(rows)
        return RunEnd(
            point=point.name, repeat=repeat, outcome=Outcome.OK, cause="", reason="",
            phase=None, exit_code=0, launcher="x", duration_s=1.0,
        )  # fmt: skip

    def append(self, rows):
        descriptor = open_rows(self.run.path / "rows.jsonl")
        for row in rows:
            append_line(descriptor, json.dumps(row))
        os.close(descriptor)


def plant(run, repeats, name=NAME):
    run.plant(
        phase="release",
        meter="device_in_use",
        keep=True,
        extra=lambda point, repeat: 2 * MIB if point.name == name and repeat in repeats else 0,
    )


@pytest.fixture
def fake(synthetic_run, monkeypatch, tmp_path):
    """The lazy arrays, of which one repeat breaks its budget, and children that are none."""
    synthetic_run.keep_points(lambda point: point.name.startswith("arrays-lazy"))
    synthetic_run.manifest["root"] = str(tmp_path)
    (tmp_path / "gate.toml").write_text(POLICY)
    found = Fake(synthetic_run)
    monkeypatch.setattr(remeasuring, "check_same_here", lambda *_, **__: None)
    monkeypatch.setattr(remeasuring, "runner_opener", lambda *_: found.open)
    return found


def gate(fake, *more):
    return main(["gate", str(fake.run.path), *arguments(fake), *more])


def arguments(fake):
    """A policy, and a folder without a baseline."""
    policy, baselines = fake.run.path.parent / "gate.toml", fake.run.path.parent / "none"
    baselines.mkdir(exist_ok=True)
    return ["--policy", str(policy), "--baselines", str(baselines)]


@pytest.mark.parametrize(("over", "code"), [({1}, 0), ({1, 3}, 0), ({1, 3, 4}, 1)])
def test_only_the_point_of_the_finding_is_measured_again_and_most_decide(fake, capsys, over, code):
    """Three further repeats; the run is sealed again, so that nothing was edited."""
    plant(fake.run, over)
    fake.run.write()

    assert gate(fake) == 1
    assert gate(fake, "--remeasure") == code
    assert sorted(fake.asked) == [(NAME, 2), (NAME, 3), (NAME, 4)]
    assert load_run(fake.run.path).problems == ()
    assert gate(fake, "--verbose") == code
    said = " ".join(capsys.readouterr().out.split())
    assert f"measured again, {len(over)} of 5 runs are over it; 3 are needed" in said


def test_it_is_told_and_written_down(fake, capsys):
    """Where there is no terminal, a line for the first run and the last; run.json says when and
    which points, findings.json the decision.
    """
    plant(fake.run, {1})
    fake.run.write()
    gate(fake, "--remeasure", "--workers", "1")
    said = capsys.readouterr()
    (note,) = json.loads((fake.run.path / "run.json").read_text())["remeasured"]
    checks = json.loads((fake.run.path / "findings.json").read_text())["checks"]
    (check,) = [check for check in checks if check["decision"]]

    assert said.err.splitlines() == [
        f"measured again {n} of 3: {NAME}, repeat {n + 1}: ok" for n in (1, 3)
    ]
    assert said.out.startswith("Pass: all ")
    assert (
        note["points"],
        "--remeasure" in note["command"] or note["command"].startswith("python"),
    ) == ([NAME], True)
    assert check["repeats"] == [
        {"point": NAME, "runs": 5, "least_bytes": 0, "most_bytes": 2 * MIB, "spread_bytes": 2 * MIB}
    ]
    assert len(check["readings"]) == 5


def test_a_good_run_is_left_as_it_is(fake):
    """Nothing is announced, nothing opened, no byte changed."""
    fake.run.write()
    before = (fake.run.path / "run.json").read_bytes()

    assert gate(fake, "--remeasure") == 0
    assert (fake.asked, fake.opened, (fake.run.path / "run.json").read_bytes()) == ([], 0, before)


def test_what_all_repeats_show_alike_is_not_measured_again(fake):
    """It stands."""
    plant(fake.run, {0, 1})
    fake.run.write()

    assert gate(fake, "--remeasure") == 1
    assert fake.asked == []


def test_workers_share_the_work(fake):
    """Never more of them than runs; each opens what it measures with."""
    plant(fake.run, {1})
    plant(fake.run, {1}, name=OTHER)
    fake.run.write()

    assert gate(fake, "--remeasure", "--workers", "64") == 0
    assert len(fake.asked) == len(set(fake.asked)) == 6
    assert fake.opened == 6


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_an_interruption_loses_nothing_and_is_gone_on_with(fake, capsys, fails_at):
    """Exit code 3 and how to go on; until then the finding stands without a quorum; what had ended
    is not measured twice.
    """
    plant(fake.run, {1})
    fake.run.write()
    fake.fails_at = fails_at

    assert gate(fake, "--remeasure", "--workers", "1") == 3
    again = " ".join(
        ["python -m harness gate", str(fake.run.path), *arguments(fake), "--remeasure"]
    )
    assert f"go on with: {again}\n" in capsys.readouterr().err
    # it would speak for a run that has changed
    assert not (fake.run.path / "findings.json").exists()
    assert gate(fake, "--verbose") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "1 decide" not in said
    assert "the run has no end: it was broken off while it was measured again" in said
    assert "announced because of a finding" in said
    assert gate(fake, "--remeasure") == 0
    assert load_run(fake.run.path).problems == ()
    assert len(fake.asked) == 4
    assert len(set(fake.asked)) == 3


def test_a_run_that_was_never_whole_is_not_measured_again(fake, capsys):
    """It is gone on with first; its finding stands until then."""
    plant(fake.run, {1})
    fake.run.manifest["ended"] = None
    fake.run.write()

    assert gate(fake, "--remeasure") == 2
    assert (
        "was not measured to its end, so nothing can be measured again yet"
        in capsys.readouterr().err
    )
    assert fake.asked == []


@pytest.mark.parametrize(
    ("root", "words"),
    [(None, "is not recorded"), ("/nowhere/at/all", "was /nowhere/at/all, which is not there")],
)
def test_a_run_from_elsewhere_is_refused(fake, capsys, root, words):
    """Its folder is not here; judged as it is, it can be."""
    plant(fake.run, {1})
    fake.run.manifest["root"] = root
    fake.run.write()

    assert gate(fake, "--remeasure") == 2
    said = capsys.readouterr().err
    assert f"the folder that it was measured in {words}; judge it without --remeasure" in said
    assert gate(fake) == 1


def test_a_policy_that_does_not_say_how_often_measures_nothing_again(fake, capsys):
    """It is told, and the finding stands."""
    (fake.run.path.parent / "gate.toml").write_text(
        POLICY.replace('[remeasure]\nrepeats = 3\nbecause = "chosen"\n', "")
    )
    plant(fake.run, {1})
    fake.run.write()

    assert gate(fake, "--remeasure") == 1
    assert "there is no [remeasure] in " in capsys.readouterr().err


def test_workers_without_measuring_again_are_a_mistake(fake, capsys):
    """The option would do nothing."""
    fake.run.write()

    assert gate(fake, "--workers", "2") == 2
    assert "give it together with --remeasure" in capsys.readouterr().err


# --- with real children ---

BODY = """
import os
import signal
from pathlib import Path


def measure(memory, parameters):
    with memory.phase("load"):
        Path(parameters["log"]).open("a").write(f"{os.getpid()}\\n")
        if parameters.get("interrupts"):
            os.kill(os.getppid(), signal.SIGINT)
            signal.pause()
"""


@pytest.fixture
def real(tmp_path):
    """A foreign folder with a body of its own, and a run of it whose rows were written by hand."""
    (tmp_path / "mybody.py").write_text(BODY)

    def real(**fixed):
        point = Point(
            scenario="mine",
            body="mybody:measure",
            parameters={"size": 3},
            fixed={"log": str(tmp_path / "log"), **fixed},
            phases=("load",),
        )
        settings = {
            "device": "cpu",
            "isolation": "spawn",
            "host_limit_bytes": 5 * 1024 * MIB,
            "timeout_s": 60.0,
        }
        start_run(
            tmp_path / "run",
            points=[point],
            repeats=1,
            device=emulated_device("not asked: the emulated device was chosen"),
            command="test",
            root=tmp_path,
            settings=settings,
        )
        end_run(tmp_path / "run")
        return point, tmp_path / "run"

    return real


def test_a_foreign_body_is_measured_again_from_what_run_json_says(real):
    """Its own folder, device and limits; the children are real, and their rows are those of the
    next repeat.
    """
    point, directory = real()
    found = Offenders(points=(Offender(point=point.name, repeats=1, reason="a finding"),))
    steps = []
    count = remeasuring.remeasure(directory, found, command="test", on_run=steps.append, workers=1)
    run = load_run(directory)

    assert (count, [(step.done, step.repeat, step.outcome) for step in steps]) == (
        1,
        [(1, 1, "ok")],
    )
    assert list(run.ends["repeat"]) == [1]
    assert set(run.phases["phase"]) == {"load"}
    assert len((directory.parent / "log").read_text().splitlines()) == 1
    assert run.problems == ()


def test_ctrl_c_ends_the_children_and_the_next_attempt_goes_on(real):
    """Signals reach the main thread alone; the child that another thread waits for is gone when it
    returns.
    """
    point, directory = real(interrupts=True)
    found = Offenders(points=(Offender(point=point.name, repeats=2, reason="a finding"),))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            remeasuring.remeasure(directory, found, command="test", on_run=print, workers=2)
    finally:
        signal.signal(signal.SIGINT, before)
    for thread in threading.enumerate():
        if thread.name.startswith("remeasure"):
            # each child has sent its own Ctrl-C, and the second one cuts the waiting short
            thread.join()
    children = [int(line) for line in (directory.parent / "log").read_text().splitlines()]

    assert children
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert remeasuring.was_broken_off(directory)


def test_another_device_is_refused(real):
    """As a resumed run does: nothing is announced."""
    point, directory = real()
    manifest = json.loads((directory / "run.json").read_text())
    manifest["comparability"]["tensorflow"] = "1.0"
    (directory / "run.json").write_text(json.dumps(manifest))
    found = Offenders(points=(Offender(point=point.name, repeats=1, reason="a finding"),))
    with pytest.raises(
        UsageError,
        match=r"cannot be measured again: it was measured with tensorflow '1\.0', and here it is",
    ):
        remeasuring.remeasure(directory, found, command="test", on_run=print, workers=1)

    assert (directory / "rows.jsonl").read_bytes() == b""


def test_a_log_gets_the_first_line_the_last_and_one_every_half_minute_between():
    """Of 39 runs that take ten seconds each."""
    lines, clock = [], iter(range(0, 400, 10))
    tell = _Lines(lines.append, "", lambda: next(clock))
    for done in range(1, 40):
        tell(RemeasuredRun(done=done, total=39, point="load-lazy", repeat=done, outcome="ok"))

    told = [int(line.split()[2]) for line in lines]
    assert told == [*range(1, 40, 3), 39]
    assert lines[0] == "measured again 1 of 39: load-lazy, repeat 1: ok"
    tell = _Lines(lines.append, " with the earlier code", lambda: 0)
    tell(RemeasuredRun(done=40, total=40, point="load-lazy", repeat=2, outcome="ok"))
    assert lines[-1] == "measured again with the earlier code 40 of 40: load-lazy, repeat 2: ok"
