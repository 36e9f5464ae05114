"""The fixture ``memory_run``: measured at the call, announced, judged by the test's marker, and
given back readably.
"""

import re
from fnmatch import fnmatch

import pytest

from harness.errors import MeterUnavailable
from harness.judge.table import load_run
from harness.plugin.result import MemoryRun
from harness.records import Outcome, Point, Quality, Reading
from harness.rundir.rows import PhaseRecord, RunEnd

CALLS = """
def test_load(memory_run):
    for count in (256, 512):
        run = memory_run("bodies:eager", image_count=count, device_budget="256MiB", repeats=1)
        assert run["load"].device_in_use.growth_bytes == count * 16384
"""


def test_each_call_is_a_point_that_is_announced_before_its_first_child(
    project, pytester, run_json, rows
):
    """Keywords that are no settings are the body's parameters."""
    project(CALLS, "--memory-out", "out").assert_outcomes(passed=1)

    assert (run_json()["planned"], run_json()["asked"]) == ([], ["test_memory.py::test_load"])
    first, second = rows("point")
    assert (first["test"], first["repeats"]) == ("test_memory.py::test_load", 1)
    assert (first["record"]["parameters"], first["record"]["device_budget_bytes"]) == (
        {"image_count": 256},
        256 * 1024 * 1024,
    )
    assert second["point"] == "load-image_count=512"
    assert load_run(pytester.path / "out").problems == ()


def test_values_of_parametrize_are_parameters_of_the_calls_too(project, rows):
    """So that each test's points have names of their own; what no child can be told stays the
    test's.
    """
    test = """
@pytest.mark.parametrize("loader", ["eager", "lazy"])
@pytest.mark.parametrize("limit", [object()], ids=["limit"])
def test_load(memory_run, loader, limit):
    memory_run(f"bodies:{loader}", image_count=1)
"""
    project(test, "--memory-out", "out").assert_outcomes(passed=2)

    assert [row["point"] for row in rows("point")] == [
        "load-eager-image_count=1",
        "load-lazy-image_count=1",
    ]


def test_limits_of_the_marker_are_about_calls_too(project):
    """In the test: the eager body of 512 images is 8 MiB."""
    test = "@pytest.mark.memory(budgets='6 MiB')" + CALLS
    result = project(test, "--memory-out", "out")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            (
                "regression: load / image_count=512 / load / device in use: grows by 8.0 MiB, "
                "limit 6.0 MiB *"
            )
        ]
    )


@pytest.mark.parametrize(("limit", "code"), [("16 KiB", 0), ("16383 B", 1)])
def test_slopes_of_the_marker_are_judged_over_all_calls(project, limit, code):
    """At the limit of 16,384 B for each image, and one byte less."""
    test = f"@pytest.mark.memory(slopes='{limit}')" + CALLS.replace(
        "(256, 512)", "(256, 512, 1024)"
    )
    result = project(test, "--memory-out", "out", "--memory-repeats", "2")

    result.assert_outcomes(passed=1)
    assert result.ret == code


def test_numbers_of_numpy_are_numbers(project, run_json, rows):
    """Sizes often come out of numpy; a child is told the plain number."""
    test = """
import numpy as np

def test_load(memory_run):
    memory_run("bodies:lazy", image_count=np.int64(256), ratio=np.float32(0.5))
"""
    project(test, "--memory-out", "out", "--memory-repeats", "1").assert_outcomes(passed=1)
    (row,) = rows("point")
    assert row["record"]["parameters"] == {"image_count": 256, "ratio": 0.5}


MISTAKES = {
    "no body": (
        "memory_run()",
        "memory_run() gives what the test's marker has measured, and no marker names a body; *",
    ),
    "parameters alone": (
        "memory_run(image_count=1)",
        "no body is named; write memory_run('package.module:function', ...)",
    ),
    "an object": (
        "memory_run('bodies:lazy', loader=len)",
        "the parameter loader is of the type builtin_function*",
    ),
    "no number": (
        "memory_run('bodies:lazy', ratio=float('nan'))",
        "the parameter ratio is nan, which cannot be handed to *",
    ),
    "no amount": (
        "memory_run('bodies:lazy', device_budget='much')",
        "device_budget: 'much' is not an amount of bytes; *",
    ),
    "no folder": (
        "memory_run('bodies:lazy', path='nowhere')",
        "path: there is no folder */nowhere; *",
    ),
    "limits": (
        "memory_run('bodies:lazy', budgets='1 MiB')",
        "memory_run does not take 'budgets', which is about all points *",
    ),
    "twice": (
        "memory_run('bodies:lazy', a=1); memory_run('bodies:eager', a=1)",
        (
            "test_memory.py::test_7 has measured the point 7-a=1 already; tell two calls of "
            "memory_run apart by a parameter, *"
        ),
    ),
}


def test_a_mistake_fails_the_test_with_one_sentence(project):
    """No traceback, no exception behind an exception."""
    tests = [
        f"def test_{number}(memory_run):\n    {call}"
        for number, (call, _) in enumerate(MISTAKES.values())
    ]
    result = project("\n".join(tests), "--memory-out", "out", "--memory-repeats", "1", "--tb=short")

    result.assert_outcomes(failed=len(MISTAKES))
    lines = result.stdout.lines
    for number, (_, sentence) in enumerate(MISTAKES.values()):
        place = next(place for place, line in enumerate(lines) if f" test_{number} _" in line)
        assert fnmatch(lines[place + 1], sentence), lines[place : place + 3]
        assert re.match(r"_+ test_|=+ memory", lines[place + 2])


def test_a_test_that_takes_it_and_measures_nothing_makes_the_session_fail(project, said):
    """Though it passed: a gate that saw nothing."""
    result = project("def test_load(memory_run):\n    pass", "--memory-out", "out")

    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "incomplete: test_memory.py::test_load takes memory_run and measured nothing: " in said(
        result
    )


def test_a_run_that_ended_otherwise_fails_the_test_with_how_it_ended(project):
    """And one that was to end so gives its result."""
    test = """
def test_oom(memory_run):
    run = memory_run("bodies:oom", image_count=1, expected="device_oom")
    assert (run.outcome, run.cause, run.reason) == ("device_oom", "allocator", "the faked oom")
    assert not run["load"].finished

def test_load(memory_run):
    memory_run("bodies:oom", image_count=1)
"""
    result = project(test, "--memory-out", "out")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            (
                "*load / image_count=1 / repeat 0: ended device_oom in phase load instead of "
                "ok: the faked oom*"
            )
        ]
    )


def reading(growth, **changes):
    values = {
        "meter": "device_in_use",
        "quality": Quality.EXACT,
        "start_bytes": 100,
        "peak_bytes": 100 + growth,
        "end_bytes": 90,
    }
    return Reading(**(values | changes))


@pytest.fixture
def run():
    """Two repeats of one point: 2,048 and 3,072 B, and a meter that could not read."""
    point = Point(scenario="load", body="b:b", parameters={"image_count": 5}, phases=())
    absent = Reading.unavailable("nvml_process", "there is no card")
    records = [
        PhaseRecord(
            point=point.name,
            repeat=n,
            phase=phase,
            index=i,
            finished=True,
            duration_s=0.1,
            readings=(reading(growth), absent),
        )
        for n, growth in enumerate((2048, 3072))
        for i, phase in enumerate(("epoch", "release"))
    ]
    end = {
        "point": point.name,
        "outcome": Outcome.OK,
        "cause": "",
        "reason": "",
        "phase": None,
        "exit_code": 0,
    }
    ends = tuple(RunEnd(**end, repeat=n, launcher="fake", duration_s=0.1) for n in range(2))
    return MemoryRun(point, ends, tuple(records))


def test_amounts_are_the_least_of_the_repeats_and_all_of_them_are_there(run):
    """In bytes, with what kind of number it is."""
    read = run["epoch"].device_in_use

    assert (
        read.growth_bytes,
        read.spread_bytes,
        read.start_bytes,
        read.peak_bytes,
        read.end_bytes,
    ) == (2048, 1024, 100, 2148, 90)
    assert read.retained_bytes == -10
    assert [repeat.growth_bytes for repeat in read.repeats] == [2048, 3072]
    assert (read.quality, run.outcome, list(run)) == (Quality.EXACT, "ok", ["epoch", "release"])


def test_an_amount_that_was_not_read_is_an_error_with_the_reason_and_never_zero(run):
    """So that no assertion holds by accident."""
    with pytest.raises(
        MeterUnavailable,
        match="nvml_process could not be read in epoch of load-image_count=5: there is no card",
    ):
        _ = run["epoch"].nvml_process.growth_bytes
    assert run["epoch"].nvml_process.quality == "unavailable"


def test_a_phase_or_a_meter_that_there_is_not_is_named_with_the_nearest(run):
    """Both ways of asking."""
    with pytest.raises(KeyError, match="has no phase 'epock'; did you mean 'epoch'"):
        run["epock"]
    with pytest.raises(
        AttributeError, match="there is no meter 'device'; did you mean 'device_in_use'"
    ):
        _ = run["epoch"].device
    with pytest.raises(KeyError, match="there is no meter 'device'"):
        run["epoch"]["device"]


def test_completion_shows_phases_and_meters(run):
    """After a dot, and in brackets as IPython asks for them."""
    phase = run[run.phases[0]]

    assert set(phase.meters) < set(dir(phase))
    assert {"finished", "name"} < set(dir(phase))
    assert phase._ipython_key_completions_() == list(phase.meters)
    assert run._ipython_key_completions_() == list(run.phases)
    assert {"growth_bytes", "peak_bytes"} < set(dir(phase[phase.meters[0]]))


def test_its_repr_is_a_table(run):
    """Of what could be read."""
    assert repr(run).splitlines() == [
        "load-image_count=5: 2 runs, ok; least of the runs",
        "phase    meter           growth   spread  start     peak   end",
        "epoch    device_in_use  2.0 KiB  1.0 KiB  100 B  2.1 KiB  90 B",
        "release  device_in_use  2.0 KiB  1.0 KiB  100 B  2.1 KiB  90 B",
    ]
