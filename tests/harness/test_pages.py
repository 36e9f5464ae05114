"""Where the harness finds its pages: in the repository beside it, and nobody else's of the same
name.
"""

import shutil
import subprocess
import sys

import pytest

import harness.pages
from harness.pages import write_outputs

ASK = """
import sys
sys.path[:0] = sys.argv[1:]
from harness.pages import write_outputs
print(sys.modules[write_outputs.__module__].__file__)
"""


def ask(*folders):
    """The file that the pages come from in a fresh interpreter with these folders first; what it
    says, and its last error.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]


def test_in_the_repository_the_pages_are_beside_the_harness(project_root):
    """They are a part of it all the same, so that it does not matter where they lie."""
    assert write_outputs.__module__ == "harness.reports.writing"
    assert ask(project_root)[0] == str(project_root / "reports" / "writing.py")


def test_a_package_called_reports_that_comes_first_is_left_alone(project_root, tmp_path):
    """It is neither imported nor replaced."""
    (tmp_path / "reports.py").write_text("raise RuntimeError('this one is not ours')\n")

    assert ask(tmp_path, project_root) == (str(project_root / "reports" / "writing.py"), "")


def test_pages_inside_the_harness_go_before_those_beside_it(project_root, tmp_path):
    """As in an installation, where what lies beside it is somebody else's."""
    shutil.copytree(
        project_root / "harness",
        tmp_path / "harness",
        ignore=shutil.ignore_patterns("__pycache__", "pretended"),
    )
    shutil.copytree(
        project_root / "reports",
        tmp_path / "harness" / "reports",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "__init__.py").write_text(
        "raise RuntimeError('this one is not ours')\n"
    )

    assert ask(tmp_path) == (str(tmp_path / "harness" / "reports" / "writing.py"), "")


def test_a_harness_without_pages_says_so(project_root, tmp_path):
    """In one sentence, with what to do."""
    shutil.copytree(
        project_root / "harness",
        tmp_path / "harness",
        ignore=shutil.ignore_patterns("__pycache__", "pretended"),
    )
    said, error = ask(tmp_path)

    assert said == ""
    assert error.endswith(
        f"{tmp_path / 'harness'} has no pages, neither in it nor beside it; install the "
        "project with pip"
    )


def test_what_pages_do_not_have_is_no_attribute():
    """As of any other module."""
    with pytest.raises(
        AttributeError, match=r"'harness\.pages' has no attribute 'write_summaries'"
    ):
        harness.pages.write_summaries  # noqa: B018
