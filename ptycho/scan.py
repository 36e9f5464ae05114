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
from ptycho.formats.contents import POSITION_KEYS, START_KEYS, Contents, FileArray
from ptycho.layout import check_layout
from ptycho.physics import patch_corner

MOST_PIXELS = 1e9
"""Chosen: no position is a billion pixels from the origin; float32 coordinates would be 64 pixels coarse there."""
_METRES_PIXELS = 1e-2
"""Chosen: no axis is measured in hundredths of a pixel, while scans in metres are smaller than a centimetre."""
_ROUNDING_PIXELS = 1e-9
"""Chosen: below a tenth of an atom in metres, and above the rounding of a line scan's constant axis."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan of M frames of N x N pixels. The frames stay on disk until they are indexed.

    The file must stay as it is while it is read: every pass asks first, and refuses a changed one. One that is cut in the
    middle of a pass ends the process (SIGBUS), as with every memory map.
    """

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
        contents = read(where, cache_dir=None if cache_dir is None else Path(cache_dir), check=check_layout)
        notes = list(contents.notes)
        if contents.frames.dtype.itemsize == 8:
            notes.append(f"{contents.frames_key} is float64; every batch is converted to float32")
        _check_order(where, contents)
        x, y = (_positions(where, contents, key) for key in POSITION_KEYS)
        probe = _complex(where, contents, "probeGuess", notes)
        if not probe.any():
            raise ScanError(f"{where}: probeGuess is zero everywhere; nothing would be illuminated")
        obj = _complex(where, contents, "objectGuess", notes) if "objectGuess" in contents.small else None
        if obj is None:
            notes.append("there is no objectGuess: ground truth is amplitude 1, phase 0")
            _check_span(where, x, y)
        else:
            _check_inside(where, "xcoords", x, obj.shape[1], contents.frames.shape[1])
            _check_inside(where, "ycoords", y, obj.shape[0], contents.frames.shape[1])
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

        Raises ScanError naming the frame for NaN, infinite, negative or too large amplitude, and for a stack of zeros;
        ScanFileError where the file has changed since it was opened.
        """
        return frame_energies(self.frames_file, name=f"{self.path}: {self.frames_key}")


def _check_order(path: Path, contents: Contents) -> None:
    """Arrays that only say how the scan was taken: nothing reads them, but a broken one means a broken file."""
    for key in START_KEYS:
        if key in contents.small:
            _positions(path, contents, key)
    scan_index = contents.small.get("scan_index")
    if scan_index is not None and scan_index.min() < 0:
        frame = int(np.argmin(scan_index))
        raise ScanError(f"{path}: scan_index is {scan_index[frame]} for frame {frame}; it is 0 or more")


def _positions(path: Path, contents: Contents, key: str) -> npt.NDArray[np.float64]:
    positions = contents.small[key].astype(np.float64)
    for is_bad, what in (
        (~np.isfinite(positions), "leave the frame out or give its position"),
        (np.abs(positions) > MOST_PIXELS, f"positions are pixels, at most {MOST_PIXELS:g}"),
    ):
        if is_bad.any():
            frame = int(np.argmax(is_bad))
            raise ScanError(f"{path}: {key} is {positions[frame]:g} for frame {frame}; {what}")
    return positions


def _complex(path: Path, contents: Contents, key: str, notes: list[str]) -> npt.NDArray[np.complex64]:
    values = contents.small[key]
    is_kept = values.dtype == np.complex64
    if not is_kept:
        notes.append(f"{key} is {values.dtype}; it is converted to complex64")
    converted: npt.NDArray[np.complex64] = np.ascontiguousarray(values) if is_kept else np.empty(values.shape, np.complex64)
    for row, line in enumerate(values):
        # Row by row: a mask of the whole object would be held beside it.
        if not is_kept:
            with np.errstate(over="ignore", invalid="ignore"):  # found out below, with its place
                converted[row] = line
        is_bad = ~np.isfinite(converted[row])
        if is_bad.any():
            column = int(np.argmax(is_bad))
            why = "too large for complex64; scale it" if np.isfinite(line[column]) else "mend it before loading"
            raise ScanError(f"{path}: {key} is {line[column]} at [{row}, {column}]; {why}")
    return converted


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
    """Without an object to measure against, at least refuse what can only be metres, and a scan that never moved."""
    if len(x) == 1:
        return
    spans = float(np.ptp(x)), float(np.ptp(y))
    if not any(spans):
        raise ScanError(f"{path}: xcoords and ycoords are the same for all {len(x)} frames; give the position of each frame")
    if max(spans) < 1:
        raise ScanError(f"{path}: xcoords and ycoords span {max(spans):g} pixels, which looks like metres; convert them to pixels")
    for key, axis, span in zip(POSITION_KEYS, (x, y), spans, strict=True):
        # A line scan may keep still along one axis, up to rounding; it may also jitter, but not about zero and this little.
        if span > _ROUNDING_PIXELS and np.abs(axis).max() < _METRES_PIXELS:
            raise ScanError(f"{path}: {key} spans {span:g} pixels, which looks like metres; convert it to pixels")
