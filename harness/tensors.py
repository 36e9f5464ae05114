"""Allocated tensors in words, the same in a child's reason and in what the gate says of a trace."""

from collections.abc import Sequence

from harness.units import format_bytes

COPY_TO_CARD = "copy to the card"
"""Stands where an operation is named: TensorFlow names a copy by whatever operation wanted the tensor on the card."""
_NO_OPERATION = "an array of numpy"
"""What is allocated by no operation: TensorFlow converts an array."""
ALIVE = "the largest that were alive: "
"""How a clause begins that names what was alive when the device's memory was refused."""
_MOST_NAMED = 3
"""Chosen: what a sentence says of what was alive; the trace has all of it."""
_SMALL_SHARE = 0.01
"""Chosen: what is less than a hundredth of all that is alive is not named, and who asks for less than a hundredth of the device
is not why it is full."""


def tensors_in_words(*, op: str, shape: str, dtype: str, count: int, total_bytes: int, like: str) -> str:
    """``"Cast (500, 64, 64, 4) float32, 31.2 MiB, 1.00 x Y"``; of an operation inside a function, the end of its path.

    ``shape`` is TensorFlow's text, ``"[500,64,64,4]"``; texts are empty where it named nothing. ``like`` is what one of
    the ``count`` tensors is as large as.
    """
    sizes = shape.strip("[]").replace(",", ", ")
    operation = "/".join(op.split("/")[-2:]) or _NO_OPERATION
    what = " ".join(part for part in (operation, f"({sizes})" if sizes else "", dtype) if part)
    times, each = (f"{count:,} x ", " each") if count > 1 else ("", "")
    return f"{times}{what}, {format_bytes(total_bytes)}{f', {like}{each}' if like else ''}"


def number_named(totals_bytes: Sequence[int]) -> int:
    """How many of these totals, which descend, a sentence names: the first, and up to two more that are a hundredth of all."""
    least_bytes = sum(totals_bytes) * _SMALL_SHARE
    return len([total for total in totals_bytes[1:_MOST_NAMED] if total >= least_bytes]) + len(totals_bytes[:1])


def handed_out(asked_bytes: int, in_use_bytes: int, limit_bytes: int | None) -> str:
    """Why a full device refused even a little, to go on a sentence; empty where it is not full, or much was asked for.

    TensorFlow's BFC allocator hands a piece of its pool out whole unless it is twice as large as the request, or 128 MiB
    larger (bfc_allocator.cc): then a scalar is refused, though it took no part in filling the device.
    """
    if limit_bytes is None or asked_bytes >= limit_bytes * _SMALL_SHARE or in_use_bytes + asked_bytes <= limit_bytes:
        return ""
    return ": the pool had been handed out (a large tensor may be given the rest of it, where that is less than its own size)"
