"""The only place that parses and prints amounts of bytes. IEC units: 1 MiB = 1024 * 1024 B (IEC
80000-13).
"""

import math
import re
from collections.abc import Sequence

from harness.errors import BytesError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_FACTORS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_LARGEST_FIRST = (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
_AMOUNT = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)\s*")
_DECIMAL_UNITS = {
    "KB": "KiB",
    "MB": "MiB",
    "GB": "GiB",
    "TB": "TiB",
    "K": "KiB",
    "M": "MiB",
    "G": "GiB",
    "T": "TiB",
}


def parse_bytes(text: str) -> int:
    """Bytes from a number with a unit.

    >>> parse_bytes("256MiB"), parse_bytes("1.5 GiB"), parse_bytes("4096 B")
    (268435456, 1610612736, 4096)

    Raises BytesError for anything else. Decimal and one-letter units are refused, because they mean
    different amounts to different people:

    >>> parse_bytes("256MB")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    harness.errors.BytesError: '256MB' has the unit MB; write B, KiB, MiB, ...
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise BytesError(
            f"{text!r} is not an amount of bytes; write a number and a unit, for example 256MiB"
        )
    unit = match["unit"]
    if unit not in _FACTORS:
        wanted = _DECIMAL_UNITS.get(unit.upper(), "MiB")
        raise BytesError(
            f"{text!r} has {f'the unit {unit}' if unit else 'no unit'}; "
            f"write B, KiB, MiB, GiB or TiB, for example {match['number']}{wanted}"
        )
    amount = float(match["number"]) * _FACTORS[unit]
    if amount != int(amount):
        raise BytesError(f"{text!r} is not a whole number of bytes; write it in a smaller unit")
    return int(amount)


def format_bytes(amount: float) -> str:
    """An amount for people; the exact value stays in the tables.

    >>> [format_bytes(amount) for amount in (0, 768, 4 * MIB, -1.5 * GIB)]
    ['0 B', '768 B', '4.0 MiB', '-1.5 GiB']
    """
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    for unit, factor in _LARGEST_FIRST:
        # 0.9995 of a unit already prints as 1.0 of it; the smaller unit would print 1024.0.
        if size >= 0.9995 * factor:
            return f"{sign}{size / factor:,.1f} {unit}"
    return f"{sign}{round(size):,} B"


def format_way(amounts: Sequence[int], *, gap_after: int | None = None) -> str:
    """Amounts one after the other in one unit, fine enough to differ.

    >>> format_way([4 * MIB, 4_299_162, 4_508_877])
    '4.00 -> 4.10 -> 4.30 MiB'
    >>> format_way([4 * MIB, 4 * MIB + 1])
    '4,194,304 -> 4,194,305 B'

    ``gap_after`` is how many are followed by an ellipsis, where some between were left out.
    """
    largest = max(abs(amount) for amount in amounts)
    unit, factor = next(
        ((unit, factor) for unit, factor in _LARGEST_FIRST if largest >= factor), ("B", 1)
    )
    texts = [f"{amount / factor:,.2f}" if factor > 1 else f"{amount:,}" for amount in amounts]
    if len(set(texts)) < len(set(amounts)):
        unit, texts = "B", [f"{amount:,}" for amount in amounts]
    if gap_after is not None:
        texts.insert(gap_after, "...")
    return f"{' -> '.join(texts)} {unit}"


def format_rate(bytes_per_item: float, item: str) -> str:
    """A slope for people, in plain bytes so that small limits stay readable.

    >>> format_rate(65_536.2, "image")
    '65,536 B/image'
    """
    return f"{format_whole(bytes_per_item)} B/{item}"


def format_whole(amount: float) -> str:
    """A rounded number without its unit, ``inf`` where there is no bound.

    >>> format_whole(65_536.2), format_whole(-0.2), format_whole(math.inf)
    ('65,536', '0', 'inf')
    """
    return f"{round(amount):,}" if math.isfinite(amount) else f"{amount:,.0f}"
