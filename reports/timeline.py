"""The picture of one trace: what was live after each allocation and deallocation, with the phases
marked.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.rundir.traces import Trace, TracedPhase
from harness.words import MIB, format_bytes

from .drawing import BUDGET_COLOUR, GRID, INK, NARROW_IN, QUIET, WIDE_IN, looks, style, write_title
from .words import plain

_MOST_STEPS = {False: 100, True: 40}
"""Steps drawn one by one in a phase, wide and narrow; of more, the lowest and highest in each of so
many strips. Chosen: a strip is two pixels wide where six phases share the picture."""
_LEAST_SHARE = 0.06
"""Chosen: the share of the width that a phase has at least, so that its name fits beside those of
its neighbours."""
_NEAR = 4
"""Chosen: the device's limit is drawn where the peak comes within a quarter of it; further off it
would flatten everything."""
_LABEL_ROOM = 0.1
"""Height of a label as a share of the picture's, with room to the line above it."""


def timeline_figure(trace: Trace, *, narrow: bool = False) -> Figure | None:
    """Live bytes in the order of the events, one band for each phase; None for a trace without
    phases.

    Time would show nothing: a phase of ten seconds in which the allocator waits would leave no room
    for the others.
    """
    if not trace.phases:
        return None
    times, requested, allocator = trace.timeline.columns()
    bands = [
        _Band(phase, times, requested, allocator, trace.base_bytes, _MOST_STEPS[narrow])
        for phase in trace.phases
    ]
    with style():
        figure = Figure(figsize=(NARROW_IN, 4.2) if narrow else (WIDE_IN, 3.6))
        axes = figure.subplots()
        figure.subplots_adjust(
            left=0.15 if narrow else 0.075,
            right=0.98,
            bottom=0.24 if narrow else 0.17,
            top=0.76 if narrow else 0.8,
        )
        edges = _draw(axes, bands)
        limit_bytes = _limit(axes, trace)
        _name_phases(axes, bands, edges, narrow=narrow)
        _name_peaks(axes, bands, edges, limit_bytes, least_share=0.16 if narrow else 0.0)
        axes.set_ylabel("device memory (MiB)")
        key = [
            "area: live bytes as requested",
            "line: the allocator's own count",
            "left to right: one event after the other",
        ]
        title = (
            trace.point
            if len(trace.point) < (36 if narrow else 90)
            else f"{trace.point[: 35 if narrow else 89]}..."
        )
        write_title(figure, title, ("\n" if narrow else "; ").join(key))
    return figure


class _Band:
    """The part of the timeline in one phase: amounts at its start and after each of its events, in
    MiB.
    """

    def __init__(
        self,
        phase: TracedPhase,
        times: Sequence[int],
        requested: Sequence[int],
        allocator: Sequence[int],
        base_bytes: int,
        most_steps: int,
    ) -> None:
        first, last = bisect_left(times, phase.start_ns), bisect_right(times, phase.end_ns)
        self.phase = phase
        self.events = last - first
        self.requested = list(
            _thinned([requested[first - 1] if first else 0, *requested[first:last]], most_steps)
        )
        self.allocator = list(
            _thinned(
                [allocator[first - 1] if first else base_bytes, *allocator[first:last]], most_steps
            )
        )


def _thinned(amounts: Sequence[int], most_steps: int) -> Iterator[float]:
    """The amounts in MiB; of too many, the first, lowest, highest and last of each strip, so that
    no peak is lost.
    """
    size = max(1, math.ceil(len(amounts) / most_steps))
    for start in range(0, len(amounts), size):
        strip = amounts[start : start + size]
        shown = strip if size == 1 else (strip[0], min(strip), max(strip), strip[-1])
        yield from (amount / MIB for amount in shown)


def _draw(axes: Axes, bands: Sequence[_Band]) -> list[float]:
    """Every band, as wide as the root of its events; gives the edges between them."""
    # The root: a phase of ten thousand events is wider than one of a hundred, and leaves it room.
    weights = [math.sqrt(band.events) for band in bands]
    least = _LEAST_SHARE * (sum(weights) or 1.0) / max(0.1, 1 - _LEAST_SHARE * len(bands))
    edges = [0.0]
    colour = looks(["lazy"])["lazy"].colour
    for band, weight in zip(bands, weights, strict=True):
        edges.append(edges[-1] + weight + least)
        places = [
            edges[-2] + (edges[-1] - edges[-2]) * number / len(band.requested)
            for number in range(len(band.requested) + 1)
        ]
        axes.stairs(band.requested, places, fill=True, color=colour, alpha=0.45, linewidth=0)
        places = [
            edges[-2] + (edges[-1] - edges[-2]) * number / len(band.allocator)
            for number in range(len(band.allocator) + 1)
        ]
        axes.stairs(band.allocator, places, baseline=None, color=INK, linewidth=1)
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(
        0, 1.18 * max([1 / MIB, *(max([*band.requested, *band.allocator]) for band in bands)])
    )
    axes.grid(visible=False, axis="x")
    return edges


def _limit(axes: Axes, trace: Trace) -> int | None:
    """The device's size where the run came near it, and the request that was refused on top of what
    was in use.

    Gives the limit that was drawn, if any.
    """
    limit = trace.limit_bytes
    refused = trace.out_of_memory
    highest = max(phase.allocator.peak_bytes for phase in trace.phases)
    if limit is None or (refused is None and highest * _NEAR < limit):
        return None
    axes.set_ylim(0, 1.18 * max(limit, highest) / MIB)
    axes.axhline(limit / MIB, color=BUDGET_COLOUR, linewidth=1.4, linestyle=(0, (2, 2)))
    axes.annotate(
        f"limit: {format_bytes(limit)}",
        (axes.get_xlim()[0], limit / MIB),
        (4, 3),
        textcoords="offset points",
        color=BUDGET_COLOUR,
        fontsize=8.5,
    )
    if refused is not None and refused.asked_bytes is not None:
        axes.annotate(
            f"{format_bytes(refused.asked_bytes)} asked for, with "
            f"{format_bytes(refused.allocator_bytes)} in use",
            (axes.get_xlim()[1], limit / MIB),
            (-4, 3),
            textcoords="offset points",
            ha="right",
            color=BUDGET_COLOUR,
            fontsize=8.5,
        )
    return limit


def _name_phases(
    axes: Axes, bands: Sequence[_Band], edges: Sequence[float], *, narrow: bool
) -> None:
    """A line between phases; below each its name, duration and events."""
    for left in edges[1:-1]:
        axes.axvline(left, color=GRID, linewidth=1.2)
    centres = [(left + right) / 2 for left, right in pairwise(edges)]
    axes.set_xticks(
        centres, [_name(band, narrow=narrow) for band in bands], rotation=40 if narrow else 0
    )
    axes.tick_params(axis="x", length=0, labelsize=8)
    if narrow:
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")


def _name_peaks(
    axes: Axes,
    bands: Sequence[_Band],
    edges: Sequence[float],
    limit_bytes: int | None,
    *,
    least_share: float,
) -> None:
    """The peak of each phase above it, or below it where the limit's line is in the way; none where
    its band is too narrow.
    """
    top_mib = axes.get_ylim()[1]
    for (left, right), band in zip(pairwise(edges), bands, strict=True):
        if right - left < least_share * edges[-1]:
            continue
        peak_bytes = band.phase.requested.peak_bytes
        crowded = (
            limit_bytes is not None and (limit_bytes - peak_bytes) / MIB < _LABEL_ROOM * top_mib
        )
        axes.annotate(
            format_bytes(peak_bytes),
            ((left + right) / 2, peak_bytes / MIB),
            (0, -5 if crowded else 5),
            textcoords="offset points",
            ha="center",
            va="top" if crowded else "bottom",
            fontsize=8,
            color=INK if crowded else QUIET,
        )


def _name(band: _Band, *, narrow: bool) -> str:
    name = plain(band.phase.phase)
    if narrow:
        return name
    seconds = (band.phase.end_ns - band.phase.start_ns) / 1e9
    took = f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
    cut = "" if band.phase.finished else ", cut short"
    return f"{name}\n{took}{cut}\n{band.events:,} events"
