"""Where ground truth comes from: parts of complex images, patches of the object, or nothing at
all.
"""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError
from ptycho.feeding.sources import GroupSource, Images, Indices, Part, four_of
from ptycho.positions import patch_corner


class ComplexPart(GroupSource):
    """Amplitude or phase of a complex grouped array (B, N, N, C), taken batch by batch."""

    def __init__(self, array: npt.NDArray[Any], part: Part) -> None:
        self._array, self._part = np.asarray(array), part

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return four_of(self._array.shape)

    def read(self, groups: Indices, out: Images) -> None:
        """Write the part of array[groups] into ``out`` (b, N, N, C) float32."""
        for row, index in enumerate(groups):
            write_part(self._array[index], self._part, out[row])

    def first_channel(self) -> GroupSource:
        """Channel 0 alone, (B, N, N, 1)."""
        return ComplexPart(self._array[..., :1], self._part)


class ObjectPatches(GroupSource):
    """The object (H, W), its amplitude or its phase, where every frame was measured, cut batch by
    batch.

    ``coords`` (B, 1, 2, C) are absolute patch centres [x, y]; a patch is object[y-N/2:y+N/2,
    x-N/2:x+N/2] at the rounded position. Raises ContainerError where a patch leaves the object.
    """

    def __init__(
        self,
        obj: npt.NDArray[np.complexfloating],
        coords: npt.NDArray[np.float32],
        frame_size: int,
        part: Part,
    ) -> None:
        # int32: 8 bytes per frame, and no object is wider than 2^31 pixels.
        corners = patch_corner(coords[:, 0].astype(np.float64), frame_size).astype(np.int32)
        extent = np.array([[obj.shape[1]], [obj.shape[0]]])
        is_outside = ((corners < 0) | (corners + frame_size > extent)).any(axis=(1, 2))
        if is_outside.any():
            raise ContainerError(
                f"group {int(np.argmax(is_outside))} leaves the object of shape "
                f"{obj.shape}; check its positions"
            )
        self._object, self._corners, self._frame_size = obj, corners, frame_size
        self._part: Part = part

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        group_count, _, channel_count = self._corners.shape
        return group_count, self._frame_size, self._frame_size, channel_count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Complex64 for whole patches."""
        return np.dtype(np.complex64 if self._part == "complex" else np.float32)

    def read(self, groups: Indices, out: Images) -> None:
        """Write the patches of ``groups`` into ``out`` (b, N, N, C)."""
        size = self._frame_size
        for row, index in enumerate(groups):
            for channel, (column, line) in enumerate(self._corners[index].T.tolist()):
                patch = self._object[line : line + size, column : column + size]
                write_part(patch, self._part, out[row, :, :, channel])

    def first_channel(self) -> GroupSource:
        """Channel 0 alone, (B, N, N, 1)."""
        first = copy.copy(self)
        first._corners = self._corners[..., :1]
        return first


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

    def first_channel(self) -> GroupSource:
        """Channel 0 alone, (B, N, N, 1)."""
        return Constant(self._value, (*self._shape[:3], 1))


def write_part(values: npt.NDArray[Any], part: Part, out: Images) -> None:
    """Write amplitude, phase or all of complex ``values`` into ``out`` of the same shape."""
    if part == "complex":
        out[...] = values
    elif part == "amplitude":
        np.abs(values, out=out, casting="same_kind")
    else:
        np.arctan2(values.imag, values.real, out=out, casting="same_kind")


class StackPart(GroupSource):
    """Amplitude or phase of a complex source, group by group."""

    def __init__(self, source: GroupSource, part: Part) -> None:
        self._source, self._part = source, part
        # Kept, because malloc would keep one in the arena of every thread that reads.
        self._free_scratch: list[Images] = []

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return self._source.shape

    def check(self) -> None:
        """Raise ScanFileError where a file behind the images has changed since it was opened."""
        self._source.check()

    def first_channel(self) -> GroupSource:
        """Channel 0 alone, (B, N, N, 1)."""
        return StackPart(self._source.first_channel(), self._part)

    def read(self, groups: Indices, out: Images) -> None:
        """Write the part of the images of ``groups`` (b,) into ``out`` (b, N, N, C) float32."""
        try:
            scratch = self._free_scratch.pop()
        except IndexError:  # the first read, or one beside another thread's
            scratch = np.empty((1, *self.shape[1:]), self._source.dtype)
        for row in range(len(groups)):
            self._source.read(groups[row : row + 1], scratch)
            write_part(scratch[0], self._part, out[row])
        self._free_scratch.append(scratch)
