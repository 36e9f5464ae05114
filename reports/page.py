"""What the page and the summary say, put together once so that both use the same words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.judge.advice import Commands
from harness.judge.gate import Judgement
from harness.records import count_in_words
from harness.words import count, plural

from . import tables
from .cards import Card, cards_of, peaks_in_words, shortened
from .cause_cards import CauseCard, cause_cards, other_findings
from .comparison import Comparison, comparison_of
from .curves import Panel, run_panels, worth_drawing
from .earlier import Earlier, earlier_of
from .header import Answer, Header, answers_of, header_of
from .history import Past, past_of
from .notes import notes_of, provenance_of
from .statements import Statement, statement
from .tables import Table
from .traced import TracedPoint, TracedRun, traced_run
from .view import RunView
from .words import plain, unavailable, verdict_word

if TYPE_CHECKING:
    from .pictures import Picture  # matplotlib, which a summary does not need

OVERRULED = "Overruled: "
"""What a note of the summary begins with that tells how a quorum decided against single runs."""
BETTER = "Better than before: "
"""What a note of the summary begins with that tells of an amount below that of the code it was
compared with, beyond tolerance."""


_MOST_SCENARIOS = 12
"""Names that the verdict says. Chosen: a line or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioTables:
    """The phases of one scenario: in short, and of every point."""

    scenario: str
    comparison: Table | None
    points: int
    """Rows that were read of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawings:
    """How the page draws; a summary has none of it."""

    panels: Callable[[Sequence[Panel]], tuple["Picture", ...]]
    traces: Callable[[tuple[TracedPoint, ...]], tuple["Picture", ...]]


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
    header: Header
    answers: tuple[Answer, ...]
    cards: tuple[Card, ...]
    causes: tuple[CauseCard, ...]
    findings: tuple[Statement, ...]
    """All of them, the gravest first."""
    others: tuple[Statement, ...]
    """The findings that are in no cause."""
    held: Mapping[str, tuple[int, int]]
    """By rule, how many checks hold, and how many there are."""
    panels: tuple["Picture", ...]
    """The scaling of every scenario."""
    panels_left_out: int
    """Plots that there is no room for."""
    cause_pictures: Mapping[str, "Picture"]
    """By the id of the cause."""
    comparison: Comparison
    past: Past | None
    """None where nobody asked for it, as in a summary."""
    cannot_show: tuple[str, ...]
    """What this run cannot show, and why."""
    overruled: tuple[str, ...]
    better: tuple[str, ...]
    scenarios: tuple[ScenarioTables, ...]
    silent_meters: tuple[str, ...]
    outcomes: str
    odd_runs: Table
    main_fits: Table
    traced: TracedRun
    trace_pictures: tuple["Picture", ...]
    """Of the first of the traced points, in their order."""
    provenance: Mapping[str, tuple[tuple[str, str], ...]]
    """Headings, and below each what was recorded under which name."""

    @property
    def notes(self) -> tuple[str, ...]:
        """As the summary has them: what single runs and better amounts have to say among them."""
        return (
            *self.cannot_show,
            *(f"{OVERRULED}{sentence}" for sentence in self.overruled),
            *(f"{BETTER}{sentence}" for sentence in self.better),
        )


def make_page(
    view: RunView,
    judgement: Judgement,
    *,
    has_page: bool = True,
    drawings: Drawings | None = None,
    earlier_runs: Sequence[Path] = (),
) -> Page:
    """The page of a run: from the run directory and its judgement, and from what it was compared
    with, as far as that still lies there.

    ``drawings`` are for a page that shows pictures and the past; ``earlier_runs`` are folders of
    runs for its history.
    """
    run, verdict = view.run, judgement.verdict
    commands = Commands.of(run.path, run.manifest, judgement.asked)
    traced = traced_run(view, judgement)
    earlier = earlier_of(run, judgement)
    panels = run_panels(view, judgement, earlier)
    shown = worth_drawing(panels)
    cards = cards_of(view, judgement, earlier, shown)
    causes = cause_cards(view, judgement)
    outcomes = tables.outcomes(view.ends)

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
        header=header_of(view, judgement, earlier),
        answers=answers_of(
            judgement,
            judgement.causes,
            earlier,
            peaks=peaks_in_words(cards),
            scenarios=_scenarios_in_words(view.plan.scenarios),
        ),
        cards=cards,
        causes=causes,
        findings=tuple(statement(check) for check in verdict.findings),
        others=other_findings(judgement),
        held=_held(judgement),
        panels=() if drawings is None else drawings.panels(shown),
        panels_left_out=len(panels) - len(shown),
        cause_pictures={} if drawings is None else _cause_pictures(causes, drawings),
        comparison=_comparison(view, judgement, earlier),
        past=None if drawings is None else past_of(view, judgement, earlier_runs),
        cannot_show=(*notes_of(view, judgement), *traced.notes),
        overruled=tuple(check.sentence for check in verdict.overruled),
        better=tuple(check.sentence for check in verdict.better),
        scenarios=tuple(_scenario_tables(view, scenario) for scenario in view.plan.scenarios),
        silent_meters=tuple(tables.silent_meters(view.phases)),
        outcomes=outcomes,
        odd_runs=tables.odd_runs(view.ends),
        main_fits=_main_fits(view, judgement),
        traced=traced,
        trace_pictures=() if drawings is None else drawings.traces(traced.points),
        provenance=provenance_of(view, judgement),
    )


def _scenarios_in_words(names: Sequence[str]) -> str:
    """``"2 scenarios: loading, arrays"``."""
    if not names:
        return "no scenario was planned"
    shown = ", ".join(shortened(name) for name in names[:_MOST_SCENARIOS])
    more = len(names) - _MOST_SCENARIOS
    return f"{count(len(names), 'scenario')}: {shown}{f', and {more:,} more' if more > 0 else ''}"


def _held(judgement: Judgement) -> dict[str, tuple[int, int]]:
    """By rule, how many checks hold, and how many there are."""
    held: dict[str, tuple[int, int]] = {}
    for check in judgement.verdict.checks:
        rule = plain(check.rule)
        holds, all_of_it = held.get(rule, (0, 0))
        held[rule] = (holds + (check.finding is None), all_of_it + 1)
    return held


def _cause_pictures(causes: Sequence[CauseCard], drawings: Drawings) -> dict[str, "Picture"]:
    drawn = {cause.id: cause.panel for cause in causes if cause.panel is not None}
    return dict(zip(drawn, drawings.panels(list(drawn.values())), strict=True))


def _comparison(view: RunView, judgement: Judgement, earlier: Earlier) -> Comparison:
    then = None if earlier.run is None else earlier.run.manifest
    return comparison_of(judgement.verdict.checks, now=view.run.manifest, then=then)


def _scenario_tables(view: RunView, scenario: str) -> ScenarioTables:
    return ScenarioTables(
        scenario=scenario,
        comparison=tables.comparison(view, scenario),
        points=int((view.phases["scenario"] == scenario).sum()),
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


def _tally(checks: int, findings: int) -> str:
    if not checks:
        return "No check applied."
    return (
        f"{count(checks, 'check')}: {checks - findings:,} hold, {findings:,} "
        f"{plural(findings, 'does', 'do')} not."
    )
