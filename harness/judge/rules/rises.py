"""By how much a phase ends above the one before it: in any step, or at least in every one
(``LeakRule.every_time``).
"""

from itertools import pairwise

from harness.judge.limits import LeakRule
from harness.judge.rules.evidence import TRACED_METER, Evidence
from harness.judge.rules.pages import highest_marks
from harness.records import Point


def judged_together(rule: LeakRule, point: Point) -> list[list[tuple[str, str]]]:
    """The steps from phase to phase, each alone or all of them as one."""
    steps = list(pairwise(rule.phases_of(point))) if rule.matches(point) else []
    return [steps] if rule.every_time and steps else [[step] for step in steps]


def least_rises(
    evidence: Evidence, point: Point, meter: str, rule: LeakRule, steps: list[tuple[str, str]]
) -> dict[int, int]:
    """By repeat, for every repeat that finished all phases: the least rise of the steps."""
    rises = [_rise(evidence, point, meter, rule, earlier, later) for earlier, later in steps]
    return {
        repeat: min(each[repeat] for each in rises)
        for repeat in rises[0]
        if all(repeat in each for each in rises)
    }


def _rise(
    evidence: Evidence, point: Point, meter: str, rule: LeakRule, earlier: str, later: str
) -> dict[int, int]:
    before = evidence.readings.get((point.name, earlier, meter, rule.field), {})
    after = evidence.readings.get((point.name, later, meter, rule.field), {})
    rises = {
        repeat: amount - before[repeat] for repeat, amount in after.items() if repeat in before
    }
    if (
        not rule.every_time
        or meter == TRACED_METER
        or evidence.run.manifest.device.kind != "emulated"
    ):
        return rises
    # The emulated device never gives a page back that it has touched, so that its highest mark
    # moves the host as well.
    first, second = (
        highest_marks(evidence, point, phase, at_end=True) for phase in (earlier, later)
    )
    return {
        repeat: rise - (second.get(repeat, 0) - first.get(repeat, 0))
        for repeat, rise in rises.items()
    }
