"""Frames that are not stored as they are handed out: counts, zero frequency in the corner, turned
axes, bad pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError
from ptycho.files.stacks import CHUNK_BYTES, FrameStack, Indices, fault_in, frames_per_chunk, three

AXES = ("frame", "row", "column")

Center = Literal["center", "corner"]
Units = Literal["pixels", "metres"]


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What the stored numbers are; raises ContainerError for words that mean nothing."""

    intensity: bool = False
    """Counts, whose square root is the amplitude."""
    dc: Center = "center"
    """Where zero frequency is: at [N/2, N/2] or at [0, 0]."""
    axes: str = ",".join(AXES)
    """The stored axes, slowest first."""

    def __post_init__(self) -> None:
        if not isinstance(self.intensity, bool):
            raise ContainerError(
                f"intensity is {self.intensity!r}; True for counts, False for amplitudes"
            )
        if self.dc not in ("center", "corner"):
            raise ContainerError(
                f"dc is {self.dc!r}; 'center' or 'corner' says where zero frequency is in a frame"
            )
        if not isinstance(self.axes, str) or sorted(self._words()) != sorted(AXES):
            raise ContainerError(
                f"axes is {self.axes!r}; name the stored axes in their order, such as "
                f"{','.join(AXES)!r}"
            )

    def _words(self) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.axes.split(","))

    @property
    def order(self) -> tuple[int, int, int]:
        """Where frame, row and column are among the stored axes: what ``transpose`` wants."""
        return three(tuple(self._words().index(word) for word in AXES))

    @property
    def is_turned(self) -> bool:
        """Whether columns are stored before rows."""
        _, row, column = self.order
        return column < row

    @property
    def is_scattered(self) -> bool:
        """Whether the pixels of one frame are stored far from each other."""
        return self.order[0] != 0

    @property
    def is_contract(self) -> bool:
        """Whether frames are handed out as they are stored, but for bad pixels and byte order."""
        return not self.intensity and self.dc == "center" and not self.is_turned


class ConvertedFrames(FrameStack):
    """Amplitudes made of stored frames when they are asked for; holds a few frames of scratch and
    no copy.

    ``is_bad`` (N, N), turned and shifted as the frames are stored, marks pixels that read 0 in
    every frame.
    """

    def __init__(
        self,
        stored: FrameStack,
        interpretation: Interpretation,
        is_bad: npt.NDArray[np.bool_] | None,
    ) -> None:
        self._stored, self._intensity = stored, interpretation.intensity
        self._is_turned, self._is_shifted = interpretation.is_turned, interpretation.dc == "corner"
        self._half = stored.shape[1] // 2
        self._is_bad = is_bad
        self._bad = None if is_bad is None else np.flatnonzero(self._handed_out(is_bad))
        self.file = stored.file
        self.quantity = "count" if interpretation.intensity else "amplitude"
        done = "converted to amplitude" if interpretation.intensity else "rearranged"
        self.description = f"{stored.description}, {done} batch by batch"
        is_double = not interpretation.intensity and stored.dtype.itemsize == 8
        self._dtype = np.dtype(np.float64 if is_double else np.float32)
        # Stored frames on their way; kept, because malloc would keep one in the arena of every
        # thread that reads.
        self._free_scratch: list[npt.NDArray[Any]] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return self._stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32; float64 where amplitudes are stored so."""
        return self._dtype

    def take(self, frames: Indices, out: npt.NDArray[Any]) -> None:
        """Write the amplitudes of ``frames`` (b,) into ``out`` (b, N, N)."""
        try:
            scratch = self._free_scratch.pop()
        except IndexError:  # the first call, or one beside another thread's
            scratch = np.empty((1, *self.shape[1:]), self._stored.dtype)
        for row in range(len(frames)):
            self._stored.take(frames[row : row + 1], scratch)
            self._convert(scratch, out[row : row + 1])
        self._free_scratch.append(scratch)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """(first frame, amplitudes) through two buffers that together take about
        ``chunk_bytes``.
        """
        stored_bytes = self._stored.frame_bytes
        per_chunk = frames_per_chunk(
            self, chunk_bytes * self.frame_bytes // (self.frame_bytes + stored_bytes)
        )
        out = np.empty((per_chunk, *self.shape[1:]), self.dtype)
        for start, stored in self._stored.chunks(per_chunk * stored_bytes):
            for first in range(0, len(stored), per_chunk):
                block = stored[first : first + per_chunk]
                self._convert(block, out[: len(block)])
                yield start + first, out[: len(block)]

    def check(self) -> None:
        """Raise ScanFileError where a file behind the frames has changed since it was opened."""
        self._stored.check()

    def fault(self, frame: int) -> str:
        """The first stored value of ``frame``, bad pixels aside, that can be no amplitude or
        count.
        """
        stored = np.array(self._stored[frame])
        if self._is_bad is not None:
            stored[self._is_bad] = 0
        return fault_in(stored)

    def _handed_out(self, is_bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        turned = is_bad.T if self._is_turned else is_bad
        return np.fft.fftshift(turned) if self._is_shifted else turned

    def _convert(self, stored: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        turned = stored.transpose(0, 2, 1) if self._is_turned else stored
        # What is no count comes out as NaN and is refused by the pass over all frames, unless it is
        # masked.
        with np.errstate(invalid="ignore", over="ignore"):
            if not self._is_shifted:
                self._write(turned, out)
            else:
                low, high = slice(None, self._half), slice(self._half, None)
                for rows, other_rows in ((low, high), (high, low)):
                    for columns, other_columns in ((low, high), (high, low)):
                        self._write(turned[:, rows, columns], out[:, other_rows, other_columns])
        if self._bad is not None:
            out.reshape(len(out), -1)[:, self._bad] = 0

    def _write(self, values: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        if not self._intensity:
            np.copyto(out, values, casting="same_kind")
        elif values.dtype == np.float32:
            np.sqrt(values, out=out)
        else:
            # In float64, block by block: counts above 2^24 have no float32 of their own.
            np.sqrt(values, out=out, dtype=np.float64, casting="same_kind")
