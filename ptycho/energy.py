"""One bounded pass over the frames: their energies, and with them every check of their values."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.formats.contents import FileArray

CHUNK_BYTES = 1 << 20
"""Chosen: a read of this size costs only its bytes, it stays in the processor's cache, and even a small scan has more."""
_LARGEST = float(np.finfo(np.float32).max)
"""Batches are float32, and no sum of squares of it overflows float64."""


def frame_energies(frames: FileArray, *, name: str, chunk_bytes: int = CHUNK_BYTES) -> npt.NDArray[np.float64]:
    """Energy sum_xy frame^2 of every frame: (M,) float64.

    ``frames`` is (M, N, N) float32 or float64 amplitude. Read through a reused buffer and not through a memory map, so
    that the process does not grow by the file. Raises ScanError naming ``name`` and the frame for NaN, infinite,
    negative or too large amplitude, and for a stack that is zero throughout; ScanFileError where the file has changed.
    """
    energies = np.empty(frames.shape[0])
    for start, chunk in _chunks(frames, name, chunk_bytes):
        energies[start : start + len(chunk)] = chunk_energies(chunk, first=start, name=name)
    if not energies.any():
        raise ScanError(f"{name} is zero in all {len(energies)} frames; check the exposure or the conversion")
    return energies


def array_energies(stack: Any, *, name: str) -> npt.NDArray[np.float64]:  # noqa: ANN401 - what numpy can take slices of
    """Energy of every entry of an array (or ImageStack) of amplitudes (B, ...): (B,) float64, in chunks that stay small.

    Raises ScanError as ``frame_energies`` does, but for a stack of zeros.
    """
    energies = np.empty(len(stack))
    per_chunk = max(1, CHUNK_BYTES * len(stack) // max(1, stack.nbytes))
    for start in range(0, len(stack), per_chunk):
        chunk = np.asarray(stack[start : start + per_chunk])
        energies[start : start + len(chunk)] = chunk_energies(chunk, first=start, name=name)
    return energies


def chunk_energies(chunk: npt.NDArray[Any], *, first: int, name: str) -> npt.NDArray[np.float64]:
    """Energies of the frames (b, ...) of one chunk: (b,) float64; ``first`` is the number of its first frame.

    Raises ScanError naming the frame for NaN, infinite, negative amplitude, or amplitude beyond float32.
    """
    flat = chunk.reshape(len(chunk), -1)
    smallest, largest = flat.min(axis=1), flat.max(axis=1)
    # A NaN is the smallest and the largest of its frame.
    _refuse(~(np.isfinite(smallest) & np.isfinite(largest)), first, name, "NaN or infinite amplitude")
    _refuse(smallest < 0, first, name, "negative amplitude")
    _refuse(largest > _LARGEST, first, name, "amplitude too large for float32")
    # einsum casts block by block: no float64 copy of the chunk.
    energies: npt.NDArray[np.float64] = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    return energies


def normalization(energies: npt.NDArray[np.float64], nn_indices: npt.NDArray[np.int64], frame_size: int) -> float:
    """The constant c that makes the mean energy of the grouped frames (N/2)^2.

    ``energies`` (M,) float64 and ``nn_indices`` (B, C): a frame in three groups counts three times. Raises ScanError
    where every grouped frame is empty.
    """
    return scale_to((frame_size / 2) ** 2, float(energies[nn_indices].mean()))


def scale_to(wanted: float, mean_energy: float) -> float:
    """The factor on amplitudes that takes ``mean_energy`` to ``wanted``; raises ScanError where there is no energy."""
    if mean_energy <= 0:
        raise ScanError("every frame of every group is zero, so no scale can be found; check the frames")
    return float(np.sqrt(wanted / mean_energy))


def _refuse(is_bad: npt.NDArray[np.bool_], first: int, name: str, what: str) -> None:
    if is_bad.any():
        frame = first + int(np.argmax(is_bad))
        raise ScanError(f"{name} has {what} in frame {frame}; mask or correct it before loading")


def _chunks(frames: FileArray, name: str, chunk_bytes: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """(first frame, (b, N, N) values) in file order; every chunk is overwritten by the next."""
    count = frames.shape[0]
    frame_bytes = int(np.prod(frames.shape[1:])) * frames.dtype.itemsize
    per_chunk = max(1, min(count, chunk_bytes // frame_bytes))
    buffer = bytearray(per_chunk * frame_bytes)
    with frames.open() as file:
        file.seek(frames.offset_bytes)
        for start in range(0, count, per_chunk):
            filled = memoryview(buffer)[: min(per_chunk, count - start) * frame_bytes]
            read_bytes = 0
            # An unbuffered read may stop early, on Linux at 2 GiB (read(2)).
            while read_bytes < len(filled):
                got = file.readinto(filled[read_bytes:])
                if not got:
                    raise ScanError(f"{name} ends in frame {start + read_bytes // frame_bytes} of {count}; the file was cut")
                read_bytes += got
            yield start, np.frombuffer(filled, frames.dtype).reshape(-1, *frames.shape[1:])
