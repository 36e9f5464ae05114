"""What the page needs beside its text to be asked: the packed data, the code that reads them, its
styles, and the policy by which a browser runs this code and no other.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from harness.judge.gate import Judgement

from .data import Packed, packed_tables
from .packed_traces import packed_traces
from .view import RunView

TEMPLATES = Path(__file__).with_name("templates")
VENDORED = Path(__file__).with_name("vendored")

_CODE = ("words.js", "table.js", "explore.js", "timeline.js", "alive.js", "start.js")
"""Our own, in the order in which they are read: one script, because each uses those before it."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Styles are not the danger where nothing can be fetched, and every picture has its own."""

_NOTHING = Markup()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripts:
    """The parts of a page that can be asked; of one that cannot, only the policy."""

    markup: Markup = _NOTHING
    """For the end of the body: data first, then code."""
    styles: Markup = _NOTHING
    """For the style sheet."""
    policy: str = _POLICY
    """The content security policy of the page."""
    has_traces: bool = False
    """Whether there is a trace to show."""


def scripts_of(view: RunView, judgement: Judgement) -> Scripts:
    """The scripts of a page, with all of the run's data in them."""
    traces = packed_traces(view, judgement)
    library = (VENDORED / "uPlot" / "uPlot.iife.min.js").read_text(encoding="utf-8")
    code = [*([library] if traces else []), own_code()]
    styles = (
        *((VENDORED / "uPlot" / "uPlot.min.css",) if traces else ()),
        TEMPLATES / "explore.css",
    )
    return Scripts(
        markup=Markup("\n").join(
            [*map(_data, [*packed_tables(view, judgement), *traces]), *map(_script, code)]
        ),
        styles=Markup("\n".join(path.read_text(encoding="utf-8") for path in styles)),  # noqa: S704 - files of ours
        policy=policy(code),
        has_traces=bool(traces),
    )


def own_code() -> str:
    """The files of our own code as one script, which leaves no name in the page."""
    files = ((TEMPLATES / name).read_text(encoding="utf-8") for name in _CODE)
    return "(() => {\n" + "\n".join(['"use strict";', *files]) + "})();\n"


def policy(code: Sequence[str]) -> str:
    """The content security policy that lets these scripts run, by their digests, and fetches
    nothing (Content Security Policy level 3: hash-source).
    """
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in code)
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"{_POLICY}; script-src {sources}"


def _data(packed: Packed) -> Markup:
    text = Markup(packed.text)  # noqa: S704 - base64
    return Markup('<script type="application/json" id="{}">"{}"</script>').format(packed.id, text)


def _script(code: str) -> Markup:
    """Raises ValueError for code that would end its own element."""
    if "</script" in code.lower() or "<!--" in code:
        raise ValueError(f"a script of the page ends its own element: {escape(code[:60])}")
    return Markup(f"<script>{code}</script>")  # noqa: S704 - files of ours, checked above
