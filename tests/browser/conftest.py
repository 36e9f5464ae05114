"""A Chromium for the tests of the page, and pages of synthetic runs. A page that says anything on
its console, or asks for anything but itself, fails its test.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.judge.table import Run
from reports.html import page_files
from reports.view import RunView
from tests.reports.conftest import FINDING, HELD, judgement_of
from tests.reports.traced_runs import write_traced_run

NAMES = ("chromium", "chromium-browser", "google-chrome")
# The sandbox needs rights that a container has not; the others keep Chromium from talking at all.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's Chromium. Of a module, because Playwright keeps an event loop in the thread."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install -e '.[test]'"
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"there is no browser here: none of {', '.join(NAMES)} is on the path")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page from its file; at the end it must have said nothing and asked for nothing."""
    contexts, said, asked, opened = [], [], [], []

    def opening(path: Path, anchor: str = "", *, width: int = 1280, **settings: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        opened.append(path.as_uri())
        page.goto(f"{path.as_uri()}{anchor}")
        return page

    yield opening
    for context in contexts:
        context.close()

    assert said == []
    assert set(asked) - set(opened) == set()


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole sweep with three traces, and one of the code it is compared with."""
    return write_traced_run(tmp_path_factory.mktemp("traced") / "run")


@pytest.fixture(scope="session")
def page_path(traced: Run) -> Path:
    """The page of it as users get it, with one finding and one check that holds."""
    path = traced.path / "report.html"
    path.write_bytes(page_files(RunView(traced), judgement_of(traced, FINDING, HELD))[path.name])
    return path
