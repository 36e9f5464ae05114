"""report.html: one file that opens offline, with everything there is to say about a run."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.judge.gate import Judgement
from harness.meters import METERS
from harness.system import PLOTS_FOLDER, REPORT_FILE

from .comparison import COLUMNS
from .marks import bar
from .page import Drawings, Page, make_page
from .pictures import INLINED_TRACES, draw_panels, draw_peaks, draw_traces
from .scripts import Scripts, scripts_of
from .view import RunView

TEMPLATES = Path(__file__).with_name("templates")

SHOWN_FINDINGS = 12
"""Findings of no cause in the open, the gravest first; the rest unfold. Chosen: two screens, after
which nobody reads on."""


def page_files(
    view: RunView, judgement: Judgement, *, earlier_runs: Sequence[Path] = ()
) -> dict[str, bytes]:
    """report.html, and every picture below plots/ as SVG (PNG too of those that stand alone), by
    their paths in the run directory.

    Nothing but the run directory, its judgement and what it was compared with is read, so the page
    can be made again anywhere. ``earlier_runs`` are folders of runs for its history.
    """
    drawings = Drawings(panels=draw_panels, traces=draw_traces)
    page = make_page(view, judgement, drawings=drawings, earlier_runs=earlier_runs)
    drawn = {
        picture.name: picture.wide
        for picture in (draw_peaks(view), *page.panels, *page.trace_pictures)
        if picture.wide is not None
    }
    plots = {
        f"{PLOTS_FOLDER}/{name}.{kind}": content
        for name, drawing in drawn.items()
        for kind, content in (
            ("svg", f"{drawing.svg}\n<!-- judgement {page.judgement} -->\n".encode()),
            ("png", drawing.png and _stamped(drawing.png, {"judgement": page.judgement})),
        )
        if content
    }
    return {REPORT_FILE: render(page, scripts_of(view, judgement)).encode(), **plots}


def render(page: Page, scripts: Scripts | None = None) -> str:
    """The page as HTML. Every text is escaped; the drawings, which matplotlib escaped, stand as
    they are. Without ``scripts`` it is a page that cannot be asked.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    meters = {meter.words: meter.meaning for meter in METERS if not meter.traced_only}
    return environment.get_template("report.html.j2").render(
        page=page,
        meters=meters,
        svg=_svg,
        bar=bar,
        move_columns=COLUMNS,
        shown_findings=SHOWN_FINDINGS,
        shown_traces=INLINED_TRACES,
        scripts=scripts or Scripts(),
    )


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - drawn by matplotlib, which escapes the texts in it; see drawing.finish


def _stamped(png: bytes, texts: Mapping[str, str]) -> bytes:
    """A PNG with texts in it, each a chunk tEXt (PNG specification, 11.3.4.3) behind the header,
    which takes 33 bytes.
    """
    chunks = [
        b"tEXt" + name.encode("latin-1") + b"\0" + text.encode("latin-1")
        for name, text in texts.items()
    ]
    framed = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    ]
    return png[:33] + b"".join(framed) + png[33:]
