"""What a run cannot show, and where its numbers come from."""

import json
from collections.abc import Iterator, Mapping

from harness.judge.gate import Judgement
from harness.judge.table import Run
from harness.records import PRETENDED_NOTE, count_in_words, is_pretended, passed_over_in_words
from harness.words import format_bytes

from .plan import SWEPT
from .view import RunView


def notes_of(view: RunView, judgement: Judgement) -> Iterator[str]:
    """What the run cannot show, and a reader would otherwise miss without noticing."""
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
    yield from (f"Unusable in the run directory: {problem}" for problem in run.problems)


def _notes_on_device(run: Run) -> Iterator[str]:
    if why := run.manifest.device.passed_over:
        said = passed_over_in_words(why)
        yield f"{said[0].upper()}{said[1:]}."
    if is_pretended(run.manifest.device.name):
        yield PRETENDED_NOTE


def provenance_of(view: RunView, judgement: Judgement) -> dict[str, tuple[tuple[str, str], ...]]:
    """Headings, and below each what was recorded under which name."""
    return {
        heading: tuple(_pairs(values)) for heading, values in _recorded(view, judgement).items()
    }


def _recorded(view: RunView, judgement: Judgement) -> dict[str, Mapping[str, object]]:
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
