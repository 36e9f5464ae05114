"""Unpack a compressed zip member once into a cache folder, atomically, so that it can be mapped."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from ptycho.errors import PtychoError, ScanFileError
from ptycho.formats.archive import pieces
from ptycho.replacing import replacing

_BUFFER_BYTES = 1 << 20
"""1 MiB: 256 MiB unpack in 1.3 s with it, larger buffers gain nothing (measured)."""
_OWNER_ONLY = 0o600
"""The scan itself may be readable for its owner alone; its copy must not be readable for more."""
_STEM_LETTERS = 40
"""Chosen: of the scan's name, for people who look into the folder; at four bytes a letter well below NAME_MAX, 255."""


def default_cache_dir() -> Path:
    """``ptycho-memory`` in the user's cache folder (XDG base directory specification); raises ScanFileError without one."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "ptycho-memory"
    except RuntimeError as error:
        raise ScanFileError("there is no home folder for unpacked frames; give a cache_dir") from error


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the file system of ``folder``."""
    return shutil.disk_usage(folder).free


def spool(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, cache_dir: Path | None) -> tuple[Path, bool]:
    """The .npy file that holds ``member`` of the archive at ``path``, and whether it was written now.

    The name is made of absolute path, size, modification time, member and CRC, so a changed scan gets a new copy.
    Raises ScanError where the member is damaged or shorter than announced, ScanFileError where the copy cannot be
    written; either way nothing is left behind.
    """
    folder = default_cache_dir() if cache_dir is None else cache_dir
    target = folder / _name(path, member)
    try:
        # A copy of another size was cut by something outside; it is written anew.
        if target.exists() and target.stat().st_size == member.file_size:
            return target, False
        folder.mkdir(parents=True, exist_ok=True)
        _check_space(path, folder, member)
        _unpack(path, archive, member, target)
    except PtychoError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the folder's name.
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ScanFileError(
            f"{path}: {member.filename} cannot be unpacked into {folder} ({why}); "
            "give another cache_dir or save the scan uncompressed with numpy.savez"
        ) from error
    return target, True


def _name(path: Path, member: zipfile.ZipInfo) -> str:
    state = path.stat()
    identity = f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\0{member.filename}\0{member.CRC}"
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{path.stem[:_STEM_LETTERS]}-{digest}.npy"


def _check_space(path: Path, folder: Path, member: zipfile.ZipInfo) -> None:
    free = free_bytes(folder)
    if free < member.file_size:
        raise ScanFileError(
            f"{path}: {member.filename} needs {member.file_size} bytes unpacked and {folder} has {free} free; "
            "give another cache_dir or save the scan uncompressed with numpy.savez"
        )


def _unpack(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    with replacing(target, mode=_OWNER_ONLY) as out:
        for piece in pieces(path, member.filename, archive, member, piece_bytes=_BUFFER_BYTES):
            out.write(piece)
