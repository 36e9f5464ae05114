"""The small arrays of a scan, checked: shapes and types of all arrays first, then the values of
positions, probe, object and mask, in blocks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import BLOCK_BYTES, FileArray, FileState, GivenPart, Part
from ptycho.files.formats import Parts
from ptycho.files.frames import Interpretation
from ptycho.files.npz import header_bytes
from ptycho.files.storage import keep_copy

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
                else "fix it before loading"
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


# The contract of a scan as far as shapes and types go: refused before a single value is read or
# unpacked.


MIN_FRAME_SIZE = 8
"""Chosen: below any detector crop, above every mistaken axis order such as (N, N, 3)."""


def check_layout(parts: Parts, interpretation: Interpretation) -> tuple[int, int]:
    """Compare every array with the frames it belongs to; returns M and N.

    Raises ScanError naming file, key and what was found.
    """
    frame_count, frame_size = _check_frames(parts.frames, interpretation)
    _check_positions(parts.positions, frame_count)
    for part in parts.order:
        _check_per_frame(
            part, frame_count, kinds="fiu", meaning="positions are real numbers of pixels"
        )

    if parts.scan_index is not None:
        _check_per_frame(
            parts.scan_index,
            frame_count,
            kinds="iu",
            meaning="it numbers the frames, save it as int64",
        )

    if parts.probe is not None:
        _check_complex(parts.probe)
        if parts.probe.header.shape != (frame_size, frame_size):
            raise ScanError(
                f"{parts.probe.name} has shape {parts.probe.header.shape}; frames of "
                f"{frame_size} pixels need the same size"
            )

    if parts.object is not None:
        _check_complex(parts.object)
        if min(parts.object.header.shape) < frame_size:
            raise ScanError(
                f"{parts.object.name} has shape {parts.object.header.shape}, smaller than "
                f"one frame of {frame_size} pixels"
            )

    if parts.mask is not None:
        _check_mask(parts.mask, frame_size)

    return frame_count, frame_size


def _check_frames(part: Part, interpretation: Interpretation) -> tuple[int, int]:
    name, (stored, dtype) = part.name, part.header
    if len(stored) != 3:
        raise ScanError(f"{name} has shape {stored}; frames are (frame, row, column)")
    if 0 in stored:
        raise ScanError(
            f"{name} has shape {stored}, no values at all; a scan needs at least one frame"
        )

    shape = tuple(stored[axis] for axis in interpretation.order)
    if shape[1] != shape[2]:
        is_last = stored[0] == stored[1]
        hint = "; the frames seem to be on the last axis" if is_last else ""
        advice = "give axes='row,column,frame'" if is_last else "crop it"
        raise ScanError(
            f"{name} has shape {stored}, which is not square{hint}; {advice} or transpose "
            "it to (M, N, N)"
        )

    if shape[1] % 2 or shape[1] < MIN_FRAME_SIZE:
        raise ScanError(
            f"{name} has frames of {shape[1]} pixels; an even size of at least "
            f"{MIN_FRAME_SIZE} is needed"
        )

    if part.is_fortran:
        raise ScanError(
            f"{name} is in Fortran order, which scatters every frame; save "
            "numpy.ascontiguousarray of it"
        )

    if interpretation.intensity:
        if dtype.kind not in "iuf" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
            raise ScanError(f"{name} is {dtype}; counts are integers, float32 or float64")
    elif dtype.kind in "iu":
        raise ScanError(
            f"{name} is {dtype}, which looks like counts; give intensity=True, or save the "
            "amplitude, float32 sqrt(counts)"
        )
    elif dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ScanError(f"{name} is {dtype}; frames are amplitudes, float32 (or float64)")
    return shape[0], shape[1]


def _check_positions(positions: tuple[Part, ...], frame_count: int) -> None:
    meaning = "positions are real numbers of pixels"
    if len(positions) > 1:
        for part in positions:
            _check_per_frame(part, frame_count, kinds="fiu", meaning=meaning)
        return
    name, (shape, dtype) = positions[0].name, positions[0].header
    if dtype.kind not in "fiu":
        raise ScanError(f"{name} is {dtype}; {meaning}")
    if len(shape) != 2 or shape[0] != frame_count or shape[1] not in (2, 3):
        raise ScanError(
            f"{name} has shape {shape} for {frame_count} frames; ({frame_count}, 2), an [x, "
            "y] per frame, is needed"
        )


def _check_per_frame(part: Part, frame_count: int, *, kinds: str, meaning: str) -> None:
    if part.header.dtype.kind not in kinds:
        raise ScanError(f"{part.name} is {part.header.dtype}; {meaning}")
    if part.header.shape != (frame_count,):
        raise ScanError(
            f"{part.name} has shape {part.header.shape} for {frame_count} frames; one value "
            "per frame is needed"
        )


def _check_complex(part: Part) -> None:
    if part.header.dtype.kind != "c":
        raise ScanError(f"{part.name} is {part.header.dtype}; it is complex, save it as complex64")
    if len(part.header.shape) != 2:
        raise ScanError(
            f"{part.name} has shape {part.header.shape}; one two-dimensional array is needed"
        )


def _check_mask(part: Part, frame_size: int) -> None:
    shape, dtype = part.header
    if dtype.kind not in "biu":
        raise ScanError(f"{part.name} is {dtype}; a mask is whole numbers, 0 for good pixels")
    if shape != (frame_size, frame_size):
        raise ScanError(
            f"{part.name} has shape {shape}; one of ({frame_size}, {frame_size}) for all "
            "frames is needed"
        )


# Scan positions: read in blocks, turned into pixels, refused where they cannot be any.


Axis = npt.NDArray[np.float64]

MOST_PIXELS = 1e9
"""Chosen: no position is a billion pixels from the origin; float32 coordinates would be 64 pixels
coarse there."""
_METRES_PIXELS = 1e-2
"""Chosen: no axis is measured in hundredths of a pixel, while scans in metres are smaller than a
centimetre."""
_ROUNDING_PIXELS = 1e-9
"""Chosen: below a tenth of an atom in metres, and above the rounding of a line scan's constant
axis."""
_STEP = BLOCK_BYTES // 8
"""Positions looked at together: a few temporaries of this size, whatever the number of frames."""


def read_axis(part: Part, weights: Sequence[float], frame_count: int) -> Axis:
    """One axis of the positions, (M,) float64 pixels: the columns of ``part`` weighted and added.

    ``part`` is (M,) or (M, columns). Raises ScanError naming the frame for values that are not
    finite, or no pixels.
    """
    axis = np.zeros(frame_count)
    first = 0
    for block in part.blocks():
        for column, weight in enumerate(weights):
            if weight == 0:  # what is not used may be anything
                continue
            offset = (column - first) % len(weights)
            values = block[offset :: len(weights)].astype(np.float64)
            start = (first + offset) // len(weights)
            place = f" in column {column}" if len(weights) > 1 else ""

            _check_are_finite(part, values, start, place)
            with np.errstate(over="ignore"):
                values *= weight
            axis[start : start + len(values)] += values
            _check_are_pixels(part, values, start, place)
        first += block.size
    return axis


def check_finite(part: Part) -> None:
    """Refuse positions that nothing reads, but that are not sound: a broken array means a broken
    file.
    """
    first = 0
    for block in part.blocks():
        values = block.astype(np.float64)
        _check_are_finite(part, values, first, "")
        _check_are_pixels(part, values, first, "")
        first += block.size


def check_index(part: Part) -> None:
    """Refuse a scan_index below 0."""
    first = 0
    for block in part.blocks():
        if block.min() < 0:
            frame = int(np.argmin(block))
            raise ScanError(
                f"{part.name} is {block[frame]} for frame {first + frame}; it must be 0 or more"
            )
        first += block.size


def check_inside(name: str, positions: Axis, extent: int, frame_size: int, object_key: str) -> None:
    """Refuse patches that leave an object of ``extent`` pixels along this axis."""
    for first, values in _steps(positions):
        corners = patch_corner(values, frame_size)
        is_outside = (corners < 0) | (corners + frame_size > extent)
        if is_outside.any():
            frame, half = int(np.argmax(is_outside)), frame_size // 2
            raise ScanError(
                f"{name} is {values[frame]:g} for frame {first + frame}, outside {object_key}; "
                f"patch centres must be between {half} and {extent - half} pixels"
            )


def check_span(path: Any, names: tuple[str, str], x: Axis, y: Axis, remedy: str) -> None:  # noqa: ANN401 - a path or a name
    """Without an object to measure against, at least refuse what can only be metres, and a scan
    that never moved.
    """
    if len(x) == 1:
        return
    spans = float(np.ptp(x)), float(np.ptp(y))
    both = f"{path}: {names[0]} and {names[1]}"

    if not any(spans):
        raise ScanError(
            f"{both} are the same for all {len(x)} frames; give the position of each frame"
        )
    if max(spans) < 1:
        raise ScanError(f"{both} span {max(spans):g} pixels, which looks like metres; {remedy}")

    for name, axis, span in zip(names, (x, y), spans, strict=True):
        # A line scan may keep still along one axis, up to rounding; it may also jitter, but not
        # about zero and this little.
        if (
            span > _ROUNDING_PIXELS
            and max(abs(float(axis.min())), abs(float(axis.max()))) < _METRES_PIXELS
        ):
            raise ScanError(
                f"{path}: {name} spans {span:g} pixels, which looks like metres; {remedy}"
            )


def _steps(positions: Axis) -> Iterator[tuple[int, Axis]]:
    for first in range(0, len(positions), _STEP):
        yield first, positions[first : first + _STEP]


def _check_are_finite(part: Part, values: Axis, first: int, place: str) -> None:
    is_bad = ~np.isfinite(values)
    if is_bad.any():
        frame = int(np.argmax(is_bad))
        raise ScanError(
            f"{part.name} is {values[frame]:g} for frame {first + frame}{place}; leave the frame "
            "out or give its position"
        )


def _check_are_pixels(part: Part, values: Axis, first: int, place: str) -> None:
    is_bad = np.abs(values) > MOST_PIXELS
    if is_bad.any():
        frame = int(np.argmax(is_bad))
        raise ScanError(
            f"{part.name} is {values[frame]:g} for frame {first + frame}{place}; positions are "
            f"pixels, at most {MOST_PIXELS:g}"
        )


def patch_corner(position: npt.NDArray[np.float64], frame_size: int) -> npt.NDArray[np.int64]:
    """First row or column of the patch centred at ``position`` pixels, rounded half to even.

    >>> patch_corner(np.array([8.5, 9.5, 10.4]), 16).tolist()
    [0, 2, 2]
    """
    return np.rint(position).astype(np.int64) - frame_size // 2
