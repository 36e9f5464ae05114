"""Did every run end as its scenario expects: well, or out of memory where that is what it shows."""

from collections.abc import Iterator, Mapping

from harness.judge.completeness import UNMEASURED, End
from harness.judge.rules.evidence import Evidence, meter_words, point_place
from harness.judge.rules.quorum import Decision, decide
from harness.judge.rules.sentences import closed
from harness.judge.tracewords import alive_when_refused, with_what_is_known
from harness.judge.verdict import Check, FindingKind
from harness.records import ENDED_BY_HARNESS, OVER_MACHINE, Outcome, Point
from harness.units import format_bytes

RULE = "outcome"
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
_DEVICE_METER = "device_in_use"


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
        rule=RULE,
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
    table = evidence.run.phases
    own = table[
        (table["point"] == point.name)
        & (table["repeat"] == repeat)
        & (table["meter"] == _DEVICE_METER)
    ]
    peaks = own["peak_bytes"].dropna()
    expected = f"ended ok instead of {point.expected}"
    if point.expected is not Outcome.DEVICE_OOM:
        return (
            FindingKind.INCOMPLETE,
            f"{expected}: what it was to show was not shown; look at the scenario",
        )
    if peaks.empty:
        return (
            FindingKind.INCOMPLETE,
            (
                f"{expected}, and {meter_words(_DEVICE_METER)} was not read: nothing shows that "
                "the budget bound"
            ),
        )
    peak_bytes = int(peaks.max())
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
