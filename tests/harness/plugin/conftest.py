"""A project of somebody else's, whose bodies are faked: their rows are written without a child."""

import json
import os
from pathlib import Path

import pandas as pd  # noqa: F401 - no session inside this process may import it, or numpy, anew
import pytest
import scipy.stats  # noqa: F401 - likewise

import harness.plugin.judgement  # noqa: F401 - likewise; and it is quicker
from harness.plugin import turns

FAKED = (Path(__file__).parent / "faked.py").read_text(encoding="utf-8")
MIB = 1024 * 1024


@pytest.fixture
def project(pytester, monkeypatch):
    """``project(TEST, *arguments)``: a session over one test file, in this process; with workers,
    in processes of its own.
    """
    # the faked conftest replaces it; put back afterwards
    monkeypatch.setattr(turns, "open_runner", turns.open_runner)
    pytester.makeconftest(FAKED)

    def run(test, *arguments, **modules):
        files = modules | ({} if test is None else {"test_memory": f"import pytest\n{test}"})
        if files:
            pytester.makepyfile(**files)
        pytester.syspathinsert()
        options = ("-p", "no:cacheprovider", "-p", "no:randomly", *arguments)
        separate = "-n" in arguments or "TROUBLE" in os.environ
        return (
            pytester.runpytest_subprocess(*options, timeout=120)
            if separate
            else pytester.runpytest_inprocess(*options)
        )

    return run


@pytest.fixture
def run_json(pytester):
    """run.json of the run in ``out``."""
    return lambda name="out": json.loads((pytester.path / name / "run.json").read_text())


@pytest.fixture
def rows(pytester):
    """Rows of the run in ``out``, of one kind."""

    def rows(kind, name="out"):
        lines = (pytester.path / name / "rows.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if row["kind"] == kind]

    return rows


@pytest.fixture
def said():
    """``said(result)``: what a session has printed, as one line: sentences are wrapped where they
    are printed.
    """
    return lambda result: " ".join(result.stdout.str().split())
