"""Children of the zygote find what a fresh process finds, every time; a process that may not be
forked is not.
"""

import json
import os
from collections import Counter

import pytest

from harness.records import Outcome, Point
from harness.run.devices import emulated_device
from harness.run.launchers import SpawnLauncher, open_launcher
from harness.rundir.manifest import start_run
from harness.rundir.rows import PhaseRecord
from harness.words import MIB

CHILDREN = 200
POINT = Point(
    scenario="multiply",
    body="tests.harness.run.children:multiply",
    parameters={},
    phases=("multiply",),
)
# The last row of 1024 x 1024 whole numbers from 0, summed up in float32: 1024 * (1023 * 1024 +
# 511.5), within its precision.
ANSWER = 1024 * (1023 * 1024 + 511.5)


@pytest.fixture
def results(make_runner, tmp_path, project_root):
    """Answers and readings of so many children of a launcher."""

    def run(launcher, children):
        (tmp_path / "inputs").mkdir(exist_ok=True)
        (tmp_path / "inputs" / "answers").unlink(missing_ok=True)
        device = emulated_device("a test").with_budget(256 * MIB)
        runner = make_runner(
            run_directory=tmp_path / launcher.name,
            launcher=launcher,
            device=device,
            meters=("harness.measure.device:AllocatorMeter",),
        )
        start_run(
            runner.run_directory,
            points=[POINT],
            repeats=children,
            device=device,
            command="test",
            root=project_root,
            settings={},
        )
        ends = [runner.measure(POINT, repeat) for repeat in range(children)]
        rows = [
            json.loads(line)
            for line in (runner.run_directory / "rows.jsonl").read_text().splitlines()
        ]
        readings = [
            PhaseRecord.from_json(row).readings[0] for row in rows if row["kind"] == "phase"
        ]
        answers = [
            float(line) for line in (tmp_path / "inputs" / "answers").read_text().splitlines()
        ]
        return ends, readings, answers

    return run


def test_two_hundred_children_of_two_hundred_find_what_a_fresh_process_finds(results, zygote):
    """The answer of one operation, and the bytes of the device in use, to the byte."""
    ends, readings, answers = results(zygote, CHILDREN)
    _, fresh_readings, fresh_answers = results(SpawnLauncher(), 1)

    assert Counter(end.outcome for end in ends) == {Outcome.OK: CHILDREN}
    assert Counter(answers) == {fresh_answers[0]: CHILDREN}
    assert fresh_answers[0] == pytest.approx(ANSWER, rel=1e-6)
    assert Counter(readings) == {fresh_readings[0]: CHILDREN}
    assert fresh_readings[0].growth_bytes >= 4 * MIB


@pytest.fixture
def unfit(tmp_path):
    """An environment in which every interpreter starts a second thread before anything else."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }


def test_where_the_zygote_refuses_fresh_interpreters_are_used_and_every_row_says_so(
    unfit, project_root
):
    """By the launcher's name: its threads would not exist in the children."""
    launcher = open_launcher("auto", environment=unfit, folder=project_root)

    assert type(launcher) is SpawnLauncher
    assert launcher.name.startswith("spawn (no zygote: the import left 2 threads running: ")
