"""What rules about growth have in common: the fit that a rule is about, or why there is none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.judge.attribution import (
    NOTHING_TOLD,
    AliveThen,
    alive_then,
    as_multiple,
    is_explained,
    slope_as_multiple,
)
from harness.judge.growth import Ceiling, Fit, Line, Series, fit_line, planned_series
from harness.judge.limits import ArithmeticRule, GrowthClassRule, SlopeRule
from harness.judge.rules.evidence import (
    Decision,
    Evidence,
    decide,
    fit_key,
    limit_place,
    series_place,
    text_in_words,
)
from harness.judge.rules.sentences import Edges, at_edges, search, slope_verb
from harness.judge.verdict import Bound, Check, FindingKind, Seen
from harness.meters import DEVICE_IN_USE, HOST_ANON, meter_words
from harness.records import (
    NAMED_STEPS,
    Point,
    minimum_sizes,
    size_of,
    size_parameters,
    sizes_in_words,
    step_in_words,
    unit_of,
)
from harness.units import format_bytes
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


# What a finding about growth says beside its numbers: what grew, what it is at other edges of
# the phase, what to look for.


def attribution(evidence: Evidence, subject: Subject, line: Line) -> str:
    """What the growth is as large as, and what was alive; with a leading semicolon, or empty.

    Sizes coincide: where a trace says what grew, a multiple is named only if one kind of allocation
    alone makes it up.
    """
    multiple = slope_as_multiple(line, subject.series, evidence.declared)
    alive = _alive_of(evidence, subject)
    if alive.words:
        sizes = [size_of(point, subject.series.over) for point in alive.points]
        steps = sizes[-1] - sizes[0] if len(sizes) > 1 else sizes[0]
        multiple = multiple if is_explained(line.slope * steps, alive.grown_bytes) else ""
    return "".join(
        f"; {part}" for part in (f"as large as {multiple}" if multiple else "", alive.words) if part
    )


def level_attribution(evidence: Evidence, subject: Subject, level: Ceiling) -> str:
    """As ``attribution``, of an amount that levels off: what all of it is as large as."""
    alive = _alive_of(evidence, subject)
    declared = evidence.declared_by(subject.points[-1])
    multiple = as_multiple(
        level.level_bytes, {name: float(amount) for name, amount in declared.items()}
    )
    if alive.words and not is_explained(
        level.level_bytes - level.smallest_bytes, alive.grown_bytes
    ):
        multiple = ""
    return "".join(
        f"; {part}" for part in (f"as large as {multiple}" if multiple else "", alive.words) if part
    )


def _alive_of(evidence: Evidence, subject: Subject) -> AliveThen:
    if subject.meter != DEVICE_IN_USE:
        return NOTHING_TOLD
    return alive_then(evidence.traces(), subject.points, subject.phase, subject.field)


def edges_of(evidence: Evidence, subject: Subject, fit: Fit) -> Edges | None:
    """What the start, the peak and the end of the phase come to at the largest size, by the lines
    through the same runs.
    """
    growth, peak, retained = (
        evidence.fit(subject.series, subject.phase, subject.meter, name)
        for name in ("growth", "peak", "retained")
    )
    if growth is None or peak is None or retained is None:
        return None
    size = fit.sizes[-1]
    start = (peak.line.slope - growth.line.slope) * size
    return Edges(start=start, peak=peak.line.slope * size, end=start + retained.line.slope * size)


def fate_in_words(evidence: Evidence, subject: Subject, fit: Fit) -> str:
    """What it is at the other edges of the phase; after the amount, with a leading space, or empty
    where nothing tells.
    """
    words = at_edges(subject.field, edges_of(evidence, subject, fit))
    if not words or subject.largest_bytes < 0:
        return ""
    if subject.field != "growth":
        return words
    on_device = evidence.fit(subject.series, subject.phase, DEVICE_IN_USE, "growth")
    emulated = subject.meter == HOST_ANON and evidence.run.manifest.device.kind == "emulated"
    if emulated and on_device is not None and on_device.line.slope > fit.line.slope / 2:
        # Its allocator keeps pages that were touched once, so the fate of the tensors is told by
        # the device's own meter.
        return f"{words}, pages of the emulated device included"
    return words


def search_in_words(evidence: Evidence, subject: Subject, fit: Fit) -> str:
    """What to look for: in the phase, or in what was there before it."""
    first = subject.phase == subject.points[-1].phases[0]
    each = step_in_words(subject.series.over)
    if subject.largest_bytes < 0:
        return f"find what {subject.phase} does not give back for each {each}"
    return search(
        subject.field, edges_of(evidence, subject, fit), phase=subject.phase, first=first, each=each
    )


def level_in_words(over: str, level: Ceiling) -> str:
    """``"levels off at 4.0 MiB from 256 images on, a fixed amount that 64 images do not fill"``."""
    does = "does" if over not in NAMED_STEPS or level.smallest == 1 else "do"
    return (
        f"levels off at {format_bytes(level.level_bytes)} from "
        f"{sizes_in_words(over, level.from_size)} on, a fixed amount that "
        f"{sizes_in_words(over, level.smallest)} {does} not fill"
    )
