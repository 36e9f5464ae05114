"""Two revisions from end to end: a repository of its own, real children, and the commit that made
memory worse.
"""

import json
import os
import subprocess
import sys

import pytest

MIB = 1024 * 1024
TEST = """
def test_loading(memory_run):
    memory_run("bodies:load", image_count=8)
"""
BODY = """
import mypkg

def load(memory, parameters):
    with memory.phase("load"):
        kept = mypkg.load(parameters["image_count"])
    del kept
"""
LOADER = """
import tensorflow as tf

def load(image_count):
    return tf.zeros([image_count * {bytes_per_image}], tf.uint8)
"""
SETTINGS = """
[tool.pytest.ini_options]
memory_subject = ["src/mypkg"]
"""


@pytest.fixture
def repository(tmp_path):
    """A project as a user has it: the package in src, a test, a body; three commits, the second of
    which costs 32 times more.
    """
    folder = tmp_path / "project"
    (folder / "src" / "mypkg").mkdir(parents=True)

    def git(*arguments):
        identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q", "-b", "main")
    for name, text in {
        "test_loading.py": TEST,
        "bodies.py": BODY,
        "pyproject.toml": SETTINGS,
        ".gitignore": "artifacts/\n",
    }.items():
        (folder / name).write_text(text)
    loader = folder / "src" / "mypkg" / "__init__.py"
    for number, bytes_per_image in enumerate([MIB // 8, 4 * MIB, 4 * MIB]):
        loader.write_text(f"# change {number}\n{LOADER.format(bytes_per_image=bytes_per_image)}")
        git("add", "-A")
        git("commit", "-q", "-m", f"change {number}")
        git("tag", f"c{number}")
    return folder


def run(folder, *command):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-P", "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=600,
    )


def test_the_commit_that_made_memory_worse_is_named(repository):
    """By its first line, with what it costs; each step has measured both sides, each from its own
    folder.
    """
    done = run(
        repository,
        "harness",
        "bisect",
        "c0",
        "--out",
        "artifacts/found",
        "--",
        "test_loading.py",
        "-p",
        "no:cacheprovider",
    )
    record = json.loads((repository / "artifacts/found/bisect.json").read_text())
    lines = done.stdout.splitlines()

    assert done.returncode == 1, done.stdout + done.stderr
    assert [suspect["title"] for suspect in record["suspects"]] == ["change 1"]
    assert "is the first bad commit, of " in lines[-3]
    assert lines[-3].endswith(": change 1")
    assert "load / device in use: grows by 32.0 MiB, at " in lines[-2]
    assert "1.0 MiB, tolerance 64.0 KiB" in lines[-2]
    for step in (repository / "artifacts/found").glob("*-*"):
        packages = [_package(step), _package(step / "then")]
        assert all("artifacts/revisions" in package for package in packages)
        assert len(set(packages)) == 2


def _package(directory):
    rows = [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]
    return next(row["packages"]["mypkg"] for row in rows if row["kind"] == "code")
