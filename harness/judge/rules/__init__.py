"""The rules of the gate, in the order in which their checks are shown.

A rule is a function from evidence to findings, which are numbers; ``sentences`` makes a check of
each.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.judge import FINDINGS, Check, RuleName
from harness.judge.rules.amounts import check_baseline, check_budgets, check_floors, check_leaks
from harness.judge.rules.comparability import check_against, check_comparability
from harness.judge.rules.coverage import check_coverage, check_outcomes
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.findings import Finding
from harness.judge.rules.growth import check_arithmetic, check_growth_classes, check_slopes
from harness.judge.rules.sentences import check_of
from harness.records import OUTCOME_MEANINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: how it judges, and what kind of rule it is."""

    name: RuleName
    meaning: str
    """What it is for, in one sentence."""
    check: Callable[[Evidence], Iterable[Finding]]
    about_the_run: bool = False
    """It asks whether and how something was measured, not how much it takes."""
    holds_a_limit: bool = False
    """It holds an amount against a limit."""
    over_points: bool = False
    """It needs all points of a series, so that one point alone cannot be judged by it."""


RULES: tuple[Rule, ...] = (
    Rule(
        name=RuleName.OUTCOME,
        meaning="Every run ends as its scenario expects.",
        check=check_outcomes,
        about_the_run=True,
    ),
    Rule(
        name=RuleName.COVERAGE,
        meaning="Everything that was planned, promised or accepted was measured, finely enough.",
        check=check_coverage,
        about_the_run=True,
    ),
    Rule(
        name=RuleName.AGAINST,
        meaning="The other code was measured beside the run, and it is other code.",
        check=check_against,
        about_the_run=True,
    ),
    Rule(
        name=RuleName.COMPARABILITY,
        meaning="There is a baseline, and it was measured in the same way.",
        check=check_comparability,
        about_the_run=True,
    ),
    Rule(
        name=RuleName.SLOPE,
        meaning="Each further image, frame or step costs no more than its limit.",
        check=check_slopes,
        holds_a_limit=True,
        over_points=True,
    ),
    Rule(
        name=RuleName.GROWTH_CLASS,
        meaning="Growth with the data is no worse than flat, or linear.",
        check=check_growth_classes,
        holds_a_limit=True,
        over_points=True,
    ),
    Rule(
        name=RuleName.BUDGET,
        meaning="Every run stays below an amount.",
        check=check_budgets,
        holds_a_limit=True,
    ),
    Rule(
        name=RuleName.LEAK,
        meaning="A phase has no more than the one before it that did the same.",
        check=check_leaks,
        holds_a_limit=True,
    ),
    Rule(
        name=RuleName.FLOOR,
        meaning="A phase reaches the amount without which its meter saw nothing.",
        check=check_floors,
        holds_a_limit=True,
    ),
    Rule(
        name=RuleName.ARITHMETIC,
        meaning="The growth of known arrays is what the arrays add up to.",
        check=check_arithmetic,
        holds_a_limit=True,
        over_points=True,
    ),
    Rule(
        name=RuleName.BASELINE,
        meaning="Amounts are within tolerance of the accepted ones, or of the other code's.",
        check=check_baseline,
        holds_a_limit=True,
    ),
)


def rule_of(name: str) -> Rule:
    """The rule of this name. Raises ValueError for a name that no rule has."""
    known = RuleName(name)
    return next(rule for rule in RULES if rule.name is known)


def apply_rules(evidence: Evidence) -> Iterator[Check]:
    """The checks of all rules, each with its sentence."""
    for rule in RULES:
        yield from map(check_of, rule.check(evidence))


def rules_table() -> str:
    """The rules as a Markdown table, for the documentation and ``--help``."""
    rows = [
        (
            f"`{rule.name}`",
            rule.meaning,
            *("yes" if flag else "" for flag in (rule.about_the_run, rule.holds_a_limit)),
            "yes" if rule.over_points else "",
        )
        for rule in RULES
    ]
    kinds = ("about the run", "holds a limit", "needs all points of a series")
    return _table(("rule", "what it asks for", *kinds), rows)


def findings_table() -> str:
    """The kinds of findings as a Markdown table, the gravest first, with the gate's exit code."""
    rows = [(f"`{kind}`", row.meaning, str(int(row.exit_code))) for kind, row in FINDINGS.items()]
    return _table(("finding", "meaning", "exit code"), rows)


def outcomes_table() -> str:
    """The outcomes of runs as a Markdown table."""
    rows = [(f"`{outcome}`", meaning) for outcome, meaning in OUTCOME_MEANINGS.items()]
    return _table(("outcome", "meaning"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
