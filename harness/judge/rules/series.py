"""What rules about growth have in common: the fit that a rule is about, or why there is none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.judge.growth import Fit, Series, planned_series
from harness.judge.limits import ArithmeticRule, GrowthClassRule, SlopeRule
from harness.judge.line import Line, fit_line
from harness.judge.rules.evidence import (
    Evidence,
    fit_key,
    limit_place,
    meter_words,
    series_place,
    text_in_words,
)
from harness.judge.rules.quorum import Decision, decide
from harness.judge.rules.sentences import slope_verb
from harness.judge.sizes import minimum_sizes, size_of, size_parameters, unit_of
from harness.judge.verdict import Bound, Check, FindingKind, Seen
from harness.records import Point
from harness.words import nearest

SweepRule = SlopeRule | GrowthClassRule | ArithmeticRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One fit that a rule is about, or why there is none."""

    rule: str
    name: str
    """Where the rule stands, such as ``slope rule 2 of scenarios/gate.toml``."""
    because: str
    series: Series
    place: str
    phase: str
    meter: str
    field: str
    fit: Fit | None
    gap: str
    readings: tuple[Seen, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """Its points, in ascending size."""
        return tuple(sorted(self.series.points, key=lambda point: size_of(point, self.series.over)))

    def check(
        self,
        sentence: str,
        *,
        finding: FindingKind | None,
        measured: float | None = None,
        limit: float | None = None,
        bound: Bound = "",
        decision: str = "",
        may_be_noise: bool = False,
    ) -> Check:
        """What a rule concludes about this fit; more repeats could change what may be noise."""
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
            bound=bound,
            unit=f"B/{unit_of(self.series.over)}",
            because=self.because,
            points=tuple(point.name for point in self.points),
            readings=self.readings,
            decision=decision,
            remeasure=finding is not None and may_be_noise,
        )

    @property
    def largest_bytes(self) -> int:
        """The amount at the largest size; below 0 where a phase gives back what was there
        before.
        """
        largest = self.points[-1].name
        return max((one.amount_bytes for one in self.readings if one.point == largest), default=0)

    @property
    def verb(self) -> str:
        """What goes before so and so many bytes for each step: ``"grows by"``; of amounts below 0
        ``"gives back less by"``.
        """
        return slope_verb(self.field, self.largest_bytes)

    def incomplete(self) -> Check:
        """That there is no fit."""
        return self.check(self.gap, finding=FindingKind.INCOMPLETE)


def subjects(evidence: Evidence, name: str, rule: SweepRule) -> Iterator[Subject]:
    """Every fit that the rule called ``name`` is about, as far as the sweep planned any."""
    needed = minimum_sizes(rule.over)
    for series in planned_series(
        [point for point in evidence.run.points if rule.matches(point)], rule.over
    ):
        if len(series.sizes) < needed and evidence.partial:
            continue
        gap_is_told = False
        for phase in dict.fromkeys(
            phase for point in series.points for phase in rule.phases_of(point)
        ):
            for meter in rule.meters:
                subject = _subject(evidence, name, rule, series, phase, meter)
                if subject.fit is not None or not gap_is_told:
                    yield subject  # the same points are missing in every phase; once is enough
                gap_is_told = gap_is_told or subject.fit is None


def unswept(evidence: Evidence, name: str, rule: SweepRule, *, optional: bool) -> Iterator[Check]:
    """A rule about growth whose points cannot show any; where it matches no point, coverage says
    so.

    A parameter that none of its points has is a mistake, also where less was measured on purpose.
    """
    matched = [point for point in evidence.run.points if rule.matches(point)]
    whole = {point.scenario for point in matched} == set(rule.scenarios)
    if matched and (whole or not evidence.partial) and rule.over not in size_parameters(matched):
        yield _blind(
            evidence,
            name,
            rule,
            " or ".join(dict.fromkeys(point.scenario for point in matched)),
            _unknown(rule, matched),
        )
        return
    if evidence.partial or optional:
        return
    for scenario in rule.scenarios:
        own = [point for point in matched if point.scenario == scenario]
        if not own or any(True for _ in planned_series(own, rule.over)):
            continue
        sizes = sorted(
            {size_of(point, rule.over) for point in own if rule.over in size_parameters([point])}
        )
        found = (
            f"only {rule.over} {', '.join(map(str, sizes))} was measured"
            if len(sizes) == 1
            else f"no {rule.over} was measured"
        )
        if len(sizes) > 1:
            found = f"no two points differ in {rule.over} alone"
        what = (
            f"{found}, and a slope needs {minimum_sizes(rule.over)} different values; measure "
            f"more{evidence.or_less(rule.because)}"
        )
        yield _blind(evidence, name, rule, scenario, what)


def _unknown(rule: SweepRule, matched: Sequence[Point]) -> str:
    """That none of the points has the parameter, with the nearest that one has."""
    values = [point.parameters[rule.over] for point in matched if rule.over in point.parameters]
    if values:
        return (
            f"its values are no whole numbers ({values[0]!r}), so there is nothing to draw a "
            "line over; name another parameter"
        )
    fixed = [point for point in matched if rule.over in point.fixed]
    if fixed:
        return (
            f"it is a fixed setting of {fixed[0].scenario} and the same in every point; name a "
            "parameter that is swept"
        )
    numbers = size_parameters(matched)
    known = (
        nearest(rule.over, numbers)
        if numbers
        else "none of them has a parameter that is a whole number"
    )
    return f"no point that the rule is about has such a parameter; {known}"


def _blind(evidence: Evidence, name: str, rule: SweepRule, scenario: str, what: str) -> Check:
    subject = " / ".join(
        [scenario, *(text_in_words(str(value)) for value in rule.where.values()), rule.over]
    )
    place = limit_place(evidence.policy, name, rule.because)
    return Check(
        rule=_kind(name),
        subject=subject,
        sentence=f"{subject}: {what}. The rule is {place}.",
        finding=FindingKind.INCOMPLETE,
        scenario=scenario,
        because=rule.because,
    )


def vote(
    evidence: Evidence, subject: Subject, excess: Callable[[Line], float], shown: str
) -> Decision:
    """What the repeats say one by one about a finding of all of them: a line through each one's own
    points.

    ``excess`` is how far a line lies beyond the limit.
    """
    points = {point.name: size_of(point, subject.series.over) for point in subject.series.points}
    by_repeat: dict[int, list[tuple[int, int]]] = {}
    for one in subject.readings:
        by_repeat.setdefault(one.repeat, []).append((points[one.point], one.amount_bytes))
    whole = minimum_sizes(subject.series.over)
    lines = [
        fit_line([size for size, _ in pairs], [amount for _, amount in pairs])
        for _, pairs in sorted(by_repeat.items())
        if len({size for size, _ in pairs}) >= whole
    ]
    return decide(
        [excess(line) for line in lines],
        first=True,
        remeasured=evidence.was_remeasured(*points),
        shown=shown,
    )


def _subject(
    evidence: Evidence, name: str, rule: SweepRule, series: Series, phase: str, meter: str
) -> Subject:
    needed = minimum_sizes(rule.over)
    fit = evidence.fits.get(fit_key(series, phase, meter, rule.field))
    readings = tuple(
        Seen(point=point.name, repeat=repeat, amount_bytes=amount)
        for point in series.points
        for repeat, amount in evidence.readings.get(
            (point.name, phase, meter, rule.field), {}
        ).items()
    )
    read = {one.point for one in readings}
    sizes_read = len({size_of(point, series.over) for point in series.points if point.name in read})
    swept = () if rule.over == "image_count" else (rule.over,)
    return Subject(
        rule=_kind(name),
        name=limit_place(evidence.policy, name, rule.because),
        because=rule.because,
        series=series,
        place=series_place(series, evidence.run.points, *swept, phase, meter_words(meter)),
        phase=phase,
        meter=meter,
        field=rule.field,
        fit=None if fit is None or len(fit.sizes) < needed else fit,
        gap=(
            f"there is no slope over {rule.over}: it needs {needed} different values, "
            f"{len(series.sizes)} were planned and {sizes_read} could be read. "
            f"{_too_few(evidence, rule, series, needed)}"
        ),
        readings=readings,
    )


def _too_few(evidence: Evidence, rule: SweepRule, series: Series, needed: int) -> str:
    if len(series.sizes) < needed:
        return f"To do: measure more values{evidence.or_less(rule.because)}."
    return (
        "The other findings of this run say why the rest is missing: mend that, and measure again."
    )


def _kind(name: str) -> str:
    return name.partition(" ")[0]
