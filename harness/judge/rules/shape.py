"""The shape of growth: its class, and the arithmetic of known arrays."""

from collections.abc import Iterator

from harness.judge.advice import quoted
from harness.judge.growth import Fit, GrowthClass, GrowthLimits, fit_series, material_bend_bytes
from harness.judge.limits import ArithmeticRule, GrowthClassRule
from harness.judge.line import Line
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.quorum import Decision
from harness.judge.rules.sentences import FIELDS
from harness.judge.rules.series import Subject, subjects, unswept, vote
from harness.judge.rules.serieswords import (
    attribution,
    level_attribution,
    level_in_words,
    search_in_words,
)
from harness.judge.sizes import sizes_in_words, step_in_words
from harness.judge.table import Place
from harness.judge.verdict import Bound, Check, FindingKind
from harness.units import format_bytes, format_whole

_ORDER = (GrowthClass.FLAT, GrowthClass.CEILING, GrowthClass.LINEAR, GrowthClass.SUPERLINEAR)


def check_growth_classes(evidence: Evidence) -> Iterator[Check]:
    """A regression when growth has a worse shape than the policy allows."""
    for name, rule in evidence.policy.rules():
        if isinstance(rule, GrowthClassRule):
            yield from unswept(evidence, name, rule, optional=rule.only_if_swept)
            for subject in subjects(evidence, name, rule):
                yield (
                    subject.incomplete()
                    if subject.fit is None
                    else _check_class(evidence, rule, subject, subject.fit)
                )


def _check_class(evidence: Evidence, rule: GrowthClassRule, subject: Subject, fit: Fit) -> Check:
    found = fit.growth_class
    # Two sizes cannot tell the shape of a rise, but they can tell that it is one.
    surely_rises = (
        rule.at_most == "flat" and fit.line.slope_low > GrowthLimits().flat_bytes_per_unit
    )
    if found is GrowthClass.UNRESOLVED and not surely_rises:
        interval = (
            f"{format_whole(fit.line.slope_low)} to {format_whole(fit.line.slope_high)} B per "
            f"{fit.unit}"
        )
        sentence = (
            f"the runs do not tell how it grows over {rule.over}: by {interval} with 95 % "
            f"confidence, from {len(fit.sizes)} sizes. To do: measure more sizes or repeats."
        )
        return subject.check(sentence, finding=FindingKind.INCOMPLETE, may_be_noise=True)
    slope, step = f"{format_whole(fit.line.slope)} B per {fit.unit}", step_in_words(rule.over)
    name = "not flat" if found is GrowthClass.UNRESOLVED else found
    curve = f"a curve through the runs dips below the straight line by {_bend(fit)}"
    shape = f"{FIELDS[rule.field].shape} over {rule.over}"
    measured = f"{shape} is {name} ({slope}; {curve}), allowed is {rule.at_most}"
    level = fit.ceiling if found is GrowthClass.CEILING else None
    if level is not None:
        measured = f"{shape} {level_in_words(rule.over, level)}, allowed is {rule.at_most}"
    if found in _ORDER[: _ORDER.index(GrowthClass(rule.at_most)) + 1]:
        return subject.check(f"{measured}.", finding=None)
    advice = search_in_words(evidence, subject, fit)
    if level is not None:
        advice = f"find what {subject.phase} fills up to a fixed amount (a cache, a buffer)"
    if found is GrowthClass.SUPERLINEAR:
        advice = (
            f"find what {subject.phase} makes for each pair of them, or for all of them anew at "
            f"each {step}"
        )
    decision = vote(evidence, subject, lambda own: _excess(own, fit, rule), "grow so")
    if not decision.stands:
        return subject.check(
            f"{measured}; {decision.words}.", finding=None, decision=decision.words
        )
    like = (
        attribution(evidence, subject, fit.line)
        if level is None
        else level_attribution(evidence, subject, level)
    )
    why = f"{measured}{like}{f'; {decision.words}' if decision.words else ''}"
    return subject.check(
        f"{why}. To do: {advice}; the limit is {subject.name}.",
        finding=FindingKind.REGRESSION,
        decision=decision.words,
        may_be_noise=decision.may_be_noise,
    )


def _excess(own: Line, fit: Fit, rule: GrowthClassRule) -> float:
    """How far the line of one repeat rises, or bends, beyond what the allowed shape has; that it
    does so surely is for all.
    """
    limits = GrowthLimits()
    if rule.at_most == "flat":
        return own.slope - limits.flat_bytes_per_unit
    return own.bend_bytes - material_bend_bytes(own, fit.sizes, limits)


def _bend(fit: Fit) -> str:
    return (
        f"{format_bytes(fit.line.bend_bytes)} over "
        f"{sizes_in_words(fit.series.over, fit.sizes[0], fit.sizes[-1])}"
    )


def check_arithmetic(evidence: Evidence) -> Iterator[Check]:
    """The slope of a known array is its arithmetic; a meter that does not find it is not to be
    trusted elsewhere.

    More than the arrays is a regression; less was not seen, so the run is incomplete.
    """
    for name, rule in evidence.policy.rules():
        if isinstance(rule, ArithmeticRule):
            yield from unswept(evidence, name, rule, optional=False)
            for subject in subjects(evidence, name, rule):
                yield (
                    subject.incomplete()
                    if subject.fit is None
                    else _check_arithmetic(evidence, rule, subject, subject.fit)
                )


def _declared_amounts(
    evidence: Evidence, rule: ArithmeticRule, subject: Subject
) -> dict[Place, tuple[int, ...]]:
    places = [
        (point.name, subject.phase, subject.meter, rule.declared) for point in subject.series.points
    ]
    return {place: tuple(evidence.readings.get(place, {}).values()) for place in places}


def _check_arithmetic(
    evidence: Evidence, rule: ArithmeticRule, subject: Subject, fit: Fit
) -> Check:
    # What the bodies declared, over the same runs.
    declared = fit_series(
        subject.series,
        subject.phase,
        subject.meter,
        rule.declared,
        _declared_amounts(evidence, rule, subject),
        {},
        GrowthLimits(),
    )
    if declared is None:
        gap = (
            f"the body did not declare {rule.declared} at two sizes; call "
            f"memory.declare({rule.declared}=...)"
        )
        return subject.check(gap, finding=FindingKind.INCOMPLETE)
    line, expected = fit.line, declared.line.slope
    allowed = abs(expected) * rule.within_percent / 100
    found = (
        f"{subject.verb} {format_whole(line.slope)} B per {fit.unit}; "
        f"its {rule.declared} add up to {format_whole(expected)}, within {rule.within_percent:g} %"
    )
    finding, sentence, decision = None, f"{found}.", Decision(stands=False)
    # The nearer of the two, which is the one that is broken where one is.
    limit, bound = _nearer(line.slope, expected, allowed)
    if line.slope > expected + allowed:
        decision = vote(
            evidence, subject, lambda own: own.slope - (expected + allowed), "rise by more"
        )
        more = (
            f"something beyond the {rule.declared} is "
            f"{'kept' if rule.field == 'retained' else 'in use as well'}"
        )
        advice = f"find what {subject.phase} makes beside them"
        finding, sentence = (
            FindingKind.REGRESSION,
            f"{found} was expected{attribution(evidence, subject, line)}; {more}: {advice}",
        )
    elif line.slope < expected - allowed:
        decision = vote(
            evidence, subject, lambda own: expected - allowed - own.slope, "rise by less"
        )
        doctor = evidence.commands.doctor()
        less = (
            f"the meter did not see all of them: check what is declared as {rule.declared}, and "
            f"run {quoted(doctor)}"
        )
        finding, sentence = FindingKind.INCOMPLETE, f"{found} was expected; {less}"
    elif line.half_width > allowed:
        half_width = format_whole(line.half_width)
        sentence = (
            f"unresolved: {found}, but the 95 % interval reaches {half_width} to either side; "
            "measure more repeats or larger sizes."
        )
        return subject.check(
            sentence,
            finding=FindingKind.INCOMPLETE,
            measured=line.slope,
            limit=limit,
            bound=bound,
            may_be_noise=True,
        )
    if finding is not None:
        quorum = f"; {decision.words}" if decision.words else ""
        sentence = f"{sentence}{quorum}. The rule is {subject.name}."
    return subject.check(
        sentence,
        finding=finding if decision.stands else None,
        measured=line.slope,
        limit=limit,
        bound=bound,
        decision=decision.words,
        may_be_noise=decision.may_be_noise,
    )


def _nearer(slope: float, expected: float, allowed: float) -> tuple[float, Bound]:
    return (
        (expected + allowed, "upper")
        if slope >= expected or expected < allowed
        else (expected - allowed, "lower")
    )
