"""The table of a run directory: complete, tidy, and honest about what could not be used."""

import io
from dataclasses import replace

import pandas as pd
import pytest

from harness.errors import RunDirectoryError
from harness.judge.table import (
    declared_by_point,
    declared_names,
    load_run,
    phases_text,
    readings_by_place,
)
from harness.records import Outcome


def damage(path, number, line):
    lines = (path / "rows.jsonl").read_text().splitlines(keepends=True)
    lines[number] = line
    (path / "rows.jsonl").write_text("".join(lines))


def test_one_row_for_each_point_repeat_phase_and_meter(synthetic_run):
    """18 points: 17 of 6 phases, and 1 that dies in its second phase; 2 repeats, 4 meters."""
    run = load_run(synthetic_run.write())

    assert len(run.phases) == (17 * 6 + 2) * 2 * 4
    assert not run.problems
    assert not run.phases.duplicated(["point", "repeat", "phase", "meter"]).any()
    assert len(run.ends) == 36


def test_columns_and_types(synthetic_run):
    """Parameters and fixed settings have columns of their own; bytes are nullable integers."""
    phases = load_run(synthetic_run.write()).phases

    assert list(phases.columns[:8]) == [
        "scenario",
        "point",
        "loader",
        "image_count",
        "stack_size",
        "frame_size",
        "gridsize",
        "batch_size",
    ]
    assert str(phases["image_count"].dtype) == "Int64"
    assert str(phases["growth_bytes"].dtype) == "Int64"
    assert phases["finished"].dtype == bool


def test_growth_and_retained_are_differences_of_the_edges(synthetic_run):
    """Eager construct at 100 images keeps 32,768,000 B, which is its growth as well; batch and
    arrays are declared.
    """
    phases = load_run(synthetic_run.write()).phases
    row = phases[(phases["phase"] == "construct") & (phases["meter"] == "device_in_use")].iloc[0]

    assert (row["growth_bytes"], row["retained_bytes"]) == (32_768_000, 32_768_000)
    assert (row["batch_bytes"], row["arrays_bytes"]) == (4_194_304, 32_768_000)


def test_an_unavailable_meter_is_missing_with_its_reason_and_never_zero(synthetic_run):
    """The reading's own reason goes before the reason of the run's end."""
    phases = load_run(synthetic_run.write()).phases
    rows = phases[phases["meter"] == "nvml_process"]

    assert set(rows["quality"]) == {"unavailable"}
    assert set(rows["reason"]) == {"there is no NVIDIA driver here"}
    assert rows["peak_bytes"].isna().all()


def test_a_run_that_was_killed_keeps_its_phases_and_shows_where_it_died(synthetic_run):
    """The phase that was entered and never left has one row without a meter, with the outcome."""
    name = synthetic_run.points[0].name
    synthetic_run.ends[name, 1] = (Outcome.CRASHED, "killed by SIGKILL", "epoch_0")
    phases = load_run(synthetic_run.write()).phases
    own = phases[(phases["point"] == name) & (phases["repeat"] == 1)]
    last = own.iloc[-1]

    assert list(own["phase"].unique()) == ["open", "construct", "first_batch", "epoch_0"]
    assert (last["phase"], last["finished"], last["outcome"], last["reason"]) == (
        "epoch_0",
        False,
        "crashed",
        "killed by SIGKILL",
    )
    assert pd.isna(last["meter"])
    assert pd.isna(last["peak_bytes"])


def test_a_run_that_died_before_its_first_phase_has_a_row(synthetic_run):
    """An end alone is one row with its outcome and no phase."""
    name = synthetic_run.points[0].name
    synthetic_run.ends[name, 0] = (Outcome.ERROR, "its input could not be prepared", None)
    rows = [
        row
        for row in synthetic_run.rows()
        if row["kind"] == "end" or (row["point"], row["repeat"]) != (name, 0)
    ]
    phases = load_run(synthetic_run.write(rows)).phases
    own = phases[(phases["point"] == name) & (phases["repeat"] == 0)]

    assert len(own) == 1
    assert (own["outcome"].item(), own["reason"].item()) == (
        "error",
        "its input could not be prepared",
    )


def test_no_rows_at_all_is_an_empty_table_with_its_columns(synthetic_run):
    """A run that has only been planned can be loaded."""
    run = load_run(synthetic_run.write([]))

    assert (len(run.phases), len(run.ends), run.problems) == (0, 0, ())
    assert {"scenario", "loader", "image_count", "growth_bytes", "outcome"} <= set(
        run.phases.columns
    )


def test_a_later_declaration_overrides_an_earlier_one(synthetic_run):
    """Other names keep what was declared before."""
    rows = synthetic_run.rows()
    rows.insert(
        2, {"kind": "declared", "point": rows[0]["point"], "repeat": 0, "values": {"batch": 7}}
    )
    row = load_run(synthetic_run.write(rows)).phases.iloc[0]

    assert (row["batch_bytes"], row["arrays_bytes"]) == (7, 32_768_000)


def test_every_declared_name_has_a_column(synthetic_run):
    """Of whatever bodies declare, in the order of the alphabet, whatever the order of the rows;
    missing where one did not.
    """
    synthetic_run.declared = lambda point: (
        {"X": 7, "Y_I": 8} if point.parameters["loader"] == "eager" else {"batch": 9, "X": 5}
    )
    run = load_run(synthetic_run.write())

    assert declared_names(run) == ("X", "Y_I", "batch")
    assert list(run.phases.columns[-3:]) == ["X_bytes", "Y_I_bytes", "batch_bytes"]
    assert declared_by_point(run)["arrays-lazy-image_count=500"] == {"X": 5, "batch": 9}
    assert readings_by_place(run)[
        "arrays-eager-image_count=500", "construct", "device_in_use", "Y_I"
    ] == {0: 8, 1: 8}


def test_the_least_of_what_repeats_declare_holds(synthetic_run):
    """So that no limit is wider for it."""
    rows = synthetic_run.rows()
    rows.append(
        {"kind": "declared", "point": rows[0]["point"], "repeat": 1, "values": {"batch": 7}}
    )

    assert declared_by_point(load_run(synthetic_run.write(rows)))[rows[0]["point"]]["batch"] == 7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            '{"kind": "declared", "point": "POINT", "repeat": 0, "values": {"peak": 1}}\n',
            "declares 'peak', which the table",
        ),
        (
            '{"kind": "declared", "point": "POINT", "repeat": 0, "values": {"a b": 1}}\n',
            "declares 'a b', which the table",
        ),
        ('{"kind": "phase", "point": "loadi', "cut short"),
        ("\n", "not JSON"),
        ("\xff\n", "line 3"),
        ("[1, 2]\n", "known kind"),
        ('{"kind": "gossip"}\n', "known kind"),
        ('{"kind": ["end"]}\n', "known kind"),
        ('{"kind": "end", "point": ["x"], "repeat": 0}\n', "neither planned nor announced"),
        ('{"kind": "declared", "point": "POINT", "repeat": 0, "values": {"batch": -1}}\n', "-1 B"),
        (
            (
                '{"kind": "done", "point": "elsewhere", "repeat": 0, "outcome": "ok", "cause": '
                '"", "reason": ""}\n'
            ),
            "neither planned nor announced",
        ),
        (
            (
                '{"kind": "done", "point": "POINT", "repeat": 2, "outcome": "ok", "cause": "", '
                '"reason": ""}\n'
            ),
            "2 were planned",
        ),
        (
            (
                '{"kind": "done", "point": "POINT", "repeat": true, "outcome": "ok", "cause": '
                '"", "reason": ""}\n'
            ),
            "repeat True",
        ),
        (
            (
                '{"kind": "done", "point": "POINT", "repeat": 0, "outcome": "fine", "cause": '
                '"", "reason": ""}\n'
            ),
            "outcome",
        ),
        (
            '{"kind": "done", "point": "POINT", "repeat": 0, "outcome": "ok", "cause": ""}\n',
            "reason",
        ),
        (
            '{"kind": "declared", "point": "POINT", "repeat": 0, "values": {"batch": 1.5}}\n',
            "values.batch",
        ),
        ('{"kind": "declared", "point": "POINT", "repeat": 0, "values": {"batch": NaN}}\n', "NaN"),
    ],
)
def test_every_damaged_line_is_a_problem_with_its_number(synthetic_run, line, words):
    """Nothing is dropped in silence."""
    path = synthetic_run.write()
    damage(path, 2, line.replace("POINT", synthetic_run.points[0].name))
    problems = " ".join(load_run(path).problems)

    assert "rows.jsonl, line 3: " in problems
    assert words in problems


def test_a_damaged_last_line_is_a_problem(synthetic_run):
    """A disk that filled up cuts the last row; the point then has no end."""
    path = synthetic_run.write()
    text = (path / "rows.jsonl").read_text()
    (path / "rows.jsonl").write_text(text[:-20])
    run = load_run(path)
    line, seal = run.problems

    assert f"line {len(text.splitlines())}: damaged or cut short" in line
    assert "has lost 20 of the" in seal
    assert len(run.ends) == 35


@pytest.mark.parametrize("kind", ["phase", "end", "begin"])
def test_duplicate_rows_are_problems(synthetic_run, kind):
    """Which of the two is true cannot be told."""
    rows = synthetic_run.rows()
    rows.append(next(row for row in rows if row["kind"] == kind))

    assert len(load_run(synthetic_run.write(rows)).problems) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start_bytes": None}, "start_bytes is None"),
        ({"end_bytes": -1}, "end_bytes is -1"),
        ({"peak_bytes": 1.5}, "peak_bytes"),
        ({"peak_bytes": 2**63}, "peak_bytes is 9"),
    ],
)
def test_a_reading_without_its_amounts_is_a_problem(synthetic_run, change, words):
    """Exact, but not there: the whole row is refused."""
    rows = synthetic_run.rows()
    next(row for row in rows if row["kind"] == "phase")["readings"][0].update(change)
    (problem,) = load_run(synthetic_run.write(rows)).problems

    assert words in problem


def test_ok_needs_the_childs_own_word(synthetic_run):
    """An end that says ok without a done row is a problem."""
    rows = synthetic_run.rows()
    rows.remove(next(row for row in rows if row["kind"] == "done"))
    (problem,) = load_run(synthetic_run.write(rows)).problems

    assert "never said that it was done" in problem


def write_manifest(run, text):
    path = run.write()
    (path / "run.json").write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "list instead of an object"),
        ('{"schema_version": 3}', "reads version 2"),
        ("{}", "schema_version None"),
        ('{"schema_version": 2}', "is damaged"),
    ],
)
def test_an_unusable_manifest_is_one_sentence(synthetic_run, text, words):
    """What was found, and what to do."""
    with pytest.raises(RunDirectoryError, match=words):
        load_run(write_manifest(synthetic_run, text))


def test_missing_files_are_named(synthetic_run, tmp_path):
    """A folder that is no run, and a run without rows.jsonl."""
    with pytest.raises(RunDirectoryError, match=r"has no run\.json"):
        load_run(tmp_path)
    path = synthetic_run.write()
    (path / "rows.jsonl").unlink()
    with pytest.raises(RunDirectoryError, match=r"has no rows\.jsonl"):
        load_run(path)


def test_a_point_planned_twice_is_refused(synthetic_run):
    """Two points of one name cannot be told apart."""
    synthetic_run.points = [synthetic_run.points[0]] * 2
    with pytest.raises(RunDirectoryError, match="more than once"):
        load_run(synthetic_run.write())


def test_the_csv_is_the_table(synthetic_run):
    """Nothing is rounded or renamed on the way."""
    run = load_run(synthetic_run.write())
    read_back = pd.read_csv(io.StringIO(phases_text(run)))

    assert list(read_back.columns) == list(run.phases.columns)
    assert read_back["growth_bytes"].sum() == run.phases["growth_bytes"].sum()


def test_a_parameter_named_like_a_column_has_a_column_of_another_name(synthetic_run):
    """It would overwrite what was measured; other people's parameters are called anything."""
    point = synthetic_run.points[0]
    synthetic_run.points = [
        replace(point, parameters={**point.parameters, "meter": "x", "reason": 3})
    ]
    phases = load_run(synthetic_run.write()).phases

    assert set(phases["meter"]) == {"device_in_use", "host_anon", "host_rss", "nvml_process"}
    assert (set(phases["parameter_meter"]), set(phases["parameter_reason"])) == ({"x"}, {3})
