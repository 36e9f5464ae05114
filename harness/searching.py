"""What a bisection looks for, and the search itself: which commit is measured next, and which ones
are left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.judge.verdict import Check, FindingKind, Verdict

Offence = tuple[str, str]
"""Rule and subject of a check."""
SKIPPED = "skipped"
"""What a commit is called that could not be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What the first commit is searched for that has it."""

    noun: str
    before: str
    """What a commit is called that does not have it yet."""
    after: str
    """What a commit is called that has it."""
    none: str
    """What BAD does not do beside GOOD where there is nothing to find."""
    of: Callable[[Verdict, Verdict], tuple[Check, ...]]
    """(verdict, that of GOOD alone) -> the checks that show it."""


def regressions(verdict: Verdict) -> tuple[Check, ...]:
    """The findings that say that memory is worse than something allows."""
    return tuple(
        check
        for check in verdict.findings
        if check.finding in (FindingKind.REGRESSION, FindingKind.FAILED)
    )


def offence(check: Check) -> Offence:
    """What makes it the same check at another commit."""
    return check.rule, check.subject


def _worse(verdict: Verdict, good: Verdict) -> tuple[Check, ...]:
    known = {offence(check) for check in good.findings}
    return tuple(check for check in regressions(verdict) if offence(check) not in known)


def _better(verdict: Verdict, good: Verdict) -> tuple[Check, ...]:
    """What takes less than GOOD, and what holds although it is broken at GOOD: a limit, or memory
    that ran out there.
    """
    broken = {offence(check) for check in regressions(good)}
    return (
        *verdict.better,
        *(check for check in verdict.checks if not check.finding and offence(check) in broken),
    )


REGRESSION = Sought(
    noun="regression", before="good", after="bad", none="takes no more than", of=_worse
)
IMPROVEMENT = Sought(
    noun="improvement",
    before="as before",
    after="better",
    none="takes no less, beyond tolerance, than",
    of=_better,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One commit, and what was found of it."""

    commit: str
    date: str
    title: str
    state: str
    """``"good"`` or ``"bad"``, ``"as before"`` or ``"better"``, or ``"skipped"``: it could not be
    measured."""
    sentence: str
    """What shows it, or why it was skipped; empty where it is as GOOD is."""


@dataclass(slots=True)
class Search:
    """First-parent commits after GOOD that touch the code under test, oldest first; the last of
    them is as BAD is.
    """

    commits: Sequence[str]
    good: int = -1
    """Place of the last commit known to be as GOOD is; -1 is GOOD itself."""
    bad: int = field(init=False)
    """Place of the first commit known to have what is searched for."""
    skipped: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bad = len(self.commits) - 1

    def next(self) -> int | None:
        """The place to measure next: the one nearest to the middle that was not skipped; None when
        none is left.
        """
        left = [place for place in range(self.good + 1, self.bad) if place not in self.skipped]
        middle = (self.good + self.bad) / 2
        return min(left, key=lambda place: abs(place - middle), default=None)

    def note(self, place: int, *, found: bool | None) -> None:
        """Whether the commit there has what is searched for; None where it could not be
        measured.
        """
        if found is None:
            self.skipped.add(place)
        elif found:
            self.bad = place
        else:
            self.good = place

    @property
    def suspects(self) -> tuple[str, ...]:
        """The commits that may be the first that has it; one, unless commits beside it could not be
        measured.
        """
        return tuple(self.commits[self.good + 1 : self.bad + 1])
