"""Names in order and names that were misspelt, the same way everywhere."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.units import format_bytes

_MOST_SHOWN = 8
"""Names of a folder that a sentence lists. Chosen: one line."""


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts numbers in a name by their value: ``image_count=500`` before
    ``image_count=1000``.
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple(
        (0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in parts
    )


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``"did you mean 'X'?"``, or else what is known; for the end of a sentence about a name that
    is not there.
    """
    names = list(dict.fromkeys(known))
    near = nearest_name(word, names, cutoff=cutoff)
    return f"did you mean {near!r}?" if near else f"known are {', '.join(names) or 'none'}"


def nearest_name(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that ``word`` is a misspelling of, if it is like any.

    >>> nearest_name("bathces", ["batches", "images"])
    'batches'
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def columns_of(parameters: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """A column for each parameter: its own name, or ``parameter_NAME`` where the table has a column
    of that name already.
    """
    return {name: name if name not in taken else f"parameter_{name}" for name in parameters}


def existing_folder(path: Path, option: str) -> Path:
    """A folder that somebody has named by hand. Raises UsageError, with the nearest that there is,
    where it is none.
    """
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{option} {path} is a file; name a folder")
    raise UsageError(f"{option} {path} is not there; {nearest_path(path)}")


def nearest_path(path: Path) -> str:
    """``"did you mean artifacts/run?"``, or what there is beside it; for the end of a sentence
    about a path that is not there.
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


# Texts of the user's as parts of names: on one line, and short enough that a file can be called
# so.


MOST_BYTES = 160
"""Chosen: a file's name may have 255 bytes on the common file systems (NAME_MAX), and the longest
addition to a point's name is that of a file half written, about 30; the rest is room for those of
other programs."""
_DIGEST_CHARACTERS = 10
MOST_PHASE_CHARACTERS = 100
"""Of the name of a phase. Chosen: a line of a terminal, with a point before it and amounts after
it, can still be read."""


def file_stem(name: str) -> str:
    """What files are called that belong to a point: its name, with a digest of it where a slash
    would make a folder of it.
    """
    return (
        name
        if "/" not in name
        else f"{name.replace('/', '_')}-{_digest(name.encode('utf-8', 'surrogatepass'))}"
    )


def phase_name(name: object) -> str:
    """The name of a phase as a plain text. Raises UsageError for what is no text, empty, of several
    lines, or endless.
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
    r"""The text without line breaks, tabs and control characters: each is written as in Python,
    ``"\n"`` as ``"\\n"``.

    Backslashes are doubled, so that two texts never look alike.
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
    """The lines of a table; the first ``words`` columns are words, set to the left, all others
    amounts, set to the right.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


# Allocated tensors in words, the same in a child's reason and in what the gate says of a trace.


COPY_TO_CARD = "copy to the card"
"""Stands where an operation is named: TensorFlow names a copy by whatever operation wanted the
tensor on the card."""
ALIVE = "the largest that were alive: "
"""How a clause begins that names what was alive when the device's memory was refused."""
MOST_NAMED = 3
"""Chosen: what a sentence says of what was alive; the trace has all of it."""
SMALL_SHARE = 0.01
"""Chosen: what is less than a hundredth of all that is alive is not named, and who asks for less
than a hundredth of the device is not why it is full."""
_RANGE_IN_USE = re.compile(r"between \S+ \S+ and \S+ \S+ of (\S+ \S+) were in use")


def tensors_in_words(
    *, op: str, shape: str, dtype: str, count: int, total_bytes: int, like: str
) -> str:
    """``"Cast (500, 64, 64, 4) float32, 31.2 MiB, 1.00 x Y"``; of an operation inside a function,
    the end of its path.

    ``shape`` is TensorFlow's text, ``"[500,64,64,4]"``; texts are empty where it named nothing.
    ``like`` is what one of the ``count`` tensors is as large as. Without an operation it is the
    size alone: ``"16 x 256 KiB without an operation"``.
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
    """Allocations that TensorFlow put no operation to: ``"16 x 256 KiB without an operation, each
    1.00 x batch"``.

    Arrays that become tensors are such, and whatever an iterator or a kernel takes for itself:
    which of them is unknown.
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

    Named are up to MOST_NAMED, of those after the first none below SMALL_SHARE of all: ``"A; B; and
    12 others, 3.0 KiB together"``. What was alive ``beside`` them is among the others, and never
    named.
    """
    ranked = sorted(groups, key=lambda group: (-group[2], group[0]))
    least_bytes = SMALL_SHARE * sum(total for *_, total in [*ranked, *beside])
    named = [*ranked[:1], *(group for group in ranked[1:MOST_NAMED] if group[2] >= least_bytes)]
    others = [*ranked[len(named) :], *beside]
    number, total = sum(one[1] for one in others), format_bytes(sum(one[2] for one in others))
    more = f"and {number:,} others, {total} together" if number > 1 else f"and one other, {total}"
    return "; ".join([*(words for words, *_ in named), *([more] if number else [])])


def range_in_use(in_use_bytes: int, peak_bytes: int, limit_bytes: int) -> str:
    """How much was in use, where the error let go of some of it before anybody could look."""
    return (
        f"between {format_bytes(in_use_bytes)} and {format_bytes(peak_bytes)} of "
        f"{format_bytes(limit_bytes)} were in use"
    )


def with_known_use(reason: str, in_use_bytes: int) -> str:
    """A reason whose range of what was in use, where it has one, gives way to what a traced run of
    the same point saw.
    """
    return _RANGE_IN_USE.sub(
        rf"{format_bytes(in_use_bytes)} of \1 were in use (by the traced run)", reason
    )


def handed_out(asked_bytes: int, in_use_bytes: int, limit_bytes: int | None) -> str:
    """Why a full device refused even a little, to go on a sentence; empty where it is not full, or
    much was asked for.

    TensorFlow's BFC allocator hands a piece of its pool out whole unless it is twice as large as
    the request, or 128 MiB larger (bfc_allocator.cc): then a scalar is refused, though it took no
    part in filling the device.
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
