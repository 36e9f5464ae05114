"""Small drawings of the page that stand in a line of text: a way through amounts, and how much of
a limit is taken. Numbers alone, so that nothing in them has to be escaped.
"""

from collections.abc import Sequence
from typing import Literal

from markupsafe import Markup

_WIDTH, _HEIGHT = 96, 24
_EDGE = 3
"""Room for the dot at the end, in the units of the drawing."""


def sparkline(amounts: Sequence[float], limit: float | None = None) -> Markup:
    """A line through amounts with a dot at the last one, and a dashed line at the limit where it is
    on the drawing; empty for no amount. Its bottom is 0, or the least amount below 0.

    The words beside it say the same, so that it is hidden from screen readers.
    """
    if not amounts:
        return Markup()
    top, bottom = max([*amounts, 1.0]), min([*amounts, 0.0])
    shown = limit is not None and bottom <= limit <= 2 * top
    top = max(top, limit or 0.0) if shown else top
    step = (_WIDTH - 2 * _EDGE) / max(1, len(amounts) - 1)
    places = [
        (_EDGE + step * number, _height(amount, bottom, top))
        for number, amount in enumerate(amounts)
    ]
    if len(places) == 1:
        places = [(_EDGE, places[0][1]), (_WIDTH - _EDGE, places[0][1])]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashed = ""
    if shown:
        y = _height(limit or 0.0, bottom, top)
        dashed = f'<path class="limit" d="M0 {y:.1f}H{_WIDTH}"/>'
    x, y = places[-1]
    return Markup(  # noqa: S704 - numbers alone
        f'<svg class="spark" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{dashed}'
        f'<polyline points="{line}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.4"/></svg>'
    )


def _height(amount: float, bottom: float, top: float) -> float:
    return _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * (amount - bottom) / (top - bottom)


def bar(share: float, *, of: Literal["limit", "device"] = "limit") -> Markup:
    """How much is taken of a limit, or of the device; a limit that is broken is full, and of
    another colour.
    """
    taken = max(0.0, min(1.0, share))
    kind = f"share of-{of}{' over' if share > 1 else ''}"
    return Markup(  # noqa: S704 - numbers alone
        f'<svg class="{kind}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="room" width="100" height="6"/>'
        f'<rect class="taken" width="{100 * taken:.1f}" height="6"/></svg>'
    )
