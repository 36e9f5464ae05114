"""The timeline and the icicle in a browser: zoomed, stepped through, and drawn from what was
recorded.
"""

import re
from dataclasses import replace
from functools import partial

import pytest

from harness.judge import FindingKind
from harness.judge.causes import Cause, CauseKind
from harness.words import format_bytes
from reports.html import render
from reports.packed_traces import packed_traces
from reports.page import make_page
from reports.scripts import scripts_of
from reports.view import RunView
from tests.reports.conftest import FINDING, HELD, judgement_of
from tests.reports.traced_runs import BASE_BYTES, LONG, LONG_EVENTS, PEAK_BYTES, SHORT

PEAK = format_bytes(PEAK_BYTES)


def ready(page):
    page.locator("#timeline-plots canvas").first.wait_for()
    return page


def values(page):
    return page.locator("#timeline-values").inner_text()


def to_peak(page, phase, side="now"):
    page.locator(f'#timeline-peaks [data-phase="{phase}"][data-side="{side}"]').click()


def drag(page, share_from, share_to):
    """From one share of the width of the first plot to another."""
    box = page.locator("#timeline-plots .u-over").first.bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + share_from * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + share_to * box["width"], height, steps=5)
    page.mouse.up()


def drawn(page, nth=0):
    """The picture of a plot, to tell whether it has changed."""
    return page.locator("#timeline-plots canvas").nth(nth).evaluate("canvas => canvas.toDataURL()")


def test_the_point_that_the_page_tells_of_first_is_chosen(open_page, page_path):
    """All traced points can be; here no finding names one, so it is the first that is shown."""
    page = ready(open_page(page_path))
    names = page.locator("#timeline-point option").all_inner_texts()

    assert len(names) == 3
    assert page.locator("#timeline-point").input_value() == names[0]
    assert page.locator("#alive-point").inner_text() == names[0]


def test_a_cause_chooses_its_point_and_its_phase_and_links_to_both(open_page, traced, tmp_path):
    """The point is not that of the first trace, the phase not the one with the highest peak."""
    cause = Cause(
        id="a1", kind=CauseKind.MEMORY, finding=FindingKind.REGRESSION, what="a thing is kept",
        where="loading", how_much="1.0 KiB", point=LONG, phase="open", checks=(FINDING,),
    )  # fmt: skip
    view, judgement = RunView(traced), replace(judgement_of(traced, FINDING), causes=(cause,))
    path = tmp_path / "cause.html"
    path.write_text(render(make_page(view, judgement), scripts_of(view, judgement)))
    page = ready(open_page(path))

    assert page.locator("#timeline-point").input_value() == LONG
    pressed = page.locator('#alive-phases [aria-pressed="true"]')
    assert pressed.inner_text() == "open: 1.0 KiB"
    page.get_by_role("link", name=f"Timeline of {LONG}").click()
    page.locator("#timeline-said", has_text="requested 1.0 KiB").wait_for()
    assert page.get_by_role("button", name="Whole run").is_enabled()
    assert page.evaluate("location.hash").endswith("&phase=open")


def test_a_point_is_linked_to_and_both_codes_are_drawn(open_page, page_path):
    """Now above, then below; a point that only one code traced has one plot."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}"))
    assert page.locator("#timeline-point").input_value() == SHORT
    assert page.locator("#timeline-plots h3").all_inner_texts() == ["now", "then"]

    page.locator("#timeline-point").select_option(LONG)
    page.locator("#timeline-plots h3", has_text="then").wait_for(state="detached")
    assert page.locator("#timeline-plots canvas").count() == 1
    assert page.evaluate("location.hash") == f"#timeline?point={LONG.replace('=', '%3D')}"


@pytest.mark.parametrize("by", ["time", "event"])
def test_a_button_leads_to_the_peak_of_a_phase(open_page, page_path, by):
    """To the byte, in time and by event; amounts are over what was there before the recording."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}&by={by}"))
    assert page.locator("#timeline-by").input_value() == by
    to_peak(page, "epoch 0")
    page.locator("#timeline-values", has_text="epoch 0").wait_for()

    assert f"requested {PEAK}" in values(page)
    assert f"allocated {format_bytes(PEAK_BYTES + PEAK_BYTES % 256)}" in values(page)
    assert values(page).startswith("event " if by == "event" else "0.0")
    assert values(page) == page.locator("#timeline-said").inner_text()
    assert f"over the {format_bytes(BASE_BYTES)} that were in use before" in (
        page.locator("#timeline-notes").inner_text()
    )


def test_dragging_zooms_both_plots_and_the_whole_run_comes_back(open_page, page_path):
    """By the button, by a double click and by Escape."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}"))
    page.locator("#timeline").scroll_into_view_if_needed()
    whole = page.get_by_role("button", name="Whole run")
    before = [drawn(page, nth) for nth in (0, 1)]

    assert whole.is_disabled()
    drag(page, 0.3, 0.5)
    assert whole.is_enabled()
    assert drawn(page, 0) != before[0]
    assert drawn(page, 1) != before[1]
    whole.click()
    assert [drawn(page, nth) for nth in (0, 1)] == before
    drag(page, 0.3, 0.5)
    page.locator("#timeline-plots .u-over").first.dblclick()
    assert whole.is_disabled()
    page.locator(".plot").first.press("+")
    assert whole.is_enabled()
    page.locator(".plot").first.press("Escape")
    assert whole.is_disabled()


def test_hovering_tells_the_values_under_the_cursor_and_moves_the_other_one(open_page, page_path):
    """Both plots have their cursor at the same time."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}"))
    over = page.locator("#timeline-plots .u-over")
    over.first.scroll_into_view_if_needed()
    over.first.hover()
    cursors = page.locator("#timeline-plots .u-cursor-x")

    assert re.match(r"[\d.]+ s", values(page))
    assert "requested " in values(page)
    assert cursors.nth(0).get_attribute("style") == cursors.nth(1).get_attribute("style")


def test_the_arrows_step_from_event_to_event(open_page, page_path):
    """And say what they come to."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}&by=event"))
    plot = page.locator(".plot").first
    to_peak(page, "epoch 0")
    said = page.locator("#timeline-said")
    page.locator("#timeline-values", has_text=PEAK).wait_for()
    at = int(re.search(r"event (\d+)", said.inner_text()).group(1))
    plot.press("ArrowRight")
    page.locator("#timeline-said", has_text=f"event {at + 1}").wait_for()
    plot.press("ArrowLeft")
    page.locator("#timeline-said", has_text=f"event {at}").wait_for()

    assert f"requested {PEAK}" in said.inner_text()


def test_the_limit_is_drawn_from_the_start_where_memory_ran_out(open_page, page_path):
    """And left out where it would flatten everything; every curve can be switched."""
    page = ready(
        open_page(page_path, "#timeline?point=oom-eager-image_count%3D2000-stack_size%3D2048")
    )
    limit = page.locator('[data-series="limit"]')
    assert limit.is_checked()
    assert "Memory ran out in construct: 125.0 MiB" in page.locator("#timeline-notes").inner_text()

    page.locator("#timeline-point").select_option(LONG)
    page.locator("#alive-point", has_text=LONG).wait_for()
    assert not limit.is_checked()
    before = drawn(page)
    limit.check()
    assert drawn(page) != before


def test_how_many_events_are_drawn_is_said(open_page, page_path):
    """All of them where they have room."""
    page = ready(open_page(page_path, f"#timeline?point={LONG.replace('=', '%3D')}"))

    assert f"All {LONG_EVENTS:,} events are drawn." in page.locator("#timeline-notes").inner_text()


def test_what_is_left_out_for_want_of_room_is_said(open_page, traced, tmp_path, monkeypatch):
    """How many events are drawn, and which traces are not in the page at all."""
    thin = partial(packed_traces, room_bytes=3000)
    monkeypatch.setattr("reports.scripts.packed_traces", thin)
    view, judgement = RunView(traced), judgement_of(traced, HELD)
    path = tmp_path / "thin.html"
    path.write_text(render(make_page(view, judgement), scripts_of(view, judgement)))
    page = ready(open_page(path, f"#timeline?point={LONG.replace('=', '%3D')}"))
    notes = page.locator("#timeline-notes").inner_text()

    assert re.search(rf"\d+ of {LONG_EVENTS:,} events are drawn; the highest and the lowest", notes)
    to_peak(page, "epoch 1")
    page.locator("#timeline-said", has_text=f"requested {PEAK}").wait_for()
    assert "The page has no room for 3 traces" in page.locator("#timeline-left-out").inner_text()


def bars(page):
    return page.locator("#alive-icicle [role=treeitem]")


def test_the_icicle_shows_type_path_and_shape_as_wide_as_their_bytes(open_page, page_path):
    """A path without a fork is one bar; the array that a bar is as large as gives its colour."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}"))
    page.locator('#alive-phases [data-phase="epoch 0"]').click()
    names = [bar.get_attribute("aria-label") for bar in bars(page).all()]
    root, empty = bars(page).nth(0), page.get_by_role("treeitem", name="Empty, 8.0 MiB")

    assert names[0] == f"epoch 0, {PEAK}, 100.0 %"
    assert "float32, 9.5 MiB, 97.4 %" in names
    assert "Empty, 8.0 MiB, 82.1 %" in names
    assert any(name.startswith("conv/Conv2D, 1.0 MiB") for name in names)
    assert any(name.startswith("[64,32,32,8], 512.0 KiB") for name in names)
    assert empty.bounding_box()["width"] == pytest.approx(
        root.bounding_box()["width"] * 8 * 2**20 / PEAK_BYTES, abs=1
    )
    assert "like-1" in empty.get_attribute("class")
    assert page.locator("#alive-legend").inner_text() == "as large as batch, or a multiple"
    assert page.locator("img").count() == 0


def test_the_icicle_is_zoomed_by_click_and_by_keyboard(open_page, page_path):
    """What is clicked takes the width; Escape leads out; the arrows lead from bar to bar."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}"))
    page.locator('#alive-phases [data-phase="epoch 0"]').click()
    number = bars(page).count()
    focused = "document.activeElement.getAttribute('aria-label')"
    page.get_by_role("treeitem", name="model/encoder, 1.5 MiB").click()
    width = page.locator("#alive-icicle").bounding_box()["width"]

    assert page.get_by_role("treeitem", name="model/encoder, 1.5 MiB").bounding_box()["width"] == (
        pytest.approx(width, abs=1)
    )
    assert bars(page).count() < number
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused).startswith("conv/Conv2D, 1.0 MiB")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused).startswith("relu/Relu, 512.0 KiB")
    page.keyboard.press("Enter")
    assert page.evaluate(focused).startswith("relu/Relu, 512.0 KiB")
    page.keyboard.press("Escape")
    assert page.evaluate(focused).startswith("model/encoder, 1.5 MiB")
    for _ in range(3):
        page.keyboard.press("Escape")
    assert bars(page).count() == number


def test_what_was_alive_is_a_table_too_and_the_host_stands_beside_it(open_page, page_path):
    """Sorted by bytes, and by what is chosen; meters of the untraced runs, with their kind."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}"))
    page.locator('#alive-phases [data-phase="epoch 0"]').click()
    cells = page.locator("#alive-table tbody tr")

    assert cells.nth(0).inner_text().split("\t")[:2] == ["Empty", "8.0 MiB"]
    page.locator("#alive-table th button", has_text="count").click()
    page.locator("#alive-table th button", has_text="count").click()
    assert cells.nth(3).inner_text().split("\t")[:2] == ["Empty", "8.0 MiB"]
    beside = page.locator("#alive-beside").inner_text()
    assert "device in use\t0 B\t12.0 MiB\t0 B\texact" in beside
    assert "host anonymous memory\t232.0 MiB\t250.0 MiB" in beside
    assert "bounded" in beside


def test_a_phase_in_which_nothing_was_alive_says_so(open_page, page_path):
    """Instead of an empty picture."""
    page = ready(open_page(page_path, f"#timeline?point={SHORT.replace('=', '%3D')}"))
    page.locator('#alive-phases [data-phase="release"]').click()

    assert page.locator("#alive-none").is_visible()
    assert page.locator("#alive-icicle").is_hidden()
