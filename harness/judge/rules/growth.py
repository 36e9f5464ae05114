"""What each further image, or frame of the stack, may cost."""

import math
from collections.abc import Iterator
from functools import cache

from harness.judge.advice import quoted
from harness.judge.growth import (
    Ceiling,
    Fit,
    GrowthClass,
    GrowthLimits,
    Line,
    fit_series,
    material_bend_bytes,
)
from harness.judge.limits import ArithmeticRule, GrowthClassRule, SlopeRule
from harness.judge.rules.evidence import Decision, Evidence, marker_of, without_pages
from harness.judge.rules.fields import FIELDS, closed
from harness.judge.rules.series import (
    Subject,
    attribution,
    fate_in_words,
    level_attribution,
    level_in_words,
    search_in_words,
    subjects,
    unswept,
    vote,
)
from harness.judge.table import Place
from harness.judge.verdict import Bound, Check, FindingKind
from harness.records import sizes_in_words, step_in_words, unit_of
from harness.units import KIB, format_bytes, format_rate, format_whole


def check_slopes(evidence: Evidence) -> Iterator[Check]:
    """A regression when the whole interval of a slope lies above its limit; incomplete when it is
    too wide to tell.
    """
    said: set[tuple[str, str]] = set()
    # every marker has such a rule, and it fits the complete run anew
    pageless = cache(lambda: without_pages(evidence))
    for name, rule in evidence.policy.rules():
        if isinstance(rule, SlopeRule):
            for check in unswept(evidence, name, rule, optional=rule.only_if_swept):
                # The rule of the host, which comes with a marker's, has the same mistake.
                if (
                    not marker_of(rule.because)
                    or (check.subject, marker_of(rule.because)) not in said
                ):
                    yield check
                said.add((check.subject, marker_of(rule.because)))
            read = pageless() if rule.without_device_pages else evidence
            for subject in subjects(read, name, rule):
                yield (
                    subject.incomplete()
                    if subject.fit is None
                    else _check_slope(read, rule, subject, subject.fit)
                )


def _check_slope(evidence: Evidence, rule: SlopeRule, subject: Subject, fit: Fit) -> Check:
    declared = evidence.declared_by(subject.series.points[0])
    at_most, resolve = rule.at_most.in_bytes(declared), rule.resolve.in_bytes(declared)
    if at_most is None or resolve is None:
        missing = rule.at_most if at_most is None else rule.resolve
        return subject.check(closed(missing.gap(declared)), finding=FindingKind.INCOMPLETE)
    between = fit.sizes[-1] - fit.sizes[0]
    at_most, resolve = (
        at_most + rule.at_most_over_all / between,
        resolve + rule.resolve_over_all / between,
    )
    line, unit = fit.line, fit.unit
    found = f"{subject.verb} {format_whole(line.slope)} B per {unit}, limit {format_whole(at_most)}"
    interval = (
        f"95 % interval {format_whole(line.slope_low)} to {format_whole(line.slope_high)}; "
        f"{len(fit.sizes)} sizes, {fit.runs} runs"
    )
    measured = f"{found} ({interval}{_bound_in_words(evidence, subject, rule)})"
    decision = Decision(stands=False)
    level = (
        fit.ceiling
        if fit.ceiling is not None and fit.ceiling.holds(at_most=at_most, resolve=resolve)
        else None
    )
    # No line goes through what levels off, so that its interval is wide however well the runs
    # agree.
    bent = (
        level is not None
        and line.slope > at_most
        and level.rise > at_most
        and line.slope_high > resolve
    )
    if line.slope_low > at_most or bent:
        decision = vote(
            evidence, subject, lambda own: own.slope - at_most, "rise by more than the limit"
        )
    finding, may_be_noise = None, decision.may_be_noise
    if decision.stands:
        finding = FindingKind.REGRESSION
        if level is None:
            told = _rise(evidence, subject, fit, measured, decision.words)
        else:
            limit = (
                f"limit {format_whole(at_most)} (the line through all sizes by "
                f"{format_whole(line.slope)}, {interval})"
            )
            told = _level(evidence, subject, level, limit, decision.words)
        sentence = f"{told}; the limit is {subject.name}."
    elif not math.isfinite(line.slope_high):
        finding, may_be_noise = FindingKind.INCOMPLETE, True
        sentence = (
            f"unresolved: {found}, but {fit.runs} runs leave no interval around it; measure "
            "with --memory-repeats 2 or more."
        )
    elif line.slope_high > resolve and not decision.words:
        finding, may_be_noise = FindingKind.INCOMPLETE, True
        sentence = (
            f"unresolved: {found}, but the runs differ too much to tell ({interval}): "
            f"{format_rate(resolve, unit)} has to be excluded. To do: "
            f"{_resolving(evidence, rule, subject, fit, resolve)}."
        )
    else:
        sentence = f"{measured}{f'; {decision.words}' if decision.words else ''}."
    return subject.check(
        sentence,
        finding=finding,
        measured=line.slope,
        limit=at_most,
        bound="upper",
        decision=decision.words,
        may_be_noise=may_be_noise,
    )


def _resolving(
    evidence: Evidence, rule: SlopeRule, subject: Subject, fit: Fit, resolve: float
) -> str:
    """What makes the interval narrow enough, or the limit wide enough; more repeats only where they
    were not taken yet.

    Runs that differ by as much at every size leave an interval that shrinks as the span of the
    sizes grows. Where nothing is kept, its upper end does so too, for then the slope is of those
    differences alone.
    """
    again = (
        ""
        if evidence.was_remeasured(*(point.name for point in subject.points))
        else "measure again with more repeats or on a quieter machine, or "
    )
    between, over_all = fit.sizes[-1] - fit.sizes[0], rule.resolve_over_all
    excluded = resolve - over_all / between
    larger = "measure larger sizes"
    if excluded > 0:
        largest = _rounded_up(fit.sizes[0] + (fit.line.slope_high * between - over_all) / excluded)
        larger += (
            f" (up to about {sizes_in_words(fit.series.over, largest)}, where none keeps anything)"
        )
    wider = math.ceil((fit.line.slope_high - over_all / between) / KIB)
    return (
        f'{again}{larger}, or, if so much may stay open, write resolve = "{wider} KiB", which '
        "these runs exclude"
    )


def _rounded_up(size: float) -> int:
    """To two digits: what is computed of noise is not known better."""
    step = int(10 ** max(0, len(str(math.ceil(size))) - 2))
    return math.ceil(size / step) * step


def _rise(evidence: Evidence, subject: Subject, fit: Fit, measured: str, decided: str) -> str:
    """The sentence of what goes on rising, up to what to do."""
    quorum = f"; {decided}" if decided else ""
    total = (
        f"At {sizes_in_words(fit.series.over, fit.sizes[-1])} that is "
        f"{format_bytes(fit.line.slope * fit.sizes[-1])}"
    )
    return (
        f"{measured}{attribution(evidence, subject, fit.line)}{quorum}. "
        f"{total}{fate_in_words(evidence, subject, fit)}. To do: "
        f"{search_in_words(evidence, subject, fit)}"
    )


def _level(evidence: Evidence, subject: Subject, level: Ceiling, limit: str, decided: str) -> str:
    """The same of what levels off: up to there it breaks the limit, and a larger size costs no
    more.
    """
    over = subject.series.over
    quorum = f"; {decided}" if decided else ""
    return (
        f"{FIELDS[subject.field].shape} "
        f"{level_in_words(over, level)}{level_attribution(evidence, subject, level)}. From "
        f"{sizes_in_words(over, level.smallest, level.from_size)} it rises by "
        f"{format_whole(level.rise)} B per {unit_of(over)}, {limit}{quorum}. To do: find "
        f"what {subject.phase} fills up to a fixed amount (a cache, a buffer)"
    )


def _bound_in_words(evidence: Evidence, subject: Subject, rule: SlopeRule) -> str:
    if rule.field != "growth":
        return ""
    bound = evidence.fit(subject.series, subject.phase, subject.meter, "growth_bound")
    return (
        ""
        if bound is None
        else f"; the meter's upper bound grows by {format_whole(bound.line.slope)}"
    )


# The shape of growth: its class, and the arithmetic of known arrays.


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
