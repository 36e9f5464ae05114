"""How a run ended, in sentences that end once."""

import pytest

from harness.judge.gate import judge
from harness.judge.table import load_run
from harness.records import Outcome


@pytest.fixture
def sentences(synthetic_run, policy, baselines):
    """The findings about ends, of a run in which one point has ended so."""

    def find(name, *end, cause=""):
        synthetic_run.repeats = 1
        synthetic_run.ends = {(name, 0): end}
        synthetic_run.causes = {(name, 0): cause}
        verdict = judge(load_run(synthetic_run.write()), policy, baselines).verdict
        return [check.sentence for check in verdict.findings if check.rule == "outcome"]

    return find


LAZY = "arrays-lazy-image_count=500"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            "ValueError: no mode 'okk'; did you mean 'ok'?",
            "did you mean 'ok'? To do: fix the error",
        ),
        ("ValueError: no mode 'okk'.", "no mode 'okk'. To do: fix the error"),
        ("ValueError: no mode 'okk'", "no mode 'okk'. To do: fix the error"),
    ],
)
def test_a_reason_keeps_its_question_mark_and_gets_one_full_stop(sentences, reason, said):
    """The advice after it is a sentence of its own."""
    (sentence,) = sentences(LAZY, Outcome.ERROR, reason, "construct")

    assert said in sentence
    assert sentence.endswith("then measure again.")


@pytest.mark.parametrize(
    ("cause", "traceback"),
    [("ValueError", True), ("UsageError", True), ("preparation", False), ("rows", False)],
)
def test_a_traceback_is_promised_where_there_is_one(sentences, cause, traceback):
    """A preparation that was killed, and rows that could not be written, have none."""
    (sentence,) = sentences(LAZY, Outcome.ERROR, "it failed", None, cause=cause)

    assert ("has the traceback" in sentence) is traceback
    assert "the log of this run in logs/" in sentence


def test_a_run_that_survived_ends_its_sentence(synthetic_run, sentences):
    """Whoever shows it goes on with the place of the log."""
    (dying,) = [
        point.name for point in synthetic_run.points if point.expected is Outcome.DEVICE_OOM
    ]
    (sentence,) = sentences(dying, Outcome.OK, "", None)

    assert sentence.endswith(".")
