"""What rules say of an amount, field by field: what it is, where it came from, what becomes of it, and what to look for.

A field is one number of a phase; whether the memory behind it was there before, and whether it is still held at the end, its
own reading does not tell. The start, the peak and the end of the same runs do: every sentence is made of all three.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.units import format_bytes

_LEAST_SHARE = 0.05
"""Chosen: less than a twentieth is not worth a number."""
_BEFORE_THE_RUN = "there was before the run's first phase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What there was at the start, the peak and the end of a phase, in bytes; of a slope, what they come to at one size."""

    start: float
    peak: float
    end: float


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


def closed(sentence: str) -> str:
    """With one full stop at its end, or the question mark that it ends with."""
    said = sentence.rstrip(". ")
    return said if said.endswith(("?", "!")) else f"{said}."


def amount_in_words(field: str, amount_bytes: float) -> str:
    """``"keeps 4.0 MiB"``; of what was given back ``"ends with 4.0 MiB less than it began with"``."""
    words = FIELDS[field]
    return (words.below if amount_bytes < 0 else words.amount).format(amount=format_bytes(abs(amount_bytes)))


def slope_verb(field: str, largest_bytes: float) -> str:
    """What goes before so and so many bytes per image; ``largest_bytes`` is the amount at the largest size."""
    words = FIELDS[field]
    return words.slope_below if largest_bytes < 0 else words.slope


def whereabouts(field: str, edges: Edges | None, *, of: str = "of which") -> str:
    """Where the amount was before the phase, and where it is after it, as a clause; empty where nothing tells.

    ``of`` is what goes before a part of the amount.
    """
    if edges is None:
        return ""
    start, peak, end = edges.start, edges.peak, edges.end
    match field.removeprefix("net_"):
        case "start":
            return _fate(start, end, of)
        case "growth":
            return _fate(peak - start, end - start, of)
        case "retained":
            return "still held when the phase ends" if end > start else ""
        case "end":
            return _origin(end, start, of)
        case _:
            return _both(peak, start, end, of)


def search(field: str, edges: Edges | None, *, phase: str, first: bool, each: str = "") -> str:
    """What to look for, as an order: in the phase, or before it where the memory was there when the phase began.

    ``first`` says that no phase of the run is before it; ``each`` is what the amount grows with, ``"image"``.
    """
    per = f" for each {each}" if each else ""
    kind = field.removeprefix("net_")
    whole = 0.0 if edges is None else {"peak": edges.peak, "end": edges.end}.get(kind, 0.0)
    was_there = kind == "start" or (edges is not None and _part(whole, edges.start) is _ALL)
    if was_there and kind == "end":
        return f"find what still holds a reference{per} when {phase} ends, to what was made before it"
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


def leak_in_words(field: str, before: Edges, after: Edges, *, earlier: str, later: str) -> LeakWords:
    """Of a leak: was it there when the later phase began, did that phase keep it, or was it only more at once."""
    between = f"find what is made between {earlier} and {later}, and kept"
    kept = LeakWords(
        where=f"{later} keeps it",
        to_do=f"find what {later} keeps (a list, a cache, a function traced anew); if it goes on so, every further one adds that",
    )
    if field == "end":
        there = after.start - before.end
        rise = after.end - before.end
        if _part(rise, there) is _ALL:
            return LeakWords(where=f"it was there already when {later} began", to_do=between)
        if _part(rise, there) is _NONE:
            return kept
        where = f"{format_bytes(there)} of it was there already when {later} began, and {later} keeps the rest"
        return LeakWords(where=where, to_do=f"find what {later} keeps, and what is made between {earlier} and {later}")
    rise, there = after.peak - before.peak, after.start - before.start
    if _part(rise, there) is _ALL:
        kept_by_earlier = _part(there, before.end - before.start) is not _NONE
        to_do = f"find what {earlier} keeps" if kept_by_earlier else between
        return LeakWords(where=f"it was there already when {later} began", to_do=to_do)
    held = after.end - after.start
    if _part(rise, held) is _ALL and _part(rise, there) is _NONE:
        return kept
    ends = f"{later} began with {format_bytes(after.start)} and ends with {format_bytes(after.end)}"
    fate = f"nothing of it is kept ({ends})" if _part(rise, held) is _NONE else f"{format_bytes(held)} is kept ({ends})"
    some = "" if _part(rise, there) is _NONE else f"{format_bytes(there)} of it was there already when {later} began; of the rest "
    return LeakWords(
        where=f"{some}more is in use at once, and {fate}",
        to_do=f"find what {later} has more of at the same time than {earlier} (a batch made ahead, a copy)",
    )


_NONE, _SOME, _ALL = "none", "some", "all"


def _part(whole: float, part: float) -> str:
    """How much of the whole the part is: none, some or all of it, less than a twentieth aside."""
    if whole <= 0 or part <= _LEAST_SHARE * whole:
        return _NONE
    return _ALL if part >= (1 - _LEAST_SHARE) * whole else _SOME


def _origin(whole: float, start: float, of: str) -> str:
    if whole <= 0:
        return ""
    some = f"{of} {format_bytes(start)} were there already when the phase began"
    return {_ALL: "there already when the phase began", _NONE: "made in the phase", _SOME: some}[_part(whole, start)]


def _fate(whole: float, kept: float, of: str) -> str:
    if whole <= 0:
        return ""
    some = f"{of} {format_bytes(kept)} are still held when the phase ends"
    return {_ALL: "still held when the phase ends", _NONE: "given back before the phase ends", _SOME: some}[_part(whole, kept)]


def _both(peak: float, start: float, end: float, of: str) -> str:
    """Of a peak: where it was before, and what becomes of it."""
    if peak <= 0:
        return ""
    kept = _part(peak, end)
    if _SOME not in (kept, _part(peak, start)):
        return f"{_origin(peak, start, of)} and {'still held when it ends' if kept is _ALL else 'given back before it ends'}"
    some = f"{format_bytes(end)} of it are still held when it ends"
    fate = {_ALL: "all of it is still held when it ends", _NONE: "all of it is given back before it ends", _SOME: some}[kept]
    return f"{_origin(peak, start, of)}; {fate}"
