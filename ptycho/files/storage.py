"""Copies of what cannot be mapped where it lies: written once into a cache folder, atomically."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ptycho.errors import PtychoError, ScanFileError
from ptycho.replacing import replacing

_OWNER_ONLY = 0o600
"""The scan itself may be readable for its owner alone; its copy must not be readable for more."""
_STEM_LETTERS = 40
"""Chosen: of the scan's name, for people who look into the folder; at four bytes a letter well
below NAME_MAX, 255."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many bytes of it are done and how many there are."""


def default_cache_dir() -> Path:
    """``ptycho-memory`` in the user's cache folder (XDG base directory specification); raises
    ScanFileError without one.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "ptycho-memory"
    except RuntimeError as error:
        raise ScanFileError(
            "there is no home folder for unpacked frames; give a cache_dir"
        ) from error


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the file system of ``folder``."""
    return shutil.disk_usage(folder).free


def digest(*identity: object) -> str:
    """Sixteen letters for everything in ``identity``."""
    return hashlib.sha256(
        "\0".join(map(str, identity)).encode(errors="surrogateescape")
    ).hexdigest()[:16]


def first_letters(name: str) -> str:
    """As much of the scan's name as a copy shows to people."""
    return name[:_STEM_LETTERS]


def keep_copy(
    path: Path,
    what: str,
    write: Callable[[IO[bytes]], None],
    *,
    identity: tuple[object, ...],
    size_bytes: int,
    cache_dir: Path | None,
    advice: str,
) -> tuple[Path, bool]:
    """The file in the cache folder that holds ``what`` of the scan at ``path``, and whether it was
    written now.

    Its name is made of absolute path, size, modification time and ``identity``, so a changed scan
    gets a new copy. ``write`` writes exactly ``size_bytes``. Raises ScanFileError where the copy
    cannot be written, and what ``write`` raises; either way nothing is left behind.
    """
    folder = default_cache_dir() if cache_dir is None else cache_dir
    state = path.stat()
    key = digest(path.absolute(), state.st_size, state.st_mtime_ns, *identity)
    target = folder / f"{first_letters(path.stem)}-{key}.npy"
    try:
        # A copy of another size was cut by something outside; it is written anew.
        if target.exists() and target.stat().st_size == size_bytes:
            return target, False
        folder.mkdir(parents=True, exist_ok=True)
        free = free_bytes(folder)
        if free < size_bytes:
            raise ScanFileError(
                f"{path}: {what} needs {size_bytes} bytes unpacked and {folder} has {free} "
                f"free; give another cache_dir or {advice}"
            )
        with replacing(target, mode=_OWNER_ONLY) as out:
            write(out)
    except PtychoError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the folder's name.
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ScanFileError(
            f"{path}: {what} cannot be unpacked into {folder} ({why}); give another "
            f"cache_dir or {advice}"
        ) from error
    return target, True
