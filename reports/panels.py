"""The small pictures: growth phase by phase over the number of images, and what the size of the
stack does.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import count_in_words, sizes_in_words
from harness.words import format_bytes

from .axes import height_of, in_mib, memory_axis, size_axis
from .drawing import INK, NARROW_IN, QUIET, WIDE_IN, Look, looks, style, write_title
from .plan import STACK, SWEPT
from .words import plain, unavailable

_METERS: Mapping[str, str] = {DEVICE_IN_USE: "device", HOST_ANON: "host"}
"""What the small pictures show, in one word each: the meters that the gate judges."""
_LABEL_ROOM = 0.24
"""Least distance of two points, as a share of a panel's height, at which both labels fit above
their points."""


Panels = npt.NDArray[Any]
"""Axes in rows and columns, as matplotlib gives them: an array of objects."""


def phase_figure(
    table: pd.DataFrame, phases: Sequence[str], *, narrow: bool = False
) -> Figure | None:
    """Growth against image count, one panel for each phase and meter; None without a single swept
    point.

    ``table`` holds rows of ``frames.phase_table`` of one scenario at one stack size.
    """
    swept = table.dropna(subset=[SWEPT])
    axis = (
        ""
        if swept.empty
        else f"{count_in_words(str(swept['over'].iloc[0]))}".removeprefix("number of ")
    )
    if swept.empty or not phases:
        return None
    read = swept[swept["finished"] & swept["growth_bytes"].notna()]
    look = looks([str(name) for name in swept["series"]])
    with style():
        shape = (len(phases), len(_METERS)) if narrow else (len(_METERS), len(phases))
        figure, panels = _panels(
            shape,
            height_in=1.5 * shape[0] + 1.2 if narrow else 4.8,
            between=(0.1, 0.42 if narrow else 0.3),
        )
        size_axis(panels[0, 0], swept[SWEPT], tick_room=0.3, margin=0.12)
        memory_axis(
            panels[0, 0],
            [0.0, *in_mib(read["growth_bytes"] + read["spread_bytes"].fillna(0))],
            tick_step=2,
            headroom=10,
        )
        for index, phase in enumerate(phases):
            for other, (meter, word) in enumerate(_METERS.items()):
                axes = panels[(index, other) if narrow else (other, index)]
                _draw_phase(
                    axes, swept[(swept["phase"] == phase) & (swept["meter"] == meter)], look
                )
                axes.set_title(f"{plain(phase)}: {word}" if narrow else plain(phase))
        _name_edges(
            panels,
            axis,
            ["growth (MiB)"] * len(phases)
            if narrow
            else [f"{word} growth (MiB)" for word in _METERS.values()],
        )
        write_title(figure, "Growth in each phase", "")
        _write_key(figure, look)
    return figure


def stack_figure(table: pd.DataFrame, *, narrow: bool = False) -> Figure | None:
    """How far a run rises at each stack size, at one image count; None when no series has several
    stack sizes.

    ``table`` is ``frames.stack_table``; of several scenarios the first is drawn.
    """
    if table.empty:
        return None
    shown = table[table["scenario"] == table["scenario"].iloc[0]]
    look = looks([str(name) for name in shown["series"]])
    with style():
        shape = (len(_METERS), 1) if narrow else (1, len(_METERS))
        figure, panels = _panels(shape, height_in=4.8 if narrow else 3.1, between=(0.08, 0.3))
        size_axis(panels[0, 0], shown[STACK])
        memory_axis(panels[0, 0], in_mib(shown["rise_bytes"]))
        for axes, (meter, word) in zip(panels.flat, _METERS.items(), strict=True):
            rows = shown[shown["meter"] == meter].rename(
                columns={STACK: "_size", "rise_bytes": "_bytes"}
            )
            _draw_lines(axes, rows, look)
            axes.set_title(word)
        _name_edges(panels, "frames in the stack", ["rise (MiB)"] * len(_METERS))
        images = int(shown[SWEPT].iloc[0])
        counted = sizes_in_words(str(shown["over"].iloc[0]), images)
        write_title(
            figure, "A larger stack" if narrow else f"The same {counted} out of a larger stack", ""
        )
        _write_key(figure, look)
    return figure


def _panels(
    shape: tuple[int, int], *, height_in: float, between: tuple[float, float]
) -> tuple[Figure, Panels]:
    """A figure with panels of one scale, as wide as a telephone where it has fewer columns than
    rows.
    """
    narrow = shape[0] > shape[1]
    figure = Figure(figsize=(NARROW_IN if narrow else WIDE_IN, height_in))
    panels = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.15 if narrow else 0.075,
        right=0.98,
        bottom=0.55 / height_in,
        top=1 - (0.85 if narrow else 0.75) / height_in,
        wspace=between[0],
        hspace=between[1],
    )
    return figure, panels


def _draw_phase(axes: Axes, rows: pd.DataFrame, look: Mapping[str, Look]) -> None:
    read = rows[rows["finished"] & rows["growth_bytes"].notna()]
    if read.empty:
        reasons = [str(reason) for reason in rows["reason"] if reason]
        text = (
            unavailable(reasons[0])
            if reasons
            else "no run finished this phase with a reading of this meter"
        )
        axes.text(
            0.5,
            0.5,
            fill(text, 20),
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=QUIET,
            fontsize=7.5,
        )
        return
    _draw_lines(axes, read.rename(columns={SWEPT: "_size", "growth_bytes": "_bytes"}), look)


def _draw_lines(axes: Axes, rows: pd.DataFrame, look: Mapping[str, Look]) -> None:
    """A line through each series, a whisker as long as the repeats lie apart, and the last amount
    in words.
    """
    ends: list[tuple[float, float, str, str]] = []
    # The first is drawn broadest, so that it shows around a second one that lies upon it.
    breadths = iter((2.0, *[1.0] * len(look)))
    for name, mine in rows.sort_values("_size").groupby("series", sort=False):
        drawn, sizes, amounts = (
            look[str(name)],
            mine["_size"].to_numpy(float),
            in_mib(mine["_bytes"]),
        )
        breadth = next(breadths)
        axes.plot(
            sizes,
            amounts,
            f"-{drawn.marker}",
            color=drawn.colour,
            markersize=3 + 2 * breadth,
            linewidth=1.4 * breadth,
        )
        axes.vlines(
            sizes,
            amounts,
            amounts + in_mib(mine["spread_bytes"].fillna(0)),
            color=drawn.colour,
            linewidth=1,
        )
        ends.append(
            (
                float(amounts[-1]),
                float(sizes[-1]),
                format_bytes(float(mine["_bytes"].iloc[-1])),
                drawn.ink,
            )
        )
    ends.sort(reverse=True)
    for index, (mib, size, text, colour) in enumerate(ends):
        if index and text == ends[index - 1][2]:
            continue
        shared = index + 1 < len(ends) and text == ends[index + 1][2]
        crowded = (
            index > 0 and height_of(axes, ends[index - 1][0]) - height_of(axes, mib) < _LABEL_ROOM
        )
        offset = (3, -6) if crowded else (3, 6)
        axes.annotate(
            text,
            (size, mib),
            offset,
            textcoords="offset points",
            ha="right",
            va="top" if crowded else "bottom",
            color=INK if shared else colour,
            fontsize=8,
            # A steep line runs through a label below its end; a little white keeps the figures
            # legible.
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4},
        )


def _name_edges(panels: Panels, below: str, beside: Sequence[str]) -> None:
    for axes in panels[-1]:
        axes.set_xlabel(below)
    for axes, name in zip(panels[:, 0], beside, strict=False):
        axes.set_ylabel(name)
    for axes in panels.flat:
        axes.tick_params(labelsize=8)


def _write_key(figure: Figure, look: Mapping[str, Look]) -> None:
    marks = [
        Line2D([], [], color=one.colour, marker=one.marker, markersize=6, linewidth=1.8, label=name)
        for name, one in look.items()
    ]
    figure.legend(
        handles=marks,
        loc="upper right",
        ncols=len(marks),
        frameon=False,
        bbox_to_anchor=(0.99, 1.0),
        borderaxespad=0.3,
        handlelength=2.2,
    )
