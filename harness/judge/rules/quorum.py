"""Noise: a finding whose points were measured again stands only if at least half of all runs show
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SETTLED_SPREADS = 16
"""How many times the spread of the repeats the nearest of them lies beyond the limit, for measuring
again to be a waste. Computed: two repeats that lie d apart, the nearer one k x d beyond the limit,
have Student's t = 2 k + 1 with one degree of freedom, and 99 % need t = 31.8 (one-sided). Repeats
that are alike to the byte are the case d = 0."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a finding stands, and how a quorum decided; no words where nothing was measured
    again.
    """

    stands: bool
    words: str = ""
    may_be_noise: bool = False
    """Whether further repeats could overrule it: it stands on few repeats, which do not all show it
    clearly."""


def decide(excess: Sequence[float], *, first: bool, remeasured: bool, shown: str) -> Decision:
    """The decision about a finding, one vote for each run; half of them are enough, so that a tie
    is no pass.

    ``excess`` is how far each run lies beyond the limit; above 0 it votes for the finding.
    ``first`` is what the rule itself says, which holds alone until points were measured again, and
    which nothing is added to where it found nothing. ``shown`` is what a vote is for, as in "1 of 5
    runs LIES OVER IT".
    """
    if not remeasured or not excess or not first:
        return Decision(first, may_be_noise=first and not remeasured and not is_settled(excess))
    count = sum(one > 0 for one in excess)
    stands = 2 * count >= len(excess)
    needed = (len(excess) + 1) // 2
    told = f"measured again, {count} of {len(excess)} runs {shown}, and {needed} decide: "
    return Decision(
        stands, told + ("confirmed" if stands else "not confirmed, so it counts as noise")
    )


def is_settled(excess: Sequence[float]) -> bool:
    """Whether the repeats leave no doubt: two or more, all beyond the limit, and far beyond it for
    how little they differ.
    """
    return (
        len(excess) > 1
        and min(excess) > 0
        and min(excess) >= SETTLED_SPREADS * (max(excess) - min(excess))
    )
