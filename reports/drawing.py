"""Figures to bytes and text, always the same bytes for the same figure: one look, no global state,
no window system.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#1f2430"
QUIET = "#5b6270"
"""Secondary text; 6:1 against white, above the 4.5:1 that WCAG 2.1 asks of small text."""
GRID = "#e3e6eb"

# Okabe and Ito, "Color Universal Design" (2008): distinguished with any common colour blindness.
# The darker ones first.
_SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_SERIES_INKS = ("#0072B2", "#A84A00", "#006B4E", "#98416F", "#1F6F9F", "#80580A")
"""The same hues for text, darkened to at least 4.5:1 against white."""
_SERIES_MARKERS = ("o", "s", "D", "^", "v", "P")
DEVICE_COLOUR = INK
BUDGET_COLOUR = "#8a3d6b"
"""A darkened Okabe-Ito purple: the budget's line carries small text, which the original is too pale
for."""
FORBIDDEN = "#c02a2a"
"""Where nothing may be, and a ring around what is there all the same."""
EARLIER = "#7b8494"
"""What was there before: the baseline, or the other code."""
AXIS = "#9aa1ad"
PAPER = "#ffffff"

# In a page each colour is a variable of its style sheet, which has another one for dark screens; a
# file that stands alone falls back to the colour itself.
_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        INK: "ink",
        QUIET: "plot-quiet",
        GRID: "plot-grid",
        AXIS: "plot-axis",
        PAPER: "card",
        BUDGET_COLOUR: "plot-budget",
        FORBIDDEN: "plot-forbidden",
        EARLIER: "plot-earlier",
        **{colour.lower(): f"ink-{place}" for place, colour in enumerate(_SERIES_INKS)},
        **{colour.lower(): f"series-{place}" for place, colour in enumerate(_SERIES_COLOURS)},
    }
)

# Chosen: in the page 9.6 in shows 10 pt as 15 px on a desktop, and 4.4 in as 12 px on a telephone
# 400 px wide.
WIDE_IN = 9.6
NARROW_IN = 4.4
PANEL_IN = 4.6
"""Of one of several pictures beside each other. Chosen: two fit beside each other on a desktop, and
one on a telephone, with letters that can be read on both."""

_SETTINGS: Mapping[Any, Any] = MappingProxyType(
    {
        "font.family": "sans-serif",
        # DejaVu comes with matplotlib, so the layout is the same everywhere; Verdana has the same
        # widths in a browser.
        "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": AXIS,
        "axes.labelcolor": INK,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": AXIS,
        "ytick.color": AXIS,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        # A dollar sign in a name is a dollar sign.
        "text.parse_math": False,
        # Text stays text: it can be found, selected and read aloud.
        "svg.fonttype": "none",
    }
)


@dataclass(frozen=True, slots=True)
class Look:
    """How one series is drawn; colour and marker both tell it."""

    colour: str
    ink: str
    marker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One finished figure."""

    name: str
    svg: str
    """For inlining: an ``<svg>`` element whose ids carry the figure's name."""
    png: bytes = b""
    """Empty where only the page shows it."""


def looks(series: list[str]) -> dict[str, Look]:
    """A look for each series. Eager and lazy always have the same one; others follow in their
    order.
    """
    fixed = {"lazy": 0, "eager": 1}
    others = [name for name in dict.fromkeys(series) if name not in fixed]
    places = {
        name: fixed.get(name, 2 + others.index(name) if name in others else 0) for name in series
    }
    size = len(_SERIES_COLOURS)
    return {
        name: Look(
            _SERIES_COLOURS[place % size], _SERIES_INKS[place % size], _SERIES_MARKERS[place % size]
        )
        for name, place in places.items()
    }


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure, for the time of building it; matplotlib's own settings are as
    before afterwards.
    """
    with mpl.rc_context({**_SETTINGS}):
        yield


def write_title(figure: Figure, title: str, key: str) -> None:
    """The title at the left of the figure's top, and below it, smaller, how to read its marks."""
    height_in = figure.get_figheight()
    figure.text(0.012, 1 - 0.1 / height_in, title, va="top", fontsize=12, fontweight="bold")
    figure.text(0.012, 1 - 0.36 / height_in, key, va="top", fontsize=8.5, color=QUIET)


def finish(figure: Figure, name: str, description: str, *, png: bool = True) -> Drawing:
    """The figure as SVG text and, with ``png``, PNG bytes; ``description`` is what a screen reader
    says instead of it.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        text = io.StringIO()
        # Without these four no metadata are written: neither a date nor the address of anybody's
        # web site.
        figure.savefig(
            text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
        pixels = io.BytesIO()
        if png:
            # 144 dpi: sharp at the width of a README on a screen with two pixels to the point.
            figure.savefig(pixels, format="png", dpi=144, metadata={"Software": None})
    return Drawing(
        name=name, svg=_inline(text.getvalue(), name, description), png=pixels.getvalue()
    )


def _inline(svg: str, name: str, description: str) -> str:
    """The ``<svg>`` element alone, at home in a page: ids of its own, styles that stay inside, a
    spoken description.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    # matplotlib writes a rule for every element of the page it lands in.
    body = body.replace("*{", f"#{name} *{{")
    # Texts are escaped, so that what stands between < and > is ours alone.
    body = re.sub(r"<[^>]*>", lambda tag: _in_variables(_shortened(tag.group())), body)
    opening = f'<svg id="{name}" role="img" aria-label="{escape(description)}"'
    head, rest = body.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f"{head.replace('<svg', opening, 1)}>{rest}".strip()


def _shortened(tag: str) -> str:
    """Coordinates to a hundredth of a point, which nobody sees, on one line."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag).replace(" \n", " ")


def _in_variables(tag: str) -> str:
    return re.sub(
        r"(?<=: )#[0-9a-f]{6}\b",
        lambda colour: (
            f"var(--{_VARIABLES[colour.group()]}, {colour.group()})"
            if colour.group() in _VARIABLES
            else colour.group()
        ),
        tag,
    )
