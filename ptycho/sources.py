"""Where the images of a group come from: every source is (B, N, N, C) to its reader and stores as little as it can."""

from abc import abstractmethod
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError
from ptycho.formats.contents import FileArray
from ptycho.physics import patch_corner
from ptycho.stacks import ArrayFrames, FrameStack

Images = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_GATHER_GROUPS = 16
"""Groups per step of the gather: 256 KiB of frames at N = 64, so that they are still in cache when they are interleaved;
one channel after the other is as fast as any order that was measured and needs no second pass over the batch."""


@runtime_checkable
class GroupSource(Protocol):
    """A stack of grouped images that can be read group by group."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""

    @abstractmethod
    def read(self, groups: Indices, out: Images) -> None:
        """Write the images of ``groups`` (b,) into ``out`` (b, N, N, C) float32."""

    def check(self) -> None:
        """Raise ScanFileError where a file behind the images has changed; asked whenever a pass over them begins."""
        return

    @property
    def nbytes(self) -> int:
        """What the whole stack takes as float32; the source itself may store far less."""
        return int(np.prod(self.shape)) * np.dtype(np.float32).itemsize

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 - numpy's
        """The whole stack, (B, N, N, C) float32: this is the cost the source exists to avoid."""
        if copy is False:
            raise ValueError("the images of a source are not stored as one array; reading them makes one")
        whole = np.empty(self.shape, np.float32)
        read_all(self, whole)
        return whole if dtype is None else whole.astype(dtype, copy=False)


def read_all(source: GroupSource, out: Images) -> None:
    """Write the whole stack into ``out`` (B, N, N, C) float32; raises ScanFileError where its file has changed."""
    source.check()
    source.read(np.arange(source.shape[0]), out)


class GroupedArray(GroupSource):
    """A grouped array as it is, (B, N, N, C) of any real dtype; converted batch by batch, never copied."""

    def __init__(self, array: npt.NDArray[Any], scale: float = 1.0) -> None:
        self._array, self._scale = np.asarray(array), scale

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return _four(self._array.shape)

    def read(self, groups: Indices, out: Images) -> None:
        """Write scale * array[groups] into ``out`` (b, N, N, C) float32."""
        factor = _factor(self._scale, self._array.dtype)
        for row, index in enumerate(groups):
            if factor is None:
                out[row] = self._array[index]
            else:
                np.multiply(self._array[index], factor, out=out[row], casting="same_kind")


class ComplexPart(GroupSource):
    """Amplitude or phase of a complex grouped array (B, N, N, C), taken batch by batch."""

    def __init__(self, array: npt.NDArray[Any], part: Literal["amplitude", "phase"]) -> None:
        self._array, self._part = np.asarray(array), part

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return _four(self._array.shape)

    def read(self, groups: Indices, out: Images) -> None:
        """Write the part of array[groups] into ``out`` (b, N, N, C) float32."""
        for row, index in enumerate(groups):
            _write_part(self._array[index], self._part, out[row])


class FrameGather(GroupSource):
    """Frames stored once, (M, N, N) float32 or float64, and gathered by group index (B, C); a memory map of ``file``, if given."""

    def __init__(
        self,
        frames: FrameStack | npt.NDArray[Any],
        nn_indices: npt.NDArray[np.int64],
        scale: float = 1.0,
        *,
        file: FileArray | None = None,
    ) -> None:
        if nn_indices.size and not 0 <= nn_indices.min() <= nn_indices.max() < len(frames):
            raise ContainerError(
                f"nn_indices lie between {nn_indices.min()} and {nn_indices.max()}, "
                f"but there are {len(frames)} frames, numbered from 0"
            )
        self._frames = frames if isinstance(frames, FrameStack) else ArrayFrames(frames)
        self._nn_indices, self._scale, self._file = nn_indices, scale, file
        # Frames on their way into a batch; kept, because malloc would keep one in the arena of every thread that reads.
        self._free_scratch: list[npt.NDArray[Any]] = []

    def check(self) -> None:
        """Raise ScanFileError where the file behind the frames has changed since it was opened."""
        self._frames.check()
        if self._file is not None:
            self._file.check()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        (group_count, channel_count), (_, rows, columns) = self._nn_indices.shape, self._frames.shape
        return group_count, rows, columns, channel_count

    def read(self, groups: Indices, out: Images) -> None:
        """Write scale * frames[nn_indices[groups]] into ``out`` (b, N, N, C) float32, channels last."""
        factor = _factor(self._scale, self._frames.dtype)
        try:
            scratch = self._free_scratch.pop()
        except IndexError:  # the first read, or one beside another thread's
            scratch = np.empty((_GATHER_GROUPS, *self._frames.shape[1:]), self._frames.dtype)
        for start in range(0, len(groups), _GATHER_GROUPS):
            chosen = self._nn_indices[groups[start : start + _GATHER_GROUPS]]
            block = out[start : start + _GATHER_GROUPS]
            for channel in range(chosen.shape[1]):
                frames = scratch[: len(chosen)]
                self._frames.take(chosen[:, channel], frames)
                if factor is None:
                    block[..., channel] = frames
                else:
                    np.multiply(frames, factor, out=block[..., channel], casting="same_kind")
        self._free_scratch.append(scratch)


class ObjectPatches(GroupSource):
    """Amplitude or phase of the object (H, W) where every frame was measured, cut batch by batch.

    ``coords`` (B, 1, 2, C) are absolute patch centres [x, y]; a patch is object[y-N/2:y+N/2, x-N/2:x+N/2] at the
    rounded position. Raises ContainerError where a patch leaves the object.
    """

    def __init__(
        self,
        obj: npt.NDArray[np.complex64],
        coords: npt.NDArray[np.float32],
        frame_size: int,
        part: Literal["amplitude", "phase"],
    ) -> None:
        # int32: 8 bytes per frame, and no object is wider than 2^31 pixels.
        corners = patch_corner(coords[:, 0].astype(np.float64), frame_size).astype(np.int32)
        extent = np.array([[obj.shape[1]], [obj.shape[0]]])
        is_outside = ((corners < 0) | (corners + frame_size > extent)).any(axis=(1, 2))
        if is_outside.any():
            raise ContainerError(f"group {int(np.argmax(is_outside))} leaves the object of shape {obj.shape}; check its positions")
        self._object, self._corners, self._frame_size, self._part = obj, corners, frame_size, part

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        group_count, _, channel_count = self._corners.shape
        return group_count, self._frame_size, self._frame_size, channel_count

    def read(self, groups: Indices, out: Images) -> None:
        """Write the patches of ``groups`` into ``out`` (b, N, N, C) float32."""
        size = self._frame_size
        for row, index in enumerate(groups):
            for channel, (column, line) in enumerate(self._corners[index].T.tolist()):
                patch = self._object[line : line + size, column : column + size]
                _write_part(patch, self._part, out[row, :, :, channel])


class Constant(GroupSource):
    """The same value everywhere: the ground truth of those who have none. Stores nothing."""

    def __init__(self, value: float, shape: tuple[int, int, int, int]) -> None:
        self._value, self._shape = value, shape

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return self._shape

    def read(self, groups: Indices, out: Images) -> None:
        """Fill ``out`` (b, N, N, C) float32."""
        out[: len(groups)] = self._value


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    group_count, rows, columns, channel_count = shape
    return group_count, rows, columns, channel_count


def _factor(scale: float, dtype: np.dtype[Any]) -> np.floating[Any] | None:
    """The scale in the precision of the values, or None where there is nothing to multiply."""
    if scale == 1:
        return None
    return np.float64(scale) if dtype == np.float64 else np.float32(scale)


def _write_part(values: npt.NDArray[Any], part: Literal["amplitude", "phase"], out: Images) -> None:
    if part == "amplitude":
        np.abs(values, out=out, casting="same_kind")
    else:
        np.arctan2(values.imag, values.real, out=out, casting="same_kind")
