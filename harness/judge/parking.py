"""Points whose tests pytest was told to skip, or to expect a failure of: pytest and the gate treat
them alike.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from harness.judge.table import Run
from harness.judge.verdict import Check


def park(run: Run, checks: Sequence[Check]) -> Iterator[Check]:
    """The checks, without the findings that are about parked points alone; their sentences say why
    they fail nobody.

    A run in which nothing was measured is no pass, whatever was skipped.
    """
    parked = run.parked if len(run.ends) else {}
    for check in checks:
        points = set(check.points) | ({check.point} if check.point else set())
        if check.finding is None or not points or not points <= set(parked):
            yield check
        else:
            why = parked[sorted(points)[0]]
            yield dataclasses.replace(
                check,
                finding=None,
                remeasure=False,
                decision="",
                parked=why,
                sentence=f"parked ({why}): {check.sentence}",
            )
