"""The main picture: peak device memory against the number of images, with fits, budgets and where
memory ran out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.records import count_in_words, unit_of
from harness.words import format_bytes

from .axes import height_of, in_mib, memory_axis, size_axis, spread_apart
from .drawing import (
    BUDGET_COLOUR,
    DEVICE_COLOUR,
    PAPER,
    WIDE_IN,
    Look,
    looks,
    style,
    write_title,
)
from .frames import PeakPicture, peak_line
from .plan import SWEPT
from .words import rate

_LINE_LETTERS = 22
"""Letters of a label that fit beside the picture at 9.5 pt."""
_LINE_IN = 0.18
"""Height of one line of a label at 9.5 pt, with its leading."""


@dataclass(frozen=True, slots=True)
class _Label:
    """Text beside the right edge of the picture, at the height of what it names."""

    mib: float
    text: str
    colour: str


def peak_figure(picture: PeakPicture) -> Figure | None:
    """Peak device memory against image count; None when no point of the run has anything to
    show.
    """
    if picture.empty:
        return None
    drawn = pd.concat([picture.peaks, picture.capped, picture.out_of_memory])
    look = looks([str(name) for name in drawn["series"]])
    with style():
        figure = Figure(figsize=(WIDE_IN, 4.8))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.09, right=0.77, bottom=0.115, top=0.84)
        size_axis(axes, drawn[SWEPT], tick_room=0.15)
        limits = _limits(picture)
        memory_axis(axes, [*in_mib(drawn["peak_bytes"].dropna()), *in_mib(limits)])
        labels = [
            _draw_series(axes, str(name), rows, look, picture.over)
            for name, rows in picture.peaks.groupby("series", sort=False)
        ]
        labels += [_draw_limit(axes, limit, picture, look) for limit in limits]
        for name, rows in picture.capped.groupby("series", sort=False):
            colour = look[str(name)].colour
            axes.plot(
                rows[SWEPT],
                in_mib(rows["peak_bytes"]),
                "o",
                ms=13,
                mfc="none",
                mec=colour,
                mew=1.6,
                zorder=5,
            )
        _write_labels(figure, axes, labels)
        axes.set_xlabel(count_in_words(picture.over))
        axes.set_ylabel("peak device memory")
        scenarios = ", ".join(picture.scenarios)
        title = f"Peak device memory against {count_in_words(picture.over)}"
        write_title(
            figure,
            f"{scenarios}: {title[0].lower()}{title[1:]}" if scenarios else title,
            _key(picture),
        )
    return figure


def _key(picture: PeakPicture) -> str:
    """How to read the marks."""
    repeated, fitted = (
        (picture.peaks["runs"] > 1).any(),
        (picture.peaks.groupby("series")[SWEPT].nunique() > 1).any(),
    )
    point = "least of the repeats" if repeated else "one run"
    line = ", line: straight fit" if fitted else ""
    parts = [f"point: {point}{line}"]
    parts = parts if len(picture.peaks) else []
    parts += ["cross: out of memory"] if len(picture.out_of_memory) else []
    parts += ["ring: under the budget"] if len(picture.capped) else []
    return ", ".join(parts)


def _limits(picture: PeakPicture) -> list[int]:
    """The device's size, and every budget of a point's own, in bytes, ascending."""
    budgets = [
        *picture.capped["device_budget_bytes"],
        *picture.out_of_memory["device_budget_bytes"],
    ]
    return sorted(
        {
            int(budget)
            for budget in [*budgets, *([picture.device_bytes] if picture.device_bytes else [])]
        }
    )


def _draw_series(
    axes: Axes, name: str, rows: pd.DataFrame, look: Mapping[str, Look], over: str
) -> _Label:
    sizes, peaks, drawn = rows[SWEPT].to_numpy(float), in_mib(rows["peak_bytes"]), look[name]
    axes.plot(sizes, peaks, drawn.marker, color=drawn.colour, markersize=7, zorder=4)
    text = _wrapped(f"{name}: {format_bytes(float(rows['peak_bytes'].iloc[-1]))}")
    line = peak_line(rows)
    if line is not None:
        # Evenly spread over the axis, which is logarithmic where all sizes are above 0, and linear
        # elsewhere (axes.size_axis).
        along = (
            np.geomspace(sizes.min(), sizes.max(), 64)
            if sizes.min() > 0
            else np.linspace(sizes.min(), sizes.max(), 64)
        )
        axes.plot(
            along,
            in_mib(line.at(size) for size in along),
            color=drawn.colour,
            linewidth=1.8,
            zorder=3,
        )
        text += f"\n{rate(line.slope, unit_of(over))}"
    return _Label(float(peaks[-1]), text, drawn.ink)


def _draw_limit(axes: Axes, limit: int, picture: PeakPicture, look: Mapping[str, Look]) -> _Label:
    """The line of the device or of a budget, and a cross on it wherever memory of that size ran
    out.
    """
    device = limit == picture.device_bytes
    colour = DEVICE_COLOUR if device else BUDGET_COLOUR
    height = float(in_mib([limit])[0])
    axes.axhline(
        height,
        color=colour,
        linewidth=1.4,
        linestyle=(0, (6, 3)) if device else (0, (2, 2)),
        zorder=2,
    )
    text = f"{'device' if device else 'budget'}: {format_bytes(limit)}"
    dead = picture.out_of_memory[picture.out_of_memory["device_budget_bytes"] == limit]
    for place, (name, rows) in enumerate(dead.groupby("series", sort=False)):
        drawn, size = look[str(name)], int(rows[SWEPT].min())
        # The first is the largest, so that it shows around a second one at the same place.
        axes.plot(
            rows[SWEPT],
            [height] * len(rows),
            "X",
            color=drawn.colour,
            ms=max(7, 14 - 5 * place),
            mec=PAPER,
            mew=0.8,
            zorder=6 + place,
        )
        from_or_at = "from" if len(rows) > 1 else "at"
        text += f"\n{_wrapped(f'{name} ran out of')}\nmemory {from_or_at} {size:,}"
    return _Label(height, text, colour)


def _wrapped(text: str) -> str:
    """As many lines as it takes; none is wider than the margin."""
    return "\n".join(wrap(text, _LINE_LETTERS))


def _write_labels(figure: Figure, axes: Axes, labels: Sequence[_Label]) -> None:
    line = _LINE_IN / (figure.get_figheight() * axes.get_position().height)
    heights = [line * (label.text.count("\n") + 1.3) for label in labels]
    centres = spread_apart([height_of(axes, label.mib) for label in labels], heights)
    for label, centre in zip(labels, centres, strict=True):
        axes.text(
            1.03,
            centre,
            label.text,
            transform=axes.transAxes,
            color=label.colour,
            va="center",
            fontsize=9.5,
        )
