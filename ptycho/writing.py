"""Scans written frame by frame as a stored contract NPZ, so that they can be mapped again."""

import contextlib
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, PtychoError, ScanFileError
from ptycho.replacing import replacing

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
    ``scan_index``). The file appears whole or not at all; a link is followed. Raises ScanFileError
    where it cannot be written, ContainerError where the frames are not ``frame_count``.
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
            replacing(_target(given), mode=_EVERYBODY) as file,
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
    """``path`` with ``.npz`` added where it is missing, as numpy.savez does."""
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
        raise ContainerError(f"{shape[0]} frames were announced and {written} came")


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
