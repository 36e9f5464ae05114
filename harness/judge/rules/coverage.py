"""Was everything seen that was planned, and did every run end as its scenario expects? A gate that
saw nothing fails.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.judge import FindingKind, RuleName
from harness.judge.baseline_file import accept_words
from harness.judge.completeness import (
    UNMEASURED,
    alive_when_refused,
    missing_from_point,
    missing_from_run,
    with_what_is_known,
)
from harness.judge.limits import AnyRule
from harness.judge.rules.evidence import Evidence, decide, limit_place
from harness.judge.rules.findings import (
    UNDECIDED,
    Decision,
    Details,
    Ended,
    Finding,
    IdleTolerance,
    Lost,
    NoSuchPhase,
    NoSuchPoint,
    OneRun,
    Place,
    Planned,
    Readings,
    Sentence,
    Survived,
    Unreadable,
    marker_of,
    once_per_marker,
    point_place,
    text_in_words,
)
from harness.judge.table import PhaseRow
from harness.meters import DEVICE_IN_USE, meter_words
from harness.records import (
    ENDED_BY_HARNESS,
    LARGEST_GAP_SHARE,
    LEAST_SAMPLES,
    OVER_MACHINE,
    Outcome,
    Point,
    Quality,
)
from harness.rundir.rows import RunEnd
from harness.words import closest


def check_coverage(evidence: Evidence) -> Iterator[Finding]:
    """The run has a plan and an end, every run its end and phases, every gated meter its readings,
    every rule a subject.
    """
    yield from _check_run(evidence)
    for point in evidence.run.points:
        for repeat in evidence.run.repeats_of(point.name):
            yield _check_one_run(evidence, point, repeat)
    yield from _check_meters(evidence)
    yield from once_per_marker(_idle_rules(evidence))
    if not evidence.partial:
        yield from _idle_tolerances(evidence)
    yield from _lost_from_baseline(evidence)


def _incomplete(place: Place, details: Details, *, limit_place: str = "") -> Finding:
    return Finding(
        rule=RuleName.COVERAGE,
        place=place,
        details=details,
        kind=FindingKind.INCOMPLETE,
        limit_place=limit_place,
    )


def _check_run(evidence: Evidence) -> Iterator[Finding]:
    place = Place(words="run")
    missing = list(missing_from_run(evidence.run, evidence.commands))
    for sentence in missing:
        yield _incomplete(place, Sentence(text=sentence))
    if not missing:
        planned = Planned(points=len(evidence.run.points))
        yield Finding(rule=RuleName.COVERAGE, place=place, details=planned)


def _check_one_run(evidence: Evidence, point: Point, repeat: int) -> Finding:
    missing = tuple(missing_from_point(evidence.census, point, repeat, evidence.commands))
    return Finding(
        rule=RuleName.COVERAGE,
        place=_run_place(point, repeat),
        details=OneRun(missing=missing),
        kind=FindingKind.INCOMPLETE if missing else None,
    )


def _run_place(point: Point, repeat: int, phase: str = "") -> Place:
    return Place(
        words=point_place(point, f"repeat {repeat}"),
        scenario=point.scenario,
        point=point.name,
        phase=phase,
    )


# Was every gated meter read, finely enough to be judged?


def _check_meters(evidence: Evidence) -> Iterator[Finding]:
    """One check for each scenario and gated meter: a meter that is absent is absent everywhere, and
    is named once.
    """
    rows = {
        (*row.run, row.phase, row.reading.meter): row
        for row in evidence.run.rows
        if row.finished and row.reading is not None
    }
    known = tuple(sorted({reading_meter for *_, reading_meter in rows}))
    for (scenario, meter), places in _gated(evidence).items():
        seen = list(_finished_runs(evidence, places))
        if not seen:
            continue  # coverage of the points, or their outcome, says why no run finished a phase
        unreadable = [
            found
            for point, repeat, phase in seen
            if (found := _unreadable(point, phase, rows.get((point.name, repeat, phase, meter))))
        ]
        details = Readings(
            phases=len(seen),
            unreadable=len(unreadable),
            first=unreadable[0] if unreadable else None,
            meter=meter,
            known=known,
            doctor=evidence.commands.doctor(),
        )
        yield Finding(
            rule=RuleName.COVERAGE,
            place=Place(words=f"{scenario} / {meter_words(meter)}", scenario=scenario, meter=meter),
            details=details,
            kind=FindingKind.INCOMPLETE if unreadable else None,
        )


def _gated(evidence: Evidence) -> dict[tuple[str, str], list[tuple[Point, str]]]:
    """By scenario and meter, the points and phases in which some rule needs it."""
    wanted: dict[tuple[str, str], list[tuple[Point, str]]] = {}
    for point in evidence.run.points:
        for phase in point.phases:
            for meter in evidence.policy.gated_meters(point, phase):
                wanted.setdefault((point.scenario, meter), []).append((point, phase))
    return wanted


def _finished_runs(
    evidence: Evidence, places: Iterable[tuple[Point, str]]
) -> Iterator[tuple[Point, int, str]]:
    for point, phase in places:
        for repeat in evidence.run.repeats_of(point.name):
            if phase in evidence.census.finished.get((point.name, repeat), ()):
                yield point, repeat, phase


def _unreadable(point: Point, phase: str, row: PhaseRow | None) -> Unreadable | None:
    """Why a gated reading cannot be judged; None when it can."""
    place = point_place(point, phase)
    if row is None or row.reading is None or row.record is None:
        return Unreadable(place=place, quality=None)
    reading, duration_s = row.reading, row.record.duration_s
    if reading.quality in (Quality.UNAVAILABLE, Quality.UNRESOLVED):
        return Unreadable(place=place, quality=reading.quality, reason=row.reason)
    # the meter has looked at this itself; a row made by hand has no meter
    if reading.quality is Quality.SAMPLED:
        samples, gap_s = reading.samples, reading.largest_gap_s
        few = samples is None or samples < LEAST_SAMPLES
        if few or gap_s is None or gap_s > LARGEST_GAP_SHARE * duration_s:
            return Unreadable(
                place=place,
                quality=Quality.SAMPLED,
                samples=samples,
                largest_gap_s=gap_s,
                duration_s=duration_s,
            )
    return None


# Is every limit about something that was planned? A rule that no point or no phase answers to would
# hold for ever.


def _idle_rules(evidence: Evidence) -> Iterator[Finding]:
    if evidence.partial:
        return
    for name, rule in evidence.policy.rules():
        where = limit_place(evidence.policy, name, rule.because)
        place = Place(words=marker_of(where) or where)
        for details in _idle(evidence, rule):
            yield _incomplete(place, details, limit_place=where)


def _idle(evidence: Evidence, rule: AnyRule) -> Iterator[NoSuchPoint | NoSuchPhase]:
    points = [point for point in evidence.run.points if rule.matches(point)]
    if not points and evidence.run.points:
        planned = {point.scenario for point in evidence.run.points}
        yield NoSuchPoint(
            scenarios=tuple(rule.scenarios),
            where=tuple((name, text_in_words(str(value))) for name, value in rule.where.items()),
            renamed=_renamed_scenario(rule.scenarios, planned),
            or_less=evidence.or_less(rule.because),
        )
    known = {phase for point in points for phase in point.phases}
    unknown = [phase for phase in rule.phases or () if points and phase not in known]
    if unknown:
        yield NoSuchPhase(phase=unknown[0], known=tuple(sorted(known)))


def _renamed_scenario(scenarios: Iterable[str], planned: Iterable[str]) -> str:
    """What a scenario that is not planned may be called now; empty where nothing is near."""
    known = sorted(planned)
    near = (closest(name, known) for name in scenarios if name not in known)
    return next(filter(None, near), "")


def _idle_tolerances(evidence: Evidence) -> Iterator[Finding]:
    """A tolerance that names an unknown scenario or phase silently leaves the general one in
    force.
    """
    phases: dict[str, set[str]] = {}
    for point in evidence.run.points:
        phases.setdefault(point.scenario, set()).update(point.phases)
    if not phases:
        return

    for number, tolerance in enumerate(evidence.policy.tolerance, start=1):
        place = Place(words=f"tolerance {number} of {evidence.policy.source}")
        for scenario in tolerance.scenarios or ():
            known = phases.get(scenario, set())
            unknown = [phase for phase in tolerance.phases or () if phase not in known]
            if not known or unknown:
                details = IdleTolerance(
                    scenario=scenario,
                    phase=unknown[0] if known else "",
                    or_less=evidence.or_less(),
                )
                yield _incomplete(place, details)


# Is all that the baseline knows measured again? Else a deleted point would pass for a good one.


def _lost_from_baseline(evidence: Evidence) -> Iterator[Finding]:
    baseline = evidence.baseline
    compared = evidence.policy.tolerance and evidence.against is None and not evidence.partial
    if baseline is None or not compared:
        return

    planned = {point.name: point for point in evidence.run.points}
    new_points = [name for name in planned if name not in baseline.point]
    for name, accepted in baseline.point.items():
        point = planned.get(name)
        if point is None:
            yield _incomplete(Place(words=name, point=name), _lost(evidence, "", name, new_points))
            continue
        lost = [phase for phase in accepted.phase if phase not in point.phases]
        if lost:
            new_phases = [phase for phase in point.phases if phase not in accepted.phase]
            place = Place(
                words=point_place(point), scenario=point.scenario, point=name, phase=lost[0]
            )
            yield _incomplete(place, _lost(evidence, lost[0], lost[0], new_phases))


def _lost(evidence: Evidence, phase: str, name: str, new_names: Iterable[str]) -> Lost:
    return Lost(
        phase=phase,
        renamed=closest(name, new_names),
        forget=accept_words(evidence.commands.accept("--forget-others")),
    )


# Did every run end as its scenario expects: well, or out of memory where that is what it shows?


_SETTLED = frozenset({Outcome.ERROR, Outcome.SKIPPED})
"""Ends that would be the same again: an exception of the body, and what was never started."""


def check_outcomes(evidence: Evidence) -> Iterator[Finding]:
    """One check for each run that has an end; a missing end is a matter of coverage."""
    for point in evidence.run.points:
        ends = {
            repeat: end
            for repeat in evidence.run.repeats_of(point.name)
            if (end := evidence.census.ends.get((point.name, repeat))) is not None
        }
        # Each run votes with all its weight: where all of them end otherwise, there is no doubt.
        excess = [-1.0 if end.outcome is point.expected else 1.0 for end in ends.values()]
        decision = decide(
            excess,
            first=any(each > 0 for each in excess),
            remeasured=evidence.was_remeasured(point.name),
        )
        for repeat, end in ends.items():
            yield _check_end(evidence, point, repeat, end, decision)


def _check_end(
    evidence: Evidence, point: Point, repeat: int, end: RunEnd, decision: Decision
) -> Finding:
    unexpected = end.outcome is not point.expected
    # An end that a limit of the harness made happened, whatever the other repeats show.
    settled = end.outcome in _SETTLED or (unexpected and end.cause in ENDED_BY_HARNESS)
    details: Ended | Survived
    if unexpected and end.outcome is Outcome.OK:
        details = _survived(evidence, point, repeat)
    else:
        details = _ended(evidence, point, end)

    kind = _kind_of_end(evidence, point, end, details) if unexpected else None
    return Finding(
        rule=RuleName.OUTCOME,
        place=_run_place(point, repeat, end.phase or ""),
        details=details,
        kind=kind if decision.stands or settled else None,
        points=(point.name,),
        decision=decision if unexpected and not settled else UNDECIDED,
        remeasure=kind is not None and not settled and decision.may_be_noise,
    )


def _kind_of_end(
    evidence: Evidence, point: Point, end: RunEnd, details: Ended | Survived
) -> FindingKind:
    """A regression where it was accepted, or measured beside this run, as ending as planned; else
    nothing earlier exists.
    """
    if isinstance(details, Survived):
        return FindingKind.IMPROVEMENT if details.fits else FindingKind.INCOMPLETE
    # Whoever filled the machine, it was not shown to be this body.
    if end.outcome in UNMEASURED or end.cause == OVER_MACHINE:
        return FindingKind.INCOMPLETE
    known = evidence.baseline is not None and point.name in evidence.baseline.point
    return FindingKind.REGRESSION if known else FindingKind.FAILED


def _ended(evidence: Evidence, point: Point, end: RunEnd) -> Ended:
    ended = Ended(
        outcome=end.outcome,
        expected=point.expected,
        phase=end.phase or "",
        reason=end.reason,
        cause=end.cause,
    )
    if end.outcome is point.expected or end.outcome is not Outcome.DEVICE_OOM:
        return ended

    trace = evidence.traces().get(point.name)
    saw_alive = trace is not None and trace.out_of_memory is not None
    if not evidence.run.manifest.settings.get("traces"):
        return replace(ended, saw_alive=saw_alive)
    return replace(
        ended,
        reason=with_what_is_known(end.reason, trace),
        alive=alive_when_refused(trace),
        saw_alive=saw_alive,
    )


def _survived(evidence: Evidence, point: Point, repeat: int) -> Survived:
    """A run that was to run out of memory and did not.

    It is an improvement only when the meter saw it stay within its budget. If the meter saw more
    than the budget, or nothing, the budget did not bind: then the point proves nothing, and neither
    does its sibling that is to survive.
    """
    run = (point.name, repeat)
    readings = [row.reading for row in evidence.run.rows if row.run == run and row.reading]
    peaks = [
        reading.peak_bytes
        for reading in readings
        if reading.meter == DEVICE_IN_USE and reading.peak_bytes is not None
    ]
    return Survived(
        expected=point.expected,
        meter=DEVICE_IN_USE,
        peak_bytes=max(peaks, default=None),
        budget_bytes=point.device_budget_bytes or evidence.run.manifest.device.memory_bytes,
    )
