"""Axes that all pictures share: sizes and memory, logarithmic where they can be, with ticks that
are measured or powers of four.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from harness.words import MIB, format_bytes

_TICK_FACTOR = 4
"""Chosen: a tick at every second doubling is dense enough to read off and loose enough for a panel
an inch high."""
_BELOW_0 = 0.4
"""MiB below 0 that a linear part begins with, so that what lies at 0 is not on the edge."""
_TICK_ROOM = 0.17
"""Least distance of two tick labels as a share of a whole picture's axis; a four-figure number is
that wide."""


def in_mib(amounts: "pd.Series[int] | Iterable[float]") -> npt.NDArray[np.float64]:
    """Amounts in bytes as MiB, for drawing alone."""
    return np.asarray(list(amounts), dtype=float) / MIB


def size_axis(
    axes: Axes, sizes: "pd.Series[int]", *, tick_room: float = _TICK_ROOM, margin: float = 0.06
) -> None:
    """An x axis with the measured sizes as ticks, without those whose labels would touch.

    It is logarithmic where all sizes are above 0, and linear elsewhere: a parameter may well be 0
    or -1. ``tick_room`` and ``margin`` (beyond the outer sizes) are shares of the axis.
    """
    values = sorted({int(size) for size in sizes})
    if values[0] > 0:
        low, high = (values[0] / 2, values[0] * 2) if len(values) == 1 else (values[0], values[-1])
        span = float(np.log(high / low))
        axes.set_xscale("log")
        axes.set_xlim(low * np.exp(-margin * span), high * np.exp(margin * span))
        ticks = _apart(values, [float(np.log(value)) for value in values], tick_room * span)
    else:
        low, high = (values[0] - 1, values[0] + 1) if len(values) == 1 else (values[0], values[-1])
        span = float(high - low)
        axes.set_xlim(low - margin * span, high + margin * span)
        ticks = _apart(values, [float(value) for value in values], tick_room * span)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:,}" for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())


def memory_axis(
    axes: Axes,
    amounts_mib: Sequence[float] | npt.NDArray[np.float64],
    *,
    tick_step: int = 1,
    headroom: float = 1.7,
) -> None:
    """A logarithmic y axis in MiB; linear below 1 MiB where an amount is that small, so that 0 has
    a place.

    ``tick_step`` leaves out ticks: 2 shows every second one. The axis ends at ``headroom`` times
    the highest amount.
    """
    highest = max([float(np.max(amounts_mib)), 1.0])
    lowest = float(np.min(amounts_mib))
    top = int(np.floor(np.log(highest * headroom) / np.log(_TICK_FACTOR)))
    if lowest >= 1:
        bottom = int(np.floor(np.log(lowest / 1.3) / np.log(_TICK_FACTOR)))
        axes.set_yscale("log")
        axes.set_ylim(_TICK_FACTOR**bottom, highest * headroom)
        ticks = [float(_TICK_FACTOR**power) for power in range(bottom, top + 1, tick_step)]
    else:
        axes.set_yscale("symlog", linthresh=1, linscale=1, base=2)
        axes.set_ylim(min(-_BELOW_0, lowest * 2), highest * headroom)
        ticks = [0.0, *(float(_TICK_FACTOR**power) for power in range(0, top + 1, tick_step))]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([_tick(tick) for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


def _tick(mib: float) -> str:
    """``"0"``, ``"64 MiB"``, ``"4 GiB"``: powers of two are whole in their unit."""
    return format_bytes(mib * MIB).replace(".0 ", " ") if mib else "0"


def height_of(axes: Axes, amount_mib: float) -> float:
    """Where an amount lies on the y axis: 0 at the bottom, 1 at the top."""
    return float(
        axes.transAxes.inverted().transform(
            axes.transData.transform((axes.get_xlim()[0], amount_mib))
        )[1]
    )


def spread_apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres of labels of the given heights, as near to the wanted ones as they fit without
    touching, within 0 to 1.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    floor = 0.0
    for index in order:
        placed[index] = max(wanted[index], floor + heights[index] / 2)
        floor = placed[index] + heights[index] / 2
    ceiling = 1.0
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling - heights[index] / 2)
        ceiling = placed[index] - heights[index] / 2
    return placed


def _apart(values: Sequence[int], places: Sequence[float], least: float) -> list[int]:
    """The largest value and, going down, each whose place on the axis is at least ``least`` below
    that of the last kept.
    """
    kept, last = [values[-1]], places[-1]
    for value, place in zip(reversed(values[:-1]), reversed(places[:-1]), strict=True):
        if last - place >= least:
            kept.append(value)
            last = place
    return kept[::-1]
