"""The contract NPZ: stored members are mapped where they lie, deflated ones are spooled once; nothing is unpickled."""

import contextlib
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.formats.contents import Contents, FileArray
from ptycho.formats.spool import spool

FRAME_KEYS = ("diff3d", "diffraction")
"""PtychoPINN writes the first, its older files the second."""
REQUIRED_KEYS = ("xcoords", "ycoords", "probeGuess")
SMALL_KEYS = (*REQUIRED_KEYS, "objectGuess")

_PIECE_BYTES = 64 * 1024
"""Half of glibc's initial M_MMAP_THRESHOLD (mallopt(3)): freeing larger pieces raises it, and what is freed then stays."""
_LOCAL_HEADER_BYTES = 30
"""Fixed part of a zip local file header (APPNOTE.TXT 4.3.7); the lengths of name and extra field close it."""
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED_FLAG = 0x1
"""General purpose bit 0 (APPNOTE.TXT 4.4.4)."""


def read_npz(path: Path, *, cache_dir: Path | None) -> Contents:
    """Open a contract NPZ.

    ``diff3d`` (or ``diffraction``) is left on disk; a deflated one is unpacked once into ``cache_dir``. Raises ScanError
    for a damaged or incomplete file, ScanFileError where it cannot be read or spooled.
    """
    with _open_zip(path) as archive:
        members = _members(path, archive)
        frames_key, notes = _frames_key(path, members)
        missing = [key for key in REQUIRED_KEYS if key not in members]
        if missing:
            raise ScanError(f"{path} lacks {', '.join(missing)}; it has {', '.join(members)}")
        small = {key: _load(path, archive, key, members[key]) for key in SMALL_KEYS if key in members}
        frames, more = _frames(path, archive, frames_key, members[frames_key], cache_dir)
    return Contents(frames_key, frames, small, tuple(members), notes + more)


def _open_zip(path: Path) -> zipfile.ZipFile:
    if path.stat().st_size == 0:
        raise ScanError(f"{path} is empty; an NPZ scan was expected")
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            is_cut = file.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE
        what = "is a truncated or damaged zip file" if is_cut else "is not a zip file"
        raise ScanError(f"{path} {what}; an NPZ scan as written by numpy.savez was expected") from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of the archive by key."""
    entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
    twice = [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]
    if twice:
        raise ScanError(f"{path} holds {twice[0]} more than once; write the file anew with one array per key")
    return {entry.filename.removesuffix(".npy"): entry for entry in entries}


def _frames_key(path: Path, members: Mapping[str, zipfile.ZipInfo]) -> tuple[str, tuple[str, ...]]:
    found = [key for key in FRAME_KEYS if key in members]
    if not found:
        raise ScanError(f"{path} lacks diff3d (or diffraction), the frames; it has {', '.join(members) or 'no arrays'}")
    if len(found) == 1:
        return found[0], ()
    first, second = (members[key] for key in found)
    if (first.CRC, first.file_size) != (second.CRC, second.file_size):
        raise ScanError(f"{path} has both diff3d and diffraction and they differ; keep the one that holds the amplitudes")
    return found[0], ("diff3d and diffraction hold the same bytes; diff3d is read",)


def _check_readable(path: Path, key: str, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & _ENCRYPTED_FLAG:
        raise ScanError(f"{path}: {key} is encrypted; write the file without a password")


@contextlib.contextmanager
def _damage_named(path: Path, key: str) -> Iterator[None]:
    """What the zip layer finds wrong in a member, as one sentence that names it."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ScanError(f"{path}: {key} is damaged ({error}); copy or write the file anew") from error


def _header(path: Path, key: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype from an npy header; ``file`` is left at the first byte of the values."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            # 3.0 exists for field names outside Latin-1 (NEP 1); no array of the contract has fields.
            shape, is_fortran, dtype = (), False, np.dtype(object)
    except ValueError as error:
        raise ScanError(f"{path}: {key} has no readable npy header ({error}); write the file anew") from error
    if dtype.hasobject:
        raise ScanError(f"{path}: {key} holds Python objects, which are never unpickled; save it as a plain array or leave it out")
    return shape, is_fortran, dtype


def _load(path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """One small array, whole, its CRC checked by reading through the zip layer."""
    _check_readable(path, key, member)
    with _damage_named(path, key), archive.open(member) as file:
        shape, is_fortran, dtype = _header(path, key, file)
        needed_bytes, found_bytes = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if found_bytes != needed_bytes:
            raise ScanError(f"{path}: {key} announces {needed_bytes} bytes of values and holds {found_bytes}; write the file anew")
        # Straight into the array, in pieces: the object grows with the scan, and should be held once while it is read.
        values = np.empty(needed_bytes, np.uint8)
        for start in range(0, needed_bytes, _PIECE_BYTES):
            piece = file.read(min(_PIECE_BYTES, needed_bytes - start))
            values[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
        file.read()  # the end of the member is where its checksum is compared
    return values.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def _frames(
    path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo, cache_dir: Path | None
) -> tuple[FileArray, tuple[str, ...]]:
    """Where the values of the frames lie, and what had to be done for it."""
    _check_readable(path, key, member)
    if member.compress_type == zipfile.ZIP_STORED:
        start_bytes = _stored_offset(path, key, member)
        notes = (f"{key} is mapped where it lies in the file; its checksum is not verified",)
        return _file_array(path, path, key, start_bytes, member.file_size), notes
    with _damage_named(path, key), archive.open(member) as file:
        _header(path, key, file)  # Refuse before hundreds of megabytes are unpacked.
    spooled, is_new = spool(path, archive, member, cache_dir=cache_dir)
    done = "was unpacked once to" if is_new else "is read from its unpacked copy"
    notes = (f"{key} is compressed, which has no random access; it {done} {spooled}",)
    return _file_array(path, spooled, key, 0, member.file_size), notes


def _stored_offset(path: Path, key: str, member: zipfile.ZipInfo) -> int:
    """First byte of a stored member. Only the LOCAL header knows: its extra field differs from the directory's."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_SIGNATURE):
            raise ScanError(f"{path}: {key} is not where the zip directory says; the file is damaged, copy or write it anew")
    name_bytes, extra_bytes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    start_bytes = member.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    if start_bytes + member.file_size > path.stat().st_size:
        raise ScanError(f"{path}: {key} runs past the end of the file; it is truncated, copy or write it anew")
    return start_bytes


def _file_array(source: Path, path: Path, key: str, start_bytes: int, size_bytes: int) -> FileArray:
    """The values of the npy image at ``start_bytes`` of ``path``; messages name ``source``."""
    with path.open("rb") as file:
        file.seek(start_bytes)
        shape, is_fortran, dtype = _header(source, key, file)
        offset_bytes = file.tell()
    if is_fortran:
        raise ScanError(f"{source}: {key} is in Fortran order, which scatters every frame; save numpy.ascontiguousarray of it")
    found_bytes = start_bytes + size_bytes - offset_bytes
    needed_bytes = math.prod(shape) * dtype.itemsize
    if found_bytes != needed_bytes:
        raise ScanError(f"{source}: {key} announces {needed_bytes} bytes of values and holds {found_bytes}; write the file anew")
    if needed_bytes == 0:
        raise ScanError(f"{source}: {key} has shape {shape}, no values at all; a scan needs at least one frame")
    return FileArray(path, offset_bytes, shape, dtype)
