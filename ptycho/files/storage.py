"""Files that this package writes: each appears complete or not at all.

Copies in a cache folder of what cannot be mapped where it lies, scans as a contract NPZ, and the
energies of a scan beside it.
"""

from __future__ import annotations  # help() shows the names of types, not what they stand for

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, PtychoError, ScanFileError
from ptycho.files import BLOCK_BYTES, load
from ptycho.files.npz import NpzPart, members, open_zip, pieces

# Files that appear complete or not at all.


@contextlib.contextmanager
def atomic_file(target: Path, *, mode: int) -> Iterator[IO[bytes]]:
    """A new file that takes the place of ``target`` when the block ends well and leaves nothing
    when it does not.

    Its permissions are ``mode`` without those that the umask takes away. Raises OSError.
    """
    # Not tempfile: its files are for their owner alone, and the umask cannot be read without
    # setting it.
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


_OWNER_ONLY = 0o600
"""The scan itself may be readable for its owner alone; its copy must not be readable for more."""
_STEM_LETTERS = 40
"""Chosen: of the scan's name, for people who look into the folder; at four bytes a letter well
below NAME_MAX, 255."""


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
    """Sixteen letters for everything in ``identity``.

    >>> digest("scan.npz", 7)
    'e79e485af0baef29'
    """
    return hashlib.sha256(
        "\0".join(map(str, identity)).encode(errors="surrogateescape")
    ).hexdigest()[:16]


def first_letters(name: str) -> str:
    """As much of the scan's name as a copy shows to people.

    >>> first_letters("scan_2026_11_27_at_the_beamline_with_the_long_name")
    'scan_2026_11_27_at_the_beamline_with_the'
    """
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
        # A copy of another size was cut by something outside; it is written again.
        if target.exists() and target.stat().st_size == size_bytes:
            return target, False

        folder.mkdir(parents=True, exist_ok=True)
        free = free_bytes(folder)
        if free < size_bytes:
            raise ScanFileError(
                f"{path}: {what} needs {size_bytes} bytes unpacked and {folder} has {free} "
                f"free; give another cache_dir or {advice}"
            )

        with atomic_file(target, mode=_OWNER_ONLY) as out:
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


# Scans written frame by frame as a stored contract NPZ, so that they can be mapped again.


SUFFIX = ".npz"
"""The one that scans of this format are read by."""
_EVERYBODY = 0o666
"""As open(2) makes files for everyone; the umask takes away what the user does not want."""


def write_scan(
    path: str | PathLike[str],
    chunks: Iterable[npt.NDArray[Any]],
    *,
    frame_count: int,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    probe: npt.NDArray[Any],
    obj: npt.NDArray[Any] | None = None,
    order: Mapping[str, npt.NDArray[Any]] | None = None,
) -> None:
    """Write a contract NPZ at ``path``, replacing what is there, without holding the frames.

    ``chunks`` yields (b, N, N) amplitudes, ``frame_count`` in all; N is that of ``probe`` (N, N).
    ``order`` has the arrays that say how the scan was taken (``xcoords_start``, ``ycoords_start``,
    ``scan_index``). The file appears complete or not at all; a link is followed. Raises
    ScanFileError where it cannot be written, ContainerError where the frames are not
    ``frame_count``.
    """
    small: dict[str, npt.NDArray[Any]] = {
        "xcoords": np.asarray(x, np.float64),
        "ycoords": np.asarray(y, np.float64),
        "probeGuess": probe.astype(np.complex64),
    }
    if obj is not None:
        small["objectGuess"] = obj.astype(np.complex64, copy=False)
    with npz_archive(Path(path)) as archive:
        _write_frames(archive, chunks, (frame_count, *probe.shape))
        write_arrays(archive, {**small, **(order or {})})


@contextlib.contextmanager
def npz_archive(given: Path) -> Iterator[zipfile.ZipFile]:
    """A stored NPZ that takes the place of ``given`` when the block ends well."""
    if given.suffix.lower() != SUFFIX:
        raise ScanFileError(
            f"{given} has the suffix {given.suffix!r}; a scan is written as {SUFFIX}, name it so"
        )
    try:
        with (
            atomic_file(_target(given), mode=_EVERYBODY) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        ):
            yield archive
    except PtychoError:
        raise
    except OSError as error:
        raise ScanFileError(
            f"{given} cannot be written ({error.strerror or error}); choose another place"
        ) from error


def _target(given: Path) -> Path:
    """What is replaced: the file itself where ``given`` is a link to it, never a device, a pipe or
    a folder.
    """
    target = Path(os.path.realpath(given))
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise ScanFileError(f"{given} is there and is not a regular file; choose another name")
    return target


def npz_path(path: str | PathLike[str]) -> Path:
    """``path`` with ``.npz`` added where it is missing, as numpy.savez does.

    >>> npz_path("scan").name, npz_path("scan.NPZ").name
    ('scan.npz', 'scan.NPZ')
    """
    given = Path(path)
    return given if given.suffix.lower() == SUFFIX else given.with_name(given.name + SUFFIX)


def _write_frames(
    archive: zipfile.ZipFile, chunks: Iterable[npt.NDArray[Any]], shape: tuple[int, ...]
) -> None:
    written = 0
    with array_member(archive, "diff3d", np.dtype("<f4"), shape) as member:
        for chunk in chunks:
            if chunk.shape[1:] != shape[1:]:
                raise ContainerError(
                    f"frames have shape {chunk.shape[1:]} and the probe {shape[1:]}; they "
                    "must be the same"
                )
            member.write(np.ascontiguousarray(chunk, "<f4").view(np.uint8).data)
            written += len(chunk)
    if written != shape[0]:
        raise ContainerError(f"{shape[0]} frames were expected and {written} were given")


@contextlib.contextmanager
def array_member(
    archive: zipfile.ZipFile, key: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[IO[bytes]]:
    """A member whose header is written and whose values, C-ordered, are the block's to write."""
    # A ZipInfo of its own has a fixed date: the same values give the same bytes.
    with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": dtype.str, "fortran_order": False, "shape": shape}
        )
        yield member


def write_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write each of ``arrays`` as a member of its own, under its key."""
    for key, values in arrays.items():
        with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w") as member:
            np.lib.format.write_array(member, values, allow_pickle=False)


# Energies that were found once, kept beside the scan so that the pass over all frames is not
# made again.


_VERSION = 1
"""Of the content; another one is not read."""
_MOST_IDENTITY_BYTES = 1 << 16
"""Chosen: many times what an identity takes."""


@dataclass(eq=False)
class EnergyFile:
    """The kept energies of one scan under one interpretation: read where they fit, written where
    that is possible.

    ``identity`` is everything the energies depend on. A file that is stale, damaged or another
    scan's is never believed; it is replaced.
    """

    scan_path: Path
    identity: Mapping[str, Any]
    frame_count: int
    cache_dir: Path | None
    is_kept: bool = True
    """False: nothing is read and nothing is written."""
    note: str | None = field(default=None, init=False)
    """What became of the energies, one sentence, once they were asked for."""

    def places(self) -> list[Path]:
        """Where they may lie, the first choice first; nowhere if they are not to be kept."""
        if not self.is_kept:
            return []
        # The state is left out of the name: a changed scan takes the place of its former self.
        key = digest(self.identity["path"], self.identity["reading"])
        in_cache = f"{first_letters(self.scan_path.stem)}-{key}.energies.npz"
        if self.cache_dir is not None:
            return [self.cache_dir / in_cache]
        places = [
            self.scan_path.parent / f".{first_letters(self.scan_path.name)}.{key}.energies.npz"
        ]
        with contextlib.suppress(PtychoError):
            places.append(default_cache_dir() / in_cache)
        return places

    def read(self) -> npt.NDArray[np.float64] | None:
        """The energies (M,) float64, or None where there are none that can be believed."""
        for place in self.places():
            kept = self._content(place)
            if kept is None:
                continue
            with contextlib.suppress(PtychoError, OSError, ValueError, KeyError):
                with open_zip(place) as archive:
                    part = NpzPart(place, archive, "energies", members(place, archive)["energies"])
                    if part.header != ((self.frame_count,), np.dtype(np.float64)):
                        continue
                    energies: npt.NDArray[np.float64] = load(part)
                smallest, largest = energies.min(), energies.max()  # NaN is both
                if smallest >= 0 and 0 < largest < np.inf:
                    self.note = f"energies and the check of all frames were read from {place}"
                    return energies
        return None

    def knows_object(self, token: str) -> bool:
        """Whether the object that ``token`` stands for was found finite when the energies were
        kept.
        """
        return any(
            (kept := self._content(place)) is not None and kept.get("object") == token
            for place in self.places()
        )

    def write(self, energies: npt.NDArray[np.float64], object_token: str | None) -> None:
        """Keep the energies in the first place that takes them; where none does, say so in ``note``
        and go on.
        """
        content = {"version": _VERSION, "identity": self.identity, "object": object_token}
        for place in self.places():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                mode = self.scan_path.stat().st_mode & 0o666
                with (
                    atomic_file(place, mode=mode) as file,
                    zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
                ):
                    archive.writestr(
                        zipfile.ZipInfo("identity.json"), json.dumps(content, sort_keys=True)
                    )
                    with archive.open(
                        zipfile.ZipInfo("energies.npy"), "w", force_zip64=True
                    ) as member:
                        header = {"descr": "<f8", "fortran_order": False, "shape": energies.shape}
                        np.lib.format.write_array_header_1_0(member, header)
                        member.write(np.ascontiguousarray(energies, "<f8").view(np.uint8).data)
            except (OSError, ValueError):  # ValueError: a null character in the folder's name
                continue

            self.note = f"energies and the check of all frames are kept in {place}"
            return

        if not self.is_kept:
            self.note = "energies are not kept, as asked"
            return
        self.note = (
            "energies are not kept, because neither the scan's folder nor the cache folder can "
            "be written; give a cache_dir"
        )

    def _content(self, place: Path) -> dict[str, Any] | None:
        """What the file at ``place`` says of itself, if it is complete and about this very scan."""
        with contextlib.suppress(PtychoError, OSError, ValueError, KeyError, RecursionError):
            if not place.is_file():
                return None
            with open_zip(place) as archive:
                member = archive.getinfo("identity.json")
                if (
                    member.file_size > _MOST_IDENTITY_BYTES
                    or member.compress_type != zipfile.ZIP_STORED
                ):
                    return None
                content = json.loads(
                    b"".join(pieces(place, "identity", archive, member, piece_bytes=BLOCK_BYTES))
                )
            expected = {"version": _VERSION, "identity": json.loads(json.dumps(self.identity))}
            if (
                isinstance(content, dict)
                and {key: content.get(key) for key in expected} == expected
            ):
                return content
        return None
