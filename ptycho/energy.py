"""One bounded pass over the frames: their energies, and with them every check of their values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files.stacks import CHUNK_BYTES, FrameStack

__all__ = [
    "CHUNK_BYTES",
    "Progress",
    "chunk_energies",
    "frame_energies",
    "normalization",
    "scale_to",
]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many bytes of it are done and how many there are."""

_LARGEST = float(np.finfo(np.float32).max)
"""Batches are float32, and no sum of squares of it overflows float64."""


def frame_energies(
    frames: FrameStack,
    *,
    name: str,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Energy sum_xy frame^2 of every frame: (M,) float64.

    Read chunk by chunk through a reused buffer. Raises ScanError naming ``name``, the frame and the
    value for NaN, infinite, negative or too large amplitude, and for a stack that is zero
    throughout; ScanFileError where the file has changed.
    """
    energies = np.empty(len(frames))
    for start, chunk in frames.chunks(chunk_bytes):
        energies[start : start + len(chunk)] = chunk_energies(
            chunk, first=start, name=name, fault=frames.fault, quantity=frames.quantity
        )
        if progress is not None:
            progress("checking frames", (start + len(chunk)) * frames.frame_bytes, frames.nbytes)
    if not energies.any():
        raise ScanError(
            f"{name} is zero in all {len(energies)} frames; check the exposure or the conversion"
        )
    return energies


def array_energies(stack: Any, *, name: str) -> npt.NDArray[np.float64]:  # noqa: ANN401 - what numpy can take slices of
    """Energy of every entry of an array (or ImageStack) of amplitudes (B, ...): (B,) float64, in
    chunks that stay small.

    Raises ScanError as ``frame_energies`` does, but for a stack of zeros.
    """
    energies = np.empty(len(stack))
    per_chunk = max(1, CHUNK_BYTES * len(stack) // max(1, stack.nbytes))
    for start in range(0, len(stack), per_chunk):
        chunk = np.asarray(stack[start : start + per_chunk])
        energies[start : start + len(chunk)] = chunk_energies(chunk, first=start, name=name)
    return energies


def chunk_energies(
    chunk: npt.NDArray[Any],
    *,
    first: int,
    name: str,
    fault: Callable[[int], str] | None = None,
    quantity: str = "amplitude",
) -> npt.NDArray[np.float64]:
    """Energies of the frames (b, ...) of one chunk: (b,) float64; ``first`` is the number of its
    first frame.

    Raises ScanError naming the frame for NaN, infinite, negative amplitude, or amplitude beyond
    float32; ``fault`` tells which value of which pixel it is, and ``quantity`` what is stored
    there.
    """
    flat = chunk.reshape(len(chunk), -1)
    smallest, largest = flat.min(axis=1), flat.max(axis=1)
    is_count = quantity != "amplitude"
    for is_bad, what in (
        # A NaN is the smallest and the largest of its frame; so is the root of a negative count.
        (
            ~(np.isfinite(smallest) & np.isfinite(largest)),
            "NaN, infinite or negative" if is_count else "NaN or infinite",
        ),
        (smallest < 0, "negative"),
        (largest > _LARGEST, "too large for float32"),
    ):
        if is_bad.any():
            frame = first + int(np.argmax(is_bad))
            kind = f"{quantity} {what}" if what.startswith("too") else f"{what} {quantity}"
            place = "" if fault is None else f" ({fault(frame)})"
            raise ScanError(
                f"{name} has {kind} in frame {frame}{place}; mask or correct it before loading"
            )
    # einsum casts block by block: no float64 copy of the chunk.
    energies: npt.NDArray[np.float64] = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    return energies


def normalization(
    energies: npt.NDArray[np.float64], nn_indices: npt.NDArray[np.int64], frame_size: int
) -> float:
    """The constant c that makes the mean energy of the grouped frames (N/2)^2.

    ``energies`` (M,) float64 and ``nn_indices`` (B, C): a frame in three groups counts three times.
    Raises ScanError where every grouped frame is empty.
    """
    return scale_to((frame_size / 2) ** 2, float(energies[nn_indices].mean()))


def scale_to(wanted: float, mean_energy: float) -> float:
    """The factor on amplitudes that takes ``mean_energy`` to ``wanted``; raises ScanError where
    there is no energy.
    """
    if mean_energy <= 0:
        raise ScanError(
            "every frame of every group is zero, so no scale can be found; check the frames"
        )
    return float(np.sqrt(wanted / mean_energy))
