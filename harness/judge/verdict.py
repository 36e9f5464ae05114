"""What the gate concludes: checks, findings and one verdict with one sentence, the same words
everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Literal

UNPROMISED = "limits"
"""Subject of the check, of the rule coverage, that says that no limit was promised."""


class ExitCode(IntEnum):
    """What ``python -m harness gate`` and ``nox -s gate`` exit with."""

    PASS = 0
    REGRESSION = 1
    USAGE = 2
    INCOMPLETE = 3
    NO_BASELINE = 4
    IMPROVEMENT = 5


EXIT_MEANINGS: Mapping[ExitCode, str] = MappingProxyType(
    {
        ExitCode.PASS: "pass: every check holds",
        ExitCode.REGRESSION: (
            "regression: memory is worse than a budget, a slope or the baseline allows"
        ),
        ExitCode.USAGE: "usage: an argument, the policy or the baseline cannot be used",
        ExitCode.INCOMPLETE: (
            "incomplete: something could not be measured, or nothing was; a gate that saw nothing "
            "never passes"
        ),
        ExitCode.NO_BASELINE: (
            "no comparable baseline: limits hold, but there is no earlier truth for this device, "
            "scan or point"
        ),
        ExitCode.IMPROVEMENT: (
            "improvement: better than the baseline beyond tolerance; accept it, or headroom grows "
            "unseen"
        ),
    }
)
"""What each exit code means: a name, a colon, a sentence. ``--help`` prints it, and the README's
table says the same."""


class FindingKind(StrEnum):
    """Why a check did not hold."""

    REGRESSION = "regression"
    FAILED = "failed"
    """A run ended out of memory or out of time that should not have, and nothing says that it ever
    did better."""
    INCOMPLETE = "incomplete"
    NO_BASELINE = "no_baseline"
    MOVED = "moved"
    """Less by one meter, and not by the one that counts these bytes as well."""
    IMPROVEMENT = "improvement"


# The order is the precedence: a regression was seen whatever else is missing, and an improvement
# counts only in a run that is complete and comparable.
_EXIT_CODES = {
    FindingKind.REGRESSION: ExitCode.REGRESSION,
    FindingKind.FAILED: ExitCode.REGRESSION,
    FindingKind.INCOMPLETE: ExitCode.INCOMPLETE,
    FindingKind.NO_BASELINE: ExitCode.NO_BASELINE,
    FindingKind.MOVED: ExitCode.IMPROVEMENT,
    FindingKind.IMPROVEMENT: ExitCode.IMPROVEMENT,
}


Bound = Literal["upper", "lower", ""]
"""Which side of ``measured`` a limit is on; none where there is no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One amount that a check rests on."""

    point: str
    repeat: int
    amount_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule applied to one subject; ``finding`` is None where it holds."""

    rule: str
    """Name of the rule: outcome, coverage, comparability, slope, growth_class, budget, floor, leak,
    arithmetic, baseline."""
    subject: str
    """What was checked, in the user's terms: ``"loading / lazy / construct / device in use"``."""
    sentence: str
    """What was measured against what, and what to do when it does not hold."""
    finding: FindingKind | None = None
    scenario: str = ""
    point: str = ""
    phase: str = ""
    meter: str = ""
    measured: float | None = None
    limit: float | None = None
    """What ``measured`` is held against; of two limits the one that was broken, or is nearer. Never
    below 0 for a size."""
    bound: Bound = ""
    """Which of them it is: ``"upper"``, which nothing may exceed, or ``"lower"``, which nothing may
    fall short of."""
    earlier: float | None = None
    """What ``measured`` was before, by the baseline or the other side of the run."""
    earlier_from: str = ""
    """Where that comes from: ``"accepted 2026-11-24 from run s2"``."""
    unit: str = ""
    """Unit of measured, limit and earlier: ``"B"`` or ``"B/image"``, ``"B/frame"``."""
    because: str = ""
    """Where the limit comes from, as the policy gives it."""
    points: tuple[str, ...] = ()
    """Every point whose readings it rests on."""
    readings: tuple[Seen, ...] = ()
    """These readings, all repeats of them."""
    decision: str = ""
    """How a quorum decided, where points were measured again; also where the check holds because of
    it."""
    better: bool = False
    """Holds, and takes less than what it is compared with, beyond tolerance: good news that nobody
    has to act on."""
    parked: str = ""
    """Why it holds although something was found: its tests were skipped, or expected to fail; empty
    for all others."""
    remeasure: bool = False
    """True for a finding that measuring its points again could settle: one that may be noise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sum of all checks."""

    checks: tuple[Check, ...]

    @property
    def findings(self) -> tuple[Check, ...]:
        """The checks that do not hold, the gravest kind first."""
        order = list(_EXIT_CODES)
        return tuple(
            sorted(
                (c for c in self.checks if c.finding),
                key=lambda c: order.index(c.finding or order[-1]),
            )
        )

    @property
    def overruled(self) -> tuple[Check, ...]:
        """The checks that hold because most of the repeats did not confirm what single ones had
        shown.
        """
        return tuple(
            check
            for check in self.checks
            if check.decision and not check.finding and not check.better
        )

    @property
    def better(self) -> tuple[Check, ...]:
        """The checks that hold, and take less than the code that they are compared with."""
        return tuple(check for check in self.checks if check.better)

    @property
    def without_limits(self) -> str:
        """The sentence that says so where no amount was held against a limit, because there was
        none; else empty.
        """
        return next(
            (
                check.sentence
                for check in self.checks
                if (check.rule, check.subject) == ("coverage", UNPROMISED)
            ),
            "",
        )

    @property
    def exit_code(self) -> ExitCode:
        """The gravest finding decides; a verdict without a single check is incomplete, never a
        pass.
        """
        if not self.checks:
            return ExitCode.INCOMPLETE
        findings = self.findings
        return (
            _EXIT_CODES[findings[0].finding] if findings and findings[0].finding else ExitCode.PASS
        )

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if not self.checks:
            return "Nothing was checked: the run holds nothing that a rule applies to."
        findings = self.findings
        if not findings:
            overruled = len(self.overruled)
            after = (
                f", {overruled} of them after a quorum of repeats overruled single ones"
                if overruled
                else ""
            )
            less = (
                f"; {len(self.better)} take less than before, beyond tolerance"
                if self.better
                else ""
            )
            known = sum(bool(check.parked) for check in self.checks)
            parked = (
                f"; {known} {'finding is' if known == 1 else 'findings are'} parked, of tests "
                "that were skipped or expected to fail"
            )
            only = (
                "; none of them is a limit, so only how the runs ended was judged"
                if self.without_limits
                else ""
            )
            return (
                f"Pass: all {len(self.checks) - known} checks "
                f"hold{after}{less}{parked if known else ''}{only}."
            )
        first, others = findings[0], len(findings) - 1
        more = f" ({others} more {'finding' if others == 1 else 'findings'})" if others else ""
        return f"{str(first.finding).replace('_', ' ').capitalize()}: {first.sentence}{more}"
