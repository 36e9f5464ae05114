"""The summary: the same words as the page, and nothing that a name could turn into markup."""

from dataclasses import replace

import pytest

from harness.records import Outcome
from reports.markdown import MAX_FINDINGS, escape, write_summary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a | b", "a \\| b"),
        ("`x`", "\\`x\\`"),
        ("<b>&amp;", "&lt;b>&amp;amp;"),
        ("two\nlines", "two lines"),
        ("# head", "\\# head"),
        ("- item", "\\- item"),
        ("10. item", "10\\. item"),
        ("-3 B", "-3 B"),
        ("1.0 MiB", "1.0 MiB"),
        ("[a](b) ~c~ $d$ _e_ *f*", "\\[a\\](b) \\~c\\~ \\$d\\$ \\_e\\_ \\*f\\*"),
    ],
)
def test_markup_is_escaped_and_numbers_stay_legible(text, expected):
    """What Markdown would read as markup shows as it is; what it would not is left alone."""
    assert expected == escape(text)


def test_the_summary_says_the_verdict_in_the_words_of_the_page(whole_run, judged, finding, held):
    """Heading, sentence, findings, numbers, how to reproduce."""
    judgement = judged(whole_run, finding, held)
    text = write_summary(whole_run, judgement).read_text()
    lines = text.splitlines()

    assert lines[0] == "## Regression"
    assert f"**{escape(judgement.verdict.sentence)}**" == lines[2]
    assert f"| regression | slope | {escape(finding.sentence)} | 1/64 of X of one image. |" in lines
    assert "| construct | device in use | 1.4 GiB | 625.0 MiB | exact | 0 B | 0 B | exact |" in lines
    assert "```\npython -m harness gate --repeats 2\n```" in text
    assert "Commit e559833c0ffee." in text


def test_uncommitted_changes_are_said(sweep, judged, held, tmp_path):
    """A commit alone would promise what it does not hold."""
    sweep.changes = {"environment": {"git_commit": "abc", "git_dirty": True}}
    run = sweep.write(tmp_path)

    assert "Commit abc, with uncommitted changes." in write_summary(run, judged(run, held)).read_text()


def test_a_hostile_name_cannot_break_out_of_a_table_or_a_fence(sweep, judged, finding, tmp_path):
    """Pipes, backticks and tags in loader, sentence, reason and command."""
    hostile = "a|b`c`<script>"
    points = [replace(cell, parameters={**cell.parameters, "loader": hostile}) for cell in sweep.points[:2]]
    sweep.points, sweep.deaths = tuple(points), {points[0].name: (Outcome.ERROR, "open", hostile)}
    sweep.changes = {"command": "run\n```\n<script>"}
    run = sweep.write(tmp_path)
    text = write_summary(run, judged(run, replace(finding, sentence=hostile))).read_text()
    outside, _, fenced = text.partition("### How to reproduce")

    assert "<script" not in outside
    assert "| regression | slope | a\\|b\\`c\\`&lt;script> |" in outside
    assert "````\nrun\n```\n<script>\n````" in fenced


@pytest.mark.parametrize(("number", "more"), [(MAX_FINDINGS, False), (MAX_FINDINGS + 1, True)])
def test_findings_beyond_a_page_are_counted(whole_run, judged, finding, number, more):
    """All at the limit, one left to the page one past it."""
    text = write_summary(whole_run, judged(whole_run, *[finding] * number)).read_text()

    assert text.count("| regression | slope |") == MAX_FINDINGS
    assert more == ("1 more finding is in the page." in text)


def test_a_run_without_points_still_has_a_summary(sweep, judged, tmp_path):
    """It says that there is nothing."""
    sweep.points = ()
    run = sweep.write(tmp_path)
    text = write_summary(run, judged(run)).read_text()

    assert "## Incomplete" in text
    assert "No point was planned, so there are no numbers." in text
    assert "No check applied" in text


def test_a_run_without_rows_has_no_number_in_its_summary(sweep, judged, held, tmp_path):
    """Unavailable in every cell, with the reason, and no zero."""
    sweep.missing = frozenset(cell.name for cell in sweep.points)
    run = sweep.write(tmp_path)
    text = write_summary(run, judged(run, held)).read_text()

    assert "| open | device in use | unavailable | unavailable | unavailable, because nothing was recorded |" in text
    assert " B |" not in text
