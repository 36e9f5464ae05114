"""The header of an npy image (NEP 1). It is not read by numpy's parser, which warns, offers to
unpickle and lets much through.
"""

import ast
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
"""Width of the field that says how long the header is, by version of the format."""
_MOST_HEADER_BYTES = 10_000
"""numpy's own default of max_header_size; a header without fields has about 120."""
_DESCR = re.compile(r"[<>|=]?[A-Za-z?]\d*(\[\w+\])?")
"""One plain type, as numpy writes it; anything longer has fields or subarrays."""
_PYTHON_2_LONG = re.compile(r"(?<=\d)L(?=[,)])")


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """Shape, order and type of an npy image, and where its values begin."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    length_bytes: int

    @property
    def values_bytes(self) -> int:
        """What the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], *, name: str) -> NpyHeader:
    """The header at the beginning of ``file``, which is left at the first byte of the values.

    Raises ScanError, beginning with ``name``, for anything but a plain array of numbers or
    characters.
    """
    text, length_bytes = _text(file, name)
    try:
        fields = ast.literal_eval(text.strip())
    # literal_eval documents all five for input that is not a literal, or too deep a one.
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise _unreadable(name, "it is not a Python literal") from error
    if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise _unreadable(name, "descr, fortran_order and shape are needed")
    shape, is_fortran = fields["shape"], fields["fortran_order"]
    # type() and not isinstance: True is an int.
    if not isinstance(shape, tuple) or not all(
        type(extent) is int and extent >= 0 for extent in shape
    ):
        raise _unreadable(name, f"its shape is {_short(shape)}")
    if not isinstance(is_fortran, bool):
        raise _unreadable(name, f"its fortran_order is {_short(is_fortran)}")
    return NpyHeader(shape, is_fortran, _dtype(fields["descr"], name), length_bytes)


def header_bytes(
    shape: tuple[int, ...], dtype: np.dtype[Any], *, is_fortran: bool = False
) -> bytes:
    """How a .npy file of such an array begins, as numpy writes it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype.str, "fortran_order": is_fortran, "shape": shape}
    )
    return file.getvalue()


def _text(file: IO[bytes], name: str) -> tuple[str, int]:
    """The header's literal and how many bytes come before the values."""
    start = file.read(len(_MAGIC) + 2)
    if len(start) < len(_MAGIC) + 2 or not start.startswith(_MAGIC):
        raise _unreadable(name, "it does not begin as an npy file")
    version = (start[-2], start[-1])
    if version not in _LENGTH_BYTES:
        raise _unreadable(name, f"its format is {version[0]}.{version[1]}")
    width = _LENGTH_BYTES[version]
    length_field = file.read(width)
    text_bytes = int.from_bytes(length_field, "little")
    if text_bytes > _MOST_HEADER_BYTES:
        raise _unreadable(
            name,
            f"it announces {text_bytes} bytes of header, and {_MOST_HEADER_BYTES} are the most",
        )
    raw = file.read(text_bytes)
    if len(length_field) < width or len(raw) < text_bytes:
        raise _unreadable(name, "it ends within its header")
    # Only text in strings may be beyond Latin-1, and no type of the contract has any.
    text = raw.decode("latin1")
    if version == (1, 0):
        text = _PYTHON_2_LONG.sub("", text)
    return text, len(start) + width + text_bytes


def _dtype(descr: object, name: str) -> np.dtype[Any]:
    if not isinstance(descr, str) or not _DESCR.fullmatch(descr):
        raise _unreadable(name, f"its type is {_short(descr)}, and one plain type is needed")
    try:
        dtype = np.dtype(descr)
    # Whatever numpy makes of a name that is none, or of a size that is none.
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise _unreadable(name, f"its type is {_short(descr)}") from error
    if dtype.hasobject:
        raise ScanError(
            f"{name} holds Python objects, which are never unpickled; save it as a plain "
            "array or leave it out"
        )
    if dtype.itemsize == 0:
        raise _unreadable(name, f"its type {descr!r} has no size")
    return dtype


def _unreadable(name: str, why: str) -> ScanError:
    return ScanError(f"{name} has no readable npy header ({why}); write the file anew")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def values_in(content: Iterator[bytes], header: NpyHeader) -> Iterator[npt.NDArray[Any]]:
    """The values of an npy image that comes in pieces."""
    to_skip, rest = header.length_bytes, b""
    for piece in content:
        rest += piece[to_skip:]
        to_skip = max(0, to_skip - len(piece))
        whole_bytes = len(rest) // header.dtype.itemsize * header.dtype.itemsize
        if whole_bytes:
            yield np.frombuffer(rest[:whole_bytes], header.dtype)
            rest = rest[whole_bytes:]
