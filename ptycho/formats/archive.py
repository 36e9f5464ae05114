"""The zip layer of an NPZ: members checked against the file they claim to lie in, damage named in
one sentence.
"""

import contextlib
import errno
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ptycho.errors import PtychoError, ScanError, ScanFileError

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
            f"{path}: {what} is damaged ({error}); copy or write the file anew"
        ) from error
    except OSError as error:
        # A seek to before the first byte, from a forged offset.
        if error.errno == errno.EINVAL:
            raise ScanError(
                f"{path}: {what} is damaged ({error.strerror}); copy or write the file anew"
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
            f"{path} holds {twice[0]} more than once; write the file anew with one array per key"
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
            "file anew with numpy.savez"
        )
    with damage_named(path, key), path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_SIGNATURE):
            raise ScanError(
                f"{path}: {key} is not where the zip directory says; the file is damaged, "
                "copy or write it anew"
            )
    name_bytes, extra_bytes = (
        int.from_bytes(header[26:28], "little"),
        int.from_bytes(header[28:30], "little"),
    )
    start_bytes = member.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    if start_bytes + member.compress_size > path.stat().st_size:
        raise ScanError(
            f"{path}: {key} runs past the end of the file; it is truncated, copy or write it anew"
        )
    is_stored = member.compress_type == zipfile.ZIP_STORED
    most_bytes = member.compress_size * (1 if is_stored else _MOST_DEFLATED)
    if member.file_size > most_bytes or (is_stored and member.file_size < most_bytes):
        raise ScanError(
            f"{path}: {key} announces {member.file_size} bytes, which "
            f"{member.compress_size} bytes in the file cannot be; it is damaged, copy or "
            "write the file anew"
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
                f"{read_bytes}; write the file anew"
            )
