"""What one epoch has more than the epoch before it: whatever a second one adds, every further one
adds as well.
"""

from collections.abc import Iterator, Mapping, Sequence

from harness.judge.attribution import as_multiple, risen
from harness.judge.limits import LeakRule
from harness.judge.rules.evidence import (
    TRACED_METER,
    Evidence,
    limit_place,
    meter_words,
    point_place,
    runs_in_words,
    seen,
)
from harness.judge.rules.pages import without_pages
from harness.judge.rules.quorum import Decision, decide
from harness.judge.rules.rises import judged_together, least_rises
from harness.judge.rules.sentences import (
    Edges,
    LeakWords,
    closed,
    leak_in_words,
    leak_of_every_step,
)
from harness.judge.verdict import Check, FindingKind
from harness.records import Point
from harness.units import format_bytes

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
            about, to_do = _explained(evidence, rule, point, meter, steps, repeat, worst)
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


def _explained(
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
        if meter == TRACED_METER
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
            _edges(evidence, point, meter, earlier, repeat),
            _edges(evidence, point, meter, later, repeat),
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


def _edges(evidence: Evidence, point: Point, meter: str, phase: str, repeat: int) -> Edges | None:
    start, peak, end = (
        evidence.readings.get((point.name, phase, meter, field), {}).get(repeat)
        for field in ("start", "peak", "end")
    )
    return (
        None
        if start is None or peak is None or end is None
        else Edges(start=start, peak=peak, end=end)
    )
