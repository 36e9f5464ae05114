"""What was alive at the peak, out of the traces of a run: sentences and tables for the points worth
reading first.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.judge.completeness import agreement, recording_in_words, refusal_in_words
from harness.judge.gate import Judgement
from harness.judge.table import Run
from harness.rundir.traces import Alive, Trace, TracedPhase
from harness.words import SMALL_SHARE, count, format_bytes

from .plan import SWEPT, Plan
from .tables import Table
from .view import RunView
from .words import plain

_MOST_GROUPS = 5
"""Rows for one moment; the rest is summed up in one more, and so is what is less than a hundredth
of all. Chosen: what a reader takes in, and the largest are what matters."""
_COLUMNS = ("operation", "shape", "type", "count", "each", "together", "as large as")
_AMOUNTS = frozenset({"count", "each", "together"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPoint:
    """One trace in words and tables."""

    point: str
    trace: Trace
    headline: str
    """The highest moment of the run, in one sentence."""
    sentences: tuple[str, ...]
    """How the trace was recorded, and whether it agrees with the untraced repeats."""
    refusal: str
    """Where memory ran out: what was asked for, with how much in use; else empty."""
    refused: Table | None
    """What was alive then."""
    peaks: Table
    """What was alive at the peak of each phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRun:
    """All traces of a run; nothing at all where none was planned."""

    points: tuple[TracedPoint, ...]
    """Those worth reading first: of findings, then of each series at its largest number of
    images."""
    overview: Table
    """One row for every trace."""
    notes: tuple[str, ...]
    """Which points have none, and why."""
    planned: bool


def traced_run(view: RunView, judgement: Judgement) -> TracedRun:
    """The traces of a run, and which of them are worth reading first."""
    run, traces = view.run, view.traces
    chosen = _chosen(view.plan, judgement, traces.found)
    return TracedRun(
        points=tuple(_traced_point(traces.found[name], run) for name in chosen),
        overview=_overview(traces.found.values()),
        notes=tuple(traces.notes),
        planned=bool(run.manifest.settings.get("traces")),
    )


def highest(trace: Trace) -> TracedPhase | None:
    """The phase with the highest requested peak, the first of equals; None where nothing was ever
    requested.
    """
    phases = [phase for phase in trace.phases if phase.requested.peak_bytes]
    return max(phases, key=lambda phase: phase.requested.peak_bytes, default=None)


def _chosen(plan: Plan, judgement: Judgement, found: Iterable[str]) -> list[str]:
    """Names of the points to show: those of findings, then each series of each scenario at its
    largest count.
    """
    there = set(found)
    table = plan.table
    table = table[table["point"].isin(there)].sort_values(
        SWEPT, ascending=False, na_position="last", kind="stable"
    )
    names = [check.point for check in judgement.verdict.findings if check.point in there]
    for check in judgement.verdict.findings:
        mine = table[
            (table["scenario"] == check.scenario) & table["series"].isin(check.subject.split(" / "))
        ]
        names += list(mine["point"].head(1))
    largest = table.groupby(["scenario", "series"], sort=False)["point"].first()
    order = {point.name: place for place, point in enumerate(plan.points)}
    return list(dict.fromkeys([*names, *sorted(largest, key=lambda name: order[name])]))


def _traced_point(trace: Trace, run: Run) -> TracedPoint:
    refused = trace.out_of_memory
    return TracedPoint(
        point=trace.point,
        trace=trace,
        headline=_headline(trace),
        sentences=(agreement(trace, run), recording_in_words(trace)),
        refusal=""
        if refused is None
        else refusal_in_words(refused, trace.limit_bytes, reason=_reason(run, trace.point)),
        refused=None
        if refused is None
        else _table("What was alive when memory ran out", "", [("", _rows(refused.alive))]),
        peaks=_table(
            "What was alive at the peak of each phase",
            "phase",
            [
                (
                    f"{plain(phase.phase)}, {format_bytes(phase.requested.peak_bytes)}",
                    _rows(phase.alive),
                )
                for phase in trace.phases
            ],
        ),
    )


def _reason(run: Run, point: str) -> str:
    end = run.traces.get(point)
    return "" if end is None else end.reason


def _headline(trace: Trace) -> str:
    phase = highest(trace)
    if phase is None:
        return "Nothing was allocated on the device in any phase."
    ranked = _ranked(phase.alive)
    if not ranked:
        return (
            f"The device held most in {plain(phase.phase)}, "
            f"{format_bytes(phase.requested.peak_bytes)} as requested."
        )
    first, *rest = ranked
    is_large = rest and rest[0].total_bytes >= SMALL_SHARE * phase.requested.peak_bytes
    others = f"; the next is {rest[0].sentence}" if is_large else ""
    return (
        f"The device held most in {plain(phase.phase)}, "
        f"{format_bytes(phase.requested.peak_bytes)} as requested. The largest part of it "
        f"was {first.sentence}{others}."
    )


def _ranked(alive: Sequence[Alive]) -> list[Alive]:
    """The largest total first, whatever order the file has them in."""
    return sorted(alive, key=lambda one: (-one.total_bytes, one.short))


def _rows(alive: Sequence[Alive]) -> Iterator[tuple[str, ...]]:
    """The largest groups, then all others in one row; what is nothing is said."""
    if not alive:
        yield ("nothing", "", "", "0", "", format_bytes(0), "")
    ranked = _ranked(alive)
    least_bytes = SMALL_SHARE * sum(one.total_bytes for one in ranked)
    shown = [
        *ranked[:1],
        *(one for one in ranked[1:_MOST_GROUPS] if one.total_bytes >= least_bytes),
    ]
    for one in shown:
        yield (
            one.op or "none named",
            one.shape or "unknown",
            one.dtype or "unknown",
            f"{one.count:,}",
            format_bytes(one.each_bytes),
            format_bytes(one.total_bytes),
            one.like,
        )
    others = ranked[len(shown) :]
    if others:
        number, total = sum(one.count for one in others), sum(one.total_bytes for one in others)
        yield (
            f"{count(len(others), 'other kind')}",
            "",
            "",
            f"{number:,}",
            "",
            format_bytes(total),
            "",
        )


def _table(
    caption: str, first: str, blocks: Iterable[tuple[str, Iterable[tuple[str, ...]]]]
) -> Table:
    """Blocks of rows under one heading column, or without it where ``first`` is empty."""
    rows = [(heading, *row) if first else row for heading, block in blocks for row in block]
    return Table(
        caption=caption,
        columns=((first, *_COLUMNS) if first else _COLUMNS),
        rows=tuple(rows),
        amounts=_AMOUNTS,
    )


def _overview(traces: Iterable[Trace]) -> Table:
    columns = (
        "point",
        "peak as requested",
        "of the allocator",
        "in phase",
        "largest part of it",
        "allocations",
        "did not fit",
    )
    return Table(
        caption="Every trace: the highest peak of the run and the largest part of it",
        columns=columns,
        rows=tuple(_overview_row(trace) for trace in traces),
        amounts=frozenset({"peak as requested", "of the allocator", "allocations", "did not fit"}),
    )


def _overview_row(trace: Trace) -> tuple[str, ...]:
    phase, counts = highest(trace), trace.counts
    odd = counts.jumps + counts.overwritten + counts.resized
    return (
        trace.point,
        format_bytes(phase.requested.peak_bytes) if phase else format_bytes(0),
        format_bytes(
            max((one.allocator.peak_bytes for one in trace.phases), default=trace.base_bytes)
        ),
        plain(phase.phase) if phase else "none",
        _ranked(phase.alive)[0].sentence if phase and phase.alive else "nothing",
        f"{counts.allocations:,}",
        f"{odd:,}",
    )
