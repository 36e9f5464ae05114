"""A measured scan, opened lazily and checked."""

from __future__ import annotations  # help() shows the names of types, not what they stand for

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, check_int
from ptycho.files import FileArray, Progress, Store
from ptycho.files.arrays import (
    Axis,
    check_finite,
    check_index,
    check_inside,
    check_layout,
    check_span,
    read_axis,
    read_mask,
    read_object,
    read_probe,
)
from ptycho.files.formats import Parts, choose, open_store
from ptycho.files.frames import Center, Interpretation, Units, open_frames
from ptycho.files.npz import NpzPart
from ptycho.files.stacks import FrameStack, frame_energies
from ptycho.files.storage import EnergyFile, digest

DEFAULT_CACHE_BYTES = 32 << 20
"""Chosen: holds one row of the chunks that h5py makes by itself for 16,384 frames of 128 x 128, and
is a batch or two."""

FilePath = str | PathLike[str]
ArrayLike = npt.ArrayLike | PathLike[str]
"""An array, the path of a .npy, .csv or .txt file, or a name in the scan file."""


@dataclass(frozen=True, eq=False, repr=False)
class Scan:
    """A scan of M frames of N x N pixels. The frames stay on disk until they are indexed.

    The file must stay as it is while it is read: every pass asks first, and refuses a changed one.
    One that is cut in the middle of a pass ends the process (SIGBUS), as with every memory map.
    """

    path: Path
    frames: FrameStack
    """(M, N, N) float32 or float64 amplitude = sqrt(counts), zero frequency at [N/2, N/2]; read
    when indexed."""
    x: Axis
    """(M,) float64 pixels: column of the patch centre in the object."""
    y: Axis
    """(M,) float64 pixels: row of the patch centre in the object."""
    probe: npt.NDArray[np.complex64] | None
    """(N, N), or None where neither the file nor the caller has one."""
    object: npt.NDArray[np.complex64] | None
    """(H, W), read-only and mapped where that is possible, or None where there is none."""
    frames_key: str
    keys: tuple[str, ...]
    """Everything that is in the file, used or not."""
    energy_file: EnergyFile
    """Where ``energies`` keeps its result."""
    opening_notes: tuple[str, ...]
    """``notes`` without what ``energies`` adds."""
    object_token: str | None
    """What the mapped object is known by once it was found finite."""

    @classmethod
    def open(  # noqa: PLR0913 - settings of one file, all named and all with a default
        cls,
        path: FilePath,
        *,
        frames: str | None = None,
        positions: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
        probe: ArrayLike | None = None,
        object: ArrayLike | None = None,  # noqa: A002 - the field's word
        mask: ArrayLike | None = None,
        intensity: bool = False,
        dc: Center = "center",
        axes: str = "frame,row,column",
        units: Units | None = None,
        pixel_size_m: float | None = None,
        cache_dir: FilePath | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        repack: bool = False,
        keep_energies: bool = True,
        progress: Progress | None = None,
    ) -> Self:
        """Open a scan file without reading its frames; the suffix says what it is.

        ``.npz`` is PtychoPINN's contract, ``.cxi`` CXI, ``.h5`` ``.hdf5`` ``.hdf`` ``.nxs`` plain
        HDF5, ``.npy`` frames alone. ``notes`` of the scan lists what was assumed.

        Parameters
        ----------
        path
            The scan file.
        frames
            Name of the frames in the file: a key of an NPZ, or a data set of HDF5, which always
            needs it. Default: the contract's ``diff3d`` or ``diffraction``, CXI's
            ``/entry_1/data_1/data``.
        positions
            Patch centres [x, y], that is column and row, (M, 2) of any real dtype: an array, a
            .npy, .csv or .txt file, a name in the scan file, or a pair of any of these, (M,) each,
            x first. Default: the contract's, or CXI's translations.
        probe, object
            (N, N) and (H, W) complex: an array, a .npy file, or a name in the scan file. Default:
            the contract's; None for other formats. A container needs a probe.
        mask
            (N, N) whole numbers or bool, 0 for good pixels, turned as the frames are stored; the
            other pixels read 0. An array, a .npy file or a name. Default: CXI's; none for other
            formats. A mask of zeros counts as none.
        intensity
            The frames are counts, and their square root is the amplitude. Integers are refused
            without it.
        dc
            Where zero frequency is in the stored frames: ``"center"``, [N/2, N/2], or ``"corner"``,
            [0, 0].
        axes
            The stored axes, slowest first. Frames that are not on the first axis need ``repack``.
        units
            Of the positions: ``"pixels"`` of the object or ``"metres"``. Default: metres for CXI,
            else pixels.
        pixel_size_m
            One pixel of the object, in metres. Default for CXI: that of the far field, wavelength *
            distance / (N * detector pixel).
        cache_dir
            Folder of unpacked and repacked copies and of the kept energies. Default: energies
            beside the scan; copies, and energies where the scan's folder cannot be written, in
            ``ptycho-memory`` in the user's cache folder.
        cache_bytes
            Host memory for chunks of an HDF5 file; it must hold the chunks of one frame where
            other frames share them.
        repack
            Write frames that cannot be mapped (HDF5 chunks, or scattered ``axes``) one after the
            other into ``cache_dir``, once.
        keep_energies
            Keep what ``energies`` finds for the next opening, and use what was kept. Without it
            every opening makes a pass of its own, and writes nothing.
        progress
            Called with the name of the work, the bytes that are done and the bytes in all.

        Raises
        ------
        ScanFileError
            Where a file cannot be read or a copy cannot be written.
        ScanError
            Where it is damaged or breaks the contract; ``energies`` checks the values of the
            frames.
        ContainerError
            For arguments that do not fit.
        """
        request = _Request(
            path=Path(path),
            frames=frames,
            positions=positions,
            probe=probe,
            object=object,
            mask=mask,
            interpretation=Interpretation(intensity, dc, axes),
            units=units,
            pixel_size_m=pixel_size_m,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            cache_bytes=check_int("cache_bytes", cache_bytes, least=1),
            repack=repack,
            keep_energies=keep_energies,
            progress=progress,
        )
        return _open_scan(cls, request)

    def __repr__(self) -> str:
        count, size, _ = self.frames.shape
        return (
            f"<Scan of {count} frames of {size} x {size} pixels, {self.frames.description}: "
            f"{self.path}>"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or done, one sentence each; ``energies`` adds where they are kept."""
        note = self.energy_file.note
        return self.opening_notes if note is None else (*self.opening_notes, note)

    @property
    def frames_file(self) -> FileArray | None:
        """Where the frames lie one after the other, as they are stored, or None."""
        return self.frames.file

    @property
    def frame_count(self) -> int:
        """M."""
        return self.frames.shape[0]

    @property
    def frame_size(self) -> int:
        """N, pixels."""
        return self.frames.shape[1]

    def energies(self, *, progress: Progress | None = None) -> npt.NDArray[np.float64]:
        """Energy sum_xy frame^2 of every frame, (M,) float64: one pass over the file in chunks of 1
        MiB, the first time.

        The result, and with it that every value was checked, is kept beside the scan, in
        ``cache_dir`` if one was given, or in the user's cache folder; a changed file or another
        interpretation is read again. Raises ScanError naming frame, value and pixel for NaN,
        infinite, negative or too large amplitude or counts, and for a stack of zeros; ScanFileError
        where the file has changed since it was opened.
        """
        self.frames.check()
        kept = self.energy_file.read()
        if kept is not None:
            return kept
        energies = frame_energies(
            self.frames, name=f"{self.path}: {self.frames_key}", progress=progress
        )
        # Energies of a file that was written to during the pass are of neither state.
        self.frames.check()
        self.energy_file.write(energies, self.object_token)
        return energies


_Kind = TypeVar("_Kind", bound=Scan)

# How a scan file becomes a scan: every array found, compared with the others, checked, and only
# then mapped or copied.


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of ``Scan.open``."""

    path: Path
    frames: Any
    positions: Any
    probe: Any
    object: Any
    mask: Any
    interpretation: Interpretation
    units: Units | None
    pixel_size_m: float | None
    cache_dir: Path | None
    cache_bytes: int
    repack: bool
    keep_energies: bool
    progress: Progress | None

    def __post_init__(self) -> None:
        if self.units not in (None, "pixels", "metres"):
            raise ContainerError(f"units is {self.units!r}; positions are in 'pixels' or 'metres'")

        size_m = self.pixel_size_m
        is_number = isinstance(size_m, int | float | np.floating) and not isinstance(size_m, bool)
        if size_m is not None and not (is_number and math.isfinite(size_m) and size_m > 0):
            raise ContainerError(
                f"pixel_size_m is {size_m!r}; the size of one object pixel is a positive "
                "number of metres"
            )

        for name, value in (("repack", self.repack), ("keep_energies", self.keep_energies)):
            if not isinstance(value, bool):
                raise ContainerError(f"{name} is {value!r}; True or False is needed")


class _Positions(NamedTuple):
    names: tuple[str, str]
    x: Axis
    y: Axis
    remedy: str
    """What to do about positions that look like metres."""


def _open_scan(kind: type[_Kind], request: _Request) -> _Kind:
    """Open the file: headers first, then small arrays, then copies."""
    with open_store(request.path) as store:
        parts = _choose(store, request)
        frame_count, frame_size = check_layout(parts, request.interpretation)
        notes = [*parts.notes, *_assumed(parts, request.interpretation)]
        for part in parts.order:
            check_finite(part)
        if parts.scan_index is not None:
            check_index(parts.scan_index)

        positions = _positions(
            store, parts, request, notes, frame_count=frame_count, frame_size=frame_size
        )
        probe = _probe(parts, notes)
        is_bad = None if parts.mask is None else read_mask(parts.mask, notes)
        identity = _identity(store, parts, request.interpretation, is_bad, frame_count)
        energy_file = EnergyFile(
            request.path, identity, frame_count, request.cache_dir, is_kept=request.keep_energies
        )
        obj, object_token = _object(
            parts, request, positions, energy_file, notes, frame_size=frame_size
        )

        stack, stack_notes = _frames(parts, request, is_bad)
        return kind(
            path=request.path,
            frames=stack,
            x=positions.x,
            y=positions.y,
            probe=probe,
            object=obj,
            frames_key=parts.frames.key,
            keys=store.keys,
            energy_file=energy_file,
            opening_notes=(*stack_notes, *notes),
            object_token=object_token,
        )


def _choose(store: Store, request: _Request) -> Parts:
    return choose(
        store,
        frames=request.frames,
        positions=request.positions,
        probe=request.probe,
        obj=request.object,
        mask=request.mask,
    )


def _probe(parts: Parts, notes: list[str]) -> npt.NDArray[np.complex64] | None:
    if parts.probe is None:
        notes.append("there is no probe, and containers need one: give probe=")
        return None
    return read_probe(parts.probe, notes)


def _frames(
    parts: Parts, request: _Request, is_bad: npt.NDArray[np.bool_] | None
) -> tuple[FrameStack, list[str]]:
    return open_frames(
        parts.frames,
        request.path,
        request.interpretation,
        is_bad,
        cache_dir=request.cache_dir,
        cache_bytes=request.cache_bytes,
        repack=request.repack,
        progress=request.progress,
    )


def _assumed(parts: Parts, interpretation: Interpretation) -> list[str]:
    """What the arguments made of the frames, and what their type costs."""
    key, dtype = parts.frames.key, parts.frames.header.dtype
    notes = []
    if interpretation.intensity:
        notes.append(
            f"{key} is {dtype} and taken as counts; the amplitude is their square root, float32"
        )
    elif not isinstance(parts.frames, NpzPart):
        notes.append(f"{key} is {dtype} and taken as amplitude; give intensity=True for counts")

    if dtype.itemsize == 8 and not interpretation.intensity:
        notes.append(f"{key} is float64; every batch is converted to float32")

    if interpretation.dc == "corner":
        notes.append(
            f"{key} has zero frequency at [0, 0]; frames are shifted to have it at [N/2, N/2]"
        )
    elif not isinstance(parts.frames, NpzPart):
        notes.append(
            f"{key} is taken to have zero frequency at [N/2, N/2]; give dc='corner' for [0, 0]"
        )

    if interpretation.is_turned or interpretation.is_scattered:
        notes.append(
            f"{key} has the axes {interpretation.axes}; frames are turned to (row, column)"
        )
    return notes


def _positions(
    store: Store,
    parts: Parts,
    request: _Request,
    notes: list[str],
    *,
    frame_count: int,
    frame_size: int,
) -> _Positions:
    """Both axes in pixels; raises ScanError where they are not in them, or cannot be."""
    matrix, remedy = _matrix(store, parts, request, frame_size, notes)
    is_pair = len(parts.positions) == 2
    axes = []
    for index in (0, 1):
        part = parts.positions[index if is_pair else 0]
        columns = 1 if is_pair else part.header.shape[1]
        weights: Sequence[float] = (
            (matrix[index, index],) if is_pair else matrix[index, :columns].tolist()
        )
        axes.append(read_axis(part, weights, frame_count))
    keys = [part.key for part in parts.positions]
    names = (keys[0], keys[1]) if is_pair else (f"x of {keys[0]}", f"y of {keys[0]}")
    return _Positions(names, axes[0], axes[1], remedy)


def _matrix(
    store: Store, parts: Parts, request: _Request, frame_size: int, notes: list[str]
) -> tuple[npt.NDArray[np.float64], str]:
    """(2, 3), from the stored columns to x and y in pixels, and what to do where these look like
    metres.
    """
    # Positions that were given are patch centres; only a format's own are translations of the
    # sample.
    geometry_is_asked = request.positions is None and request.units != "pixels"
    geometry = store.geometry(frame_size, request.pixel_size_m) if geometry_is_asked else None
    if geometry is not None:
        notes.extend(geometry.notes)
        return geometry.matrix, "check pixel_size_m"

    if request.units == "metres":
        if request.pixel_size_m is None:
            raise ContainerError(
                "units is 'metres'; give pixel_size_m, the size of one object pixel in metres"
            )
        notes.append(
            f"positions are in metres; one object pixel is {request.pixel_size_m:.6g} m, as given"
        )
        return np.eye(2, 3) / request.pixel_size_m, "check pixel_size_m"

    if request.pixel_size_m is not None:
        raise ContainerError(
            f"pixel_size_m is {request.pixel_size_m!r} and positions are in pixels; give "
            "units='metres' or leave it out"
        )

    if not isinstance(parts.frames, NpzPart):
        notes.append(
            "positions are taken as pixels of the object; give units='metres' and "
            "pixel_size_m for metres"
        )
    return np.eye(2, 3), "convert it to pixels"


def _object(
    parts: Parts,
    request: _Request,
    where: _Positions,
    energy_file: EnergyFile,
    notes: list[str],
    *,
    frame_size: int,
) -> tuple[npt.NDArray[np.complex64] | None, str | None]:
    """The object, or None, and what it is known by if it was checked where it lies."""
    if parts.object is None:
        notes.append("there is no object: ground truth is amplitude 1, phase 0")
        check_span(request.path, where.names, where.x, where.y, where.remedy)
        return None, None

    file = parts.object.file
    token = (
        None
        if file is None
        else f"{file.path} {file.offset_bytes} {file.shape} {file.dtype.str} {tuple(file.state)}"
    )

    is_known = token is not None and energy_file.knows_object(token)
    obj = read_object(
        parts.object, request.path, notes, cache_dir=request.cache_dir, is_known=is_known
    )

    for name, axis, extent in zip(where.names, (where.x, where.y), obj.shape[::-1], strict=True):
        check_inside(f"{request.path}: {name}", axis, extent, frame_size, parts.object.key)
    return obj, token


def _identity(
    store: Store,
    parts: Parts,
    interpretation: Interpretation,
    is_bad: npt.NDArray[np.bool_] | None,
    frame_count: int,
) -> Mapping[str, Any]:
    """Everything that the energies depend on; ``reading`` is what may differ between openings of
    one file.
    """
    state = store.state
    sources = getattr(parts.frames, "sources", ())
    return {
        "path": os.path.realpath(store.path),
        "reading": f"{parts.frames.key} {asdict(interpretation)} "
        f"{digest(is_bad.tobytes().hex()) if is_bad is not None else 'no mask'}",
        "state": {"inode": state.inode, "size_bytes": state.size_bytes, "mtime_ns": state.mtime_ns},
        "sources": [[str(path), list(source)] for path, source in sources],
        "frames": [list(parts.frames.header.shape), parts.frames.header.dtype.str],
        "frame_count": frame_count,
    }
