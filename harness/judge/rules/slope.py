"""What each further image, or frame of the stack, may cost."""

import math
from collections.abc import Iterator

from harness.judge.limits import SlopeRule
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.quorum import Decision
from harness.judge.rules.series import VERBS, Subject, attribution, subjects, unswept, vote
from harness.judge.scaling import Fit
from harness.judge.sizes import sizes_in_words, step_in_words
from harness.judge.verdict import Check, FindingKind
from harness.units import format_bytes, format_rate, format_whole

_TO_FIND = {
    **dict.fromkeys(("growth", "peak", "retained"), "{phase} makes"),
    "net_start": "the phases before {phase}, or the lines between them, keep",
    "net_end": "is still referred to when {phase} ends",
}
_LEAST_SHARE = 0.05
"""Chosen: less than a twentieth is not worth a number."""


def check_slopes(evidence: Evidence) -> Iterator[Check]:
    """A regression when the whole interval of a slope lies above its limit; incomplete when it is too wide to tell."""
    for name, rule in evidence.policy.rules():
        if isinstance(rule, SlopeRule):
            yield from unswept(evidence, name, rule, optional=rule.only_if_swept)
            for subject in subjects(evidence, name, rule):
                yield subject.incomplete() if subject.fit is None else _check_slope(evidence, rule, subject, subject.fit)


def _check_slope(evidence: Evidence, rule: SlopeRule, subject: Subject, fit: Fit) -> Check:
    declared = evidence.declared_by(subject.series.points[0])
    at_most, resolve = rule.at_most.in_bytes(declared), rule.resolve.in_bytes(declared)
    if at_most is None or resolve is None:
        missing = rule.at_most if at_most is None else rule.resolve
        return subject.check(f"{missing.gap(declared)}.", finding=FindingKind.INCOMPLETE)
    line, unit, over = fit.line, fit.unit, fit.series.over
    found = f"{VERBS[rule.field]} {format_whole(line.slope)} B per {unit}, limit {format_whole(at_most)}"
    interval = (
        f"95 % interval {format_whole(line.slope_low)} to {format_whole(line.slope_high)}; {len(fit.sizes)} sizes, {fit.runs} runs"
    )
    measured = f"{found} ({interval}{_bound_in_words(evidence, subject, rule)})"
    decision = Decision(stands=False)
    if line.slope_low > at_most:
        decision = vote(evidence, subject, lambda own: own.slope - at_most, "rise by more than the limit")
    finding, may_be_noise = None, decision.may_be_noise
    if decision.stands:
        finding = FindingKind.REGRESSION
        total = format_bytes(line.slope * fit.sizes[-1])
        quorum = f"; {decision.words}" if decision.words else ""
        sentence = (
            f"{measured}{attribution(evidence, subject, line)}{quorum}. At {sizes_in_words(over, fit.sizes[-1])} that is {total}, "
            f"{_fate(evidence, subject)}. To do: find what {_TO_FIND[subject.field].format(phase=subject.phase)} for each "
            f"{step_in_words(over)}; the limit is {subject.name}."
        )
    elif not math.isfinite(line.slope_high):
        finding, may_be_noise = FindingKind.INCOMPLETE, True
        sentence = f"unresolved: {found}, but {fit.runs} runs leave no interval around it; measure with --memory-repeats 2 or more."
    elif line.slope_high > resolve and not decision.words:
        finding, may_be_noise = FindingKind.INCOMPLETE, True
        sentence = (
            f"unresolved: {found}, but the runs differ too much to tell ({interval}): {format_rate(resolve, unit)} "
            "has to be excluded. Measure again with more repeats or on a quieter machine."
        )
    else:
        sentence = f"{measured}{f'; {decision.words}' if decision.words else ''}."
    return subject.check(
        sentence, finding=finding, measured=line.slope, limit=at_most, decision=decision.words, may_be_noise=may_be_noise
    )


def _fate(evidence: Evidence, subject: Subject) -> str:
    """Whether the growth outlives the phase: what is kept is a container's, what is given back a temporary's."""
    if subject.field == "net_start":
        return "held when the phase begins"
    if subject.field == "net_end":
        return "still held when the phase ends"
    retained = evidence.fit(subject.series, subject.phase, subject.meter, "retained")
    growth = evidence.fit(subject.series, subject.phase, subject.meter, "growth")
    if retained is None or growth is None:
        return "held while the phase runs"
    share = retained.line.slope / growth.line.slope if growth.line.slope > 0 else 0.0
    held = format_bytes(max(0.0, retained.line.slope) * growth.sizes[-1])
    fate = f"of which {held} are still held when the phase ends"
    if not _LEAST_SHARE <= share <= 1 - _LEAST_SHARE:
        fate = "still held when the phase ends" if share > _LEAST_SHARE else "given back before the phase ends"
    on_device = evidence.fit(subject.series, subject.phase, "device_in_use", "growth")
    emulated = subject.meter == "host_anon" and evidence.run.manifest.device.kind == "emulated"
    if emulated and on_device is not None and on_device.line.slope > growth.line.slope / 2:
        # Its allocator keeps pages that were touched once, so the fate of the tensors is told by the device's own meter.
        return f"{fate}, pages of the emulated device included"
    return fate


def _bound_in_words(evidence: Evidence, subject: Subject, rule: SlopeRule) -> str:
    if rule.field != "growth":
        return ""
    bound = evidence.fit(subject.series, subject.phase, subject.meter, "growth_bound")
    return "" if bound is None else f"; the meter's upper bound grows by {format_whole(bound.line.slope)}"
