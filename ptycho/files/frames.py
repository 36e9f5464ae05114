"""From the frames of a file to a stack of amplitudes: mapped, read through h5py, unpacked or
repacked, converted.
"""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ptycho.converting import AXES, ConvertedFrames, Interpretation
from ptycho.errors import ScanError
from ptycho.files import FileArray, FileState, Part
from ptycho.files.npz import NpzPart
from ptycho.files.stacks import FrameStack, MappedFrames
from ptycho.files.storage import Progress, keep_copy
from ptycho.formats.archive import pieces
from ptycho.formats.npy import header_bytes

_SLAB_BYTES = 8 << 20
"""Chosen: of the stored frames while they are repacked; larger reads gain nothing."""


def open_frames(
    part: Part,
    scan_path: Path,
    what: Interpretation,
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
    if repack and (where is None or what.is_scattered):
        where, note = _repacked(
            part, where, scan_path, what, cache_dir=cache_dir, progress=progress
        )
        notes.append(note)
        if is_bad is not None and what.is_turned:
            is_bad = is_bad.T
        what = Interpretation(what.intensity, what.dc)
    if what.is_scattered:
        raise ScanError(
            f"{part.name} has the axes {what.axes}, so every frame is scattered over the "
            "whole file; give repack=True to write the frames one after the other"
        )
    if where is not None:
        stack: FrameStack = MappedFrames(where, name=part.name)
    else:
        stack = _chunked(part, cache_bytes)
    is_plain = what.is_contract and is_bad is None and stack.dtype.isnative
    return (stack if is_plain else ConvertedFrames(stack, what, is_bad)), notes


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
    from ptycho.files.hdf5 import Hdf5Part
    from ptycho.formats.chunked import ChunkedFrames

    assert isinstance(part, Hdf5Part)  # noqa: S101 - the only one without a file
    return ChunkedFrames(part, cache_bytes=cache_bytes)


def _repacked(
    part: Part,
    where: FileArray | None,
    scan_path: Path,
    what: Interpretation,
    *,
    cache_dir: Path | None,
    progress: Progress | None,
) -> tuple[FileArray, str]:
    """The frames (M, N, N) one after the other in the cache folder, in the type they are stored
    in.
    """
    stored_shape, dtype = part.header
    shape = tuple(stored_shape[axis] for axis in what.order)
    native = dtype.newbyteorder("=")
    image = header_bytes(shape, native)
    size_bytes = len(image) + int(np.prod(shape, dtype=object)) * native.itemsize

    def write(out: IO[bytes]) -> None:
        # Reserved before it is mapped: a full disk is an error here, and a SIGBUS there.
        os.posix_fallocate(out.fileno(), 0, size_bytes)
        out.write(image)
        out.flush()
        values = np.memmap(out, native, "r+", len(image), shape)
        as_stored = values.transpose(np.argsort(what.order))
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
        identity=("repacked", part.name, part.header, what.order),
        size_bytes=size_bytes,
        cache_dir=cache_dir,
        advice=f"save the frames uncompressed as ({', '.join(AXES)})",
    )
    done = "was repacked once to" if is_new else "is read from its repacked copy"
    return FileArray(
        copy, len(image), shape, native, FileState.of(copy.stat())
    ), f"{part.key} {done} {copy}"


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
