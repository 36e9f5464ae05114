"""Allocated tensors in words, the same in a child's reason and in what the gate says of a trace."""

import re
from collections.abc import Sequence

from harness.units import format_bytes

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
