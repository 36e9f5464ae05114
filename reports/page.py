"""What the page and the summary say, put together once so that both use the same words."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.judge import Check
from harness.judge.advice import Commands
from harness.judge.gate import Judgement
from harness.judge.table import Run
from harness.records import PRETENDED_NOTE, count_in_words, is_pretended, passed_over_in_words
from harness.words import count, format_bytes, plural

from . import tables
from .comparison import Comparison, comparison_of
from .plan import SWEPT
from .tables import Table
from .traced import TracedPoint, TracedRun, traced_run
from .view import RunView
from .words import limit_in_words, rate, unavailable, verdict_word

if TYPE_CHECKING:
    from .pictures import Picture  # matplotlib, which a summary does not need

OVERRULED = "Overruled: "
"""What a note begins with that tells how a quorum decided against single runs."""
BETTER = "Better than before: "
"""What a note begins with that tells of an amount below that of the code it was compared with,
beyond tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One check in words; the empty string where there is nothing to say."""

    kind: str
    """Kind of the finding, ``"holds"`` for a check that does."""
    rule: str
    sentence: str
    measured: str
    limit: str
    """With its side: ``"at most 5.2 MiB allowed"``."""
    because: str
    subject: str
    group: tuple[str, ...]
    """What checks that say nearly the same share: kind, rule, scenario, phase and meter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioTables:
    """The phases of one scenario: in short, and of every point."""

    scenario: str
    comparison: Table | None
    largest: Table
    points: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything there is to read about a run; plain text throughout."""

    run_id: str
    judgement: str
    """The id that all files of the judgement bear."""
    reproduce: str
    """The command that measures the same again."""
    judge_again: str
    make_again: str
    """The commands that judge it again by the same arguments, and that write the page of this
    judgement."""
    has_page: bool
    """Whether the run directory holds the page."""
    commit: str
    verdict_word: str
    tone: str
    """Name of the exit code in lower case."""
    exit_code: int
    sentence: str
    tally: str
    notes: tuple[str, ...]
    """What this run cannot show, and why."""
    pictures: tuple["Picture", ...]
    findings: tuple[Statement, ...]
    held: Mapping[str, tuple[Statement, ...]]
    """The checks that hold, by rule."""
    comparison: Comparison
    scenarios: tuple[ScenarioTables, ...]
    silent_meters: tuple[str, ...]
    outcomes: str
    odd_runs: Table
    runs: Table
    main_fits: Table
    fits: Table
    traced: TracedRun
    trace_pictures: tuple["Picture", ...]
    """Of the first of the traced points, in their order."""
    provenance: Mapping[str, tuple[tuple[str, str], ...]]
    """Headings, and below each what was recorded under which name."""


def make_page(
    view: RunView,
    judgement: Judgement,
    pictures: tuple["Picture", ...],
    *,
    has_page: bool = True,
    draw_traces: Callable[[tuple[TracedPoint, ...]], tuple["Picture", ...]] | None = None,
) -> Page:
    """The page of a run, from the run directory and its judgement alone.

    ``pictures`` and ``draw_traces``, which draws the timelines of the traces, are for a page that
    shows them.
    """
    run, verdict = view.run, judgement.verdict
    commands = Commands.of(run.path, run.manifest, judgement.asked)
    traced = traced_run(view, judgement)
    odd_runs, all_runs = tables.runs(view.ends)

    return Page(
        run_id=run.manifest.run_id,
        judgement=judgement.identity(run).id,
        reproduce=commands.measure(),
        judge_again=commands.gate(),
        make_again=commands.report(),
        has_page=has_page,
        commit=_commit(run.manifest.environment),
        verdict_word=verdict_word(verdict),
        tone=verdict.exit_code.name.lower(),
        exit_code=int(verdict.exit_code),
        sentence=_sentence(judgement),
        tally=_tally(len(verdict.checks), len(verdict.findings)),
        notes=(*_notes(view, judgement), *traced.notes),
        pictures=pictures,
        findings=tuple(_statement(check) for check in verdict.findings),
        held=_held(verdict.checks),
        comparison=comparison_of(verdict.checks),
        scenarios=tuple(_scenario_tables(view, scenario) for scenario in view.plan.scenarios),
        silent_meters=tuple(tables.silent_meters(view.phases)),
        outcomes=tables.outcomes(view.ends),
        odd_runs=odd_runs,
        runs=all_runs,
        main_fits=_main_fits(view, judgement),
        fits=tables.fits(judgement.fits, "Every fit"),
        traced=traced,
        trace_pictures=() if draw_traces is None else draw_traces(traced.points),
        provenance={
            heading: tuple(_pairs(values))
            for heading, values in _provenance(view, judgement).items()
        },
    )


def _held(checks: Sequence[Check]) -> dict[str, tuple[Statement, ...]]:
    """The checks that hold, by rule."""
    held: dict[str, list[Statement]] = {}
    for check in checks:
        if check.finding is None:
            held.setdefault(check.rule.replace("_", " "), []).append(_statement(check))
    return {rule: tuple(statements) for rule, statements in held.items()}


def _scenario_tables(view: RunView, scenario: str) -> ScenarioTables:
    return ScenarioTables(
        scenario=scenario,
        comparison=tables.comparison(view, scenario),
        largest=tables.phases_at_largest(view.phases, scenario),
        points=tables.phases_of_points(view.phases, scenario),
    )


def _main_fits(view: RunView, judgement: Judgement) -> Table:
    """The fits behind the pictures."""
    scenario = view.plan.main_scenario
    over = view.plan.swept_parameters.get(scenario, "")
    chosen = tables.main_fits(judgement.fits, scenario, over)
    return tables.fits(chosen, f"Growth over the {count_in_words(over) or 'size'}, {scenario}")


def _sentence(judgement: Judgement) -> str:
    """That of the verdict, and which two codes it compares, where it compares two."""
    against = judgement.against
    return (
        f"{judgement.verdict.sentence} {against[0].upper()}{against[1:]}."
        if against
        else judgement.verdict.sentence
    )


def _commit(environment: Mapping[str, object]) -> str:
    commit = environment.get("git_commit")
    if not commit:
        return unavailable("none was recorded")
    return (
        f"{commit}, with uncommitted changes"
        if environment.get("git_dirty") is True
        else str(commit)
    )


def _statement(check: Check) -> Statement:
    return Statement(
        kind="holds" if check.finding is None else str(check.finding).replace("_", " "),
        rule=check.rule.replace("_", " "),
        sentence=check.sentence,
        measured=_with_unit(check.measured, check.unit),
        limit=limit_in_words(_with_unit(check.limit, check.unit), check.bound),
        because=check.because,
        subject=check.subject,
        group=(str(check.finding), check.rule, check.scenario, check.phase, check.meter),
    )


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "B":
        return format_bytes(value)
    per = unit.removeprefix("B/")
    return rate(value, per) if per != unit else f"{value:,g} {unit}".strip()


def _tally(checks: int, findings: int) -> str:
    if not checks:
        return "No check applied."
    return (
        f"{count(checks, 'check')}: {checks - findings:,} hold, {findings:,} "
        f"{plural(findings, 'does', 'do')} not."
    )


def _notes(view: RunView, judgement: Judgement) -> Iterator[str]:
    """What a reader would otherwise miss without noticing."""
    run, points = view.run, view.plan.table
    if points.empty:
        yield "The run planned no points: there is nothing to show."
        return
    if run.phases["meter"].notna().sum() == 0:
        yield "The run holds no reading: no phase of any run was finished."
    if not (run.ends["outcome"] == "ok").any():
        yield "No run ended ok, so there is no peak of a whole run."
    for scenario, mine in points.groupby(points["scenario"].astype(str), sort=False):
        series = sorted(set(mine["series"]))
        if len(series) == 1 and str(scenario) in view.plan.with_loaders:
            yield (
                f"Scenario {scenario} has {series[0]} alone: there is nothing beside it to compare."
            )
    swept = points[points["device_budget_bytes"].isna()].dropna(subset=[SWEPT])
    sizes = swept.groupby(["scenario", "series"], sort=False)[SWEPT].nunique()
    over = view.plan.swept_parameters
    for scenario, name in sizes[sizes == 1].index:
        counted = count_in_words(over[scenario])
        # A series without a loader begins with the name of its scenario.
        others = str(name).removeprefix(str(scenario)).removeprefix(", ")
        subject = f"{scenario}, {others}" if others else scenario
        yield (
            f"Scenario {subject}: one {counted} was planned, so there is no slope and no class "
            "of growth."
        )
    if judgement.fits.empty:
        yield "No fit: no phase was finished at two sizes."
    yield from _notes_of_the_judgement(run, judgement)


def _notes_of_the_judgement(run: Run, judgement: Judgement) -> Iterator[str]:
    if judgement.verdict.without_limits:
        yield f"{judgement.verdict.without_limits[0].upper()}{judgement.verdict.without_limits[1:]}"
    yield from _notes_on_device(run)
    if run.manifest.ended is None:
        yield "The run has no recorded end: it is still going, or was broken off."
    yield from (f"{OVERRULED}{check.sentence}" for check in judgement.verdict.overruled)
    yield from (f"{BETTER}{check.sentence}" for check in judgement.verdict.better)
    yield from (f"Unusable in the run directory: {problem}" for problem in run.problems)


def _notes_on_device(run: Run) -> Iterator[str]:
    if why := run.manifest.device.passed_over:
        said = passed_over_in_words(why)
        yield f"{said[0].upper()}{said[1:]}."
    if is_pretended(run.manifest.device.name):
        yield PRETENDED_NOTE


def _provenance(view: RunView, judgement: Judgement) -> dict[str, Mapping[str, object]]:
    run, shared = view.run, view.plan.shared_budget_bytes
    manifest = run.manifest
    return {
        "Run": {
            "run": manifest.run_id,
            "started": manifest.started,
            "ended": manifest.ended or "unavailable, because the run has no recorded end",
            "command": manifest.command,
            "points": len(run.points),
            "repeats": manifest.repeats,
        },
        "Judgement": {
            **{
                name: value
                for name, value in judgement.identity(run).to_json().items()
                if name != "checks"
            },
            **{
                f"asked for {name}": value
                for name, value in judgement.asked.to_json().items()
                if name not in ("partial", "by_pytest", "baselines_typed")
            },
        },
        **(
            {"Code": manifest.code.model_dump(exclude={"folder"})}
            if manifest.code is not None
            else {}
        ),
        **(
            {"Compared with": manifest.against.model_dump(exclude={"folder"})}
            if manifest.against is not None
            else {}
        ),
        "Device": {
            **manifest.device.model_dump(),
            **({"asked_for_by_every_point_bytes": shared} if shared else {}),
        },
        "Environment": manifest.environment,
        "A baseline has to share": manifest.comparability,
        "Settings": manifest.settings,
    }


def _pairs(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        label = name.removesuffix("_bytes").replace("_", " ")
        if value is None or value == "":
            yield label, "none recorded"
        elif isinstance(value, bool):
            yield label, "yes" if value else "no"
        elif isinstance(value, int) and name.endswith("_bytes"):
            yield label, f"{format_bytes(value)} ({value:,} B)"
        else:
            yield (
                label,
                value
                if isinstance(value, str)
                else json.dumps(value, ensure_ascii=False, default=str),
            )
