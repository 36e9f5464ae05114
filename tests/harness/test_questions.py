"""docs/questions.md: every line of it is run, and answers."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "harness" / "rundir" / "stored" / "run"
TRACED = "loading-lazy-image_count=100-stack_size=2048"


@pytest.fixture(scope="module")
def answers():
    """What each question after the first block gives, by the question."""
    text = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    first, *blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    questions = re.findall(r"^\*\*(.*?)\*\*", text, flags=re.MULTILINE)
    names: dict[str, object] = {}
    exec(first.replace('"RUN"', repr(str(STORED))), names)  # noqa: S102 - our own document
    asked = zip(questions, blocks, strict=True)
    return {question: eval(block, names) for question, block in asked}  # noqa: S307 - the same


def test_there_are_five_questions(answers):
    """Each with a line that answers it."""
    assert len(answers) == 5


def test_what_is_wrong_has_a_row_for_each_cause(answers):
    """The stored run is incomplete without its policy."""
    causes = answers["What is wrong?"]

    assert len(causes) > 0
    assert causes["what"].notna().all()


def test_what_one_more_image_costs_is_a_slope(answers):
    """The lazy loader's is 0, in the phase that takes most."""
    (row,) = answers["What does one more image cost, and where?"].to_dict("records")

    assert (row["loader"], row["slope_bytes_per_image"], row["growth_class"]) == ("lazy", 0, "flat")
    assert row["peak_bytes"] == 6_295_040


def test_what_was_alive_is_named(answers):
    """A batch, above all."""
    alive = answers["What was on the device when it was fullest?"]

    assert set(alive["point"]) == {TRACED}
    assert "1.00 x batch" in set(alive["like"])


def test_runs_that_died_have_a_reason(answers):
    """The eager loader, under a budget that it cannot keep."""
    died = answers["Which runs did not come to their end, and why?"]

    assert set(died["outcome"]) == {"device_oom"}
    assert died["reason"].notna().all()


def test_repeats_lie_between_their_least_and_their_most(answers):
    """The device's do not differ at all."""
    spread = answers["How far apart are repeats of the same point?"].reset_index()
    device = spread[spread["meter"] == "device_in_use"]

    assert len(device) > 10
    assert (spread["max"] - spread["min"]).dropna().ge(0).all()
