"""Was everything seen that was planned: a gate that saw nothing fails."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.judge.acceptance import accept_words
from harness.judge.advice import LESS_ON_PURPOSE, stopped
from harness.judge.completeness import UNMEASURED, End, missing_from_point, missing_from_run
from harness.judge.rules.evidence import (
    Decision,
    Evidence,
    decide,
    limit_place,
    marker_of,
    point_place,
    text_in_words,
)
from harness.judge.rules.sentences import closed
from harness.judge.table import PhaseRow
from harness.judge.traces import alive_when_refused, with_what_is_known
from harness.judge.verdict import Check, FindingKind
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
from harness.units import format_bytes
from harness.words import nearest

RULE = "coverage"


def check_coverage(evidence: Evidence) -> Iterator[Check]:
    """The run has a plan and an end, every run its end and phases, every gated meter its readings,
    every rule a subject.
    """
    yield from _run_checks(evidence)
    for point in evidence.run.points:
        for repeat in evidence.run.repeats_of(point.name):
            yield _point_check(evidence, point, repeat)
    yield from _meter_checks(evidence)
    yield from _rule_checks(evidence)
    yield from _baseline_checks(evidence)


def _run_checks(evidence: Evidence) -> Iterator[Check]:
    missing = list(missing_from_run(evidence.run, evidence.commands))
    for sentence in missing:
        yield Check(rule=RULE, subject="run", sentence=sentence, finding=FindingKind.INCOMPLETE)
    if not missing:
        count = len(evidence.run.points)
        planned = f"{count} {'point was' if count == 1 else 'points were'} planned"
        yield Check(
            rule=RULE,
            subject="run",
            sentence=f"{planned}, the run has an end, and every row is usable.",
        )


def _point_check(evidence: Evidence, point: Point, repeat: int) -> Check:
    subject = point_place(point, f"repeat {repeat}")
    missing = list(missing_from_point(evidence.census, point, repeat, evidence.commands))
    sentence = "; ".join(missing) if missing else "it has an end, and every phase that it owes."
    return Check(
        rule=RULE,
        subject=subject,
        sentence=f"{subject}: {sentence}",
        finding=FindingKind.INCOMPLETE if missing else None,
        scenario=point.scenario,
        point=point.name,
    )


def _meter_checks(evidence: Evidence) -> Iterator[Check]:
    """One check for each scenario and gated meter: a meter that is absent is absent everywhere, and
    is said once.
    """
    wanted: dict[tuple[str, str], list[tuple[Point, str]]] = {}
    for point in evidence.run.points:
        for phase in point.phases:
            for meter in evidence.policy.gated_meters(point, phase):
                wanted.setdefault((point.scenario, meter), []).append((point, phase))
    rows = {
        (*row.run, row.phase, row.reading.meter): row
        for row in evidence.run.rows
        if row.finished and row.reading is not None
    }
    for (scenario, meter), places in wanted.items():
        seen = [
            (point, repeat, phase)
            for point, phase in places
            for repeat in evidence.run.repeats_of(point.name)
            if phase in evidence.census.finished.get((point.name, repeat), ())
        ]
        reasons = [
            (point, phase, _unreadable(rows.get((point.name, repeat, phase, meter))))
            for point, repeat, phase in seen
        ]
        gaps = [
            f"{point_place(point, phase)}: {reason}" for point, phase, reason in reasons if reason
        ]
        if seen:  # else no run finished a phase: coverage of the points, or their outcome, says why
            known = sorted({reading_meter for *_, reading_meter in rows})
            yield _meter_check(
                scenario, meter, len(seen), gaps, known=known, doctor=evidence.commands.doctor()
            )


def _unreadable(row: PhaseRow | None) -> str:
    """Why a gated reading cannot be judged; empty when it can."""
    if row is None or row.reading is None or row.record is None:
        return "no reading of it at all"
    reading, duration_s = row.reading, row.record.duration_s
    if reading.quality in (Quality.UNAVAILABLE, Quality.UNRESOLVED):
        return f"{reading.quality}: {row.reason or 'no reason given'}"
    # the meter has looked at this itself; a row made by hand has no meter
    if reading.quality is Quality.SAMPLED:
        samples, gap_s = reading.samples, reading.largest_gap_s
        few = samples is None or samples < LEAST_SAMPLES
        if few or gap_s is None or gap_s > LARGEST_GAP_SHARE * duration_s:
            return (
                f"sampled too coarsely to judge ({samples} samples, largest gap {gap_s} s of "
                f"{duration_s:.3f} s)"
            )
    return ""


def _meter_check(
    scenario: str, meter: str, seen: int, gaps: list[str], *, known: Sequence[str], doctor: str
) -> Check:
    subject = f"{scenario} / {meter_words(meter)}"
    sentence = f"it was read in all {seen} phases."
    if gaps:
        missing = f"it could not be judged in {len(gaps)} of {seen} phases; first {gaps[0]}"
        # Either the name is misspelt, or the meter of that name could not read.
        sentence = f"{missing}. To do: run: {doctor}"
        if known and meter not in known:
            sentence = f"{missing}. To do: name a meter that reads here: {nearest(meter, known)}"
    finding = FindingKind.INCOMPLETE if gaps else None
    return Check(
        rule=RULE,
        subject=subject,
        sentence=f"{subject}: {sentence}",
        finding=finding,
        scenario=scenario,
        meter=meter,
    )


def _rule_checks(evidence: Evidence) -> Iterator[Check]:
    """A rule that no point or no phase answers to would hold for ever."""
    said: set[str] = set()
    for name, rule in evidence.policy.rules():
        points = [point for point in evidence.run.points if rule.matches(point)]
        if not points and not evidence.partial and evidence.run.points:
            where = "".join(
                f", {key} {text_in_words(str(value))}" for key, value in rule.where.items()
            )
            planned = {point.scenario for point in evidence.run.points}
            what = (
                "this run planned no point of "
                f"{' or '.join(rule.scenarios)}{where}{_meant(rule.scenarios, planned)}"
            )
            more = evidence.or_less(rule.because)
            yield from _once(said, evidence, name, rule.because, f"{what}; correct the rule{more}")
        known = {phase for point in points for phase in point.phases}
        strangers = [phase for phase in rule.phases or () if points and phase not in known]
        if strangers and not evidence.partial:
            near = (
                nearest(strangers[0], sorted(known)) if known else "their runs entered none at all"
            )
            what = f"no point that it is about has a phase {strangers[0]}; {near}"
            yield from _once(said, evidence, name, rule.because, what)
    if not evidence.partial and evidence.run.points:
        yield from _tolerance_checks(evidence)


def _tolerance_checks(evidence: Evidence) -> Iterator[Check]:
    """A tolerance for a scenario or a phase that there is not leaves the general one in force,
    unseen.
    """
    phases: dict[str, set[str]] = {}
    for point in evidence.run.points:
        phases.setdefault(point.scenario, set()).update(point.phases)
    for number, tolerance in enumerate(evidence.policy.tolerance, start=1):
        for scenario in tolerance.scenarios or ():
            known = phases.get(scenario, set())
            strangers = [phase for phase in tolerance.phases or () if phase not in known]
            if not known or strangers:
                missing = (
                    f"the phase {strangers[0]} in {scenario}" if known else f"point of {scenario}"
                )
                what = f"this run planned no {missing}"
                yield _unanswered(
                    f"tolerance {number} of {evidence.policy.source}",
                    f"{what}; correct the tolerance{evidence.or_less()}",
                )


def _meant(scenarios: Iterable[str], planned: Iterable[str]) -> str:
    """What a scenario that is not planned may be called now."""
    known = sorted(planned)
    near = next(
        (
            match
            for name in scenarios
            if name not in known
            for match in difflib.get_close_matches(name, known, n=1)
        ),
        "",
    )
    return f" (it planned {near}; was the scenario renamed?)" if near else ""


def _unanswered(place: str, sentence: str) -> Check:
    return Check(
        rule=RULE,
        subject=place,
        sentence=f"{place}: {stopped(sentence)}",
        finding=FindingKind.INCOMPLETE,
    )


def _once(
    said: set[str], evidence: Evidence, name: str, because: str, sentence: str
) -> Iterator[Check]:
    """The check; one for a marker's rule and for that of the host beside it, which has the same
    mistake.
    """
    place = limit_place(evidence.policy, name, because)
    whose = f"{marker_of(because) or place}: {sentence}"
    if whose not in said:
        said.add(whose)
        yield _unanswered(marker_of(because) or place, sentence)


def _baseline_checks(evidence: Evidence) -> Iterator[Check]:
    """What the baseline knows has to be measured again, or a deleted point would pass for a good
    one.
    """
    if (
        evidence.baseline is None
        or evidence.against is not None
        or evidence.partial
        or not evidence.policy.tolerance
    ):
        return
    planned = {point.name: point for point in evidence.run.points}
    strangers = [name for name in planned if name not in evidence.baseline.point]
    for name, accepted in evidence.baseline.point.items():
        point = planned.get(name)
        if point is None:
            yield _lost_point(evidence, name, strangers)
            continue
        lost = [phase for phase in accepted.phase if phase not in point.phases]
        if lost:
            subject = point_place(point)
            renamed = [phase for phase in point.phases if phase not in accepted.phase]
            hint = _renamed(lost[0], renamed)
            sentence = (
                f"{subject}: the baseline has its phase {lost[0]}, but it is no longer "
                f"measured{hint}; measure it, or accept a run"
            )
            yield Check(
                rule=RULE,
                subject=subject,
                sentence=sentence,
                finding=FindingKind.INCOMPLETE,
                scenario=point.scenario,
                point=name,
                phase=lost[0],
            )


def _lost_point(evidence: Evidence, name: str, strangers: list[str]) -> Check:
    gone = accept_words(evidence.commands.accept("--forget-others"))
    sentence = (
        f"{name}: the baseline has this point, but the run did not plan "
        f"it{_renamed(name, strangers)}; measure it, or {LESS_ON_PURPOSE}, or, where the "
        f"point is gone for good, {gone}"
    )
    return Check(
        rule=RULE, subject=name, sentence=sentence, finding=FindingKind.INCOMPLETE, point=name
    )


def _renamed(lost: str, strangers: Iterable[str]) -> str:
    """What it may be called now: the nearest of the names that the baseline does not have."""
    near = difflib.get_close_matches(lost, list(strangers), n=1)
    return f" (was it renamed to {near[0]}, which the baseline does not have?)" if near else ""


# Did every run end as its scenario expects: well, or out of memory where that is what it shows.


OUTCOME_RULE = "outcome"
_SETTLED = frozenset({Outcome.ERROR, Outcome.SKIPPED})
"""Ends that would be the same again: an exception of the body, and what was never started."""
_ADVICE: Mapping[Outcome, str] = {
    Outcome.DEVICE_OOM: (
        "find what fills the device in this phase, or change what the scenario expects"
    ),
    Outcome.HOST_OOM: (
        "find what fills the host's memory in this phase, or raise --memory-host-budget on purpose"
    ),
    Outcome.TIMED_OUT: "find what hangs or waits, or raise --memory-timeout on purpose",
    Outcome.CRASHED: (
        "read the log of this run in logs/; nothing was measured, so nothing is judged"
    ),
    Outcome.EXITED: "read the log of this run in logs/; nothing was measured, so nothing is judged",
    Outcome.ERROR: (
        "mend the error (the log of this run in logs/ has the traceback), then measure again"
    ),
    Outcome.SKIPPED: "mend what made it skip, or leave the point out on purpose (-k)",
}
_BY_CAUSE: Mapping[str, str] = {
    OVER_MACHINE: (
        "end what else fills its memory, run fewer workers (-n), or measure where there is more; "
        "with a lower --memory-host-budget the run is ended sooner"
    ),
    **dict.fromkeys(
        ("refused", "limit", "bad_alloc", "kernel"),
        "find what fills the host's memory in this phase, or measure where there is more; "
        "--memory-host-budget did not end it",
    ),
}
"""Advice where host memory ended a run, and not the limit that the option sets."""
_WITHOUT_TRACEBACK = (
    "mend the error (the log of this run in logs/ has what was said of it), then measure again"
)
_MAYBE_ENDED = frozenset({"preparation", "rows"})
"""Causes of errors that may be no exception of Python's: a preparation that was killed, rows that
could not be written."""
_SEE_ALIVE = (
    "see what was alive when memory ran out (the report has all of it), or change what the "
    "scenario expects"
)


def check_outcomes(evidence: Evidence) -> Iterator[Check]:
    """One check for each run that has an end; a missing end is a matter of coverage."""
    for point in evidence.run.points:
        own = {
            repeat: evidence.census.ends.get((point.name, repeat))
            for repeat in evidence.run.repeats_of(point.name)
        }
        ends = {repeat: end for repeat, end in own.items() if end is not None}
        # Each run votes with all its weight: where all of them end otherwise, there is no doubt.
        excess = [-1.0 if end.outcome is point.expected else 1.0 for end in ends.values()]
        decision = decide(
            excess,
            first=any(one > 0 for one in excess),
            remeasured=evidence.was_remeasured(point.name),
            shown=f"ended other than {point.expected}",
        )
        for repeat, end in ends.items():
            yield _check_end(evidence, point, repeat, end, decision)


def _check_end(
    evidence: Evidence, point: Point, repeat: int, end: End, decision: Decision
) -> Check:
    outcome, reason, phase = end.outcome, end.reason, end.phase
    unexpected = outcome is not point.expected
    subject = point_place(point, f"repeat {repeat}")
    finding: FindingKind | None
    if outcome is point.expected:
        finding, sentence = None, f"ended {outcome}, as planned."
    elif outcome is Outcome.OK:
        finding, sentence = _survived(evidence, point, repeat)
        sentence = closed(sentence)
    else:
        # Whoever filled the machine, it was not shown to be this body.
        unmeasured = outcome in UNMEASURED or end.cause == OVER_MACHINE
        finding = FindingKind.INCOMPLETE if unmeasured else _worse(evidence, point)
        where = f" in phase {phase}" if phase else ""
        sentence = (
            f"ended {outcome}{where} instead of {point.expected}: "
            f"{reason or 'no reason was recorded'}"
        )
        if outcome is Outcome.DEVICE_OOM:
            sentence = _with_the_trace(evidence, point, sentence.rstrip("."))
        sentence = f"{closed(sentence)} To do: {_advice(evidence, point, end)}."
    # An end that a limit of the harness made happened, whatever the other repeats show.
    settled = outcome in _SETTLED or (unexpected and end.cause in ENDED_BY_HARNESS)
    words = decision.words if unexpected and not settled else ""
    if words:
        sentence = f"{closed(sentence)} Of this point, {words}."
    return Check(
        rule=OUTCOME_RULE,
        subject=subject,
        sentence=f"{subject}: {sentence}",
        finding=finding if decision.stands or settled else None,
        scenario=point.scenario,
        point=point.name,
        phase=phase or "",
        points=(point.name,),
        decision=words,
        remeasure=finding is not None and not settled and decision.may_be_noise,
    )


def _advice(evidence: Evidence, point: Point, end: End) -> str:
    trace = evidence.traces().get(point.name)
    if end.outcome is Outcome.DEVICE_OOM and trace is not None and trace.out_of_memory is not None:
        return _SEE_ALIVE
    if end.outcome is Outcome.ERROR and end.cause in _MAYBE_ENDED:
        return _WITHOUT_TRACEBACK
    return (
        _BY_CAUSE.get(end.cause, _ADVICE[end.outcome])
        if end.outcome is Outcome.HOST_OOM
        else _ADVICE[end.outcome]
    )


def _worse(evidence: Evidence, point: Point) -> FindingKind:
    """A regression where it was accepted, or measured beside this run, as ending as planned; else
    nothing earlier exists.
    """
    known = evidence.baseline is not None and point.name in evidence.baseline.point
    return FindingKind.REGRESSION if known else FindingKind.FAILED


def _with_the_trace(evidence: Evidence, point: Point, sentence: str) -> str:
    """With what the traced run of the point has seen when memory ran out, or that there is none to
    see it in.
    """
    if not evidence.run.manifest.settings.get("traces"):
        return (
            f"{sentence}; what was alive is unknown, as no run was traced (leave out "
            "--memory-no-trace to trace one)"
        )
    trace = evidence.traces().get(point.name)
    return f"{with_what_is_known(sentence, trace)}; {alive_when_refused(trace)}"


def _survived(evidence: Evidence, point: Point, repeat: int) -> tuple[FindingKind, str]:
    """A run that was to run out of memory and did not.

    It is an improvement only when the meter saw it stay within its budget. If the meter saw more
    than the budget, or nothing, the budget did not bind: then the point proves nothing, and neither
    does its sibling that is to survive.
    """
    budget_bytes = point.device_budget_bytes or evidence.run.manifest.device.memory_bytes
    run = (point.name, repeat)
    readings = [row.reading for row in evidence.run.rows if row.run == run and row.reading]
    peaks = [
        reading.peak_bytes
        for reading in readings
        if reading.meter == DEVICE_IN_USE and reading.peak_bytes is not None
    ]
    expected = f"ended ok instead of {point.expected}"
    if point.expected is not Outcome.DEVICE_OOM:
        return (
            FindingKind.INCOMPLETE,
            f"{expected}: what it was to show was not shown; look at the scenario",
        )
    if not peaks:
        return (
            FindingKind.INCOMPLETE,
            (
                f"{expected}, and {meter_words(DEVICE_IN_USE)} was not read: nothing shows that "
                "the budget bound"
            ),
        )
    peak_bytes = max(peaks)
    peak, budget = format_bytes(peak_bytes), format_bytes(budget_bytes)
    if peak_bytes > budget_bytes:
        return (
            FindingKind.INCOMPLETE,
            (
                f"{expected}, with a peak of {peak} beyond its budget of {budget}: the budget "
                "was not enforced"
            ),
        )
    return FindingKind.IMPROVEMENT, (
        f"{expected}: its peak of {peak} now fits the budget of {budget}; lower the budget "
        "or change what the scenario expects"
    )
