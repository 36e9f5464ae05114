"""What a session says to type next works, and says the same as the session: each command is read
from the terminal and typed.
"""

import json
import re
import shlex

import pytest

from harness.__main__ import main

MARKED = """
@pytest.mark.memory("bodies:{body}"{more})
@pytest.mark.parametrize("image_count", [256, 512])
def test_load(image_count):
    pass
"""

SWEPT = MARKED.format(body="lazy", more=', slopes="1 KiB"').replace("[256, 512]", "[256, 384, 512]")


@pytest.fixture
def typed(capsys):
    """Type what the last line of a session says; exit code and what was said."""

    def typed(result):
        (command,) = re.findall(
            r"^judge them(?: again, or see the page)?:  python -m harness (.*)$",
            result.stdout.str(),
            re.MULTILINE,
        )
        capsys.readouterr()
        return main(shlex.split(command)), " ".join(capsys.readouterr().out.split())

    return typed


def ids(folder):
    """The id of the judgement in each file that there is."""
    texts = [
        (folder / name).read_text()
        for name in ("junit.xml", "summary.md", "report.html")
        if (folder / name).exists()
    ]
    found = json.loads((folder / "findings.json").read_text())["judgement"]["id"]
    return [found, *(found if found in text else "another" for text in texts)]


@pytest.mark.parametrize(
    ("body", "code", "word"), [("oom", 1, "Failed"), ("missing", 3, "Incomplete")]
)
def test_a_run_of_nothing_but_deaths_has_a_verdict_and_a_page(
    project, pytester, typed, body, code, word
):
    """Its marker promises nothing: how the runs ended is judged all the same, and that no limit was
    promised is said.
    """
    result = project(MARKED.format(body=body, more=""), "--memory-out", "out")
    found, said = typed(result)
    page = (pytester.path / "out" / "report.html").read_text()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert found == code
    assert said.startswith(f"{word}: 2 causes; ")
    assert "load / image_count=256 / repeat 0: ended " in said
    assert (
        "limits: none was promised, so that only how the runs ended, and whether all was "
        "measured, was judged." in said
    )
    assert f"<title>{word}: memory of run out" in page
    assert "Limits: none was promised" in page
    assert len(set(ids(pytester.path / "out"))) == 1
    assert main(["report", "out"]) == 0


def test_tests_without_limits_pass_the_gate_as_they_passed_the_session(project, pytester, typed):
    """They assert for themselves; the verdict says that it is about how they ended alone."""
    result = project(MARKED.format(body="lazy", more=""), "--memory-out", "out")
    # junit.xml and summary.md, without a page
    assert ids(pytester.path / "out")[1:] == [ids(pytester.path / "out")[0]] * 2
    found, said = typed(result)

    assert (result.ret, found) == (pytest.ExitCode.OK, 0)
    assert said.startswith("Pass: all ")
    assert "checks hold; none of them is a limit, so only how the runs ended was judged." in said


def test_what_was_deselected_is_left_out_by_the_gate_as_well(project, typed):
    """A slope over one of three sizes: pytest does not judge it, and neither does the command that
    it gives.
    """
    result = project(SWEPT, "--memory-out", "out", "-k", "256")
    found, said = typed(result)

    assert "gate out --partial --page" in result.stdout.str()
    assert (result.ret, found) == (pytest.ExitCode.OK, 0), said


def test_a_limit_that_one_size_cannot_show_is_refused_without_options_that_pytest_has_not(project):
    """--partial is an option of the gate, and nothing was measured that it could judge."""
    result = project(SWEPT.replace("[256, 384, 512]", "[256]"), "--memory-out", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            (
                "ERROR: *a slope over image_count needs 3 different values of it, and the test "
                "has 1 (256)*"
            )
        ]
    )
    assert "--partial" not in result.stdout.str() + result.stderr.str()


def test_a_folder_with_a_space_and_a_quote_in_its_name_is_quoted(project, pytester, typed):
    """The command is what a shell takes."""
    result = project(
        MARKED.format(body="lazy", more=', budgets="4 MiB"'), "--memory-out", "my run's"
    )

    assert typed(result)[0] == 0
    assert (pytester.path / "my run's" / "report.html").exists()


def test_where_the_project_has_limits_for_other_points_of_the_run_the_command_names_them(
    project, pytester, typed
):
    """The gate would ask which of the two is meant: that is no answer to a command that pytest
    gave.
    """
    (pytester.path / "scenarios").mkdir()
    rule = 'meters = ["device_in_use"]\nat_most = "1 GiB"\nbecause = "chosen"\n'
    text = (
        f'schema_version = 1\n[[budget]]\nscenarios = ["load"]\n{rule}[[budget]]\nscenarios = '
        f'["other"]\n{rule}'
    )
    (pytester.path / "scenarios" / "gate.toml").write_text(text)
    other = '@pytest.mark.memory("bodies:lazy", budgets="4 MiB")\ndef test_other():\n    pass\n'
    result = project(MARKED.format(body="lazy", more="") + other, "--memory-out", "out")
    found, said = typed(result)

    assert "gate out --policy scenarios/gate.toml --page" in result.stdout.str()
    assert (result.ret, found) == (pytest.ExitCode.OK, 0), said


def test_a_project_that_gates_its_own_sweep_does_not_judge_other_peoples_markers_by_it(
    project, pytester, typed
):
    """Its rules are about none of the points."""
    (pytester.path / "scenarios").mkdir()
    text = (
        'schema_version = 1\n[[budget]]\nscenarios = ["sweep"]\nmeters = '
        '["device_in_use"]\nat_most = "1 B"\nbecause = "chosen"\n'
    )
    (pytester.path / "scenarios" / "gate.toml").write_text(text)
    result = project(MARKED.format(body="lazy", more=""), "--memory-out", "out")

    assert (result.ret, typed(result)[0]) == (pytest.ExitCode.OK, 0)


def test_a_session_that_was_broken_off_goes_on_with_what_it_says(project, pytester, monkeypatch):
    """With its own options, quoted, and without the directory that it was to make."""
    monkeypatch.setenv("TROUBLE", "interrupt")
    monkeypatch.setenv("TROUBLE_AT", "load-image_count=512 1")
    test = MARKED.format(body="lazy", more=', budgets="4 MiB"')
    broken = project(test, "--memory-out", "my out", "-k", "load and not other")
    (command,) = re.findall(r"go on with:  pytest (.*)$", broken.stdout.str(), re.MULTILINE)
    words = shlex.split(command)

    assert broken.ret == pytest.ExitCode.INTERRUPTED
    assert words[-3:] == ["-k", "load and not other", "--memory-resume=my out"]
    resumed = pytester.runpytest_subprocess(*words, timeout=120)
    assert resumed.ret == pytest.ExitCode.OK
    resumed.assert_outcomes(passed=2)


def test_a_page_does_not_outlive_the_rows_that_it_was_made_of(
    project, pytester, typed, monkeypatch
):
    """A run that is gone on with has no verdict meanwhile, and its page is written anew in the
    end.
    """
    monkeypatch.setenv("TROUBLE", "interrupt")
    monkeypatch.setenv("TROUBLE_AT", "load-image_count=512 1")
    project(MARKED.format(body="lazy", more=', budgets="4 MiB"'), "--memory-out", "out")
    assert main(["gate", "out", "--page"]) == 3
    before = (pytester.path / "out" / "report.html").read_text()
    resumed = project(None, "--memory-resume", "out")

    assert resumed.ret == pytest.ExitCode.OK
    assert before.count("<title>Incomplete") == 1
    assert "<title>Pass" in (pytester.path / "out" / "report.html").read_text()
    assert len(ids(pytester.path / "out")) == 4
    assert len(set(ids(pytester.path / "out"))) == 1


SWEEP = """
import dataclasses

from harness.records import Point

POINT = Point(scenario="s", body="bodies:{body}", parameters={{"image_count": 256}}, \
phases=("load", "epoch_0", "epoch_1"))

@pytest.mark.parametrize("point", [POINT], ids=["s"])
def test_sweep(point, repeat, measure):
    measure(point, repeat)
"""


def test_a_sweep_of_which_some_was_selected_is_judged_by_what_was(project, typed):
    """All of it at first, then one of two points."""
    two = SWEEP.format(body="lazy").replace(
        '[POINT], ids=["s"]',
        '[POINT, dataclasses.replace(POINT, parameters={"image_count": 512})], ids=["256", "512"]',
    )
    whole = project(two, "--memory-out", "whole", "--memory-no-trace")
    part = project(None, "--memory-out", "part", "-k", "512")

    assert "gate whole\n" in whole.stdout.str() + "\n"
    assert "gate part --partial" in part.stdout.str()
    assert typed(part)[0] == 3  # nothing promises anything of it


@pytest.mark.parametrize(
    ("body", "code", "word"), [("lazy", 3, "Incomplete"), ("oom", 1, "Failed")]
)
def test_a_sweep_that_that_nothing_promises_anything_of_is_judged_and_does_not_pass(
    project, typed, body, code, word
):
    """A gate that held nothing against a limit has seen nothing; but what died is told."""
    result = project(SWEEP.format(body=body), "--memory-out", "out")
    found, said = typed(result)

    assert found == code
    assert said.startswith(f"{word}: ")
    assert ("nothing promises what this run may cost" in said) is (body == "lazy")
