"""The end of a session: all points judged together, the same with workers, resumed or in one go;
nothing silent.
"""

import json
from xml.etree import ElementTree as ET

import pytest

SWEEP = """
@pytest.mark.memory("bodies:eager", slopes="1 KiB")
@pytest.mark.parametrize("image_count", [256, 512, 1024])
def test_load(image_count):
    pass
"""
SLOPE = "regression: load / load / device in use: grows by 16,384 B per image, limit 1,024 ("


def findings(pytester):
    return [
        found["sentence"]
        for found in json.loads((pytester.path / "out" / "findings.json").read_text())["findings"]
    ]


def junit(pytester, element):
    return ET.parse(pytester.path / "junit.xml").iter(element)  # noqa: S314 - pytest has just written it


def test_a_slope_fails_the_session_though_every_test_has_passed(project, pytester, rows, said):
    """All repeats are alike, so that nothing is measured again; with -v every finding and every
    reading is printed.
    """
    result = project(SWEEP, "--memory-out", "out", "--junitxml", "junit.xml", "-v")

    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert SLOPE in said(result)
    result.stdout.fnmatch_lines(
        [
            (
                "load-image_count=512   load     device_in_use   8.0 MiB *0 B *2.0 MiB *10.0 "
                "MiB *10.0 MiB"
            )
        ]
    )
    assert len(rows("end")) == 6
    (case,) = [case for case in junit(pytester, "testcase") if case.get("classname") == "memory"]
    assert case.get("name") == "load / load / device in use"
    assert case.find("failure").text.startswith(
        "regression: load / load / device in use: grows by 16,384 B per image"
    )


def test_a_slope_that_may_be_noise_is_measured_again_first(project, rows, said):
    """All points of it, and most of the repeats confirm it."""
    result = project(SWEEP.replace("eager", "wavering"), "--memory-out", "out", "-v")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["memory: measuring 3 points again, 3 times: load-image_count=256, *"]
    )
    decided = "measured again, 5 of 5 runs rise by more than the limit; 3 are needed: confirmed"
    assert decided in said(result)
    assert len(rows("end")) == 15


def test_findings_of_a_test_are_properties_of_its_entry_in_junit(project, pytester):
    """Beside its message."""
    project(
        SWEEP.replace('slopes="1 KiB"', 'budgets="8 MiB"'), "--junitxml", "junit.xml", "-k", "1024"
    )
    (finding,) = [
        found.get("value")
        for found in junit(pytester, "property")
        if found.get("name") == "memory_finding"
    ]

    assert finding.startswith(
        "regression: load / image_count=1024 / load / device in use: grows by 16.0 MiB, "
        "limit 8.0 MiB"
    )


def test_two_workers_and_a_resumed_session_come_to_the_same_verdict(project, pytester, monkeypatch):
    """To the letter; and what was there is not measured twice."""
    project(SWEEP, "--memory-out", "out")
    serial = findings(pytester)
    (pytester.path / "out").rename(pytester.path / "serial")
    project(None, "--memory-out", "out", "-n", "2")
    workers = findings(pytester)
    (pytester.path / "out").rename(pytester.path / "workers")
    monkeypatch.setenv("TROUBLE", "interrupt")
    monkeypatch.setenv("TROUBLE_AT", "load-image_count=512 1")
    broken = project(None, "--memory-out", "out")
    (pytester.path / "measured.txt").unlink()
    resumed = project(None, "--memory-resume", "out")
    measured = (pytester.path / "measured.txt").read_text().splitlines()

    assert broken.ret == pytest.ExitCode.INTERRUPTED
    assert resumed.ret == pytest.ExitCode.TESTS_FAILED
    resumed.assert_outcomes(passed=3)
    assert serial == workers == findings(pytester)
    assert [
        name for name in measured if name.startswith("load-image_count=256") and name[-1] in "01"
    ] == []
    assert len(measured) == len(set(measured)) == 5


def test_tests_that_the_run_did_not_select_are_not_measured_when_it_is_resumed(
    project, pytester, rows
):
    """Neither a marked one nor one that calls; what was selected runs again, on what was
    measured.
    """
    test = f"""{SWEEP}
@pytest.mark.parametrize("loader", ["eager", "lazy"])
def test_call(memory_run, loader):
    memory_run("bodies:lazy")
"""
    project(test, "--memory-out", "out", "-k", "256 or eager")
    (pytester.path / "measured.txt").unlink()
    result = project(None, "--memory-resume", "out")

    result.assert_outcomes(passed=2, deselected=3)
    assert result.ret == pytest.ExitCode.OK
    assert not (pytester.path / "measured.txt").exists()
    assert len(rows("end")) == 4


def test_a_test_that_is_run_again_measures_again_and_the_first_rows_are_void(project, rows):
    """As plug-ins do that repeat failed tests."""
    test = """
def pytest_runtest_protocol(item, nextitem):
    from _pytest.runner import runtestprotocol
    for _ in range(2):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
    result = project(SWEEP, "--memory-out", "out", "-k", "256", "-p", "again", again=test)

    result.assert_outcomes(passed=1, deselected=2)
    assert (len(rows("end")), len(rows("again"))) == (4, 2)
    assert result.ret == pytest.ExitCode.OK


def test_with_some_points_deselected_slopes_are_not_judged_and_that_is_said(project):
    """-k is the user's own choice."""
    result = project(SWEEP, "--memory-out", "out", "-k", "256")

    result.assert_outcomes(passed=1, deselected=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            (
                "2 points were deselected: rules over several points were judged on those that "
                "were measured, *"
            )
        ]
    )


def test_with_all_points_deselected_nothing_is_measured_and_that_is_said(project, pytester):
    """No run directory, and no failure of the tests that were selected."""
    result = project(f"{SWEEP}\ndef test_other():\n    pass", "-k", "other")

    result.assert_outcomes(passed=1, deselected=3)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["memory: 3 tests that measure were deselected, so that nothing was measured"]
    )
    assert not (pytester.path / "artifacts").exists()


def test_points_are_chosen_by_name_also_where_calls_name_them(project, rows):
    """A call that is not wanted skips its test; a pattern that nothing matches is a finding."""
    test = """
@pytest.mark.parametrize("loader", ["eager", "lazy"])
def test_load(memory_run, loader):
    memory_run("bodies:lazy", image_count=1)
"""
    result = project(
        test, "--memory-out", "out", "--memory-points", "*lazy*", "--memory-points", "*lasy*"
    )

    result.assert_outcomes(passed=1, skipped=1)
    assert [row["point"] for row in rows("point")] == ["load-lazy-image_count=1"]
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["incomplete: --memory-points '*lasy*' matches no point that was measured"]
    )


def test_a_point_whose_test_was_skipped_makes_the_session_fail(project, said):
    """All skipped is no pass."""
    result = project(
        SWEEP.replace("@pytest.mark.memory", "@pytest.mark.skip\n@pytest.mark.memory"),
        "--memory-out",
        "out",
    )

    result.assert_outcomes(skipped=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "incomplete: load / image_count=256 / repeat 0: no end of it was recorded: it was skipped,"
        in said(result)
    )


def test_a_session_that_stops_at_the_first_failure_measures_nothing_again(project, rows):
    """-x: what is there is judged."""
    test = SWEEP.replace('slopes="1 KiB"', 'slopes="1 KiB", budgets="1 MiB"')
    result = project(test, "--memory-out", "out", "-x")

    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert {row["point"] for row in rows("end")} == {"load-image_count=256"}


def test_a_worker_that_dies_leaves_a_point_incomplete_and_the_session_is_judged(
    project, monkeypatch, said
):
    """What died is named; the others have their verdict."""
    monkeypatch.setenv("TROUBLE", "die")
    monkeypatch.setenv("TROUBLE_AT", "load-image_count=512 1")
    result = project(SWEEP, "--memory-out", "out", "-n", "2")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "incomplete: load / image_count=512 / repeat 1: " in said(result)
    result.stdout.fnmatch_lines(["*test_load?512?*"])


def test_a_finding_that_a_test_has_caught_fails_the_session(project, said):
    """The test passes; what was found is found."""
    test = """
@pytest.mark.memory(budgets="1 MiB")
def test_load(memory_run):
    with pytest.raises(pytest.fail.Exception):
        memory_run("bodies:eager", image_count=512)
"""
    result = project(test, "--memory-out", "out")

    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "1. load keeps as much as 8.00 x batch on the device" in said(result)
    result.stdout.fnmatch_lines(
        ["this session fails because of 1 finding that no test has failed with"]
    )


def test_a_phase_that_no_body_enters_is_named_with_the_nearest(project, said):
    """Its limit would hold for ever."""
    test = SWEEP.replace('slopes="1 KiB"', 'budgets={"at_most": "64 MiB", "phases": "epoch_2"}')
    result = project(test, "--memory-out", "out")

    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "incomplete: the marker of test_memory.py::test_load: " in said(result)
    assert "has a phase epoch_2; did you mean 'epoch_1'?" in said(result)


def test_a_session_without_limits_is_judged_by_how_its_runs_ended(project, said):
    """Its tests assert for themselves."""
    result = project(
        "def test_load(memory_run):\n    memory_run('bodies:lazy', image_count=1)",
        "--memory-out",
        "out",
    )

    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert "checks hold; none of them is a limit, so only how the runs ended was judged." in said(
        result
    )


def test_tests_of_other_kinds_below_a_marker_are_left_alone(project, pytester):
    """A doctest of the module, a test case of unittest."""
    test = '''
import unittest
pytestmark = pytest.mark.memory("bodies:lazy", budgets="4 MiB")

def double(number):
    """
    >>> double(2)
    4
    """
    return 2 * number

class TestLoad(unittest.TestCase):
    def test_load(self):
        pass
'''
    result = project(test, "--memory-out", "out", "--doctest-modules")

    result.assert_outcomes(passed=2)
    assert (pytester.path / "measured.txt").read_text().splitlines() == [
        "load 0",
        "load 1",
        "load -1",
    ]
