"""Causes in words: what, where, how much and since when, what was alive there, and what to type."""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.judge import FINDINGS, Check, FindingKind, RuleName, value_digest
from harness.judge.baseline_file import is_possible
from harness.judge.causes import AliveTensors, Cause, CauseKind, Command
from harness.judge.causes.groups import (
    IMAGES,
    LOADER,
    RULE_ORDER,
    Group,
    Sort,
    grouped,
    odd_ends,
    step_parameter,
)
from harness.judge.completeness import with_what_is_known
from harness.judge.growth import Fit
from harness.judge.policy import quote_rule
from harness.judge.rules.evidence import Evidence
from harness.judge.rules.findings import Edges, text_in_words
from harness.meters import DEVICE_IN_USE, meter_words
from harness.records import Outcome, Point, is_size, sizes_in_words, step_in_words
from harness.rundir.traces import Alive, log_path, log_tail
from harness.words import count, format_bytes, format_whole

_ALIVE_SHOWN = 3
"""Chosen: things alive that a cause names; the trace has all of them."""
_LOG_LINES = 15
"""Chosen: a traceback's end, and what was said before it."""
_LONGEST_REASON = 240
"""Chosen: characters, three lines of a terminal; the check has all of it."""
_FEW = 0.05
"""Chosen, as in the sentences of checks: less than a twentieth is not worth a word."""
_BEFORE = frozenset({"start", "net_start"})
"""Fields of what was there before the phase did anything."""
_ID_CHARACTERS = 10
"""Chosen: 40 bits, enough to tell the causes of a project apart."""
_COMMIT = re.compile("[0-9a-f]{7,64}")
_KINDS = tuple(CauseKind)


def causes_of(checks: Sequence[Check], evidence: Evidence) -> tuple[Cause, ...]:
    """The causes of all findings among the checks, the gravest first; every finding is in exactly
    one of them.
    """
    findings = [check for check in checks if check.finding is not None]
    if not findings:
        return ()
    teller = _Teller(evidence, tuple(checks))
    groups = [group for group in grouped(findings, evidence) if group.checks]
    told = sorted(map(teller.cause, groups), key=_rank)
    return tuple(_with_own_ids(told))


def _rank(cause: Cause) -> tuple[int, int, bool, int, int]:
    """The gravest first; then what is certain before what may be noise, and what explains most."""
    noisy = all(check.remeasure for check in cause.checks)
    rule = RULE_ORDER.index(RuleName(cause.checks[0].rule))
    finding = list(FINDINGS).index(cause.finding)
    return _KINDS.index(cause.kind), finding, noisy, -len(cause.checks), rule


def _with_own_ids(causes: Iterable[Cause]) -> Iterator[Cause]:
    """Two that are alike in all that an id is made of are numbered."""
    seen: dict[str, int] = {}
    for cause in causes:
        number = seen[cause.id] = seen.get(cause.id, 0) + 1
        yield cause if number == 1 else dataclasses.replace(cause, id=f"{cause.id}{number}")


# In words.


class _Teller:
    """Makes a cause of a group, with all that the run knows about it."""

    def __init__(self, evidence: Evidence, checks: tuple[Check, ...]) -> None:
        self._evidence, self._checks = evidence, checks

    def cause(self, group: Group) -> Cause:
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

    def _told(self, group: Group, point: Point | None) -> "_Told":
        match group.kind:
            case CauseKind.MEMORY:
                return self.memory(group, point)
            case CauseKind.DEATH:
                return self.death(group, point)
            case CauseKind.MISSING:
                return self.missing(group)
            case CauseKind.IMPROVEMENT:
                return self.less(group)

    def _best_point(self, group: Group) -> Point | None:
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

    def _since(self, group: Group) -> str:
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

    def _alive(self, group: Group, point: Point | None) -> tuple[AliveTensors, ...]:
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

    def _log_tail(self, group: Group) -> tuple[str, ...]:
        if group.kind is not CauseKind.DEATH:
            return ()
        run = self._evidence.run
        tails = (
            log_tail(run.path, end.point, end.repeat, _LOG_LINES)
            for end in odd_ends(group.first.check.point, self._evidence)
        )
        return next(filter(None, tails), ())

    # What to type.

    def _commands(self, group: Group, point: Point | None) -> Iterator[Command]:
        commands, run = self._evidence.commands, self._evidence.run
        if group.kind is CauseKind.DEATH:
            for end in odd_ends(group.first.check.point, self._evidence)[:1]:
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

    def _may_be_noise(self, group: Group) -> bool:
        asked = self._evidence.commands.asked
        return (
            self._evidence.policy.remeasure is not None
            and not asked.by_pytest
            and group.first.check.remeasure
        )

    def _may_be_accepted(self, group: Group) -> bool:
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

    def memory(self, group: Group, point: Point | None) -> "_Told":
        """More than is allowed."""
        check, most = group.first.check, group.best.check.phase
        begins = check.field in _BEFORE
        first = f"there when {check.phase} begins" if begins else f"first in {check.phase}"
        first = first if most == check.phase else f"{first}, most in {most}"
        dead = [one.points[-1] for one in group.symptoms if one.sort is Sort.DEATH and one.points]
        ends = list(dict.fromkeys(f"out of memory at {_size_of(each, '')}" for each in dead))
        return _Told(
            what=f"{_who(group)} {self._takes(group, point)}",
            where=f"{_where(group)}; {first}, by {meter_words(check.meter)}",
            how_much="; ".join([self._how_much(group), *ends]),
        )

    def _takes(self, group: Group, point: Point | None) -> str:
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

    def _grows(self, group: Group, point: Point | None, amount: str) -> str:
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

    def _size(self, group: Group) -> str:
        """What it is as large as; else its bytes."""
        check, over = group.best.check, step_parameter(group.best.check)
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

    def _is_fixed(self, group: Group, like: str) -> bool:
        """Whether what it is a multiple of is as large at every size."""
        named = re.search(r" x (\w+)", like)
        points = group.best.points
        if named is None or len(points) < 2:
            return False
        amounts = {self._evidence.declared_by(point).get(named[1]) for point in points}
        return len(amounts) == 1

    def _how_much(self, group: Group) -> str:
        check, points = group.best.check, group.best.points
        largest = points[-1] if points else None
        own = [one.amount_bytes for one in check.readings if largest and one.point == largest.name]
        over = step_parameter(check)
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

    def death(self, group: Group, point: Point | None) -> "_Told":
        """How it ended, where, and in how many of its runs."""
        name = group.first.check.point
        ends = odd_ends(name, self._evidence)
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

    def missing(self, group: Group) -> "_Told":
        """One line with a count."""
        number, first = len(group.symptoms), group.first.check
        what = _missing(group, number)
        where = _where(group) or "the whole run"
        if first.phase and group.key.startswith("unseen"):
            where = f"{where}; first in {first.phase}, by {meter_words(first.meter)}"
            return _Told(what=what, where=where, how_much=self._how_much(group))
        how_much = f"first {first.subject}" if number > 1 else first.subject
        return _Told(what=what, where=where, how_much=how_much)

    def less(self, group: Group) -> "_Told":
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


def _missing(group: Group, number: int) -> str:
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


def _who(group: Group) -> str:
    first, loader = group.first, text_in_words(group.first.loader)
    if not first.points or LOADER in first.points[-1].parameters:
        return f"the {loader} loader" if loader else "the run"
    return loader


def _where(group: Group) -> str:
    return ", ".join(map(text_in_words, group.scenarios))


def _on(meter: str) -> str:
    return "on the device" if meter == DEVICE_IN_USE or "device" in meter else "on the host"


def _size_of(point: Point, over: str) -> str:
    size = point.parameters.get(over or IMAGES)
    return sizes_in_words(over or IMAGES, size) if is_size(size) else point.name


def _amount(check: Check, amount: float) -> str:
    """With all its bytes where its limit would read the same, and for each step."""
    alike = check.limit is not None and format_bytes(check.measured or 0) == format_bytes(
        check.limit
    )
    return f"{format_whole(amount)} B" if alike or step_parameter(check) else format_bytes(amount)


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


def _id_of(group: Group) -> str:
    first = group.first.check
    place = (first.phase, first.meter) if group.kind is not CauseKind.DEATH else (first.point,)
    named = [group.kind, group.key, group.first.loader, *place]
    return value_digest(named)[:_ID_CHARACTERS]
