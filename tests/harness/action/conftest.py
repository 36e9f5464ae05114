"""Jobs that use the action: a python3 whose pip and pytest are not real, and whose harness is."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.harness.action.job import Job, read_action

# pip writes down what it was asked to install; pytest copies the run that it was given, says what
# it was given to say and exits as it was told; everything else is the real Python, which finds this
# tree's harness.
_PYTHON3 = """#!/bin/sh
case "$*" in
"-m pip install "*) printf '%s\\n' "$@" >> "$FAKE/pip"; exit "$(cat "$FAKE/pip-code")" ;;
"-P -c import harness.pytest_plugin") exit "$(cat "$FAKE/harness-is-missing")" ;;
"-P -m pytest"*)
  shift 3
  printf '%s\\n' "$@" > "$FAKE/pytest"
  env > "$FAKE/environment"
  cat "$FAKE/says"
  cat "$FAKE/complains" >&2
  for argument in "$@"; do
    case "$argument" in --memory-out=*) [ ! -d "$FAKE/run" ] || \
cp -R "$FAKE/run" "${argument#*=}" ;; esac
  done
  exit "$(cat "$FAKE/pytest-code")" ;;
*) exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Fake:
    """What the stand-ins do, and what they were asked."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in {
            "pip-code": "0",
            "harness-is-missing": "0",
            "pytest-code": "0",
            "says": "",
            "complains": "",
        }.items():
            self.set(name, text)

    def set(self, name, text):
        (self.folder / name).write_bytes(text.encode(errors="surrogateescape"))

    def asked(self, program):
        """The arguments, one for each line; None when it was not called."""
        path = self.folder / program
        return path.read_text().splitlines() if path.exists() else None

    def measures(self, run, *, code=0):
        """Let pytest leave this run directory."""
        shutil.copytree(run, self.folder / "run")
        self.set("pytest-code", str(code))


@pytest.fixture
def fake(tmp_path):
    folder = tmp_path / "fake"
    folder.mkdir()
    return Fake(folder)


@pytest.fixture
def git_in():
    """``git_in(folder, *arguments)``: git as somebody with a name."""

    def git_in(folder, *arguments):
        name = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main")
        return subprocess.run(
            ["git", *name, "-C", folder, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    return git_in


@pytest.fixture
def workspace(tmp_path, git_in):
    """A checkout of one commit: a package, a baseline and a readme."""
    folder = tmp_path / "checkout"
    for name in ("ptycho/feed.py", "scenarios/baselines/one.toml", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("one\ntwo\nthree\n")
    git_in(folder, "init", "-q")
    git_in(folder, "add", ".")
    git_in(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def job(tmp_path, project_root, workspace, fake):
    """``job(**inputs)``: a job on a push; the keyword ``target`` makes it one on a pull request."""
    programs, temporary = tmp_path / "bin", tmp_path / "temporary"
    programs.mkdir()
    temporary.mkdir()
    (programs / "python3").write_text(_PYTHON3)
    (programs / "python3").chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL") if name in os.environ}

    def job(*, target="", **inputs):
        return Job(
            action=read_action(project_root),
            workspace=workspace,
            temporary=temporary,
            inputs={name.replace("_", "-"): value for name, value in inputs.items()},
            environment={
                **kept,
                "PATH": f"{programs}:{os.environ['PATH']}",
                "PYTHONPATH": str(project_root),
                "REAL_PYTHON": sys.executable,
                "FAKE": str(fake.folder),
                "GITHUB_ACTIONS": "true",
                "GITHUB_BASE_REF": target,
                "GITHUB_RUN_ID": "7",
                "GITHUB_RUN_ATTEMPT": "1",
                "GITHUB_ACTION_PATH": str(project_root),
            },
        )

    return job
