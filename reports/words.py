"""The words people read beside the numbers: names of meters, amounts with their kind, reasons where
nothing was read.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

import pandas as pd

from harness.judge import Bound, ExitCode, FindingKind, Verdict
from harness.meters import meter_words
from harness.records import Quality
from harness.words import format_bytes, format_rate

EXIT_WORDS: Mapping[ExitCode, str] = MappingProxyType(
    {
        ExitCode.PASS: "Pass",
        ExitCode.REGRESSION: "Regression",
        ExitCode.USAGE: "Not usable as asked",
        ExitCode.INCOMPLETE: "Incomplete",
        ExitCode.NO_BASELINE: "No baseline",
        ExitCode.IMPROVEMENT: "Better than the baseline",
    }
)
"""What each exit code says in one or two words; the colour of the page repeats it, and never says
it alone."""


_KIND_WORDS: Mapping[FindingKind, str] = MappingProxyType(
    {FindingKind.FAILED: "Failed", FindingKind.MOVED: "Moved, not better"}
)
"""Kinds of findings that share an exit code with a graver or a better one, and are called by a word
of their own."""
_BOUND_WORDS: Mapping[Bound, str] = MappingProxyType(
    {"upper": "at most {} allowed", "lower": "at least {} expected", "": "{}"}
)


def verdict_word(verdict: Verdict) -> str:
    """The verdict in one to three words, by its gravest finding."""
    kind = verdict.findings[0].finding if verdict.findings else None
    return (kind and _KIND_WORDS.get(kind)) or EXIT_WORDS[verdict.exit_code]


def limit_in_words(limit: str, bound: Bound) -> str:
    """A limit with its side; empty where there is none.

    >>> limit_in_words("5.2 MiB", "upper")
    'at most 5.2 MiB allowed'
    """
    return _BOUND_WORDS[bound].format(limit) if limit else ""


def meter_name(meter: str) -> str:
    """The name of a meter for people, as the checks have it."""
    return plain(meter_words(meter))


def plain(word: str) -> str:
    """An identifier as words.

    >>> plain("first_batch")
    'first batch'
    """
    return word.replace("_", " ")


def unavailable(reason: str) -> str:
    """What stands in the place of a number that could not be read.

    >>> unavailable("there is no card to ask")
    'unavailable, because there is no card to ask'
    """
    return f"unavailable, because {reason.strip() or 'no reason was recorded'}"


def known(value: object) -> bool:
    """Whether a cell of a table holds a value at all."""
    return value is not None and value is not pd.NA and value == value  # noqa: PLR0124 - NaN is not equal to itself


def amount(value: object, *, otherwise: str = "unavailable") -> str:
    """An amount of bytes for people, or ``otherwise`` where none is known; never 0 for unknown."""
    return format_bytes(round(float(str(value)))) if known(value) else otherwise


def rate(bytes_per_item: float, item: str) -> str:
    """A slope in whole bytes; what rounds to nothing has no sign.

    >>> rate(65_536.2, "image"), rate(-0.2, "image")
    ('65,536 B/image', '0 B/image')
    """
    return format_rate(round(bytes_per_item), item)


def peak(peak_bytes: object, peak_bound_bytes: object, quality: str) -> str:
    """A peak, with its upper bound where it is only bounded.

    >>> peak(12_687_770, 12_897_485, "bounded")
    '12.1 MiB, at most 12.3 MiB'
    """
    text = amount(peak_bytes)
    if quality != Quality.BOUNDED or not known(peak_bound_bytes):
        return text
    bound = amount(peak_bound_bytes)
    return text if bound == text else f"{text}, at most {bound}"


def kind_of_number(quality: str, samples: object = None, largest_gap_s: object = None) -> str:
    """``exact``, ``bounded`` or ``sampled``, the last with how finely."""
    if quality != Quality.SAMPLED or not known(samples):
        return quality
    gap = (
        f", largest gap {float(str(largest_gap_s)) * 1000:,.0f} ms" if known(largest_gap_s) else ""
    )
    return f"{quality} ({int(str(samples)):,} samples{gap})"


def time_taken(started: str, ended: str | None) -> str:
    """How long a run took, by two times in ISO 8601; empty where one of them is no such time.

    >>> time_taken("2026-01-01T00:00:00+00:00", "2026-01-01T00:01:48+00:00")
    '1 min 48 s'
    """
    try:
        return duration(datetime.fromisoformat(str(ended)) - datetime.fromisoformat(started))
    except (TypeError, ValueError):
        return ""


def duration(lasted: timedelta) -> str:
    """``"3 min 41 s"``.

    >>> duration(timedelta(seconds=221)), duration(timedelta(hours=2, minutes=5))
    ('3 min 41 s', '2 h 5 min')
    """
    seconds = round(lasted.total_seconds())
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
