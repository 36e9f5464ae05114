"""Where the harness finds its pages: in the repository beside it, and nobody else's of the same
name; and what it does without them.
"""

import os
import shutil
import subprocess
import sys

import pytest

import harness.commands
from harness.commands import load_pages
from tests.harness.conftest import loading_point

ASK = """
import sys
sys.path[:0] = sys.argv[1:]
from harness.commands import load_pages
print(load_pages("writing").__file__)
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
    assert load_pages("writing").__name__ == "harness.reports.writing"
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


POLICY = """
schema_version = 1
[[budget]]
scenarios = ["loading"]
phases = ["first_batch"]
meters = ["device_in_use"]
field = "growth"
at_most = "{at_most}"
because = "An upper bound of the synthetic run."
"""


@pytest.fixture
def home(project_root, tmp_path):
    """A folder with the harness alone."""
    shutil.copytree(
        project_root / "harness",
        tmp_path / "alone" / "harness",
        ignore=shutil.ignore_patterns("__pycache__", "pretended"),
    )
    return tmp_path / "alone"


@pytest.fixture
def command(synthetic_run, tmp_path):
    """Run a command on a synthetic run, with what is in ``folder``; one that keeps its budget, or
    one that does not.
    """
    synthetic_run.points = [loading_point("lazy", 100)]
    run, policy = synthetic_run.write(), tmp_path / "gate.toml"

    def call(folder, name, *options, at_most="1 GiB"):
        policy.write_text(POLICY.format(at_most=at_most))
        return subprocess.run(
            [
                sys.executable,
                "-P",
                "-m",
                "harness",
                name,
                str(run),
                "--policy",
                str(policy),
                *options,
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def no_pages(home):
    return (
        f"{home / 'harness'} has no pages, neither in it nor beside it; install the project "
        "with pip"
    )


@pytest.mark.parametrize(("at_most", "code"), [("1 GiB", 0), ("1 KiB", 1)])
def test_without_pages_the_verdict_is_the_same(
    home, command, project_root, synthetic_run, at_most, code
):
    """Exit code, findings and junit.xml too; there is no summary and no table, which pages
    write.
    """
    whole = command(project_root, "gate", at_most=at_most)
    findings = (synthetic_run.path / "findings.json").read_bytes()
    done = command(home, "gate", at_most=at_most)

    assert (whole.returncode, whole.stderr) == (code, "")
    assert (done.returncode, done.stderr) == (code, "")
    word = whole.stdout.partition(":")[0]
    assert done.stdout.startswith(f"{word}: ")
    assert "device peak" in whole.stdout
    assert "device peak" not in done.stdout
    assert (synthetic_run.path / "findings.json").read_bytes() == findings
    assert (synthetic_run.path / "junit.xml").exists()
    assert not (synthetic_run.path / "summary.md").exists()


def test_without_pages_a_page_that_was_asked_for_is_one_sentence_after_the_verdict(home, command):
    """The exit code is that of the verdict."""
    plain, done = command(home, "gate"), command(home, "gate", "--page")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{plain.stdout}the page could not be drawn: {no_pages(home)}; the verdict and all other "
        "files of it stand\n"
    )


def test_without_pages_an_earlier_page_goes_with_its_judgement(
    home, command, project_root, synthetic_run
):
    """It is of another one."""
    command(project_root, "gate", "--page", at_most="1 KiB")
    page = synthetic_run.path / "report.html"
    was_there = page.exists()
    done = command(home, "gate")

    assert (was_there, page.exists()) == (True, False)
    assert done.stdout.splitlines()[-1].startswith("the page could not be drawn: ")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("report", "harness: the page could not be drawn: {}\n"), ("annotate", "harness: {}\n")],
)
def test_without_pages_commands_that_are_about_them_say_so(home, command, name, sentence):
    """In one sentence, with exit code 2."""
    done = command(home, name)

    assert done.returncode == 2
    assert done.stderr.endswith(sentence.format(no_pages(home)))
    assert "Traceback" not in done.stderr


def test_what_pages_do_not_have_is_no_attribute():
    """As of any other module."""
    with pytest.raises(
        AttributeError, match=r"'harness\.commands' has no attribute 'write_summaries'"
    ):
        harness.commands.write_summaries  # noqa: B018
