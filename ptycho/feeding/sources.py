"""Where the images of a group come from: every source is (B, N, N, C) to its reader and stores as
little as it can.

``GroupSource`` is the interface. ``FrameGather`` gathers frames, ``GroupedArray`` has groups as
they are; ground truth comes from complex images, from patches of the object, or is constant.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError
from ptycho.files import FileArray
from ptycho.files.arrays import patch_corner
from ptycho.files.stacks import ArrayFrames, FrameStack

Images = npt.NDArray[Any]
"""(b, N, N, C) of a source's dtype."""
Indices = npt.NDArray[np.intp]
Part = Literal["amplitude", "phase", "complex"]

_PIECE_BYTES = 512 << 10
"""Frames of one channel that are gathered at a time, half of what a core's own cache holds. One
channel after the other is as fast as any order that was measured; smaller pieces cost calls, and
threads a change of hands, larger ones leave the cache."""


class GroupSource(ABC):
    """A stack of grouped images that can be read group by group."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""

    @abstractmethod
    def read(self, groups: Indices, out: Images) -> None:
        """Write the images of ``groups`` (b,) into ``out`` (b, N, N, C) of this source's dtype."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float32; complex64 where a source says so."""
        return np.dtype(np.float32)

    def group_energies(self) -> npt.NDArray[np.float64] | None:
        """Energy sum_xy image^2 averaged over the channels, (B,), where it is known without reading
        an image; else None.
        """
        return None

    def check(self) -> None:  # noqa: B027 - nothing can change where no file is
        """Raise ScanFileError where a file behind the images has changed; asked whenever a pass
        over them begins.
        """

    @property
    def file(self) -> FileArray | None:
        """Where the frames lie one after the other, if they are read from one file."""
        return None

    @property
    def description(self) -> str:
        """How the images are read, in a few words."""
        return _description(None)

    def frames_of(self, groups: Indices) -> npt.NDArray[np.int64]:
        """The frames of ``file`` that ``groups`` (b,) are made of, (b, C); (b, 0) where there is no
        file.
        """
        return np.empty((len(groups), 0), np.int64)

    def first_channel(self) -> "GroupSource":
        """Channel 0 alone, (B, N, N, 1)."""
        return FirstChannel(self)

    @property
    def nbytes(self) -> int:
        """What the complete stack takes in memory; the source itself may store far less."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __array__(
        self,
        dtype: npt.DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 - numpy's
    ) -> npt.NDArray[Any]:
        """The complete stack, (B, N, N, C): this is the cost the source exists to avoid."""
        if copy is False:
            raise ValueError(
                "the images of a source are not stored as one array; reading them makes one"
            )
        complete = np.empty(self.shape, self.dtype)
        read_all(self, complete)
        return complete if dtype is None else complete.astype(dtype, copy=False)


class Wrapped(GroupSource):
    """A source made of another one; what it does not define itself is that of the other."""

    def __init__(self, source: GroupSource) -> None:
        self._source = source

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the source."""
        return self._source.dtype

    @property
    def file(self) -> FileArray | None:
        """That of the source."""
        return self._source.file

    @property
    def description(self) -> str:
        """That of the source."""
        return self._source.description

    def check(self) -> None:
        """Raise ScanFileError where a file behind the images has changed since it was opened."""
        self._source.check()

    def frames_of(self, groups: Indices) -> npt.NDArray[np.int64]:
        """Those of the source."""
        return self._source.frames_of(groups)


class FirstChannel(Wrapped):
    """Channel 0 of a source that cannot read it alone."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, 1)."""
        return (*self._source.shape[:3], 1)

    def frames_of(self, groups: Indices) -> npt.NDArray[np.int64]:
        """(b, 1), or (b, 0) where there is no file."""
        return self._source.frames_of(groups)[:, :1]

    def read(self, groups: Indices, out: Images) -> None:
        """Write channel 0 of ``groups`` into ``out`` (b, N, N, 1), through all channels of one
        group at a time.
        """
        channels = np.empty((1, *self._source.shape[1:]), self.dtype)
        for row in range(len(groups)):
            self._source.read(groups[row : row + 1], channels)
            out[row] = channels[0, ..., :1]


class Scaled(Wrapped):
    """A source times a factor: rounded to float32 before and after, as if the complete stack were
    multiplied.
    """

    def __init__(self, source: GroupSource, factor: float) -> None:
        super().__init__(source)
        self._factor = np.float32(factor)

    def read(self, groups: Indices, out: Images) -> None:
        """Write factor * source[groups] into ``out`` (b, N, N, C) float32, while each piece is in
        the processor's cache.
        """
        step = _piece_groups(self.shape)

        for start in range(0, len(groups), step):
            piece = out[start : start + step]
            self._source.read(groups[start : start + step], piece)
            piece *= self._factor


def read_all(source: GroupSource, out: Images) -> None:
    """Write the complete stack into ``out`` (B, N, N, C); raises ScanFileError where its file has
    changed.
    """
    source.check()
    source.read(np.arange(source.shape[0]), out)


def places_of(source: GroupSource) -> npt.NDArray[np.int64]:
    """(B,) where in the source's file each group begins, in frames."""
    # In pieces: all frames of all groups at once would be C times as much.
    return np.concatenate(
        [source.frames_of(part)[:, 0] for part in np.array_split(np.arange(source.shape[0]), 64)]
    )


class GroupedArray(GroupSource):
    """A grouped array as it is, (B, N, N, C) of any real dtype; converted batch by batch, never
    copied.

    It may be a memory map of ``file``.
    """

    def __init__(
        self, array: npt.NDArray[Any], scale: float = 1.0, *, file: FileArray | None = None
    ) -> None:
        self._array, self._scale, self._file = np.asarray(array), scale, file

    def check(self) -> None:
        """Raise ScanFileError where the file behind the array has changed since it was opened."""
        if self._file is not None:
            self._file.check()

    @property
    def file(self) -> FileArray | None:
        """Where the groups lie."""
        return self._file

    @property
    def description(self) -> str:
        """How the groups are read."""
        return _description(self._file)

    def frames_of(self, groups: Indices) -> npt.NDArray[np.int64]:
        """(b, 1): of this file, the groups themselves."""
        return groups[:, None]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return four_of(self._array.shape)

    def read(self, groups: Indices, out: Images) -> None:
        """Write scale * array[groups] into ``out`` (b, N, N, C) float32."""
        factor = _factor(self._scale, self._array.dtype)
        for row, index in enumerate(groups):
            if factor is None:
                out[row] = self._array[index]
            else:
                np.multiply(self._array[index], factor, out=out[row], casting="same_kind")

    def first_channel(self) -> GroupSource:
        """Channel 0 alone, (B, N, N, 1)."""
        return GroupedArray(self._array[..., :1], self._scale)


class FrameGather(GroupSource):
    """Frames stored once, (M, N, N) real or complex, and gathered by group index (B, C).

    ``energies`` (M,) float64 are those of the frames as they are stored, where they are known
    already.
    """

    def __init__(
        self,
        frames: FrameStack | npt.NDArray[Any],
        nn_indices: npt.NDArray[np.int64],
        scale: float = 1.0,
        *,
        energies: npt.NDArray[np.float64] | None = None,
    ) -> None:
        if nn_indices.size and not 0 <= nn_indices.min() <= nn_indices.max() < len(frames):
            raise ContainerError(
                f"nn_indices lie between {nn_indices.min()} and {nn_indices.max()}, "
                f"but there are {len(frames)} frames, numbered from 0"
            )
        self._frames = frames if isinstance(frames, FrameStack) else ArrayFrames(frames)
        self._nn_indices, self._scale, self._energies = nn_indices, scale, energies
        # Frames on their way into a batch; kept, because malloc would keep one in the arena of
        # every thread that reads.
        self._free_scratch: list[npt.NDArray[Any]] = []

    def check(self) -> None:
        """Raise ScanFileError where the file behind the frames has changed since it was opened."""
        self._frames.check()

    @property
    def file(self) -> FileArray | None:
        """Where the frames lie."""
        return self._frames.file

    @property
    def description(self) -> str:
        """How the frames are read."""
        return f"frames {self._frames.description}"

    def frames_of(self, groups: Indices) -> npt.NDArray[np.int64]:
        """(b, C) frame numbers."""
        return self._nn_indices[groups]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Complex64 for complex frames."""
        return np.dtype(np.complex64 if self._frames.dtype.kind == "c" else np.float32)

    def group_energies(self) -> npt.NDArray[np.float64] | None:
        """(B,) out of the energies of the frames."""
        if self._energies is None:
            return None
        energies: npt.NDArray[np.float64] = self._scale**2 * self._energies[self._nn_indices].mean(
            axis=1
        )
        return energies

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        (group_count, channel_count), (_, rows, columns) = (
            self._nn_indices.shape,
            self._frames.shape,
        )
        return group_count, rows, columns, channel_count

    def read(self, groups: Indices, out: Images) -> None:
        """Write scale * frames[nn_indices[groups]] into ``out`` (b, N, N, C), channels last."""
        factor = _factor(self._scale, self._frames.dtype)
        step = _piece_groups(self.shape)
        try:
            scratch = self._free_scratch.pop()
        except IndexError:  # the first read, or one beside another thread's
            scratch = np.empty((step, *self._frames.shape[1:]), self._frames.dtype)
        for start in range(0, len(groups), step):
            chosen = self._nn_indices[groups[start : start + step]]
            block = out[start : start + step]
            for channel in range(chosen.shape[1]):
                frames = scratch[: len(chosen)]
                self._frames.take(chosen[:, channel], frames)
                if factor is None:
                    block[..., channel] = frames
                else:
                    np.multiply(frames, factor, out=block[..., channel], casting="same_kind")
        self._free_scratch.append(scratch)


def _description(file: FileArray | None) -> str:
    return "gathered from memory" if file is None else "gathered from a memory-mapped file"


def _piece_groups(shape: tuple[int, int, int, int]) -> int:
    """Groups whose frames of one channel, as float32, make a piece."""
    return max(1, _PIECE_BYTES // (shape[1] * shape[2] * np.dtype(np.float32).itemsize))


def four_of(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """``shape``, which has four extents, as a type checker wants it."""
    group_count, rows, columns, channel_count = shape
    return group_count, rows, columns, channel_count


def _factor(scale: float, dtype: np.dtype[Any]) -> np.floating[Any] | None:
    """The scale in the precision of the values, or None where there is nothing to multiply."""
    if scale == 1:
        return None
    return np.float64(scale) if dtype == np.float64 else np.float32(scale)


# Ground truth: parts of complex images, patches of the object, or a constant.


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
        """Complex64 for complete patches."""
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
    """The same value everywhere: the ground truth of a scan without an object. Stores nothing."""

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


class StackPart(Wrapped):
    """Amplitude or phase of a complex source, group by group."""

    def __init__(self, source: GroupSource, part: Part) -> None:
        super().__init__(source)
        self._part: Part = part
        # Kept, because malloc would keep one in the arena of every thread that reads.
        self._free_scratch: list[Images] = []

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float32."""
        return np.dtype(np.float32)

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
