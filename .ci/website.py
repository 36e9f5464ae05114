"""The documents as a site: what MkDocs cannot know of this repository, and what the built site is
checked for.

As a hook of mkdocs.yml it makes the README the first page, shows notebooks, and turns links that
leave docs/ into pages that show the file, so that every link works on GitHub and on the site.
``python .ci/website.py SITE`` checks a built site: it asks nobody else for anything, no link leads
nowhere, and every public name of ``harness`` and ``ptycho`` is in it, with its docstring.
"""

import argparse
import base64
import importlib
import inspect
import json
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = "docs/"
START, START_PAGE = "README.md", "index.md"
SHOWN = "source/"
"""Where the site shows files of the repository that documents link to."""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'self\' file: data: blob: '
    "'unsafe-inline'\">"
)
"""Scripts of the theme stand in its pages; whatever is fetched is of the site, or of its folder."""
PACKAGES = ("harness", "ptycho")
_CODE = re.compile(r"(^ *```.*?^ *```[^\n]*$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<before>\]\(|\b(?:src|srcset|href)=\")(?P<target>[^)\s\"#]+)(?=[)\s\"#])")
_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
_LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".cff": "yaml"}


# Links.


def linked_files(text: str, origin: str) -> Iterator[str]:
    """Files of the repository that a document links to; paths are relative to the root."""
    for number, piece in enumerate(_CODE.split(text)):
        for match in _LINK.finditer(piece) if number % 2 == 0 else ():
            if target := _in_repository(match["target"], origin):
                yield target


def with_links_of_the_site(text: str, origin: str) -> str:
    """The text of the document ``origin``, with links as the site needs them; those to nothing stay
    as they are, for MkDocs to complain of.
    """

    def place(match: re.Match[str]) -> str:
        target = _in_repository(match["target"], origin)
        if target is None:
            return match[0]
        here = posixpath.dirname(page_of(origin))
        return match["before"] + posixpath.relpath(page_of(target), here or ".")

    pieces = _CODE.split(text)
    return "".join(
        piece if number % 2 else _LINK.sub(place, piece) for number, piece in enumerate(pieces)
    )


def page_of(path: str) -> str:
    """Where the site has a file of the repository."""
    if path == START:
        return START_PAGE
    if path.startswith(DOCUMENTS):
        return path.removeprefix(DOCUMENTS).replace(".ipynb", ".md")
    shown_at = SHOWN + path.replace("/.", "/").removeprefix(".")  # MkDocs leaves hidden files out
    return shown_at if path.endswith(".md") else f"{shown_at}.md"


def _in_repository(target: str, origin: str) -> str | None:
    if _SCHEME.match(target):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    return path if (ROOT / path).is_file() else None


def shown_files(documents: Iterable[str]) -> list[str]:
    """Files outside of docs/ that these documents link to, and those that these link to in turn."""
    waiting, found = list(documents), []
    while waiting:
        origin = waiting.pop()
        for path in linked_files((ROOT / origin).read_text(encoding="utf-8"), origin):
            if page_of(path).startswith(SHOWN) and path not in found:
                found.append(path)
                waiting += [path] if path.endswith(".md") else []
    return sorted(found)


def shown(path: str) -> str:
    """A file of the repository as a page in Markdown."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return with_links_of_the_site(text, path)
    return f"# {path}\n\n````{_LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n````\n"


# Notebooks.


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook with its outputs as Markdown, and its pictures by name."""
    pieces, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        pieces.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            offered = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in offered:
                name = f"{path.stem}-{len(pictures)}.png"
                pictures[name] = base64.b64decode("".join(offered["image/png"]))
                pieces.append(f"![What the cell above draws]({name})")
            elif "text/html" in offered:
                found = "".join(offered["text/html"])
                # Tables of pandas look, and scroll, as the theme's do where they have no class.
                plain = found.replace(' border="1"', "").replace(' class="dataframe"', "")
                pieces.append(f"<div>\n{plain}\n</div>")
            else:
                pieces.append(f"```text\n{''.join(offered['text/plain']).rstrip()}\n```")
    return "\n\n".join(pieces) + "\n", pictures


# What MkDocs calls.


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the first page, the notebooks, and the files that documents link to."""
    from mkdocs.structure.files import File

    documents = [DOCUMENTS + file.src_uri for file in files if file.src_uri.endswith(".md")]
    pages: dict[str, str | bytes] = {START_PAGE: shown(START)}
    for path in shown_files([START, *documents]):
        pages[page_of(path)] = shown(path)
    for path in sorted((ROOT / DOCUMENTS).rglob("*.ipynb")):
        uri = page_of(str(path.relative_to(ROOT)))
        text, pictures = notebook_page(path)
        pages[uri] = with_links_of_the_site(text, str(path.relative_to(ROOT)))
        pages |= {f"{posixpath.dirname(uri)}/{name}": found for name, found in pictures.items()}

    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Links of the documents as they stand in docs/; other pages have theirs already."""
    if page.file.generated_by:
        return markdown
    return with_links_of_the_site(markdown, DOCUMENTS + page.file.src_uri)


def on_post_page(output: str, **_: object) -> str:
    """Have browsers refuse what a page, or a script of it, would ask somebody else for."""
    return output.replace("<head>", f"<head>{POLICY}", 1)


def on_post_template(output: str, template_name: str, **_: object) -> str:
    """The same for the pages of the theme."""
    return on_post_page(output) if template_name.endswith(".html") else output


# The built site.


@dataclass(frozen=True, slots=True)
class Request:
    """Something that a page would ask somebody else for."""

    page: str
    address: str

    def __str__(self) -> str:
        return f"{self.page} asks for {self.address}"


class _Addresses(HTMLParser):
    """Everything that a browser loads by itself, and all ids."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.ids: set[str] = set()
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        self._in_style = tag == "style"
        self.linked += [given["href"]] if tag == "a" and "href" in given else []
        names = ["src", "poster", "data"] + (["href"] if tag in ("link", "use", "image") else [])
        self.loaded += [given[name] for name in names if name in given]
        self.loaded += [one.split()[0] for one in given.get("srcset", "").split(",") if one.strip()]
        self.loaded += _addresses_of_css(given.get("style", ""))
        if (
            "mermaid" in given.get("class", "").split()
            or given.get("data-md-component") == "source"
        ):
            # Material's script fetches the first from unpkg.com, the second from a service's API.
            self.loaded.append(f"https://of-the-script.invalid/{tag}")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.loaded += _addresses_of_css(data)


def _addresses_of_css(text: str) -> list[str]:
    return re.findall(r"(?:url\(|@import\s+)[\s'\"]*([^'\")\s;]+)", text)


def requests_elsewhere(site: Path) -> list[Request]:
    """What the pages and style sheets of a site ask other hosts for."""
    found = []
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        addresses = _read(text).loaded if path.suffix == ".html" else _addresses_of_css(text)
        found += [
            Request(str(path.relative_to(site)), address)
            for address in addresses
            if _SCHEME.match(address) and not address.startswith("data:")
        ]
    return found


def dead_ends(site: Path) -> list[str]:
    """Links and pictures of pages that lead to no file of the site; MkDocs does not see those that
    are written in HTML.
    """
    found = []
    for path in sorted(site.rglob("*.html")):
        read = _read(path.read_text(encoding="utf-8"))
        for address in [*read.loaded, *read.linked]:
            target = unquote(address.partition("#")[0].partition("?")[0])
            # 404.html is shown at any depth, so that its addresses begin at the root.
            base = site if target.startswith("/") else path.parent
            if target and not _SCHEME.match(address):
                there = base / target.lstrip("/")
                if not (there.is_file() or (there / "index.html").is_file()):
                    found.append(f"{path.relative_to(site)} leads to {address}, which is not there")
    return found


def _read(text: str) -> _Addresses:
    parser = _Addresses()
    parser.feed(text)
    return parser


def public_names() -> Iterator[tuple[str, str]]:
    """Each public name of the packages, and each public method and property of its classes, with
    its docstring.
    """
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            found = getattr(module, name)
            yield f"{package}.{name}", inspect.getdoc(found) or ""
            if inspect.isclass(found):
                for member, value in _members(found, package):
                    yield f"{package}.{name}.{member}", inspect.getdoc(value) or ""


def _members(kind: type, package: str) -> Iterator[tuple[str, Any]]:
    """Public functions and properties that this package defines, in the class or above it."""
    for name in dir(kind):
        home = next((one for one in kind.__mro__ if name in vars(one)), None)
        if name.startswith("_") or home is None or home.__module__.partition(".")[0] != package:
            continue
        value = vars(home)[name]
        value = getattr(value, "__func__", value)  # of a classmethod or a staticmethod
        if inspect.isfunction(value) or isinstance(value, property):
            yield name, value


def undocumented(site: Path) -> list[str]:
    """Public names that the API pages lack, or that have no docstring."""
    ids: set[str] = set()
    for path in (site / "api").glob("*.html"):
        ids |= _read(path.read_text(encoding="utf-8")).ids
    return sorted(
        [f"{name} has no docstring" for name, text in public_names() if not text.strip()]
        + [f"{name} is on no page of the API" for name, _ in public_names() if name not in ids]
    )


def main() -> None:
    """Check a built site."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path, help="the folder that mkdocs has built")
    site = parser.parse_args().site
    pages = len([*site.rglob("*.html")])
    if not pages:
        sys.exit(f"{site} has no pages; build the site first: nox -s docs")

    wrong = [*map(str, requests_elsewhere(site)), *dead_ends(site), *undocumented(site)]
    if wrong:
        sys.exit("\n".join(wrong))
    names = len([*public_names()])
    print(f"{pages} pages ask nobody else for anything; all {names} public names are documented")


if __name__ == "__main__":
    main()
