"""The pictures of a run with their captions in plain words: those of the page, and the main one,
which stands beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from harness.meters import DEVICE_IN_USE
from harness.records import NAMED_STEPS, Outcome, count_in_words, sizes_in_words, unit_of
from harness.words import format_bytes

from .curves import Panel
from .drawing import Drawing, finish
from .frames import PeakPicture, peak_line
from .panels import panel_figure
from .plan import SWEPT
from .plots import peak_figure
from .timeline import timeline_figure
from .traced import TracedPoint
from .view import RunView
from .words import meter_name, rate

INLINED_TRACES = 1
"""Timelines of traces that are drawn in the page, for those who run no script; the others are
files. Chosen: each takes some 60 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture; where ``wide`` is None there is none, and the caption says why. ``narrow`` is
    for what is inlined.
    """

    name: str
    heading: str
    caption: str
    wide: Drawing | None
    narrow: Drawing | None
    key: tuple[str, ...] = ()
    """What each of its series shows, in a line each."""


def draw_peaks(view: RunView) -> Picture:
    """The main picture, which stands as a file beside the page."""
    return _peaks(view.picture)


def draw_panels(panels: Sequence[Panel]) -> tuple[Picture, ...]:
    """Each plot of the page with its key, in their order; one size of it suits every screen."""
    return tuple(
        Picture(
            name=panel.name,
            heading=panel.title,
            caption=panel.quantity,
            wide=finish(panel_figure(panel), panel.name, panel.description, png=False),
            narrow=None,
            key=tuple(curve.words for curve in panel.curves),
        )
        for panel in panels
    )


def draw_traces(points: Sequence[TracedPoint]) -> tuple[Picture, ...]:
    """The timeline of each of these traces, in their order; only the first ``INLINED_TRACES`` for a
    telephone as well.
    """
    return tuple(_trace(number, point) for number, point in enumerate(points, start=1))


def _trace(number: int, point: TracedPoint) -> Picture:
    caption = (
        f"What was live on the device in {point.point}, after each allocation and "
        f"deallocation in the order in which they happened. {point.headline}"
    )
    wide = timeline_figure(point.trace)
    narrow = timeline_figure(point.trace, narrow=True) if number <= INLINED_TRACES else None
    return _picture(f"trace-{number}", point.point, caption, wide, narrow)


def _peaks(picture: PeakPicture) -> Picture:
    caption = _peak_caption(picture)
    return _picture("peak", "Peak memory", caption, peak_figure(picture), None)


def _picture(
    name: str, heading: str, caption: str, wide: Figure | None, narrow: Figure | None
) -> Picture:
    return Picture(
        name=name,
        heading=heading,
        caption=caption,
        wide=None if wide is None else finish(wide, name, caption),
        narrow=None if narrow is None else finish(narrow, f"{name}-narrow", caption),
    )


def _peak_caption(picture: PeakPicture) -> str:
    """What the main picture shows, in sentences that can be read without it."""
    if picture.empty:
        return (
            "No picture of peak memory: no whole run of a point with a number of images, "
            f"or another size, has a reading of {meter_name(DEVICE_IN_USE)}, and none ran "
            "out of device memory."
        )
    sentences = []
    if len(picture.peaks):
        stack = (
            f" out of a stack of {picture.stack_size:,} frames"
            if picture.stack_size is not None
            else ""
        )
        quality = " or ".join(sorted({str(quality) for quality in picture.peaks["quality"]}))
        repeats = int(picture.peaks["runs"].max())
        least = f"the least of {repeats:,} repeats" if repeats > 1 else "one run for each point"
        sentences.append(
            f"Peak of {meter_name(DEVICE_IN_USE)} ({quality}) over all phases of a run of "
            f"{_listed(picture)}{stack}, less what there was before the first of them: "
            f"{least}."
        )
    sentences += [
        _series_sentence(str(name), rows)
        for name, rows in picture.peaks.groupby("series", sort=False)
    ]
    if picture.device_bytes is not None:
        sentences.append(
            "The dashed line is the size of the device's pool, "
            f"{format_bytes(picture.device_bytes)}."
        )
    deaths = picture.out_of_memory.groupby(
        ["device_budget_bytes", "series", "expected"], sort=False
    )
    sentences += [_death_sentence(rows) for _, rows in deaths]
    sentences += [
        f"{_on_device(row)}, {row['series']} peaked at "
        f"{format_bytes(int(row['peak_bytes']))} at {_at(row)}."
        for _, row in picture.capped.iterrows()
    ]
    return " ".join(sentences)


def _listed(picture: PeakPicture) -> str:
    return " and ".join(filter(None, [", ".join(picture.scenarios[:-1]), *picture.scenarios[-1:]]))


def _series_sentence(name: str, rows: pd.DataFrame) -> str:
    last, over = rows.iloc[-1], str(rows["over"].iloc[-1])
    reached = (
        f"{name[:1].upper()}{name[1:]} reaches {format_bytes(int(last['peak_bytes']))} at "
        f"{_at(last)}"
    )
    line = peak_line(rows)
    if line is None:
        return f"{reached}; with one {count_in_words(over)} there is no slope."
    return (
        f"{reached}, {rate(line.slope, unit_of(over))} by a straight line through "
        f"{rows[SWEPT].nunique()} sizes."
    )


def _death_sentence(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    planned = (
        "as the plan expects"
        if first["expected"] == Outcome.DEVICE_OOM
        else "which the plan does not expect"
    )
    listed, over = (
        ", ".join(f"{size:,}" for size in sorted({int(size) for size in rows[SWEPT]})),
        str(first["over"]),
    )
    sizes = f"{listed} {unit_of(over)}s" if over in NAMED_STEPS else f"{over} {listed}"
    return f"{_on_device(first)}, {first['series']} ran out of memory at {sizes}, {planned}."


def _at(row: "pd.Series[str]") -> str:
    return sizes_in_words(str(row["over"]), int(row[SWEPT]))


def _on_device(row: "pd.Series[str]") -> str:
    return f"With a device of {format_bytes(int(row['device_budget_bytes']))}"
