"""Rules about single amounts: those that every run has to stay below (budget, leak), or to reach so
that anything was seen at all (floor), and their distance from what was accepted (baseline).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_high, median_low

from harness.judge import Bound, FindingKind, RuleName
from harness.judge.baseline import BaselinePoint, Recorded, launchers_of
from harness.judge.limits import Amount as Limit
from harness.judge.limits import BudgetRule, LeakRule, Tolerance
from harness.judge.rules.comparability import accept_command
from harness.judge.rules.evidence import (
    UNTRACED,
    Evidence,
    alive_then,
    decide,
    is_explained,
    judged_together,
    least_rises,
    limit_place,
    risen,
    seen,
    tolerance_place,
)
from harness.judge.rules.findings import (
    UNDECIDED,
    Amount,
    Decision,
    Details,
    Distance,
    Finding,
    Gap,
    Held,
    Moved,
    NotCompared,
    Origin,
    Place,
    Rise,
    WhyNotCompared,
)
from harness.meters import DEVICE_IN_USE, HOST_ANON, HOST_MAPPED, HOST_RSS
from harness.records import Point
from harness.words import as_multiple

_COUNTED_AS_WELL: Mapping[str, str] = {HOST_ANON: HOST_RSS}
"""The meter that holds every byte of another one and more: less of these has to show there as
well."""
_ELSEWHERE: Mapping[str, str] = {HOST_ANON: HOST_MAPPED}
"""The rest of it, which has no limit: pages of files, which the kernel can drop."""
_LEAST_SHARE = 0.5
"""Chosen: what became less is gone where half of it at least is gone from the other meter, whose
readings are coarser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limited:
    """One phase of one point, what was read there, and the limit that it is held against."""

    rule: RuleName
    place: Place
    point: Point
    readings: Mapping[int, int]
    """By repeat, in bytes."""
    because: str
    limit_place: str = ""

    @property
    def amounts(self) -> tuple[int, ...]:
        return tuple(self.readings.values())

    def repeat_of(self, amount: int) -> int:
        """The first repeat that read the amount."""
        return next(repeat for repeat, each in self.readings.items() if each == amount)

    def finding(
        self,
        details: Details,
        *,
        kind: FindingKind | None,
        held: Held,
        decision: Decision = UNDECIDED,
    ) -> Finding:
        """What the rule concludes about it."""
        return Finding(
            rule=self.rule,
            place=self.place,
            details=details,
            kind=kind,
            because=self.because,
            limit_place=self.limit_place,
            points=(self.point.name,),
            readings=seen(self.point, self.readings),
            held=held,
            decision=decision,
            better=decision.stands and kind is None,
            remeasure=kind is not None and decision.may_be_noise,
        )

    def unlimited(
        self, limit: Limit, declared: Mapping[str, int], *, measured: float | None = None
    ) -> Finding:
        """That the limit is a multiple of something that the body did not declare."""
        return self.finding(
            Gap(reason=limit.gap(declared)),
            kind=FindingKind.INCOMPLETE,
            held=Held(measured=measured, unit="B"),
        )


# Budgets and floors.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One direction of a limit."""

    rule: RuleName
    kind: FindingKind
    """Of what is beyond it."""
    sign: int
    """1 where more is beyond the limit, -1 where less is."""
    bound: Bound


_BUDGET = _Side(rule=RuleName.BUDGET, kind=FindingKind.REGRESSION, sign=1, bound="upper")
_FLOOR = _Side(rule=RuleName.FLOOR, kind=FindingKind.INCOMPLETE, sign=-1, bound="lower")


def check_budgets(evidence: Evidence) -> Iterator[Finding]:
    """The worst repeat decides; of a point that was measured again, most of them. Above the limit
    is a regression.

    A phase that no run finished has no check: its outcome and coverage say why.
    """
    for name, rule in evidence.policy.rules():
        if isinstance(rule, BudgetRule) and rule.at_most is not None:
            yield from _check_side(evidence, name, rule, rule.at_most, _BUDGET)


def check_floors(evidence: Evidence) -> Iterator[Finding]:
    """A phase that stays below what it cannot do without was not seen by its meter: incomplete,
    never frugal.
    """
    for name, rule in evidence.policy.rules():
        if isinstance(rule, BudgetRule) and rule.at_least is not None:
            yield from _check_side(evidence, name, rule, rule.at_least, _FLOOR)


def _check_side(
    evidence: Evidence, name: str, rule: BudgetRule, limit: Limit, side: _Side
) -> Iterator[Finding]:
    read = evidence.without_device_pages if rule.without_device_pages else evidence
    where = limit_place(evidence.policy, name, rule.because)
    for point, phase, meter in _places(evidence, rule):
        readings = read.readings.get((point.name, phase, meter, rule.field))
        if readings:
            limited = _Limited(
                rule=side.rule,
                place=Place.of_point(point, phase=phase, meter=meter),
                point=point,
                readings=readings,
                because=rule.because,
                limit_place=where,
            )
            yield _check_amount(read, limited, rule.field, limit, side)


def _places(evidence: Evidence, rule: BudgetRule) -> Iterator[tuple[Point, str, str]]:
    for point in evidence.run.points:
        if rule.matches(point):
            for phase in rule.phases_of(point):
                for meter in rule.meters:
                    yield point, phase, meter


def _check_amount(
    evidence: Evidence, limited: _Limited, field: str, limit: Limit, side: _Side
) -> Finding:
    declared = evidence.declared_by(limited.point)
    limit_bytes = limit.in_bytes(declared)
    if limit_bytes is None:
        return limited.unlimited(limit, declared)

    excess = [side.sign * (amount - limit_bytes) for amount in limited.amounts]
    worst = max(limited.amounts) if side.sign > 0 else min(limited.amounts)
    decision = decide(
        excess,
        first=max(excess) > 0,
        remeasured=evidence.was_remeasured(limited.point.name),
    )

    broken_budget = decision.stands and side is _BUDGET
    details = Amount(
        field=field,
        limit=limit.in_words(declared),
        excess_bytes=max(excess),
        origin=_origin(evidence, limited, field, worst) if broken_budget else None,
        doctor=evidence.commands.doctor(),
    )
    return limited.finding(
        details,
        kind=side.kind if decision.stands else None,
        held=Held(measured=float(worst), limit=limit_bytes, bound=side.bound, unit="B"),
        decision=decision,
    )


def _origin(evidence: Evidence, limited: _Limited, field: str, worst: int) -> Origin:
    """What the amount is as large as, what there was at the other edges of the phase, what a trace
    lists as alive.
    """
    point, phase, meter = limited.point, limited.place.phase, limited.place.meter
    alive = UNTRACED
    if meter == DEVICE_IN_USE:
        alive = alive_then(evidence.traces(), (point,), phase, field)
    multiple = as_multiple(worst, _units(evidence, point))
    if alive.words and not is_explained(worst, alive.grown_bytes):
        multiple = ""  # sizes coincide, and the trace shows what it was
    repeat = limited.repeat_of(worst)
    return Origin(
        multiple=multiple,
        alive=alive.words,
        edges=evidence.edges(
            point, phase, meter, repeat, over_start_of_run=field.startswith("net_")
        ),
        is_first_phase=phase == point.phases[0],
    )


def _units(evidence: Evidence, point: Point) -> dict[str, float]:
    return {name: float(amount) for name, amount in evidence.declared_by(point).items()}


# Leaks: what one epoch has more than the epoch before it. Whatever a second one adds, every further
# one adds as well.

Steps = Sequence[tuple[str, str]]
"""From phase to phase, those that are judged together."""


def check_leaks(evidence: Evidence) -> Iterator[Finding]:
    """Each repeat is compared with itself; the worst decides (by ``every_time`` the least), or most
    where measured again.
    """
    for name, rule in evidence.policy.rules():
        if isinstance(rule, LeakRule):
            where = limit_place(evidence.policy, name, rule.because)
            for point, steps, meter in _judged_steps(evidence, rule):
                rises = least_rises(evidence, point, meter, rule, steps)
                if rises:
                    phases = f"{steps[0][0]} to {steps[-1][1]}"
                    place = Place.of_point(point, phase=phases, meter=meter, field=rule.field)
                    limited = _Limited(
                        rule=RuleName.LEAK,
                        place=replace(place, phase=steps[-1][1]),
                        point=point,
                        readings=rises,
                        because=rule.because,
                        limit_place=where,
                    )
                    yield _check_leak(evidence, rule, limited, steps)


def _judged_steps(
    evidence: Evidence, rule: LeakRule
) -> Iterator[tuple[Point, list[tuple[str, str]], str]]:
    for point in evidence.run.points:
        for steps in judged_together(rule, point):
            for meter in rule.meters:
                yield point, steps, meter


def _check_leak(evidence: Evidence, rule: LeakRule, limited: _Limited, steps: Steps) -> Finding:
    declared = evidence.declared_by(limited.point)
    decisive = min if rule.every_time else max
    worst = decisive(limited.amounts)
    limit_bytes = rule.at_most.in_bytes(declared)
    if limit_bytes is None:
        return limited.unlimited(rule.at_most, declared, measured=float(worst))

    excess = [amount - limit_bytes for amount in limited.amounts]
    decision = decide(
        excess,
        first=decisive(excess) > 0,
        remeasured=evidence.was_remeasured(limited.point.name),
    )

    details = Rise(
        limit=rule.at_most.in_words(declared),
        excess_bytes=worst - limit_bytes,
        least_decides=rule.every_time,
        every_step=rule.every_time and len(rule.phases_of(limited.point)) > 2,
        steps=tuple(steps),
        edges=(),
    )
    if decision.stands:
        details = _explained_rise(evidence, rule, limited, details, worst)
    return limited.finding(
        details,
        kind=FindingKind.REGRESSION if decision.stands else None,
        held=Held(measured=float(worst), limit=limit_bytes, bound="upper", unit="B"),
        decision=decision,
    )


def _explained_rise(
    evidence: Evidence, rule: LeakRule, limited: _Limited, rise: Rise, worst: int
) -> Rise:
    """With what it is as large as, the edges of its phases, and what a trace lists."""
    point, meter, repeat = limited.point, limited.place.meter, limited.repeat_of(worst)
    phases = rise.steps[0][0], rise.steps[-1][1]
    alive = risen(evidence.traces(), point, phases, rule.field) if meter == DEVICE_IN_USE else ""
    read = evidence.without_device_pages if rule.every_time else evidence
    edges = [
        (before, after)
        for earlier, later in rise.steps
        if (before := read.edges(point, earlier, meter, repeat)) is not None
        and (after := read.edges(point, later, meter, repeat)) is not None
    ]
    return replace(
        rise,
        multiple="" if alive else as_multiple(worst, _units(evidence, point)),
        alive=alive,
        edges=tuple(edges) if len(edges) == len(rise.steps) else (),
    )


# How far the run is from the accepted baseline. Two-sided: headroom must not grow unseen either.


def check_baseline(evidence: Evidence) -> Iterator[Finding]:
    """The smallest repeat of every growth and retained amount against the baseline's, beyond
    percent AND floor.

    Of points that were measured again, at least half of all repeats have to be beyond them. Without
    tolerances in the policy there is nothing to compare, and no check; without a baseline,
    comparability says so.
    """
    if not evidence.policy.tolerance or evidence.baseline is None:
        return

    for point in evidence.run.points:
        accepted = evidence.baseline.point.get(point.name)
        different = "" if accepted is None else accepted.differs_from(point)
        if accepted is None and evidence.against is not None:
            continue  # the rule about the other side says why it has none
        if accepted is None:
            yield _not_compared(evidence, Place.of_point(point), "no point")
        elif different:
            yield _not_compared(evidence, Place.of_point(point), "other point", different)
        else:
            yield from _check_point(evidence, point, accepted)


def _check_point(evidence: Evidence, point: Point, accepted: BaselinePoint) -> Iterator[Finding]:
    for phase in point.phases:
        for tolerance in evidence.policy.tolerances(point.scenario, phase):
            recorded = accepted.phase.get(phase, {}).get(tolerance.meter)
            for field in tolerance.fields:
                place = Place.of_point(point, phase=phase, meter=tolerance.meter, field=field)
                readings = evidence.readings.get((point.name, phase, tolerance.meter, field))
                if not readings:
                    continue
                earlier_bytes = getattr(recorded, f"{field}_bytes", None)
                if earlier_bytes is None:
                    yield _no_amount(evidence, replace(place, field=""), recorded)
                    break  # once for all fields
                limited = _Limited(
                    rule=RuleName.BASELINE,
                    place=place,
                    point=point,
                    readings=readings,
                    because=tolerance.because,
                    limit_place=tolerance_place(evidence.policy, tolerance),
                )
                compared = _Compared(
                    evidence=evidence, limited=limited, accepted=accepted, tolerance=tolerance
                )
                yield _check_distance(compared, max(earlier_bytes, 0))


def _not_compared(
    evidence: Evidence, place: Place, why: WhyNotCompared, detail: str = ""
) -> Finding:
    return Finding(
        rule=RuleName.BASELINE,
        place=place,
        details=NotCompared(why=why, detail=detail, accept=accept_command(evidence)),
        kind=FindingKind.NO_BASELINE,
    )


def _no_amount(evidence: Evidence, place: Place, recorded: Recorded | None) -> Finding:
    if evidence.against is None:
        return _not_compared(evidence, place, "no amount" if recorded is None else "no start")
    absent = _not_compared(evidence, place, "not read there", evidence.against.words)
    return replace(absent, kind=FindingKind.INCOMPLETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """One amount of a point beside the accepted one."""

    evidence: Evidence
    limited: _Limited
    accepted: BaselinePoint
    tolerance: Tolerance

    @property
    def taken(self) -> dict[int, int]:
        """What a phase gives back mirrors what others took, and is judged there: giving back less
        of less is no regression.
        """
        return {repeat: max(amount, 0) for repeat, amount in self.limited.readings.items()}

    @property
    def least_bytes(self) -> int:
        """The least of the planned repeats; of all of them where none of those has read it."""
        planned = self.evidence.run.first_repeats_of(self.limited.point.name)
        taken = self.taken
        return min([taken[repeat] for repeat in taken if repeat < planned] or taken.values())


def _check_distance(compared: _Compared, earlier_bytes: int) -> Finding:
    evidence, tolerance = compared.evidence, compared.tolerance
    amounts, least_bytes = tuple(compared.taken.values()), compared.least_bytes
    allowed_bytes = max(earlier_bytes * tolerance.percent / 100, tolerance.floor)
    worse = least_bytes >= earlier_bytes

    distances = [(amount - earlier_bytes) * (1 if worse else -1) for amount in amounts]
    decision = decide(
        [bytes_away - allowed_bytes for bytes_away in distances],
        first=abs(least_bytes - earlier_bytes) > allowed_bytes,
        remeasured=evidence.was_remeasured(compared.limited.point.name),
    )
    shown_bytes = least_bytes
    if decision.runs:
        # The middle one, on the side that half of the runs decide for.
        shown_bytes = (median_high if worse else median_low)(amounts)

    less_bytes = earlier_bytes - shown_bytes
    moved = _moved(compared, less_bytes) if decision.stands and not worse else None
    kind = _kind_of_distance(compared, moved, worse=worse) if decision.stands else None
    units = _units(evidence, compared.limited.point)
    against = evidence.against
    details = Distance(
        shown_bytes=shown_bytes,
        earlier_bytes=earlier_bytes,
        earlier=compared.accepted.accepted.in_words if against is None else against.words,
        allowed_bytes=allowed_bytes,
        worse=worse,
        multiple=as_multiple(-less_bytes, units) if decision.stands and worse else "",
        moved=moved,
        accept=accept_command(evidence),
        look_at=None if against is None else against.to_do,
    )
    return _distance_finding(compared, details, kind, decision)


def _kind_of_distance(
    compared: _Compared, moved: Moved | None, *, worse: bool
) -> FindingKind | None:
    if worse:
        return FindingKind.REGRESSION
    if compared.evidence.against is not None:
        # The next comparison starts from here whatever anybody does, so that no headroom grows
        # unseen.
        return None
    return FindingKind.MOVED if moved is not None and moved.known else FindingKind.IMPROVEMENT


def _distance_finding(
    compared: _Compared, details: Distance, kind: FindingKind | None, decision: Decision
) -> Finding:
    earlier_bytes, allowed_bytes = details.earlier_bytes, details.allowed_bytes
    # The limit on the side of the change; where less than nothing would be allowed there is none on
    # that side.
    upper = details.shown_bytes >= earlier_bytes or earlier_bytes < allowed_bytes
    held = Held(
        measured=float(details.shown_bytes),
        limit=earlier_bytes + allowed_bytes if upper else earlier_bytes - allowed_bytes,
        bound="upper" if upper else "lower",
        unit="B",
        earlier=float(earlier_bytes),
        earlier_from=details.earlier,
    )
    return compared.limited.finding(details, kind=kind, held=held, decision=decision)


# Less by one meter and not by another that counts the same bytes: they were moved, and nothing
# became better.


def _moved(compared: _Compared, less_bytes: int) -> Moved | None:
    """Whether bytes that a meter has less of are still counted by another one; None where they are
    gone, or no meter shows it.
    """
    meter = compared.limited.place.meter
    counted_as_well, elsewhere = _COUNTED_AS_WELL.get(meter, ""), _ELSEWHERE.get(meter, "")
    changes = dict(_changes(compared, (counted_as_well, elsewhere)))
    if changes:
        # The sum alone is coarse; where its rest is known as well, that has to have risen.
        _, less_in_sum = changes.get(counted_as_well, (0, 0))
        _, more_in_rest = changes.get(elsewhere, (0, less_bytes))
        gone_from_sum = counted_as_well in changes and less_in_sum <= -_LEAST_SHARE * less_bytes
        if gone_from_sum or more_in_rest < _LEAST_SHARE * less_bytes:
            return None
        return Moved(others=tuple((name, now, by) for name, (now, by) in changes.items()))

    now = _least(compared, elsewhere)
    if now is None or now < _LEAST_SHARE * less_bytes:
        return None
    return Moved(unlimited=(elsewhere, now))


def _changes(compared: _Compared, meters: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """What the other meters have now, and by how much that is more than before, as far as both can
    be compared.
    """
    accepted, place = compared.accepted, compared.limited.place
    # Resident memory depends on how a child was started (comparability.ISOLATED_METERS).
    if accepted.accepted.isolation != launchers_of(compared.evidence.run):
        return
    for meter in meters:
        now = _least(compared, meter)
        recorded = accepted.phase.get(place.phase, {}).get(meter)
        then = getattr(recorded, f"{place.field}_bytes", None)
        if now is not None and then is not None:
            yield meter, (now, now - then)


def _least(compared: _Compared, meter: str) -> int | None:
    place = compared.limited.place
    readings = compared.evidence.readings.get((place.point, place.phase, meter, place.field), {})
    return min(readings.values(), default=None)
