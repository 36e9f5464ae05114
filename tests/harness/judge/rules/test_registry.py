"""One vocabulary: every rule, kind of finding and outcome has one row, and every finding one
sentence; the functions of rules stay short.
"""

import ast
import dataclasses
import io
import tokenize
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from harness.judge import FINDINGS, FindingKind, RuleName, rules
from harness.judge.rules import RULES, findings_table, outcomes_table, rule_of, rules_table
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.findings import (
    Details,
    Finding,
    NoSuchPhase,
    NotSwept,
    Place,
    marker_of,
    once_per_marker,
)
from harness.judge.rules.sentences import SENTENCES
from harness.records import OUTCOME_MEANINGS, Outcome

FOLDER = Path(rules.__file__).parent
MOST_CODE_LINES, MOST_POSITIONAL = 40, 5
OWN = ("self", "cls")


def functions():
    """Every function of the rules, with what a failure calls it."""
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.stem}.{node.name}", text, node


def code_lines(text, node):
    """The lines of a function that hold code: no docstring, comment or blank line."""
    first = node.body[0]
    docstring = set()
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        docstring = set(range(first.lineno, first.end_lineno + 1))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    return {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
        if node.lineno <= line <= node.end_lineno and line not in docstring
    }


def test_every_function_of_a_rule_fits_a_screen():
    """At most 40 lines of code, and five parameters that are told apart by their place."""
    found = list(functions())
    long = {name for name, text, node in found if len(code_lines(text, node)) > MOST_CODE_LINES}
    wide = {
        name
        for name, _, node in found
        if len([each for each in (*node.args.posonlyargs, *node.args.args) if each.arg not in OWN])
        > MOST_POSITIONAL
    }

    assert len(found) > 100
    assert (long, wide) == (set(), set())


def test_every_rule_has_one_row_in_the_order_of_the_names():
    """A name without a rule would never be checked."""
    assert [rule.name for rule in RULES] == list(RuleName)
    assert rule_of("leak").name is RuleName.LEAK


def test_a_name_that_no_rule_has_is_refused():
    """It is a mistake of the program, or of an edited findings.json."""
    with pytest.raises(ValueError, match="leek"):
        rule_of("leek")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("about_the_run", {"outcome", "coverage", "against", "comparability"}),
        ("over_points", {"slope", "growth_class", "arithmetic"}),
        (
            "holds_a_limit",
            {"slope", "growth_class", "budget", "leak", "floor", "arithmetic", "baseline"},
        ),
    ],
)
def test_what_kind_of_rule_each_is(kind, names):
    """A rule is about the run, or holds a limit."""
    assert {rule.name for rule in RULES if getattr(rule, kind)} == names


def test_the_table_of_rules_has_a_line_for_each():
    """Under a head of two lines, with the sentence that says what it is for."""
    lines = rules_table().splitlines()

    assert len(lines) == 2 + len(RULES)
    assert lines[2] == "| `outcome` | Every run ends as its scenario expects. | yes |  |  |"


def test_the_tables_of_findings_and_outcomes_have_a_line_for_each():
    """With what each means, and what the gate exits with."""
    findings, outcomes = findings_table().splitlines(), outcomes_table().splitlines()

    assert (len(findings), len(outcomes)) == (2 + len(FindingKind), 2 + len(Outcome))
    assert findings[4] == (
        "| `incomplete` | something was not measured, or not well enough to be judged | 3 |"
    )
    assert outcomes[3] == "| `device_oom` | the device refused memory |"


def test_every_kind_of_finding_has_a_meaning():
    """In the order of precedence, with the exit code."""
    assert list(FINDINGS) == list(FindingKind)
    assert all(row.meaning for row in FINDINGS.values())


def test_every_outcome_has_a_meaning():
    """No run ends in a way that nothing explains."""
    assert list(OUTCOME_MEANINGS) == list(Outcome)


def test_every_kind_of_details_has_a_sentence():
    """A finding without one could not be shown."""
    assert set(SENTENCES) == set(get_args(Details))


@pytest.mark.parametrize("details", get_args(Details))
def test_findings_are_frozen(details):
    """A sentence is made of what was found, whoever has held it meanwhile."""
    assert dataclasses.fields(details)
    assert details.__dataclass_params__.frozen


def mistake(limit_place, details=None):
    return Finding(
        rule=RuleName.SLOPE,
        place=Place(words="own / image_count"),
        details=details or NotSwept(over="image_count", needed=3, sizes=(1,), or_less=""),
        limit_place=limit_place,
        because="whatever it says",
    )


MARKER = "the marker of tests/test_x.py::test_y"


@pytest.mark.parametrize(
    ("findings", "count"),
    [
        ((mistake(MARKER), mistake(f"{MARKER}: on the host")), 1),
        ((mistake(MARKER), mistake(f"{MARKER}[1]")), 2),
        ((mistake("slope rule 1 of p.toml"), mistake("slope rule 1 of p.toml")), 2),
        ((mistake(MARKER), mistake(MARKER, NoSuchPhase(phase="a", known=("b",)))), 2),
    ],
    ids=["a marker and its host", "two tests", "rules of a file", "two mistakes"],
)
def test_a_mistake_of_a_marker_is_listed_once(findings, count):
    """Its rule of the host beside it has the same one."""
    assert len(list(once_per_marker(findings))) == count


def test_what_a_marker_says_besides_is_no_part_of_its_name():
    """A rule of a file has none."""
    assert marker_of(f"{MARKER}: on the host") == MARKER
    assert marker_of("slope rule 1 of p.toml") == ""


def test_pages_of_the_device_are_taken_off_once():
    """Every broken leak asks for it, and it fits the complete run anew."""
    values = {each.name: {} for each in dataclasses.fields(Evidence)}
    device = SimpleNamespace(kind="emulated")
    run = SimpleNamespace(manifest=SimpleNamespace(device=device), points=())
    evidence = Evidence(**{**values, "run": run})

    assert evidence.without_device_pages is not evidence
    assert evidence.without_device_pages is evidence.without_device_pages
