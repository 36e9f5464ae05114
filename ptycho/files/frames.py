"""From the frames of a file to a stack of amplitudes: mapped, read through h5py, unpacked or
repacked, and converted where they are not stored as they are handed out.
"""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, ScanError
from ptycho.files import FileArray, FileState, Part, Progress
from ptycho.files.npz import NpzPart, header_bytes, pieces
from ptycho.files.stacks import (
    CHUNK_BYTES,
    FrameStack,
    Indices,
    MappedFrames,
    fault_in,
    frames_per_chunk,
    three,
)
from ptycho.files.storage import keep_copy

# Frames that are not stored as they are handed out: counts, zero frequency in the corner, turned
# axes, bad pixels.


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


_SLAB_BYTES = 8 << 20
"""Chosen: of the stored frames while they are repacked; larger reads gain nothing."""


def open_frames(
    part: Part,
    scan_path: Path,
    interpretation: Interpretation,
    is_bad: npt.NDArray[np.bool_] | None,
    *,
    cache_dir: Path | None,
    cache_bytes: int,
    repack: bool,
    progress: Progress | None,
) -> tuple[FrameStack, list[str]]:
    """The frames as amplitudes and what had to be done for it.

    Raises ScanError for frames that cannot be read frame by frame, unless they are repacked;
    ScanFileError where a copy cannot be written.
    """
    where, notes = _contiguous(part, scan_path, cache_dir, progress)

    if repack and (where is None or interpretation.is_scattered):
        where, note = _repacked(
            part, where, scan_path, interpretation, cache_dir=cache_dir, progress=progress
        )
        notes.append(note)
        if is_bad is not None and interpretation.is_turned:
            is_bad = is_bad.T
        interpretation = Interpretation(interpretation.intensity, interpretation.dc)

    if interpretation.is_scattered:
        raise ScanError(
            f"{part.name} has the axes {interpretation.axes}, so every frame is scattered over the "
            "whole file; give repack=True to write the frames one after the other"
        )

    if where is not None:
        stack: FrameStack = MappedFrames(where, name=part.name)
    else:
        stack = _chunked(part, cache_bytes)

    is_plain = interpretation.is_contract and is_bad is None and stack.dtype.isnative
    return (stack if is_plain else ConvertedFrames(stack, interpretation, is_bad)), notes


def _contiguous(
    part: Part, scan_path: Path, cache_dir: Path | None, progress: Progress | None
) -> tuple[FileArray | None, list[str]]:
    if isinstance(part, NpzPart):
        where, note = located(part, scan_path, cache_dir, progress)
        return where, [note]
    return part.file, [] if part.file is None else [
        f"{part.key} is mapped where it lies in the file"
    ]


def located(
    part: NpzPart, scan_path: Path, cache_dir: Path | None, progress: Progress | None = None
) -> tuple[FileArray, str]:
    """Where the values of an NPZ's member lie, and what had to be done for it: a compressed one is
    unpacked once.

    Raises ScanError for a damaged member, ScanFileError where the copy cannot be written.
    """
    if part.file is not None:
        return (
            part.file,
            f"{part.key} is mapped where it lies in the file; its checksum is not verified",
        )
    copy, is_new = spool(
        scan_path, part.archive, part.member, cache_dir=cache_dir, progress=progress
    )
    done = "was unpacked once to" if is_new else "is read from its unpacked copy"
    return part.at_start_of(
        copy
    ), f"{part.key} is compressed, which has no random access; it {done} {copy}"


def _chunked(part: Part, cache_bytes: int) -> FrameStack:
    from ptycho.files.hdf5 import ChunkedFrames, Hdf5Part

    assert isinstance(part, Hdf5Part)  # noqa: S101 - the only one without a file
    return ChunkedFrames(part, cache_bytes=cache_bytes)


def _repacked(
    part: Part,
    where: FileArray | None,
    scan_path: Path,
    interpretation: Interpretation,
    *,
    cache_dir: Path | None,
    progress: Progress | None,
) -> tuple[FileArray, str]:
    """The frames (M, N, N) one after the other in the cache folder, in the type they are stored
    in.
    """
    stored_shape, dtype = part.header
    shape = tuple(stored_shape[axis] for axis in interpretation.order)
    native = dtype.newbyteorder("=")
    image = header_bytes(shape, native)
    size_bytes = len(image) + int(np.prod(shape, dtype=object)) * native.itemsize

    def write(out: IO[bytes]) -> None:
        # Reserved before it is mapped: a full disk is an error here, and a SIGBUS there.
        os.posix_fallocate(out.fileno(), 0, size_bytes)
        out.write(image)
        out.flush()

        values = np.memmap(out, native, "r+", len(image), shape)
        as_stored = values.transpose(np.argsort(interpretation.order))
        start = 0
        for slab in _slabs(part, where):
            as_stored[start : start + len(slab)] = slab
            start += len(slab)
            if progress is not None:
                progress(f"repacking {part.key}", start * slab[0].nbytes, size_bytes)
        values.flush()

    copy, is_new = keep_copy(
        scan_path,
        part.key,
        write,
        identity=("repacked", part.name, part.header, interpretation.order),
        size_bytes=size_bytes,
        cache_dir=cache_dir,
        advice=f"save the frames uncompressed as ({', '.join(AXES)})",
    )
    done = "was repacked once to" if is_new else "is read from its repacked copy"
    file = FileArray(copy, len(image), shape, native, FileState.of(copy.stat()))
    return file, f"{part.key} {done} {copy}"


def _slabs(part: Part, where: FileArray | None) -> Iterator[npt.NDArray[Any]]:
    """The stored array along its first axis, a few at a time."""
    if where is None:
        for block in part.blocks():
            yield block.reshape(-1, *part.header.shape[1:])
        return
    for _, slab in MappedFrames(where, name=part.name).chunks(_SLAB_BYTES):
        yield slab


_BUFFER_BYTES = 1 << 20
"""1 MiB: 256 MiB unpack in 1.3 s with it, larger buffers gain nothing (measured)."""


def spool(
    path: Path,
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    *,
    cache_dir: Path | None,
    progress: Progress | None = None,
) -> tuple[Path, bool]:
    """The .npy file that holds ``member`` of the archive at ``path``, and whether it was written
    now.

    Raises ScanError where the member is damaged or shorter than announced, ScanFileError where the
    copy cannot be written.
    """

    def unpack(out: IO[bytes]) -> None:
        for piece in pieces(path, member.filename, archive, member, piece_bytes=_BUFFER_BYTES):
            out.write(piece)
            if progress is not None:
                progress(f"unpacking {member.filename}", out.tell(), member.file_size)

    return keep_copy(
        path,
        member.filename,
        unpack,
        identity=(member.filename, member.CRC),
        size_bytes=member.file_size,
        cache_dir=cache_dir,
        advice="save the scan uncompressed with numpy.savez",
    )
