"""What ``import harness`` gives: few names, each loaded when it is asked for."""

import pydoc
import subprocess
import sys

import pytest

import harness

LIGHT = """
import sys
import harness
dir(harness)
print(sorted(name for name in sys.modules if name.startswith("harness.")))
print({"numpy", "pandas", "pydantic", "pytest", "rich", "tensorflow"} & sys.modules.keys() or "")
"""


def test_importing_it_imports_nothing_else():
    """Neither a module of its own nor a library."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n\n"


@pytest.mark.parametrize("name", harness.__all__)
def test_every_name_is_there_and_documented(name):
    """Completion shows them and no other."""
    found = getattr(harness, name)

    assert found.__name__ == name
    assert found.__doc__
    assert name in dir(harness)


def test_completion_shows_what_is_for_users():
    """Sorted."""
    assert dir(harness) == sorted(harness.__all__)


def test_an_unknown_name_is_no_attribute():
    """As of any other module."""
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'laod'"):
        harness.laod  # noqa: B018


def test_help_says_how_to_load_and_to_judge_a_run():
    """What a person reads first, with the columns of every table and their units."""
    text = pydoc.render_doc(harness, renderer=pydoc.plaintext)

    assert 'run = harness.load("RUN")' in text
    assert "judge_run(" in text
    for table in ("phases", "fits", "findings", "runs", "traces"):
        assert table in text
    assert "duration_s" in text
    assert max(map(len, text.splitlines())) < 600
