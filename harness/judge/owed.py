"""What a run owes: the phases it must have gone through, and when it need not be measured again."""

from harness.records import OVER_MACHINE, Outcome, Point
from harness.rundir.reading import Rows

NOT_THE_BODYS_DOING = frozenset({"preparation", "import", "rows"})
"""Causes of errors that happened before the body, or to what it measured."""


def owed_phases(point: Point, outcome: Outcome, phase: str | None) -> tuple[str, ...]:
    """The phases that a run must have finished: all when it ended ok, of one that died in ``phase``
    those before it.
    """
    if outcome is Outcome.OK:
        return point.phases
    return point.phases[: point.phases.index(phase)] if phase in point.phases else ()


def is_measured(rows: Rows, point: Point, repeat: int) -> bool:
    """Whether the run has an end that can be judged, with every row that it owes. A death is one:
    it would happen again.

    A run that never came to its body (no device, no input), or whose rows could not be written, has
    measured nothing; one that was ended because the machine's memory ran out may fit where others
    hold less of it.
    """
    end = rows.ends.get((point.name, repeat))
    if (
        end is None
        or end.outcome is Outcome.SKIPPED
        or (end.outcome is Outcome.ERROR and end.cause in NOT_THE_BODYS_DOING)
    ):
        return False
    if end.cause == OVER_MACHINE:
        return False
    if end.outcome is Outcome.OK and rows.done.get((point.name, repeat)) is not Outcome.OK:
        return False
    records = (
        rows.phases.get((point.name, repeat, phase))
        for phase in owed_phases(point, end.outcome, end.phase)
    )
    return all(record is not None and record.finished for record in records)
