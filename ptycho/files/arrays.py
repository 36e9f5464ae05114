"""Probe, object and mask of a scan: read in blocks and checked value by value."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import FileArray, FileState, GivenPart, Part
from ptycho.files.storage import keep_copy
from ptycho.formats.npy import header_bytes

KEPT_OBJECT_BYTES = 1 << 20
"""Chosen: an object that cannot be mapped is held if it takes no more than one chunk of the energy
pass; else it is copied."""

_Complex = npt.NDArray[np.complex64]


def read_probe(part: Part, notes: list[str]) -> _Complex:
    """The probe (N, N) complex64; raises ScanError for one that is not finite or illuminates
    nothing.
    """
    probe = _held(part, notes)
    if not probe.any():
        raise ScanError(f"{part.name} is zero everywhere; nothing would be illuminated")
    return probe


def read_mask(part: Part, notes: list[str]) -> npt.NDArray[np.bool_] | None:
    """(N, N), True for bad pixels, turned as the frames are stored; None where all are good."""
    flat = np.concatenate([block != 0 for block in part.blocks()])
    is_bad: npt.NDArray[np.bool_] = flat.reshape(
        part.header.shape, order="F" if part.is_fortran else "C"
    )
    bad_count = int(is_bad.sum())
    if bad_count == is_bad.size:
        raise ScanError(
            f"{part.name} marks all {is_bad.size} pixels as bad; 0 is good, so perhaps it "
            "must be inverted"
        )
    notes.append(
        f"{part.key} marks {bad_count} of {is_bad.size} pixels as bad (0 is good); they "
        "read 0 in every frame"
    )
    return is_bad if bad_count else None


def read_object(
    part: Part, scan_path: Path, notes: list[str], *, cache_dir: Path | None, is_known: bool
) -> _Complex:
    """The object (H, W) complex64, checked; a read-only map of where its values lie, in a file or a
    copy, unless it is small.

    ``is_known`` says that the very values of the file were found finite before.
    """
    where = part.file
    if where is not None and part.header.dtype == np.complex64 and part.header.dtype.isnative:
        if not is_known:
            for _ in _finite(part):
                pass
        return _mapped(where, is_fortran=part.is_fortran)
    size_bytes = int(np.prod(part.header.shape, dtype=object)) * np.dtype(np.complex64).itemsize
    if size_bytes <= KEPT_OBJECT_BYTES or isinstance(part, GivenPart):
        return _held(part, notes)
    _note_conversion(part, notes)
    image = header_bytes(part.header.shape, np.dtype(np.complex64), is_fortran=part.is_fortran)

    def write(out: IO[bytes]) -> None:
        out.write(image)
        for block in _finite(part):
            out.write(block.view(np.uint8).data)

    copy, is_new = keep_copy(
        scan_path,
        part.key,
        write,
        identity=("object", part.name, part.header, "" if where is None else where.state),
        size_bytes=len(image) + size_bytes,
        cache_dir=cache_dir,
        advice="save it as complex64, uncompressed",
    )
    notes.append(
        f"{part.key} cannot be mapped where it lies; it "
        f"{'was copied once to' if is_new else 'is read from its copy'} {copy}"
    )
    shape = part.header.shape
    array = FileArray(copy, len(image), shape, np.dtype(np.complex64), FileState.of(copy.stat()))
    return _mapped(array, is_fortran=part.is_fortran)


def _held(part: Part, notes: list[str]) -> _Complex:
    _note_conversion(part, notes)
    values = np.empty(part.header.shape, np.complex64, order="F" if part.is_fortran else "C")
    flat, start = values.ravel(order="K"), 0
    for block in _finite(part):
        flat[start : start + block.size] = block
        start += block.size
    return values


def _note_conversion(part: Part, notes: list[str]) -> None:
    if part.header.dtype != np.complex64:
        notes.append(f"{part.key} is {part.header.dtype}; it is converted to complex64")


def _finite(part: Part) -> Iterator[_Complex]:
    """The values as complex64, block by block; raises ScanError naming the place of one that is not
    finite there.
    """
    start = 0
    for block in part.blocks():
        with np.errstate(over="ignore", invalid="ignore"):  # found out below, with its place
            converted = np.ascontiguousarray(block, np.complex64)
        is_bad = ~np.isfinite(converted)
        if is_bad.any():
            at = int(np.argmax(is_bad))
            row, column = np.unravel_index(
                start + at, part.header.shape, order="F" if part.is_fortran else "C"
            )
            why = (
                "too large for complex64; scale it"
                if np.isfinite(block[at])
                else "mend it before loading"
            )
            raise ScanError(f"{part.name} is {block[at]} at [{row}, {column}]; {why}")
        yield converted
        start += block.size


def _mapped(where: FileArray, *, is_fortran: bool) -> _Complex:
    shape = where.shape[::-1] if is_fortran else where.shape
    turned = FileArray(where.path, where.offset_bytes, shape, where.dtype, where.state)
    # A plain view: the memmap subclass costs more than the copy of a small patch.
    values: _Complex = turned.map().view(np.ndarray)
    return values.T if is_fortran else values
