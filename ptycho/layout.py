"""The contract of a scan as far as shapes and types go: refused before a single value is read or
unpacked.
"""

from ptycho.converting import Interpretation
from ptycho.errors import ScanError
from ptycho.files import Part
from ptycho.files.formats import Parts

MIN_FRAME_SIZE = 8
"""Chosen: below any detector crop, above every mistaken axis order such as (N, N, 3)."""


def check_layout(parts: Parts, what: Interpretation) -> tuple[int, int]:
    """Compare every array with the frames it belongs to; returns M and N.

    Raises ScanError naming file, key and what was found.
    """
    frame_count, frame_size = _check_frames(parts.frames, what)
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


def _check_frames(part: Part, what: Interpretation) -> tuple[int, int]:
    name, (stored, dtype) = part.name, part.header
    if len(stored) != 3:
        raise ScanError(f"{name} has shape {stored}; frames are (frame, row, column)")
    if 0 in stored:
        raise ScanError(
            f"{name} has shape {stored}, no values at all; a scan needs at least one frame"
        )
    shape = tuple(stored[axis] for axis in what.order)
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
    if what.intensity:
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
