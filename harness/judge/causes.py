"""Causes: what went wrong, told once. One kept tensor breaks many checks; here they are one cause
again, with the checks that follow from it.

What belongs together is decided by amounts: the same bytes again in a later phase, by another meter
or rule, or in another scenario of the loader, or what is still there of them. What is larger, or of
another size, is a cause of its own.
"""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from harness.judge import FINDINGS, Check, FindingKind, RuleName, value_digest
from harness.judge.baseline_file import is_possible
from harness.judge.completeness import with_what_is_known
from harness.judge.growth import Fit
from harness.judge.policy import quote_rule
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.findings import Edges, text_in_words
from harness.meters import DEVICE_IN_USE, meter_words
from harness.records import NAMED_STEPS, Outcome, Point, is_size, sizes_in_words, step_in_words
from harness.rundir.traces import Alive, log_path, log_tail
from harness.words import count, format_bytes, format_whole, plural


class CauseKind(StrEnum):
    """What sort of thing went wrong, the gravest first."""

    MEMORY = "memory"
    """More memory than a limit, the baseline or the other code allows."""
    DEATH = "death"
    """A run did not come to its end: out of memory, out of time, a signal, an exception."""
    MISSING = "missing"
    """Something was not measured, or cannot be compared."""
    IMPROVEMENT = "improvement"
    """Less memory than was accepted, beyond tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveTensors:
    """Equal tensors that were alive at the peak of the cause's phase, by the trace."""

    dtype: str
    shape: tuple[int, ...]
    operation: str
    """Where they were allocated, as TensorFlow's profiler names it."""
    count: int
    nbytes: int
    """Of all of them together."""
    declared: str = ""
    """As what multiple of a declared array: ``"1.00 x X"``; empty where it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something to type."""

    purpose: str
    """``"measure this point again"``."""
    line: str
    """The whole line, with the arguments that this run was judged with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that went wrong, and the checks that follow from it."""

    id: str
    """Short, of letters and digits; the same in every run in which the same thing goes wrong."""
    kind: CauseKind
    finding: FindingKind
    """The gravest kind among its checks."""
    what: str
    """One short line: ``"the lazy container keeps the whole X"``."""
    where: str
    """One short line: ``"loading, arrays; first in construct"``."""
    how_much: str
    """One short line: ``"125.0 MiB at 2,000 images, 65,536 B for each; allowed 512 B"``."""
    since: str = ""
    """One short line, where it is known: ``"not at main (e4ecc0f)"``."""
    scenarios: tuple[str, ...] = ()
    loader: str = ""
    point: str = ""
    """Name of the point that shows it best; empty where there is none."""
    phase: str = ""
    """The earliest offending phase."""
    meter: str = ""
    checks: tuple[Check, ...]
    """What follows from it; the first says it best."""
    alive: tuple[AliveTensors, ...] = ()
    """The three largest things alive at the peak of ``phase`` in ``point``'s trace."""
    commands: tuple[Command, ...] = ()
    """What to type, the most useful first."""
    rule_place: str = ""
    """Where the broken rule stands: ``"scenarios/gate.toml:41"``."""
    rule_text: str = ""
    """The rule as its file has it; empty where it is of no file."""
    log_tail: tuple[str, ...] = ()
    """Of a death: the last lines of the child's log."""

    @property
    def following(self) -> str:
        """``"21 more findings follow from it"``; empty where there is one alone."""
        others = len(self.checks) - 1
        verb = ("follow", "follows") if self.kind is CauseKind.MEMORY else ("belong", "belongs")
        link = "from" if self.kind is CauseKind.MEMORY else "to"
        return (
            f"{count(others, 'more finding')} {plural(others, verb[1], verb[0])} {link} it"
            if others
            else ""
        )

    @property
    def sentence(self) -> str:
        """What, where, how much and since when, as one sentence."""
        # A name of the user's keeps its letters.
        what = re.sub("^the ", "The ", f"{self.what} ({self.where})")
        amounts = "; ".join(part for part in (self.how_much, self.since) if part)
        return f"{what}: {amounts.rstrip('.')}." if amounts else f"{what}."


SAME_SHARE = 0.25
"""Chosen: two amounts are the same bytes where one is within a quarter of the other. Host memory of
equal runs differs by less, and arrays of a scenario by more."""
_ALIVE_SHOWN = 3
"""Chosen: things alive that a cause names; the trace has all of them."""
_LOG_LINES = 15
"""Chosen: a traceback's end, and what was said before it."""
_LONGEST_REASON = 240
"""Chosen: characters, three lines of a terminal; the check has all of it."""
_FEW = 0.05
"""Chosen, as in the sentences of checks: less than a twentieth is not worth a word."""
_LEVELS = frozenset({"start", "peak", "end", "net_start", "net_peak", "net_end"})
"""Fields that count what earlier phases have left as well."""
_BEFORE = frozenset({"start", "net_start"})
"""Fields of what was there before the phase did anything."""
_LOADER = "loader"
"""The parameter that names the loader, in scenarios that have several."""
_IMAGES = "image_count"
_ID_CHARACTERS = 10
"""Chosen: 40 bits, enough to tell the causes of a project apart."""
_COMMIT = re.compile("[0-9a-f]{7,64}")
_OVER = {step: name for name, step in NAMED_STEPS.items()}
_KINDS = tuple(CauseKind)
_RULES = tuple(RuleName)
_OUT_OF_MEMORY = frozenset({Outcome.DEVICE_OOM, Outcome.HOST_OOM})


def causes_of(checks: Sequence[Check], evidence: Evidence) -> tuple[Cause, ...]:
    """The causes of all findings among the checks, the gravest first; every finding is in exactly
    one of them.
    """
    findings = [check for check in checks if check.finding is not None]
    if not findings:
        return ()
    teller = _Teller(evidence, tuple(checks))
    groups = [group for group in _grouped(findings, evidence) if group.checks]
    told = sorted(map(teller.cause, groups), key=_rank)
    return tuple(_with_own_ids(told))


def causes_to_json(causes: Sequence[Cause], checks: Sequence[Check]) -> list[dict[str, Any]]:
    """As findings.json has them: each check by its place among ``checks``; in words as well, for
    readers without this program.
    """
    places = {id(check): place for place, check in enumerate(checks)}
    return [
        {
            **dataclasses.asdict(dataclasses.replace(cause, checks=())),
            "checks": [places[id(check)] for check in cause.checks],
            "told": cause.sentence,
            "following": cause.following,
        }
        for cause in causes
    ]


def causes_from_json(
    found: Sequence[Mapping[str, Any]], checks: Sequence[Check]
) -> tuple[Cause, ...]:
    """What ``causes_to_json`` wrote. Raises KeyError, TypeError, ValueError or IndexError where it
    is damaged.
    """
    texts = ("scenarios", "log_tail")
    return tuple(
        Cause(
            **{
                **{field.name: cause[field.name] for field in dataclasses.fields(Cause)},
                **{name: tuple(cause[name]) for name in texts},
                "kind": CauseKind(cause["kind"]),
                "finding": FindingKind(cause["finding"]),
                "checks": tuple(checks[place] for place in cause["checks"]),
                "alive": tuple(
                    AliveTensors(**{**one, "shape": tuple(one["shape"])}) for one in cause["alive"]
                ),
                "commands": tuple(Command(**one) for one in cause["commands"]),
            }
        )
        for cause in found
    )


def _rank(cause: Cause) -> tuple[int, int, bool, int, int]:
    """The gravest first; then what is certain before what may be noise, and what explains most."""
    noisy = all(check.remeasure for check in cause.checks)
    rule = _RULES.index(RuleName(cause.checks[0].rule))
    finding = list(FINDINGS).index(cause.finding)
    return _KINDS.index(cause.kind), finding, noisy, -len(cause.checks), rule


def _with_own_ids(causes: Iterable[Cause]) -> Iterator[Cause]:
    """Two that are alike in all that an id is made of are numbered."""
    seen: dict[str, int] = {}
    for cause in causes:
        number = seen[cause.id] = seen.get(cause.id, 0) + 1
        yield cause if number == 1 else dataclasses.replace(cause, id=f"{cause.id}{number}")


# What each finding shows: where, and how many bytes too much.


_ABOUT_THE_RUN = frozenset({RuleName.COVERAGE, RuleName.AGAINST, RuleName.COMPARABILITY})


class _Sort(StrEnum):
    """What sort of thing a finding says; the order is that in which they find a cause."""

    MEMORY = "memory"
    DEATH = "death"
    UNSEEN = "unseen"
    UNDECIDED = "undecided"
    LESS = "less"
    SURVIVED = "survived"
    NO_BASELINE = "no baseline"
    ABOUT_THE_RUN = "about the run"


_OF_LIMITS: Mapping[FindingKind | None, _Sort] = {
    FindingKind.REGRESSION: _Sort.MEMORY,
    FindingKind.IMPROVEMENT: _Sort.LESS,
    FindingKind.MOVED: _Sort.LESS,
}


@dataclass(frozen=True, eq=False)
class _Symptom:
    """One finding, seen as part of a cause."""

    check: Check
    sort: _Sort
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
        return bool(_over(self.check)) and self.check.measured is not None

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
        phase itself, the first of the rules, the largest amount, the last of the points.
        """
        check = self.check
        known = [excess for point in self.points if (excess := self.excess(point))]
        most = max((high for _, high in known), default=0.0)
        rule = _RULES.index(RuleName(check.rule))
        on_host = check.meter != DEVICE_IN_USE
        return self.place, on_host, self.is_level, rule, -most, -self.number

    def is_same(self, others: Iterable["_Symptom"]) -> bool:
        """Whether it is as many bytes as the others are, at the largest point that it shares with
        them.
        """
        both = self._beside(others)
        if both is None:
            return False
        (low, high), (other_low, other_high) = both
        slack = 1 + SAME_SHARE
        return low <= slack * other_high and other_low <= slack * high

    def is_within(self, others: Iterable["_Symptom"]) -> bool | None:
        """Whether it is no more than the others are at the largest point that it shares with them;
        None where it shares none.
        """
        both = self._beside(others)
        return None if both is None else both[0][0] <= (1 + SAME_SHARE) * both[1][1]

    def is_within_sum(self, places: Iterable[Sequence["_Symptom"]]) -> bool:
        """Whether it is no more than what several phases took, one after the other."""
        pairs = [both for others in places if (both := self._beside(others))]
        total = sum(other[1] for _, other in pairs)
        return not pairs or min(mine[0] for mine, _ in pairs) <= (1 + SAME_SHARE) * total

    def is_for_each_batch(self, other: "_Symptom") -> bool:
        """Whether it is for each batch what the other one was once: a first batch has just one."""
        if _over(self.check) != _IMAGES or _over(other.check):
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
        if not (over := _over(check)):
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
        self, others: Iterable["_Symptom"]
    ) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Both amounts at the largest point that both know."""
        pairs = [
            (mine, their)
            for other in others
            for point in (*self.points, *(other.points if self.is_rate else ()))
            if (mine := self.excess(point)) and (their := other.excess(point))
        ]
        return max(pairs, key=lambda pair: pair[0][1], default=None)


def _symptom(check: Check, evidence: Evidence, known: Mapping[str, tuple[int, Point]]) -> _Symptom:
    names = check.points or ((check.point,) if check.point else ())
    numbers = [known[name][0] for name in names if name in known]
    points = tuple(known[name][1] for name in names if name in known)
    return _Symptom(
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


def _sort_of(check: Check, evidence: Evidence) -> _Sort:
    if check.finding is FindingKind.NO_BASELINE:
        return _Sort.NO_BASELINE
    if check.rule == RuleName.OUTCOME:
        died = any(end.outcome is not Outcome.OK for end in _odd_ends(check.point, evidence))
        return _Sort.DEATH if died else _Sort.SURVIVED
    if check.rule in _ABOUT_THE_RUN:
        return _Sort.ABOUT_THE_RUN
    return _OF_LIMITS.get(check.finding) or _without_regression(check)


def _without_regression(check: Check) -> _Sort:
    """Of a limit that is not broken by more: less was seen than there has to be, or nothing."""
    less = check.measured is not None and check.limit is not None and check.measured < check.limit
    return _Sort.UNSEEN if less and check.bound == "lower" else _Sort.UNDECIDED


def _odd_ends(point: str, evidence: Evidence) -> list[Any]:
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
    if _LOADER in parameters:
        return str(parameters[_LOADER])
    texts = [value for value in parameters.values() if isinstance(value, str)]
    return ", ".join([check.scenario or points[-1].scenario, *texts])


def _over(check: Check) -> str:
    """The parameter that its amount is for each step of; empty where it is an amount of a run."""
    step = check.unit.removeprefix("B/")
    return "" if step == check.unit else _OVER.get(step, step)


# What belongs together.


class _Place:
    """The findings of a cause in one phase, by one meter: found by their points."""

    def __init__(self) -> None:
        self.rates: list[_Symptom] = []
        self.by_point: dict[str, list[_Symptom]] = {}
        self.likes: set[str] = set()

    def add(self, symptom: _Symptom) -> None:
        """One more."""
        self.likes.add(symptom.check.like)
        if symptom.is_rate:
            self.rates.append(symptom)
            return
        for name in symptom.names:
            self.by_point.setdefault(name, []).append(symptom)

    def beside(self, symptom: _Symptom) -> list[_Symptom]:
        """Those whose amounts can be held against its own."""
        if symptom.is_rate:
            return [*self.rates, *(one for own in self.by_point.values() for one in own)]
        own = (self.by_point.get(name, ()) for name in symptom.names)
        return [*self.rates, *(one for there in own for one in there)]


class _Group:
    """The findings of one cause."""

    def __init__(self, kind: CauseKind, first: _Symptom, key: str = "") -> None:
        self.kind, self.key = kind, key
        self.symptoms: list[_Symptom] = []
        self.places: dict[tuple[str, str], _Place] = {}
        self.changed: set[tuple[str, str]] = {(first.check.scenario, first.check.phase)}
        self.is_certain = False
        self.add(first)

    def add(self, symptom: _Symptom) -> None:
        """One more finding."""
        check = symptom.check
        self.symptoms.append(symptom)
        self.places.setdefault((check.phase, check.meter), _Place()).add(symptom)
        self.is_certain = self.is_certain or not check.remeasure
        if not symptom.is_level:
            self.changed.add((check.scenario, check.phase))

    @property
    def first(self) -> _Symptom:
        """What says it best."""
        return self.symptoms[0]

    @property
    def best(self) -> _Symptom:
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

    def has_in(self, symptom: _Symptom) -> bool:
        """Whether a change of its phase is among them: by another field, rule or meter, or at other
        points, it is the same change.
        """
        return (symptom.check.scenario, symptom.check.phase) in self.changed

    def explains(self, symptom: _Symptom) -> bool:
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

    def is_of(self, other: "_Group") -> bool:
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
    if one.unit != other.unit or not _over(one) or one.measured is None or other.measured is None:
        return False
    low, high = sorted((one.measured, other.measured))
    return low > 0 and high <= (1 + SAME_SHARE) * low


def _grouped(findings: Sequence[Check], evidence: Evidence) -> list[_Group]:
    known = {point.name: (n, point) for n, point in enumerate(evidence.run.points)}
    symptoms = [_symptom(check, evidence, known) for check in findings]
    by_sort = {sort: [one for one in symptoms if one.sort is sort] for sort in _Sort}
    groups = _of_memory(by_sort[_Sort.MEMORY])
    deaths: dict[str, _Group] = {}
    for one in by_sort[_Sort.DEATH]:
        _take_death(one, groups, deaths, evidence)
    for one in by_sort[_Sort.UNSEEN]:
        _take(one, groups, CauseKind.MISSING, f"unseen {one.loader}", _is_beside)
    open_ = [*groups, *deaths.values()]
    for one in by_sort[_Sort.ABOUT_THE_RUN]:
        _take(one, open_, CauseKind.MISSING, _topic(one.check))
    for one in by_sort[_Sort.UNDECIDED]:
        _take(one, open_, CauseKind.MISSING, "undecided", _is_left_open_by)
    for one in by_sort[_Sort.LESS]:
        _take(one, open_, CauseKind.IMPROVEMENT, f"less {one.loader}", _is_less_because)
    for one in by_sort[_Sort.SURVIVED]:
        improved = one.check.finding is FindingKind.IMPROVEMENT
        kind = CauseKind.IMPROVEMENT if improved else CauseKind.MISSING
        _take(one, open_, kind, f"survived {one.check.finding} {one.loader}")
    for one in by_sort[_Sort.NO_BASELINE]:
        _take(one, open_, CauseKind.MISSING, "no baseline")
    return open_


def _of_memory(symptoms: Sequence[_Symptom]) -> list[_Group]:
    """One group for each thing: within a scenario by phases and amounts, and then over all
    scenarios of a loader.
    """
    groups: list[_Group] = []
    for loader in dict.fromkeys(one.loader for one in symptoms):
        own = [one for one in symptoms if one.loader == loader]
        merged: list[_Group] = []
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


def _chains(symptoms: Sequence[_Symptom]) -> list[_Group]:
    """The groups of one scenario: what a finding does not follow from begins one of its own."""
    groups: list[_Group] = []
    for one in sorted(symptoms, key=lambda one: one.weight):
        home = next((group for group in groups if group.explains(one)), None)
        if home is None:
            groups.append(_Group(CauseKind.MEMORY, one))
        else:
            home.add(one)
    return groups


def _take(
    symptom: _Symptom,
    groups: list[_Group],
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
        groups.append(_Group(kind, symptom, key))
    elif home.key == key and symptom.weight < home.first.weight and kind is not CauseKind.MEMORY:
        home.symptoms.insert(0, symptom)
    else:
        home.add(symptom)


def _is_beside(symptom: _Symptom, group: _Group) -> bool:
    """Of what a meter did not see: another meter has more in the same phase."""
    return (
        group.kind is CauseKind.MEMORY
        and group.first.loader == symptom.loader
        and any(
            one.check.scenario == symptom.check.scenario and one.check.phase == symptom.check.phase
            for one in group.symptoms
        )
    )


def _is_left_open_by(symptom: _Symptom, group: _Group) -> bool:
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


def _is_after(symptom: _Symptom, group: _Group) -> bool:
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


def _is_less_because(symptom: _Symptom, group: _Group) -> bool:
    """Of less than before: memory moves in a phase before it, or its meter sees less there."""
    unseen = group.key == f"unseen {symptom.loader}"
    seen = (symptom.check.scenario, symptom.check.phase) not in group.changed
    return (unseen and not seen) or _is_after(symptom, group)


def _take_death(
    symptom: _Symptom, groups: list[_Group], deaths: dict[str, _Group], evidence: Evidence
) -> None:
    """Once for each point; out of memory follows from what grows in the same phase, or in one
    before it.
    """
    ends = _odd_ends(symptom.check.point, evidence)
    if ends and all(end.outcome in _OUT_OF_MEMORY for end in ends):
        for group in groups:
            grows = group.first.loader == symptom.loader and bool(_over(group.first.check))
            if grows and any(
                group.covers(end.phase or "", point) for end in ends for point in symptom.points
            ):
                group.add(symptom)
                return
    name = symptom.check.point
    if name in deaths:
        deaths[name].add(symptom)
    else:
        deaths[name] = _Group(CauseKind.DEATH, symptom, f"death of {name}")


def _topic(check: Check) -> str:
    """What a finding about the run itself is about."""
    if check.rule != RuleName.COVERAGE:
        return str(check.rule)
    if check.meter:
        return f"meter {check.meter}"
    if check.point:
        return "runs" if check.scenario else "lost points"
    return "idle rules" if check.limit_place or check.subject != "run" else "run"


# In words.


class _Teller:
    """Makes a cause of a group, with all that the run knows about it."""

    def __init__(self, evidence: Evidence, checks: tuple[Check, ...]) -> None:
        self._evidence, self._checks = evidence, checks

    def cause(self, group: _Group) -> Cause:
        """The whole record."""
        checks, first = group.checks, group.first
        point = self._best_point(group)
        kinds = [check.finding for check in checks if check.finding is not None]
        quoted = quote_rule(group.best.check.limit_place)
        told = self._told(group, point)
        return Cause(
            id=_id_of(group),
            kind=group.kind,
            finding=min(kinds, key=list(FINDINGS).index),
            what=told.what,
            where=told.where,
            how_much=told.how_much,
            since=self._since(group),
            scenarios=group.scenarios,
            loader=first.loader,
            point="" if point is None else point.name,
            phase=first.check.phase,
            meter=first.check.meter,
            checks=checks,
            alive=self._alive(group, point),
            commands=tuple(self._commands(group, point)),
            rule_place=group.best.check.limit_place if quoted is None else quoted.place,
            rule_text="" if quoted is None else quoted.text,
            log_tail=self._log_tail(group),
        )

    def _told(self, group: _Group, point: Point | None) -> "_Told":
        match group.kind:
            case CauseKind.MEMORY:
                return self.memory(group, point)
            case CauseKind.DEATH:
                return self.death(group, point)
            case CauseKind.MISSING:
                return self.missing(group)
            case CauseKind.IMPROVEMENT:
                return self.less(group)

    def _best_point(self, group: _Group) -> Point | None:
        """The largest point of the first check; where tensors are the matter, the largest that was
        traced.
        """
        best = group.best
        if group.kind is CauseKind.MEMORY and best.check.meter == DEVICE_IN_USE:
            place = (best.check.scenario, best.check.phase)
            alike = [
                one
                for one in group.symptoms
                if (one.check.scenario, one.check.phase) == place and not one.is_level
            ]
            names = best.names.union(*(one.names for one in alike))
            traces = self._evidence.traces()
            traced = [
                point
                for point in self._evidence.run.points
                if point.name in names and point.name in traces
            ]
            return next(iter([*traced[-1:], *best.points[-1:]]), None)
        return next(iter(best.points[-1:]), None)

    def _since(self, group: _Group) -> str:
        """What it was before, where a check knows: by one of the same phase and meter, else by the
        first that has been compared, which then says of what it speaks.
        """
        compared = [one for one in group.symptoms if one.check.earlier is not None and one.points]
        if not compared or group.kind is CauseKind.MISSING:
            return ""
        places = {(one.check.phase, one.check.meter) for one in (group.first, group.best)}
        same = [one for one in compared if (one.check.phase, one.check.meter) in places]
        check, point = (same or compared)[0].check, (same or compared)[0].points[-1]
        earlier, measured = check.earlier or 0.0, check.measured or 0.0
        was = f"{meter_words(check.meter)}, {check.phase}: {format_bytes(earlier)}"
        if same and 0 <= earlier <= _FEW * measured:
            was = "not"
        commit = self._good_commit(point.name)
        known = f" (commit {commit[:7]})" if commit and commit[:7] not in check.earlier_from else ""
        when = check.earlier_from if self._evidence.against else f"when {check.earlier_from}"
        return f"{was} {when}{known}"

    def _good_commit(self, point: str) -> str:
        """The commit that it was compared with; empty where that is unknown."""
        evidence = self._evidence
        if evidence.against is not None:
            commit = "" if evidence.against.then is None else evidence.against.then.commit
        else:
            accepted = None if evidence.baseline is None else evidence.baseline.point.get(point)
            commit = "" if accepted is None else accepted.accepted.commit
        return commit if _COMMIT.fullmatch(commit) else ""

    def _alive(self, group: _Group, point: Point | None) -> tuple[AliveTensors, ...]:
        """Of the device, where it is the device that shows the cause."""
        by_device = DEVICE_IN_USE in {one.check.meter for one in group.symptoms}
        if not by_device and group.kind is not CauseKind.DEATH:
            return ()
        trace = None if point is None else self._evidence.traces().get(point.name)
        if trace is None:
            return ()
        if group.kind is CauseKind.DEATH:
            alive = () if trace.out_of_memory is None else trace.out_of_memory.alive
        else:
            phase = group.first.check.phase
            alive = next((each.alive for each in trace.phases if each.phase == phase), ())
        ranked = sorted(alive, key=lambda one: -one.total_bytes)
        return tuple(map(_tensors, ranked[:_ALIVE_SHOWN]))

    def _log_tail(self, group: _Group) -> tuple[str, ...]:
        if group.kind is not CauseKind.DEATH:
            return ()
        run = self._evidence.run
        tails = (
            log_tail(run.path, end.point, end.repeat, _LOG_LINES)
            for end in _odd_ends(group.first.check.point, self._evidence)
        )
        return next(filter(None, tails), ())

    # What to type.

    def _commands(self, group: _Group, point: Point | None) -> Iterator[Command]:
        commands, run = self._evidence.commands, self._evidence.run
        if group.kind is CauseKind.DEATH:
            for end in _odd_ends(group.first.check.point, self._evidence)[:1]:
                log = log_path(run.path, end.point, end.repeat)
                if log.exists():
                    yield Command(purpose="read its log", line=shlex.join(["cat", str(log)]))
        again = "" if point is None else commands.measure_point(point.name)
        if again and group.kind is not CauseKind.IMPROVEMENT:
            yield Command(purpose="measure this point again", line=again)
        if group.kind is CauseKind.MEMORY:
            yield from self._comparing(point)
        if self._may_be_noise(group):
            line = commands.gate("--remeasure")
            yield Command(purpose="measure its points again, and let most runs decide", line=line)
        if self._may_be_accepted(group):
            yield Command(purpose="accept it, where it is meant", line=self._accept())

    def _comparing(self, point: Point | None) -> Iterator[Command]:
        """See what changed, and find the commit, where an earlier state is known."""
        good = self._good_commit("" if point is None else point.name)
        against, environment = self._evidence.against, self._evidence.run.manifest.environment
        now = str(environment.get("git_commit", ""))
        if against is not None and against.then is not None and against.now is not None:
            commits = [commit[:12] for commit in (good, against.now.commit) if commit]
            now = against.now.commit or now
            if commits:
                line = shlex.join(["git", "diff", *commits, "--", *against.then.subjects])
                yield Command(purpose="see what changed", line=line)
        told = good and now and not (now.startswith(good) or good.startswith(now))
        if told and (line := self._evidence.commands.bisect(good[:12])):
            yield Command(purpose="find the commit that brought it, where one did", line=line)

    def _may_be_noise(self, group: _Group) -> bool:
        asked = self._evidence.commands.asked
        return (
            self._evidence.policy.remeasure is not None
            and not asked.by_pytest
            and group.first.check.remeasure
        )

    def _may_be_accepted(self, group: _Group) -> bool:
        """Whether a distance is all that is wrong, and the run may become the baseline."""
        rules = {check.rule for check in group.checks}
        movable = rules <= {RuleName.BASELINE, RuleName.COMPARABILITY}
        return movable and self._evidence.against is None and self._is_possible

    @cached_property
    def _is_possible(self) -> bool:
        return is_possible(self._checks, self._evidence.run, self._evidence.policy)

    def _accept(self) -> str:
        planned = {point.name for point in self._evidence.run.points}
        baseline = self._evidence.baseline
        others = baseline is not None and not planned.issuperset(baseline.point)
        return self._evidence.commands.accept(*(["--keep-others"] if others else []))

    # More memory.

    def memory(self, group: _Group, point: Point | None) -> "_Told":
        """More than is allowed."""
        check, most = group.first.check, group.best.check.phase
        begins = check.field in _BEFORE
        first = f"there when {check.phase} begins" if begins else f"first in {check.phase}"
        first = first if most == check.phase else f"{first}, most in {most}"
        dead = [one.points[-1] for one in group.symptoms if one.sort is _Sort.DEATH and one.points]
        ends = list(dict.fromkeys(f"out of memory at {_size_of(each, '')}" for each in dead))
        return _Told(
            what=f"{_who(group)} {self._takes(group, point)}",
            where=f"{_where(group)}; {first}, by {meter_words(check.meter)}",
            how_much="; ".join([self._how_much(group), *ends]),
        )

    def _takes(self, group: _Group, point: Point | None) -> str:
        """The verb and what it takes."""
        check = group.best.check
        amount, on = self._size(group), _on(check.meter)
        if check.rule == RuleName.LEAK:
            steps = next((part for part in check.subject.split(" / ") if " to " in part), "")
            return f"takes {amount} more {on} from {steps or check.phase}"
        if check.earlier is not None:
            amount = f"{amount} more"
        match check.field.removeprefix("net_"):
            case "start":
                return f"has {amount} {on} already when {check.phase} begins"
            case "end":
                return f"has {amount} {on} still when {check.phase} ends"
            case "peak":
                return f"has {amount} {on} at the peak of {check.phase}"
            case "retained":
                return f"keeps {amount} {on}"
        return self._grows(group, point, f"{amount} {on}")

    def _grows(self, group: _Group, point: Point | None, amount: str) -> str:
        """What becomes of growth: amounts at the end of the phase tell, where they are known."""
        check = group.best.check
        if check.earlier is not None:
            kept = any(
                one.check.field == "retained"
                and (one.check.phase, one.check.meter) == (check.phase, check.meter)
                for one in group.symptoms
            )
            return f"{'keeps' if kept else 'takes'} {amount}"
        own = group.best.points
        shown = point if point in own else next(iter(own[-1:]), None)
        edges = None if shown is None else self._edges(check, shown)
        found = None if shown is None else group.best.excess(shown)
        if edges is None or found is None or found[1] <= 0:
            return f"takes {amount}"
        excess = found[1]
        kept_bytes = edges.end - edges.start
        if kept_bytes >= (1 - _FEW) * excess:
            return f"keeps {amount}"
        if kept_bytes <= _FEW * excess:
            return f"takes {amount}, and ends {check.phase} without it"
        return f"takes {amount}, and ends {check.phase} with {format_bytes(kept_bytes)} more"

    def _edges(self, check: Check, point: Point) -> Edges | None:
        own = [one for one in check.readings if one.point == point.name]
        if not own:
            return None
        worst = max(own, key=lambda one: one.amount_bytes)
        return self._evidence.edges(point, check.phase, check.meter, worst.repeat)

    def _size(self, group: _Group) -> str:
        """What it is as large as; else its bytes."""
        check, over = group.best.check, _over(group.best.check)
        each = f" for each {step_in_words(over)}" if over else ""
        if check.like and (check.earlier is not None or check.rule == RuleName.LEAK):
            return check.like
        if check.like:
            return f"as much as {check.like}{each if self._is_fixed(group, check.like) else ''}"
        if check.measured is None:
            return f"more{each}"
        if over:
            return f"{format_whole(check.measured)} B{each}"
        return format_bytes(check.measured - (check.earlier or 0))

    def _is_fixed(self, group: _Group, like: str) -> bool:
        """Whether what it is a multiple of is as large at every size."""
        named = re.search(r" x (\w+)", like)
        points = group.best.points
        if named is None or len(points) < 2:
            return False
        amounts = {self._evidence.declared_by(point).get(named[1]) for point in points}
        return len(amounts) == 1

    def _how_much(self, group: _Group) -> str:
        check, points = group.best.check, group.best.points
        largest = points[-1] if points else None
        own = [one.amount_bytes for one in check.readings if largest and one.point == largest.name]
        over = _over(check)
        at = "" if largest is None else f" at {_size_of(largest, over)}"
        if over and check.measured is not None:
            each = f"{format_whole(check.measured)} B for each {step_in_words(over)}"
            parts = [f"{format_bytes(max(own))}{at}", each] if own and max(own) > 0 else [each]
        elif check.measured is not None:
            parts = [f"{_amount(check, check.measured)}{at}"]
        else:
            parts = [f"{format_bytes(max(own))}{at}"] if own else []
        if check.earlier is not None:
            parts.append(f"{format_bytes(check.earlier)} before")
        told = ", ".join(parts)
        allowed = _allowed(check) or self._allowed_shape(check)
        return f"{told}; {allowed}" if allowed else told

    def _allowed_shape(self, check: Check) -> str:
        name = check.limit_place.partition(" of ")[0]
        rule = dict(self._evidence.policy.rules()).get(name)
        shape = getattr(rule, "at_most", "") if check.rule == RuleName.GROWTH_CLASS else ""
        fit = self._fit(check)
        grown = "" if fit is None else f"its growth is {fit.growth_class}, "
        return f"{grown}allowed is {shape}" if shape else ""

    def _fit(self, check: Check) -> Fit | None:
        names, place = set(check.points), (check.phase, check.meter, check.field)
        return next(
            (
                fit
                for fit in self._evidence.fits.values()
                if (fit.phase, fit.meter, fit.field) == place
                and {point.name for point in fit.series.points} == names
            ),
            None,
        )

    # Runs that died.

    def death(self, group: _Group, point: Point | None) -> "_Told":
        """How it ended, where, and in how many of its runs."""
        name = group.first.check.point
        ends = _odd_ends(name, self._evidence)
        runs = len(self._evidence.run.repeats_of(name))
        if not ends or point is None:
            return _Told(what=group.first.check.sentence, where=name, how_much="")
        end = ends[0]
        where = f"{name}; in {end.phase}" if end.phase else f"{name}; before its first phase"
        known = with_what_is_known(end.reason, self._evidence.traces().get(name))
        reason = " ".join(known.split()) or "no reason was recorded"
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[:_LONGEST_REASON]} [...]"
        return _Told(
            what=f"{_who(group)} {_DEATHS[end.outcome]}",
            where=where,
            how_much=f"{len(ends)} of {count(runs, 'run')}: {reason}",
        )

    # What is missing, and what became less.

    def missing(self, group: _Group) -> "_Told":
        """One line with a count."""
        number, first = len(group.symptoms), group.first.check
        what = _missing(group, number)
        where = _where(group) or "the whole run"
        if first.phase and group.key.startswith("unseen"):
            where = f"{where}; first in {first.phase}, by {meter_words(first.meter)}"
            return _Told(what=what, where=where, how_much=self._how_much(group))
        how_much = f"first {first.subject}" if number > 1 else first.subject
        return _Told(what=what, where=where, how_much=how_much)

    def less(self, group: _Group) -> "_Told":
        """Less than before."""
        check, number = group.first.check, len(group.symptoms)
        what = f"{_who(group)} takes less than was accepted"
        if any(one.check.finding is FindingKind.MOVED for one in group.symptoms):
            what = f"{_who(group)} has moved memory to where no limit counts it"
        elif check.rule == RuleName.OUTCOME:
            what = f"{_who(group)} now ends well where it was to run out of memory"
        first = f"; first in {check.phase}, by {meter_words(check.meter)}" if check.phase else ""
        amounts = self._how_much(group)
        more = f"; {count(number - 1, 'more amount')} like it" if number > 1 else ""
        return _Told(what=what, where=f"{_where(group)}{first}", how_much=f"{amounts}{more}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    what: str
    where: str
    how_much: str


_DEATHS: Mapping[Outcome, str] = {
    Outcome.DEVICE_OOM: "ran out of the device's memory",
    Outcome.HOST_OOM: "ran out of the host's memory",
    Outcome.CRASHED: "was ended by a signal",
    Outcome.EXITED: "exited before it had reported its end",
    Outcome.TIMED_OUT: "took longer than it may",
    Outcome.ERROR: "raised an exception",
    Outcome.SKIPPED: "was never started",
}
_TOPICS: Mapping[str, tuple[str, str]] = {
    "no baseline": ("there is nothing accepted to compare with", "{} have no baseline"),
    "undecided": ("a limit could not be decided", "{} could not be decided"),
    "runs": ("a run is not complete", "{} are not complete"),
    "run": ("the run directory is not complete", "the run directory is not complete"),
    "lost points": ("a point of the baseline was not measured", "{} were not measured"),
    "idle rules": ("a rule is about nothing in this run", "{} are about nothing in this run"),
    "against": ("the other code cannot be compared with", "the other code cannot be compared with"),
    "comparability": ("readings cannot be compared", "readings cannot be compared"),
}
"""What is missing, of one finding and of several."""


_NOUNS: Mapping[str, tuple[str, ...]] = {
    "undecided": ("limit",),
    "runs": ("run",),
    "no baseline": ("point",),
    "lost points": ("point of the baseline", "points of the baseline"),
    "idle rules": ("rule",),
}


def _missing(group: _Group, number: int) -> str:
    if group.key.startswith("unseen"):
        return f"{meter_words(group.first.check.meter)} does not see what {_who(group)} takes"
    if group.key.startswith("meter "):
        return f"{meter_words(group.key.removeprefix('meter '))} could not be judged"
    if group.key.startswith("survived"):
        return f"{_who(group)} did not run out of memory, as it was to"
    one, many = _TOPICS[group.key]
    if group.key == "no baseline":
        points = {symptom.check.point for symptom in group.symptoms if symptom.check.point}
        number = len(points) if len(points) > 1 else 1
    named = count(number, *_NOUNS.get(group.key, ("subject",)))
    return one if number == 1 else many.format(named)


def _who(group: _Group) -> str:
    first, loader = group.first, text_in_words(group.first.loader)
    if not first.points or _LOADER in first.points[-1].parameters:
        return f"the {loader} loader" if loader else "the run"
    return loader


def _where(group: _Group) -> str:
    return ", ".join(map(text_in_words, group.scenarios))


def _on(meter: str) -> str:
    return "on the device" if meter == DEVICE_IN_USE or "device" in meter else "on the host"


def _size_of(point: Point, over: str) -> str:
    size = point.parameters.get(over or _IMAGES)
    return sizes_in_words(over or _IMAGES, size) if is_size(size) else point.name


def _amount(check: Check, amount: float) -> str:
    """With all its bytes where its limit would read the same, and for each step."""
    alike = check.limit is not None and format_bytes(check.measured or 0) == format_bytes(
        check.limit
    )
    return f"{format_whole(amount)} B" if alike or _over(check) else format_bytes(amount)


def _allowed(check: Check) -> str:
    if check.limit is None or check.measured is None:
        return ""
    limit = _amount(check, check.limit)
    return f"at least {limit} expected" if check.bound == "lower" else f"allowed {limit}"


def _tensors(alive: Alive) -> AliveTensors:
    return AliveTensors(
        dtype=alive.dtype,
        shape=tuple(int(size) for size in re.findall(r"\d+", alive.shape)),
        operation=alive.op,
        count=alive.count,
        nbytes=alive.total_bytes,
        declared=alive.like,
    )


def _id_of(group: _Group) -> str:
    first = group.first.check
    place = (first.phase, first.meter) if group.kind is not CauseKind.DEATH else (first.point,)
    named = [group.kind, group.key, group.first.loader, *place]
    return value_digest(named)[:_ID_CHARACTERS]
