"""A known leak is parked with pytest's own marks: pytest and the gate treat it alike."""

import pytest

from harness.__main__ import main

RED = """
@pytest.mark.memory("bodies:eager", budgets="1 MiB")
@pytest.mark.parametrize("image_count", [{sizes}])
{mark}
def test_red(image_count):
    pass

@pytest.mark.memory("bodies:lazy", budgets="4 MiB")
def test_green():
    pass
"""


def judged(pytester, monkeypatch):
    """What the command line says of the same run."""
    monkeypatch.chdir(pytester.path)
    return main(["gate", "out"])


@pytest.mark.parametrize(
    "mark", ["", "strict=False, ", "strict=True, "], ids=["plain", "loose", "strict"]
)
def test_a_failure_that_is_expected_is_parked_for_both(
    project, pytester, monkeypatch, capsys, rows, mark
):
    """The summary names the points and the reason; a line break in it breaks no row."""
    xfail = f'@pytest.mark.xfail({mark}reason="known,\\nsince May")'
    result = project(
        RED.format(sizes="256, 512", mark=xfail), "--memory-out", "out", "--memory-no-trace"
    )

    result.assert_outcomes(xfailed=2, passed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["parked: red-image_count=256, xfail: known,\\nsince May"])
    assert [row["points"] for row in rows("parked")] == [
        ["red-image_count=256"],
        ["red-image_count=512"],
    ]
    assert judged(pytester, monkeypatch) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 findings are parked, of tests that were skipped or expected to fail." in told


def test_a_failure_that_does_not_come_is_a_failure_where_it_is_strict(project, pytester):
    """And a pass where it is not."""
    green = RED.replace("bodies:eager", "bodies:lazy")
    strict = project(
        green.format(sizes="256", mark="@pytest.mark.xfail(strict=True)"),
        "--memory-out",
        "out",
        "--memory-no-trace",
    )
    loose = project(
        green.format(sizes="256", mark="@pytest.mark.xfail"),
        "--memory-out",
        "out2",
        "--memory-no-trace",
    )

    strict.assert_outcomes(failed=1, passed=1)
    loose.assert_outcomes(xpassed=1, passed=1)
    assert (strict.ret, loose.ret) == (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK)
    loose.stdout.fnmatch_lines(
        [
            (
                "parked: red-image_count=256, its test passed although it is expected to fail: "
                "without a reason"
            )
        ]
    )


def test_an_expectation_about_another_exception_parks_nothing(project, pytester, monkeypatch):
    """xfail(raises=...): pytest says that the test failed, and so does the gate."""
    test = RED.format(sizes="256", mark="@pytest.mark.xfail(raises=ValueError)")
    result = project(test, "--memory-out", "out", "--memory-no-trace")

    result.assert_outcomes(failed=1, passed=1)
    assert judged(pytester, monkeypatch) == 1


def test_slopes_over_points_that_are_all_parked_are_parked_too(project, pytester, monkeypatch):
    """Each test passes, and the finding over all of them comes at the end."""
    test = RED.replace('budgets="1 MiB"', 'slopes="1 KiB"').format(
        sizes="256, 512, 1024", mark="@pytest.mark.xfail(strict=False)"
    )
    result = project(test, "--memory-out", "out", "--memory-no-trace")

    result.assert_outcomes(xpassed=3, passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert judged(pytester, monkeypatch) == 0


@pytest.mark.parametrize(
    "mark",
    ['skip(reason="later")', 'skipif(True, reason="later")', 'xfail(run=False, reason="later")'],
)
def test_a_test_that_is_skipped_is_parked_for_both(project, pytester, monkeypatch, mark):
    """What was measured beside it is judged."""
    result = project(
        RED.format(sizes="256", mark=f"@pytest.mark.{mark}"),
        "--memory-out",
        "out",
        "--memory-no-trace",
    )

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["parked: red-image_count=256, *later"])
    assert judged(pytester, monkeypatch) == 0


def test_a_test_that_would_call_and_is_skipped_is_parked_for_both(project, pytester, monkeypatch):
    """Nobody knows its points."""
    test = (
        RED.format(sizes="256", mark="@pytest.mark.xfail")
        + """
@pytest.mark.skip
def test_call(memory_run):
    memory_run("bodies:lazy")
"""
    )
    result = project(test, "--memory-out", "out", "--memory-no-trace")

    result.assert_outcomes(xfailed=1, passed=1, skipped=1)
    assert result.ret == pytest.ExitCode.OK
    assert judged(pytester, monkeypatch) == 0
