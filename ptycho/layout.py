"""The contract of a scan file as far as shapes and types go: refused before a single value is read or unpacked."""

from ptycho.errors import ScanError
from ptycho.formats.contents import POSITION_KEYS, START_KEYS, ArrayHeader, Layout

MIN_FRAME_SIZE = 8
"""Chosen: below any detector crop, above every mistaken axis order such as (N, N, 3)."""


def check_layout(layout: Layout) -> None:
    """Compare every array with the frames it belongs to; raises ScanError naming file, key and what was found."""
    frames = layout.headers[layout.frames_key]
    where = f"{layout.path}: {layout.frames_key}"
    _check_frames(where, frames)
    frame_count, frame_size = frames.shape[:2]
    for key, header in layout.headers.items():
        name = f"{layout.path}: {key}"
        if key in (*POSITION_KEYS, *START_KEYS):
            _check_per_frame(name, header, frame_count, kinds="fiu", meaning="positions are real numbers of pixels")
        elif key == "scan_index":
            _check_per_frame(name, header, frame_count, kinds="iu", meaning="it numbers the frames, save it as int64")
        elif key == "probeGuess":
            _check_complex(name, header)
            if header.shape != (frame_size, frame_size):
                raise ScanError(f"{name} has shape {header.shape}; frames of {frame_size} pixels need the same size")
        elif key == "objectGuess":
            _check_complex(name, header)
            if min(header.shape) < frame_size:
                raise ScanError(f"{name} has shape {header.shape}, smaller than one frame of {frame_size} pixels")


def _check_frames(name: str, header: ArrayHeader) -> None:
    shape, dtype = header
    if len(shape) != 3:
        raise ScanError(f"{name} has shape {shape}; frames are (frame, row, column)")
    if 0 in shape:
        raise ScanError(f"{name} has shape {shape}, no values at all; a scan needs at least one frame")
    if shape[1] != shape[2]:
        hint = "; the frames seem to be on the last axis" if shape[0] == shape[1] else ""
        raise ScanError(f"{name} has shape {shape}, which is not square{hint}; crop or transpose it to (M, N, N)")
    if shape[1] % 2 or shape[1] < MIN_FRAME_SIZE:
        raise ScanError(f"{name} has frames of {shape[1]} pixels; an even size of at least {MIN_FRAME_SIZE} is needed")
    if dtype.kind in "iu":
        raise ScanError(f"{name} is {dtype}, which looks like counts; save the amplitude, float32 sqrt(counts)")
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ScanError(f"{name} is {dtype}; frames are amplitudes, float32 (or float64)")


def _check_per_frame(name: str, header: ArrayHeader, frame_count: int, *, kinds: str, meaning: str) -> None:
    if header.dtype.kind not in kinds:
        raise ScanError(f"{name} is {header.dtype}; {meaning}")
    if header.shape != (frame_count,):
        raise ScanError(f"{name} has shape {header.shape} for {frame_count} frames; one value per frame is needed")


def _check_complex(name: str, header: ArrayHeader) -> None:
    if header.dtype.kind != "c":
        raise ScanError(f"{name} is {header.dtype}; it is complex, save it as complex64")
    if len(header.shape) != 2:
        raise ScanError(f"{name} has shape {header.shape}; one two-dimensional array is needed")
