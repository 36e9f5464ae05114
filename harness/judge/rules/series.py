"""What rules about growth have in common: the fit that a rule is about, or why there is none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.judge.attribution import alive_at_peak, slope_as_multiple
from harness.judge.line import Line, fit_line
from harness.judge.policy import ArithmeticRule, GrowthClassRule, SlopeRule
from harness.judge.rules.evidence import Evidence, fit_key, meter_words, series_place
from harness.judge.rules.quorum import Decision, decide
from harness.judge.scaling import MINIMUM_SIZES, UNITS, Fit, Series, planned_series
from harness.judge.verdict import Check, FindingKind, Seen
from harness.records import Point

SweepRule = SlopeRule | GrowthClassRule | ArithmeticRule

VERBS = {"growth": "grows by", "peak": "its peak rises by", "retained": "keeps"}
TRACED_METER = "device_in_use"
"""The meter whose bytes the traces of a run explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One fit that a rule is about, or why there is none."""

    rule: str
    name: str
    """The rule as the policy has it, such as ``slope rule 2``."""
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
        return tuple(sorted(self.series.points, key=lambda point: int(str(point.parameters[self.series.over]))))

    def check(
        self,
        sentence: str,
        *,
        finding: FindingKind | None,
        measured: float | None = None,
        limit: float | None = None,
        decision: str = "",
    ) -> Check:
        """What a rule concludes about this fit; a finding that rests on a fit may be noise."""
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
            points=tuple(point.name for point in self.points),
            readings=self.readings,
            decision=decision,
            remeasure=finding is not None and self.fit is not None and bool(self.readings),
        )

    def incomplete(self) -> Check:
        """That there is no fit."""
        return self.check(self.gap, finding=FindingKind.INCOMPLETE)


def subjects(evidence: Evidence, name: str, rule: SweepRule) -> Iterator[Subject]:
    """Every fit that the rule called ``name`` is about, as far as the sweep planned any."""
    needed = MINIMUM_SIZES[rule.over]
    for series in planned_series([point for point in evidence.run.points if rule.matches(point)], rule.over):
        if len(series.sizes) < needed and evidence.partial:
            continue
        gap_is_told = False
        for phase in rule.phases_of(series.points[0]):
            for meter in rule.meters:
                subject = _subject(evidence, name, rule, series, phase, meter)
                if subject.fit is not None or not gap_is_told:
                    yield subject  # the same points are missing in every phase; once is enough
                gap_is_told = gap_is_told or subject.fit is None


def unswept(evidence: Evidence, name: str, rule: SweepRule, *, optional: bool) -> Iterator[Check]:
    """A rule about growth whose points were planned at one size only; where it matches nothing, coverage says so."""
    if evidence.partial or optional:
        return
    for scenario in rule.scenarios:
        matched = [point for point in evidence.run.points if rule.matches(point) and point.scenario == scenario]
        if not matched or any(True for _ in planned_series(matched, rule.over)):
            continue
        subject = " / ".join([scenario, *(str(value) for value in rule.where.values()), rule.over])
        sentence = (
            f"{subject}: only one size was planned, but {name} of the policy needs {MINIMUM_SIZES[rule.over]} different ones for a "
            "slope; plan more, or pass --partial when less was measured on purpose"
        )
        yield Check(
            rule=_kind(name),
            subject=subject,
            sentence=sentence,
            finding=FindingKind.INCOMPLETE,
            scenario=scenario,
            because=rule.because,
        )


def attribution(evidence: Evidence, subject: Subject, line: Line) -> str:
    """What the growth is as large as, and what was alive at the peak; with a leading semicolon, or empty."""
    multiple = slope_as_multiple(line, subject.series, evidence.declared)
    alive = alive_at_peak(evidence.traces(), subject.points, subject.phase) if subject.meter == TRACED_METER else ""
    return "".join(f"; {part}" for part in (f"that is {multiple}" if multiple else "", alive) if part)


def vote(evidence: Evidence, subject: Subject, breaks: Callable[[Line], bool], shown: str) -> Decision:
    """What the repeats say one by one about a finding of all of them: a line through each one's own points."""
    points = {point.name: int(str(point.parameters[subject.series.over])) for point in subject.series.points}
    by_repeat: dict[int, list[tuple[int, int]]] = {}
    for one in subject.readings:
        by_repeat.setdefault(one.repeat, []).append((points[one.point], one.amount_bytes))
    whole = MINIMUM_SIZES[subject.series.over]
    lines = [
        fit_line([size for size, _ in pairs], [amount for _, amount in pairs])
        for _, pairs in sorted(by_repeat.items())
        if len({size for size, _ in pairs}) >= whole
    ]
    return decide([breaks(line) for line in lines], first=True, remeasured=evidence.was_remeasured(*points), shown=shown)


def _subject(evidence: Evidence, name: str, rule: SweepRule, series: Series, phase: str, meter: str) -> Subject:
    needed = MINIMUM_SIZES[rule.over]
    fit = evidence.fits.get(fit_key(series, phase, meter, rule.field))
    readings = tuple(
        Seen(point=point.name, repeat=repeat, amount_bytes=amount)
        for point in series.points
        for repeat, amount in evidence.readings.get((point.name, phase, meter, rule.field), {}).items()
    )
    read = len({one.point for one in readings})
    swept = () if rule.over == "image_count" else (rule.over,)
    return Subject(
        rule=_kind(name),
        name=name,
        because=rule.because,
        series=series,
        place=series_place(series, evidence.run.points, *swept, phase, meter_words(meter)),
        phase=phase,
        meter=meter,
        field=rule.field,
        fit=None if fit is None or len(fit.sizes) < needed else fit,
        gap=(
            f"{read} of {len(series.points)} planned points were read, but a slope needs {needed} sizes; the other findings of "
            "this run say why: mend that and measure again"
        ),
        readings=readings,
    )


def _kind(name: str) -> str:
    return name.partition(" ")[0]
