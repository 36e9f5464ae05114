"""One card for each scenario and loader: how much it takes at its largest size, how that grows,
how much of its limit that is, and whether all is well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from harness.judge import FINDINGS, Check, RuleName
from harness.judge.gate import Judgement
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Outcome, sizes_in_words
from harness.words import count, format_bytes

from .curves import Curve, Panel, is_same
from .earlier import Earlier
from .marks import bar, sparkline
from .plan import STACK, SWEPT, own_name
from .view import RunView
from .words import amount, known, plain, rate, unavailable

_OUTCOMES: Mapping[str, str] = {
    Outcome.DEVICE_OOM: "out of device memory",
    Outcome.HOST_OOM: "out of host memory",
}
"""Outcomes whose names are no words; the others are."""


_MOST_SAID = 2
"""Cards that the verdict says in words. Chosen: a lazy and an eager loader."""
_LONGEST_NAME = 40
"""Letters. Chosen: half a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One scenario with one loader, in words."""

    scenario: str
    series: str
    light: str
    """Class of its colour: ``"pass"``, the kind of its gravest finding, or ``"none"``."""
    state: str
    """The light in words."""
    peak: str
    """An amount, or why there is none."""
    is_known: bool
    at: str
    """At which size: ``"at 2,000 images"``."""
    each: str
    """How it grows: ``"512 B/image"``; empty with one size."""
    each_limit: str
    """``", at most 512 B/image in a phase"``; empty where there is no such limit."""
    limit: str
    change: str
    """Against what was before; empty where nothing is known."""
    host: str
    line: Markup
    bar: Markup
    link: str
    """Id of its plot; empty where there is none."""


def cards_of(
    view: RunView, judgement: Judgement, earlier: Earlier, panels: Sequence[Panel]
) -> tuple[Card, ...]:
    """In the order of the plan."""
    table = view.plan.table
    cards = []
    for (scenario, series), mine in table.groupby(["scenario", "series"], sort=False):
        checks = _checks_of(judgement, set(mine["point"].astype(str)))
        name = own_name(str(scenario), str(series))
        cards.append(_card(view, str(scenario), name, mine, checks, earlier, panels))
    return tuple(cards)


def _checks_of(judgement: Judgement, points: set[str]) -> list[Check]:
    return [
        check
        for check in judgement.verdict.checks
        if check.point in points or points & set(check.points)
    ]


def _card(
    view: RunView,
    scenario: str,
    series: str,
    points: pd.DataFrame,
    checks: Sequence[Check],
    earlier: Earlier,
    panels: Sequence[Panel],
) -> Card:
    light, state = _light(checks)
    panel = _panel(panels, scenario, series)
    curve = None if panel is None else _curve(panel, series)
    shown = _largest(view, points, DEVICE_IN_USE)
    host = _largest(view, points, HOST_ANON)
    rise = None if shown is None else int(shown["rise_bytes"])
    limit = None if shown is None else _budget(checks, str(shown["point"]), rise or 0)
    return Card(
        scenario=scenario,
        series=series,
        light=light,
        state=state,
        peak=amount(rise, otherwise=_why_not(view, points)),
        is_known=rise is not None,
        at=_at(shown),
        each=_each(curve),
        each_limit=_each_limit(curve, checks),
        limit=_limit_in_words(view, limit, shown),
        change=_change(earlier, shown),
        host=amount(None if host is None else host["rise_bytes"]),
        line=Markup() if curve is None else sparkline([each for _, each in curve.amounts], limit),
        bar=_bar(rise, limit, _device_bytes(view, shown)),
        link="" if panel is None else panel.name,
    )


def _light(checks: Sequence[Check]) -> tuple[str, str]:
    found = [check for check in checks if check.finding is not None]
    if found:
        kinds = [kind for kind in FINDINGS if any(check.finding is kind for check in found)]
        return str(
            kinds[0]
        ), f"{plain(str(kinds[0]))}: {count(len(found), 'check')} of {len(checks):,}"
    if not checks:
        return "none", "not judged"
    return "pass", f"{count(len(checks), 'check holds', 'checks hold')}"


def _panel(panels: Sequence[Panel], scenario: str, series: str) -> Panel | None:
    return next(
        (
            panel
            for panel in panels
            if panel.scenario == scenario
            and panel.meter == DEVICE_IN_USE
            and _curve(panel, series) is not None
        ),
        None,
    )


def _curve(panel: Panel, series: str) -> Curve | None:
    return next((curve for curve in panel.curves if curve.series == series), None)


def _largest(view: RunView, points: pd.DataFrame, meter: str) -> "pd.Series[str] | None":
    """The point of the largest size that was read; of several the one that rose most."""
    table = view.peaks[meter]
    mine = table[table["point"].isin(points["point"])]
    if mine.empty:
        return None
    sizes = mine[SWEPT].fillna(mine[STACK]).fillna(0)
    return mine.assign(_size=sizes).sort_values(["_size", "rise_bytes"], kind="stable").iloc[-1]


def _why_not(view: RunView, points: pd.DataFrame) -> str:
    ends = view.ends[view.ends["point"].isin(points["point"])]
    ended = sorted(
        {_OUTCOMES.get(str(each), plain(str(each))) for each in ends["outcome"].dropna()}
    )
    if ended and (ends["outcome"] == ends["expected"]).all():
        return f"{', '.join(ended)}, as planned"
    return unavailable(", ".join(ended) if ended else "nothing was recorded")


def _at(shown: "pd.Series[str] | None") -> str:
    if shown is None:
        return ""
    if known(shown[SWEPT]):
        return f"at {sizes_in_words(str(shown['over']), int(shown[SWEPT]))}"
    return f"at {sizes_in_words(STACK, int(shown[STACK]))}" if known(shown[STACK]) else ""


def _each(curve: Curve | None) -> str:
    slope = None if curve is None else curve.slope
    return "" if curve is None or slope is None else rate(slope, curve.unit)


def _each_limit(curve: Curve | None, checks: Sequence[Check]) -> str:
    """The widest of the limits on a slope of its phases."""
    if curve is None or curve.slope is None:
        return ""
    limits = [
        check.limit
        for check in checks
        if check.unit == f"B/{curve.unit}"
        and check.meter == DEVICE_IN_USE
        and check.bound == "upper"
        and check.limit is not None
    ]
    return f", at most {rate(max(limits), curve.unit)} in a phase" if limits else ""


def _budget(checks: Sequence[Check], point: str, rise: int) -> float | None:
    """The limit in bytes on what the run of the point peaks at: of those on nearly the same amount
    the one on the nearest, and of equals the lowest.
    """
    limits = [
        (abs(check.measured - rise), check.limit)
        for check in checks
        if check.point == point
        and check.rule == RuleName.BUDGET
        and check.meter == DEVICE_IN_USE
        and check.bound == "upper"
        and check.limit is not None
        and check.measured is not None
        and is_same(rise, check.measured)
    ]
    return min(limits, default=(0.0, None))[1]


def _limit_in_words(view: RunView, limit: float | None, shown: "pd.Series[str] | None") -> str:
    if shown is None:
        return ""
    if limit is not None:
        return f"at most {format_bytes(limit)} allowed"
    device = _device_bytes(view, shown)
    return f"no limit of its own; the device has {format_bytes(device)}" if device else "no limit"


def _device_bytes(view: RunView, shown: "pd.Series[str] | None") -> int | None:
    own = None if shown is None else shown["device_budget_bytes"]
    return int(str(own)) if known(own) else view.picture.device_bytes


def _bar(rise: int | None, limit: float | None, device: int | None) -> Markup:
    if rise is None or not (limit or device):
        return Markup()
    return bar(rise / limit) if limit else bar(rise / (device or 1), of="device")


def _change(earlier: Earlier, shown: "pd.Series[str] | None") -> str:
    before = None if shown is None else earlier.rises.get((str(shown["point"]), DEVICE_IN_USE))
    if shown is None or before is None:
        return ""
    change = int(shown["rise_bytes"]) - before
    if not change:
        return "as before, to the byte"
    return f"{'+' if change > 0 else ''}{format_bytes(change)} ({format_bytes(before)} before)"


def peaks_in_words(cards: Sequence[Card]) -> str:
    """The first cards in one line: ``"loading, lazy: 4.0 MiB at 2,000 images; ..."``."""
    mine = [card for card in cards if card.scenario == cards[0].scenario]
    more = len(cards) - len(mine[:_MOST_SAID])
    said = [
        f"{shortened(card.series)}: {card.peak} {card.at}{f', {card.each}' if card.each else ''}"
        for card in mine[:_MOST_SAID]
    ]
    others = f"; and {count(more, 'other')} below" if more else ""
    where = f"{shortened(cards[0].scenario)}, " if cards and said else ""
    return f"{where}{'; '.join(said)}{others}"


def shortened(name: str) -> str:
    """A name with its end alone where it is too long for a line of the verdict."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"
