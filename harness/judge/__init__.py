"""Pure functions over rows: fits, baselines, rules. Here: what they conclude, as checks, findings
and one verdict with one sentence, the same words everywhere.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from xml.etree import ElementTree as ET

from harness.records import ROWS_FILE, RUN_FILE
from harness.rundir.reading import SEAL, digest
from harness.words import plural

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
            "no comparable baseline: limits hold, but nothing was accepted before for this device, "
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


class RuleName(StrEnum):
    """The rules, in the order in which their checks are shown. What each is for is in
    ``harness.judge.rules.RULES``.
    """

    OUTCOME = "outcome"
    COVERAGE = "coverage"
    AGAINST = "against"
    COMPARABILITY = "comparability"
    SLOPE = "slope"
    GROWTH_CLASS = "growth_class"
    BUDGET = "budget"
    LEAK = "leak"
    FLOOR = "floor"
    ARITHMETIC = "arithmetic"
    BASELINE = "baseline"


class FindingKind(StrEnum):
    """Why a check did not hold; ``FINDINGS`` says what each kind means."""

    REGRESSION = "regression"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    NO_BASELINE = "no_baseline"
    MOVED = "moved"
    IMPROVEMENT = "improvement"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindMeaning:
    """What a kind of finding means, and what the gate exits with because of it."""

    exit_code: ExitCode
    meaning: str


# The order is the precedence: a regression was seen whatever else is missing, and an improvement
# counts only in a run that is complete and comparable.
FINDINGS: Mapping[FindingKind, KindMeaning] = MappingProxyType(
    {
        FindingKind.REGRESSION: KindMeaning(
            exit_code=ExitCode.REGRESSION,
            meaning="memory is worse than a limit or the baseline allows",
        ),
        FindingKind.FAILED: KindMeaning(
            exit_code=ExitCode.REGRESSION,
            meaning=(
                "a run ended out of memory or out of time, and nothing shows that it ever ended "
                "better"
            ),
        ),
        FindingKind.INCOMPLETE: KindMeaning(
            exit_code=ExitCode.INCOMPLETE,
            meaning="something was not measured, or not well enough to be judged",
        ),
        FindingKind.NO_BASELINE: KindMeaning(
            exit_code=ExitCode.NO_BASELINE,
            meaning="nothing comparable was accepted before",
        ),
        FindingKind.MOVED: KindMeaning(
            exit_code=ExitCode.IMPROVEMENT,
            meaning="less by one meter, and not by another one that counts the same bytes",
        ),
        FindingKind.IMPROVEMENT: KindMeaning(
            exit_code=ExitCode.IMPROVEMENT,
            meaning="less than the baseline, beyond tolerance",
        ),
    }
)
"""What each kind of finding means, the gravest first."""


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

    rule: RuleName
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
    field: str = ""
    """Which number of the phase was checked: ``"growth"``, ``"peak"``."""
    limit_place: str = ""
    """Where the limit stands: ``"slope rule 2 of scenarios/gate.toml"``."""
    like: str = ""
    """What the amount of a finding is as large as: ``"1.00 x X"``; empty where nothing shows it."""
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
        return tuple(check for kind in FINDINGS for check in self.checks if check.finding == kind)

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
                if (check.rule, check.subject) == (RuleName.COVERAGE, UNPROMISED)
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
        kinds = [check.finding for check in self.findings if check.finding]
        return FINDINGS[kinds[0]].exit_code if kinds else ExitCode.PASS

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if not self.checks:
            return "Nothing was checked: the run holds nothing that a rule applies to."
        findings = self.findings
        if not findings:
            return self._passed()
        first, others = findings[0], len(findings) - 1
        more = f" ({others} more {plural(others, 'finding')})" if others else ""
        return f"{str(first.finding).replace('_', ' ').capitalize()}: {first.sentence}{more}"

    def _passed(self) -> str:
        """The sentence of a verdict without findings."""
        overruled, better = len(self.overruled), len(self.better)
        parked = sum(bool(check.parked) for check in self.checks)

        parts = [f"Pass: all {len(self.checks) - parked:,} checks hold"]
        if overruled:
            parts.append(f", {overruled:,} of them after a quorum of repeats overruled single ones")
        if better:
            parts.append(f"; {better:,} take less than before, beyond tolerance")
        if parked:
            parts.append(
                f"; {parked} {plural(parked, 'finding is', 'findings are')} parked, of tests "
                "that were skipped or expected to fail"
            )
        if self.without_limits:
            parts.append("; none of them is a limit, so only how the runs ended was judged")
        return f"{''.join(parts)}."


# The verdict as JUnit XML, which every CI service shows: one test case for each check.


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
            rule=RuleName.COVERAGE,
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


# What makes a judgement one: the run, policy, baseline or other side, and version that it
# follows from, as one short id.


_DISTRIBUTION = "ptycho-memory"
_ID_CHARACTERS = 16
"""Chosen: 64 bits, and short enough to be read aloud."""
NONE = "none"
"""Instead of a checksum, where there is no such thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Checksums of all that a judgement follows from; two that share them say the same."""

    run: str
    """Of run.json and rows.jsonl, whatever the order of their keys and lines."""
    policy: str
    baseline: str
    against: str
    """Of the run on the other side."""
    partial: bool
    version: str
    """Of the program that judged."""
    checks: str
    """Of everything that was concluded: a program under development keeps its version while it
    changes."""

    @property
    def id(self) -> str:
        """The one that every file of the judgement bears."""
        return digest(_canonical(asdict(self)))[:_ID_CHARACTERS]

    def to_json(self) -> dict[str, Any]:
        """As findings.json has it."""
        return {"id": self.id, **asdict(self)}


def identity(
    run: Path, sources: Mapping[str, str], *, partial: bool, checks: Sequence[Mapping[str, Any]]
) -> Identity:
    """That of a judgement of the run in the folder ``run``; ``sources`` are the checksums of what
    it was held against.
    """
    return Identity(
        run=run_digest(run),
        policy=sources.get("policy", NONE),
        baseline=sources.get("baseline", NONE),
        against=sources.get("against", NONE),
        partial=partial,
        version=program_version(),
        checks=value_digest(list(checks)),
    )


def run_digest(folder: Path) -> str:
    """The checksum of what was measured; where run.json is damaged, of its bytes. Raises OSError
    where a file is gone.
    """
    manifest, rows = (folder / RUN_FILE).read_bytes(), (folder / ROWS_FILE).read_bytes()
    try:
        found = json.loads(manifest)
    except (ValueError, RecursionError):
        found = None
    said = (
        _canonical({name: value for name, value in found.items() if name != SEAL})
        if isinstance(found, dict)
        else manifest
    )
    return digest(b"\n".join([said, *sorted(rows.splitlines())]))


def value_digest(value: object) -> str:
    """The checksum of anything that JSON can hold."""
    return digest(_canonical(value))


def program_version() -> str:
    """The version of the installed program; that of a checkout which nobody has installed is
    unknown.
    """
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return f"unavailable: {_DISTRIBUTION} is not installed"


def _canonical(value: object) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str
    ).encode()
