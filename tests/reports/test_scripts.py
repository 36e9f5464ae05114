"""The scripts of the page: ours and one vendored library, both known to the byte."""

import base64
import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from reports import scripts as module
from reports.html import render
from reports.page import make_page
from reports.scripts import VENDORED, Scripts, own_code, scripts_of
from reports.view import RunView
from tests.reports.traced_runs import write_traced_run

FORBIDDEN = (
    *("eval(", "new Function", "import(", "innerHTML", "outerHTML", "insertAdjacentHTML"),
    *("document.write", "fetch(", "XMLHttpRequest", "localStorage", "cookie"),
)
NOTICES = sorted(VENDORED.glob("*/vendored.toml"))


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    return write_traced_run(tmp_path_factory.mktemp("traced") / "run")


@pytest.mark.parametrize("notice", NOTICES, ids=lambda path: path.parent.name)
def test_vendored_files_are_those_whose_digests_are_recorded(notice):
    """Each of them, and none beside them; with version and licence."""
    found = tomllib.loads(notice.read_text(encoding="utf-8"))
    files = {path.name: path for path in notice.parent.iterdir() if path != notice}

    assert {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    } == found["sha256"]
    assert f"(v{found['version']})" in files["uPlot.iife.min.js"].read_text()[:100]
    assert found["licence"] == "MIT"
    assert files["LICENSE"].read_text().startswith("The MIT License")


def test_there_is_a_vendored_library():
    """Else the test above tests nothing."""
    assert [path.parent.name for path in NOTICES] == ["uPlot"]


def test_the_policy_names_every_script_and_allows_nothing_else(traced, judged, held):
    """The digests of what the page holds, worked out from its text; of uPlot the recorded one."""
    view, judgement = RunView(traced), judged(traced, held)
    text = render(make_page(view, judgement), scripts_of(view, judgement))
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    code = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in code]
    recorded = tomllib.loads(NOTICES[0].read_text())["sha256"]["uPlot.iife.min.js"]
    policy = policy.replace("&#39;", "'")

    assert f"script-src {' '.join(f'{chr(39)}sha256-{one}{chr(39)}' for one in digests)}" in policy
    assert base64.b64decode(digests[0]).hex() == recorded
    assert len(digests) == 2
    assert policy.startswith("default-src 'none'; ")
    assert policy.count("-src ") == 3
    assert "script-src 'unsafe" not in policy
    assert "eval" not in policy


def test_a_page_without_traces_has_no_library(whole_run, judged, held):
    """Nothing would use it."""
    made = scripts_of(RunView(whole_run), judged(whole_run, held))

    assert not made.has_traces
    assert "uPlot=function" not in made.markup
    assert made.markup.count("<script>") == 1


def test_a_page_that_cannot_be_asked_runs_no_script():
    """Its policy has no source of any."""
    assert "script-src" not in Scripts().policy
    assert Scripts().markup == ""


def test_code_that_would_end_its_element_is_refused(monkeypatch, tmp_path):
    """A text with </script> in it would become markup."""
    (tmp_path / "words.js").write_text('const end = "</SCRIPT>";\n')
    monkeypatch.setattr(module, "TEMPLATES", tmp_path)
    monkeypatch.setattr(module, "_CODE", ("words.js",))

    with pytest.raises(ValueError, match="ends its own element"):
        module._script(own_code())


def test_our_code_makes_no_code_and_no_markup_of_texts():
    """Nothing is evaluated, no text is taken for markup, nothing is fetched or stored."""
    files = sorted(Path(module.TEMPLATES).glob("*.js"))
    found = [
        f"{path.name}: {word}"
        for path in files
        for word in FORBIDDEN
        if word in path.read_text(encoding="utf-8")
    ]

    assert {path.name for path in files} == set(module._CODE)
    assert found == []
    assert not re.search(
        r'\son\w+="', "".join(path.read_text() for path in module.TEMPLATES.glob("*.j2"))
    )
