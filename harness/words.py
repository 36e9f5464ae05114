"""Words that several parts write alike: names in order and names that were misspelt, counts,
tables of plain text, and allocated tensors.

Nothing here knows what it is used for.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import BytesError, UsageError

# The only place that parses and prints amounts of bytes. IEC units: 1 MiB = 1024 * 1024 B (IEC
# 80000-13).


KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_FACTORS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_LARGEST_FIRST = (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
_AMOUNT = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)\s*")
_MEANT = {
    spelt: unit
    for unit in _FACTORS
    for spelt in (unit.upper(), unit.upper().replace("I", ""), unit[0])
}
"""What somebody means who writes KB, K or kib, in capitals."""


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
        meant = _MEANT.get(unit.upper(), "")
        if meant and meant.upper() == unit.upper():
            raise BytesError(f"{text!r} has the unit {unit}; write {match['number']}{meant}")
        raise BytesError(
            f"{text!r} has {f'the unit {unit}' if unit else 'no unit'}; "
            f"write B, KiB, MiB, GiB or TiB, for example {match['number']}{meant or 'MiB'}"
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


_MOST_SHOWN = 8
"""Names of a folder that a sentence lists. Chosen: one line."""
MOST_BYTES = 160
"""Of a point's name. Chosen: a file's name may have 255 bytes on the common file systems
(NAME_MAX), the longest addition to a point's name is that of a half-written file, about 30, and the
rest is room for other programs."""
MOST_PHASE_CHARACTERS = 100
"""Of the name of a phase. Chosen: a terminal's line with a point before it and amounts after it can
still be read."""
_DIGEST_CHARACTERS = 10
"""Chosen: 40 bits, enough for the points of one run."""

COPY_TO_CARD = "copy to the card"
"""Stands where an operation is named: TensorFlow names a copy by whatever operation wanted the
tensor on the card."""
ALIVE = "the largest that were alive: "
"""Begins the clause that names what was alive when the device's memory was refused."""
MOST_NAMED = 3
"""Groups of tensors that a sentence names; the trace has all of them. Chosen."""
SMALL_SHARE = 0.01
"""Chosen: less than a hundredth of all that is alive is not named, and a request for less than a
hundredth of the device is not why it is full."""
_RANGE_IN_USE = re.compile(r"between \S+ \S+ and \S+ \S+ of (\S+ \S+) were in use")

# Names and counts.


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts numbers in a name by their value.

    >>> sorted(["image_count=1000", "image_count=500"], key=natural)
    ['image_count=500', 'image_count=1000']
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple(
        (0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in parts
    )


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The end of a sentence about an unknown name: the known one that was meant, or else all.

    >>> nearest("epok", ["construct", "epoch"])
    "did you mean 'epoch'?"
    >>> nearest("train", ["construct", "epoch"])
    'known are construct, epoch'
    """
    names = list(dict.fromkeys(known))
    near = closest(word, names, cutoff=cutoff)
    return f"did you mean {near!r}?" if near else f"known are {', '.join(names) or 'none'}"


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known name that is most like ``word``; empty where none is alike.

    ``cutoff`` is the least likeness, from 0 to 1 (difflib's ratio).

    >>> closest("epok", ["construct", "epoch"]), closest("train", ["construct", "epoch"])
    ('epoch', '')
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), "")


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number and its noun; ``nouns`` is the plural where an s is not enough.

    >>> count(1, "run"), count(1024, "run"), count(2, "process", "processes")
    ('1 run', '1,024 runs', '2 processes')
    """
    return f"{number:,} {plural(number, noun, nouns)}"


def plural(number: int, noun: str, nouns: str = "") -> str:
    """The noun, or any other word, that goes with a number.

    >>> plural(1, "run"), plural(0, "run"), plural(2, "was", "were")
    ('run', 'runs', 'were')
    """
    return noun if number == 1 else nouns or f"{noun}s"


def columns_of(parameters: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """A column for each parameter: its own name, or ``parameter_NAME`` where the table has a column
    of that name already.

    >>> columns_of(["image_count", "phase"], taken=["phase", "meter"])
    {'image_count': 'image_count', 'phase': 'parameter_phase'}
    """
    return {name: name if name not in taken else f"parameter_{name}" for name in parameters}


def existing_folder(path: Path, option: str) -> Path:
    """The folder that the user named with ``option``. Raises UsageError where it is none, with the
    nearest that exists.
    """
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{option} {path} is a file; name a folder")
    raise UsageError(f"{option} {path} is not there; {nearest_path(path)}")


def nearest_path(path: Path) -> str:
    """The end of a sentence about a path that does not exist: ``"did you mean artifacts/run?"``, or
    what its folder holds.
    """
    parent = next((place for place in path.parents if place.is_dir()), None)
    if parent is None:
        return "name one that is"
    missing, *rest = path.relative_to(parent).parts
    try:
        beside = sorted(place.name for place in parent.iterdir() if not place.name.startswith("."))
    except OSError:
        beside = []
    for near in difflib.get_close_matches(missing, beside, n=3, cutoff=0.6):
        if (found := parent.joinpath(near, *rest)).exists():
            return f"did you mean {found}?"
    where = "this folder" if parent == Path() else str(parent)
    shown = ", ".join(beside[:_MOST_SHOWN]) + (", ..." if len(beside) > _MOST_SHOWN else "")
    return f"{where} holds {shown or 'nothing'}"


# Texts of the user's as parts of names: on one line, and short enough for the name of a file.


def file_stem(name: str) -> str:
    """The name of the files of a point: its own, with a digest where it has slashes, which would
    make folders.

    >>> file_stem("load-lazy"), file_stem("load-a/b")
    ('load-lazy', 'load-a_b-d7001daf5e')
    """
    return (
        name
        if "/" not in name
        else f"{name.replace('/', '_')}-{_digest(name.encode('utf-8', 'surrogatepass'))}"
    )


def phase_name(name: object) -> str:
    """The name of a phase as a plain text. Raises UsageError for what is no text, is empty, has
    several lines, or is longer than MOST_PHASE_CHARACTERS.

    >>> phase_name("construct")
    'construct'
    """
    if not isinstance(name, str):
        text = "" if name is None or isinstance(name, bytes | list | dict) else str(name)
        example = repr(
            text if text.isprintable() and 0 < len(text) <= MOST_PHASE_CHARACTERS else "construct"
        )
        raise UsageError(
            f"the name of a phase is a text, and {_shown(name)} is none; write "
            f"memory.phase({example})"
        )
    plain = str.__str__(name)
    if not plain.strip():
        raise UsageError(
            f"the name of a phase is {plain!r}, which nobody can read; write one, as "
            "memory.phase('construct')"
        )
    if not plain.isprintable():
        raise UsageError(
            f"the name of a phase, {_shown(plain)}, has a line break, a tab or another "
            "character that cannot be shown; leave it out"
        )
    if len(plain) > MOST_PHASE_CHARACTERS:
        raise UsageError(
            f"the name of a phase, {_shown(plain)}, has {len(plain)} characters; write one "
            f"of {MOST_PHASE_CHARACTERS} at most"
        )
    return plain


def _shown(value: object) -> str:
    text = repr(value)
    return (
        text if len(text) <= MOST_PHASE_CHARACTERS else f"{text[: MOST_PHASE_CHARACTERS - 4]} ..."
    )


def one_line(text: str) -> str:
    r"""The text with line breaks, tabs and control characters written as Python's escapes.

    Backslashes are doubled, so that two texts never look alike.

    >>> print(one_line("a\tb"), one_line(r"a\tb"))
    a\tb a\\tb
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
        for char in text
    )


def shortened(text: str, most_bytes: int = MOST_BYTES) -> str:
    """The text if it has at most ``most_bytes`` bytes in UTF-8, else its beginning and a digest of
    all of it.

    >>> shortened("load-lazy", 20), shortened("x" * 40, 20)
    ('load-lazy', 'xxxxxxxxx-bd913ff682')
    """
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= most_bytes:
        return text
    # A character that is cut in two is left out.
    beginning = encoded[: most_bytes - _DIGEST_CHARACTERS - 1].decode("utf-8", "ignore")
    return f"{beginning}-{_digest(encoded)}"


def _digest(encoded: bytes) -> str:
    import hashlib  # loads OpenSSL, which no child should have in its memory for nothing

    return hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]


# Tables of plain text, for terminals and for the repr of results.


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 2
) -> Iterator[str]:
    """The lines of a table. The first ``words`` columns are words, set to the left, all others
    amounts, set to the right.

    >>> list(text_table(["phase", "peak"], [["epoch", "4.0 MiB"]], words=1))
    ['phase     peak', 'epoch  4.0 MiB']
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


# Allocated tensors in words, the same in a child's reason and in what the gate says of a trace.


def tensors_in_words(
    *, op: str, shape: str, dtype: str, count: int, total_bytes: int, like: str
) -> str:
    """What ``count`` tensors of one operation are; of an operation inside a function, the end of
    its path.

    ``shape`` is TensorFlow's text; texts are empty where it named nothing. ``like`` is what one of
    the tensors is as large as. Without an operation it is as ``without_operation``.

    >>> tensors_in_words(op="while/body/Cast", shape="[500,64,64,4]", dtype="float32", count=1,
    ...                  total_bytes=32_768_000, like="1.00 x Y")
    'body/Cast (500, 64, 64, 4) float32, 31.2 MiB, 1.00 x Y'
    """
    sizes = shape.strip("[]").replace(",", ", ")
    if not op:
        return without_operation(
            shape=shape, dtype=dtype, count=count, each_bytes=total_bytes // count, like=like
        )
    what = " ".join(
        part
        for part in ("/".join(op.split("/")[-2:]), f"({sizes})" if sizes else "", dtype)
        if part
    )
    times, each = (f"{count:,} x ", " each") if count > 1 else ("", "")
    return f"{times}{what}, {format_bytes(total_bytes)}{f', {like}{each}' if like else ''}"


def without_operation(*, shape: str, dtype: str, count: int, each_bytes: int, like: str) -> str:
    """Allocations that TensorFlow put no operation to.

    Arrays that become tensors are such, and what an iterator or a kernel takes for itself: which of
    them is unknown.

    >>> without_operation(shape="", dtype="", count=16, each_bytes=262_144, like="1.00 x batch")
    '16 x 256 KiB without an operation, each 1.00 x batch'
    """
    sizes = shape.strip("[]").replace(",", ", ")
    tensor = " ".join(part for part in (f"({sizes})" if sizes else "", dtype) if part)
    times, each = (f"{count:,} x ", "each ") if count > 1 else ("", "")
    size = format_bytes(each_bytes).replace(".0 ", " ")
    return (
        f"{times}{size}{f' of {tensor}' if tensor else ''} without an "
        f"operation{f', {each}{like}' if like else ''}"
    )


def largest_in_words(
    groups: Sequence[tuple[str, int, int]], *, beside: Sequence[tuple[str, int, int]] = ()
) -> str:
    """The largest of ``groups`` (words, number, total in bytes) by their own totals, and how much
    all others are together.

    Up to MOST_NAMED are named; after the first, none below SMALL_SHARE of all. What was alive
    ``beside`` them is among the others, and never named.

    >>> largest_in_words([("A", 1, 4_096_000), ("B", 1, 1_024_000), ("C", 12, 3_072)])
    'A; B; and 12 others, 3.0 KiB together'
    """
    ranked = sorted(groups, key=lambda group: (-group[2], group[0]))
    least_bytes = SMALL_SHARE * sum(total for *_, total in [*ranked, *beside])
    named = [*ranked[:1], *(group for group in ranked[1:MOST_NAMED] if group[2] >= least_bytes)]
    others = [*ranked[len(named) :], *beside]
    number, total = sum(one[1] for one in others), format_bytes(sum(one[2] for one in others))
    more = f"and {number:,} others, {total} together" if number > 1 else f"and one other, {total}"
    return "; ".join([*(words for words, *_ in named), *([more] if number else [])])


def range_in_use(in_use_bytes: int, peak_bytes: int, limit_bytes: int) -> str:
    """How much was in use, where the error freed some of it before anybody could look.

    >>> range_in_use(1024, 2048, 4096)
    'between 1.0 KiB and 2.0 KiB of 4.0 KiB were in use'
    """
    return (
        f"between {format_bytes(in_use_bytes)} and {format_bytes(peak_bytes)} of "
        f"{format_bytes(limit_bytes)} were in use"
    )


def with_known_use(reason: str, in_use_bytes: int) -> str:
    """A reason whose range of what was in use, where it has one, is replaced by what a traced run
    of the same point saw.

    >>> with_known_use("between 1.0 KiB and 2.0 KiB of 4.0 KiB were in use", 1536)
    '1.5 KiB of 4.0 KiB were in use (by the traced run)'
    """
    return _RANGE_IN_USE.sub(
        rf"{format_bytes(in_use_bytes)} of \1 were in use (by the traced run)", reason
    )


def handed_out(asked_bytes: int, in_use_bytes: int, limit_bytes: int | None) -> str:
    """Why a full device refused even a little, as the end of a sentence; empty where it is not
    full, or much was asked for.

    TensorFlow's BFC allocator hands out a piece of its pool undivided unless it is twice as large
    as the request, or 128 MiB larger (bfc_allocator.cc). A scalar is refused then, though it took
    no part in filling the device.
    """
    if (
        limit_bytes is None
        or asked_bytes >= limit_bytes * SMALL_SHARE
        or in_use_bytes + asked_bytes <= limit_bytes
    ):
        return ""
    return (
        ": the pool had been handed out (a large tensor may be given the rest of it, where "
        "that is less than its own size)"
    )


# An amount as a multiple of the arrays that a body declared.


MATCH_SHARE = 0.01
"""Chosen: an amount within 1 % of a multiple is called that multiple; arrays of a scenario differ
by far more, and an allocator rounds by far less."""
MOST_MULTIPLES = 16
"""Chosen: beyond it a whole multiple of something small is found in any amount."""
_MOST_NAMES = 3
_MOST_SECOND = 3
"""Chosen: a second way to make up the amount is named up to so many times an array; an image is
always some frames."""


def as_multiple(
    amount_bytes: float,
    units: Mapping[str, float],
    *,
    within: float = 0.0,
    most: int = MOST_MULTIPLES,
) -> str:
    """``"2.00 x X"``: the smallest whole multiple of a declared array that the amount is near;
    empty where there is none.

    ``units`` are bytes by name, those that say most first: equals are named together, ``"1.00 x X
    (or Y_I)"``, and a small multiple of another one beside it, ``"1.00 x Y or 2.00 x X"``: sizes
    alone do not show which of them it is. ``within`` is how many bytes the amount is uncertain by,
    where that is more than ``MATCH_SHARE``; ``most`` is the largest multiple that is looked for.

    >>> as_multiple(8192, {"X": 4096, "Y": 8192})
    '1.00 x Y or 2.00 x X'
    """
    found: dict[int, list[tuple[float, str]]] = {}
    for name, unit_bytes in units.items():
        ratio = amount_bytes / unit_bytes if unit_bytes > 0 else 0.0
        whole = round(ratio)
        if 1 <= whole <= most and abs(ratio - whole) * unit_bytes <= max(
            MATCH_SHARE * whole * unit_bytes, within
        ):
            found.setdefault(whole, []).append((ratio, name))
    if not found:
        return ""
    smallest, *others = sorted(found)
    named = [smallest, *(whole for whole in others[:1] if whole <= _MOST_SECOND)]
    return f"{'about ' if within else ''}{' or '.join(_multiple(found[whole]) for whole in named)}"


def _multiple(alike: Sequence[tuple[float, str]]) -> str:
    (ratio, first), *others = alike
    more = f" (or {', '.join(name for _, name in others[: _MOST_NAMES - 1])})" if others else ""
    return f"{ratio:.2f} x {first}{more}"
