"""The verdict as JUnit XML, which every CI service shows: one test case for each check."""

import re
from collections import Counter
from xml.etree import ElementTree as ET

from harness.judge.verdict import Check, FindingKind, Verdict

# XML 1.0, section 2.2: all other characters may not appear, not even escaped. Reasons quote the
# last words of a child.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_text(run_id: str, verdict: Verdict, *, judgement: str) -> str:
    """The text of junit.xml. Every finding is a failure that carries its sentence; its type is the
    kind of finding.

    ``judgement`` is the id that all files of the judgement bear, a property of the suite.

    Only what Jenkins' schema of the format knows (jenkins-junit.xsd), which strict readers check
    and GitLab reads as well: so no ``file``. A verdict without a check is a failure too, for a
    report without cases is shown as nothing at all.
    """
    cases = verdict.checks or (
        Check(
            rule="coverage",
            subject="run",
            sentence=verdict.sentence,
            finding=FindingKind.INCOMPLETE,
        ),
    )
    totals = {
        "tests": str(len(cases)),
        "failures": str(sum(check.finding is not None for check in cases)),
        "errors": "0",
        # A check takes no time; viewers that add times up want a number.
        "time": "0",
    }
    suite = ET.Element(
        "testsuite", {"name": _allowed(f"memory gate of {run_id}"), **totals, "skipped": "0"}
    )
    ET.SubElement(ET.SubElement(suite, "properties"), "property", name="judgement", value=judgement)
    seen: Counter[tuple[str, str]] = Counter()
    for check in cases:
        case = (f"gate.{check.rule}", check.subject)
        seen[case] += 1
        suite.append(_case(check, seen[case]))
    suites = ET.Element("testsuites", totals)
    suites.append(suite)
    ET.indent(suites)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"
    )


def _case(check: Check, occurrence: int) -> ET.Element:
    # Viewers merge cases of one name, for example the upper and the lower budget of one phase.
    name = check.subject if occurrence == 1 else f"{check.subject} ({occurrence})"
    case = ET.Element(
        "testcase", classname=f"gate.{_allowed(check.rule)}", name=_allowed(name), time="0"
    )
    if check.finding is not None:
        failure = ET.SubElement(
            case, "failure", type=str(check.finding), message=_allowed(check.sentence)
        )
        failure.text = _allowed(f"{check.sentence}\n{check.because}".strip())
    else:
        ET.SubElement(case, "system-out").text = _allowed(check.sentence)
    return case


def _allowed(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
