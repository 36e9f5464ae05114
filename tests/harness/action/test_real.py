"""The action in a repository of somebody else's, with nothing stood in for: real children, a real
finding, a real page.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.harness.action.job import Job, read_action

FILES = {
    "pyproject.toml": """
[tool.pytest.ini_options]
memory_subject = ["src/frames"]
""",
    "src/frames/__init__.py": "",
    "src/frames/loader.py": """
import tensorflow as tf


def load(count):
    return tf.fill([1, 1024, 1024], 2.0)
""",
    "memory_bodies.py": """
from frames.loader import load


def measure(memory, parameters):
    with memory.phase("load"):
        frames = load(parameters["frame_count"])
    del frames
""",
    "tests/test_memory.py": """
import pytest
from harness.records import Outcome, Point

POINT = Point(
    scenario="frames",
    body="memory_bodies:measure",
    parameters={"frame_count": 8},
    fixed={},
    phases=("load",),
    path="src",
)


@pytest.mark.parametrize("point", [POINT], ids=["frames"])
def test_frames(point, repeat, measure):
    assert measure(point, repeat).outcome is Outcome.OK
""",
    "scenarios/gate.toml": """
schema_version = 1

[[budget]]
scenarios = ["frames"]
phases = ["load"]
meters = ["device_in_use"]
field = "growth"
at_most = "8 MiB"
because = "Two frames of 4 MiB."
""",
}


@pytest.fixture
def repository(tmp_path, git_in):
    """A loader of one frame on origin/main, and a commit on top of it that loads all eight."""
    folder = tmp_path / "repository"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git_in(folder, "init", "-q")
    git_in(folder, "add", ".")
    git_in(folder, "commit", "-q", "-m", "one frame")
    git_in(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    loader = folder / "src" / "frames" / "loader.py"
    loader.write_text(loader.read_text().replace("[1, ", "[count, "))
    git_in(folder, "commit", "-q", "-am", "all frames")
    return folder


def test_a_pull_request_of_a_foreign_repository_is_measured_beside_its_target(
    repository, tmp_path, project_root
):
    """32 MiB where 8 MiB are allowed and 4 MiB were before: exit code 1, errors on the line that
    did it, a page.
    """
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = Job(
        action=read_action(project_root),
        workspace=repository,
        temporary=temporary,
        inputs={
            "pytest-arguments": "tests -p no:cacheprovider --memory-repeats 1 --memory-no-trace"
        },
        environment={
            "HOME": os.environ.get("HOME", str(tmp_path)),
            # python3 is the one of this session, whatever else is called so.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(project_root),
            "GITHUB_BASE_REF": "main",
            "GITHUB_RUN_ID": "7",
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_ACTION_PATH": str(project_root),
        },
    ).run()
    errors = [
        (properties["file"], properties["line"], message)
        for _, properties, message in done.commands
    ]
    (cause,) = [message for _, _, message in errors]

    assert shutil.which("python3", path=str(Path(sys.executable).parent))
    assert (done.exit_code, done.results["verdict"]) == (1, "regression"), done.log
    assert {(file, line) for file, line, _ in errors} == {("src/frames/loader.py", "6")}
    assert cause.startswith("frames keeps 32.0 MiB on the device (frames; first in load, "), cause
    assert (
        "allowed 8.0 MiB; device in use, load: 4.0 MiB at the merge base with origin/main" in cause
    )
    assert (
        "src/frames/loader.py is the only file of src/frames that differs from the merge "
        "base with origin/main." in cause
    )
    assert done.summary.startswith("[Page, plots and tables of this run](")
    assert re.search(
        r"device in use \| growth \| 32\.0 MiB \| 4\.0 MiB \| \+29,360,\d{3} B \| "
        r"\+(699|700)\.\d % \|",
        done.summary,
    ), done.summary
    assert {"report.html", "junit.xml", "rows.jsonl", "then"} <= done.uploads[0]
