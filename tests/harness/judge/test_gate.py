"""The gate as a whole: the same verdict whatever the order of the rows, and the files that it
leaves.
"""

import json
from xml.dom import minidom

import numpy as np
import pandas as pd
import pytest

from harness.errors import RunDirectoryError
from harness.judge import Check, ExitCode, FindingKind, Verdict, junit_text
from harness.judge.gate import findings_text, judge
from harness.judge.table import load_run
from harness.records import Outcome
from harness.system import write_text
from reports.writing import write_outputs


def parsed(text):
    return minidom.parseString(text)  # noqa: S318 - as above


def spoiled(run):
    """A run with findings of several kinds."""
    run.plant(
        phase="construct",
        meter="device_in_use",
        extra=lambda point, repeat: 65_536 * point.parameters["image_count"],
    )
    run.ends[run.points[0].name, 1] = (Outcome.CRASHED, "killed by SIGKILL", "epoch_0")
    return run


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_changes_nothing(synthetic_run, policy, baselines, seed):
    """Workers side by side interleave their rows; tables, fits and findings are the same to the
    letter.
    """
    spoiled(synthetic_run)
    rows = synthetic_run.rows()
    serial = load_run(synthetic_run.write(rows))
    np.random.default_rng(seed).shuffle(rows)
    shuffled = load_run(synthetic_run.write(rows))
    expected, found = judge(serial, policy, baselines), judge(shuffled, policy, baselines)

    pd.testing.assert_frame_equal(serial.phases, shuffled.phases)
    pd.testing.assert_frame_equal(expected.fits, found.fits)
    assert findings_text(serial, expected) == findings_text(shuffled, found)


def test_the_files_of_a_judgement(synthetic_run, policy, baselines):
    """Five files, and no unfinished one beside them; findings.json holds every check, junit.xml one
    case for each.
    """
    run = load_run(spoiled(synthetic_run).write())
    judgement = judge(run, policy, baselines)
    write_outputs(run, judgement)
    findings = json.loads((run.path / "findings.json").read_text())
    suite = parsed((run.path / "junit.xml").read_text()).getElementsByTagName("testsuite")[0]
    failures = suite.getElementsByTagName("failure")

    assert {path.name for path in run.path.iterdir()} == {
        "run.json",
        "rows.jsonl",
        "phases.csv",
        "fits.csv",
        "findings.json",
        "junit.xml",
        "summary.md",
    }
    assert (findings["verdict"], findings["exit_code"]) == ("regression", ExitCode.REGRESSION)
    assert findings["sentence"] == judgement.verdict.sentence
    assert (
        len(findings["checks"]) == len(judgement.verdict.checks) == int(suite.getAttribute("tests"))
    )
    assert len(suite.getElementsByTagName("testcase")) == len(findings["checks"])
    assert [failure.getAttribute("message") for failure in failures] == [
        check.sentence for check in judgement.verdict.checks if check.finding
    ]
    assert int(suite.getAttribute("failures")) == len(findings["findings"]) == len(failures) > 0


def test_judging_twice_writes_the_same_bytes(synthetic_run, policy, baselines):
    """Everything is computed from the run directory alone."""
    run = load_run(spoiled(synthetic_run).write())
    texts = []
    for _ in range(2):
        write_outputs(run, judge(load_run(run.path), policy, baselines))
        texts.append([path.read_bytes() for path in sorted(run.path.iterdir())])

    assert texts[0] == texts[1]


def test_cases_have_names_of_their_own(synthetic_run, policy, baselines):
    """Viewers merge cases that share one."""
    document = parsed(
        junit_text(
            "run",
            judge(load_run(synthetic_run.write()), policy, baselines).verdict,
            judgement="0a1b",
        )
    )
    cases = document.getElementsByTagName("testcase")
    names = [(case.getAttribute("classname"), case.getAttribute("name")) for case in cases]

    assert len(names) == len(set(names))


def test_hostile_words_are_escaped():
    """Markup, quotes and the control characters of a child's last words, which XML cannot hold."""
    sentence = 'a <b> & "c" \x1b[31mred\x00 \ud800 ends'
    verdict = Verdict(
        (Check(rule="outcome", subject="<s>", sentence=sentence, finding=FindingKind.INCOMPLETE),)
    )
    document = parsed(junit_text("<run>", verdict, judgement="0a1b"))

    assert document.getElementsByTagName("testcase")[0].getAttribute("name") == "<s>"
    assert (
        document.getElementsByTagName("failure")[0].getAttribute("message")
        == 'a <b> & "c" \ufffd[31mred\ufffd \ufffd ends'
    )


def test_an_amount_without_a_limit_is_null_in_json(synthetic_run, policy, baselines):
    """JSON has no infinity: one repeat of two stack sizes leaves a slope without an interval, and
    is incomplete.
    """
    synthetic_run.repeats = 1
    run = load_run(synthetic_run.write())
    judgement = judge(run, policy, baselines)
    stacks = [check for check in judgement.verdict.findings if "stack_size /" in check.subject]

    assert judgement.verdict.exit_code is ExitCode.INCOMPLETE
    assert {check.rule for check in stacks} == {"slope"}
    assert json.loads(findings_text(run, judgement))["exit_code"] == 3


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    """The folder is gone; what was there before stays."""
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        write_text(tmp_path / "gone" / "findings.json", "x")
