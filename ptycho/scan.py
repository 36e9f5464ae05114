"""A measured scan, opened lazily and checked."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ptycho.energy import frame_energies
from ptycho.errors import ScanError
from ptycho.formats import read
from ptycho.formats.contents import Contents, FileArray
from ptycho.physics import patch_corner

MIN_FRAME_SIZE = 8
"""Chosen: below any detector crop, above every mistaken axis order such as (N, N, 3)."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan of M frames of N x N pixels. The frames stay on disk until they are indexed."""

    path: Path
    frames: npt.NDArray[Any] = field(repr=False)
    """(M, N, N) float32 or float64 amplitude = sqrt(counts), zero frequency at [N/2, N/2]; a read-only memory map."""
    x: npt.NDArray[np.float64] = field(repr=False)
    """(M,) pixels: column of the patch centre in the object."""
    y: npt.NDArray[np.float64] = field(repr=False)
    """(M,) pixels: row of the patch centre in the object."""
    probe: npt.NDArray[np.complex64] = field(repr=False)
    """(N, N)."""
    object: npt.NDArray[np.complex64] | None = field(repr=False)
    """(H, W), or None where the file has none."""
    frames_file: FileArray = field(repr=False)
    """Where the values of ``frames`` lie."""
    frames_key: str = field(repr=False)
    keys: tuple[str, ...]
    """Everything that is in the file, used or not."""
    notes: tuple[str, ...]
    """What was assumed or done, one sentence each."""

    @classmethod
    def open(cls, path: str | PathLike[str], *, cache_dir: str | PathLike[str] | None = None) -> Self:
        """Open a scan file without reading its frames.

        ``cache_dir`` is where compressed frames are unpacked, by default ``ptycho-memory`` in the user's cache folder.
        Raises ScanFileError where the file cannot be read, ScanError where it is damaged or breaks the contract; the
        values of the frames are checked by ``energies``.
        """
        where = Path(path)
        contents = read(where, cache_dir=None if cache_dir is None else Path(cache_dir))
        notes = [*contents.notes, *_check_frames(where, contents)]
        frame_count, frame_size = contents.frames.shape[:2]
        x, y = (_positions(where, contents, key, frame_count) for key in ("xcoords", "ycoords"))
        probe = _complex(where, contents, "probeGuess", notes)
        _check_probe(where, probe, frame_size)
        obj = _complex(where, contents, "objectGuess", notes) if "objectGuess" in contents.small else None
        if obj is None:
            notes.append("there is no objectGuess: ground truth is amplitude 1, phase 0")
            _check_span(where, x, y)
        else:
            _check_object(where, obj, frame_size)
            _check_inside(where, "xcoords", x, obj.shape[1], frame_size)
            _check_inside(where, "ycoords", y, obj.shape[0], frame_size)
        return cls(
            path=where,
            frames=contents.frames.map(),
            x=x,
            y=y,
            probe=probe,
            object=obj,
            frames_file=contents.frames,
            frames_key=contents.frames_key,
            keys=contents.keys,
            notes=tuple(notes),
        )

    @property
    def frame_count(self) -> int:
        """M."""
        return self.frames_file.shape[0]

    @property
    def frame_size(self) -> int:
        """N, pixels."""
        return self.frames_file.shape[1]

    def energies(self) -> npt.NDArray[np.float64]:
        """Energy sum_xy frame^2 of every frame, (M,) float64: one pass over the file in chunks of 1 MiB.

        Raises ScanError naming the frame for NaN, infinite or negative amplitude, and for a stack of zeros.
        """
        return frame_energies(self.frames_file, name=f"{self.path}: {self.frames_key}")


def _check_frames(path: Path, contents: Contents) -> tuple[str, ...]:
    key, shape, dtype = contents.frames_key, contents.frames.shape, contents.frames.dtype
    if len(shape) != 3:
        raise ScanError(f"{path}: {key} has shape {shape}; frames are (frame, row, column)")
    if shape[1] != shape[2]:
        hint = "; the frames seem to be on the last axis" if shape[0] == shape[1] else ""
        raise ScanError(f"{path}: {key} has shape {shape}, which is not square{hint}; crop or transpose it to (M, N, N)")
    if shape[1] % 2 or shape[1] < MIN_FRAME_SIZE:
        raise ScanError(f"{path}: {key} has frames of {shape[1]} pixels; an even size of at least {MIN_FRAME_SIZE} is needed")
    if dtype.kind in "iu":
        raise ScanError(f"{path}: {key} is {dtype}, which looks like counts; save the amplitude, float32 sqrt(counts)")
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ScanError(f"{path}: {key} is {dtype}; frames are amplitudes, float32 (or float64)")
    return (f"{key} is float64; every batch is converted to float32",) if dtype.itemsize == 8 else ()


def _positions(path: Path, contents: Contents, key: str, frame_count: int) -> npt.NDArray[np.float64]:
    values = contents.small[key]
    if values.shape != (frame_count,):
        raise ScanError(f"{path}: {key} has shape {values.shape} for {frame_count} frames; one position per frame is needed")
    if values.dtype.kind not in "fiu":
        raise ScanError(f"{path}: {key} is {values.dtype}; positions are real numbers of pixels")
    positions = values.astype(np.float64)
    is_bad = ~np.isfinite(positions)
    if is_bad.any():
        frame = int(np.argmax(is_bad))
        raise ScanError(f"{path}: {key} is {positions[frame]} for frame {frame}; leave the frame out or give its position")
    return positions


def _complex(path: Path, contents: Contents, key: str, notes: list[str]) -> npt.NDArray[np.complex64]:
    values = contents.small[key]
    if values.dtype.kind != "c":
        raise ScanError(f"{path}: {key} is {values.dtype}; it is complex, save it as complex64")
    if values.ndim != 2:
        raise ScanError(f"{path}: {key} has shape {values.shape}; one two-dimensional array is needed")
    for row, line in enumerate(values):
        # Row by row: a mask of the whole object would be held beside it.
        if not np.isfinite(line).all():
            column = int(np.argmin(np.isfinite(line)))
            raise ScanError(f"{path}: {key} is {line[column]} at [{row}, {column}]; mend it before loading")
    if values.dtype != np.complex64:
        notes.append(f"{key} is {values.dtype}; it is converted to complex64")
    return np.ascontiguousarray(values, np.complex64)


def _check_probe(path: Path, probe: npt.NDArray[np.complex64], frame_size: int) -> None:
    if probe.shape != (frame_size, frame_size):
        raise ScanError(f"{path}: probeGuess has shape {probe.shape}; frames of {frame_size} pixels need the same size")
    if not probe.any():
        raise ScanError(f"{path}: probeGuess is zero everywhere; nothing would be illuminated")


def _check_object(path: Path, obj: npt.NDArray[np.complex64], frame_size: int) -> None:
    if min(obj.shape) < frame_size:
        raise ScanError(f"{path}: objectGuess has shape {obj.shape}, smaller than one frame of {frame_size} pixels")


def _check_inside(path: Path, key: str, positions: npt.NDArray[np.float64], extent: int, frame_size: int) -> None:
    corners = patch_corner(positions, frame_size)
    is_outside = (corners < 0) | (corners + frame_size > extent)
    if is_outside.any():
        frame, half = int(np.argmax(is_outside)), frame_size // 2
        raise ScanError(
            f"{path}: {key} is {positions[frame]:g} for frame {frame}, outside objectGuess; "
            f"patch centres lie between {half} and {extent - half} pixels"
        )


def _check_span(path: Path, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> None:
    """Without an object to measure against, at least refuse what can only be metres."""
    span = max(float(np.ptp(x)), float(np.ptp(y)))
    if len(x) > 1 and 0 < span < 1:
        raise ScanError(f"{path}: xcoords and ycoords span {span:g} pixels, which looks like metres; convert them to pixels")
