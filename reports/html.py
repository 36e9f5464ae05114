"""report.html: one file that opens offline, with everything there is to say about a run."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import RunDirectoryError
from harness.judge.files import write_bytes, write_text
from harness.judge.gate import Judgement
from harness.judge.table import Run

from .page import Page, make_page
from .pictures import INLINED_TRACES, NAMES, draw, draw_traces
from .words import METER_MEANINGS, meter_name

REPORT_FILE = "report.html"
PLOTS_FOLDER = "plots"
TEMPLATES = Path(__file__).with_name("templates")

SHOWN_FINDINGS = 12
"""Findings in the open, the gravest first; the rest unfold. Chosen: two screens, after which nobody reads on."""


def write_report(run: Run, judgement: Judgement) -> Path:
    """Write report.html and plots/ (SVG and PNG of every picture) into the run directory; returns the page's path.

    Nothing but the run directory and its judgement is read, so the page can be made again anywhere. Each file is
    replaced in one step. Raises RunDirectoryError when one cannot be written.
    """
    page = make_page(run, judgement, draw(run), draw_traces=draw_traces)
    _write_plots(run.path / PLOTS_FOLDER, page)
    path = run.path / REPORT_FILE
    write_text(path, render(page))
    return path


def render(page: Page) -> str:
    """The page as HTML. Every text is escaped; the drawings, which matplotlib escaped, stand as they are."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    meters = {meter_name(meter): meaning for meter, meaning in METER_MEANINGS.items()}
    limits = {"shown_findings": SHOWN_FINDINGS, "shown_traces": INLINED_TRACES}
    return environment.get_template("report.html.j2").render(page=page, meters=meters, svg=_svg, **limits)


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - drawn by matplotlib, which escapes the texts in it; see drawing.finish


def _write_plots(folder: Path, page: Page) -> None:
    drawn = {picture.name: picture.wide for picture in (*page.pictures, *page.trace_pictures) if picture.wide is not None}
    try:
        folder.mkdir(exist_ok=True)
        # A picture of an earlier state would speak for a run that has none.
        traces = {path.stem for path in folder.glob("trace-*.svg")}
        for name in (traces | set(NAMES)) - drawn.keys():
            for suffix in (".svg", ".png"):
                (folder / f"{name}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{folder} cannot be made: {error}") from error
    for name, drawing in drawn.items():
        write_text(folder / f"{name}.svg", drawing.svg + "\n")
        write_bytes(folder / f"{name}.png", drawing.png)
