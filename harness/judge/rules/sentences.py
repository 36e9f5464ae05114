"""Every sentence of a check, made of its finding alone: one function for each kind of details.

What is said of an amount, field by field, is in ``fields``. Sentences that may end with a command
to be copied have no full stop after it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.judge import Check, RuleName
from harness.judge.advice import LESS_ON_PURPOSE, quoted, stopped
from harness.judge.growth import Ceiling, Fit, GrowthClass
from harness.judge.rules.fields import (
    FIELDS,
    amount_in_words,
    at_edges,
    beside,
    rise_in_words,
    search,
    slope_verb,
)
from harness.judge.rules.findings import (
    Amount,
    Arithmetic,
    BaselineFor,
    Codes,
    Decision,
    Distance,
    Ended,
    Finding,
    Gap,
    IdleTolerance,
    Launchers,
    Lost,
    MixedCounters,
    Moved,
    NoBaseline,
    NoFit,
    NoParameter,
    NoSuchPhase,
    NoSuchPoint,
    NotCompared,
    NotSwept,
    OneRun,
    Origin,
    OtherCounter,
    OtherRun,
    Planned,
    Readings,
    Rise,
    Sentence,
    Shape,
    Slope,
    Survived,
    Undeclared,
    Unmeasured,
    Unreadable,
    WrongCode,
)
from harness.meters import DEVICE_IN_USE, meter_words
from harness.records import (
    NAMED_STEPS,
    OVER_MACHINE,
    Outcome,
    Quality,
    sizes_in_words,
    step_in_words,
    unit_of,
)
from harness.words import KIB, format_bytes, format_rate, format_whole, nearest, plural


def check_of(finding: Finding) -> Check:
    """The finding as the verdict has it, with its sentence."""
    place, held = finding.place, finding.held
    return Check(
        rule=finding.rule,
        subject=place.subject,
        sentence=SENTENCES[type(finding.details)](finding, finding.details),
        finding=finding.kind,
        scenario=place.scenario,
        point=place.point,
        phase=place.phase,
        meter=place.meter,
        measured=held.measured,
        limit=held.limit,
        bound=held.bound,
        earlier=held.earlier,
        earlier_from=held.earlier_from,
        unit=held.unit,
        because=finding.because,
        field=_field_of(finding),
        limit_place=finding.limit_place,
        like=_like(finding),
        points=finding.points,
        readings=finding.readings,
        decision=decision_of(finding),
        better=finding.better,
        remeasure=finding.remeasure,
    )


def _field_of(finding: Finding) -> str:
    match finding.details:
        case Amount() | Slope() | Shape() | Arithmetic():
            return finding.details.field
        case _:
            return finding.place.field


def _like(finding: Finding) -> str:
    """What it is as large as, where it is a finding."""
    match finding.details:
        case Distance(multiple=multiple) | Rise(multiple=multiple):
            found = multiple
        case Amount(origin=Origin(multiple=multiple)):
            found = multiple
        case Slope(origin=Origin(multiple=multiple)) | Shape(origin=Origin(multiple=multiple)):
            found = multiple
        case Arithmetic(origin=Origin(multiple=multiple)):
            found = multiple
        case _:
            return ""
    return found if finding.kind is not None else ""


# What many sentences have in common.


def closed(sentence: str) -> str:
    """With one full stop at its end, or the question mark that it ends with."""
    text = sentence.rstrip(". ")
    return text if text.endswith(("?", "!")) else f"{text}."


def runs_in_words(amounts: tuple[int, ...]) -> str:
    """How many, and how far they are apart: ``"1 run"``, ``"2 runs, all alike"``, ``"4 runs, 8.0 to
    9.0 MiB, spread 1.0 MiB"``.
    """
    if len(amounts) == 1:
        return "1 run"
    least, most = min(amounts), max(amounts)
    if least == most:
        return f"{len(amounts)} runs, all alike"
    low, high = format_bytes(least), format_bytes(most)
    span = f"all about {low}" if low == high else f"{low} to {high}"
    return f"{len(amounts)} runs, {span}, spread {format_bytes(most - least)}"


def decision_in_words(decision: Decision, shown: str) -> str:
    """How a quorum decided; empty where nothing was measured again.

    ``shown`` is what a vote is for, as in "1 of 5 runs ARE OVER IT".
    """
    if not decision.runs:
        return ""
    end = "confirmed" if decision.stands else "not confirmed, so it counts as noise"
    return (
        f"measured again, {decision.votes} of {decision.runs} runs {shown}; "
        f"{decision.needed} are needed: {end}"
    )


_VOTES_FOR: Mapping[RuleName, str] = {
    RuleName.BUDGET: "are over it",
    RuleName.FLOOR: "fall short of it",
    RuleName.LEAK: "rise by more",
    RuleName.SLOPE: "rise by more than the limit",
    RuleName.GROWTH_CLASS: "grow like this",
}


def decision_of(finding: Finding) -> str:
    """How a quorum decided about this finding."""
    match finding.details:
        case Arithmetic(state=state):
            shown = f"rise by {state}"
        case Distance(worse=worse):
            shown = f"have {'more' if worse else 'less'} than the tolerance allows"
        case Ended(expected=expected) | Survived(expected=expected):
            shown = f"ended other than {expected}"
        case _:
            shown = _VOTES_FOR.get(finding.rule, "")
    return decision_in_words(finding.decision, shown)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _then(*parts: str) -> str:
    """Further clauses of a sentence, each after a semicolon; nothing where all are empty."""
    return "".join(f"; {part}" for part in parts if part)


def _as_large_as(multiple: str) -> str:
    return f"as large as {multiple}" if multiple else ""


def _gap(finding: Finding, gap: Gap) -> str:
    return f"{finding.place.words}: {closed(gap.reason)}"


def _sentence(_: Finding, sentence: Sentence) -> str:
    return sentence.text


# Budgets, floors, leaks.


class _SideWords(NamedTuple):
    limit: str
    which: str
    beyond: str


_SIDES: Mapping[RuleName, _SideWords] = {
    RuleName.BUDGET: _SideWords("limit", "worst", "over it"),
    RuleName.FLOOR: _SideWords(
        "at least", "least", "short of it, so the meter did not see what the phase needs"
    ),
}


def _amount(finding: Finding, amount: Amount) -> str:
    side, field = _SIDES[finding.rule], amount.field
    found = (
        f"{amount_in_words(field, finding.held.measured or 0)}, {side.limit} {amount.limit} "
        f"({side.which} of {runs_in_words(finding.amounts)})"
    )
    decided = decision_of(finding)
    if not finding.decision.stands:
        return f"{finding.place.words}: {_joined(found, decided)}."

    beyond, origin = f"{found}: {round(amount.excess_bytes):,} B {side.beyond}", amount.origin
    if origin is None:
        about, to_do = "", _see_that_it_counts(finding, amount)
    else:
        about = _joined(_as_large_as(origin.multiple), beside(field, origin.edges), origin.alive)
        phase = finding.place.phase
        to_do = search(field, origin.edges, phase=phase, first=origin.is_first_phase)
    return (
        f"{finding.place.words}: {_joined(beyond, about, decided)}. To do: {to_do}; the limit is "
        f"{finding.limit_place}."
    )


def _see_that_it_counts(finding: Finding, amount: Amount) -> str:
    if finding.place.meter == DEVICE_IN_USE:
        return "feed memory that the allocator counts (a copy, not an alias of a numpy array)"
    return f"check that {finding.place.phase} does what it is for, and run {quoted(amount.doctor)}"


_RISES: Mapping[str, tuple[str, str]] = {
    "peak": ("its peak rises by", "its peak falls by"),
    "end": ("ends with more by", "ends with less by"),
}


def _rise(finding: Finding, rise: Rise) -> str:
    rises, falls = _RISES[finding.place.field]
    worst = finding.held.measured or 0
    found = (
        f"{falls if worst < 0 else rises} {format_bytes(abs(worst))}"
        f"{' at least in every step' if rise.every_step else ''}, limit {rise.limit} "
        f"({'least' if rise.least_decides else 'worst'} of {runs_in_words(finding.amounts)})"
    )
    decided = decision_of(finding)
    if not finding.decision.stands:
        return f"{finding.place.words}: {_joined(found, decided)}."

    words = rise_in_words(finding.place.field, rise.steps, rise.edges)
    where, to_do = ("", "") if words is None else (words.where, words.to_do)
    if words is None:
        to_do = f"find what {rise.steps[-1][1]} has more of than {rise.steps[0][0]}"
    beyond = f"{found}: {round(rise.excess_bytes):,} B over it"
    about = _joined(beyond, _as_large_as(rise.multiple), where, rise.alive, decided)
    return f"{finding.place.words}: {about}. To do: {to_do}. The limit is {finding.limit_place}."


# The distance from a baseline, or from the other code.


def _distance(finding: Finding, distance: Distance) -> str:
    amounts = tuple(max(amount, 0) for amount in finding.amounts)
    earlier = format_bytes(distance.earlier_bytes)
    compared = (
        f"baseline {earlier} ({distance.earlier})"
        if distance.look_at is None
        else f"{distance.earlier} {earlier}"
    )
    found = (
        f"{amount_in_words(finding.place.field, distance.shown_bytes)}, {compared}, "
        f"tolerance {format_bytes(distance.allowed_bytes)} "
        f"({'median' if finding.decision.runs else 'least'} of {runs_in_words(amounts)})"
    )
    if not finding.decision.stands:
        sentence = f"{found}{_then(decision_of(finding))}."
    elif distance.worse:
        sentence = f"{found}: {_more(finding, distance)}"
    else:
        sentence = f"{found}: {_less(finding, distance)}"
    return stopped(f"{finding.place.words}: {sentence}")


def _more(finding: Finding, distance: Distance) -> str:
    more = format_bytes(distance.shown_bytes - distance.earlier_bytes)
    like = f", {_as_large_as(distance.multiple)}" if distance.multiple else ""
    phase = finding.place.phase
    if distance.look_at is not None:
        to_do = (
            f"{distance.look_at} for what {phase} does now; if it is meant, say so where the "
            "change is reviewed"
        )
    else:
        where = (
            f"in the phases before {phase}, or between them,"
            if finding.place.field == "net_start"
            else f"in {phase}"
        )
        to_do = f"find what changed {where} since then; if it is meant, {distance.accept}"
    return f"{more} more{like}{_then(decision_of(finding))}. To do: {to_do}"


def _less(finding: Finding, distance: Distance) -> str:
    moved = distance.moved
    elsewhere = "" if moved is None else f", {moved_in_words(finding.place.field, moved)}"
    less = (
        f"{format_bytes(distance.earlier_bytes - distance.shown_bytes)} less{elsewhere}"
        f"{_then(decision_of(finding))}"
    )
    if distance.look_at is not None:
        return f"{less}."
    if moved is None:
        return f"{less}; if that is real, accept it, so that it is kept. To do: {distance.accept}"
    return (
        f"{less}; find what {finding.place.phase} does instead (reads through a map of a file, "
        f"say) before you accept it as what it takes. To do: if it is meant, {distance.accept}"
    )


def moved_in_words(field: str, moved: Moved) -> str:
    """What other meters have of bytes that became less: a clause that begins with ``but``."""
    if moved.unlimited is not None:
        meter, now = moved.unlimited
        return (
            f"but {meter_words(meter)}, which no limit counts and the baseline does not have, "
            f"{amount_in_words(field, now)} there: whether the bytes were moved to them is unknown"
        )
    others = "; ".join(
        f"{meter_words(meter)} {amount_in_words(field, now)}, {_change(by)}"
        for meter, now, by in moved.others
    )
    return f"but {others}: the bytes were moved to where no limit counts them"


def _change(by_bytes: int) -> str:
    if by_bytes == 0:
        return "as before"
    return f"{format_bytes(abs(by_bytes))} {'more' if by_bytes > 0 else 'less'} than before"


def _not_compared(finding: Finding, missing: NotCompared) -> str:
    why = {
        "no point": "the baseline does not have it",
        "other point": f"it is not comparable with the baseline: {missing.detail}",
        "no amount": "the baseline has no amount for it",
        "no start": ("the baseline was accepted before it kept what there is when a phase begins"),
        "not read there": f"{missing.detail} it was not read",
    }[missing.why]
    return f"{finding.place.words}: {why}; {missing.accept}"


# Growth: why there is no fit.


def _no_fit(finding: Finding, gap: NoFit) -> str:
    if gap.planned < gap.needed:
        to_do = f"To do: measure more values{gap.or_less}."
    else:
        to_do = (
            "The other findings of this run say why the rest is missing: fix that, and measure "
            "again."
        )
    return (
        f"{finding.place.words}: there is no slope over {gap.over}: it needs {gap.needed} "
        f"different values, {gap.planned} were planned and {gap.read} could be read. {to_do}"
    )


def _not_swept(finding: Finding, gap: NotSwept) -> str:
    sizes = ", ".join(map(str, gap.sizes))
    found = f"no two points differ in {gap.over} alone"
    if len(gap.sizes) < 2:
        found = f"only {gap.over} {sizes} was measured" if sizes else f"no {gap.over} was measured"
    return (
        f"{finding.place.words}: {found}, and a slope needs {gap.needed} different values; "
        f"measure more{gap.or_less}. The rule is {finding.limit_place}."
    )


def _no_parameter(finding: Finding, gap: NoParameter) -> str:
    if gap.value:
        why = (
            f"its values are no whole numbers ({gap.value}), so there is nothing to draw a line "
            "over; name another parameter"
        )
    elif gap.fixed_in:
        why = (
            f"it is a fixed setting of {gap.fixed_in} and the same in every point; name a "
            "parameter that is swept"
        )
    else:
        known = (
            nearest(gap.over, gap.known)
            if gap.known
            else "none of them has a parameter that is a whole number"
        )
        why = f"no point that the rule is about has such a parameter; {known}"
    return f"{finding.place.words}: {why}. The rule is {finding.limit_place}."


def _undeclared(finding: Finding, gap: Undeclared) -> str:
    name = gap.declared
    return (
        f"{finding.place.words}: the body did not declare {name} at two sizes; call "
        f"memory.declare({name}=...)"
    )


# Growth: slopes.


def _slope(finding: Finding, slope: Slope) -> str:
    line, unit, decided = slope.fit.line, slope.fit.unit, decision_of(finding)
    found = (
        f"{slope_verb(slope.field, slope.largest_bytes)} {format_whole(line.slope)} B per {unit}, "
        f"limit {format_whole(slope.at_most)}"
    )
    interval = _interval(slope.fit)
    bound = (
        ""
        if slope.bound_slope is None
        else f"; the meter's upper bound grows by {format_whole(slope.bound_slope)}"
    )
    measured = f"{found} ({interval}{bound})"
    match slope.state:
        case "rises":
            sentence = _rising(finding, slope, measured)
        case "levels off":
            sentence = _levelling(finding, slope)
        case "no interval":
            sentence = (
                f"unresolved: {found}, but {slope.fit.runs} runs leave no interval around it; "
                "measure with --memory-repeats 2 or more."
            )
        case "unresolved":
            sentence = (
                f"unresolved: {found}, but the runs differ too much to tell ({interval}): "
                f"{format_rate(slope.resolve, unit)} has to be excluded. To do: "
                f"{_resolving(slope)}."
            )
        case "within":
            sentence = f"{measured}{_then(decided)}."
    return f"{finding.place.words}: {sentence}"


def _interval(fit: Fit) -> str:
    low, high = format_whole(fit.line.slope_low), format_whole(fit.line.slope_high)
    return f"95 % interval {low} to {high}; {len(fit.sizes)} sizes, {fit.runs} runs"


def _rising(finding: Finding, slope: Slope, measured: str) -> str:
    """Of what goes on rising."""
    fit, origin = slope.fit, slope.origin
    largest = fit.sizes[-1]
    why = "" if origin is None else _then(_as_large_as(origin.multiple), origin.alive)
    total = (
        f"At {sizes_in_words(fit.series.over, largest)} that is "
        f"{format_bytes(fit.line.slope * largest)}"
    )
    return (
        f"{measured}{why}{_then(decision_of(finding))}. {total}{_at_other_edges(slope)}. To do: "
        f"{_search(slope, origin)}; the limit is {finding.limit_place}."
    )


def _levelling(finding: Finding, slope: Slope) -> str:
    """Of what levels off: up to there it breaks the limit, and a larger size costs no more."""
    fit, level, origin = slope.fit, slope.level, slope.origin
    if level is None or origin is None:
        return ""
    over = fit.series.over
    why = _then(_as_large_as(origin.multiple), origin.alive)
    limit = (
        f"limit {format_whole(slope.at_most)} (the line through all sizes by "
        f"{format_whole(fit.line.slope)}, {_interval(fit)})"
    )
    return (
        f"{FIELDS[slope.field].shape} {level_in_words(over, level)}{why}. From "
        f"{sizes_in_words(over, level.smallest, level.from_size)} it rises by "
        f"{format_whole(level.rise)} B per {unit_of(over)}, {limit}"
        f"{_then(decision_of(finding))}. To do: {_fills(fit)}; the limit is {finding.limit_place}."
    )


def _resolving(slope: Slope) -> str:
    """What makes the interval narrow enough, or the limit wide enough; more repeats only where they
    were not taken yet.

    Runs that differ by as much at every size leave an interval that shrinks as the span of the
    sizes grows. Where nothing is kept, its upper end does so too, for then the slope is of those
    differences alone.
    """
    fit, over_all = slope.fit, slope.resolve_over_all
    high, between = fit.line.slope_high, fit.sizes[-1] - fit.sizes[0]
    again = "measure again with more repeats or on a quieter machine, or "
    larger = "measure larger sizes"
    excluded = slope.resolve - over_all / between
    if excluded > 0:
        largest = _rounded_up(fit.sizes[0] + (high * between - over_all) / excluded)
        size = sizes_in_words(fit.series.over, largest)
        larger += f" (up to about {size}, where none keeps anything)"
    wider = math.ceil((high - over_all / between) / KIB)
    return (
        f"{again if slope.may_repeat else ''}{larger}, or, if that much may stay open, write "
        f'resolve = "{wider} KiB", which these runs exclude'
    )


def _rounded_up(size: float) -> int:
    """To two digits: what is computed of noise is not known better."""
    step = int(10 ** max(0, len(str(math.ceil(size))) - 2))
    return math.ceil(size / step) * step


def _at_other_edges(slope: Slope) -> str:
    """What it is at the other edges of the phase; after the amount, with a leading space, or empty
    where nothing shows it.
    """
    if slope.origin is None or slope.largest_bytes < 0:
        return ""
    words = at_edges(slope.field, slope.origin.edges)
    pages = words and slope.origin.device_pages
    return f"{words}, pages of the emulated device included" if pages else words


def _search(grown: Slope | Shape, origin: Origin | None) -> str:
    """What to look for: in the phase, or in what was there before it."""
    phase, each = grown.fit.phase, step_in_words(grown.fit.series.over)
    if grown.largest_bytes < 0 or origin is None:
        return f"find what {phase} does not give back for each {each}"
    return search(grown.field, origin.edges, phase=phase, first=origin.is_first_phase, each=each)


def _fills(fit: Fit) -> str:
    return f"find what {fit.phase} fills up to a fixed amount (a cache, a buffer)"


def level_in_words(over: str, level: Ceiling) -> str:
    """``"levels off at 4.0 MiB from 256 images on, a fixed amount that 64 images do not fill"``."""
    does = "does" if over not in NAMED_STEPS or level.smallest == 1 else "do"
    return (
        f"levels off at {format_bytes(level.level_bytes)} from "
        f"{sizes_in_words(over, level.from_size)} on, a fixed amount that "
        f"{sizes_in_words(over, level.smallest)} {does} not fill"
    )


# Growth: classes and arithmetic.


def _shape(finding: Finding, shape: Shape) -> str:
    measured, decided = _shape_in_words(shape), decision_of(finding)
    match shape.state:
        case "unresolved":
            line = shape.fit.line
            interval = (
                f"{format_whole(line.slope_low)} to {format_whole(line.slope_high)} B per "
                f"{shape.fit.unit}"
            )
            sentence = (
                f"the runs do not show how it grows over {shape.over}: by {interval} with 95 % "
                f"confidence, from {len(shape.fit.sizes)} sizes. To do: measure more sizes or "
                "repeats."
            )
        case "allowed" | "overruled":
            sentence = f"{measured}{_then(decided)}."
        case "worse":
            origin = shape.origin
            why = "" if origin is None else _then(_as_large_as(origin.multiple), origin.alive)
            sentence = (
                f"{measured}{why}{_then(decided)}. To do: {_search_shape(shape)}; the limit is "
                f"{finding.limit_place}."
            )
    return f"{finding.place.words}: {sentence}"


def _shape_in_words(shape: Shape) -> str:
    fit, found = shape.fit, shape.fit.growth_class
    what = FIELDS[shape.field].shape
    if found is GrowthClass.CEILING and fit.ceiling is not None:
        level = level_in_words(shape.over, fit.ceiling)
        return f"{what} over {shape.over} {level}, allowed is {shape.allowed}"
    name = "not flat" if found is GrowthClass.UNRESOLVED else found
    slope = f"{format_whole(fit.line.slope)} B per {fit.unit}"
    bend = (
        f"{format_bytes(fit.line.bend_bytes)} over "
        f"{sizes_in_words(fit.series.over, fit.sizes[0], fit.sizes[-1])}"
    )
    return (
        f"{what} over {shape.over} is {name} ({slope}; a curve through the runs dips below the "
        f"straight line by {bend}), allowed is {shape.allowed}"
    )


def _search_shape(shape: Shape) -> str:
    found = shape.fit.growth_class
    if found is GrowthClass.SUPERLINEAR:
        return (
            f"find what {shape.fit.phase} makes for each pair of them, or for all of them anew at "
            f"each {step_in_words(shape.over)}"
        )
    if found is GrowthClass.CEILING and shape.fit.ceiling is not None:
        return _fills(shape.fit)
    return _search(shape, shape.origin)


def _arithmetic(finding: Finding, arithmetic: Arithmetic) -> str:
    line, names = arithmetic.fit.line, arithmetic.declared
    found = (
        f"{slope_verb(arithmetic.field, arithmetic.largest_bytes)} {format_whole(line.slope)} B "
        f"per {arithmetic.fit.unit}; its {names} add up to {format_whole(arithmetic.expected)}, "
        f"within {arithmetic.within_percent:g} %"
    )
    rule = f"{_then(decision_of(finding))}. The rule is {finding.limit_place}."
    match arithmetic.state:
        case "more":
            origin = arithmetic.origin
            why = "" if origin is None else _then(_as_large_as(origin.multiple), origin.alive)
            beyond = "kept" if arithmetic.field == "retained" else "in use as well"
            sentence = (
                f"{found} was expected{why}; something beyond the {names} is {beyond}: find what "
                f"{arithmetic.fit.phase} makes beside them{rule}"
            )
        case "less":
            sentence = (
                f"{found} was expected; the meter did not see all of them: check what is declared "
                f"as {names}, and run {quoted(arithmetic.doctor)}{rule}"
            )
        case "unresolved":
            sentence = (
                f"unresolved: {found}, but the 95 % interval reaches "
                f"{format_whole(line.half_width)} to either side; measure more repeats or larger "
                "sizes."
            )
        case "as declared":
            sentence = f"{found}."
    return f"{finding.place.words}: {sentence}"


# Coverage: what the run has.


def _planned(_: Finding, planned: Planned) -> str:
    were = plural(planned.points, "point was", "points were")
    return f"{planned.points} {were} planned, the run has an end, and every row is usable."


def _one_run(finding: Finding, run: OneRun) -> str:
    sentence = "; ".join(run.missing) or "it has an end, and every phase that is required."
    return f"{finding.place.words}: {sentence}"


def _readings(finding: Finding, readings: Readings) -> str:
    if readings.first is None:
        return f"{finding.place.words}: it was read in all {readings.phases} phases."
    # Either the name is misspelt, or the meter of that name could not read.
    to_do = f"run: {readings.doctor}"
    if readings.known and readings.meter not in readings.known:
        to_do = f"name a meter that reads here: {nearest(readings.meter, readings.known)}"
    return (
        f"{finding.place.words}: it could not be judged in {readings.unreadable} of "
        f"{readings.phases} phases; first {readings.first.place}: "
        f"{_why_unreadable(readings.first)}. To do: {to_do}"
    )


def _why_unreadable(reading: Unreadable) -> str:
    match reading.quality:
        case None:
            return "no reading of it at all"
        case Quality.SAMPLED:
            gap = "unknown" if reading.largest_gap_s is None else f"{reading.largest_gap_s} s"
            return (
                f"sampled too coarsely to judge ({reading.samples} samples, largest gap {gap} of "
                f"{reading.duration_s:.3f} s)"
            )
        case quality:
            return f"{quality}: {reading.reason or 'no reason given'}"


def _no_such_point(finding: Finding, idle: NoSuchPoint) -> str:
    where = "".join(f", {name} {value}" for name, value in idle.where)
    renamed = f" (it planned {idle.renamed}; was the scenario renamed?)" if idle.renamed else ""
    return stopped(
        f"{finding.place.words}: this run planned no point of {' or '.join(idle.scenarios)}"
        f"{where}{renamed}; correct the rule{idle.or_less}"
    )


def _no_such_phase(finding: Finding, idle: NoSuchPhase) -> str:
    known = nearest(idle.phase, idle.known) if idle.known else "their runs entered none at all"
    return stopped(
        f"{finding.place.words}: no point that it is about has a phase {idle.phase}; {known}"
    )


def _idle_tolerance(finding: Finding, idle: IdleTolerance) -> str:
    missing = (
        f"the phase {idle.phase} in {idle.scenario}" if idle.phase else f"point of {idle.scenario}"
    )
    return stopped(
        f"{finding.place.words}: this run planned no {missing}; correct the tolerance{idle.or_less}"
    )


def _lost(finding: Finding, lost: Lost) -> str:
    renamed = (
        f" (was it renamed to {lost.renamed}, which the baseline does not have?)"
        if lost.renamed
        else ""
    )
    if lost.phase:
        return (
            f"{finding.place.words}: the baseline has its phase {lost.phase}, but it is no longer "
            f"measured{renamed}; measure it, or accept a run"
        )
    return (
        f"{finding.place.words}: the baseline has this point, but the run did not plan "
        f"it{renamed}; measure it, or {LESS_ON_PURPOSE}, or, where the point is gone for good, "
        f"{lost.forget}"
    )


# Outcomes.


_READ_LOG = "read the log of this run in logs/; nothing was measured, so nothing is judged"
_ADVICE: Mapping[Outcome, str] = {
    Outcome.DEVICE_OOM: (
        "find what fills the device in this phase, or change what the scenario expects"
    ),
    Outcome.HOST_OOM: (
        "find what fills the host's memory in this phase, or raise --memory-host-budget on purpose"
    ),
    Outcome.TIMED_OUT: "find what hangs or waits, or raise --memory-timeout on purpose",
    Outcome.CRASHED: _READ_LOG,
    Outcome.EXITED: _READ_LOG,
    Outcome.ERROR: (
        "fix the error (the log of this run in logs/ has the traceback), then measure again"
    ),
    Outcome.SKIPPED: "fix what made it skip, or leave the point out on purpose (-k)",
}
_BY_CAUSE: Mapping[str, str] = {
    OVER_MACHINE: (
        "end what else fills its memory, run fewer workers (-n), or measure where there is more; "
        "with a lower --memory-host-budget the run is ended sooner"
    ),
    **dict.fromkeys(
        ("refused", "limit", "bad_alloc", "kernel"),
        "find what fills the host's memory in this phase, or measure where there is more; "
        "--memory-host-budget did not end it",
    ),
}
"""Advice where host memory ended a run, and not the limit that the option sets."""
_WITHOUT_TRACEBACK = (
    "fix the error (the log of this run in logs/ has what was reported), then measure again"
)
_MAYBE_ENDED = frozenset({"preparation", "rows"})
"""Causes of errors that may be no exception of Python's: a preparation that was killed, rows that
could not be written."""
_SEE_ALIVE = (
    "see what was alive when memory ran out (the report has all of it), or change what the "
    "scenario expects"
)
_NOT_TRACED = (
    "what was alive is unknown, as no run was traced (leave out --memory-no-trace to trace one)"
)


def _ended(finding: Finding, end: Ended) -> str:
    if end.outcome is end.expected:
        return f"{finding.place.words}: ended {end.outcome}, as planned."
    where = f" in phase {end.phase}" if end.phase else ""
    sentence = (
        f"ended {end.outcome}{where} instead of {end.expected}: "
        f"{end.reason or 'no reason was recorded'}"
    )
    if end.outcome is Outcome.DEVICE_OOM:
        sentence = f"{sentence.rstrip('.')}; {end.alive or _NOT_TRACED}"
    return _with_votes(finding, f"{closed(sentence)} To do: {_advice(end)}.")


def _with_votes(finding: Finding, sentence: str) -> str:
    decided = decision_of(finding)
    votes = f" Of this point, {decided}." if decided else ""
    return f"{finding.place.words}: {closed(sentence) if votes else sentence}{votes}"


def _advice(end: Ended) -> str:
    if end.outcome is Outcome.DEVICE_OOM and end.saw_alive:
        return _SEE_ALIVE
    if end.outcome is Outcome.ERROR and end.cause in _MAYBE_ENDED:
        return _WITHOUT_TRACEBACK
    advice = _ADVICE[end.outcome]
    return _BY_CAUSE.get(end.cause, advice) if end.outcome is Outcome.HOST_OOM else advice


def _survived(finding: Finding, end: Survived) -> str:
    expected = f"ended ok instead of {end.expected}"
    budget = format_bytes(end.budget_bytes)
    peak = "" if end.peak_bytes is None else format_bytes(end.peak_bytes)
    if end.expected is not Outcome.DEVICE_OOM:
        sentence = f"{expected}: it did not show what it was planned for; look at the scenario"
    elif not peak:
        sentence = (
            f"{expected}, and {meter_words(end.meter)} was not read: nothing shows that the "
            "budget bound"
        )
    elif end.fits:
        sentence = (
            f"{expected}: its peak of {peak} now fits the budget of {budget}; lower the budget or "
            "change what the scenario expects"
        )
    else:
        sentence = (
            f"{expected}, with a peak of {peak} beyond its budget of {budget}: the budget was not "
            "enforced"
        )
    return _with_votes(finding, closed(sentence))


# Comparability with a baseline.


def _baseline_for(_: Finding, baseline: BaselineFor) -> str:
    return f"baseline: it is for {baseline.key}."


def _no_baseline(_: Finding, missing: NoBaseline) -> str:
    if not missing.nearest:
        near = "; the folder holds none at all"
    elif missing.differences:
        differences = "; ".join(missing.differences)
        near = f"; the nearest, {missing.nearest}, is not comparable: {differences}"
    else:
        near = f"; {missing.nearest} is for the same under another name: rename it back"
    return (
        f"there is no baseline for {missing.key} ({missing.path}){near}. To do: look at the run, "
        f"then {missing.accept}"
    )


def _other_counter(_: Finding, counter: OtherCounter) -> str:
    return stopped(
        f"{counter.point}: {meter_words(counter.meter)} was accepted from "
        f"{', '.join(counter.then)} and is read from {counter.now}, which count differently. "
        f"To do: {counter.accept}"
    )


def _mixed_counters(_: Finding, mixed: MixedCounters) -> str:
    return (
        f"{meter_words(mixed.meter)} was read from {' and '.join(mixed.counters)}, which count "
        "differently. To do: measure again with one driver."
    )


def _launchers(_: Finding, launchers: Launchers) -> str:
    meter = meter_words(launchers.meter)
    if not launchers.then:
        return (
            f"{meter} depends on how children start, and those of this run were started by "
            f"{launchers.now}. To do: measure again with --memory-isolation spawn."
        )
    return stopped(
        f"{meter} was accepted from children started by {', '.join(launchers.then)}, and now by "
        f"{launchers.now}. To do: {launchers.accept}"
    )


# The other code that was measured beside the run.


def _other_run(finding: Finding, other: OtherRun) -> str:
    how = f", with: {other.command}" if other.command else ""
    were = plural(other.count, "was", "were")
    sentence = {
        "unreadable": f"the run of the earlier code cannot be read: {other.detail}",
        "same rows": (
            f"it has the same rows as this run ({other.detail}), so that the run was compared "
            "with itself; name the run of the earlier code"
        ),
        "other machine": (
            f"it was measured on {other.then}, and this run on {other.now}; measure both on one "
            f"machine{how}"
        ),
        "points missing": (
            f"{_points(other.count)} of this run {were} not measured there, first {other.detail}"
        ),
        "incomplete": other.detail,
    }[other.why]
    place = finding.place.words
    return stopped(sentence if sentence.startswith(place) else f"{place}: {sentence}")


def _points(count: int) -> str:
    return f"{count} {plural(count, 'point')}"


def _unmeasured(finding: Finding, other: Unmeasured) -> str:
    sentence = (
        f"{finding.place.words}: {_points(other.count)} of {other.of} could not be measured there, "
        f"first {other.first}: {other.reason}. To do: if that code lacks what today's bodies use, "
        "compare with a later revision, or let the bodies do without it; else see "
        f"{other.logs}."
    )
    return " ".join(filter(None, [sentence, other.left_empty]))


def _wrong_code(_: Finding, wrong: WrongCode) -> str:
    sentence = {
        "elsewhere": (
            f"{wrong.point}, repeat {wrong.repeat}, {wrong.side}: it took "
            f"{', '.join(wrong.packages)} from {wrong.taken_from} instead of {wrong.asked_from}, "
            "so that it was not the code that was to be measured"
        ),
        "not imported": (
            f"{wrong.point}, {wrong.side}: its body does not import "
            f"{' or '.join(wrong.packages)}, so that both sides are the same for it; leave the "
            "point out with --memory-points, or name what it measures in memory_subject"
        ),
        "not recorded": (f"no run {wrong.side} says where its packages came from; measure again"),
        "same folder": (
            f"both sides took {', '.join(wrong.packages)} from {wrong.taken_from}, so that it was "
            "compared with itself"
        ),
    }[wrong.why]
    return stopped(sentence)


def _codes(_: Finding, codes: Codes) -> str:
    packages = ", ".join(codes.packages)
    if codes.same_content:
        sentence = (
            f"code: {packages} is the same {codes.then} and {codes.now}, file by file; nothing "
            "under test has changed."
        )
    else:
        sentence = (
            f"code: {packages} was measured {codes.now} and {codes.then} in turns, each from its "
            "own folder."
        )
    return " ".join(filter(None, [sentence, codes.left_empty]))


SENTENCES: Mapping[type, Callable[[Finding, Any], str]] = {
    Gap: _gap,
    Sentence: _sentence,
    Amount: _amount,
    Rise: _rise,
    Distance: _distance,
    NotCompared: _not_compared,
    NoFit: _no_fit,
    NotSwept: _not_swept,
    NoParameter: _no_parameter,
    Slope: _slope,
    Shape: _shape,
    Arithmetic: _arithmetic,
    Undeclared: _undeclared,
    Planned: _planned,
    OneRun: _one_run,
    Readings: _readings,
    NoSuchPoint: _no_such_point,
    NoSuchPhase: _no_such_phase,
    IdleTolerance: _idle_tolerance,
    Lost: _lost,
    Ended: _ended,
    Survived: _survived,
    BaselineFor: _baseline_for,
    NoBaseline: _no_baseline,
    OtherCounter: _other_counter,
    MixedCounters: _mixed_counters,
    Launchers: _launchers,
    OtherRun: _other_run,
    Unmeasured: _unmeasured,
    WrongCode: _wrong_code,
    Codes: _codes,
}
"""Every kind of sentence by the details that it is made of."""
