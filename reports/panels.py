"""The plots of the page, one look for all: series over their sizes, what they were before, limits
as zones that are forbidden, and rings around what is in them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.records import count_in_words
from harness.words import format_bytes

from .axes import height_of, in_mib, memory_axis, size_axis, spread_apart
from .curves import Curve, Panel
from .drawing import (
    DEVICE_COLOUR,
    EARLIER,
    FORBIDDEN,
    INK,
    PANEL_IN,
    PAPER,
    QUIET,
    Look,
    looks,
    style,
)

_HEIGHT_IN = 3.0
_LEFT_IN, _RIGHT_IN, _BOTTOM_IN, _TOP_IN = 0.72, 1.22, 0.5, 0.5
"""Around the axes: names of amounts on the left, labels of series on the right."""
_LABEL_LETTERS = 15
"""Letters of a label's line: as many as the right margin holds at its size."""
_LABEL_LINES = 3
"""Chosen: what is longer stands in the key below the plot."""
_TITLE_LETTERS = 46
"""Letters of a title that fit the plot's width."""
_LINE_IN = 0.155
"""Height of one line of a label at 8.5 pt, with its leading."""
_BAND = 0.07
"""Height of a forbidden zone's visible edge, as a share of the plot, where several series have
limits of their own. Chosen: it can be seen, and does not cover the others."""


@dataclass(frozen=True, slots=True)
class _Label:
    """Text beside the right edge, at the height of what it names."""

    height: float
    """0 at the bottom of the axes, 1 at the top."""
    text: str
    colour: str


def panel_figure(panel: Panel) -> Figure:
    """The plot of a panel; it has at least one amount, or one death."""
    look = looks([curve.series for curve in panel.curves])
    with style():
        figure = Figure(figsize=(PANEL_IN, _HEIGHT_IN))
        axes = figure.add_axes(
            (
                _LEFT_IN / PANEL_IN,
                _BOTTOM_IN / _HEIGHT_IN,
                1 - (_LEFT_IN + _RIGHT_IN) / PANEL_IN,
                1 - (_BOTTOM_IN + _TOP_IN) / _HEIGHT_IN,
            )
        )
        size_axis(axes, pd.Series(sorted(_sizes(panel))), tick_room=0.24, margin=0.08)
        memory_axis(axes, in_mib(_heights(panel)), tick_step=_tick_step(panel), headroom=2.2)
        _draw_limits(axes, panel)
        # The first is drawn broadest, so that it shows around a second one that lies upon it.
        for place, curve in enumerate(panel.curves):
            _draw_curve(axes, curve, look[curve.series], breadth=1.9 if place == 0 else 1.1)
        if panel.device_bytes:
            _draw_device(axes, panel.device_bytes)
        _write_labels(axes, list(_labels(axes, panel, look)))
        axes.set_xlabel(count_in_words(panel.over), fontsize=8.5)
        axes.tick_params(labelsize=8.5)
        figure.text(0.012, 0.975, _fitted(panel), va="top", fontweight="bold")
        figure.text(0.012, 0.912, panel.quantity, va="top", fontsize=8.5, color=QUIET)
    return figure


def _sizes(panel: Panel) -> set[int]:
    return {
        size for curve in panel.curves for size, _ in (*curve.amounts, *curve.earlier, *curve.died)
    }


def _heights(panel: Panel) -> list[float]:
    """Every amount that has to be on the y axis."""
    found = [
        amount
        for curve in panel.curves
        for _, amount in (*curve.amounts, *curve.earlier, *curve.died, *curve.limits)
    ]
    return [*found, *([float(panel.device_bytes)] if panel.device_bytes else [])]


def _tick_step(panel: Panel) -> int:
    """Every tick where there is room, every second one over a wide range."""
    most = max(_heights(panel))
    return 2 if most > 64 * 2**20 else 1


def _draw_limits(axes: Axes, panel: Panel) -> None:
    """From each limit upwards nothing may be: all of it with one limit, its edge with several."""
    limited = [curve for curve in panel.curves if curve.limits]
    top = axes.get_ylim()[1]
    for curve in limited:
        sizes: list[float] = [size for size, _ in curve.limits]
        lower = in_mib(amount for _, amount in curve.limits)
        if len(sizes) == 1:  # a zone needs a width
            low, high = axes.get_xlim()
            sizes, lower = [low, high], lower.repeat(2)
        upper = (
            [top] * len(sizes)
            if len(panel.curves) == 1
            else [_above(axes, float(mib)) for mib in lower]
        )
        axes.fill_between(sizes, lower, upper, color=FORBIDDEN, alpha=0.13, linewidth=0, zorder=1)
        axes.plot(sizes, lower, color=FORBIDDEN, linewidth=1, linestyle=(0, (3, 2)), zorder=2)


def _above(axes: Axes, mib: float) -> float:
    """The amount that stands ``_BAND`` higher on the axis."""
    place = axes.transAxes.transform((0, height_of(axes, mib) + _BAND))
    return float(axes.transData.inverted().transform(place)[1])


def _draw_curve(axes: Axes, curve: Curve, look: Look, *, breadth: float) -> None:
    sizes, amounts = [size for size, _ in curve.amounts], in_mib(mib for _, mib in curve.amounts)
    if curve.earlier:
        axes.plot(
            [size for size, _ in curve.earlier],
            in_mib(amount for _, amount in curve.earlier),
            color=EARLIER,
            linewidth=1,
            marker="_",
            markersize=5,
            zorder=3,
        )
    axes.plot(
        sizes,
        amounts,
        f"-{look.marker}",
        color=look.colour,
        markersize=3 + 1.5 * breadth,
        linewidth=1.3 * breadth,
        zorder=4,
    )
    broken = [(size, amount) for size, amount in curve.amounts if size in curve.broken]
    axes.plot(
        [size for size, _ in broken],
        in_mib(amount for _, amount in broken),
        "o",
        ms=14,
        mfc="none",
        mec=FORBIDDEN,
        mew=1.8,
        zorder=5,
    )
    axes.plot(
        [size for size, _ in curve.died],
        in_mib(size for _, size in curve.died),
        "X",
        color=look.colour,
        ms=9,
        mec=PAPER,
        mew=0.8,
        zorder=6,
    )


def _draw_device(axes: Axes, device_bytes: int) -> None:
    axes.axhline(
        device_bytes / 2**20, color=DEVICE_COLOUR, linewidth=1.2, linestyle=(0, (6, 3)), zorder=2
    )


def _labels(axes: Axes, panel: Panel, look: dict[str, Look]) -> Iterator[_Label]:
    """One for each height; series that end alike share it."""
    ends: dict[str, list[Curve]] = {}
    for curve in panel.curves:
        ends.setdefault(_end_in_words(curve), []).append(curve)
    for words, alike in ends.items():
        first = alike[0]
        amount = (first.amounts or first.died)[-1][1]
        names = ", ".join(curve.series for curve in alike)
        if len(alike) > 1 and len(wrap(names, _LABEL_LETTERS)) > _LABEL_LINES:
            names = f"{len(alike)} series alike"
        colour = look[first.series].ink if len(alike) == 1 else INK
        text = "\n".join([*_in_lines(names), words])
        yield _Label(height_of(axes, float(in_mib([amount])[0])), text, colour)
    limits = {
        format_bytes(curve.limits[-1][1]): curve.limits[-1][1]
        for curve in panel.curves
        if curve.limits
    }
    for words, limit in limits.items():
        height = height_of(axes, float(in_mib([limit])[0]))
        yield _Label(min(1.0, height + _BAND / 2), f"limit {words}", FORBIDDEN)
    if panel.device_bytes:
        height = height_of(axes, panel.device_bytes / 2**20)
        yield _Label(height, f"device {format_bytes(panel.device_bytes)}", DEVICE_COLOUR)


def _end_in_words(curve: Curve) -> str:
    if curve.amounts:
        return format_bytes(curve.amounts[-1][1])
    return f"out of memory,\n{format_bytes(curve.died[-1][1])}"


def _in_lines(text: str) -> list[str]:
    """As many lines as a label may have; what is longer ends in dots, and is whole below."""
    lines = wrap(text, _LABEL_LETTERS, break_long_words=True)
    if len(lines) <= _LABEL_LINES:
        return lines
    return [*lines[: _LABEL_LINES - 1], f"{lines[_LABEL_LINES - 1][: _LABEL_LETTERS - 3]}..."]


def _fitted(panel: Panel) -> str:
    """The title; of a scenario with a long name its end, in which such names differ."""
    room = _TITLE_LETTERS - len(panel.title)
    if room >= 0 or not panel.title.startswith(panel.scenario):
        return panel.title[:_TITLE_LETTERS]
    kept = max(0, len(panel.scenario) + room - 3)
    end = panel.scenario[len(panel.scenario) - kept :]
    return f"...{end}{panel.title.removeprefix(panel.scenario)}"


def _write_labels(axes: Axes, labels: Sequence[_Label]) -> None:
    """Beside the axes, none upon another; where there are too many for that, the key below has
    them.
    """
    line = _LINE_IN / (_HEIGHT_IN - _BOTTOM_IN - _TOP_IN)
    shown, room = [], 1.0
    for label in labels:
        height = line * (label.text.count("\n") + 1.25)
        if height <= room:
            shown.append((label, height))
            room -= height
    centres = spread_apart([label.height for label, _ in shown], [height for _, height in shown])
    for (label, _), centre in zip(shown, centres, strict=True):
        axes.text(
            1.035,
            centre,
            label.text,
            transform=axes.transAxes,
            color=label.colour,
            va="center",
            fontsize=8.5,
        )
