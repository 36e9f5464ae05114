"""The page of a judgement: the code and the device first, four answers, cards, causes with what to
type, and every check with a place of its own.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.__main__ import main
from harness.judge import Check, FindingKind, RuleName, Verdict
from harness.judge.causes import AliveTensors, Cause, CauseKind, Command
from harness.judge.gate import Judgement
from harness.words import MIB
from reports.cards import cards_of
from reports.cause_cards import MOST_FOLLOWING
from reports.curves import run_panels
from reports.earlier import NOTHING_EARLIER, Earlier
from reports.header import NOT_RECORDED, header_of
from reports.html import render
from reports.marks import bar, sparkline
from reports.page import make_page
from reports.view import RunView
from reports.words import duration

HOSTILE = '<script>alert("x")</script>\' & $\\frac$'


def facts(run, judgement, earlier=NOTHING_EARLIER):
    header = header_of(RunView(run), judgement, earlier)
    return header.badge, {fact.name: fact.words for fact in header.facts}


def test_the_header_says_code_device_date_and_duration(sweep, judged, tmp_path):
    """As run.json has them."""
    environment = {
        "git_commit": "e559833c0ffee77",
        "git_branch": "faster",
        "git_subject": "Batches are read ahead",
        "git_dirty": True,
        "ci_url": "https://ci.example/job/7",
    }
    sweep.changes = {"project": "ptycho", "environment": environment}
    run = sweep.write(tmp_path)
    header = header_of(RunView(run), judged(run), Earlier(words="accepted 2026-11-20 from run s1"))

    assert header.badge == "emulated"
    assert {fact.name: fact.words for fact in header.facts} == {
        "project": "ptycho",
        "branch": "faster",
        "commit": "e559833c0ffe Batches are read ahead, with uncommitted changes",
        "compared with": "the baseline, accepted 2026-11-20 from run s1",
        "device": "TensorFlow's GPU allocator on the CPU, 4.0 GiB; no card was measured",
        "measured": "2026-11-23 20:00:00 UTC",
        "took": "3 min 41 s",
        "CI job": "https://ci.example/job/7",
    }
    assert header.facts[-1].address == "https://ci.example/job/7"


def test_what_is_not_recorded_is_said_to_be(sweep, judged, tmp_path):
    """Runs of before it was, and of folders that git knows nothing of."""
    sweep.changes = {
        "environment": {"git_commit": "unavailable: git rev-parse failed"},
        "ended": None,
    }
    run = sweep.write(tmp_path)
    _, said = facts(run, judged(run))

    assert {name for name, words in said.items() if words == NOT_RECORDED} == {
        *("project", "branch", "commit", "CI job"),
    }
    assert said["took"] == "no end was recorded"
    assert said["compared with"] == "no earlier run"


@pytest.mark.parametrize(
    ("device", "badge", "words"),
    [
        ({"kind": "gpu", "name": "NVIDIA A100"}, "", "NVIDIA A100, 4.0 GiB"),
        (
            {"kind": "gpu", "name": "Pretended A100"},
            "pretended",
            "Pretended A100, 4.0 GiB: TensorFlow's GPU device without a card",
        ),
    ],
)
def test_a_card_has_no_badge_and_a_pretended_one_says_so_first(
    sweep, judged, tmp_path, device, badge, words
):
    """So that a pass of it is not taken for one of a card."""
    sweep.changes = {"device": {**sweep.manifest()["device"], **device}}
    run = sweep.write(tmp_path)

    assert facts(run, judged(run))[0] == badge
    assert facts(run, judged(run))[1]["device"] == words


@pytest.mark.parametrize("address", ["javascript:alert(1)", "ftp://ci.example/7", "ci.example/7"])
def test_only_web_addresses_are_links(sweep, judged, tmp_path, address):
    """The environment is not the page's to trust."""
    environment = {**sweep.manifest()["environment"], "ci_url": address}
    sweep.changes = {"environment": environment}
    run = sweep.write(tmp_path)
    fact = header_of(RunView(run), judged(run), NOTHING_EARLIER).facts[-1]

    assert (fact.words, fact.address) == (address, "")


def test_durations_are_said_in_two_units_at_most():
    """Seconds, minutes, hours."""
    found = [duration(timedelta(seconds=seconds)) for seconds in (59, 60, 3599, 3600, 86_460)]

    assert found == ["59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "24 h 1 min"]


def cards_by_name(run, *checks, earlier=NOTHING_EARLIER):
    view, judgement = RunView(run), Judgement(Verdict(checks), ())
    found = cards_of(view, judgement, earlier, run_panels(view, judgement, earlier))
    return {(card.scenario, card.series): card for card in found}


def limit(point, limit_bytes, amount=12 * MIB, finding=None):
    return Check(
        rule=RuleName.BUDGET,
        subject=point,
        sentence="x",
        finding=finding,
        scenario="loading",
        point=point,
        points=(point,),
        phase="epoch_0",
        meter="device_in_use",
        measured=float(amount),
        limit=float(limit_bytes),
        bound="upper",
        unit="B",
    )


LARGEST = "loading-lazy-image_count=2000-stack_size=2048"


def test_a_card_says_peak_slope_limit_and_change(whole_run):
    """The lazy loader at its largest size: 12 MiB of the 16 that it may take, and 8 before."""
    earlier = Earlier(words="at main", rises={(LARGEST, "device_in_use"): 8 * MIB})
    card = cards_by_name(whole_run, limit(LARGEST, 16 * MIB), earlier=earlier)["loading", "lazy"]

    assert (card.peak, card.at) == ("12.0 MiB", "at 2,000 images")
    assert card.limit == "at most 16.0 MiB allowed"
    assert card.each == "0 B/image"
    assert card.change == "+4.0 MiB (8.0 MiB before)"
    assert (card.light, card.state) == ("pass", "1 check holds")
    assert 'width="75.0"' in card.bar


def test_a_card_takes_the_limit_on_the_nearest_amount(whole_run):
    """Another budget of the point is about less than the peak."""
    near, other = limit(LARGEST, 16 * MIB), limit(LARGEST, MIB, amount=11 * MIB)

    assert cards_by_name(whole_run, other, near)["loading", "lazy"].limit == (
        "at most 16.0 MiB allowed"
    )


def test_a_card_without_a_limit_is_held_against_the_device(whole_run):
    """Its own where it has one; nothing is said of one that was not read."""
    found = cards_by_name(whole_run)

    assert found["loading", "lazy"].limit == "no limit of its own; the device has 4.0 GiB"
    assert found["oom", "lazy"].limit == "no limit of its own; the device has 256.0 MiB"
    assert found["oom", "eager"].peak == "out of device memory, as planned"
    assert (found["oom", "eager"].limit, found["oom", "eager"].bar) == ("", "")
    assert {card.state for card in found.values()} == {"not judged"}


def test_the_light_of_a_card_is_that_of_its_gravest_finding(whole_run):
    """In words too, with how many of its checks do not hold."""
    held = limit(LARGEST, 16 * MIB)
    checks = (
        replace(held, finding=FindingKind.IMPROVEMENT),
        replace(held, finding=FindingKind.INCOMPLETE),
        held,
    )
    card = cards_by_name(whole_run, *checks)["loading", "lazy"]

    assert (card.light, card.state) == ("incomplete", "incomplete: 2 checks of 3")
    assert cards_by_name(whole_run, *checks)["loading", "eager"].light == "none"


@pytest.mark.parametrize(
    ("share", "width", "over"), [(0.5, "50.0", False), (1.0, "100.0", False), (1.01, "100.0", True)]
)
def test_a_bar_is_full_at_its_limit_and_broken_past_it(share, width, over):
    """At the limit is allowed."""
    drawn = bar(share)

    assert f'class="taken" width="{width}"' in drawn
    assert ("over" in drawn) is over


def test_a_sparkline_ends_in_a_dot_and_shows_a_limit_that_is_near():
    """One that is far above would make it flat; nothing is nothing."""
    assert sparkline([]) == ""
    assert sparkline([1, 2, 4]).count(",") == 3
    assert 'class="limit"' in sparkline([1, 4], 8)
    assert 'class="limit"' not in sparkline([1, 4], 9)


def told(first, *others, **more):
    return Cause(
        id="1c3e5a",
        kind=CauseKind.MEMORY,
        finding=FindingKind.REGRESSION,
        checks=(first, *others),
        **{
            "what": "the lazy loader keeps X",
            "where": "loading; first in construct",
            "how_much": "125.0 MiB at 2,000 images",
            "since": "not at main (e4ecc0f)",
            **more,
        },
    )


def page_of(run, judgement, *causes, read_text):
    judgement = replace(judgement, causes=causes)
    return read_text(render(make_page(RunView(run), judgement)))


def test_a_cause_has_its_answers_rule_commands_and_what_was_alive(
    whole_run, judged, finding, read_text
):
    """In the order in which they are needed, each command whole in a block of its own."""
    follows = replace(finding, subject="arrays / lazy", sentence="arrays / lazy: grows too.")
    cause = told(
        finding,
        follows,
        alive=(
            AliveTensors(
                dtype="float32",
                shape=(2000, 64),
                operation="Empty",
                count=1,
                nbytes=125 * MIB,
                declared="1.00 x X",
            ),
        ),
        commands=(Command(purpose="measure this point again", line="pytest scenarios -k 'a b'"),),
        rule_place="scenarios/gate.toml:41",
        rule_text='[[slope]]\nat_most = "512 B"',
        phase="construct",
        point="loading-lazy",
    )
    page = page_of(whole_run, judged(whole_run, finding, follows), cause, read_text=read_text)

    assert "The lazy loader keeps X" in page.text("h3")
    for words in (cause.where, cause.how_much, cause.since):
        assert page.text("dd").count(words) == 2  # in the verdict, and in the card
    assert "pytest scenarios -k 'a b'" in [text for tag, text in page.texts if tag == "pre"]
    assert '[[slope]] at_most = "512 B"' in page.text("pre")
    assert "The rule, scenarios/gate.toml:41:" in page.text("p")
    assert ["1 x float32 (2,000, 64)", "Empty", "125.0 MiB", "1.00 x X"] in page.rows
    assert "1 more finding follows from it" in page.text("summary")
    assert "arrays / lazy: grows too." in page.text("p")


def test_every_check_of_a_cause_can_be_linked_to(whole_run, judged, finding, read_text):
    """By ids that links in the page lead to; causes have one too."""
    follows = replace(finding, subject="arrays / lazy")
    page = page_of(
        whole_run, judged(whole_run, finding, follows), told(finding, follows), read_text=read_text
    )
    ids = [value for value in page.values("id") if value.startswith(("f-", "cause-1c"))]

    assert len(set(ids)) == 4  # the cause, its heading, two checks
    assert {f"#{value}" for value in ids if not value.endswith("-what")} <= set(page.values("href"))


def test_a_death_shows_the_end_of_its_log(whole_run, judged, finding, read_text):
    """A page that came by mail has no folder of logs beside it."""
    cause = told(finding, log_tail=("Fatal Python error: Segmentation fault", f"at {HOSTILE}"))
    page = page_of(whole_run, judged(whole_run, finding), cause, read_text=read_text)

    assert f"Fatal Python error: Segmentation fault at {HOSTILE}" in page.text("pre")


def test_names_in_a_cause_are_shown_and_not_obeyed(whole_run, judged, finding, read_text):
    """Each of its texts."""
    names = ("what", "where", "how_much", "since", "loader", "point", "rule_place", "rule_text")
    hostile = replace(finding, sentence=HOSTILE, because=HOSTILE)
    cause = told(
        hostile,
        **dict.fromkeys(names, HOSTILE),
        commands=(Command(purpose=HOSTILE, line=HOSTILE),),
        alive=(
            AliveTensors(
                dtype=HOSTILE, shape=(), operation=HOSTILE, count=1, nbytes=1, declared=HOSTILE
            ),
        ),
    )
    judgement = replace(judged(whole_run, hostile), causes=(cause,))
    html = render(make_page(RunView(whole_run), judgement))

    assert "<script" not in html
    assert read_text(html).text().count(HOSTILE) >= 12


def test_a_finding_of_no_cause_is_not_left_out(whole_run, judged, finding, read_text):
    """Below those that are in one."""
    other = replace(finding, subject="feeds / lazy", sentence="feeds / lazy: grows.")
    page = page_of(whole_run, judged(whole_run, finding, other), told(finding), read_text=read_text)

    assert "Findings of no cause above" in page.text("h3")
    assert page.text("p").count("feeds / lazy: grows.") == 1


def test_what_was_overruled_or_is_better_is_not_among_what_a_run_cannot_show(
    whole_run, judged, held, read_text
):
    """Each stands under a heading of its own."""
    better = replace(held, subject="b", sentence="b takes less.", better=True)
    overruled = replace(held, subject="o", sentence="o was overruled.", decision="2 of 3")
    page = page_of(whole_run, judged(whole_run, better, overruled), read_text=read_text)
    items = [text for tag, text in page.texts if tag == "li" and text]

    assert "Better than before, beyond tolerance: 1" in page.text("summary")
    assert "Measured again, and not confirmed by most of the runs: 1" in page.text("summary")
    assert {"b takes less.", "o was overruled."} <= set(items)
    assert "What this run cannot show" not in page.text()


def test_a_run_without_a_finding_says_how_much_and_compared_with_what(whole_run, judged, held):
    """The answers of a pass are those of the first scenario."""
    answers = make_page(RunView(whole_run), judged(whole_run, held)).answers

    assert [answer.question for answer in answers] == ["What", "Where", "How much", "Since when"]
    assert [answer.words for answer in answers] == [
        "All 1 checks hold.",
        "3 scenarios: loading, arrays, oom",
        (
            "loading, eager: 1.4 GiB at 2,000 images, 735,000 B/image; "
            "lazy: 12.0 MiB at 2,000 images, 0 B/image; and 4 others below"
        ),
        "no earlier run",
    ]


def test_long_names_leave_the_verdict_short(sweep, judged, held, tmp_path):
    """Their ends are said, in which they differ; a series without a loader is not named twice."""
    name = f"tests/{'very_' * 20}long.py::test_it"
    first = sweep.points[0]
    sweep.points = tuple(
        replace(first, scenario=name, parameters={"image_count": size, "kind": "k" * 90})
        for size in (100, 200)
    )
    run = sweep.write(tmp_path)
    page = make_page(RunView(run), judged(run, held))

    assert max(len(answer.words) for answer in page.answers) < 140
    assert page.answers[1].words.endswith("long.py::test_it")
    assert page.cards[0].series == f"kind={'k' * 90}"


def test_history_that_is_no_folder_is_one_sentence(whole_path, capsys):
    """Exit code 2, with what was typed."""
    assert main(["report", str(whole_path.parent), "--history", "/nowhere"]) == 2
    assert "--history /nowhere is not there" in capsys.readouterr().err


@pytest.mark.parametrize(("others", "left_out"), [(MOST_FOLLOWING, 0), (MOST_FOLLOWING + 1, 1)])
def test_what_follows_from_a_cause_is_counted_where_it_is_too_much(
    whole_run, judged, finding, read_text, others, left_out
):
    """All unfold at the limit; one past it is told by its number."""
    follow = [replace(finding, subject=f"s {number}") for number in range(others)]
    page = page_of(
        whole_run, judged(whole_run, finding, *follow), told(finding, *follow), read_text=read_text
    )

    assert f"{others} more findings follow from it" in page.text("summary")
    assert page.text("p").count(finding.sentence) == 1 + others - left_out
    assert ("1 more is in the table of checks" in page.text("p")) is bool(left_out)
