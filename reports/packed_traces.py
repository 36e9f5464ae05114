"""The traces of a run for the timelines of the page: as many events as the page has room for, and
the peak of every phase among them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harness.judge.completeness import refusal_in_words
from harness.judge.gate import Judgement
from harness.rundir.traces import Alive, Trace, TracedPhase
from harness.words import KIB, count

from .data import Packed, pack
from .traced import traced_run
from .view import RunView
from .words import kind_of_number, known, meter_name, plain

ROOM_BYTES = 400 * KIB
"""Base64 characters that all traces of a page take together. Chosen: with the code, the pictures
and the tables of the default run the page stays below 1.2 MB, which goes by mail."""
LEAST_EVENTS = 256
"""Of which no more are left out of a trace. Chosen: a step for every fourth pixel of the plot."""

Numbers = NDArray[np.int64]


@dataclass(slots=True)
class _Fitting:
    """One trace on its way into the page."""

    trace: Trace
    side: str
    """``now``, or ``then`` for the code that a run is compared with."""
    beside: Mapping[str, list[list[object]]]
    most: int
    """Events that it may have in the page."""
    packed: Packed

    @property
    def events(self) -> int:
        """That were recorded."""
        return len(self.trace.timeline.time_ns)

    @property
    def kept(self) -> int:
        """That are in the page, at most."""
        return min(self.most, self.events)


def packed_traces(
    view: RunView, judgement: Judgement, *, room_bytes: int = ROOM_BYTES
) -> tuple[Packed, ...]:
    """Every trace of the run and of the run beside it, and first ``data-traces``, which lists them;
    nothing where there is no trace.

    Where they take more than ``room_bytes`` together, the largest is thinned first, down to
    ``LEAST_EVENTS`` each; after that the last in the order of interest are left out, and named.
    """
    order = [*dict.fromkeys([*_of_causes(judgement), *_worth_reading(view, judgement)])]
    found = view.traces.found
    names = [*dict.fromkeys([*(name for name in order if name in found), *found])]
    fittings = [
        _fitting(trace, side, _beside(view, name), f"data-trace-{place}-{side}")
        for place, name in enumerate(names)
        for side, trace in (("now", found[name]), ("then", view.traces_then.get(name)))
        if trace is not None
    ]
    left_out = _fit(fittings, room_bytes)
    if not fittings:
        return ()
    return (
        pack("data-traces", {**_listed(fittings, left_out), "phases": _first_phases(judgement)}),
        *(fitting.packed for fitting in fittings),
    )


def kept_events(
    requested: Numbers, allocator: Numbers, bounds: Sequence[int], most: int
) -> Numbers:
    """Places of the events that are shown, in their order: all where they are no more than
    ``most``; else of each of many strips the first, the last, and where each amount was highest and
    the requested one lowest.

    ``bounds`` are the places at which phases begin and end; no strip reaches over one, so that each
    phase keeps its peak.
    """
    number = len(requested)
    if number <= most:
        return np.arange(number)
    size = -(-number * 5 // most)  # five events are kept of a strip
    edges = sorted({0, number, *(min(max(bound, 0), number) for bound in bounds)})
    strips = [
        (start, min(start + size, after))
        for before, after in pairwise(edges)
        for start in range(before, after, size)
    ]
    kept = {
        place
        for start, end in strips
        for place in (
            start,
            start + int(np.argmax(requested[start:end])),
            start + int(np.argmin(requested[start:end])),
            start + int(np.argmax(allocator[start:end])),
            end - 1,
        )
    }
    return np.array(sorted(kept))


def _fitting(
    trace: Trace, side: str, beside: Mapping[str, list[list[object]]], name: str
) -> _Fitting:
    most = max(len(trace.timeline.time_ns), LEAST_EVENTS)
    return _Fitting(trace, side, beside, most, pack(name, _content(trace, beside, most)))


def _fit(fittings: list[_Fitting], room_bytes: int) -> list[_Fitting]:
    """Thin the traces until they have room, and take out of the list those that have none; gives
    these.
    """
    left_out = []
    while sum(len(fitting.packed.text) for fitting in fittings) > room_bytes:
        thick = [fitting for fitting in fittings if fitting.kept > LEAST_EVENTS]
        if not thick:
            left_out.append(fittings.pop())
            continue
        largest = max(thick, key=lambda fitting: len(fitting.packed.text))
        largest.most = max(largest.kept // 2, LEAST_EVENTS)
        content = _content(largest.trace, largest.beside, largest.most)
        largest.packed = pack(largest.packed.id, content)
    return left_out[::-1]


def _of_causes(judgement: Judgement) -> Iterable[str]:
    """The points of the causes, the gravest first."""
    return (cause.point for cause in judgement.causes if cause.point)


def _first_phases(judgement: Judgement) -> dict[str, str]:
    """By point, the phase in which the gravest of its causes begins."""
    phases: dict[str, str] = {}
    for cause in judgement.causes:
        if cause.point and cause.phase:
            phases.setdefault(cause.point, plain(cause.phase))
    return phases


def _worth_reading(view: RunView, judgement: Judgement) -> Iterable[str]:
    """The points that the page tells of anyway."""
    return (point.point for point in traced_run(view, judgement).points)


def _listed(fittings: Sequence[_Fitting], left_out: Sequence[_Fitting]) -> dict[str, object]:
    names = [f"{one.trace.point}{'' if one.side == 'now' else ' (then)'}" for one in left_out]
    return {
        "traces": [
            {"id": one.packed.id, "point": one.trace.point, "side": one.side} for one in fittings
        ],
        "note": f"The page has no room for {count(len(names), 'trace')}, which only the folder "
        f"traces of the run has: {', '.join(names)}."
        if names
        else "",
    }


def _content(
    trace: Trace, beside: Mapping[str, list[list[object]]], most: int
) -> dict[str, object]:
    """A trace as the page has it. Times are in microseconds, and like all columns the differences
    from one event to the next.
    """
    times, requested, allocator = (
        np.array(column, dtype=np.int64) for column in trace.timeline.columns()
    )
    spans = [
        (
            int(np.searchsorted(times, phase.start_ns, "left")),
            int(np.searchsorted(times, phase.end_ns, "right")),
        )
        for phase in trace.phases
    ]
    kept = kept_events(requested, allocator, [edge for span in spans for edge in span], most)
    refused = trace.out_of_memory
    return {
        "point": trace.point,
        "limit": trace.limit_bytes,
        "base": trace.base_bytes,
        "declared": sorted(trace.declared, key=lambda name: -trace.declared[name]),
        "events": len(times),
        "at": None if len(kept) == len(times) else _steps(kept),
        "time": _steps(np.round(times[kept] / 1000).astype(np.int64)),
        "requested": _steps(requested[kept]),
        "allocator": _steps(allocator[kept]),
        "refusal": "" if refused is None else refusal_in_words(refused, trace.limit_bytes),
        "refused": [] if refused is None else [_group(one) for one in refused.alive],
        "phases": [
            _phase(phase, span, beside.get(phase.phase, []))
            for phase, span in zip(trace.phases, spans, strict=True)
        ],
    }


def _steps(amounts: Numbers) -> list[int]:
    return [int(step) for step in np.diff(amounts, prepend=0)]


def _phase(
    phase: TracedPhase, span: tuple[int, int], beside: list[list[object]]
) -> dict[str, object]:
    return {
        "phase": plain(phase.phase),
        "finished": phase.finished,
        "times": [round(at / 1000) for at in (phase.start_ns, phase.peak_ns, phase.end_ns)],
        "span": span,
        "peak": phase.requested.peak_bytes,
        "allocator_peak": phase.allocator.peak_bytes,
        "alive": [_group(one) for one in phase.alive],
        "beside": beside,
    }


def _group(one: Alive) -> list[object]:
    return [one.op, one.shape, one.dtype, one.each_bytes, one.count, one.like]


def _beside(view: RunView, point: str) -> dict[str, list[list[object]]]:
    """What the meters read in each phase of the point's untraced runs: meter, start, peak, end in
    bytes, and kind of number.
    """
    found: dict[str, list[list[object]]] = {}
    for _, row in view.phases[view.phases["point"] == point].iterrows():
        if row["meter"] and known(row["peak_bytes"]):
            amounts = [
                int(row[f"{edge}_bytes"]) if known(row[f"{edge}_bytes"]) else None
                for edge in ("start", "peak", "end")
            ]
            found.setdefault(str(row["phase"]), []).append(
                [
                    meter_name(str(row["meter"])),
                    *amounts,
                    kind_of_number(str(row["quality"]), row["samples"], row["largest_gap_s"]),
                ]
            )
    return found
