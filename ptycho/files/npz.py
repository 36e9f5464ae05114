"""The contract NPZ: stored members are mapped where they lie, deflated ones can be unpacked once;
nothing is unpickled. Headers of npy images and the zip directory are checked here.
"""

import ast
import contextlib
import errno
import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import PtychoError, ScanError, ScanFileError
from ptycho.files import BLOCK_BYTES, ArrayHeader, FileArray, FileState, Geometry, Names, Part

# The header of an npy image (NEP 1). It is not read by numpy's parser, which warns, offers to
# unpickle and lets much through.


_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
"""Width of the field that says how long the header is, by version of the format."""
_MOST_HEADER_BYTES = 10_000
"""numpy's own default of max_header_size; a header without fields has about 120."""
_DESCR = re.compile(r"[<>|=]?[A-Za-z?]\d*(\[\w+\])?")
"""One plain type, as numpy writes it; anything longer has fields or subarrays."""
_PYTHON_2_LONG = re.compile(r"(?<=\d)L(?=[,)])")


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """Shape, order and type of an npy image, and where its values begin."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    length_bytes: int

    @property
    def values_bytes(self) -> int:
        """What the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], *, name: str) -> NpyHeader:
    """The header at the beginning of ``file``, which is left at the first byte of the values.

    Raises ScanError, beginning with ``name``, for anything but a plain array of numbers or
    characters.
    """
    text, length_bytes = _text(file, name)
    try:
        fields = ast.literal_eval(text.strip())
    # literal_eval documents all five for input that is not a literal, or too deep a one.
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise _unreadable(name, "it is not a Python literal") from error

    if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise _unreadable(name, "descr, fortran_order and shape are needed")

    shape, is_fortran = fields["shape"], fields["fortran_order"]
    # type() and not isinstance: True is an int.
    if not isinstance(shape, tuple) or not all(
        type(extent) is int and extent >= 0 for extent in shape
    ):
        raise _unreadable(name, f"its shape is {_short(shape)}")
    if not isinstance(is_fortran, bool):
        raise _unreadable(name, f"its fortran_order is {_short(is_fortran)}")

    return NpyHeader(shape, is_fortran, _dtype(fields["descr"], name), length_bytes)


def header_bytes(
    shape: tuple[int, ...], dtype: np.dtype[Any], *, is_fortran: bool = False
) -> bytes:
    """How a .npy file of such an array begins, as numpy writes it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype.str, "fortran_order": is_fortran, "shape": shape}
    )
    return file.getvalue()


def _text(file: IO[bytes], name: str) -> tuple[str, int]:
    """The header's literal and how many bytes come before the values."""
    start = file.read(len(_MAGIC) + 2)
    if len(start) < len(_MAGIC) + 2 or not start.startswith(_MAGIC):
        raise _unreadable(name, "it does not begin as an npy file")

    version = (start[-2], start[-1])
    if version not in _LENGTH_BYTES:
        raise _unreadable(name, f"its format is {version[0]}.{version[1]}")

    width = _LENGTH_BYTES[version]
    length_field = file.read(width)
    text_bytes = int.from_bytes(length_field, "little")
    if text_bytes > _MOST_HEADER_BYTES:
        raise _unreadable(
            name,
            f"it announces {text_bytes} bytes of header, and {_MOST_HEADER_BYTES} are the most",
        )

    raw = file.read(text_bytes)
    if len(length_field) < width or len(raw) < text_bytes:
        raise _unreadable(name, "it ends within its header")

    # Only text in strings may be beyond Latin-1, and no type of the contract has any.
    text = raw.decode("latin1")
    if version == (1, 0):
        text = _PYTHON_2_LONG.sub("", text)
    return text, len(start) + width + text_bytes


def _dtype(descr: object, name: str) -> np.dtype[Any]:
    if not isinstance(descr, str) or not _DESCR.fullmatch(descr):
        raise _unreadable(name, f"its type is {_short(descr)}, and one plain type is needed")
    try:
        dtype = np.dtype(descr)
    # Whatever numpy makes of a name that is none, or of a size that is none.
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise _unreadable(name, f"its type is {_short(descr)}") from error

    if dtype.hasobject:
        raise ScanError(
            f"{name} holds Python objects, which are never unpickled; save it as a plain "
            "array or leave it out"
        )
    if dtype.itemsize == 0:
        raise _unreadable(name, f"its type {descr!r} has no size")
    return dtype


def _unreadable(name: str, why: str) -> ScanError:
    return ScanError(f"{name} has no readable npy header ({why}); write the file again")


def _short(value: object) -> str:
    """How ``value`` is shown in a message.

    >>> len(_short("a" * 100))
    63
    """
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def values_in(content: Iterator[bytes], header: NpyHeader) -> Iterator[npt.NDArray[Any]]:
    """The values of an npy image that comes in pieces."""
    to_skip, rest = header.length_bytes, b""
    for piece in content:
        rest += piece[to_skip:]
        to_skip = max(0, to_skip - len(piece))
        complete_bytes = len(rest) // header.dtype.itemsize * header.dtype.itemsize
        if complete_bytes:
            yield np.frombuffer(rest[:complete_bytes], header.dtype)
            rest = rest[complete_bytes:]


# The zip layer of an NPZ: members checked against the file they claim to lie in, damage named in
# one sentence.


_LOCAL_HEADER_BYTES = 30
"""Fixed part of a zip local file header (APPNOTE.TXT 4.3.7); the lengths of name and extra field
close it."""
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED_FLAG = 0x1
"""General purpose bit 0 (APPNOTE.TXT 4.4.4)."""
_MOST_DEFLATED = 1032
"""Deflate's limit: 258 bytes from two bits (zlib.net/zlib_tech.html, Maximum Compression
Factor)."""
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
)
"""What zipfile raises on forged fields: versions it does not know (NotImplementedError is a
RuntimeError, too), members that seem encrypted, names that are no UTF-8, offsets that are no
offsets."""


@contextlib.contextmanager
def damage_named(path: Path, what: str) -> Iterator[None]:
    """What the zip layer finds wrong in ``what``, as one sentence that names it."""
    try:
        yield
    except PtychoError:
        raise
    except _DAMAGE as error:
        raise ScanError(
            f"{path}: {what} is damaged ({error}); copy or write the file again"
        ) from error
    except OSError as error:
        # A seek to before the first byte, from a forged offset.
        if error.errno == errno.EINVAL:
            raise ScanError(
                f"{path}: {what} is damaged ({error.strerror}); copy or write the file again"
            ) from error
        raise ScanFileError(
            f"{path} cannot be read ({error.strerror or error}); check the file and its permissions"
        ) from error


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive at ``path``; raises ScanError for a file that is none, ScanFileError for one that
    cannot be read.
    """
    with damage_named(path, "the zip directory"):
        if path.stat().st_size == 0:
            raise ScanError(f"{path} is empty; an NPZ scan was expected")
        try:
            return zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            with path.open("rb") as file:
                is_cut = file.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE
            what = "is a truncated or damaged zip file" if is_cut else "is not a zip file"
            raise ScanError(
                f"{path} {what}; an NPZ scan as written by numpy.savez was expected"
            ) from error


def members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of the archive by key."""
    entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
    twice = [
        name for name, count in Counter(entry.filename for entry in entries).items() if count > 1
    ]
    if twice:
        raise ScanError(
            f"{path} holds {twice[0]} more than once; write the file again with one array per key"
        )
    return {entry.filename.removesuffix(".npy"): entry for entry in entries}


def values_offset(path: Path, key: str, member: zipfile.ZipInfo) -> int:
    """First byte of a member's content in the file, its directory entry checked against the file
    and the local header.

    Only the LOCAL header knows: its extra field differs from the directory's. Raises ScanError.
    """
    if member.flag_bits & _ENCRYPTED_FLAG:
        raise ScanError(f"{path}: {key} is encrypted; write the file without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # numpy writes no other, and only of deflate is it known how much may come out.
        raise ScanError(
            f"{path}: {key} is compressed by zip method {member.compress_type}; write the "
            "file again with numpy.savez"
        )

    with damage_named(path, key), path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_SIGNATURE):
            raise ScanError(
                f"{path}: {key} is not where the zip directory says; the file is damaged, "
                "copy or write it again"
            )

    name_bytes, extra_bytes = (
        int.from_bytes(header[26:28], "little"),
        int.from_bytes(header[28:30], "little"),
    )
    start_bytes = member.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes

    if start_bytes + member.compress_size > path.stat().st_size:
        raise ScanError(
            f"{path}: {key} runs past the end of the file; it is truncated, copy or write it again"
        )

    is_stored = member.compress_type == zipfile.ZIP_STORED
    most_bytes = member.compress_size * (1 if is_stored else _MOST_DEFLATED)
    if member.file_size > most_bytes or (is_stored and member.file_size < most_bytes):
        raise ScanError(
            f"{path}: {key} announces {member.file_size} bytes, which "
            f"{member.compress_size} bytes in the file cannot be; it is damaged, copy or "
            "write the file again"
        )
    return start_bytes


def pieces(
    path: Path, key: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, piece_bytes: int
) -> Iterator[bytes]:
    """The content of a member in order, exactly ``file_size`` bytes; raises ScanError for damage
    and for fewer bytes.
    """
    read_bytes = 0
    with damage_named(path, key), archive.open(member) as file:
        # Reading to the end is what makes zipfile compare the checksum; it does not compare the
        # length.
        while piece := file.read(piece_bytes):
            read_bytes += len(piece)
            yield piece
        if read_bytes != member.file_size:
            raise ScanError(
                f"{path}: {key} announces {member.file_size} bytes and unpacks to "
                f"{read_bytes}; write the file again"
            )


FRAME_KEYS = ("diff3d", "diffraction")
"""PtychoPINN writes the first, its older files the second."""
POSITION_KEYS = ("xcoords", "ycoords")
START_KEYS = ("xcoords_start", "ycoords_start")
REQUIRED_KEYS = (*POSITION_KEYS, "probeGuess")


class NpzPart(Part):
    """One member of the archive, its header read and compared with what the zip directory
    announces.
    """

    def __init__(
        self, path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo
    ) -> None:
        self.key, self.name = key, f"{path}: {key}"
        self.member, self.archive, self.path = member, archive, path
        self._npy = _header(path, archive, key, member)
        self.header, self.is_fortran = (
            ArrayHeader(self._npy.shape, self._npy.dtype),
            self._npy.is_fortran,
        )

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The values through the zip layer, so that checksum and length are compared."""
        return values_in(self._pieces(), self._npy)

    @property
    def file(self) -> FileArray | None:
        """Where a stored member lies; its checksum is not verified there."""
        if self.member.compress_type != zipfile.ZIP_STORED:
            return None
        start_bytes = values_offset(self.path, self.key, self.member) + self._npy.length_bytes
        return FileArray(self.path, start_bytes, *self.header, _state(self.archive))

    def at_start_of(self, copy: Path) -> FileArray:
        """Where the values lie in an unpacked copy of the member."""
        return FileArray(copy, self._npy.length_bytes, *self.header, FileState.of(copy.stat()))

    def _pieces(self) -> Iterator[bytes]:
        return pieces(self.path, self.key, self.archive, self.member, piece_bytes=BLOCK_BYTES)


class NpzStore:
    """A contract NPZ, open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = open_zip(path)
        try:
            self._found = members(path, self._archive)
            self.state = _state(self._archive)
        except BaseException:
            self._archive.close()
            raise
        self.keys = tuple(self._found)

    def close(self) -> None:
        """Let the file go."""
        self._archive.close()

    def names(self, frames: str | None) -> tuple[Names, tuple[str, ...]]:
        """The keys of the contract; raises ScanError where both names of the frames are there and
        differ.
        """
        frames_key, notes = (frames, ()) if frames is not None else self._frames_key()
        probe, obj, index = (
            key if key in self._found else None
            for key in ("probeGuess", "objectGuess", "scan_index")
        )
        order = tuple(key for key in START_KEYS if key in self._found)
        return Names(frames_key, POSITION_KEYS, probe, obj, None, order, index), notes

    def part(self, key: str) -> NpzPart:
        """The member of that name."""
        if key not in self._found:
            # All that are missing, at once.
            lacks = (
                [required for required in REQUIRED_KEYS if required not in self._found]
                if key in REQUIRED_KEYS
                else [key]
            )
            raise ScanError(
                f"{self.path} lacks {', '.join(lacks)}; it has "
                f"{', '.join(self._found) or 'no arrays'}"
            )
        return NpzPart(self.path, self._archive, key, self._found[key])

    def geometry(self, frame_size: int, pixel_size_m: float | None) -> Geometry | None:  # noqa: ARG002 - other formats have one
        """None: an NPZ says nothing about metres."""
        return None

    def _frames_key(self) -> tuple[str, tuple[str, ...]]:
        keys = [key for key in FRAME_KEYS if key in self._found]
        if not keys:
            raise ScanError(
                f"{self.path} lacks diff3d (or diffraction), the frames; it has "
                f"{', '.join(self._found) or 'no arrays'}"
            )

        if len(keys) == 1:
            return keys[0], ()

        first, second = (self._found[key] for key in keys)
        if (first.CRC, first.file_size) != (second.CRC, second.file_size):
            raise ScanError(
                f"{self.path} has both diff3d and diffraction and they differ; keep the one "
                "that holds the amplitudes"
            )
        return keys[0], (
            "diff3d and diffraction hold the same bytes, by size and checksum; diff3d is read",
        )


def _header(path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo) -> NpyHeader:
    """The header of one member, whose announced size it must fit."""
    values_offset(path, key, member)  # checks the member
    with damage_named(path, key), archive.open(member) as file:
        header = read_header(file, name=f"{path}: {key}")
    found_bytes = member.file_size - header.length_bytes
    if found_bytes != header.values_bytes:
        raise ScanError(
            f"{path}: {key} announces {header.values_bytes} bytes of values and holds "
            f"{found_bytes}; write the file again"
        )
    return header


def _state(archive: zipfile.ZipFile) -> FileState:
    """The state of the file that the headers were read from, not of what is at its path now."""
    assert archive.fp is not None  # noqa: S101 - open, for mypy
    return FileState.of(os.fstat(archive.fp.fileno()))
