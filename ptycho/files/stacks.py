"""Frames where they are: one small interface over every way of reading them, and the pass that
finds their energies and checks every value.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import FileArray, Progress

Indices = npt.NDArray[np.intp]

CHUNK_BYTES = 1 << 20
"""Chosen: a read of this size costs only its bytes, it stays in the processor's cache, and even a
small scan has more."""


class FrameStack(ABC):
    """M frames of N x N pixels that are read when they are asked for.

    What a scan hands out is float32 or float64 amplitude with zero frequency at [N/2, N/2].
    Indexing and ``np.asarray`` work as on the array (M, N, N); slices and index arrays copy, one
    frame may be a view.
    """

    description: str
    """How the frames are read, one phrase."""
    file: FileArray | None = None
    """Where the frames lie one after the other as they are handed out or, if they are converted, as
    they are stored."""
    quantity: str = "amplitude"
    """What is stored, for messages."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """What is handed out."""

    @abstractmethod
    def take(self, frames: Indices, out: npt.NDArray[Any]) -> None:
        """Write ``frames`` (b,), each within 0..M-1, into ``out`` (b, N, N) of ``dtype``,
        C-contiguous.

        Threads may call it side by side. Raises ScanError naming the frame where the file is
        damaged.
        """

    @abstractmethod
    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first frame, (b, N, N) frames) in file order; every chunk is overwritten by the next.

        Reads through a buffer of about ``chunk_bytes`` and at least one frame, and not through a
        memory map, so that the process does not grow by the file. Raises ScanFileError where the
        file has changed.
        """

    def check(self) -> None:
        """Raise ScanFileError where a file behind the frames has changed, or is gone, since it was
        opened.
        """
        if self.file is not None:
            self.file.check()

    def fault(self, frame: int) -> str:
        """The first value of ``frame`` that can be no amplitude: what it is and where, for
        messages.
        """
        return fault_in(self[frame])

    @property
    def nbytes(self) -> int:
        """What the complete stack would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def frame_bytes(self) -> int:
        """What one frame takes in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        """M."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - anything that indexes the first axis
        """Frames by number, slice or index array (...,) -> (..., N, N); a tuple goes on into the
        pixels.
        """
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        chosen = np.arange(len(self))[first]  # IndexError as an array's
        out = np.empty((chosen.size, *self.shape[1:]), self.dtype)
        self.take(chosen.reshape(-1), out)
        complete = out.reshape(*chosen.shape, *self.shape[1:])
        return complete[(*(slice(None),) * chosen.ndim, *rest)] if rest else complete

    def __array__(
        self,
        dtype: npt.DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 - numpy's
    ) -> npt.NDArray[Any]:
        """All frames, (M, N, N): this is the cost the stack exists to avoid."""
        if copy is False:
            raise ValueError("the frames of a stack are not in memory; reading them makes an array")
        complete = np.empty(self.shape, self.dtype)
        self.take(np.arange(len(self)), complete)
        return complete if dtype is None else complete.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape} {self.dtype}, {self.description}>"


class ArrayFrames(FrameStack):
    """Frames in memory, or in a memory map that was made elsewhere."""

    description = "in memory"

    def __init__(self, frames: npt.NDArray[Any]) -> None:
        # A plain view: the memmap subclass costs more than the copy of a small frame.
        self._frames = frames.view(np.ndarray)
        # np.take makes a copy of ALL frames where they are not aligned, in this machine's byte
        # order and one after the other. Their bytes always are the first two; frames with gaps
        # between their values are copied one by one.
        is_plain = self._frames.flags.aligned and self._frames.dtype.isnative
        self._has_gaps = not self._frames.flags.c_contiguous
        self._as_bytes = None if is_plain or self._has_gaps else _bytes_of(self._frames)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return three(self._frames.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the array."""
        dtype: np.dtype[Any] = self._frames.dtype
        return dtype

    def take(self, frames: Indices, out: npt.NDArray[Any]) -> None:
        """Write ``frames`` (b,) into ``out`` (b, N, N)."""
        # The indices are within the stack; "clip" is what lets take() write straight into its
        # output.
        if self._has_gaps:
            for row, frame in enumerate(frames):
                out[row] = self._frames[frame]
        elif self._as_bytes is None:
            np.take(self._frames, frames, axis=0, out=out, mode="clip")
        else:
            np.take(self._as_bytes, frames, axis=0, out=_bytes_of(out), mode="clip")

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first frame, frames) as views."""
        step = frames_per_chunk(self, chunk_bytes)
        for start in range(0, len(self), step):
            yield start, self._frames[start : start + step]


class MappedFrames(ArrayFrames):
    """Frames that lie one after the other in a file: mapped, and read by plain reads in a pass."""

    description = "memory-mapped"

    def __init__(self, file: FileArray, *, name: str) -> None:
        self.file: FileArray = file
        self._map, self._name = file.map(), name
        super().__init__(self._map)

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - as on the map
        """As on the read-only memory map: one frame and slices are views."""
        found: npt.NDArray[Any] = self._map[index]
        return found

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first frame, frames) through one buffer."""
        count, frame_bytes, per_chunk = (
            len(self),
            self.frame_bytes,
            frames_per_chunk(self, chunk_bytes),
        )
        buffer = bytearray(per_chunk * frame_bytes)
        with self.file.open() as file:
            file.seek(self.file.offset_bytes)
            for start in range(0, count, per_chunk):
                filled = memoryview(buffer)[: min(per_chunk, count - start) * frame_bytes]
                read_bytes = 0
                # An unbuffered read may stop early, on Linux at 2 GiB (read(2)).
                while read_bytes < len(filled):
                    got = file.readinto(filled[read_bytes:])
                    if not got:
                        frame = start + read_bytes // frame_bytes
                        raise ScanError(
                            f"{self._name} ends in frame {frame} of {count}; the file was cut"
                        )
                    read_bytes += got
                yield start, np.frombuffer(filled, self.dtype).reshape(-1, *self.shape[1:])


def frames_per_chunk(stack: FrameStack, chunk_bytes: int) -> int:
    """How many frames of ``stack`` a buffer of ``chunk_bytes`` holds: one at least, and no more
    than there are.
    """
    return max(1, min(len(stack), chunk_bytes // stack.frame_bytes))


def three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape of three axes, for the type checker."""
    count, rows, columns = shape
    return count, rows, columns


def _bytes_of(frames: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The same memory, (M, bytes of a frame)."""
    return frames.view(np.uint8).reshape(len(frames), -1)


def fault_in(frame: npt.NDArray[Any]) -> str:
    """The first value of a frame that can be no amplitude or count, or else the largest: what it is
    and where.
    """
    with np.errstate(invalid="ignore"):
        is_bad = ~np.isfinite(frame) | (frame < 0)
    if not is_bad.any():  # too large, then
        is_bad = frame == frame.max()
    row, column = np.unravel_index(int(np.argmax(is_bad)), frame.shape)
    return f"{frame[row, column]:g} at [{row}, {column}]"


# One bounded pass over the frames: their energies, and with them every check of their values.


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
    float32; ``fault`` says which value of which pixel it is, and ``quantity`` what is stored
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
