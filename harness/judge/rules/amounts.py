"""Amounts that every single run has to stay below (budget), or to reach so that anything was seen
at all (floor).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from harness.judge.advice import quoted
from harness.judge.attribution import NOTHING_TOLD, alive_then, as_multiple, is_explained, risen
from harness.judge.limits import Amount, BudgetRule, LeakRule
from harness.judge.rules.evidence import (
    Decision,
    Evidence,
    decide,
    judged_together,
    least_rises,
    limit_place,
    point_place,
    runs_in_words,
    seen,
    without_pages,
)
from harness.judge.rules.sentences import (
    Edges,
    LeakWords,
    amount_in_words,
    beside,
    closed,
    leak_in_words,
    leak_of_every_step,
    search,
)
from harness.judge.verdict import Bound, Check, FindingKind
from harness.meters import DEVICE_IN_USE, meter_words
from harness.records import Point
from harness.units import format_bytes

_UNDECIDED = Decision(stands=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One direction of a limit: what is beyond it, and in which words."""

    rule: str
    finding: FindingKind
    sign: int
    """1 where more is beyond the limit, -1 where less is."""
    bound: Bound
    limit: str
    which: str
    shown: str
    beyond: str

    def worst(self, amounts: Sequence[int]) -> int:
        """The amount that lies furthest beyond the limit."""
        return max(amounts) if self.sign > 0 else min(amounts)


_BUDGET = _Side(
    rule="budget",
    finding=FindingKind.REGRESSION,
    sign=1,
    bound="upper",
    limit="limit",
    which="worst",
    shown="lie over it",
    beyond="over it",
)
_FLOOR = _Side(
    rule="floor",
    finding=FindingKind.INCOMPLETE,
    sign=-1,
    bound="lower",
    limit="at least",
    which="least",
    shown="fall short of it",
    beyond="short of it, so the meter did not see what the phase needs",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One phase of one point that a rule is about, and what was read there."""

    name: str
    rule: BudgetRule
    point: Point
    phase: str
    meter: str
    readings: Mapping[int, int]

    @property
    def amounts(self) -> tuple[int, ...]:
        return tuple(self.readings.values())

    def check(
        self,
        side: _Side,
        sentence: str,
        *,
        finding: FindingKind | None,
        measured: float | None = None,
        limit: float | None = None,
        decision: Decision = _UNDECIDED,
    ) -> Check:
        """What a rule concludes about it."""
        subject = point_place(self.point, self.phase, meter_words(self.meter))
        return Check(
            rule=side.rule,
            subject=subject,
            sentence=f"{subject}: {sentence}",
            scenario=self.point.scenario,
            point=self.point.name,
            phase=self.phase,
            meter=self.meter,
            unit="B",
            because=self.rule.because,
            points=(self.point.name,),
            readings=seen(self.point, self.readings),
            finding=finding,
            measured=measured,
            limit=limit,
            bound="" if limit is None else side.bound,
            decision=decision.words,
            remeasure=decision.may_be_noise,
        )


def check_budgets(evidence: Evidence) -> Iterator[Check]:
    """The worst repeat decides; of a point that was measured again, most of them. Above the limit
    is a regression.

    A phase that no run finished has no check: its outcome and coverage say why.
    """
    for read, place in _places(evidence):
        if place.rule.at_most is not None:
            yield _check(read, place, place.rule.at_most, _BUDGET)


def check_floors(evidence: Evidence) -> Iterator[Check]:
    """A phase that stays below what it cannot do without was not seen by its meter: incomplete,
    never frugal.
    """
    for read, place in _places(evidence):
        if place.rule.at_least is not None:
            yield _check(read, place, place.rule.at_least, _FLOOR)


def _places(evidence: Evidence) -> Iterator[tuple[Evidence, _Place]]:
    """Each with the evidence that it is judged by."""
    # every marker has such a rule, and it reads the complete run anew
    pageless = cache(lambda: without_pages(evidence))
    for name, rule in evidence.policy.rules():
        if not isinstance(rule, BudgetRule):
            continue
        read = pageless() if rule.without_device_pages else evidence
        for point in evidence.run.points:
            for phase in rule.phases_of(point) if rule.matches(point) else ():
                for meter in rule.meters:
                    readings = read.readings.get((point.name, phase, meter, rule.field))
                    if readings:
                        where = limit_place(evidence.policy, name, rule.because)
                        yield (
                            read,
                            _Place(
                                name=where,
                                rule=rule,
                                point=point,
                                phase=phase,
                                meter=meter,
                                readings=readings,
                            ),
                        )


def _check(evidence: Evidence, place: _Place, limit: Amount, side: _Side) -> Check:
    declared = evidence.declared_by(place.point)
    limit_bytes, worst = limit.in_bytes(declared), side.worst(place.amounts)
    if limit_bytes is None:
        return place.check(side, closed(limit.gap(declared)), finding=FindingKind.INCOMPLETE)
    found = (
        f"{amount_in_words(place.rule.field, worst)}, {side.limit} {limit.in_words(declared)} "
        f"({side.which} of {runs_in_words(place.amounts)})"
    )
    excess = [side.sign * (amount - limit_bytes) for amount in place.amounts]
    decision = decide(
        excess,
        first=max(excess) > 0,
        remeasured=evidence.was_remeasured(place.point.name),
        shown=side.shown,
    )
    finding = None
    sentence = f"{_joined([found, decision.words])}."
    if decision.stands:
        finding = side.finding
        beyond = f"{found}: {round(max(excess)):,} B {side.beyond}"
        about, advice = (
            ([], _feed(evidence, place)) if side is _FLOOR else _explained(evidence, place, worst)
        )
        sentence = (
            f"{_joined([beyond, *about, decision.words])}. To do: {advice}; the limit is "
            f"{place.name}."
        )
    return place.check(
        side, sentence, finding=finding, measured=float(worst), limit=limit_bytes, decision=decision
    )


def _joined(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part)


def _feed(evidence: Evidence, place: _Place) -> str:
    if place.meter == DEVICE_IN_USE:
        return "feed memory that the allocator counts (a copy, not an alias of a numpy array)"
    return (
        f"see that {place.phase} does what it is there for, and run "
        f"{quoted(evidence.commands.doctor())}"
    )


def _explained(evidence: Evidence, place: _Place, worst: int) -> tuple[list[str], str]:
    """What it is as large as, what there was at the other edges of the phase, what a trace says was
    alive; and what to look for.
    """
    declared, edges = evidence.declared_by(place.point), _edges(evidence, place, worst)
    alive = NOTHING_TOLD
    if place.meter == DEVICE_IN_USE:
        alive = alive_then(evidence.traces(), (place.point,), place.phase, place.rule.field)
    like = as_multiple(worst, {name: float(amount) for name, amount in declared.items()})
    if alive.words and not is_explained(worst, alive.grown_bytes):
        like = ""  # sizes coincide, and the trace knows what it was
    first = place.phase == place.point.phases[0]
    about = [f"as large as {like}" if like else "", beside(place.rule.field, edges), alive.words]
    return about, search(place.rule.field, edges, phase=place.phase, first=first)


def _edges(evidence: Evidence, place: _Place, worst: int) -> Edges | None:
    """Start, peak and end of the run that decides; over what there was before the run's first phase
    where the field is so.
    """
    repeat = next(repeat for repeat, amount in place.readings.items() if amount == worst)
    start, peak, end, net_end = (
        evidence.readings.get((place.point.name, place.phase, place.meter, field), {}).get(repeat)
        for field in ("start", "peak", "end", "net_end")
    )
    if start is None or peak is None or end is None:
        return None
    before = end - net_end if place.rule.field.startswith("net_") and net_end is not None else 0
    return Edges(start=start - before, peak=peak - before, end=end - before)


# What one epoch has more than the epoch before it: whatever a second one adds, every further one
# adds as well.


RULE = "leak"
Steps = Sequence[tuple[str, str]]
"""From phase to phase, those that are judged together."""


def check_leaks(evidence: Evidence) -> Iterator[Check]:
    """Each repeat is compared with itself; the worst decides (by ``every_time`` the least), or most
    where measured again.
    """
    for name, rule in evidence.policy.rules():
        if isinstance(rule, LeakRule):
            for point in evidence.run.points:
                for steps in judged_together(rule, point):
                    for meter in rule.meters:
                        rises = least_rises(evidence, point, meter, rule, steps)
                        if rises:
                            yield _check_leak(evidence, name, rule, point, meter, steps, rises)


def _check_leak(
    evidence: Evidence,
    name: str,
    rule: LeakRule,
    point: Point,
    meter: str,
    steps: Steps,
    rises: Mapping[int, int],
) -> Check:
    declared, amounts = evidence.declared_by(point), tuple(rises.values())
    decisive, called = (min, "least") if rule.every_time else (max, "worst")
    limit_bytes, worst = rule.at_most.in_bytes(declared), decisive(amounts)
    earlier, later = steps[0][0], steps[-1][1]
    subject = point_place(point, f"{earlier} to {later}", meter_words(meter))
    finding: FindingKind | None = None
    decision = Decision(stands=False)
    if limit_bytes is None:
        finding, sentence = FindingKind.INCOMPLETE, closed(rule.at_most.gap(declared))
    else:
        in_words = (
            " at least in every step" if rule.every_time and len(rule.phases_of(point)) > 2 else ""
        )
        found = (
            f"{_risen(rule.field, worst)}{in_words}, limit {rule.at_most.in_words(declared)} "
            f"({called} of {runs_in_words(amounts)})"
        )
        excess = [amount - limit_bytes for amount in amounts]
        decision = decide(
            excess,
            first=decisive(excess) > 0,
            remeasured=evidence.was_remeasured(point.name),
            shown="rise by more",
        )
        sentence = "; ".join(part for part in (found, decision.words) if part) + "."
        if decision.stands:
            finding = FindingKind.REGRESSION
            place = limit_place(evidence.policy, name, rule.because)
            repeat = next(repeat for repeat, amount in rises.items() if amount == worst)
            about, to_do = _leak_explained(evidence, rule, point, meter, steps, repeat, worst)
            parts = [f"{found}: {round(worst - limit_bytes):,} B over it", *about, decision.words]
            sentence = (
                f"{'; '.join(part for part in parts if part)}. To do: {to_do}. The limit is "
                f"{place}."
            )
    return Check(
        rule=RULE,
        subject=f"{subject} / {rule.field}",
        sentence=f"{subject}: {sentence}",
        finding=finding,
        scenario=point.scenario,
        point=point.name,
        phase=later,
        meter=meter,
        measured=float(worst),
        limit=limit_bytes,
        bound="" if limit_bytes is None else "upper",
        unit="B",
        because=rule.because,
        points=(point.name,),
        readings=seen(point, rises),
        decision=decision.words,
        remeasure=decision.may_be_noise,
    )


def _risen(field: str, amount: int) -> str:
    more = {
        "peak": ("its peak rises by", "its peak falls by"),
        "end": ("ends with more by", "ends with less by"),
    }[field]
    return f"{more[amount < 0]} {format_bytes(abs(amount))}"


def _leak_explained(
    evidence: Evidence,
    rule: LeakRule,
    point: Point,
    meter: str,
    steps: Steps,
    repeat: int,
    worst: int,
) -> tuple[list[str], str]:
    """What the rise is as large as, when it came and whether it is kept, what a trace says it is;
    and what to look for.

    ``repeat`` is the run that decides, with its rise ``worst``.
    """
    earlier, later = steps[0][0], steps[-1][1]
    told = (
        risen(evidence.traces(), point, (earlier, later), rule.field)
        if meter == DEVICE_IN_USE
        else ""
    )
    like = as_multiple(
        worst, {each: float(amount) for each, amount in evidence.declared_by(point).items()}
    )
    about = [f"as large as {like}" if like and not told else "", "", told]
    words = _words(
        without_pages(evidence) if rule.every_time else evidence,
        rule.field,
        point,
        meter,
        steps,
        repeat,
    )
    if words is None:
        return about, f"find what {later} has more of than {earlier}"
    return [about[0], words.where, told], words.to_do


def _words(
    evidence: Evidence, field: str, point: Point, meter: str, steps: Steps, repeat: int
) -> LeakWords | None:
    """By the edges of all the phases; of peaks, by those of the step that rises least, which is the
    one that decides.
    """
    edges = [
        (
            _leak_edges(evidence, point, meter, earlier, repeat),
            _leak_edges(evidence, point, meter, later, repeat),
        )
        for earlier, later in steps
    ]
    read = [(before, after) for before, after in edges if before is not None and after is not None]
    if len(read) < len(steps):
        return None
    if field == "end" and len(steps) > 1:
        return leak_of_every_step(steps, read)
    least = min(range(len(steps)), key=lambda number: read[number][1].peak - read[number][0].peak)
    (before, after), (earlier, later) = read[least], steps[least]
    return leak_in_words(field, before, after, earlier=earlier, later=later)


def _leak_edges(
    evidence: Evidence, point: Point, meter: str, phase: str, repeat: int
) -> Edges | None:
    start, peak, end = (
        evidence.readings.get((point.name, phase, meter, field), {}).get(repeat)
        for field in ("start", "peak", "end")
    )
    return (
        None
        if start is None or peak is None or end is None
        else Edges(start=start, peak=peak, end=end)
    )
