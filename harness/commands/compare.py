"""The command ``compare``: two runs beside each other, what they were measured with first, then the
amounts that moved.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.commands import add_partial, explain, folder, load_pages, to_stdout
from harness.judge import Check, ExitCode
from harness.judge.advice import DEFAULT_BASELINES, LESS_ON_PURPOSE, Asked
from harness.judge.baseline import load_against
from harness.judge.gate import Judgement, judge
from harness.judge.policy import SCHEMA_VERSION, Policy, read_policy
from harness.judge.table import Run, load_run
from harness.words import count, format_bytes, plural, text_table

_TOLERANCES = "the default tolerances of a comparison"
_SECTIONS = ("comparability", "device", "environment", "settings")
"""Of run.json: what a run was measured with, what must be equal first."""
_NO_DIFFERENCE = frozenset({"git_changes", "left_out", "against", "revision", "equals", "uuid"})
"""What differs between any two runs, or is told by another entry."""
_LONGEST = 60
"""Characters of a value that is shown. Chosen: two of them fit a line."""
_COLUMNS = ("where", "amount", "then", "now", "change", "tolerance")

EXIT_CODES = {
    0: "no amount of B is above A's, beyond tolerance",
    1: "one is, or a limit of the policy is broken",
    2: "a run, or the policy, cannot be used",
    3: "they cannot be compared, or something was not measured",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two runs were measured with, and that differs."""

    section: str
    name: str
    then: object
    now: object

    @property
    def words(self) -> str:
        """``"tensorflow was 2.20.0 and is 2.21.0"``."""
        return (
            f"{self.name} was {_shown(self.name, self.then)} and is {_shown(self.name, self.now)}"
        )


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the help ends with an example and the exit codes."""
    explain(
        parser,
        "Compare two run directories: what they were measured with, first, and then what moved. "
        "Neither of them is changed.",
        examples=("runs/before runs/after --out compared",),
        exit_codes=EXIT_CODES,
    )
    parser.add_argument("then", metavar="A", type=Path, help="the run directory to compare with")
    parser.add_argument("now", metavar="B", type=Path, help="the run directory that is judged")
    parser.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        help="hold B against these limits and tolerances as well (default: no limits, and "
        f"{_TOLERANCES})",
    )
    add_partial(parser)
    parser.add_argument("--all", action="store_true", help="also list the amounts that became less")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=folder,
        help="write the page of the comparison, and its findings.json, into this folder; neither "
        "run directory is changed",
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def run(options: argparse.Namespace) -> int:
    """Compare, print, and write the page where one is asked for; the exit code as the help says."""
    then, now = load_run(options.then), load_run(options.now)
    different = tuple(differences(then, now))
    why_not = why_not_comparable(then, now)
    if why_not:
        _print_alone(options, different, why_not)
        return ExitCode.INCOMPLETE

    judgement = compare(options.then, now, policy=options.policy, partial=options.partial)
    absent = () if options.partial else _absent(then, now)
    code = judgement.verdict.exit_code
    if absent and code in (ExitCode.PASS, ExitCode.IMPROVEMENT):
        code = ExitCode.INCOMPLETE
    if options.json:
        document = _as_json(judgement, different, absent, code)
        to_stdout(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        for line in _lines(judgement, different, better=options.all):
            to_stdout(line)
        if absent:
            to_stdout(
                f"{count(len(absent), 'point')} of {options.then} "
                f"{plural(len(absent), 'is', 'are')} not in {options.now}, first {absent[0]}: "
                f"measure all of it, or {LESS_ON_PURPOSE}"
            )
    if options.out is not None:
        page = load_pages("writing").write_into(options.out, now, judgement)
        if not options.json:
            to_stdout(f"report: {page}")
    return int(code)


def _absent(then: Run, now: Run) -> tuple[str, ...]:
    """Points that only the earlier run has: nobody can say of them that they are as they were."""
    names = {point.name for point in now.points}
    return tuple(point.name for point in then.points if point.name not in names)


def compare(then: Path, now: Run, *, policy: Path | None, partial: bool = False) -> Judgement:
    """The judgement of a run beside the run in ``then``. Raises HarnessError where one of them, or
    the policy, cannot be used.
    """
    chosen = (
        Policy(schema_version=SCHEMA_VERSION).called(_TOLERANCES)
        if policy is None
        else read_policy(policy)
    )
    return judge(
        now,
        chosen,
        DEFAULT_BASELINES,
        partial=partial,
        against=load_against(now, then),
        asked=Asked(policy=policy, against=then, partial=partial),
    )


def differences(then: Run, now: Run) -> Iterator[Difference]:
    """What the runs were measured with that differs, each once, what must be equal first."""
    told: set[str] = set(_NO_DIFFERENCE)
    for section in _SECTIONS:
        before, after = _section(then, section), _section(now, section)
        for name in dict.fromkeys([*before, *after]):
            if name not in told and before.get(name) != after.get(name):
                told.add(name)
                yield Difference(section, name, before.get(name), after.get(name))


def why_not_comparable(then: Run, now: Run) -> str:
    """Why no amount of one says anything about the other, in a clause; empty where they may be
    compared.
    """
    unlike = [one.words for one in differences(then, now) if one.section == "comparability"]
    if unlike:
        return "; ".join(unlike)
    names = {point.name for point in then.points}
    if not any(point.name in names for point in now.points):
        return "they have no point in common"
    return ""


def _section(run: Run, name: str) -> Mapping[str, Any]:
    found: Any = getattr(run.manifest, name)
    return found if isinstance(found, Mapping) else dict(found.model_dump(mode="json"))


def _shown(name: str, value: object) -> str:
    """A value in a line of its own."""
    if value is None or value == "":
        return "not recorded"
    if isinstance(value, int) and not isinstance(value, bool) and name.endswith("_bytes"):
        return format_bytes(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _print_alone(
    options: argparse.Namespace, different: Sequence[Difference], why_not: str
) -> None:
    """What is known of two runs that cannot be compared."""
    sentence = (
        f"{options.then} and {options.now} cannot be compared: {why_not}. Measure both alike, and "
        "compare again."
    )
    if options.json:
        document = {
            "comparable": False,
            "sentence": sentence,
            "exit_code": int(ExitCode.INCOMPLETE),
            "differences": [asdict(one) for one in different],
            "amounts": [],
        }
        to_stdout(json.dumps(document, indent=1, ensure_ascii=False, default=str))
        return
    for line in _differences_in_words(different):
        to_stdout(line)
    to_stdout(sentence)


def _differences_in_words(different: Sequence[Difference]) -> Iterator[str]:
    if not different:
        yield "Both were measured with the same."
        return
    yield f"{count(len(different), 'difference')} in what they were measured with:"
    yield from (f"  {one.words}" for one in different)


def _lines(judgement: Judgement, different: Sequence[Difference], *, better: bool) -> Iterator[str]:
    """The comparison for a terminal."""
    yield from _differences_in_words(different)
    yield ""
    yield f"{judgement.against[0].upper()}{judgement.against[1:]}. {judgement.verdict.sentence}"
    for cause in judgement.causes:
        yield f"  {cause.what}; {cause.where}; {cause.how_much}"

    compared = _compared(judgement)
    worse = [check for check in compared if check.finding]
    less = [check for check in compared if check.better]
    moved = sum(check.measured != check.earlier for check in compared)
    yield (
        f"{count(len(compared), 'amount')} compared: {len(worse):,} worse and {len(less):,} better "
        f"beyond tolerance, {moved - len(worse) - len(less):,} moved within it, "
        f"{len(compared) - moved:,} not by a byte"
    )
    yield from _table("Worse", worse)
    if better:
        yield from _table("Better", less)
    elif less:
        yield f"{len(less):,} better {plural(len(less), 'amount')}: --all lists them"


def _compared(judgement: Judgement) -> list[Check]:
    return [
        check
        for check in judgement.verdict.checks
        if check.earlier is not None and check.measured is not None
    ]


def _table(heading: str, checks: Sequence[Check]) -> Iterator[str]:
    """Those that moved most: one row for each series, as the page has it."""
    if not checks:
        return
    moves = load_pages("comparison").comparison_of(checks).moves
    if moves is None:
        return
    places = [moves.columns.index(name) for name in _COLUMNS]
    yield ""
    yield f"{heading}: {moves.caption[0].lower()}{moves.caption[1:]}"
    rows = [[row[place] for place in places] for row in moves.rows]
    yield from (f"  {line}" for line in text_table(_COLUMNS, rows))


def _as_json(
    judgement: Judgement, different: Sequence[Difference], absent: Sequence[str], code: ExitCode
) -> dict[str, Any]:
    verdict = judgement.verdict
    return {
        "comparable": True,
        "sentence": verdict.sentence,
        "exit_code": int(code),
        "absent": list(absent),
        "compared": judgement.against,
        "tolerances": judgement.policy,
        "differences": [asdict(one) for one in different],
        "causes": [
            {
                name: str(getattr(cause, name))
                for name in ("id", "kind", "finding", "what", "where", "how_much", "since")
            }
            for cause in judgement.causes
        ],
        "amounts": [
            {
                "subject": check.subject,
                "point": check.point,
                "phase": check.phase,
                "meter": check.meter,
                "unit": check.unit,
                "then": check.earlier,
                "now": check.measured,
                "limit": check.limit,
                "bound": check.bound,
                "finding": None if check.finding is None else str(check.finding),
                "better": check.better,
            }
            for check in _compared(judgement)
        ],
    }
