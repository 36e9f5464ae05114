"""Points that run.json does not plan: a row announces them, and from then on they owe what planned
ones owe.
"""

from dataclasses import replace

import pytest

from harness.judge import ExitCode
from harness.judge.gate import judge
from harness.judge.policy import parse_policy
from harness.judge.table import load_run
from harness.records import Outcome, to_json
from harness.rundir.resume import read_resumption
from harness.rundir.rows import announce_point

TEST = "tests/test_feed.py::test_epoch"
BUDGET = {
    "schema_version": 1,
    "budget": [
        {
            "scenarios": ["arrays"],
            "meters": ["device_in_use"],
            "field": "peak",
            "at_most": "1 GiB",
            "because": f"marker of {TEST}",
        }
    ],
}


def row_of(point, *, test=TEST, **changes):
    return {
        "kind": "point",
        "point": point.name,
        "record": to_json(replace(point, **changes)),
        "test": test,
    }


@pytest.fixture
def announced(synthetic_run):
    """Three points of arrays that nobody planned, with phases that nobody knew beforehand: the run,
    and all its rows.
    """
    synthetic_run.keep_points(lambda point: point.name.startswith("arrays-lazy"))
    rows = [*(row_of(point, phases=()) for point in synthetic_run.points), *synthetic_run.rows()]
    synthetic_run.manifest = {"planned": [], "asked": [TEST], "policy": BUDGET}
    return synthetic_run, rows


def judged(run, rows, baselines, **options):
    return judge(
        load_run(run.write(rows)), parse_policy(BUDGET, "the test"), baselines, **options
    ).verdict


def test_announced_points_are_judged_like_planned_ones(announced, baselines):
    """By name in the order of their numbers, whatever the order of the rows; with the phases that
    they entered.
    """
    run, rows = announced
    found = load_run(run.write([*reversed(rows[:3]), *rows[3:]]))

    assert [point.parameters["image_count"] for point in found.points] == [100, 500, 1000]
    assert {point.phases for point in found.points} == {run.points[0].phases}
    assert found.tests == {TEST}
    assert found.problems == ()
    assert judged(run, rows, baselines).exit_code is ExitCode.PASS


def test_an_announcement_may_be_repeated_and_come_late(announced, baselines):
    """Workers write side by side, and a test may be run twice."""
    run, rows = announced

    assert judged(run, [*rows[3:], *rows[:3], rows[0]], baselines).exit_code is ExitCode.PASS


def without(rows, point, *, phase=None, repeat=None):
    return [
        row
        for row in rows
        if row["kind"] == "point"
        or row["point"] != point.name
        or (repeat is not None and row["repeat"] != repeat)
        or (phase is not None and row.get("phase") != phase)
    ]


def test_an_announced_point_that_was_never_measured_is_incomplete(announced, baselines):
    """Exit code 3, with its name."""
    run, rows = announced
    verdict = judged(run, without(rows, run.points[1]), baselines)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "arrays / lazy / image_count=500 / repeat 0: no end of it was recorded" in verdict.sentence
    )


def test_a_run_that_lacks_a_phase_of_the_others_is_incomplete(announced, baselines):
    """What is not known beforehand is whatever any run of the scenario has entered."""
    run, rows = announced
    verdict = judged(run, without(rows, run.points[1], phase="epoch_1", repeat=1), baselines)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "repeat 1: it ended ok, but epoch_1 was not measured to the end; a run of arrays "
        "has to go through" in verdict.sentence
    )


def test_bodies_of_one_scenario_owe_their_own_phases(announced, baselines):
    """A test that is parametrized with bodies measures several under one name; what one enters is
    not asked of another.
    """
    run, rows = announced
    other = run.points[2]
    kept = [
        row
        for row in without(rows, other, phase="epoch_1")
        if row["kind"] != "point" or row["point"] != other.name
    ]
    kept.append(row_of(replace(other, body="feed:another"), phases=()))

    verdict = judged(run, kept, baselines)
    assert "epoch_1 was not measured" not in verdict.sentence


def test_phases_keep_their_order_where_runs_differ(announced):
    """Of each the latest place that it had, so that one which only some runs have does not push the
    others around.
    """
    run, rows = announced
    last = run.points[2]
    rows = [
        row | {"index": row["index"] + 1} if "index" in row and row["point"] == last.name else row
        for row in rows
    ]
    rows.append({"kind": "begin", "point": last.name, "repeat": 0, "phase": "a_first", "index": 0})

    assert load_run(run.write(rows)).points[0].phases == ("a_first", *run.points[0].phases)


def test_a_body_without_a_phase_has_measured_nothing(announced, baselines):
    """The sentence is for somebody who has never written one."""
    run, rows = announced
    verdict = judged(run, [row for row in rows if row["kind"] not in ("begin", "phase")], baselines)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "nothing was measured; put what is to be measured under memory.phase, as in: with "
        'memory.phase("load"): ...' in (verdict.sentence)
    )


def test_a_run_that_dies_owes_the_phases_before(announced, baselines):
    """As where the phases are known."""
    run, rows = announced
    name = run.points[2].name
    run.points[2] = replace(run.points[2], expected=Outcome.DEVICE_OOM)
    run.ends = {(name, repeat): (Outcome.DEVICE_OOM, "refused", "epoch_0") for repeat in range(2)}
    rows = [*(row_of(point, phases=()) for point in run.points), *run.rows()]

    assert judged(run, rows, baselines).exit_code is ExitCode.PASS


@pytest.mark.parametrize("announce", [True, False])
def test_a_test_that_was_asked_and_measured_nothing_is_incomplete(announced, baselines, announce):
    """It is named; one that has announced a point is not."""
    run, rows = announced
    run.manifest["asked"] = [TEST, "tests/test_feed.py::test_other"]
    more = (
        [row_of(run.points[0], test="tests/test_feed.py::test_other", phases=())]
        if announce
        else []
    )
    verdict = judged(run, [*rows, *more], baselines)

    assert verdict.exit_code is (ExitCode.PASS if announce else ExitCode.INCOMPLETE)
    assert announce or verdict.findings[0].sentence.startswith(
        "tests/test_feed.py::test_other takes memory_run and measured nothing"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"body": "x:y"},
            (
                "announces arrays-lazy-image_count=100 with another body than it was planned "
                "or announced with before"
            ),
        ),
        (
            {"parameters": {"loader": "lazy", "image_count": 7}},
            "but the point in it is called 'arrays-lazy-image_count=7'",
        ),
        ({"expected": "fine"}, "record.expected"),
        ({"device_budget_bytes": 1.5}, "record.device_budget_bytes"),
    ],
)
def test_an_announcement_that_cannot_be_is_a_problem(announced, change, words):
    """Two things of one name could not be told apart."""
    run, rows = announced
    row = {**rows[0], "record": {**rows[0]["record"], **change}}
    problems = " ".join(load_run(run.write([*rows, row])).problems)

    assert "rows.jsonl, line" in problems
    assert words in problems


def test_the_row_is_written_before_the_first_child(announced):
    """What the judge reads is what ``announce_point`` writes; a resumed run measures what is
    missing of it.
    """
    run, rows = announced
    path = run.write([])
    point = replace(run.points[1], phases=())
    announce_point(path, point, test=TEST)
    found, resumption = load_run(path), read_resumption(path)

    assert (found.points, found.tests) == ((point,), {TEST})
    assert resumption.planned == (point.name,)
    assert [resumption.lacks(point.name, repeat) for repeat in range(3)] == [True, True, False]
    run.write(
        [*rows, {"kind": "remeasure", "point": point.name, "repeats": 1, "reason": "a finding"}]
    )
    assert [read_resumption(path).lacks(point.name, repeat) for repeat in range(4)] == [
        False,
        False,
        True,
        False,
    ]
