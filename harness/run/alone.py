"""A run that somebody else's process shared the device with is measured again."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.records import RunEnd

PAUSES_S = (1.0, 5.0)
"""Before each further attempt. Chosen: two, with pauses that outlast what is short (a notebook that
is closing, another run's child), and cost a sweep beside a neighbour that stays no more than some
seconds at each point."""

Attempt = tuple[RunEnd, Sequence[Mapping[str, Any]]]
"""How one attempt ended, and the rows that its child left."""


def measure_alone(
    attempt: Callable[[], Attempt],
    void: Callable[[str], None],
    pauses_s: Sequence[float] = PAUSES_S,
) -> RunEnd:
    """The end of the first attempt that nobody disturbed, of at most ``1 + len(pauses_s)``, else of
    the last.

    Before each further one ``void`` is told who it was: what the earlier one left is void. What the
    last one left stays, neighbours named in it, and the judge says that the point was not measured
    alone.
    """
    for pause_s in pauses_s:
        end, rows = attempt()
        who = who_else(rows)
        if not who:
            return end
        void(f"not alone on the device: {who}")
        time.sleep(pause_s)
    return attempt()[0]


def who_else(rows: Sequence[Mapping[str, Any]]) -> str:
    """Who used the device besides this run, by what its readings say; empty for nobody."""
    readings = [reading for row in rows if row["kind"] == "phase" for reading in row["readings"]]
    return "; ".join(
        dict.fromkeys(reading["contended"] for reading in readings if reading["contended"])
    )
