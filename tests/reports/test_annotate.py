"""What a run directory knows of where its findings belong: the packages it compared or imported,
and the revision.
"""

import json
import subprocess

import pytest

from harness.judge import run_digest
from harness.judge.gate import SCHEMA_VERSION
from reports.annotate import annotate


@pytest.fixture
def project(tmp_path):
    """A repository in which two packages and a body changed after the first commit."""
    for name in ("src/loader/feed.py", "src/other/large.py", "bodies/epoch.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")

    def git(*arguments):
        name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ["git", *name, "-C", tmp_path, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    first = git("rev-parse", "HEAD")
    (tmp_path / "src/loader/feed.py").write_text("one\ntwo\n")
    (tmp_path / "src/other/large.py").write_text("two\n" * 50)
    (tmp_path / "bodies/epoch.py").write_text("two\n" * 90)
    return tmp_path, first


@pytest.fixture
def told(project):
    """``told(manifest, *rows, **arguments)``: file and line of the one cause of a run directory
    with these.
    """
    folder, first = project
    run = folder / "run"
    run.mkdir()
    cause = {"id": "a", "finding": "regression", "told": "b", "checks": [0], "following": ""}
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict": "regression",
        "exit_code": 1,
        "sentence": "b",
        "causes": [cause],
        "checks": [{"rule": "slope", "sentence": "b"}],
    }

    def told(manifest, *rows, since=first, subjects=()):
        (run / "run.json").write_text(
            json.dumps({"planned": [{"body": "bodies.epoch:measure"}], **manifest})
        )
        (run / "rows.jsonl").write_text(
            "".join(f"{json.dumps(row)}\n" for row in rows) + 'damaged "code"\n'
        )
        (run / "findings.json").write_text(
            json.dumps({**document, "judgement": {"run": run_digest(run)}})
        )
        (line,) = annotate(run, since=since, subjects=subjects, policy=None, folder=folder)
        return line.partition(",title=")[0]

    return told


def test_the_packages_that_were_compared_are_the_ones_under_test(told):
    """Whatever else was imported and changed more."""
    assert told({"code": {"subjects": ["src/loader"]}}) == "::error file=src/loader/feed.py,line=2"


def test_without_a_comparison_it_is_what_the_children_imported(told, project):
    """A package by its folder, never that of the bodies or the harness itself, and nothing outside
    of the project.
    """
    packages = {
        "loader": str(project[0] / "src/loader/__init__.py"),
        "bodies": str(project[0] / "bodies/__init__.py"),
        "harness": str(project[0] / "src/other/__init__.py"),
        "numpy": "/usr/lib/numpy/__init__.py",
    }
    row = {"kind": "code", "point": "a", "repeat": 0, "packages": packages}
    announced = {"kind": "point", "point": "b", "record": {"body": "bodies.epoch:measure"}}

    assert (
        told({}, row)
        == told({"planned": []}, announced, row)
        == "::error file=src/loader/feed.py,line=2"
    )


def test_what_is_asked_for_comes_before_what_the_run_knows(told):
    """--subject."""
    assert (
        told({"code": {"subjects": ["src/loader"]}}, subjects=["src/other"])
        == "::error file=src/other/large.py,line=1"
    )


def test_the_revision_is_the_one_that_the_run_was_compared_with(told, project):
    """Where none is asked for; a run that was compared with none has no file."""
    subject = {"code": {"subjects": ["src/loader"]}}

    assert (
        told({**subject, "against": {"commit": project[1]}}, since=None)
        == "::error file=src/loader/feed.py,line=2"
    )
    assert told(subject, since=None).startswith("::error title=")
