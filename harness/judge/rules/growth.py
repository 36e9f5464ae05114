"""What each further image, frame of the stack, or step of another parameter may cost: slopes,
classes of growth, and the arithmetic of known arrays.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from harness.judge import FindingKind, RuleName, Seen
from harness.judge.growth import (
    Ceiling,
    Fit,
    GrowthClass,
    GrowthLimits,
    Line,
    Series,
    fit_line,
    fit_series,
    material_bend_bytes,
    planned_series,
)
from harness.judge.limits import ArithmeticRule, GrowthClassRule, SlopeRule
from harness.judge.rules.evidence import (
    UNTRACED,
    AliveThen,
    Evidence,
    alive_then,
    decide,
    is_explained,
    limit_place,
    seen,
    slope_as_multiple,
)
from harness.judge.rules.findings import (
    UNDECIDED,
    Arithmetic,
    ArithmeticState,
    Decision,
    Details,
    Edges,
    Finding,
    Gap,
    Held,
    NoFit,
    NoParameter,
    NotSwept,
    Origin,
    Place,
    Shape,
    Slope,
    SlopeState,
    Undeclared,
    once_per_marker,
    text_in_words,
)
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Point, minimum_sizes, size_of, size_parameters, unit_of
from harness.words import as_multiple

SweepRule = SlopeRule | GrowthClassRule | ArithmeticRule
_R = TypeVar("_R", SlopeRule, GrowthClassRule, ArithmeticRule)
_NAMES: Mapping[type[SweepRule], RuleName] = {
    SlopeRule: RuleName.SLOPE,
    GrowthClassRule: RuleName.GROWTH_CLASS,
    ArithmeticRule: RuleName.ARITHMETIC,
}
_ORDER = (GrowthClass.FLAT, GrowthClass.CEILING, GrowthClass.LINEAR, GrowthClass.SUPERLINEAR)
"""The best shape first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedFit:
    """One fit that a rule is about, or that there is none."""

    rule: RuleName
    limit_place: str
    because: str
    series: Series
    place: Place
    field: str
    fit: Fit | None
    gap: NoFit
    """Why there is no fit, where there is none."""
    readings: tuple[Seen, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """Its points, in ascending size."""
        return tuple(sorted(self.series.points, key=lambda point: size_of(point, self.series.over)))

    @property
    def largest_bytes(self) -> int:
        """The amount at the largest size; below 0 where a phase gives back what was there
        before.
        """
        largest = self.points[-1].name
        return max((one.amount_bytes for one in self.readings if one.point == largest), default=0)

    def finding(
        self,
        details: Details,
        *,
        kind: FindingKind | None,
        held: Held | None = None,
        decision: Decision = UNDECIDED,
        may_be_noise: bool = False,
    ) -> Finding:
        """What the rule concludes about it; more repeats could change what may be noise."""
        return Finding(
            rule=self.rule,
            place=self.place,
            details=details,
            kind=kind,
            because=self.because,
            limit_place=self.limit_place,
            points=tuple(point.name for point in self.points),
            readings=self.readings,
            held=held or Held(unit=self.unit),
            decision=decision,
            remeasure=kind is not None and may_be_noise,
        )

    @property
    def unit(self) -> str:
        """``"B/image"``."""
        return f"B/{unit_of(self.series.over)}"


def _over_series(
    evidence: Evidence, kind: type[_R], check: Callable[[Evidence, _R, GatedFit, Fit], Finding]
) -> Iterator[Finding]:
    """Every rule of one kind: what it cannot be about, and what it says of each of its fits."""
    for name, rule in evidence.policy.rules():
        if isinstance(rule, kind):
            yield from check_sweep(evidence, name, rule)
            drops_pages = isinstance(rule, SlopeRule) and rule.without_device_pages
            read = evidence.without_device_pages if drops_pages else evidence
            for gated in gated_fits(read, name, rule):
                if gated.fit is None:
                    yield gated.finding(gated.gap, kind=FindingKind.INCOMPLETE)
                else:
                    yield check(read, rule, gated, gated.fit)


# The fits that a rule is about, or why there are none.


def gated_fits(evidence: Evidence, name: str, rule: SweepRule) -> Iterator[GatedFit]:
    """Every fit that the rule called ``name`` is about, as far as the sweep planned any."""
    needed = minimum_sizes(rule.over)
    matched = [point for point in evidence.run.points if rule.matches(point)]
    for series in planned_series(matched, rule.over):
        if len(series.sizes) < needed and evidence.partial:
            continue
        has_gap = False
        phases = dict.fromkeys(phase for point in series.points for phase in rule.phases_of(point))
        for phase, meter in product(phases, rule.meters):
            gated = _gated_fit(evidence, name, rule, series, (phase, meter))
            # The same points are missing in every phase; once is enough.
            if gated.fit is not None or not has_gap:
                yield gated
            has_gap = has_gap or gated.fit is None


def _gated_fit(
    evidence: Evidence, name: str, rule: SweepRule, series: Series, where: tuple[str, str]
) -> GatedFit:
    phase, meter = where
    needed = minimum_sizes(rule.over)
    fit = evidence.fit(series, phase, meter, rule.field)
    readings = tuple(
        one
        for point in series.points
        for one in seen(point, evidence.readings.get((point.name, phase, meter, rule.field), {}))
    )
    read = {one.point for one in readings}
    return GatedFit(
        rule=_NAMES[type(rule)],
        limit_place=limit_place(evidence.policy, name, rule.because),
        because=rule.because,
        series=series,
        place=Place.of_series(series, evidence.planned_series, phase=phase, meter=meter),
        field=rule.field,
        fit=None if fit is None or len(fit.sizes) < needed else fit,
        gap=NoFit(
            over=rule.over,
            needed=needed,
            planned=len(series.sizes),
            read=len({size_of(each, series.over) for each in series.points if each.name in read}),
            or_less=evidence.or_less(rule.because),
        ),
        readings=readings,
    )


def check_sweep(evidence: Evidence, name: str, rule: SweepRule) -> Iterator[Finding]:
    """A finding for a rule whose points cannot show growth; a rule without points is coverage's to
    report.

    A parameter that none of its points has is a mistake, also where less was measured on purpose.
    """
    matched = [point for point in evidence.run.points if rule.matches(point)]
    scenarios = tuple(dict.fromkeys(point.scenario for point in matched))
    complete = set(scenarios) == set(rule.scenarios)
    if matched and (complete or not evidence.partial) and rule.over not in size_parameters(matched):
        absent = _missing_parameter(rule, matched)
        yield _sweep_finding(evidence, name, rule, " or ".join(scenarios), absent)
        return

    optional = not isinstance(rule, ArithmeticRule) and rule.only_if_swept
    if evidence.partial or optional:
        return
    for scenario in rule.scenarios:
        points = [point for point in matched if point.scenario == scenario]
        if points and next(iter(planned_series(points, rule.over)), None) is None:
            details = _missing_sizes(evidence, rule, points)
            yield _sweep_finding(evidence, name, rule, scenario, details)


def _missing_sizes(evidence: Evidence, rule: SweepRule, points: Sequence[Point]) -> NotSwept:
    sizes = {size_of(point, rule.over) for point in points if rule.over in size_parameters([point])}
    return NotSwept(
        over=rule.over,
        needed=minimum_sizes(rule.over),
        sizes=tuple(sorted(sizes)),
        or_less=evidence.or_less(rule.because),
    )


def _missing_parameter(rule: SweepRule, matched: Sequence[Point]) -> NoParameter:
    """What the points have instead of such a parameter."""
    values = [point.parameters[rule.over] for point in matched if rule.over in point.parameters]
    fixed = [point.scenario for point in matched if rule.over in point.fixed]
    return NoParameter(
        over=rule.over,
        value=repr(values[0]) if values else "",
        fixed_in=fixed[0] if fixed else "",
        known=size_parameters(matched),
    )


def _sweep_finding(
    evidence: Evidence, name: str, rule: SweepRule, scenario: str, details: NotSwept | NoParameter
) -> Finding:
    values = [text_in_words(str(value)) for value in rule.where.values()]
    return Finding(
        rule=_NAMES[type(rule)],
        place=Place(words=" / ".join([scenario, *values, rule.over]), scenario=scenario),
        details=details,
        kind=FindingKind.INCOMPLETE,
        because=rule.because,
        limit_place=limit_place(evidence.policy, name, rule.because),
    )


# Votes and origins, which all three have in common.


def vote(evidence: Evidence, gated: GatedFit, excess: Callable[[Line], float]) -> Decision:
    """Each repeat's vote on the finding: the line through its own points.

    ``excess`` is how far a line is beyond the limit.
    """
    sizes = {point.name: size_of(point, gated.series.over) for point in gated.series.points}
    by_repeat: dict[int, list[tuple[int, int]]] = {}
    for one in gated.readings:
        by_repeat.setdefault(one.repeat, []).append((sizes[one.point], one.amount_bytes))

    needed = minimum_sizes(gated.series.over)
    lines = [
        fit_line([size for size, _ in pairs], [amount for _, amount in pairs])
        for _, pairs in sorted(by_repeat.items())
        if len({size for size, _ in pairs}) >= needed
    ]
    return decide(
        [excess(line) for line in lines], first=True, remeasured=evidence.was_remeasured(*sizes)
    )


def origin_of(evidence: Evidence, gated: GatedFit, fit: Fit, level: Ceiling | None) -> Origin:
    """Where a growth may come from: declared arrays of its size, what a trace lists as alive, the
    phase's edges. For growth that levels off, its level is matched instead of its slope.

    Sizes coincide: where a trace shows what grew, a multiple is named only if one kind of
    allocation alone makes it up.
    """
    phase, meter = gated.place.phase, gated.place.meter
    alive = UNTRACED
    if meter == DEVICE_IN_USE:
        alive = alive_then(evidence.traces(), gated.points, phase, gated.field)
    if level is None:
        multiple = slope_as_multiple(fit.line, gated.series, evidence.declared)
        grown_bytes = fit.line.slope * _steps(gated, alive)
    else:
        declared = evidence.declared_by(gated.points[-1])
        units = {name: float(amount) for name, amount in declared.items()}
        multiple = as_multiple(level.level_bytes, units)
        grown_bytes = level.level_bytes - level.smallest_bytes

    if alive.words and not is_explained(grown_bytes, alive.grown_bytes):
        multiple = ""
    return Origin(
        multiple=multiple,
        alive=alive.words,
        edges=_edges_of(evidence, gated, fit),
        is_first_phase=phase == gated.points[-1].phases[0],
        device_pages=_is_mostly_pages(evidence, gated, fit),
    )


def _steps(gated: GatedFit, alive: AliveThen) -> int:
    """From the smallest of the traced points to the largest; of one point, its size."""
    sizes = [size_of(point, gated.series.over) for point in alive.points]
    return sizes[-1] - sizes[0] if len(sizes) > 1 else sum(sizes)


def _edges_of(evidence: Evidence, gated: GatedFit, fit: Fit) -> Edges | None:
    """What the start, the peak and the end of the phase come to at the largest size, by the lines
    through the same runs.
    """
    growth, peak, retained = (
        evidence.fit(gated.series, gated.place.phase, gated.place.meter, field)
        for field in ("growth", "peak", "retained")
    )
    if growth is None or peak is None or retained is None:
        return None
    size = fit.sizes[-1]
    start = (peak.line.slope - growth.line.slope) * size
    return Edges(start=start, peak=peak.line.slope * size, end=start + retained.line.slope * size)


def _is_mostly_pages(evidence: Evidence, gated: GatedFit, fit: Fit) -> bool:
    """Whether most of a growth is pages that the emulated device's allocator keeps once they were
    touched: what becomes of the tensors is then shown by the device's own meter.
    """
    device = evidence.fit(gated.series, gated.place.phase, DEVICE_IN_USE, "growth")
    emulated = evidence.run.manifest.device.kind == "emulated"
    is_host = gated.place.meter == HOST_ANON and gated.field == "growth"
    return is_host and emulated and device is not None and device.line.slope > fit.line.slope / 2


# Slopes.


def check_slopes(evidence: Evidence) -> Iterator[Finding]:
    """A regression when all of a slope's interval is above its limit; incomplete when the interval
    is too wide for a decision.
    """
    return once_per_marker(_over_series(evidence, SlopeRule, _check_slope))


def _check_slope(evidence: Evidence, rule: SlopeRule, gated: GatedFit, fit: Fit) -> Finding:
    declared = evidence.declared_by(gated.series.points[0])
    at_most, resolve = rule.at_most.in_bytes(declared), rule.resolve.in_bytes(declared)
    if at_most is None or resolve is None:
        missing = rule.at_most if at_most is None else rule.resolve
        return gated.finding(Gap(reason=missing.gap(declared)), kind=FindingKind.INCOMPLETE)

    between = fit.sizes[-1] - fit.sizes[0]
    at_most += rule.at_most_over_all / between
    resolve += rule.resolve_over_all / between
    level = _level_within(fit, at_most=at_most, resolve=resolve)
    decision = UNDECIDED
    if fit.line.slope_low > at_most or level is not None:
        decision = vote(evidence, gated, lambda line: line.slope - at_most)

    state = _slope_state(fit, decision, level, resolve)
    broken = state in ("rises", "levels off")
    open_ = state in ("no interval", "unresolved")
    details = Slope(
        state=state,
        field=gated.field,
        fit=fit,
        largest_bytes=gated.largest_bytes,
        at_most=at_most,
        resolve=resolve,
        resolve_over_all=rule.resolve_over_all,
        bound_slope=_bound_slope(evidence, gated),
        level=level,
        origin=origin_of(evidence, gated, fit, level) if broken else None,
        may_repeat=not evidence.was_remeasured(*(point.name for point in gated.points)),
    )
    return gated.finding(
        details,
        kind=FindingKind.REGRESSION if broken else FindingKind.INCOMPLETE if open_ else None,
        held=Held(measured=fit.line.slope, limit=at_most, bound="upper", unit=gated.unit),
        decision=decision,
        may_be_noise=open_ or decision.may_be_noise,
    )


def _level_within(fit: Fit, *, at_most: float, resolve: float) -> Ceiling | None:
    """Where the amounts break the limit on their way up to a level, and keep it from there on.

    No line goes through what levels off, so that its interval is wide however well the runs agree.
    """
    level = fit.ceiling
    if level is None or not level.holds(at_most=at_most, resolve=resolve):
        return None
    bent = fit.line.slope > at_most and level.rise > at_most and fit.line.slope_high > resolve
    return level if bent or fit.line.slope_low > at_most else None


def _slope_state(fit: Fit, decision: Decision, level: Ceiling | None, resolve: float) -> SlopeState:
    if decision.stands:
        return "rises" if level is None else "levels off"
    if not math.isfinite(fit.line.slope_high):
        return "no interval"
    # Where a quorum has overruled a finding, it is noise: not unresolved.
    return "unresolved" if fit.line.slope_high > resolve and not decision.runs else "within"


def _bound_slope(evidence: Evidence, gated: GatedFit) -> float | None:
    if gated.field != "growth":
        return None
    bound = evidence.fit(gated.series, gated.place.phase, gated.place.meter, "growth_bound")
    return None if bound is None else bound.line.slope


# Classes of growth.


def check_growth_classes(evidence: Evidence) -> Iterator[Finding]:
    """A regression when growth has a worse shape than the policy allows."""
    return _over_series(evidence, GrowthClassRule, _check_class)


def _check_class(evidence: Evidence, rule: GrowthClassRule, gated: GatedFit, fit: Fit) -> Finding:
    details = Shape(
        state="allowed",
        field=rule.field,
        over=rule.over,
        fit=fit,
        largest_bytes=gated.largest_bytes,
        allowed=rule.at_most,
        origin=None,
    )
    found = fit.growth_class
    # Two sizes cannot show the shape of a rise, but they can show that it is one.
    surely_rises = (
        rule.at_most == "flat" and fit.line.slope_low > GrowthLimits().flat_bytes_per_unit
    )
    if found is GrowthClass.UNRESOLVED and not surely_rises:
        unresolved = replace(details, state="unresolved")
        return gated.finding(unresolved, kind=FindingKind.INCOMPLETE, may_be_noise=True)
    if found in _ORDER[: _ORDER.index(GrowthClass(rule.at_most)) + 1]:
        return gated.finding(details, kind=None)

    decision = vote(evidence, gated, lambda line: _shape_excess(line, fit, rule))
    if not decision.stands:
        overruled = replace(details, state="overruled")
        return gated.finding(overruled, kind=None, decision=decision)
    level = fit.ceiling if found is GrowthClass.CEILING else None
    worse = replace(details, state="worse", origin=origin_of(evidence, gated, fit, level))
    return gated.finding(
        worse,
        kind=FindingKind.REGRESSION,
        decision=decision,
        may_be_noise=decision.may_be_noise,
    )


def _shape_excess(line: Line, fit: Fit, rule: GrowthClassRule) -> float:
    """How far one repeat's line rises or bends beyond the allowed shape; significance is asked of
    all repeats together.
    """
    limits = GrowthLimits()
    if rule.at_most == "flat":
        return line.slope - limits.flat_bytes_per_unit
    return line.bend_bytes - material_bend_bytes(line, fit.sizes, limits)


# Arithmetic.


def check_arithmetic(evidence: Evidence) -> Iterator[Finding]:
    """The slope of a known array is its arithmetic; a meter that does not find it is not to be
    trusted elsewhere.

    More than the arrays is a regression; less was not seen, so the run is incomplete.
    """
    return _over_series(evidence, ArithmeticRule, _check_arithmetic)


def _check_arithmetic(
    evidence: Evidence, rule: ArithmeticRule, gated: GatedFit, fit: Fit
) -> Finding:
    expected = _declared_slope(evidence, rule, gated)
    if expected is None:
        return gated.finding(Undeclared(declared=rule.declared), kind=FindingKind.INCOMPLETE)

    line, allowed = fit.line, abs(expected) * rule.within_percent / 100
    decision, state = UNDECIDED, _arithmetic_state(line, expected, allowed)
    if state == "more":
        decision = vote(evidence, gated, lambda each: each.slope - (expected + allowed))
    elif state == "less":
        decision = vote(evidence, gated, lambda each: expected - allowed - each.slope)

    # The nearer of the two limits, which is the one that is broken where one is.
    upper = line.slope >= expected or expected < allowed
    details = Arithmetic(
        state=state,
        field=rule.field,
        fit=fit,
        largest_bytes=gated.largest_bytes,
        declared=rule.declared,
        expected=expected,
        within_percent=rule.within_percent,
        origin=origin_of(evidence, gated, fit, None) if state == "more" else None,
        doctor=evidence.commands.doctor(),
    )
    return gated.finding(
        details,
        kind=_arithmetic_kind(state, decision),
        held=Held(
            measured=line.slope,
            limit=expected + allowed if upper else expected - allowed,
            bound="upper" if upper else "lower",
            unit=gated.unit,
        ),
        decision=decision,
        may_be_noise=state == "unresolved" or decision.may_be_noise,
    )


def _arithmetic_kind(state: ArithmeticState, decision: Decision) -> FindingKind | None:
    if state == "unresolved" or (state == "less" and decision.stands):
        return FindingKind.INCOMPLETE
    return FindingKind.REGRESSION if state == "more" and decision.stands else None


def _arithmetic_state(line: Line, expected: float, allowed: float) -> ArithmeticState:
    if line.slope > expected + allowed:
        return "more"
    if line.slope < expected - allowed:
        return "less"
    return "unresolved" if line.half_width > allowed else "as declared"


def _declared_slope(evidence: Evidence, rule: ArithmeticRule, gated: GatedFit) -> float | None:
    """What the bodies declared, over the same runs, in bytes for each step."""
    phase, meter = gated.place.phase, gated.place.meter
    places = [(point.name, phase, meter, rule.declared) for point in gated.series.points]
    amounts = {place: tuple(evidence.readings.get(place, {}).values()) for place in places}
    fit = fit_series(gated.series, phase, meter, rule.declared, amounts, {}, GrowthLimits())
    return None if fit is None else fit.line.slope
