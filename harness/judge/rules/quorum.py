"""Noise: a finding whose points were measured again stands only if at least half of all runs show it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a finding stands, and how a quorum decided; no words where nothing was measured again."""

    stands: bool
    words: str = ""


def decide(votes: Sequence[bool], *, first: bool, remeasured: bool, shown: str) -> Decision:
    """The decision about what ``votes`` show, one vote for each run; half of them are enough, so that a tie is no pass.

    ``first`` is what the rule itself says, which holds alone until points were measured again, and which nothing is added
    to where it found nothing. ``shown`` is what a vote is for, as in "1 of 5 runs LIES OVER IT".
    """
    if not remeasured or not votes or not first:
        return Decision(first)
    count = sum(votes)
    stands = 2 * count >= len(votes)
    needed = (len(votes) + 1) // 2
    told = f"measured again, {count} of {len(votes)} runs {shown}, and {needed} decide: "
    return Decision(stands, told + ("confirmed" if stands else "not confirmed, so it counts as noise"))
