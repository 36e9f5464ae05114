"""Scan positions: read in blocks, turned into pixels, refused where they cannot be any."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import BLOCK_BYTES, Part

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
            _refuse(
                ~np.isfinite(values),
                values,
                start,
                part,
                column,
                "leave the frame out or give its position",
                weights,
            )
            with np.errstate(over="ignore"):
                values *= weight
            axis[start : start + len(values)] += values
            _refuse(
                np.abs(values) > MOST_PIXELS,
                values,
                start,
                part,
                column,
                f"positions are pixels, at most {MOST_PIXELS:g}",
                weights,
            )
        first += block.size
    return axis


def check_finite(part: Part) -> None:
    """Refuse positions that nothing reads, but that are not sound: a broken array means a broken
    file.
    """
    first = 0
    for block in part.blocks():
        values = block.astype(np.float64)
        _refuse(
            ~np.isfinite(values),
            values,
            first,
            part,
            0,
            "leave the frame out or give its position",
            (1,),
        )
        _refuse(
            np.abs(values) > MOST_PIXELS,
            values,
            first,
            part,
            0,
            f"positions are pixels, at most {MOST_PIXELS:g}",
            (1,),
        )
        first += block.size


def check_index(part: Part) -> None:
    """Refuse a scan_index below 0."""
    first = 0
    for block in part.blocks():
        if block.min() < 0:
            frame = int(np.argmin(block))
            raise ScanError(
                f"{part.name} is {block[frame]} for frame {first + frame}; it is 0 or more"
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
                f"patch centres lie between {half} and {extent - half} pixels"
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


def _refuse(
    is_bad: npt.NDArray[np.bool_],
    values: Axis,
    first: int,
    part: Part,
    column: int,
    what: str,
    weights: Sequence[float],
) -> None:
    if is_bad.any():
        frame = int(np.argmax(is_bad))
        place = f"for frame {first + frame}" + (f" in column {column}" if len(weights) > 1 else "")
        raise ScanError(f"{part.name} is {values[frame]:g} {place}; {what}")


def patch_corner(position: npt.NDArray[np.float64], frame_size: int) -> npt.NDArray[np.int64]:
    """First row or column of the patch centred at ``position`` pixels, rounded half to even."""
    return np.rint(position).astype(np.int64) - frame_size // 2
