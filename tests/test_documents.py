"""Documents do what they say: tutorials are run, outputs are written by commands, and the site asks
nobody for anything.
"""

import importlib.util
import json
import re
import struct
import sys
import tomllib
from pathlib import Path

import pytest

import harness
import ptycho
from harness.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
OTHERS = ROOT / "docs" / "others.md"
"""It is run where the tools of others are installed."""
METHOD = ROOT / "docs" / "how-it-works.md"
"""Of its commands only the doctor is shown with its output; tests of the doctor run that."""
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MARKDOWN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
MOST_PICTURE_BYTES = 200_000


def _load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


examples, site = _load("examples"), _load("website")

PAGE = """\
A file, `greeting.txt`:

```text
hello
```

```console
$ test -f greeting.txt
$ cat greeting.txt; exit 3
```
<!-- ends with 3 "hello" -->

<!-- output 0: begin -->
```text
```
<!-- output: end -->

The end.
"""


# Tutorials.


@pytest.mark.timeout(3600)  # several commands that measure, each with a limit of its own
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_does_what_it_says(page, tmp_path):
    """Every command ends with the code of the page, and says what its text relies on."""
    assert [command.code for command, _ in examples.run(page, tmp_path)]


@pytest.mark.parametrize("page", [*TUTORIALS, OTHERS, METHOD], ids=lambda path: path.stem)
def test_every_output_of_a_tutorial_was_written_by_its_command(page):
    """From files and commands as they stand in the page: ``.ci/examples.py --write`` does it."""
    assert list(examples.stale(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_has_no_block_that_is_not_run(page):
    """Files, commands and outputs, and no further kind of block."""
    text = page.read_text(encoding="utf-8")
    blocks = len(re.findall(r"^```\w*$", text, re.MULTILINE)) // 2
    steps = examples.steps(text)
    outputs = sum(isinstance(step, examples.Commands) and bool(step.digest) for step in steps)

    assert len(steps) + outputs == blocks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_shows_was_shown_by_its_cells_as_they_are(path):
    """``nox -s docs`` executes them; a cell that was edited has to be executed again."""
    notebook = json.loads(path.read_text(encoding="utf-8"))

    assert notebook["metadata"]["sources"] == examples.notebook_digest(notebook["cells"])
    assert any(cell.get("outputs") for cell in notebook["cells"])


def _write(tmp_path, text=PAGE):
    page = tmp_path / "page.md"
    page.write_text(text)
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    return page, place


def test_an_output_is_written_into_its_place_and_is_then_up_to_date(tmp_path):
    """With the exit code below it; nothing else of the page changes."""
    page, place = _write(tmp_path)
    text = examples.written(PAGE, examples.run(page, place))

    assert "begin -->\n```text\nhello\n$ echo $?\n3\n```\n<!-- output: end -->" in text
    assert text.startswith(PAGE[: PAGE.index("<!-- output")])
    assert text.endswith("\nThe end.\n")
    assert list(examples.stale(PAGE)) == ["cat greeting.txt; exit 3"]
    assert list(examples.stale(text)) == []


@pytest.mark.parametrize(("most", "shown"), [(1, "...\nb\n"), (2, "a\nb\n"), (3, "a\nb\n")])
def test_of_a_long_output_the_last_lines_are_shown(tmp_path, most, shown):
    """And that there were more; all of it is searched for the words of the page."""
    text = PAGE.replace("cat greeting.txt; exit 3", "printf 'a\\nb\\n'")
    text = text.replace('ends with 3 "hello"', f'ends with 0, last {most} lines "a b"')
    page, place = _write(tmp_path, text)
    ((_, output),) = examples.run(page, place)

    assert output == shown


@pytest.mark.parametrize(
    ("old", "new"),
    [("hello\n$ echo", "Hello\n$ echo"), ("```text\nhello\n```\n\n", "```text\nbye\n```\n\n")],
    ids=["typed", "another file"],
)
def test_an_output_that_was_typed_or_went_out_of_date_is_told(tmp_path, old, new):
    """By the digest in its mark."""
    page, place = _write(tmp_path)
    text = examples.written(PAGE, examples.run(page, place))

    assert old in text
    assert list(examples.stale(text.replace(old, new))) == ["cat greeting.txt; exit 3"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("exit 3", "exit 4", "ended with 4, where the page says 3"),
        ('3 "hello"', '3 "goodbye"', r"does not say \['goodbye'\]"),
        ("test -f greeting.txt", "test -f gone.txt", "ended with 1, where the page says 0"),
    ],
)
def test_a_page_that_does_not_do_what_it_says_is_refused(tmp_path, old, new, said):
    """Another exit code, missing words, a command in the middle that fails."""
    page, place = _write(tmp_path, PAGE.replace(old, new))

    with pytest.raises(examples.WrongPageError, match=said):
        examples.run(page, place)


# The site.


@pytest.mark.parametrize("package", [harness, ptycho], ids=["harness", "ptycho"])
def test_every_public_name_has_its_place_in_the_api(package):
    """``nox -s docs`` checks what is made of it, methods and docstrings included."""
    text = (ROOT / "docs" / "api" / f"{package.__name__}.md").read_text(encoding="utf-8")
    shown = re.findall(rf"^::: {package.__name__}\.(\w+)$", text, re.MULTILINE)

    assert sorted(shown) == sorted(package.__all__)


def test_every_public_name_method_and_property_has_a_docstring():
    """Also what a class has from those above it in its package."""
    names = dict(site.public_names())

    assert "harness.RunTables.phases" in names
    assert "ptycho.LazyPtychoDataContainer.as_tf_dataset" in names
    assert [name for name, text in names.items() if not text.strip()] == []


@pytest.mark.parametrize(
    "asks",
    [
        '<script src="https://a.example/x.js"></script>',
        '<link rel="preconnect" href="https://fonts.gstatic.com">',
        '<img src="//a.example/x.png">',
        '<source srcset="x.png 1x, http://a.example/y.png 2x">',
        '<p style="background: url(https://a.example/x.png)">',
        "<style>@import 'https://a.example/x.css';</style>",
        '<pre class="mermaid">graph</pre>',
    ],
)
def test_whatever_a_browser_would_fetch_from_elsewhere_is_found(asks, tmp_path):
    """In pages; a style sheet beside it is read too."""
    (tmp_path / "page.html").write_text(f"<body>{asks}</body>")
    (tmp_path / "style.css").write_text("p { background: url('data:image/png;base64,AA') }")

    assert [found.page for found in site.requests_elsewhere(tmp_path)] == ["page.html"]

    (tmp_path / "style.css").write_text("p { background: url('http://a.example/x.png') }")

    assert [found.page for found in site.requests_elsewhere(tmp_path)] == ["page.html", "style.css"]


def test_links_that_a_reader_follows_are_no_requests(tmp_path):
    """Nor is what lies in the site."""
    (tmp_path / "x.css").write_text("")
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="x.css"><a href="https://a.example/">x</a><img src="data:,">'
    )

    assert site.requests_elsewhere(tmp_path) == []
    assert site.dead_ends(tmp_path) == []


def test_a_browser_refuses_what_a_script_of_the_site_would_ask_others_for():
    """By a policy in the head of every page, before anything else."""
    page = site.on_post_page("<html><head><title>x</title></head></html>")

    assert page.startswith(
        '<html><head><meta http-equiv="Content-Security-Policy" content="default-src \'self\' '
    )
    assert "http:" not in page
    assert "https:" not in page
    assert site.on_post_template("<urlset>", template_name="sitemap.xml") == "<urlset>"


@pytest.mark.parametrize("link", ['<a href="gone.html#x">', '<img src="gone.png">'])
def test_a_link_that_leads_nowhere_is_found(link, tmp_path):
    """Also one that is written in HTML."""
    (tmp_path / "page.html").write_text(link)

    (found,) = site.dead_ends(tmp_path)
    assert re.fullmatch(r"page.html leads to gone\.\S+, which is not there", found)


def test_links_work_on_github_and_on_the_site():
    """What leaves docs/ is a page of the site that shows the file; code is left alone."""
    text = "[a](docs/ci.md#x) [b](LICENSE) `[c](LICENSE)` [d](gone.md) [e](https://a.example/)"
    above = "[a](../README.md#x) [b](../.github/workflows/gate.yml) [c](ci.md)"

    assert site.with_links_of_the_site(text, "README.md") == (
        "[a](ci.md#x) [b](source/LICENSE.md) `[c](LICENSE)` [d](gone.md) [e](https://a.example/)"
    )
    assert site.with_links_of_the_site(above, "docs/how-it-works.md") == (
        "[a](index.md#x) [b](source/github/workflows/gate.yml.md) [c](ci.md)"
    )


def test_a_notebook_is_shown_with_what_its_cells_gave(tmp_path):
    """Tables as HTML, texts as they are, pictures as files beside the page."""
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {
            "cell_type": "code",
            "source": ["1 + 1"],
            "outputs": [
                {"output_type": "stream", "text": ["said\n"]},
                {"data": {"text/html": ["<b>bold</b>"], "text/plain": ["bold"]}},
                {"data": {"image/png": "iVBORw==", "text/plain": ["<Figure>"]}},
            ],
        },
    ]
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text, pictures = site.notebook_page(path)

    assert text == (
        "# Title\n\n```python\n1 + 1\n```\n\n```text\nsaid\n```\n\n<div>\n<b>bold</b>\n</div>\n\n"
        "![What the cell above draws](one-0.png)\n"
    )
    assert pictures == {"one-0.png": b"\x89PNG"}


# What pages name.


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_names_is_there(page):
    """Of the harness, and sessions of nox."""
    text = page.read_text(encoding="utf-8")
    commands = {name for name, _ in COMMANDS}
    sessions = set(
        re.findall(r"^def ([a-z]\w*)\(", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    )

    named = re.findall(r"(?:python -m harness|memory-harness) ([a-z][\w-]*)", text)
    assert set(named) <= commands
    asked = re.findall(r"nox (?:-R )?-s ((?:[a-z]+ ?)+)", text)
    words = {name for names in asked for name in names.split()[:1]}
    assert words <= sessions


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    """On GitHub, where links are paths; the site is checked by ``nox -s docs``."""
    links = re.findall(r"\]\(([^)\s#]+)|(?:src|srcset)=\"([^\"]+)\"", page.read_text("utf-8"))
    paths = [one or other for one, other in links]

    assert [
        path
        for path in paths
        if not re.match(r"[a-z]+:", path) and not (page.parent / path).exists()
    ] == []


FIGURES = re.compile(r"\| (?:measured|figure|planted|error|silicon)|needed \||bytes \(|median \|")
"""Words in the head of a table whose rows were measured."""


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_table_of_figures_names_the_command_that_measures_them(page):
    """In a column of its own, or in a comment above it; the command is there."""
    text = page.read_text(encoding="utf-8")
    heads = re.findall(r"([^\n]*)\n+(\|[^\n]+)\n\|[-:| ]+\n", text)
    named = {
        head: re.search(r"<!-- figures: (.*) -->", above)
        for above, head in heads
        if FIGURES.search(head) and "command |" not in head
    }

    assert [head for head, command in named.items() if command is None] == []
    for command in named.values():
        assert re.match(r"nox -s \w+|python -m harness|no command of this repository", command[1])


def test_each_word_stands_once_in_the_glossary():
    """With one meaning, and a link to where it is explained."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    rows = [row for row in rows if row[0] not in ("word", "---")]
    words = [word for row in rows for word in row[0].split(", ")]

    assert len(words) > 50
    assert sorted(words) == sorted(set(words))
    assert [row[0] for row in rows if not re.fullmatch(r"\[[^\]]+\]\([^)]+\)", row[2])] == []


def test_the_citation_is_of_this_version():
    """The schema is checked by ``nox -s lint``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = dict(
        re.findall(r"^(\w+): (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    )

    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_the_readme_says_of_others_what_they_have_printed():
    """Words and exit codes of its table are outputs of the page that was written by a run."""
    table = re.findall(
        r"^\| [^|]*\| ([^|]+) \| ([^|]+) \| \**(\d)\** \|$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    printed = [
        step.output
        for step in examples.steps(OTHERS.read_text(encoding="utf-8"))
        if isinstance(step, examples.Commands)
    ]

    assert len(table) == 12
    for who, said, code in table:
        ends = (f"exit code {code}\n", f"$ echo $?\n{code}\n")
        words = re.findall(r"`([^`]+)`", said)
        assert any(
            all(word in output for word in words) and output.endswith(ends) for output in printed
        ), who


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pictures_of_the_readme_are_small_and_wide_enough(scheme):
    """A README loads both; ``python .ci/picture.py RUN`` writes them."""
    written = (ROOT / "docs" / "images" / f"page-{scheme}.png").read_bytes()
    width, height = struct.unpack(">II", written[16:24])

    assert written.startswith(b"\x89PNG")
    assert len(written) <= MOST_PICTURE_BYTES
    assert (width, height) == (1280, 800)
