"""The rules of the gate, in the order in which their checks are shown. Each is a function from
evidence to checks.
"""

from collections.abc import Callable, Iterable

from harness.judge.rules.amounts import check_budgets, check_floors, check_leaks
from harness.judge.rules.comparability import check_against, check_comparability
from harness.judge.rules.coverage import check_coverage, check_outcomes
from harness.judge.rules.distance import check_baseline
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.growth import check_arithmetic, check_growth_classes, check_slopes
from harness.judge.verdict import Check

Rule = Callable[[Evidence], Iterable[Check]]

RULES: tuple[Rule, ...] = (
    check_outcomes,
    check_coverage,
    check_against,
    check_comparability,
    check_slopes,
    check_growth_classes,
    check_budgets,
    check_leaks,
    check_floors,
    check_arithmetic,
    check_baseline,
)
