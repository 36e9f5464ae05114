"""Files of a run that changed after its end, and tables that were edited: noticed, told, and left
as they are.
"""

import json

import pytest

from harness.judge import ExitCode
from harness.judge.gate import judge
from harness.judge.table import load_run
from harness.rundir.reading import digest
from reports.writing import write_outputs


@pytest.fixture
def small(synthetic_run):
    """A run of a few points, written."""
    return synthetic_run.keep_points(lambda point: point.scenario == "arrays").write()


@pytest.fixture
def judged(policy, baselines, small):
    """Judge the small run, as it lies there now."""

    def judged():
        run = load_run(small)
        judgement = judge(run, policy, baselines, partial=True)
        write_outputs(run, judgement)
        return judgement.verdict

    return judged


def append_a_row(path):
    with (path / "rows.jsonl").open("a") as file:
        file.write(
            '{"kind": "declared", "point": "arrays-lazy-image_count=100", "repeat": 0, '
            '"values": {"batch": 4194304}}\n'
        )


def cut_the_last_line(path):
    lines = (path / "rows.jsonl").read_text().splitlines(keepends=True)
    (path / "rows.jsonl").write_text("".join(lines[:-1]))


def edit_an_amount(path):
    text = (path / "rows.jsonl").read_text()
    (path / "rows.jsonl").write_text(
        text.replace('"peak_bytes": 8388608', '"peak_bytes": 8388609', 1)
    )


def edit_the_plan(path):
    manifest = json.loads((path / "run.json").read_text())
    manifest["planned"][0]["expected"] = "device_oom"
    (path / "run.json").write_text(json.dumps(manifest))


def remove_the_seal(path):
    manifest = json.loads((path / "run.json").read_text())
    del manifest["seal"]
    (path / "run.json").write_text(json.dumps(manifest))


def break_the_seal(path):
    manifest = json.loads((path / "run.json").read_text())
    manifest["seal"]["rows_bytes"] = "many"
    (path / "run.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (append_a_row, " B since the run ended: something went on writing, or rows were added"),
        (cut_the_last_line, "rows.jsonl has lost "),
        (edit_an_amount, "rows.jsonl was changed after the run had ended"),
        (
            edit_the_plan,
            "run.json was changed after the run had ended (its plan, device or settings)",
        ),
        (remove_the_seal, "run.json has an end but no seal"),
        (break_the_seal, "run.json has an end but no seal"),
    ],
)
def test_a_file_that_changed_after_the_end_is_incomplete(small, judged, change, words):
    """Exit 3, with the file, what happened to it, and what to do."""
    change(small)
    verdict = judged()

    assert verdict.exit_code is ExitCode.INCOMPLETE
    (sentence,) = [check.sentence for check in verdict.findings if words in check.sentence]
    assert "measure again" in sentence


def test_the_order_of_keys_in_run_json_is_no_change(small, judged):
    """Formatted anew by an editor, it says the same."""
    manifest = json.loads((small / "run.json").read_text())
    (small / "run.json").write_text(json.dumps(dict(sorted(manifest.items())), indent=4))

    assert judged().exit_code is ExitCode.PASS


@pytest.mark.parametrize("table", ["phases.csv", "fits.csv"])
def test_an_edited_table_is_incomplete_and_left_as_it_is(small, judged, table):
    """No verdict rests on it, but people read it; deleting it is enough."""
    judged()
    (small / table).write_text(
        (small / table).read_text().replace("8388608", "8388609").replace("0.0", "0.1")
    )
    edited = (small / table).read_text()
    verdicts = [judged(), judged()]
    kept = (small / table).read_text()
    (small / table).unlink()

    assert [verdict.exit_code for verdict in verdicts] == [ExitCode.INCOMPLETE] * 2
    assert (
        f"{table} is not what the gate derived from rows.jsonl: it was edited"
        in verdicts[0].sentence
    )
    assert kept == edited
    assert judged().exit_code is ExitCode.PASS


def test_a_table_that_an_earlier_version_wrote_is_written_anew(small, judged):
    """Its checksum in findings.json says that nobody has edited it since."""
    judged()
    older = "scenario,point\n"
    (small / "phases.csv").write_text(older)
    findings = json.loads((small / "findings.json").read_text())
    findings["tables"]["phases.csv"] = "2f0ad1a1b6d3b0d0"
    (small / "findings.json").write_text(json.dumps(findings))
    stranger = judged().exit_code
    findings["tables"]["phases.csv"] = digest(older.encode())
    (small / "findings.json").write_text(json.dumps(findings))

    assert stranger is ExitCode.INCOMPLETE
    assert judged().exit_code is ExitCode.PASS
    assert (small / "phases.csv").read_text() != older


@pytest.mark.parametrize("text", ["", "[]", '{"tables": 3}'])
def test_damaged_findings_are_written_anew(small, judged, text):
    """They are derived, and nothing is read from them but checksums."""
    judged()
    (small / "findings.json").write_text(text)

    assert judged().exit_code is ExitCode.PASS
