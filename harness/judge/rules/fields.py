"""What sentences say of an amount, field by field: what it is, where it came from, what becomes of
it, and what to look for.

A field is one number of a phase, and does not show how much there was before, or at the end. The
start, the peak and the end of the same runs do, so that every sentence is made of all three. They
are amounts: they do not show whether it is the same memory, so that no sentence says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.judge.rules.findings import Edges
from harness.words import format_bytes

_LEAST_SHARE = 0.05
"""Chosen: less than a twentieth is not worth a number."""
_BEFORE_THE_RUN = "there was before the run's first phase"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldWords:
    """The words of one field."""

    amount: str
    """Of one run, for a budget, a floor and a baseline."""
    below: str
    """The same where the amount is below 0."""
    slope: str
    """Before so and so many bytes per image; of slopes and arithmetic."""
    slope_below: str
    """The same where the amounts themselves are below 0: what is given back becomes less."""
    shape: str
    """What has a class of growth."""
    search: str
    """What to look for in the phase."""
    search_each: str = ""
    """The same of what grows with each image, where it is said in other words."""


_HELD = "find what still holds a reference when {phase} ends{each}"
_ALIVE = "find what is alive at the peak of {phase}{each}"
FIELDS: Mapping[str, FieldWords] = {
    "start": FieldWords(
        amount="begins with {amount}",
        below="begins with {amount} less than nothing",
        slope="what it begins with rises by",
        slope_below="what it begins with rises by",
        shape="what it begins with",
        search="find what is there before {phase} begins{each}",
    ),
    "peak": FieldWords(
        amount="peaks at {amount}",
        below="peaks at {amount} less than nothing",
        slope="its peak rises by",
        slope_below="its peak rises by",
        shape="its peak",
        search=_ALIVE,
    ),
    "end": FieldWords(
        amount="ends with {amount}",
        below="ends with {amount} less than nothing",
        slope="what it ends with rises by",
        slope_below="what it ends with rises by",
        shape="what it ends with",
        search=_HELD,
    ),
    "growth": FieldWords(
        amount="grows by {amount}",
        below="never has more than it began with, {amount} less at most",
        slope="grows by",
        slope_below="grows by",
        shape="growth",
        search="find what {phase} allocates",
        search_each="find what {phase} makes{each}",
    ),
    "retained": FieldWords(
        amount="keeps {amount}",
        below="ends with {amount} less than it began with",
        slope="keeps",
        slope_below="gives back less by",
        shape="what it keeps",
        search="find what {phase} keeps{each}",
    ),
    "net_start": FieldWords(
        amount=f"begins, over what {_BEFORE_THE_RUN}, with {{amount}}",
        below=f"begins with {{amount}} less than {_BEFORE_THE_RUN}",
        slope=f"what there is when it begins, over what {_BEFORE_THE_RUN}, rises by",
        slope_below=f"what there is when it begins, over what {_BEFORE_THE_RUN}, rises by",
        shape=f"what there is when it begins, over what {_BEFORE_THE_RUN},",
        search="find what is there before {phase} begins{each}",
    ),
    "net_peak": FieldWords(
        amount=f"peaks, over what {_BEFORE_THE_RUN}, at {{amount}}",
        below=f"peaks at {{amount}} less than {_BEFORE_THE_RUN}",
        slope=f"its peak, over what {_BEFORE_THE_RUN}, rises by",
        slope_below=f"its peak, over what {_BEFORE_THE_RUN}, rises by",
        shape=f"its peak, over what {_BEFORE_THE_RUN},",
        search=_ALIVE,
    ),
    "net_end": FieldWords(
        amount=f"ends, over what {_BEFORE_THE_RUN}, with {{amount}}",
        below=f"ends with {{amount}} less than {_BEFORE_THE_RUN}",
        slope=f"what it ends with, over what {_BEFORE_THE_RUN}, rises by",
        slope_below=f"what it ends with, over what {_BEFORE_THE_RUN}, rises by",
        shape=f"what it ends with, over what {_BEFORE_THE_RUN},",
        search=_HELD,
    ),
}
"""By the field as the policy names it."""


def amount_in_words(field: str, amount_bytes: float) -> str:
    """``"keeps 4.0 MiB"``; of what was given back ``"ends with 4.0 MiB less than it began
    with"``.
    """
    words = FIELDS[field]
    return (words.below if amount_bytes < 0 else words.amount).format(
        amount=format_bytes(abs(amount_bytes))
    )


def slope_verb(field: str, largest_bytes: float) -> str:
    """What goes before so and so many bytes per image; ``largest_bytes`` is the amount at the
    largest size.
    """
    words = FIELDS[field]
    return words.slope_below if largest_bytes < 0 else words.slope


def beside(field: str, edges: Edges | None) -> str:
    """What there was at the other edges of the phase, as a clause about one run; empty where there
    is nothing to add.

    Edges are amounts: they do not show which memory was given back, what was there first or what
    came later, and no word here says so.
    """
    if edges is None:
        return ""
    start, peak, end = edges.start, edges.peak, edges.end
    it = "over the same, it" if field.startswith("net_") else "it"
    match field.removeprefix("net_"):
        case "start" if start > 0:
            return f"{it} ends with {_amount(end)}"
        case "peak" if peak > 0:
            return f"{it} begins with {_amount(start)} and ends with {_amount(end)}"
        case "end" if end > 0:
            return f"{_than(end - start)} it began with"
        case "growth" if peak > start:
            return f"it ends with {_than(end - start)} it began with"
        case _:
            return ""


def at_edges(field: str, edges: Edges | None) -> str:
    """The same of what grows with the data: at which edge the amount was, and what it is at the
    others; with a leading space.
    """
    if edges is None:
        return ""
    start, peak, end = edges.start, edges.peak, edges.end
    match field.removeprefix("net_"):
        case "start" if start > 0:
            return f" when the phase begins, and {_amount(end)} when it ends"
        case "peak" if peak > 0:
            return f" at its peak, {_amount(start)} when it begins and {_amount(end)} when it ends"
        case "end" if end > 0:
            return f" when the phase ends, and {_amount(start)} when it begins"
        case "growth" if peak > start:
            return f" at its peak; when the phase ends it is {_than(end - start)} when it began"
        case _:
            return ""


def search(field: str, edges: Edges | None, *, phase: str, first: bool, each: str = "") -> str:
    """What to look for, as an order: in the phase, or before it where as much was there when the
    phase began.

    ``first`` says that no phase of the run is before it; ``each`` is what the amount grows with,
    ``"image"``.
    """
    per = f" for each {each}" if each else ""
    kind = field.removeprefix("net_")
    was_there = kind == "start" or (
        kind == "peak" and edges is not None and _part(edges.peak, edges.start) is _ALL
    )
    if was_there and first:
        return f"find what is allocated{per} before {phase} begins, outside of every phase"
    if was_there:
        return f"find what the phases before {phase} keep{per}, or what is made between them"
    words = FIELDS[field]
    return ((each and words.search_each) or words.search).format(phase=phase, each=per)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakWords:
    """What a rise from one phase to the next that did the same comes from, and what to look for."""

    where: str
    to_do: str


def rise_in_words(
    field: str, steps: Sequence[tuple[str, str]], edges: Sequence[tuple[Edges, Edges]]
) -> LeakWords | None:
    """Of a leak over one or several steps; None where no edges are known.

    By the edges of all the phases; of peaks, by those of the step that rises least, which is the
    one that decides.
    """
    if not edges:
        return None
    if field == "end" and len(steps) > 1:
        return leak_of_every_step(steps, edges)
    least = min(range(len(steps)), key=lambda step: edges[step][1].peak - edges[step][0].peak)
    (before, after), (earlier, later) = edges[least], steps[least]
    return leak_in_words(field, before, after, earlier=earlier, later=later)


def leak_in_words(
    field: str, before: Edges, after: Edges, *, earlier: str, later: str
) -> LeakWords:
    """Of a leak: was as much there when the later phase began, did that phase keep it, or was it
    only more at once.
    """
    if field == "end":
        return _leak_at_end(before, after, earlier=earlier, later=later)
    rise, there = after.peak - before.peak, after.start - before.start
    if _part(rise, there) is _ALL:
        kept_by_earlier = _part(there, before.end - before.start) is not _NONE
        to_do = f"find what {earlier} keeps" if kept_by_earlier else _between(earlier, later)
        return LeakWords(where=_in_use_already(later), to_do=to_do)
    held = after.end - after.start
    if _part(rise, held) is _ALL and _part(rise, there) is _NONE:
        return LeakWords(where=f"{later} keeps as much", to_do=_keeps(later))

    some = (
        ""
        if _part(rise, there) is _NONE
        else f"{format_bytes(there)} more were in use when {later} began; "
    )
    edges = (
        f"{later} began with {format_bytes(after.start)} and ends with {format_bytes(after.end)}"
    )
    return LeakWords(
        where=f"{some}more is in use at once ({edges})",
        to_do=f"find what {later} has more of at the same time than {earlier} (a batch made "
        "ahead, a copy)",
    )


def _leak_at_end(before: Edges, after: Edges, *, earlier: str, later: str) -> LeakWords:
    there, rise = after.start - before.end, after.end - before.end
    if _part(rise, there) is _ALL:
        return LeakWords(where=_in_use_already(later), to_do=_between(earlier, later))
    if _part(rise, there) is _NONE:
        return LeakWords(where=f"{later} keeps it", to_do=_keeps(later))
    where = (
        f"{format_bytes(there)} more were in use when {later} began, and {later} keeps "
        f"{format_bytes(rise - there)}"
    )
    return LeakWords(
        where=where,
        to_do=f"find what {later} keeps, and what is made between {earlier} and {later}",
    )


def _in_use_already(later: str) -> str:
    return f"as much more was in use already when {later} began"


def _between(earlier: str, later: str) -> str:
    return f"find what is made between {earlier} and {later}, and kept"


def _keeps(later: str) -> str:
    return (
        f"find what {later} keeps (a list, a cache, a function traced anew); if it goes on so, "
        "every further one adds that"
    )


def leak_of_every_step(
    steps: Sequence[tuple[str, str]], ends: Sequence[tuple[Edges, Edges]]
) -> LeakWords:
    """Of a leak in every step from phase to phase, by what all of them end with: the phases keep
    it, or it comes between them.

    ``ends`` are the edges of the earlier and the later phase of each of the ``steps``.
    """
    first, last = steps[0][1], steps[-1][1]
    inside = sum(after.end - after.start for _, after in ends)
    between = sum(after.start - before.end for before, after in ends)
    many = f"{first} to {last}" if len(steps) > 2 else f"{first} and {last}"
    made_between = f"what is made between {steps[0][0]} and {last}, outside of them"
    if _part(inside + between, inside) is _NONE:
        where = _where_between(many, between, ends)
        return LeakWords(where=where, to_do=f"find {made_between}, and kept")
    if _part(inside + between, between) is _NONE:
        to_do = (
            f"find what {many} keep (a list, a cache, a function traced anew); if it goes on "
            "so, every further one adds as much"
        )
        return LeakWords(where=_where_inside(many, inside, ends), to_do=to_do)
    where = (
        f"{many} keep {format_bytes(inside)} in all, and {format_bytes(between)} more come "
        "between the phases"
    )
    return LeakWords(where=where, to_do=f"find what {many} keep, and {made_between}")


def _where_between(many: str, between: float, ends: Sequence[tuple[Edges, Edges]]) -> str:
    if all(
        _part(after.end - before.end, after.start - before.end) is _ALL for before, after in ends
    ):
        return f"as much more was in use already when each of {many} began"
    return (
        f"{many} began with {format_bytes(between)} more in all than the phases before them "
        "ended with"
    )


def _where_inside(many: str, inside: float, ends: Sequence[tuple[Edges, Edges]]) -> str:
    if all(
        _part(after.end - before.end, after.end - after.start) is _ALL for before, after in ends
    ):
        return f"each of {many} keeps about as much or more"
    return f"{many} keep {format_bytes(inside)} in all"


_NONE, _SOME, _ALL = "none", "some", "all"


def _part(total: float, part: float) -> str:
    """How much of the total the part is: none, some or all of it, less than a twentieth aside."""
    if total <= 0 or part <= _LEAST_SHARE * total:
        return _NONE
    return _ALL if part >= (1 - _LEAST_SHARE) * total else _SOME


def _amount(amount_bytes: float) -> str:
    """Of an edge; over what there was before the first phase it may be less than nothing."""
    less = " less than nothing" if round(amount_bytes) < 0 else ""
    return f"{format_bytes(abs(amount_bytes))}{less}"


def _than(difference_bytes: float) -> str:
    """``"2.0 MiB less than"``, ``"as much as"``."""
    if round(difference_bytes) == 0:
        return "as much as"
    return (
        f"{format_bytes(abs(difference_bytes))} {'more' if difference_bytes > 0 else 'less'} than"
    )
