"""Findings as GitLab's code quality report, which its merge requests show beside the files that
changed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping

from harness.judge.verdict import FindingKind

from .annotations import Findings, Spot, Told

_SEVERITIES: Mapping[str, str] = {
    FindingKind.REGRESSION: "critical",
    FindingKind.FAILED: "critical",
    FindingKind.INCOMPLETE: "critical",
    FindingKind.NO_BASELINE: "minor",
    FindingKind.MOVED: "minor",
    FindingKind.IMPROVEMENT: "minor",
}


def code_quality_text(found: Findings, place: Spot, *, otherwise: str) -> str:
    """The report: JSON, one entry for each finding. GitLab leaves out what has no path;
    ``otherwise`` is one.
    """
    told = found.findings
    if not told and found.exit_code != 0:
        told = (Told(kind=found.verdict, rule="verdict", subject="run", sentence=found.sentence),)
    seen: Counter[tuple[str, str]] = Counter()
    entries = []
    for finding in told:
        seen[finding.rule, finding.subject] += 1
        entries.append(_entry(finding, seen[finding.rule, finding.subject], place, otherwise))
    return json.dumps(entries, indent=1)


def _entry(finding: Told, occurrence: int, place: Spot, otherwise: str) -> dict[str, object]:
    # Without amounts, which differ from run to run: GitLab matches the two sides of a merge request
    # by it.
    named = "\n".join((finding.rule, finding.subject, str(occurrence)))
    return {
        "description": f"{finding.sentence} {place.why}",
        "check_name": f"memory gate: {finding.rule}",
        "fingerprint": hashlib.sha256(named.encode(errors="backslashreplace")).hexdigest(),
        "severity": _SEVERITIES.get(finding.kind, "critical"),
        "location": {"path": place.file or otherwise, "lines": {"begin": place.line}},
    }
