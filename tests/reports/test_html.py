"""The page: one offline file, the verdict first, everything escaped, and honest about what it
cannot show.
"""

import json
import re
from dataclasses import replace

import pytest

from harness.errors import RunDirectoryError
from harness.judge.table import load_run
from harness.records import Outcome
from reports.html import SHOWN_FINDINGS, render
from reports.page import make_page
from reports.view import RunView
from reports.writing import write_outputs

HOSTILE = '<script>alert("x")</script>\' & $\\frac$'


@pytest.fixture
def page(whole_path, read_page):
    return read_page(whole_path)


def test_the_verdict_comes_first_in_words(page, whole_run, judged, finding, held):
    """Its word, then what, where, how much and since when, as the cause says it."""
    said = [(tag, text) for tag, text in page.texts if text and tag in {"h1", "h2", "p", "dd"}]
    verdict = said[said.index(("h1", "Regression")) :]

    (cause,) = judged(whole_run, finding, held).causes
    assert verdict[1] == ("dd", "The run takes 65,536 B for each image on the device")
    assert verdict[2] == ("dd", cause.where)
    assert verdict[3] == ("dd", cause.how_much)
    assert verdict[4] == ("dd", "not known: nothing earlier was measured that shows it")
    assert "Exit code 1. 2 checks: 1 hold, 1 does not." in verdict[5][1]
    assert "36 runs planned: 2 device_oom, 34 ok; 36 ended as the plan expects." in verdict[5][1]


def test_sections_stand_in_their_order(page):
    """Cards, causes, scaling, comparison, history, tables; where the numbers come from is last."""

    assert [
        *("Each scenario and loader", "Causes", "Scaling of every scenario"),
        *("Compared with before", "History", "Explore", "Phases", "How it was measured"),
    ] == [text for tag, text in page.texts if tag == "h2" and text]


def test_a_finding_shows_kind_rule_sentence_numbers_and_reason(page, finding):
    """The same words as everywhere else."""
    text = page.text()

    assert "regression by rule slope" in text
    assert finding.sentence in text
    assert "measured 65,536 B/image , at most 1,024 B/image allowed" in text
    assert "Why this limit: 1/64 of X of one image." in text


@pytest.mark.parametrize(
    ("number", "folded"), [(SHOWN_FINDINGS, False), (SHOWN_FINDINGS + 1, True)]
)
def test_findings_beyond_two_screens_unfold(whole_run, judged, finding, read_text, number, folded):
    """Findings of no cause are all in the page: in the open at the limit, one folded one past it.
    No two have one id.
    """
    judgement = replace(judged(whole_run, *[finding] * number), causes=())
    page = read_text(render(make_page(RunView(whole_run), judgement)))
    text = page.text

    assert number == text("p").count(f"{finding.sentence} measured")
    assert number == len({value for value in page.values("id") if value.startswith("f-")})
    assert folded == ("1 more finding" in text("summary"))


def test_nothing_is_fetched(page, whole_path):
    """No address in anything that a browser would load: neither in a script nor in a style."""
    fetching = [
        value
        for name in ("src", "href", "xlink:href", "srcset", "data", "action")
        for value in page.values(name)
    ]

    assert all(value.startswith("#") for value in fetching)
    assert not [tag for tag, _, _ in page.attributes if tag in {"link", "iframe", "object", "img"}]
    assert not re.search(r"url\((?!#)|@import", whole_path.read_text())


def test_the_page_is_accessible(page):
    """A language, one first heading, headed tables, described drawings, unique ids, links that lead
    somewhere.
    """
    ids = page.values("id")

    assert ("html", "lang", "en") in page.attributes
    assert len([text for tag, text in page.texts if tag == "h1" and text]) == 1
    assert not page.open
    assert len(set(ids)) == len(ids)
    assert {value[1:] for value in page.values("href")} <= set(ids)
    assert {"col", "row"} == set(page.values("scope"))
    assert (
        len(
            [
                value
                for tag, name, value in page.attributes
                if (tag, name, value) == ("svg", "role", "img")
            ]
        )
        == 8
    )
    assert all(value for tag, name, value in page.attributes if name == "aria-label")


def test_every_number_of_a_phase_says_what_it_is(page):
    """Exact, bounded, or unavailable with the reason."""
    row = next(row for row in page.rows if row[:2] == ["epoch 0", "host anonymous memory"])

    assert row[2:] == ["18.0 MiB", "2.2 MiB", "bounded", "18.0 MiB", "2.2 MiB", "bounded"]
    assert "device used (driver): unavailable, because no NVIDIA driver library" in page.text("p")


def test_a_death_is_a_row_with_its_reason_and_the_phases_behind_it_are_unavailable(page):
    """Neither a zero nor a gap."""
    dead = next(row for row in page.rows if row[0] == "oom-eager-image_count=2000-stack_size=2048")
    later = next(row for row in page.rows if row[:3] == ["epoch 0", "device in use", "unavailable"])

    assert dead[1:6] == [
        "0",
        "device_oom",
        "device_oom",
        "construct",
        "asked for 250.0 MiB with 62.5 MiB in use, of 256.0 MiB",
    ]
    assert later[4] == "unavailable, because device_oom in construct"
    assert later[5:] == ["12.0 MiB", "0 B", "exact"]


def test_fits_show_slope_interval_and_class(page):
    """735,000 bytes an image, exactly."""

    assert [
        *("loading / eager / stack_size=2048", "construct", "device in use", "growth"),
        *("735,000 B/image", "735,000 to 735,000", "0 B", "0 B", "linear", "4", "8", "exact"),
    ] in page.rows


def test_hostile_names_and_reasons_are_shown_and_not_obeyed(
    sweep, judged, finding, tmp_path, read_page
):
    """In scenario, loader, reason, command, environment, sentence and drawing."""
    points = [
        replace(cell, scenario=HOSTILE, parameters={**cell.parameters, "loader": HOSTILE})
        for cell in sweep.points[:4]
    ]
    dead = points[0].name
    sweep.points, sweep.deaths = tuple(points), {dead: (Outcome.DEVICE_OOM, "construct", HOSTILE)}
    sweep.changes = {"command": HOSTILE, "run_id": HOSTILE, "environment": {HOSTILE: HOSTILE}}
    run = sweep.write(tmp_path / "run")
    path = write_outputs(
        run, judged(run, replace(finding, sentence=HOSTILE, because=HOSTILE)), page=True
    )
    page = read_page(path)

    assert "<script>alert" not in path.read_text()
    assert HOSTILE in page.text("h3")
    assert page.text().count(HOSTILE) >= 5
    assert all("alert" not in value or '"' in value for value in page.values("aria-label"))


@pytest.mark.parametrize("kept", ["rows", "nothing"])
def test_a_run_without_readings_still_gives_a_page_that_says_so(
    sweep, judged, tmp_path, read_page, kept
):
    """Zero rows, and zero points."""
    sweep.missing = frozenset(cell.name for cell in sweep.points)
    sweep.points = sweep.points if kept == "rows" else ()
    run = sweep.write(tmp_path / "run")
    page = read_page(write_outputs(run, judged(run), page=True))

    assert "Nothing was checked: the run holds nothing that a rule applies to." in page.text("dd")
    assert page.text("h1") == "Incomplete"
    assert "svg" not in {tag for tag, _, _ in page.attributes}
    assert "No check applied, so nothing was found and nothing is promised." in page.text("p")
    expected = "The run holds no reading" if kept == "rows" else "The run planned no points"
    assert expected in page.text("li")
    assert not [row for row in page.rows if "0 B" in row]


def test_a_run_of_failures_alone_says_that_no_run_ended_ok(
    sweep, judged, held, tmp_path, read_page
):
    """Every run crashed in its first phase."""
    sweep.deaths = {
        cell.name: (Outcome.CRASHED, cell.phases[0], "signal 11") for cell in sweep.points
    }
    run = sweep.write(tmp_path / "run")
    page = read_page(write_outputs(run, judged(run, held), page=True))

    assert "No run ended ok" in page.text("li")
    assert "36 crashed; 0 ended as the plan expects" in page.text("p")
    assert "unavailable, because crashed in open" in [row[-1] for row in page.rows]
    assert {(row[2], row[5]) for row in page.rows if row[3:4] == ["ok"]} == {
        ("crashed", "signal 11")
    }


def test_one_loader_alone_is_named(only, judged, held, tmp_path, read_page):
    """There is nothing beside it to compare."""
    run = only(lambda cell: cell.parameters["loader"] == "lazy").write(tmp_path / "run")
    page = read_page(write_outputs(run, judged(run, held), page=True))

    assert "Scenario loading has lazy alone: there is nothing beside it to compare." in page.text(
        "li"
    )
    assert ["phase", "meter", "lazy growth", "lazy retained", "lazy kind"] in page.rows


def test_one_size_says_that_there_is_no_slope(only, judged, held, tmp_path, read_page):
    """Nor a fit."""
    run = only(lambda cell: cell.name.endswith("image_count=500-stack_size=2048")).write(
        tmp_path / "run"
    )
    page = read_page(write_outputs(run, judged(run, held), page=True))

    assert "Scenario loading, eager: one number of images was planned" in page.text("li")
    assert "No fit: no phase was finished at two sizes." in page.text("li")


@pytest.mark.parametrize(("more", "said"), [({}, "feed"), ({"way": "right"}, "feed, way=right")])
def test_a_scenario_without_loaders_is_named_once(sweep, judged, held, tmp_path, more, said):
    """Its series begin with its own name."""
    sweep.points = tuple(
        replace(cell, scenario="feed", parameters={"image_count": 500, **more})
        for cell in sweep.points[:1]
    )
    run = sweep.write(tmp_path / "run")

    assert f"Scenario {said}: one number of images was planned" in " ".join(
        make_page(RunView(run), judged(run, held)).notes
    )


def test_a_damaged_line_and_a_missing_end_are_said(sweep, judged, held, tmp_path, read_page):
    """Nothing unusable is passed over in silence."""
    sweep.changes = {"ended": None}
    folder = sweep.write(tmp_path / "run").path
    with (folder / "rows.jsonl").open("a") as rows:
        rows.write('{"kind": "pha')
    run = load_run(folder)
    page = read_page(write_outputs(run, judged(run, held), page=True))

    assert "Unusable in the run directory: rows.jsonl, line" in page.text("li")
    assert "The run has no recorded end" in page.text("li")


def test_a_run_without_an_end_row_is_in_the_table_of_runs(sweep, judged, held, tmp_path, read_page):
    """Planned, and unavailable."""
    lost = "loading-lazy-image_count=100-stack_size=2048"
    sweep.missing = frozenset({lost})
    run = sweep.write(tmp_path / "run")
    rows = read_page(write_outputs(run, judged(run, held), page=True)).rows

    assert [lost, "1", "unavailable, because no end of this run was recorded", "ok"] in [
        row[:4] for row in rows
    ]


def test_the_pictures_are_written_beside_the_page(whole_run, whole_path):
    """The main one as SVG and PNG, the plots of the page as SVG; no unfinished file."""

    assert whole_run.path / "report.html" == whole_path
    assert ["peak.png", "peak.svg", *(f"scaling-{number}.svg" for number in range(1, 9))] == sorted(
        file.name for file in (whole_path.parent / "plots").iterdir()
    )
    assert (whole_path.parent / "plots" / "peak.png").read_bytes()[:4] == b"\x89PNG"
    assert not [file.name for file in whole_path.parent.iterdir() if file.name.startswith(".")]


def test_the_page_is_the_same_when_made_again(whole_run, whole_path, judged, finding, held):
    """Everything can be recomputed from the run directory."""
    first = whole_path.read_bytes()
    again = load_run(whole_run.path)

    assert first == write_outputs(again, judged(again, finding, held), page=True).read_bytes()


def test_pictures_of_an_earlier_state_do_not_outlive_it(sweep, judged, held, tmp_path):
    """A run that has lost its readings has no picture left of them."""
    run = sweep.write(tmp_path / "run")
    write_outputs(run, judged(run, held), page=True)
    sweep.missing = frozenset(cell.name for cell in sweep.points)
    run = sweep.write(run.path)
    write_outputs(run, judged(run, held), page=True)

    assert list((run.path / "plots").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(sweep, judged, held, tmp_path):
    """A file stands where plots/ should be."""
    run = sweep.write(tmp_path)
    (tmp_path / "plots").write_text("")

    with pytest.raises(RunDirectoryError, match="plots cannot be made"):
        write_outputs(run, judged(run, held), page=True)


def test_the_environment_is_shown_whole(whole_run, page):
    """Every entry of run.json that says where the numbers come from."""
    recorded = json.loads((whole_run.path / "run.json").read_text())

    for value in (
        recorded["command"],
        recorded["run_id"],
        "e559833c0ffee",
        "4.0 GiB (4,294,967,296 B)",
        "none recorded",
        "spawn",
    ):
        assert value in page.text("dd")
