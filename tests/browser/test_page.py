"""The page as a whole in a browser: three widths, light and dark, with and without JavaScript, and
nothing that axe-core finds.
"""

import pytest

AXE = "axe_playwright_python.base"


def ready(page):
    page.locator("#explore-table tbody tr").first.wait_for()
    page.locator("#timeline-plots canvas").first.wait_for()
    return page


@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_the_page_is_never_wider_than_its_window(open_page, page_path, width):
    """Tables that are have a scroll bar of their own."""
    page = ready(open_page(page_path, width=width))

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_function("document.querySelector('.plot canvas').clientWidth < 390")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark"), (1920, "light")]
)
def test_axe_finds_nothing(open_page, page_path, width, scheme):
    """With a table filtered and sorted, and a phase chosen; few rows, because all are alike."""
    base = pytest.importorskip(AXE, reason="axe-playwright-python is not installed")
    few = "#explore?table=readings&q=arrays-lazy&f.phase==construct"
    page = ready(open_page(page_path, few, width=width, color_scheme=scheme, bypass_csp=True))
    page.locator("#explore-table th button").first.click()
    page.locator('#alive-phases [data-phase="epoch 0"]').click()
    page.evaluate(base.AXE_FILE_PATH.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]

    assert [(one["id"], [node["html"][:160] for node in one["nodes"]]) for one in found] == []


def test_without_javascript_everything_else_is_there_and_the_files_are_named(open_page, page_path):
    """No control that does nothing, no empty frame."""
    page = open_page(page_path, java_script_enabled=False)
    text = page.locator("main").inner_text()

    for name in ("timeline", "alive", "explore"):
        assert page.locator(f"#{name}-body").is_hidden()
        assert page.locator(f"#{name} noscript").is_visible()
    assert all(file in text for file in ("phases.csv", "fits.csv", "findings.json"))
    assert page.locator("svg").count() > 0
    assert page.locator("#causes").is_visible()


def test_what_can_only_be_asked_is_not_printed(open_page, page_path):
    """Paper cannot be asked; the rest of the page is there."""
    page = ready(open_page(page_path))
    page.emulate_media(media="print")

    for name in ("timeline", "alive", "explore"):
        assert page.locator(f"#{name}").is_hidden()
    assert page.locator("#causes").is_visible()


def test_a_browser_that_cannot_unpack_says_what_is_missing(open_page, page_path, chromium):
    """Instead of showing empty parts."""
    context = chromium.new_context()
    context.add_init_script("delete window.DecompressionStream")
    page = context.new_page()
    page.goto(page_path.as_uri())
    note = page.locator("#explore .not-started")
    note.wait_for()

    assert note.inner_text() == (
        "This part needs a newer browser (DecompressionStream is not defined); all of it is in "
        "the files beside the page."
    )
    context.close()


def test_a_script_of_somebody_else_does_not_run(open_page, page_path, tmp_path, chromium):
    """The policy of the page stops it, wherever it is."""
    text = page_path.read_text(encoding="utf-8")
    other = tmp_path / "other.html"
    other.write_text(text.replace("</main>", "<script>document.title = 'ran'</script></main>"))
    context = chromium.new_context()
    page = context.new_page()
    page.goto(other.as_uri())
    page.locator("#explore-table tbody tr").first.wait_for()

    assert page.title() != "ran"
    context.close()
