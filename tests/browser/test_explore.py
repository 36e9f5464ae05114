"""The tables of the page in a browser: sorted, searched, filtered, saved, linked to, and large."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from harness.words import GIB, KIB, MIB, format_bytes
from reports.data import anchors
from reports.html import page_files
from reports.scripts import TEMPLATES
from reports.view import RunView
from tests.reports.conftest import FINDING, HELD, Sweep, judgement_of, point

HOSTILE = '<img src=x onerror="alert(1)">, "quoted"'
LARGE_ROWS = 16_080
LARGE_BYTES, LARGE_NODES = 500_000, 7_000
"""Chosen: a quarter of what may be sent by mail anywhere; 200 rows of 20 cells are 4,200 nodes."""


def rows(page):
    """The cells of the rows that are rendered, as text."""
    return page.eval_on_selector_all(
        "#explore-table > div:not([hidden]) tbody tr",
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))",
    )


def column(page, label):
    heads = page.eval_on_selector_all(
        "#explore-table > div:not([hidden]) thead tr:first-child th",
        "heads => heads.map((head) => head.textContent)",
    )
    return [row[heads.index(label)] for row in rows(page)]


def status(page):
    return page.locator("#explore-table > div:not([hidden]) .status").inner_text()


def saved(page):
    """The rows of the CSV that the page offers, as mappings."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save what is shown as CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    return download.value.suggested_filename, list(csv.DictReader(io.StringIO(text)))


def ready(page):
    page.locator("#explore-body").wait_for()
    page.locator("#explore-table > div:not([hidden]) tbody tr").first.wait_for()
    return page


def test_amounts_are_sorted_by_their_bytes_and_unknown_ones_come_last(open_page, page_path, traced):
    """The largest first, then the smallest, then as they were; the heading says which."""
    page = ready(open_page(page_path))
    before = column(page, "peak")
    head = page.locator("#explore-table th", has_text=re.compile("^peak$"))
    largest = int(traced.phases["peak_bytes"].max())
    smallest = int(traced.phases["peak_bytes"].min())

    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "peak")[0] == format_bytes(largest)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "peak")[0] == format_bytes(smallest)
    page.get_by_role("button", name="Last", exact=True).click()
    assert column(page, "peak")[-1] == "unavailable"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, "peak") == before


def test_every_word_that_is_searched_for_has_to_be_in_a_row(open_page, page_path, traced):
    """In any column of it, whatever the case; the status says how many are left."""
    page = ready(open_page(page_path))
    page.get_by_role("searchbox", name="search").fill("LAZY construct arrays")
    phases = traced.phases
    expected = phases["point"].str.startswith("arrays-lazy") & (phases["phase"] == "construct")

    assert status(page) == f"{expected.sum()} of {len(phases):,} readings"
    assert set(column(page, "phase")) == {"construct"}
    assert {name[:11] for name in column(page, "point")} == {"arrays-lazy"}


def test_columns_are_filtered_by_choice_by_text_and_by_amount(open_page, page_path, traced):
    """All at once; what is unknown passes no comparison."""
    page = ready(open_page(page_path))
    page.get_by_label("meter: filter").select_option("device in use")
    page.get_by_label("peak: filter").fill("> 100 MiB")
    phases = traced.phases
    expected = (phases["meter"] == "device_in_use") & (phases["peak_bytes"] > 100 * MIB)

    assert expected.sum() > 10
    assert status(page) == f"{expected.sum()} of {len(phases):,} readings"
    page.get_by_role("button", name="Show all").click()
    assert status(page).startswith(f"{len(phases):,} of {len(phases):,} readings")
    assert page.get_by_label("peak: filter").input_value() == ""


def test_what_is_chosen_is_in_the_address_and_comes_back_from_it(open_page, page_path):
    """A link to a page shows what its sender saw, be it another table."""
    page = ready(open_page(page_path))
    page.get_by_role("button", name="runs", exact=True).click()
    page.get_by_label("outcome: filter").select_option("device_oom")
    page.get_by_role("searchbox", name="search").fill("eager")
    page.locator("#explore-table > div:not([hidden]) th button", has_text="repeat").click()
    seen, anchor = rows(page), page.evaluate("location.hash")
    again = ready(open_page(page_path, anchor))
    again.locator("#explore-table > div:not([hidden]) tbody tr").first.wait_for()

    assert len(seen) == 2
    assert anchor.startswith("#explore?table=runs&q=eager&sort=-repeat&f.outcome=")
    assert rows(again) == seen
    assert again.get_by_role("searchbox", name="search").input_value() == "eager"
    assert (
        again.get_by_role("button", name="runs", exact=True).get_attribute("aria-pressed") == "true"
    )


def test_the_csv_has_what_is_shown_of_all_pages_and_to_the_byte(open_page, page_path, traced):
    """More rows than are rendered, in their order; amounts as bytes, unknown ones empty."""
    page = ready(open_page(page_path, "#explore?table=readings&sort=-peak&f.phase==construct"))
    name, found = saved(page)
    phases = traced.phases[traced.phases["phase"] == "construct"]
    peaks = sorted(phases["peak_bytes"].dropna().astype(int), reverse=True)

    assert name == "readings.csv"
    assert len(found) == len(phases)
    assert [int(row["peak"]) for row in found if row["peak"]] == peaks
    assert {row["peak"] for row in found if row["quality"] == "unavailable"} == {""}


def test_two_hundred_rows_are_rendered_at_a_time(open_page, page_path, traced):
    """The next page begins where the first ends."""
    page = ready(open_page(page_path))
    first = rows(page)
    page.get_by_role("button", name="Next", exact=True).click()

    assert len(first) == 200
    assert "rows 201 to 400" in status(page)
    assert rows(page)[0] != first[0]
    assert page.evaluate("location.hash") == "#explore?table=readings&page=2"


def test_a_link_to_a_check_leads_to_it_also_where_the_page_has_it_in_its_table_alone(
    open_page, page_path
):
    """It is in view, marked and focused; the link of its row is the same."""
    [_, held] = anchors([FINDING, HELD])
    page = ready(open_page(page_path, f"#{held}"))
    found = page.locator("tr.found")
    found.wait_for()

    assert HELD.sentence in found.inner_text()
    assert found.locator("a[data-anchor]").get_attribute("href") == f"#{held}"
    assert page.evaluate("document.activeElement.className") == "found"


def test_a_link_to_a_check_that_is_not_there_says_so(open_page, page_path):
    """A page of another run has other checks; all of these are shown."""
    page = ready(open_page(page_path, "#f-0000000000"))

    assert page.locator("tr.found").count() == 0
    assert status(page) == "The link leads to no check of this run. 2 of 2 checks"
    assert len(rows(page)) == 2


def test_the_tables_are_worked_with_the_keyboard_alone(open_page, page_path):
    """Tables, headings, filters and pages are reached with Tab and answer to Enter."""
    page = ready(open_page(page_path))
    page.get_by_role("button", name="checks", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("#explore-table > div:not([hidden]) th button", has_text="rule").focus()
    page.keyboard.press("Enter")

    assert column(page, "rule") == ["budget", "slope"]
    assert page.evaluate("location.hash") == "#explore?table=checks&sort=rule"


@pytest.mark.parametrize(
    "amount", [0, 768, 1023, KIB, 4 * MIB, 1_047_528, 1_049_999, -3 * GIB // 2, 5000 * GIB]
)
def test_amounts_are_written_as_everywhere_else(open_page, tmp_path, amount):
    """The code of the page and ``format_bytes`` give the same words."""
    words = (TEMPLATES / "words.js").read_text(encoding="utf-8")
    empty = tmp_path / "empty.html"
    empty.write_text("<!DOCTYPE html><title>words</title>")
    page = open_page(empty)

    assert page.evaluate(f"(() => {{ {words}\n return bytesInWords({amount}); }})()") == (
        format_bytes(amount)
    )


def test_names_are_shown_and_not_obeyed(open_page, tmp_path):
    """In a table, a filter, the address and the CSV."""
    sweep = Sweep(points=tuple(point(HOSTILE, images) for images in (100, 200)), repeats=1)
    path = write_page(sweep, tmp_path)
    page = ready(open_page(path, "#explore?table=readings&q=%3Cimg"))

    assert page.locator("#explore img").count() == 0
    assert any(HOSTILE in name for name in column(page, "point"))
    assert all(HOSTILE in row["point"] for row in saved(page)[1])


def write_page(sweep, folder):
    """The page of a run without traces, as users get it."""
    run = sweep.write(folder / "run")
    path = run.path / "report.html"
    path.write_bytes(page_files(RunView(run), judgement_of(run, FINDING, HELD))[path.name])
    return path


def test_sixteen_thousand_rows_are_few_bytes_and_few_nodes(open_page, tmp_path):
    """134 points, four repeats, six phases, five meters: all of them can be found."""
    images = range(20, 20 + 67 * 10, 10)
    sweep = Sweep(
        points=tuple(point(loader, count) for loader in ("eager", "lazy") for count in images),
        repeats=4,
    )
    path = write_page(sweep, tmp_path)
    page = ready(open_page(path))

    assert status(page) == f"{LARGE_ROWS:,} of {LARGE_ROWS:,} readings; rows 1 to 200"
    assert path.stat().st_size < LARGE_BYTES
    assert page.evaluate("document.querySelectorAll('*').length") < LARGE_NODES
    page.get_by_role("searchbox", name="search").fill("lazy-image_count=680 release")
    assert status(page) == f"20 of {LARGE_ROWS:,} readings"
    assert json.dumps(rows(page)).count("release") == 20
