"""Which findings are one cause. What belongs together is decided by amounts.

The same bytes again in a later phase, by another meter or rule, or in another scenario of the
loader, or what is still there of them, follow from the first. What is larger, or of another size,
is a cause of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from harness.judge import Check, FindingKind, RuleName
from harness.judge.causes import CauseKind
from harness.judge.rules.evidence import Evidence
from harness.meters import DEVICE_IN_USE
from harness.records import NAMED_STEPS, Outcome, Point, is_size

SAME_SHARE = 0.25
"""Chosen: two amounts are the same bytes where one is within a quarter of the other. Host memory of
equal runs differs by less, and arrays of a scenario by more."""
_LEVELS = frozenset({"start", "peak", "end", "net_start", "net_peak", "net_end"})
"""Fields that count what earlier phases have left as well."""
LOADER = "loader"
"""The parameter that names the loader, in scenarios that have several."""
IMAGES = "image_count"
_OVER = {step: name for name, step in NAMED_STEPS.items()}
RULE_ORDER = tuple(RuleName)
_OUT_OF_MEMORY = frozenset({Outcome.DEVICE_OOM, Outcome.HOST_OOM})


# What each finding shows: where, and how many bytes too much.


_ABOUT_THE_RUN = frozenset({RuleName.COVERAGE, RuleName.AGAINST, RuleName.COMPARABILITY})


class Sort(StrEnum):
    """What sort of thing a finding says; the order is that in which they find a cause."""

    MEMORY = "memory"
    DEATH = "death"
    UNSEEN = "unseen"
    UNDECIDED = "undecided"
    LESS = "less"
    SURVIVED = "survived"
    NO_BASELINE = "no baseline"
    ABOUT_THE_RUN = "about the run"


_OF_LIMITS: Mapping[FindingKind | None, Sort] = {
    FindingKind.REGRESSION: Sort.MEMORY,
    FindingKind.IMPROVEMENT: Sort.LESS,
    FindingKind.MOVED: Sort.LESS,
}


@dataclass(frozen=True, eq=False)
class Symptom:
    """One finding, seen as part of a cause."""

    check: Check
    sort: Sort
    points: tuple[Point, ...]
    """Those that it rests on, in ascending size."""
    loader: str
    """What is under test there: the same in all scenarios of a loader."""
    batch_images: float
    """How many images a batch has, by what the body declared; 0 where it did not."""
    number: int
    """Of its last point, in the order of the plan."""

    @cached_property
    def names(self) -> frozenset[str]:
        """Of its points."""
        return frozenset(point.name for point in self.points)

    @cached_property
    def is_rate(self) -> bool:
        """Whether it is known at every size; else at its own points alone."""
        return bool(step_parameter(self.check)) and self.check.measured is not None

    @property
    def place(self) -> int:
        """Of its phase, in the order of the scenario."""
        phases = self.points[-1].phases if self.points else ()
        return phases.index(self.check.phase) if self.check.phase in phases else -1

    @property
    def is_level(self) -> bool:
        """Whether earlier phases may have left what it counts."""
        return self.check.rule != RuleName.LEAK and self.check.field in _LEVELS

    @cached_property
    def weight(self) -> tuple[int, bool, bool, int, float, int]:
        """What says best what went wrong, first: the earliest phase, the device, a change of the
        phase itself, the first of the rules, the largest amount, the last of the points; the first
        of them where nothing was measured.
        """
        check = self.check
        known = [excess for point in self.points if (excess := self.excess(point))]
        most = max((high for _, high in known), default=0.0)
        rule = RULE_ORDER.index(RuleName(check.rule))
        on_host = check.meter != DEVICE_IN_USE
        number = self.number if check.measured is None else -self.number
        return self.place, on_host, self.is_level, rule, -most, number

    def is_same(self, others: Iterable["Symptom"]) -> bool:
        """Whether it is as many bytes as the others are, at the largest point that it shares with
        them.
        """
        both = self._beside(others)
        if both is None:
            return False
        (low, high), (other_low, other_high) = both
        slack = 1 + SAME_SHARE
        return low <= slack * other_high and other_low <= slack * high

    def is_within(self, others: Iterable["Symptom"]) -> bool | None:
        """Whether it is no more than the others are at the largest point that it shares with them;
        None where it shares none.
        """
        both = self._beside(others)
        return None if both is None else both[0][0] <= (1 + SAME_SHARE) * both[1][1]

    def is_within_sum(self, places: Iterable[Sequence["Symptom"]]) -> bool:
        """Whether it is no more than what several phases took, one after the other."""
        pairs = [both for others in places if (both := self._beside(others))]
        total = sum(other[1] for _, other in pairs)
        return not pairs or min(mine[0] for mine, _ in pairs) <= (1 + SAME_SHARE) * total

    def is_for_each_batch(self, other: "Symptom") -> bool:
        """Whether it is for each batch what the other one was once: a first batch has just one."""
        if step_parameter(self.check) != IMAGES or step_parameter(other.check):
            return False
        each = self.check.measured or 0.0
        amounts = [excess for point in other.points if (excess := other.excess(point))]
        if not amounts:
            return False
        low, high = max(amounts, key=lambda amount: amount[1])
        slack, batch = 1 + SAME_SHARE, each * self.batch_images
        return 0 < low <= slack * batch and batch <= slack * high

    def excess(self, point: Point) -> tuple[float, float] | None:
        """At least and at most so many bytes too much at a point: at its own; what it is for each
        image or frame, at any that has as many.
        """
        check, own = self.check, point.name in self.names
        if check.measured is None or check.limit is None:
            amount = self._read.get(point.name)
            return None if amount is None else (0.0, float(amount))
        least, most = check.measured - check.limit, check.measured - (check.earlier or 0)
        if not (over := step_parameter(check)):
            return (least, most) if own else None
        size = point.parameters.get(over)
        return (least * size, most * size) if is_size(size) else None

    @cached_property
    def _read(self) -> Mapping[str, int]:
        """By point, the most that was read there."""
        found: dict[str, int] = {}
        for one in self.check.readings:
            found[one.point] = max(one.amount_bytes, found.get(one.point, one.amount_bytes))
        return found

    def _beside(
        self, others: Iterable["Symptom"]
    ) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Both amounts at the largest point that both know."""
        pairs = [
            (mine, their)
            for other in others
            for point in (*self.points, *(other.points if self.is_rate else ()))
            if (mine := self.excess(point)) and (their := other.excess(point))
        ]
        return max(pairs, key=lambda pair: pair[0][1], default=None)


def _symptom(check: Check, evidence: Evidence, known: Mapping[str, tuple[int, Point]]) -> Symptom:
    names = check.points or ((check.point,) if check.point else ())
    numbers = [known[name][0] for name in names if name in known]
    points = tuple(known[name][1] for name in names if name in known)
    return Symptom(
        check=check,
        sort=_sort_of(check, evidence),
        points=points,
        loader=_loader_of(points, check),
        batch_images=_batch_images(evidence.declared_by(points[-1])) if points else 0.0,
        number=max(numbers, default=-1),
    )


def _batch_images(declared: Mapping[str, int]) -> float:
    image, batch = declared.get("image", 0), declared.get("batch", 0)
    return batch / image if image else 0.0


def _sort_of(check: Check, evidence: Evidence) -> Sort:
    if check.finding is FindingKind.NO_BASELINE:
        return Sort.NO_BASELINE
    if check.rule == RuleName.OUTCOME:
        died = any(end.outcome is not Outcome.OK for end in odd_ends(check.point, evidence))
        return Sort.DEATH if died else Sort.SURVIVED
    if check.rule in _ABOUT_THE_RUN:
        return Sort.ABOUT_THE_RUN
    return _OF_LIMITS.get(check.finding) or _without_regression(check)


def _without_regression(check: Check) -> Sort:
    """Of a limit that is not broken by more: less was seen than there has to be, or nothing."""
    less = check.measured is not None and check.limit is not None and check.measured < check.limit
    return Sort.UNSEEN if less and check.bound == "lower" else Sort.UNDECIDED


def odd_ends(point: str, evidence: Evidence) -> list[Any]:
    """How the runs of a point ended that ended in another way than is expected."""
    expected = next(
        (each.expected for each in evidence.run.points if each.name == point), Outcome.OK
    )
    return [
        end for end in evidence.run.run_ends if end.point == point and end.outcome is not expected
    ]


def _loader_of(points: Sequence[Point], check: Check) -> str:
    """The loader; where none is named, the scenario with its settings in words."""
    if not points:
        return ""
    parameters = points[-1].parameters
    if LOADER in parameters:
        return str(parameters[LOADER])
    texts = [value for value in parameters.values() if isinstance(value, str)]
    return ", ".join([check.scenario or points[-1].scenario, *texts])


def step_parameter(check: Check) -> str:
    """The parameter that its amount is for each step of; empty where it is an amount of a run."""
    step = check.unit.removeprefix("B/")
    return "" if step == check.unit else _OVER.get(step, step)


# What belongs together.


class Place:
    """The findings of a cause in one phase, by one meter: found by their points."""

    def __init__(self) -> None:
        self.rates: list[Symptom] = []
        self.by_point: dict[str, list[Symptom]] = {}
        self.likes: set[str] = set()

    def add(self, symptom: Symptom) -> None:
        """One more."""
        self.likes.add(symptom.check.like)
        if symptom.is_rate:
            self.rates.append(symptom)
            return
        for name in symptom.names:
            self.by_point.setdefault(name, []).append(symptom)

    def beside(self, symptom: Symptom) -> list[Symptom]:
        """Those whose amounts can be held against its own."""
        if symptom.is_rate:
            return [*self.rates, *(one for own in self.by_point.values() for one in own)]
        own = (self.by_point.get(name, ()) for name in symptom.names)
        return [*self.rates, *(one for there in own for one in there)]


class Group:
    """The findings of one cause."""

    def __init__(self, kind: CauseKind, first: Symptom, key: str = "") -> None:
        self.kind, self.key = kind, key
        self.symptoms: list[Symptom] = []
        self.places: dict[tuple[str, str], Place] = {}
        self.changed: set[tuple[str, str]] = {(first.check.scenario, first.check.phase)}
        self.is_certain = False
        self.add(first)

    def add(self, symptom: Symptom) -> None:
        """One more finding."""
        check = symptom.check
        self.symptoms.append(symptom)
        self.places.setdefault((check.phase, check.meter), Place()).add(symptom)
        self.is_certain = self.is_certain or not check.remeasure
        if not symptom.is_level:
            self.changed.add((check.scenario, check.phase))

    @property
    def first(self) -> Symptom:
        """What says it best."""
        return self.symptoms[0]

    @property
    def best(self) -> Symptom:
        """What shows best how much it is: where it began with one batch, the phase that takes all
        of them.
        """
        return next((one for one in self.symptoms if one.is_for_each_batch(self.first)), self.first)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Of all of them, the best first, then in the order of the phases."""
        best = self.best
        others = sorted(self.symptoms, key=lambda one: one.weight)
        return best.check, *(one.check for one in others if one is not best)

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Of all of them, in the order in which they came."""
        return tuple(
            dict.fromkeys(one.check.scenario for one in self.symptoms if one.check.scenario)
        )

    def has_in(self, symptom: Symptom) -> bool:
        """Whether a change of its phase is among them: by another field, rule or meter, or at other
        points, it is the same change.
        """
        return (symptom.check.scenario, symptom.check.phase) in self.changed

    def explains(self, symptom: Symptom) -> bool:
        """Whether a finding of the same scenario, in the same phase or a later one, follows."""
        if self.has_in(symptom) or symptom.is_for_each_batch(self.first):
            return True
        beside = {place: there.beside(symptom) for place, there in self.places.items()}
        if symptom.is_level:
            meter = self.first.check.meter
            one_meter = [there for (_, of), there in beside.items() if of == meter]
            within = (symptom.is_within(there) is not False for there in beside.values())
            return any(within) or symptom.is_within_sum(one_meter)
        like = symptom.check.like
        if like and any(like in there.likes for there in self.places.values()):
            return True
        if any(map(symptom.is_same, beside.values())):
            return True
        # How much of the heap a phase takes anew depends on what those before it have left there:
        # less of the host's memory is the same again. The device is exact.
        on_host = symptom.check.meter != DEVICE_IN_USE
        return on_host and self.is_certain and any(map(symptom.is_within, beside.values()))

    def is_of(self, other: "Group") -> bool:
        """Whether it is the same thing in another scenario.

        What shows in the same phase of two scenarios shows in those as well whose phases are whole
        ways through the loader: there nothing tells its phase.
        """
        mine, their = self.first.check, other.first.check
        again = other.first.is_same(one for one in self.symptoms if one.check.phase == their.phase)
        like = bool(mine.like) and mine.like == their.like
        if mine.phase == their.phase or again or like or _is_same_rate(mine, their):
            return True
        apart = all(mine.phase not in point.phases for point in other.first.points)
        meters = {one.check.meter for one in self.symptoms}
        return apart and len(self.scenarios) > 1 and their.meter in meters

    def covers(self, phase: str, point: Point) -> bool:
        """Whether a phase of a point is the one where it began, or a later one."""
        begin = self.first.check.phase
        return (
            phase in point.phases
            and begin in point.phases
            and point.phases.index(phase) >= point.phases.index(begin)
        )


def _is_same_rate(one: Check, other: Check) -> bool:
    if (
        one.unit != other.unit
        or not step_parameter(one)
        or one.measured is None
        or other.measured is None
    ):
        return False
    low, high = sorted((one.measured, other.measured))
    return low > 0 and high <= (1 + SAME_SHARE) * low


def grouped(findings: Sequence[Check], evidence: Evidence) -> list[Group]:
    """Every finding in exactly one group, each of which is a cause; some may be empty."""
    known = {point.name: (n, point) for n, point in enumerate(evidence.run.points)}
    symptoms = [_symptom(check, evidence, known) for check in findings]
    by_sort = {sort: [one for one in symptoms if one.sort is sort] for sort in Sort}
    groups = _of_memory(by_sort[Sort.MEMORY])
    deaths: dict[str, Group] = {}
    for one in by_sort[Sort.DEATH]:
        _take_death(one, groups, deaths, evidence)
    for one in by_sort[Sort.UNSEEN]:
        _take(one, groups, CauseKind.MISSING, f"unseen {one.loader}", _is_beside)
    open_ = [*groups, *deaths.values()]
    for one in by_sort[Sort.ABOUT_THE_RUN]:
        _take(one, open_, CauseKind.MISSING, _topic(one.check))
    for one in by_sort[Sort.UNDECIDED]:
        _take(one, open_, CauseKind.MISSING, "undecided", _is_left_open_by)
    for one in by_sort[Sort.LESS]:
        _take(one, open_, CauseKind.IMPROVEMENT, f"less {one.loader}", _is_less_because)
    for one in by_sort[Sort.SURVIVED]:
        improved = one.check.finding is FindingKind.IMPROVEMENT
        kind = CauseKind.IMPROVEMENT if improved else CauseKind.MISSING
        _take(one, open_, kind, f"survived {one.check.finding} {one.loader}")
    for one in by_sort[Sort.NO_BASELINE]:
        _take(one, open_, CauseKind.MISSING, "no baseline")
    return open_


def _of_memory(symptoms: Sequence[Symptom]) -> list[Group]:
    """One group for each thing: within a scenario by phases and amounts, and then over all
    scenarios of a loader.
    """
    groups: list[Group] = []
    for loader in dict.fromkeys(one.loader for one in symptoms):
        own = [one for one in symptoms if one.loader == loader]
        merged: list[Group] = []
        for scenario in dict.fromkeys(one.check.scenario for one in own):
            chains = _chains([one for one in own if one.check.scenario == scenario])
            before = list(merged)
            for chain in chains:
                home = next((group for group in before if group.is_of(chain)), None)
                if home is None:
                    merged.append(chain)
                else:
                    for one in chain.symptoms:
                        home.add(one)
        groups += merged
    return groups


def _chains(symptoms: Sequence[Symptom]) -> list[Group]:
    """The groups of one scenario: what a finding does not follow from begins one of its own."""
    groups: list[Group] = []
    for one in sorted(symptoms, key=lambda one: one.weight):
        home = next((group for group in groups if group.explains(one)), None)
        if home is None:
            groups.append(Group(CauseKind.MEMORY, one))
        else:
            home.add(one)
    return groups


def _take(
    symptom: Symptom,
    groups: list[Group],
    kind: CauseKind,
    key: str,
    follows: Any = None,  # noqa: ANN401 - a rule of two arguments
) -> None:
    """Put a finding where it follows from, else beside what shares its key, else into a group of
    its own.
    """
    home = next((group for group in groups if follows and follows(symptom, group)), None)
    home = home or next((group for group in groups if group.key == key), None)
    if home is None:
        groups.append(Group(kind, symptom, key))
    elif home.key == key and symptom.weight < home.first.weight and kind is not CauseKind.MEMORY:
        home.symptoms.insert(0, symptom)
    else:
        home.add(symptom)


def _is_beside(symptom: Symptom, group: Group) -> bool:
    """Of what a meter did not see: another meter has more in the same phase."""
    return (
        group.kind is CauseKind.MEMORY
        and group.first.loader == symptom.loader
        and any(
            one.check.scenario == symptom.check.scenario and one.check.phase == symptom.check.phase
            for one in group.symptoms
        )
    )


def _is_left_open_by(symptom: Symptom, group: Group) -> bool:
    """Of what could not be decided: memory moves there; or there is no amount, as its runs have
    died or lack it.
    """
    check = symptom.check
    if group.kind is CauseKind.DEATH or group.key == "runs":
        odd = {one.check.point for one in group.symptoms}
        return check.measured is None and any(point.name in odd for point in symptom.points)
    if group.key == f"meter {check.meter}":
        return check.measured is None and check.scenario in group.scenarios
    return _is_after(symptom, group)


def _is_after(symptom: Symptom, group: Group) -> bool:
    """Whether memory moves in a phase of the loader, or in one before it: what was taken and given
    back there, a later phase takes anew without more of it being seen.
    """
    phase = symptom.check.phase
    return (
        group.kind is CauseKind.MEMORY
        and group.first.loader == symptom.loader
        and symptom.check.scenario in group.scenarios
        and any(group.covers(phase, point) for point in symptom.points)
    )


def _is_less_because(symptom: Symptom, group: Group) -> bool:
    """Of less than before: memory moves in a phase before it, or its meter sees less there."""
    unseen = group.key == f"unseen {symptom.loader}"
    seen = (symptom.check.scenario, symptom.check.phase) not in group.changed
    return (unseen and not seen) or _is_after(symptom, group)


def _take_death(
    symptom: Symptom, groups: list[Group], deaths: dict[str, Group], evidence: Evidence
) -> None:
    """Once for each point; out of memory follows from what grows in the same phase, or in one
    before it.
    """
    ends = odd_ends(symptom.check.point, evidence)
    if ends and all(end.outcome in _OUT_OF_MEMORY for end in ends):
        for group in groups:
            grows = group.first.loader == symptom.loader and bool(step_parameter(group.first.check))
            if grows and any(
                group.covers(end.phase or "", point) for end in ends for point in symptom.points
            ):
                group.add(symptom)
                return
    name = symptom.check.point
    if name in deaths:
        deaths[name].add(symptom)
    else:
        deaths[name] = Group(CauseKind.DEATH, symptom, f"death of {name}")


def _topic(check: Check) -> str:
    """What a finding about the run itself is about."""
    if check.rule != RuleName.COVERAGE:
        return str(check.rule)
    if check.meter:
        return f"meter {check.meter}"
    if check.point:
        return "runs" if check.scenario else "lost points"
    return "idle rules" if check.limit_place or check.subject != "run" else "run"
