"""Nothing is green because nothing was looked at: each way of seeing nothing has its exit code and
its sentence.
"""

import json
from dataclasses import replace

import pytest

from harness.__main__ import main
from harness.records import Outcome

NAME = "arrays-lazy-image_count=500"
POLICY = """
schema_version = 1
[[slope]]
scenarios = ["arrays"]
where = { loader = "lazy" }
meters = ["device_in_use"]
over = "image_count"
at_most = "1024 B"
resolve = "0.25 images"
because = "chosen"
[[leak]]
scenarios = ["arrays"]
phases = ["epoch_0", "epoch_1"]
meters = ["device_in_use"]
field = "end"
at_most = "64 KiB"
because = "chosen"
[[tolerance]]
meter = "device_in_use"
percent = 2
floor = "64 KiB"
because = "chosen"
"""


@pytest.fixture
def gate(synthetic_run, tmp_path, capsys):
    """Accept the good arrays, spoil them, and judge them on the command line: exit code and what
    was printed.
    """
    synthetic_run.keep_points(lambda point: point.scenario == "arrays")
    (tmp_path / "gate.toml").write_text(POLICY)
    settings = ("--policy", str(tmp_path / "gate.toml"), "--baselines", str(tmp_path / "baselines"))

    def gate(spoil, *more):
        assert main(["accept", str(synthetic_run.write()), "--reason", "chosen", *settings]) == 0
        assert main(["gate", str(synthetic_run.path), *settings]) == 0
        capsys.readouterr()
        spoil(synthetic_run)
        code = main(["gate", str(synthetic_run.path), "--verbose", *settings, *more])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return gate


def select_no_points(run):
    run.points = []
    run.write([])


def skip_all(run):
    run.write([])


def skip_all_with_a_reason(run):
    run.ends = {
        (point.name, repeat): (Outcome.SKIPPED, "no card", None)
        for point in run.points
        for repeat in range(2)
    }
    rows = [row for row in run.rows() if row["kind"] == "end"]
    run.write(rows)


def rename_the_scenario(run):
    run.points = [replace(point, scenario="arrays2") for point in run.points]
    run.write()


def rename_a_phase(run):
    phases = {"epoch_1": "epoch_2"}
    run.points = [
        replace(point, phases=tuple(phases.get(phase, phase) for phase in point.phases))
        for point in run.points
    ]
    base = run.amounts
    run.amounts = lambda point, repeat, phase: base(
        point, repeat, "epoch_1" if phase == "epoch_2" else phase
    )
    run.write()


def use_another_device(run):
    run.manifest["comparability"] = {
        **run.run_json()["comparability"],
        "device": "NVIDIA A100, 80.0 GiB",
    }
    run.write()


def cut_the_rows_in_a_line(run):
    text = (run.path / "rows.jsonl").read_text()
    (run.path / "rows.jsonl").write_text(text[: len(text) // 2])


def cut_the_rows_between_lines(run):
    lines = (run.path / "rows.jsonl").read_text().splitlines(keepends=True)
    (run.path / "rows.jsonl").write_text("".join(lines[: len(lines) // 2]))


def empty_the_rows(run):
    (run.path / "rows.jsonl").write_text("")


def delete_the_rows(run):
    (run.path / "rows.jsonl").unlink()


def delete_the_plan(run):
    (run.path / "run.json").unlink()


def edit_the_table(run):
    table = run.path / "phases.csv"
    table.write_text(table.read_text().replace("8388608", "4194304"))


def edit_the_rows(run):
    rows = run.path / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"peak_bytes": 8388608', '"peak_bytes": 4194304'))


def edit_the_plan(run):
    manifest = json.loads((run.path / "run.json").read_text())
    manifest["repeats"] = 1
    (run.path / "run.json").write_text(json.dumps(manifest))


def use_an_unknown_schema(run):
    run.manifest["schema_version"] = 99
    run.write()


def break_off(run):
    run.manifest["ended"] = None
    run.write()


def lose_a_repeat(run):
    run.write([row for row in run.rows() if (row["point"], row["repeat"]) != (NAME, 1)])


def lose_a_meter(run):
    run.without_meter("device_in_use", "TensorFlow has no such device").write()


def leave_out_a_meter(run):
    rows = run.rows()
    for row in rows:
        if row["kind"] == "phase":
            row["readings"] = row["readings"][1:]
    run.write(rows)


def end_before_the_start(run):
    run.manifest["ended"] = "2025-12-31T00:00:00+00:00"
    run.write()


def end_in_the_future(run):
    run.manifest["ended"] = "2999-01-01T00:00:00+00:00"
    run.write()


def end_at_no_time(run):
    run.manifest["ended"] = "soon"
    run.write()


def plan_a_billion_repeats(run):
    run.manifest["repeats"] = 10**9
    run.write()


def nest_the_plan(run):
    (run.path / "run.json").write_text("[" * 100_000)


def nest_a_row(run):
    (run.path / "rows.jsonl").write_text("[" * 100_000 + "\n")


def put_a_folder_in_place_of_the_table(run):
    (run.path / "phases.csv").unlink()
    (run.path / "phases.csv").mkdir()


def exit_with_a_code(run):
    run.write([row | {"exit_code": 9} if row["kind"] == "end" else row for row in run.rows()])


def turn_the_phases_around(run):
    run.write([row | {"index": 9 - row["index"]} if "index" in row else row for row in run.rows()])


def rename_a_meter(run):
    rows = run.rows()
    for row in rows:
        for reading in row.get("readings", ()):
            reading["meter"] = reading["meter"].replace("device_in_use", "device_inuse")
    run.write(rows)


def void_a_run(run):
    run.write([*run.rows(), {"kind": "again", "point": NAME, "repeat": 1, "reason": "chosen"}])


def duplicate_the_rows(run):
    run.write(run.rows() * 2)


def rename_points_in_the_rows(run):
    run.write([row | {"point": row["point"].replace("=500", "=501")} for row in run.rows()])


def take_the_rows_of_another_run(run):
    rows = [row for row in run.rows() if row["point"] != NAME]
    (run.path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def promise_something_else_afterwards(run):
    manifest = json.loads((run.path / "run.json").read_text())
    manifest["policy"] = {"schema_version": 1}
    (run.path / "run.json").write_text(json.dumps(manifest))


def announce_what_is_never_measured(run):
    run.write([*run.rows(), {"kind": "remeasure", "point": NAME, "repeats": 1, "reason": "chosen"}])


def ask_a_test_that_is_silent(run):
    run.manifest["asked"] = ["tests/test_x.py::test_y"]
    run.write()


def break_off_while_measuring_again(run):
    run.manifest |= {"ended": None, "remeasured": [{"points": [NAME]}]}
    run.write()


def lose_a_point(run):
    run.keep_points(lambda point: point.name != NAME).write()


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (
            select_no_points,
            3,
            "the run planned no point at all; choose points that exist (pytest --collect-only",
        ),
        (
            skip_all,
            3,
            (
                "no end of it was recorded: it was skipped, lost or never started; measure "
                "what is missing with: pytest "
            ),
        ),
        (
            skip_all_with_a_reason,
            3,
            "ended skipped instead of ok: no card. To do: fix what made it skip",
        ),
        (
            rename_the_scenario,
            3,
            (
                "planned no point of arrays, loader lazy (it planned arrays2; was the scenario "
                "renamed?)"
            ),
        ),
        (
            rename_the_scenario,
            3,
            "(was it renamed to arrays2-lazy-image_count=500, which the baseline does not have?)",
        ),
        (
            rename_a_phase,
            3,
            (
                "the baseline has its phase epoch_1, but it is no longer measured (was it "
                "renamed to epoch_2, which"
            ),
        ),
        (
            use_another_device,
            4,
            "device was emulated and is NVIDIA A100, 80.0 GiB. To do: look at the run, then accept",
        ),
        (cut_the_rows_in_a_line, 3, "damaged or cut short, not JSON"),
        (cut_the_rows_in_a_line, 3, "it was cut short; restore it, or measure again"),
        (cut_the_rows_between_lines, 3, "it was cut short; restore it, or measure again"),
        (empty_the_rows, 3, "it was cut short; restore it, or measure again"),
        (
            delete_the_rows,
            2,
            "has no rows.jsonl, which a run has from its start on: it was deleted, or not copied",
        ),
        (delete_the_plan, 2, "is not a run directory: it has no run.json"),
        (
            edit_the_table,
            3,
            "phases.csv is not what the gate derived from rows.jsonl: it was edited",
        ),
        (edit_the_rows, 3, "rows.jsonl was changed after the run had ended"),
        (
            edit_the_plan,
            3,
            "run.json was changed after the run had ended (its plan, device or settings)",
        ),
        (use_an_unknown_schema, 2, "has schema_version 99; this program reads version 2"),
        (break_off, 3, "the run has no end: it was broken off, or is still going"),
        (lose_a_repeat, 3, "repeat 1: no end of it was recorded"),
        (
            lose_a_meter,
            3,
            "unavailable: TensorFlow has no such device. To do: run: python -m harness doctor",
        ),
        (leave_out_a_meter, 3, "no reading of it at all"),
        (
            end_before_the_start,
            3,
            "says that the run ended (2025-12-31T00:00:00+00:00) before it started",
        ),
        (end_in_the_future, 3, "ended at 2999-01-01T00:00:00+00:00, which is still to come"),
        (end_at_no_time, 3, "run.json has times that are none"),
        (
            plan_a_billion_repeats,
            2,
            "run.json is damaged: repeats: Input should be less than or equal to 1000",
        ),
        (nest_the_plan, 2, "run.json is damaged, not JSON"),
        (nest_a_row, 3, "rows.jsonl, line 1: damaged or cut short, not JSON"),
        (
            put_a_folder_in_place_of_the_table,
            3,
            "phases.csv is not what the gate derived from rows.jsonl",
        ),
        (exit_with_a_code, 3, "is recorded as ok, but its child exited with code 9"),
        (turn_the_phases_around, 3, "it went through its phases in the order release, epoch_1"),
        (rename_a_meter, 3, "no reading of it at all"),
        (void_a_run, 3, "repeat 1: no end of it was recorded"),
        (duplicate_the_rows, 3, "enters phase construct a second time"),
        (rename_points_in_the_rows, 3, "which this run neither planned nor announced"),
        (take_the_rows_of_another_run, 3, "it was cut short; restore it, or measure again"),
        (promise_something_else_afterwards, 3, "run.json was changed after the run had ended"),
        (
            announce_what_is_never_measured,
            3,
            "it was announced because of a finding and not measured; go on with: python",
        ),
        (
            ask_a_test_that_is_silent,
            3,
            "tests/test_x.py::test_y takes memory_run and measured nothing",
        ),
        (break_off_while_measuring_again, 3, "it was broken off while it was measured again"),
        (lose_a_point, 3, f"{NAME}: the baseline has this point, but the run did not plan it"),
    ],
)
def test_each_way_of_seeing_nothing_has_its_exit_code_and_its_sentence(gate, spoil, code, words):
    """Never 0."""
    found, said = gate(spoil)

    assert found == code
    assert words in said


@pytest.mark.parametrize(
    "spoil",
    [select_no_points, skip_all, rename_the_scenario, break_off, lose_a_repeat, lose_a_meter],
)
def test_measuring_less_on_purpose_excuses_nothing_else(gate, spoil):
    """--partial asks only for what the run planned, and for all of that."""
    code, _ = gate(spoil, "--partial")

    assert code in (3, 4)


def test_a_file_in_place_of_the_baselines_is_a_mistake(synthetic_run, tmp_path, capsys):
    """Nothing could be found in it, and that would look like a first run."""
    (tmp_path / "gate.toml").write_text(POLICY)
    (tmp_path / "baselines").write_text("")
    synthetic_run.keep_points(lambda point: point.scenario == "arrays")
    run = str(synthetic_run.write())

    assert (
        main(
            [
                "gate",
                run,
                "--policy",
                str(tmp_path / "gate.toml"),
                "--baselines",
                str(tmp_path / "baselines"),
            ]
        )
        == 2
    )
    assert "is a file; name a folder" in capsys.readouterr().err


def test_a_link_to_a_run_is_the_run(gate):
    """Where it lies is no part of what was measured."""

    def link(run):
        real = run.path.with_name("real")
        run.path.rename(real)
        run.path.symlink_to(real)

    assert gate(link)[0] == 0
