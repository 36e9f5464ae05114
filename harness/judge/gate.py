"""Run, policy and baseline -> judgement, and the texts that hold it."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.judge import (
    NONE,
    UNPROMISED,
    Check,
    FindingKind,
    Identity,
    RuleName,
    Seen,
    Verdict,
    identity,
    junit_text,
    program_version,
    run_digest,
    value_digest,
)
from harness.judge.advice import Asked, Commands
from harness.judge.baseline import Against, Baseline, with_tolerances
from harness.judge.baseline_file import holding, readable_baselines, with_possible_advice
from harness.judge.causes import Cause, causes_from_json, causes_to_json
from harness.judge.causes.telling import causes_of
from harness.judge.completeness import count_runs, read_traces
from harness.judge.growth import Fit, fit_run, fits_table
from harness.judge.policy import DEFAULT_POLICY, RUNS_OWN, Policy
from harness.judge.rules import apply_rules, rule_of
from harness.judge.rules.evidence import Evidence, fit_key
from harness.judge.table import PHASES_FILE, Run, declared_by_point, phases_text, readings_by_place
from harness.meters import DEVICE_IN_USE
from harness.records import PoolKind
from harness.rundir.manifest import Manifest
from harness.rundir.reading import digest, edited_in_words, edited_tables, table_digests
from harness.system import FINDINGS_FILE, write_text

if TYPE_CHECKING:
    import pandas as pd


# Points of tests that are skipped or expected to fail: pytest and the gate treat them alike.


def park(run: Run, checks: Sequence[Check]) -> Iterator[Check]:
    """The checks, without findings about parked points alone: those hold, and their sentence says
    why.

    A run in which nothing was measured is no pass, whatever was skipped.
    """
    parked = run.parked if run.run_ends else {}
    for check in checks:
        points = set(check.points) | ({check.point} if check.point else set())
        if check.finding is None or not points or not points <= set(parked):
            yield check
        else:
            why = parked[sorted(points)[0]]
            yield dataclasses.replace(
                check,
                finding=None,
                remeasure=False,
                decision="",
                parked=why,
                sentence=f"parked ({why}): {check.sentence}",
            )


# What tests promise by their markers has limits and no tolerances: where their runs are compared
# with baselines all the same.


def comparing(run: Run, policy: Policy, folder: Path, *, named: bool) -> Policy:
    """The policy to hold a run against baselines by: of tests with the default tolerances, where
    there are baselines of theirs.

    A project that has accepted none is compared with nothing, unless ``named``: somebody has typed
    the folder. Baselines for another device or TensorFlow count too, as nobody would notice that
    nothing is compared any more.
    """
    if is_of_tests(policy, run.manifest) and (
        named or any(_is_of_run(baseline, run) for _, baseline in readable_baselines(folder))
    ):
        return with_tolerances(policy)
    return policy


def acceptable(policy: Policy, manifest: Manifest) -> Policy:
    """The policy to accept a run by: the one that the next run will be compared by."""
    return with_tolerances(policy) if is_of_tests(policy, manifest) else policy


def is_of_tests(policy: Policy, manifest: Manifest) -> bool:
    """Whether it is what tests have brought along: their markers' limits, or nothing where they
    assert for themselves.
    """
    return policy.source == RUNS_OWN or (
        not policy.promises and bool(manifest.settings.get("judged_by_pytest", False))
    )


def _is_of_run(baseline: Baseline, run: Run) -> bool:
    """A project with a policy has sweeps, whose baselines are none of a test's; without one all are
    of its tests.
    """
    return not DEFAULT_POLICY.exists() or any(point.name in baseline.point for point in run.points)


FITS_FILE = "fits.csv"

SCHEMA_VERSION = 4
"""Version of findings.json."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """The verdict and the fits that it rests on."""

    verdict: Verdict
    run_fits: tuple[Fit, ...]
    policy: str = "the policy"
    """Where the policy came from."""
    against: str = ""
    """Which two codes were compared, in a sentence; empty where it was a baseline."""
    asked: Asked = field(default_factory=Asked)
    """The arguments that it was made with."""
    baseline_commits: tuple[str, ...] = ()
    """The commits at which its points were accepted, as the baseline has them; empty where it was
    compared with no baseline."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Checksums of ``policy``, ``baseline`` and ``against``, as far as there are any."""
    causes: tuple[Cause, ...] = ()
    """What the findings come from, the gravest first; each finding is in one of them."""

    @cached_property
    def fits(self) -> "pd.DataFrame":
        """The fits as a table, as fits.csv has it."""
        return fits_table(self.run_fits)

    def identity(self, run: Run) -> Identity:
        """What tells it from all other judgements of the run, and of other runs."""
        checks = [_plain(check) for check in self.verdict.checks]
        concluded = [*checks, *causes_to_json(self.causes, self.verdict.checks)]
        return identity(run.path, self.sources, partial=self.asked.partial, checks=concluded)


def judge(
    run: Run,
    policy: Policy,
    baselines_folder: Path,
    *,
    partial: bool = False,
    against: Against | None = None,
    asked: Asked | None = None,
) -> Judgement:
    """Apply every rule. The order of rows changes nothing; points that were measured again are
    decided by a quorum.

    With ``partial`` only what the run planned is asked for: points of the baseline and rules
    without a point in it do not count as missing. With ``against`` the run is compared with what
    was measured beside it, instead of a baseline from the folder. ``asked`` are the arguments that
    advice repeats. Raises BaselineError when the baseline's file is damaged.
    """
    asked = asked or Asked(baselines=baselines_folder, partial=partial)
    if against is not None:
        policy = with_tolerances(policy)
    else:
        policy = comparing(run, policy, baselines_folder, named=asked.baselines_typed)
    policy = policy.for_run(run.points, grows=_grows(run))
    fits = fit_run(run)
    baseline = (
        holding(baselines_folder, run.manifest.comparability)
        if against is None
        else against.baseline
    )
    evidence = Evidence(
        run=run,
        policy=policy,
        fits={fit_key(fit.series, fit.phase, fit.meter, fit.field): fit for fit in fits},
        readings=readings_by_place(run),
        declared=declared_by_point(run),
        census=count_runs(run),
        baseline=baseline,
        against=against,
        baselines_folder=baselines_folder,
        traces=cache(lambda: read_traces(run).found),
        partial=partial,
        commands=Commands.of(run.path, run.manifest, asked),
    )
    return _judgement_of(evidence, _checks(evidence, fits), fits, asked)


def _grows(run: Run) -> bool:
    return run.manifest.device.pool is PoolKind.GROWN


def _checks(evidence: Evidence, fits: tuple[Fit, ...]) -> tuple[Check, ...]:
    """Every check of the run, with its sentence."""
    run, policy = evidence.run, evidence.policy
    checks = (*park(run, tuple(apply_rules(evidence))), *_edited(run, fits))
    if _grows(run):
        checks = tuple(map(_with_quantum, checks))
    checks = (*checks, *_without_limits(run, checks, policy, partial=evidence.partial))
    return with_possible_advice(checks, run, policy, evidence.commands)


def _judgement_of(
    evidence: Evidence, checks: tuple[Check, ...], fits: tuple[Fit, ...], asked: Asked
) -> Judgement:
    return Judgement(
        verdict=Verdict(checks),
        run_fits=fits,
        policy=evidence.policy.source,
        against="" if evidence.against is None else evidence.against.sentence,
        asked=asked,
        baseline_commits=_baseline_commits(evidence),
        sources=_sources(evidence),
        causes=causes_of(checks, evidence),
    )


def _baseline_commits(evidence: Evidence) -> tuple[str, ...]:
    if evidence.baseline is None or evidence.against is not None:
        return ()
    accepted = evidence.baseline.point
    names = (point.name for point in evidence.run.points)
    return tuple(sorted({accepted[name].accepted.commit for name in names if name in accepted}))


def _sources(evidence: Evidence) -> dict[str, str]:
    """The checksums of what a run was held against."""
    policy, baseline, against = evidence.policy, evidence.baseline, evidence.against
    other = None if against is None else against.run
    return {
        "policy": value_digest([policy.source, policy.model_dump(mode="json")]),
        "baseline": NONE
        if baseline is None or against is not None
        else value_digest(baseline.model_dump(mode="json")),
        "against": NONE if other is None else run_digest(other.path),
    }


def _with_quantum(check: Check) -> Check:
    """A finding about live tensors in a pool that grew: who reads it must know how coarse its
    readings are.
    """
    if (
        check.finding is None
        or not rule_of(check.rule).holds_a_limit
        or check.meter != DEVICE_IN_USE
    ):
        return check
    quantum = (
        "The pool grew on demand, where a tensor may count as up to twice its bytes; without "
        "--memory-growth it is exact."
    )
    return dataclasses.replace(check, sentence=f"{check.sentence} {quantum}")


def _without_limits(
    run: Run, checks: Sequence[Check], policy: Policy, *, partial: bool
) -> Iterator[Check]:
    """What to say of a run that no amount of was held against a limit.

    Rules that do not apply to what was measured are no pass, and nor is a sweep that nothing
    promises anything of. Tests that measure assert for themselves: how their runs ended is judged,
    and that nothing else was is said.
    """
    limited = any(rule_of(check.rule).holds_a_limit for check in checks)
    nothing_promised = not policy.promises
    by_tests = bool(run.manifest.settings.get("judged_by_pytest", False))
    wrong = any(check.finding for check in checks)
    if not limited and ((nothing_promised and (by_tests or wrong)) or (by_tests and partial)):
        why = "none was promised" if nothing_promised else "none is about what was selected"
        sentence = (
            f"limits: {why}, so that only how the runs ended, and whether all was measured, was "
            "judged."
        )
        yield Check(rule=RuleName.COVERAGE, subject=UNPROMISED, sentence=sentence)
    elif not limited and not wrong:
        if nothing_promised:
            sentence = (
                "nothing promises what this run may cost, so nothing was held against a "
                "limit; name a file of limits with --policy, or compare with another run "
                "(--against)"
            )
        else:
            sentence = (
                f"no rule of {policy.source} applies to what was measured, so nothing was held "
                "against a limit: measure what its rules are about (sizes that a rule with "
                "only_if_swept needs among it), or give it a rule about this"
            )
        yield Check(
            rule=RuleName.COVERAGE,
            subject=policy.source,
            sentence=f"{sentence}.",
            finding=FindingKind.INCOMPLETE,
        )


def _edited(run: Run, fits: tuple[Fit, ...]) -> Iterator[Check]:
    for name in edited_tables(run.path, table_texts(run, fits), table_digests(run.path)):
        yield Check(
            rule=RuleName.COVERAGE,
            subject=name,
            sentence=f"{edited_in_words(name)}.",
            finding=FindingKind.INCOMPLETE,
        )


def write_tables(run: Run, judgement: Judgement) -> None:
    """Write phases.csv and fits.csv into the run directory, each in one step: what was read,
    whoever judges it.

    A table that somebody has edited is left as it is; the verdict says so. Raises RunDirectoryError
    when one cannot be written.
    """
    tables = table_texts(run, judgement.run_fits)
    edited = edited_tables(run.path, tables, table_digests(run.path))
    for name, text in tables.items():
        if name not in edited:
            write_text(run.path / name, text())


def junit_of(run: Run, judgement: Judgement) -> str:
    """The text of junit.xml."""
    return junit_text(run.manifest.run_id, judgement.verdict, judgement=judgement.identity(run).id)


def table_texts(run: Run, fits: tuple[Fit, ...]) -> dict[str, Callable[[], str]]:
    """What makes the tables of the run directory from its rows, by the names of their files."""
    return {
        PHASES_FILE: cache(lambda: phases_text(run)),
        FITS_FILE: cache(lambda: fits_table(fits).to_csv(index=False, lineterminator="\n")),
    }


def findings_text(run: Run, judgement: Judgement) -> str:
    """findings.json: the verdict and every check, also those that hold, with all the readings they
    rest on.
    """
    verdict = judgement.verdict
    findings = verdict.findings
    document = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.manifest.run_id,
        "judgement": {**judgement.identity(run).to_json(), "asked": judgement.asked.to_json()},
        "verdict": str(findings[0].finding) if findings else verdict.exit_code.name.lower(),
        "exit_code": int(verdict.exit_code),
        "sentence": verdict.sentence,
        "policy": judgement.policy,
        **({"against": judgement.against} if judgement.against else {}),
        "baseline_commits": list(judgement.baseline_commits),
        "tables": {
            name: digest(text().encode())
            for name, text in table_texts(run, judgement.run_fits).items()
        },
        "causes": causes_to_json(judgement.causes, verdict.checks),
        "findings": [_plain(check) for check in findings],
        "checks": [_plain(check) for check in verdict.checks],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(check: Check) -> dict[str, Any]:
    # JSON has no infinity; an amount without a limit has none.
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(check).items()
    }
    return {**values, "repeats": list(_over_repeats(check))}


def _over_repeats(check: Check) -> Iterator[dict[str, object]]:
    """For each point that the check rests on: how many runs were read, their least and most, and
    how far those lie apart.
    """
    amounts: dict[str, list[int]] = {}
    for one in check.readings:
        amounts.setdefault(one.point, []).append(one.amount_bytes)
    for point, amounts_bytes in amounts.items():
        least, most = min(amounts_bytes), max(amounts_bytes)
        yield {
            "point": point,
            "runs": len(amounts_bytes),
            "least_bytes": least,
            "most_bytes": most,
            "spread_bytes": most - least,
        }


# A judgement read back from findings.json, so that a page can be made of what was judged and of
# nothing else.


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What findings.json of a run directory holds."""

    judgement: Judgement | None
    """None where it cannot be used."""
    asked: Asked
    """The arguments of that judgement, as far as they can be read; else the defaults."""
    why_not: str = ""


def kept_judgement(run: Run) -> Kept:
    """The judgement in a run directory, if it is complete, of this run, and what this program
    would have found.
    """
    document = _document(run.path / FINDINGS_FILE)
    if document is None:
        return Kept(judgement=None, asked=Asked(), why_not=f"{run.path} was not judged yet")
    asked = _asked(document)
    if (why := foreign(document, run.path)) or asked is None:
        return Kept(judgement=None, asked=asked or Asked(), why_not=why or "it is damaged")
    if document["judgement"].get("version") != program_version():
        why = f"{FINDINGS_FILE} is of another version of this program"
        return Kept(judgement=None, asked=asked, why_not=why)
    try:
        judgement = _judgement(document, run, asked)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Kept(judgement=None, asked=asked, why_not=f"{FINDINGS_FILE} is damaged ({error!r})")
    if judgement.identity(run).id != document["judgement"]["id"]:
        return Kept(
            judgement=None,
            asked=asked,
            why_not=f"{FINDINGS_FILE} was edited",
        )
    return Kept(judgement=judgement, asked=asked)


def foreign(document: Mapping[str, Any], folder: Path) -> str:
    """Why findings are not those of the run as it lies in ``folder`` now; empty where they are."""
    if document.get("schema_version") != SCHEMA_VERSION:
        return (
            f"{FINDINGS_FILE} is of version {document.get('schema_version')!r}, and this "
            f"program reads {SCHEMA_VERSION}"
        )
    identity = document.get("judgement")
    said = identity.get("run") if isinstance(identity, dict) else None
    try:
        is_of_run = said == run_digest(folder)
    except OSError:
        is_of_run = False
    if is_of_run:
        return ""
    return (
        f"{FINDINGS_FILE} is not of this run as it is now: it was copied from another one, or "
        "more was measured since"
    )


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _asked(document: Mapping[str, Any]) -> Asked | None:
    try:
        return Asked.from_json(document["judgement"]["asked"])
    except (KeyError, TypeError):
        return None


def _judgement(document: Mapping[str, Any], run: Run, asked: Asked) -> Judgement:
    identity = document["judgement"]
    checks = tuple(map(_check, document["checks"]))
    return Judgement(
        verdict=Verdict(checks),
        run_fits=fit_run(run),
        policy=str(document["policy"]),
        against=str(document.get("against", "")),
        asked=asked,
        baseline_commits=tuple(map(str, document.get("baseline_commits", ()))),
        sources={name: str(identity[name]) for name in ("policy", "baseline", "against")},
        causes=causes_from_json(document["causes"], checks),
    )


def _check(found: Mapping[str, Any]) -> Check:
    values = {each.name: found[each.name] for each in fields(Check)}
    return Check(
        **{
            **values,
            "rule": RuleName(values["rule"]),
            "finding": None if values["finding"] is None else FindingKind(values["finding"]),
            "points": tuple(values["points"]),
            "readings": tuple(Seen(**one) for one in values["readings"]),
        }
    )
