"""Allocated tensors in words, the same in a child's reason and in what the gate says of a trace."""

from harness.units import format_bytes

COPY_TO_CARD = "copy to the card"
"""Stands where an operation is named: TensorFlow names a copy by whatever operation wanted the tensor on the card."""
_NO_OPERATION = "an array of numpy"
"""What is allocated by no operation: TensorFlow converts an array."""


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
