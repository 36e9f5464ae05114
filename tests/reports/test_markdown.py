"""The summary: the same words as the page, and nothing that a name could turn into markup."""

from dataclasses import replace

import pytest

from harness.records import PRETENDED_NOTE, Outcome
from reports.markdown import MAX_CAUSES, MOST_CHARACTERS, escape, summary_text
from reports.view import RunView


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
        ("see https://a.b, www.a.b, @c: d", "see https&#58;//a.b, www&#46;a.b, &#64;c: d"),
        ("[a](b) ~c~ $d$ _e_ *f*", "\\[a\\](b) \\~c\\~ \\$d\\$ \\_e\\_ \\*f\\*"),
    ],
)
def test_markup_is_escaped_and_numbers_stay_legible(text, expected):
    """What Markdown would read as markup shows as it is; what it would not is left alone."""
    assert expected == escape(text)


def test_the_summary_says_the_verdict_in_the_words_of_the_page(whole_run, judged, finding, held):
    """Heading, sentence, causes, numbers, how to reproduce."""
    judgement = judged(whole_run, finding, held)
    (cause,) = judgement.causes
    text = summary_text(RunView(whole_run), judgement, has_page=True)
    lines = text.splitlines()

    assert lines[0] == "## Regression"
    assert f"**{escape(cause.sentence)}**" == lines[2]
    assert f"1. **regression**: {escape(cause.what)}" in lines
    assert f"   - How much: {escape(cause.how_much)}" in lines
    assert f"   - What shows it: {escape(finding.sentence)}" in lines
    assert "   - Why this limit: 1/64 of X of one image." in lines
    assert (
        "| construct | device in use | 1.4 GiB | 625.0 MiB | exact | 0 B | 0 B | exact |" in lines
    )
    assert "```\npython -m harness gate --repeats 2\n```" in text
    assert "Commit e559833c0ffee." in text


def test_outside_of_git_there_are_no_changes(sweep, judged, held, tmp_path):
    """Whether there are any is unknown as well: a reason is no yes."""
    why = "unavailable: git diff failed (CalledProcessError)"
    sweep.changes = {"environment": {"git_commit": "unavailable: no repository", "git_dirty": why}}
    run = sweep.write(tmp_path)

    assert "Commit unavailable: no repository." in summary_text(
        RunView(run), judged(run, held), has_page=True
    )


def test_uncommitted_changes_are_said(sweep, judged, held, tmp_path):
    """A commit alone would promise what it does not hold."""
    sweep.changes = {"environment": {"git_commit": "abc", "git_dirty": True}}
    run = sweep.write(tmp_path)

    assert "Commit abc, with uncommitted changes." in summary_text(
        RunView(run), judged(run, held), has_page=True
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [("Pretended A100", True), ("NVIDIA A100", False), ("Pretendedly real", False)],
)
def test_a_pretended_card_is_said_to_compute_as_a_cpu_does(
    sweep, judged, held, tmp_path, name, said
):
    """By its name; on any other device the sentence would be wrong."""
    device = {
        "kind": "gpu",
        "name": name,
        "uuid": "GPU-1",
        "memory_bytes": 8 << 30,
        "allocator": "bfc",
        "driver": "575",
    }
    sweep.changes = {"device": device}
    run = sweep.write(tmp_path)

    assert (PRETENDED_NOTE in summary_text(RunView(run), judged(run, held), has_page=True)) is said


@pytest.mark.parametrize("why", ["TensorFlow 2.21.0 sees no GPU: install its libraries", ""])
def test_a_card_that_was_passed_over_is_said_with_what_to_do(sweep, judged, held, tmp_path, why):
    """In the notes of the summary and of the page; nothing where there was none."""
    device = {
        "kind": "emulated",
        "name": "BFC",
        "uuid": None,
        "memory_bytes": 3 << 30,
        "allocator": "bfc",
        "driver": "none",
    }
    sweep.changes = {"device": {**device, "passed_over": why}}
    run = sweep.write(tmp_path)
    text = summary_text(RunView(run), judged(run, held), has_page=True)

    assert (
        f"The emulated device was measured on, and the card was passed over: {escape(why)}." in text
    ) is bool(why)


def test_a_hostile_name_cannot_break_out_of_a_table_or_a_fence(sweep, judged, finding, tmp_path):
    """Pipes, backticks and tags in loader, sentence, reason and command."""
    hostile = "a|b`c`<script>"
    points = [
        replace(cell, parameters={**cell.parameters, "loader": hostile})
        for cell in sweep.points[:2]
    ]
    sweep.points, sweep.deaths = tuple(points), {points[0].name: (Outcome.ERROR, "open", hostile)}
    sweep.changes = {"command": "run\n```\n<script>"}
    run = sweep.write(tmp_path)
    text = summary_text(
        RunView(run), judged(run, replace(finding, sentence=hostile)), has_page=True
    )
    fenced = "````\nrun\n```\n<script>\n````"

    assert fenced in text
    assert "<script" not in text.replace(fenced, "")
    assert "   - What shows it: a\\|b\\`c\\`&lt;script>\n" in text
    assert "| a\\|b\\`c\\`&lt;script> growth |" in text


@pytest.mark.parametrize(("number", "more"), [(MAX_CAUSES, False), (MAX_CAUSES + 1, True)])
def test_causes_beyond_a_page_are_counted(whole_run, judged, finding, number, more):
    """All at the limit, one left to the page one past it."""
    # each of another size, so that none follows from another
    findings = [
        replace(finding, phase=f"phase_{index}", measured=1e4 * 2**index) for index in range(number)
    ]
    text = summary_text(RunView(whole_run), judged(whole_run, *findings), has_page=True)

    assert text.count("**regression**: ") == MAX_CAUSES
    assert more == ("1 more cause is in the page." in text)


def test_a_summary_begins_with_the_first_cause_and_counts_the_others(whole_run, judged, finding):
    """And says what was compared with what."""
    findings = [replace(finding, phase=phase, measured=9e4) for phase in ("construct", "epoch_0")]
    findings[1] = replace(findings[1], measured=9e5)
    judgement = replace(judged(whole_run, *findings), against="now was compared with then")
    lines = summary_text(RunView(whole_run), judgement, has_page=True).splitlines()
    first = escape(judgement.causes[0].sentence)

    assert lines[2] == f"**{first} 1 more cause below. Now was compared with then.**"


def test_what_follows_from_one_cause_is_a_count(whole_run, judged, finding):
    """Thirty findings of one phase: the first in full, the others counted."""
    findings = [
        replace(finding, subject=f"point {index}", measured=65_536.0 + index) for index in range(30)
    ]
    text = summary_text(RunView(whole_run), judged(whole_run, *findings), has_page=True)

    assert text.count("**regression**: ") == 1
    assert "   - Besides: 29 more findings follow from it\n" in text


def test_a_verdict_without_a_finding_is_short(whole_run, judged, held):
    """Nothing but the verdict, what moved, how to reproduce, and numbers that are folded."""
    lines = summary_text(RunView(whole_run), judged(whole_run, held), has_page=True).splitlines()
    headings = [line for line in lines if line.startswith("#")]

    assert headings == ["## Pass", "### Causes", "### What moved", "### How to reproduce"]
    assert "No finding: every check holds." in lines
    assert sum(line.startswith("<details>") for line in lines) == 3


def test_what_does_not_fit_is_left_to_the_page(whole_run, judged, finding):
    """Long sentences are cut; the whole stays below a comment of GitHub, and says that there is
    more.
    """
    long = [
        replace(
            finding,
            phase=f"phase_{index}",
            measured=1e4 * 2**index,
            sentence="|" * 9_000,
            because="_" * 9_000,
        )
        for index in range(30)
    ]
    text = summary_text(RunView(whole_run), judged(whole_run, *long), has_page=True)

    assert 40_000 < len(text) <= MOST_CHARACTERS
    assert "There is more than fits here: the page of the run, report.html, has all of it." in text
    assert "### How to reproduce" in text


def test_what_a_quorum_overruled_has_a_heading_of_its_own(whole_run, judged, held):
    """It is neither a finding nor something that the run cannot show."""
    decided = replace(held, sentence="epoch: 1 of 5 lies over it.", decision="1 of 5 lies over it")
    text = summary_text(RunView(whole_run), judged(whole_run, decided), has_page=True)

    assert (
        "### Measured again, and not confirmed by most of the runs\n\n- epoch: 1 of 5 lies "
        "over it.\n" in text
    )
    assert "Overruled" not in text


def test_a_run_without_points_still_has_a_summary(sweep, judged, tmp_path):
    """It says that there is nothing."""
    sweep.points = ()
    run = sweep.write(tmp_path)
    text = summary_text(RunView(run), judged(run), has_page=True)

    assert "## Incomplete" in text
    assert "No point was planned, so there are no numbers." in text
    assert "No check applied" in text


def test_a_run_without_rows_has_no_number_in_its_summary(sweep, judged, held, tmp_path):
    """Unavailable in every cell, with the reason, and no zero."""
    sweep.missing = frozenset(cell.name for cell in sweep.points)
    run = sweep.write(tmp_path)
    text = summary_text(RunView(run), judged(run, held), has_page=True)

    assert (
        "| open | device in use | unavailable | unavailable | unavailable, because nothing "
        "was recorded |" in text
    )
    assert " B |" not in text
