"""What each further image, or frame of the stack, may cost."""

import math
from collections.abc import Iterator
from functools import cache

from harness.judge.ceiling import Ceiling
from harness.judge.growth import Fit
from harness.judge.limits import SlopeRule
from harness.judge.rules.evidence import Evidence, marker_of
from harness.judge.rules.pages import without_pages
from harness.judge.rules.quorum import Decision
from harness.judge.rules.sentences import FIELDS, closed
from harness.judge.rules.series import Subject, subjects, unswept, vote
from harness.judge.rules.serieswords import (
    attribution,
    fate_in_words,
    level_attribution,
    level_in_words,
    search_in_words,
)
from harness.judge.sizes import sizes_in_words, unit_of
from harness.judge.verdict import Check, FindingKind
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
