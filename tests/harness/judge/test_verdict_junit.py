"""junit.xml as CI services read it: the shape that Jenkins' schema allows, and the verdict in it
whatever happened.
"""

from xml.dom import minidom

import pytest

from harness.judge import Check, FindingKind, Verdict, junit_text
from harness.judge.gate import judge
from harness.judge.table import load_run
from harness.records import Outcome

# What jenkins-junit.xsd (of Jenkins' xUnit plug-in) allows of what we write: attributes and
# children, by element; those that it requires are in capitals.
SHAPE = {
    "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        {
            "NAME",
            "TESTS",
            "failures",
            "errors",
            "time",
            "disabled",
            "skipped",
            "timestamp",
            "hostname",
            "id",
            "package",
        },
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"NAME", "CLASSNAME", "assertions", "time", "status"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"NAME", "VALUE"}, set()),
    "failure": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def parsed(text):
    return minidom.parseString(text).documentElement  # noqa: S318 - made a moment ago


def check_shape(element):
    """Every attribute and child is one that the schema knows, and those that it requires are
    there.
    """
    attributes, children = SHAPE[element.tagName]
    given = set(element.attributes.keys())
    assert given <= {name.lower() for name in attributes}, element.tagName
    assert {name.lower() for name in attributes if name.isupper()} <= given, element.tagName
    for child in element.childNodes:
        if child.nodeType == child.ELEMENT_NODE:
            assert child.tagName in children
            check_shape(child)


@pytest.fixture
def document(synthetic_run, policy, baselines):
    """The report of a run in which some checks hold and some do not."""
    synthetic_run.ends[synthetic_run.points[0].name, 1] = (
        Outcome.CRASHED,
        "killed by SIGKILL",
        "epoch_0",
    )
    return parsed(
        junit_text(
            "run",
            judge(load_run(synthetic_run.write()), policy, baselines).verdict,
            judgement="0a1b",
        )
    )


def test_it_has_the_shape_that_jenkins_allows(document):
    """Nothing more: strict readers refuse what they do not know."""
    check_shape(document)
    assert document.getElementsByTagName("failure")
    assert document.getElementsByTagName("system-out")
    (judgement,) = document.getElementsByTagName("property")
    assert (judgement.getAttribute("name"), judgement.getAttribute("value")) == (
        "judgement",
        "0a1b",
    )


def test_the_totals_are_those_of_the_cases(document):
    """On the suite and on all suites, with a time that adds up."""
    (suite,) = document.getElementsByTagName("testsuite")
    cases, failures = (
        document.getElementsByTagName("testcase"),
        document.getElementsByTagName("failure"),
    )

    for element in (document, suite):
        assert int(element.getAttribute("tests")) == len(cases)
        assert int(element.getAttribute("failures")) == len(failures)
    assert {case.getAttribute("time") for case in cases} == {"0"}


def test_the_sentence_is_the_text_of_a_failure_as_well(document):
    """GitLab shows the text, Jenkins the attribute."""
    for failure in document.getElementsByTagName("failure"):
        assert failure.firstChild.data.startswith(failure.getAttribute("message"))


def test_a_verdict_without_a_check_is_one_failure():
    """An empty report is shown as nothing at all."""
    document = parsed(junit_text("run", Verdict(()), judgement="0a1b"))
    (failure,) = document.getElementsByTagName("failure")

    check_shape(document)
    assert (failure.getAttribute("type"), document.getAttribute("failures")) == (
        FindingKind.INCOMPLETE,
        "1",
    )
    assert failure.getAttribute("message") == Verdict(()).sentence


def test_a_sentence_of_several_lines_stays_well_formed():
    """What a child said last may have line ends, which attributes keep."""
    check = Check(rule="outcome", subject="a", sentence="one\ntwo", finding=FindingKind.INCOMPLETE)
    (failure,) = parsed(
        junit_text("run", Verdict((check,)), judgement="0a1b")
    ).getElementsByTagName("failure")

    assert failure.getAttribute("message") == failure.firstChild.data == "one\ntwo"
