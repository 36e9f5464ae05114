"""Somebody's script, run whole in a child: what was alive, where, and how it ended."""

import errno
import json
import os
from pathlib import Path
from unittest.mock import Mock

import jsonschema
import pytest

from harness.__main__ import main
from harness.commands import why
from harness.records import Outcome
from harness.rundir.rows import RunEnd
from harness.rundir.traces import Alive, ScriptNote
from reports import script

MIB = 1024 * 1024
BUDGET = ["--device", "cpu", "--device-budget", "64MiB"]

OOM = """\
import sys
import tensorflow as tf

def load(rows):
    kept = []
    for _ in range(100):
        kept.append(tf.fill([rows, 1024], 1.0))
    return kept

print(__name__, sys.argv, flush=True)
print("said on standard error", file=sys.stderr)
load(int(sys.argv[1]))
"""
PEAK = """\
import os
import sys
import threading

import beside
import tensorflow as tf

tf.config.threading.set_inter_op_parallelism_threads(3)
os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
first = beside.make(1024)
second = tf.fill([1024, 2048], 2.0)
total = first[0, 0] + second[0, 0]
del first, second
if os.fork() == 0:
    print("forked", flush=True)
else:
    os.wait()
    threading.Thread(target=lambda: print("from a thread", flush=True)).start()
    sys.exit()
"""
BESIDE = """\
import tensorflow as tf

def make(rows):
    return tf.fill([rows, 1024], 1.0)
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The folder that a command is typed in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_described_by_the_schemas(directory):
    """Of a run that was just measured."""
    folder = Path(__file__).resolve().parents[3] / "docs" / "schemas"
    rows = (directory / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    for name, texts in (
        ("run", [(directory / "run.json").read_text(encoding="utf-8")]),
        ("rows", rows),
        ("findings", [(directory / "findings.json").read_text(encoding="utf-8")]),
    ):
        schema = json.loads((folder / f"{name}.schema.json").read_text(encoding="utf-8"))
        for text in texts:
            jsonschema.validate(json.loads(text), schema)


def found_as_json(capfd):
    return json.loads(capfd.readouterr().out)


@pytest.mark.oom
def test_a_script_that_runs_out_of_memory_is_told_what_filled_the_device(there, capfd):
    """To the byte, with the line that asked, in one command; its own output and its traceback are
    seen as without us.
    """
    (there / "oom.py").write_text(OOM)

    assert main(["why", *BUDGET, "--out", "kept", "--", "oom.py", "2048"]) == 1

    said, errors = capfd.readouterr()
    lines = said.splitlines()
    assert lines[0] == "__main__ ['oom.py', '2048']"
    assert lines[2].startswith(
        "oom.py ran out of the device's memory at oom.py:7 in load: 8.0 MiB for float32 "
        "[2048,1024] was asked for, with "
    )
    table = next(line.split() for line in lines if line.startswith("  Fill"))
    assert " ".join(table) == "Fill float32 [2048,1024] oom.py:7 in load 7 8.0 MiB 56.0 MiB"
    assert "said on standard error" in errors
    assert errors.count("Traceback (most recent call last)") == 1
    assert errors.count('File "oom.py", line 7, in load') == 1
    assert "harness" not in errors.partition("Traceback")[2]
    assert lines[-1] == "kept in kept"
    assert main(["report", "kept"]) == 0
    assert_described_by_the_schemas(there / "kept")


def test_a_script_that_ends_is_told_its_peak(there, capfd):
    """What it forks, sets too late, imports from beside itself, leaves to threads is seen too."""
    (there / "scripts").mkdir()
    (there / "scripts" / "peak.py").write_text(PEAK)
    (there / "scripts" / "beside.py").write_text(BESIDE)

    assert main(["why", *BUDGET, "--json", "scripts/peak.py"]) == 0

    said, errors = capfd.readouterr()
    found = json.loads(said)
    fills = {one["shape"]: one for one in found["alive"] if one["op"] == "Fill"}
    assert found["outcome"] == "ok"
    assert {shape: one["each_bytes"] * one["count"] for shape, one in fills.items()} == {
        "[1024,1024]": 4 * MIB,
        "[1024,2048]": 8 * MIB,
    }
    assert fills["[1024,1024]"]["lines"] == {"scripts/beside.py:4 in make": 1}
    assert fills["[1024,2048]"]["lines"] == {"scripts/peak.py:11": 1}
    assert 12 * MIB <= found["requested_peak_bytes"] <= 12 * MIB + 4096
    assert 12 * MIB <= found["peak_bytes"] <= 12 * MIB + 16 * 1024
    assert found["forks"] == 1
    assert found["ignored"] == [
        "tf.config.threading.set_inter_op_parallelism_threads",
        "TF_FORCE_GPU_ALLOW_GROWTH",
    ]
    assert [line for line in errors.splitlines() if line in ("forked", "from a thread")] == [
        "forked",
        "from a thread",
    ]


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (
            "print('no TensorFlow')\n",
            3,
            "script.py ended. It allocated no memory of TensorFlow's on the device, so there is ",
        ),
        ("import sys\nsys.exit(7)\n", 7, "script.py exited with code 7. It allocated no "),
        ("import sys\nsys.exit('why not')\n", 1, "script.py exited with code 1. It allocated no "),
        (
            "def f():\n    raise ValueError('too few')\nf()\n",
            1,
            "script.py failed at script.py:2 in f: ValueError: too few. It allocated no ",
        ),
        ("x = (\n", 1, "script.py failed at script.py:1: SyntaxError: '(' was never closed"),
        (
            "import os\nos._exit(5)\n",
            5,
            "script.py left by itself, before its end: exit code 5. What it held on the device is ",
        ),
        (
            "import os\nos.kill(os.getpid(), 9)\n",
            137,
            "script.py crashed: killed by SIGKILL. What it held on the device is unknown: ",
        ),
    ],
    ids=["no TensorFlow", "a code", "a text", "an error", "a mistake", "at once", "killed"],
)
def test_every_other_end_has_a_sentence_and_the_code_of_a_shell(there, capfd, text, code, sentence):
    """A script without an allocation is no success: nothing was seen."""
    (there / "script.py").write_text(text)

    assert main(["why", *BUDGET, "--json", "--", "script.py"]) == code
    assert found_as_json(capfd)["sentence"].startswith(sentence)


@pytest.mark.oom
def test_a_crash_for_want_of_memory_is_told_as_such_and_a_larger_budget_shows_the_peak(
    there, capfd
):
    """A copy that gets no memory ends TensorFlow by SIGSEGV, and the recording with it."""
    (there / "copies.py").write_text(
        "import numpy as np, tensorflow as tf\n"
        "kept = [tf.constant(np.ones((4, 1024, 1024), 'f4')) for _ in range(10)]\n"
    )

    assert main(["why", *BUDGET, "copies.py"]) == 139
    said = capfd.readouterr().out.splitlines()
    assert said[1].startswith("copies.py ran out of the device's memory at copies.py:2")
    assert said[2].endswith("with a larger --device-budget its peak is told.")
    assert main(["why", "--device", "cpu", "--device-budget", "256MiB", "--json", "copies.py"]) == 0
    alive = found_as_json(capfd)["alive"]
    assert sum(one["each_bytes"] * one["count"] for one in alive) >= 160 * MIB


def test_lines_of_operations_inside_functions_are_found_by_the_end_of_their_path():
    """TensorFlow puts the names of callers before it; an exact match comes first."""
    lines = {
        ("Mul", "[4]", "float32"): {"a.py:1": 1},
        ("model/dense/MatMul", "", ""): {"a.py:2": 3},
    }
    made = {"region": "output", "each_bytes": 16, "count": 1, "like": ""}

    def called_at(op, shape="[4]"):
        return dict(script._called_at(Alive(op=op, shape=shape, dtype="float32", **made), lines))

    assert called_at("Mul") == {"a.py:1": 1}
    assert called_at("Mul", "[5]") == {}
    assert called_at("StatefulPartitionedCall/model/dense/MatMul") == {"a.py:2": 3}
    assert called_at("other/dense/MatMul") == {}


@pytest.mark.parametrize(
    ("operation", "shown"),
    [
        ("Mul", "Mul"),
        ("", ""),
        ("model/dense/MatMul", "model/dense/MatMul"),
        (f"{'a' * 40}/dense/MatMul", ".../dense/MatMul"),
        ("b" * 60, "b" * 60),
    ],
)
def test_of_a_long_path_the_end_is_shown(operation, shown):
    """Whole parts of it."""
    assert script._end_of_path(operation) == shown


@pytest.mark.oom
def test_a_script_over_its_host_budget_is_ended(there, capfd):
    """The budget is the script's own: the emulated device comes on top."""
    (there / "host.py").write_text(
        "held = []\nwhile True:\n    held.append(bytearray(10_000_000))\n"
    )

    assert main(["why", *BUDGET, "--host-budget", "500MiB", "host.py"]) == 137
    said = capfd.readouterr().out
    assert "host.py ran out of the host's memory: the harness killed it: it held " in said
    assert "--host-budget 500.0 MiB" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no script was named; write it after two dashes: why -- train.py"),
        (["--"], "no script was named; write it after two dashes: why -- train.py"),
        (["--", "trian.py"], "there is no file trian.py (did you mean train.py?)"),
        (["folder"], "folder is a folder; name the Python file in it that is to be run"),
        (["--page", "train.py"], "--page was given without --out; name a folder to keep it in"),
        (["--out", "kept", "train.py"], "--out kept holds a run already; name a new folder"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(there, capfd, arguments, sentence):
    """Nothing is started, and the code is 2."""
    (there / "train.py").touch()
    (there / "folder").mkdir()
    (there / "kept").mkdir()
    (there / "kept" / "run.json").touch()

    assert main(["why", *arguments]) == 2
    assert capfd.readouterr().err == f"harness: {sentence}\n"


def test_a_script_that_cannot_be_read_is_one_sentence(there, capfd, monkeypatch):
    """With the system's own words; root, who reads every file, is told so here as well."""
    (there / "train.py").touch()
    refusal = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(why.Path, "open", Mock(side_effect=refusal))

    assert main(["why", "train.py"]) == 2
    assert capfd.readouterr().err == "harness: train.py cannot be read: Permission denied\n"


@pytest.mark.parametrize(
    ("end", "note", "code"),
    [
        ({"outcome": Outcome.DEVICE_OOM, "exit_code": -11}, {}, 139),
        ({"outcome": Outcome.DEVICE_OOM, "exit_code": 0}, {"exit_code": 1}, 1),
        ({"outcome": Outcome.SKIPPED, "exit_code": None}, {}, 3),
        ({"outcome": Outcome.ERROR, "cause": "import", "exit_code": 0}, {}, 3),
        ({"outcome": Outcome.HOST_OOM, "exit_code": 0}, {}, 1),
    ],
)
def test_the_exit_code_follows_from_the_end(end, note, code):
    """The signal of a crash counts from 128, what was never run is incomplete."""
    ended = RunEnd(**{"point": "why", "repeat": -1, "cause": "", "reason": "r", "phase": None,
                      "launcher": "spawn", "duration_s": 1.0, **end})  # fmt: skip
    found = script.Found(
        script="train.py",
        end=ended,
        device={},
        trace=None,
        without_trace="r",
        note=ScriptNote(**note),
        host=None,
    )

    assert found.exit_code == code
