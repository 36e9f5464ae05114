"""How memory grows with the data: slopes against limits, classes of growth, and the arithmetic of known arrays."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.judge.policy import ArithmeticRule, GrowthClassRule, SlopeRule
from harness.judge.rules.evidence import Evidence, fit_key, meter_words, series_place
from harness.judge.scaling import MINIMUM_SIZES, UNITS, Fit, GrowthClass, GrowthLimits, Series, fit_series, planned_series
from harness.judge.verdict import Check, FindingKind
from harness.units import format_bytes, format_rate, format_whole

SweepRule = SlopeRule | GrowthClassRule | ArithmeticRule

_VERBS = {"growth": "grows by", "peak": "its peak rises by", "retained": "keeps"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """One fit that a rule is about, or why there is none."""

    rule: str
    because: str
    series: Series
    place: str
    phase: str
    meter: str
    fit: Fit | None
    gap: str

    def check(
        self, sentence: str, *, finding: FindingKind | None, measured: float | None = None, limit: float | None = None
    ) -> Check:
        """What a rule concludes about this fit."""
        return Check(
            rule=self.rule,
            subject=self.place,
            sentence=f"{self.place}: {sentence}",
            finding=finding,
            scenario=self.series.scenario,
            phase=self.phase,
            meter=self.meter,
            measured=measured,
            limit=limit,
            unit=f"B/{UNITS[self.series.over]}",
            because=self.because,
        )

    def incomplete(self) -> Check:
        return self.check(self.gap, finding=FindingKind.INCOMPLETE)


def check_slopes(evidence: Evidence) -> Iterator[Check]:
    """A regression when the whole interval of a slope lies above its limit; incomplete when it is too wide to tell."""
    for rule in evidence.policy.slope:
        yield from _unswept(evidence, "slope", rule, optional=rule.only_if_swept)
        for subject in _subjects(evidence, "slope", rule):
            yield subject.incomplete() if subject.fit is None else _check_slope(evidence, rule, subject, subject.fit)


def _check_slope(evidence: Evidence, rule: SlopeRule, subject: _Subject, fit: Fit) -> Check:
    declared = evidence.declared(subject.series.points[0], subject.phase, subject.meter)
    at_most, resolve = rule.at_most.in_bytes(declared), rule.resolve.in_bytes(declared)
    if at_most is None or resolve is None:
        missing = rule.at_most.of if at_most is None else rule.resolve.of
        gap = f"the body did not declare {missing}, which the limit is a multiple of; call memory.declare({missing}=...)"
        return subject.check(gap, finding=FindingKind.INCOMPLETE)
    line, unit = fit.line, fit.unit
    found = f"{_VERBS[rule.field]} {format_whole(line.slope)} B per {unit}, limit {format_whole(at_most)}"
    interval = (
        f"95 % interval {format_whole(line.slope_low)} to {format_whole(line.slope_high)}; {len(fit.sizes)} sizes, {fit.runs} runs"
    )
    bound = _bound_in_words(evidence, subject, rule)
    finding = None
    if line.slope_low > at_most:
        finding = FindingKind.REGRESSION
        total = format_bytes(line.slope * fit.sizes[-1])
        sentence = f"{found} ({interval}{bound}). At {fit.sizes[-1]:,} {unit}s that is {total}, {_fate(evidence, subject)}."
    elif not math.isfinite(line.slope_high):
        finding = FindingKind.INCOMPLETE
        sentence = f"unresolved: {found}, but {fit.runs} runs leave no interval around it; measure with --repeats 2 or more."
    elif line.slope_high > resolve:
        finding = FindingKind.INCOMPLETE
        sentence = (
            f"unresolved: {found}, but the runs differ too much to tell ({interval}): {format_rate(resolve, unit)} "
            "has to be excluded. Measure again with more repeats or on a quieter machine."
        )
    else:
        sentence = f"{found} ({interval}{bound})."
    return subject.check(sentence, finding=finding, measured=line.slope, limit=at_most)


def _fate(evidence: Evidence, subject: _Subject) -> str:
    """Whether the growth outlives the phase: what is kept is a container's, what is given back a temporary's."""
    retained = evidence.fit(subject.series, subject.phase, subject.meter, "retained")
    growth = evidence.fit(subject.series, subject.phase, subject.meter, "growth")
    if retained is None or growth is None:
        return "held while the phase runs"
    kept = retained.line.slope > growth.line.slope / 2
    fate = "still held when the phase ends" if kept else "given back before the phase ends"
    on_device = evidence.fit(subject.series, subject.phase, "device_in_use", "growth")
    emulated = subject.meter == "host_anon" and evidence.run.manifest.device.kind == "emulated"
    if emulated and on_device is not None and on_device.line.slope > growth.line.slope / 2:
        # Its allocator keeps pages that were touched once, so the fate of the tensors is told by the device's own meter.
        return f"{fate}, pages of the emulated device included"
    return fate


def _bound_in_words(evidence: Evidence, subject: _Subject, rule: SlopeRule) -> str:
    if rule.field != "growth":
        return ""
    bound = evidence.fit(subject.series, subject.phase, subject.meter, "growth_bound")
    return "" if bound is None else f"; the meter's upper bound grows by {format_whole(bound.line.slope)}"


def check_growth_classes(evidence: Evidence) -> Iterator[Check]:
    """A regression when growth has a worse shape than the policy allows."""
    order = [GrowthClass.FLAT, GrowthClass.LINEAR, GrowthClass.SUPERLINEAR]
    for rule in evidence.policy.growth_class:
        yield from _unswept(evidence, "growth_class", rule, optional=False)
        for subject in _subjects(evidence, "growth_class", rule):
            if subject.fit is None:
                yield subject.incomplete()
                continue
            found = subject.fit.growth_class
            finding: FindingKind | None
            if found is GrowthClass.UNRESOLVED:
                finding = FindingKind.INCOMPLETE
                sentence = "its class of growth is unresolved; measure more sizes or repeats"
            else:
                finding = FindingKind.REGRESSION if order.index(found) > order.index(GrowthClass(rule.at_most)) else None
                sentence = f"growth is {found}, allowed is {rule.at_most}; a parabola bends by {_bend(subject.fit)}."
            yield subject.check(sentence, finding=finding)


def _bend(fit: Fit) -> str:
    return f"{format_bytes(fit.line.bend_bytes)} over {fit.sizes[0]:,} to {fit.sizes[-1]:,} {fit.unit}s"


def check_arithmetic(evidence: Evidence) -> Iterator[Check]:
    """The slope of a known array is its arithmetic; a meter that does not find it is not to be trusted elsewhere.

    More than the arrays is a regression; less was not seen, so the run is incomplete.
    """
    for rule in evidence.policy.arithmetic:
        yield from _unswept(evidence, "arithmetic", rule, optional=False)
        for subject in _subjects(evidence, "arithmetic", rule):
            if subject.fit is None:
                yield subject.incomplete()
                continue
            declared = _declared_fit(evidence, rule, subject)
            if declared is None:
                gap = f"the body did not declare {rule.declared} at two sizes; call memory.declare({rule.declared}=...)"
                yield subject.check(gap, finding=FindingKind.INCOMPLETE)
                continue
            yield _check_arithmetic(rule, subject, subject.fit, declared.line.slope)


def _declared_fit(evidence: Evidence, rule: ArithmeticRule, subject: _Subject) -> Fit | None:
    """What the bodies declared, over the same runs."""
    return fit_series(subject.series, subject.phase, subject.meter, rule.declared, evidence.amounts, {}, GrowthLimits())


def _check_arithmetic(rule: ArithmeticRule, subject: _Subject, fit: Fit, expected: float) -> Check:
    line, allowed = fit.line, abs(expected) * rule.within_percent / 100
    found = (
        f"{_VERBS[rule.field]} {format_whole(line.slope)} B per {fit.unit}; "
        f"its {rule.declared} add up to {format_whole(expected)}, within {rule.within_percent:g} %"
    )
    finding = None
    sentence = f"{found}."
    if line.slope > expected + allowed:
        finding, sentence = FindingKind.REGRESSION, f"{found} was expected: something beyond the {rule.declared} is held."
    elif line.slope < expected - allowed:
        finding, sentence = FindingKind.INCOMPLETE, f"{found} was expected: the meter did not see all of them."
    elif line.half_width > allowed:
        finding = FindingKind.INCOMPLETE
        sentence = (
            f"unresolved: {found}, but the 95 % interval reaches {format_whole(line.half_width)} to either side; "
            "measure more repeats."
        )
    return subject.check(sentence, finding=finding, measured=line.slope, limit=expected)


def _unswept(evidence: Evidence, name: str, rule: SweepRule, *, optional: bool) -> Iterator[Check]:
    """A rule about growth whose points were planned at one size only; where it matches nothing, coverage says so."""
    if evidence.partial or optional:
        return
    for scenario in rule.scenarios:
        matched = [point for point in evidence.run.points if rule.matches(point) and point.scenario == scenario]
        if not matched or any(True for _ in planned_series(matched, rule.over)):
            continue
        subject = " / ".join([scenario, *(str(value) for value in rule.where.values()), rule.over])
        sentence = (
            f"{subject}: only one size was planned; a slope needs {MINIMUM_SIZES[rule.over]} different ones, "
            "or --partial when less was measured on purpose"
        )
        yield Check(
            rule=name,
            subject=subject,
            sentence=sentence,
            finding=FindingKind.INCOMPLETE,
            scenario=scenario,
            because=rule.because,
        )


def _subjects(evidence: Evidence, name: str, rule: SweepRule) -> Iterator[_Subject]:
    needed = MINIMUM_SIZES[rule.over]
    points = evidence.run.points
    for series in planned_series([point for point in points if rule.matches(point)], rule.over):
        if len(series.sizes) < needed and evidence.partial:
            continue
        swept = () if rule.over == "image_count" else (rule.over,)
        gap_is_told = False
        for phase in rule.phases_of(series.points[0]):
            for meter in rule.meters:
                fit = evidence.fits.get(fit_key(series, phase, meter, rule.field))
                read = sum((point.name, phase, meter, rule.field) in evidence.amounts for point in series.points)
                is_short = fit is None or len(fit.sizes) < needed
                if is_short and gap_is_told:
                    continue  # the same points are missing in every phase; once is enough
                gap_is_told = gap_is_told or is_short
                yield _Subject(
                    rule=name,
                    because=rule.because,
                    series=series,
                    place=series_place(series, points, *swept, phase, meter_words(meter)),
                    phase=phase,
                    meter=meter,
                    fit=None if is_short else fit,
                    gap=f"{read} of {len(series.points)} planned points were read; a slope needs {needed}",
                )
