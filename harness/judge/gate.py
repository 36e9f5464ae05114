"""Run, policy and baseline -> judgement, and the files that hold it."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.judge.baseline import find
from harness.judge.completeness import take_census
from harness.judge.files import write_text
from harness.judge.junit import junit_text
from harness.judge.policy import Policy
from harness.judge.rules import RULES
from harness.judge.rules.evidence import Evidence, fit_key
from harness.judge.scaling import fit_run, fits_table
from harness.judge.table import Run, amounts_by_place, write_phases
from harness.judge.verdict import Check, Verdict

FITS_FILE = "fits.csv"
FINDINGS_FILE = "findings.json"
JUNIT_FILE = "junit.xml"

SCHEMA_VERSION = 1
"""Version of findings.json."""


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The verdict and the fits it rests on (a table as fits.csv has it)."""

    verdict: Verdict
    fits: pd.DataFrame


def judge(run: Run, policy: Policy, baselines_folder: Path, *, partial: bool = False) -> Judgement:
    """Apply every rule. The order of the run's rows changes nothing.

    With ``partial`` only what the run planned is asked for: points of the baseline and rules without a point in it do
    not count as missing. Raises BaselineError when the baseline's file is damaged.
    """
    fits = fit_run(run)
    evidence = Evidence(
        run=run,
        policy=policy,
        fits={fit_key(fit.series, fit.phase, fit.meter, fit.field): fit for fit in fits},
        amounts=amounts_by_place(run.phases),
        census=take_census(run),
        baseline=find(baselines_folder, run.manifest.comparability),
        baselines_folder=baselines_folder,
        partial=partial,
    )
    checks = tuple(check for rule in RULES for check in rule(evidence))
    return Judgement(Verdict(checks), fits_table(fits))


def write_judgement(run: Run, judgement: Judgement) -> None:
    """Write phases.csv, fits.csv, findings.json and junit.xml into the run directory, each in one step.

    Raises RunDirectoryError when one cannot be written.
    """
    write_phases(run)
    write_text(run.path / FITS_FILE, judgement.fits.to_csv(index=False, lineterminator="\n"))
    write_text(run.path / FINDINGS_FILE, findings_text(run, judgement.verdict))
    write_text(run.path / JUNIT_FILE, junit_text(run.manifest.run_id, judgement.verdict))


def findings_text(run: Run, verdict: Verdict) -> str:
    """findings.json: the verdict and every check, also those that hold."""
    findings = verdict.findings
    document = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.manifest.run_id,
        "verdict": str(findings[0].finding) if findings else verdict.exit_code.name.lower(),
        "exit_code": int(verdict.exit_code),
        "sentence": verdict.sentence,
        "findings": [_plain(check) for check in findings],
        "checks": [_plain(check) for check in verdict.checks],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(check: Check) -> dict[str, object]:
    # JSON has no infinity; an amount without a limit has none.
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(check).items()
    }
