"""A measured scan, opened lazily and checked."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ptycho.arguments import whole
from ptycho.converting import Center, Interpretation, Units
from ptycho.energy import Progress, frame_energies
from ptycho.energy_file import EnergyFile
from ptycho.files import FileArray
from ptycho.files.stacks import FrameStack
from ptycho.opening import Request, open_scan
from ptycho.positions import Axis

DEFAULT_CACHE_BYTES = 32 << 20
"""Chosen: holds one row of the chunks that h5py makes by itself for 16,384 frames of 128 x 128, and
is a batch or two."""

Given = npt.ArrayLike | PathLike[str]
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
        path: str | PathLike[str],
        *,
        frames: str | None = None,
        positions: Given | tuple[Given, Given] | None = None,
        probe: Given | None = None,
        object: Given | None = None,  # noqa: A002 - the field's word
        mask: Given | None = None,
        intensity: bool = False,
        dc: Center = "center",
        axes: str = "frame,row,column",
        units: Units | None = None,
        pixel_size_m: float | None = None,
        cache_dir: str | PathLike[str] | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        repack: bool = False,
        keep_energies: bool = True,
        progress: Progress | None = None,
    ) -> Self:
        """Open a scan file without reading its frames; the suffix says what it is.

        ``.npz`` is PtychoPINN's contract, ``.cxi`` CXI, ``.h5`` ``.hdf5`` ``.hdf`` ``.nxs`` plain
        HDF5, ``.npy`` frames alone. What was assumed is said in ``notes``.

        Parameters
        ----------
        frames
            Name of the frames in the file: a key of an NPZ, a data set of HDF5, which always needs
            it. Default: the
            contract's ``diff3d`` or ``diffraction``, CXI's ``/entry_1/data_1/data``.
        positions
            Patch centres [x, y], that is column and row, (M, 2) of any real dtype: an array, a
            .npy, .csv or .txt file, a
            name in the scan file, or a pair of any of these, (M,) each, x first. Default: the
            contract's, or CXI's translations.
        probe, object
            (N, N) and (H, W) complex: an array, a .npy file, or a name in the scan file. Default:
            the contract's; None for
            other formats. A container needs a probe.
        mask
            (N, N) whole numbers or bool, 0 for good pixels, turned as the frames are stored; the
            others read 0. An array, a
            .npy file or a name. Default: CXI's; none for other formats. Zeros are no mask.
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
            distance / (N *
            detector pixel).
        cache_dir
            Folder of unpacked and repacked copies and of the kept energies. Default: energies
            beside the scan, the rest,
            and all where that cannot be written, in ``ptycho-memory`` in the user's cache folder.
        cache_bytes
            Host memory for chunks of an HDF5 file; must hold those that one frame lies in, where
            others share them.
        repack
            Write frames that cannot be mapped (HDF5 chunks, or scattered ``axes``) one after the
            other into
            ``cache_dir``, once.
        keep_energies
            Keep what ``energies`` finds for the next opening, and believe what was kept. Without it
            every opening makes
            a pass of its own, and writes nothing.
        progress
            Called with what is being unpacked, bytes done and bytes in all.

        Raises
        ------
        ScanFileError
            Where a file cannot be read or a copy cannot be written.
        ScanError
            Where it is damaged or breaks the contract; the values of the frames are checked by
            ``energies``.
        ContainerError
            For arguments that do not fit.
        """
        request = Request(
            path=Path(path),
            frames=frames,
            positions=positions,
            probe=probe,
            object=object,
            mask=mask,
            what=Interpretation(intensity, dc, axes),
            units=units,
            pixel_size_m=pixel_size_m,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            cache_bytes=whole("cache_bytes", cache_bytes, least=1),
            repack=repack,
            keep_energies=keep_energies,
            progress=progress,
        )
        return cls(**open_scan(request)._asdict())

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
        interpretation is read anew. Raises ScanError naming frame, value and pixel for NaN,
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
