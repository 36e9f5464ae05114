"""Run, policy and baseline -> judgement, and the files that hold it."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from harness.judge.against import Against, with_tolerances
from harness.judge.completeness import take_census
from harness.judge.files import write_text
from harness.judge.junit import junit_text
from harness.judge.parking import park
from harness.judge.policy import Policy
from harness.judge.rules import RULES
from harness.judge.rules.coverage import RULE as COVERAGE
from harness.judge.rules.evidence import Evidence, fit_key
from harness.judge.scaling import fit_run, fits_table
from harness.judge.sealed import edited_in_words, edited_tables
from harness.judge.table import PHASES_FILE, Run, declared_by_point, phases_text, readings_by_place
from harness.judge.traces import read_traces
from harness.judge.verdict import Check, FindingKind, Verdict
from harness.judge.versions import holding
from harness.records import PoolKind
from harness.seal import digest

FITS_FILE = "fits.csv"
FINDINGS_FILE = "findings.json"
JUNIT_FILE = "junit.xml"

LIMITS = frozenset({"slope", "growth_class", "budget", "floor", "leak", "arithmetic", "baseline"})
"""Rules that hold an amount against a limit; the others ask whether it was measured at all."""

SCHEMA_VERSION = 2
"""Version of findings.json."""


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The verdict and the fits it rests on (a table as fits.csv has it)."""

    verdict: Verdict
    fits: pd.DataFrame
    policy: str = "the policy"
    """Where the policy came from."""
    against: str = ""
    """Which two codes were compared, in a sentence; empty where it was a baseline."""


def judge(run: Run, policy: Policy, baselines_folder: Path, *, partial: bool = False, against: Against | None = None) -> Judgement:
    """Apply every rule. The order of the run's rows changes nothing; what points were measured again, a quorum decides.

    With ``partial`` only what the run planned is asked for: points of the baseline and rules without a point in it do
    not count as missing. With ``against`` the run is compared with what was measured beside it, instead of a baseline from the
    folder. Raises BaselineError when the baseline's file is damaged.
    """
    if against is not None:
        policy = with_tolerances(policy)
    grows = run.manifest.device.pool is PoolKind.GROWN
    policy = policy.for_run(run.points, grows=grows)
    fits = fit_run(run)
    evidence = Evidence(
        run=run,
        policy=policy,
        fits={fit_key(fit.series, fit.phase, fit.meter, fit.field): fit for fit in fits},
        readings=readings_by_place(run.phases),
        declared=declared_by_point(run.phases),
        census=take_census(run),
        baseline=holding(baselines_folder, run.manifest.comparability) if against is None else against.baseline,
        against=against,
        baselines_folder=baselines_folder,
        traces=cache(lambda: read_traces(run).found),
        partial=partial,
    )
    table = fits_table(fits)
    checks = (*park(run, [check for rule in RULES for check in rule(evidence)]), *_edited(run, table))
    if grows:
        checks = tuple(map(_with_quantum, checks))
    compared = "" if against is None else against.sentence
    return Judgement(Verdict((*checks, *_toothless(checks, policy))), table, policy.source, compared)


def _with_quantum(check: Check) -> Check:
    """A finding about live tensors in a pool that grew: who reads it must know how coarse its readings are."""
    if check.finding is None or check.rule not in LIMITS or check.meter != "device_in_use":
        return check
    quantum = "The pool grew on demand, where a tensor may count as up to twice its bytes; without --memory-growth it is exact."
    return dataclasses.replace(check, sentence=f"{check.sentence} {quantum}")


def _toothless(checks: Sequence[Check], policy: Policy) -> Iterator[Check]:
    """A run that is whole and was held against nothing: rules that do not apply to what was measured are no pass."""
    if not any(check.finding or check.rule in LIMITS for check in checks):
        sentence = (
            f"no rule of {policy.source} applies to what was measured, so nothing was held against a limit: measure what its rules "
            "are about (sizes that a rule with only_if_swept needs among it), or give it a rule about this"
        )
        yield Check(rule=COVERAGE, subject=policy.source, sentence=f"{sentence}.", finding=FindingKind.INCOMPLETE)


def _edited(run: Run, fits: pd.DataFrame) -> Iterator[Check]:
    for name in edited_tables(run.path, derived_tables(run, fits), recorded_tables(run.path)):
        yield Check(rule=COVERAGE, subject=name, sentence=f"{edited_in_words(name)}.", finding=FindingKind.INCOMPLETE)


def write_judgement(run: Run, judgement: Judgement) -> None:
    """Write phases.csv, fits.csv, findings.json and junit.xml into the run directory, each in one step.

    A table that somebody has edited is left as it is; the verdict says so. Raises RunDirectoryError when one cannot be written.
    """
    tables = derived_tables(run, judgement.fits)
    edited = edited_tables(run.path, tables, recorded_tables(run.path))
    for name, text in tables.items():
        if name not in edited:
            write_text(run.path / name, text())
    write_text(run.path / FINDINGS_FILE, findings_text(run, judgement))
    write_text(run.path / JUNIT_FILE, junit_text(run.manifest.run_id, judgement.verdict))


def derived_tables(run: Run, fits: pd.DataFrame) -> dict[str, Callable[[], str]]:
    """What makes the tables of the run directory from its rows, by the names of their files."""
    return {
        PHASES_FILE: cache(lambda: phases_text(run)),
        FITS_FILE: cache(lambda: fits.to_csv(index=False, lineterminator="\n")),
    }


def recorded_tables(folder: Path) -> dict[str, str]:
    """The checksums of the tables that the gate wrote into ``folder`` last, by name; none where it has not, or cannot tell."""
    try:
        found = json.loads((folder / FINDINGS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    tables = found.get("tables") if isinstance(found, dict) else None
    return {str(name): str(value) for name, value in tables.items()} if isinstance(tables, dict) else {}


def findings_text(run: Run, judgement: Judgement) -> str:
    """findings.json: the verdict and every check, also those that hold, with all the readings they rest on."""
    verdict = judgement.verdict
    findings = verdict.findings
    document = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.manifest.run_id,
        "verdict": str(findings[0].finding) if findings else verdict.exit_code.name.lower(),
        "exit_code": int(verdict.exit_code),
        "sentence": verdict.sentence,
        "policy": judgement.policy,
        **({"against": judgement.against} if judgement.against else {}),
        "tables": {name: digest(text().encode()) for name, text in derived_tables(run, judgement.fits).items()},
        "findings": [_plain(check) for check in findings],
        "checks": [_plain(check) for check in verdict.checks],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(check: Check) -> dict[str, object]:
    # JSON has no infinity; an amount without a limit has none.
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(check).items()
    }
    return {**values, "repeats": list(_over_repeats(check))}


def _over_repeats(check: Check) -> Iterator[dict[str, object]]:
    """For each point that the check rests on: how many runs were read, their least and most, and how far those lie apart."""
    amounts: dict[str, list[int]] = {}
    for one in check.readings:
        amounts.setdefault(one.point, []).append(one.amount_bytes)
    for point, read in amounts.items():
        least, most = min(read), max(read)
        yield {"point": point, "runs": len(read), "least_bytes": least, "most_bytes": most, "spread_bytes": most - least}
