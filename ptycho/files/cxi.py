"""HDF5 by data set path, and CXI: HDF5 with fixed names and SI units (cxidb.org/cxi.html; the NeXus
definition NXcxi_ptycho names the same places).
"""

import contextlib
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.files import (
    BLOCK_BYTES,
    FileState,
    Geometry,
    Names,
    load,
)
from ptycho.files.hdf5 import DAMAGE, Hdf5Part, hdf5_named, open_file

_DETECTOR = "/entry_1/instrument_1/detector_1"
FRAMES = ("/entry_1/data_1/data", f"{_DETECTOR}/data")
TRANSLATIONS = (
    "/entry_1/data_1/translation",
    "/entry_1/sample_1/geometry_1/translation",
    f"{_DETECTOR}/translation",
)
MASKS = (f"{_DETECTOR}/mask", "/entry_1/data_1/mask")
_SOURCE = "/entry_1/instrument_1/source_1"
_PLANCK_TIMES_LIGHT = 1.986445857e-25
"""h c in J m (SI 2019, exact to the digits given): CXI's energy is in joules."""
_MOST_SHEAR = 1e-3
"""Chosen: cosine between detector rows and columns; a real detector's is rounding."""


class Hdf5Store:
    """An HDF5 file, open: every array is named by its path in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = FileState.of(path.stat())
        self.file = open_file(path, cache_bytes=BLOCK_BYTES)  # every chunk is read once
        try:
            self.keys = _datasets(path, self.file)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go."""
        with contextlib.suppress(*DAMAGE):
            self.file.close()

    def names(self, frames: str | None) -> tuple[Names, tuple[str, ...]]:
        """Nothing but the frames is known; raises ScanError where they were not named."""
        if frames is None:
            stacks = [key for key in self.keys if self._dimensions(key) == 3]
            found = (
                f"data sets of three dimensions: {', '.join(stacks[:_MOST_NAMED])}"
                if stacks
                else "no data set has three dimensions"
            )
            raise ScanError(
                f"{self.path} is plain HDF5, so name the data set of the frames, "
                f"frames='/...'; {found}"
            )
        return Names(frames, None), ()

    def part(self, key: str) -> Hdf5Part:
        """The data set at that path; raises ScanError where links lead nowhere or into another
        file.
        """
        key = key or "/"
        with hdf5_named(f"{self.path}: {key}"):
            dataset = self.file[self._resolve(key)]
            if not isinstance(dataset, h5py.Dataset):
                raise ScanError(
                    f"{self.path}: {key} is a {type(dataset).__name__.lower()}; name a data set"
                )
            return Hdf5Part(self.path, key, dataset, self.state)

    def geometry(self, frame_size: int, pixel_size_m: float | None) -> Geometry | None:  # noqa: ARG002 - CXI has one
        """None: plain HDF5 has no fixed place for it."""
        return None

    def has(self, key: str) -> bool:
        """Whether there is a link of that name, wherever it leads."""
        *groups, last = _steps(key)
        with hdf5_named(f"{self.path}: {key}"):
            group: Any = self.file
            for step in groups:
                if not (isinstance(group, h5py.Group) and group.id.links.exists(step.encode())):
                    return False
                group = group.get(step)  # None where a link dangles
            return isinstance(group, h5py.Group) and bool(group.id.links.exists(last.encode()))

    def _resolve(self, key: str) -> str:
        """``key`` with its links followed one by one: h5py calls a link that leads nowhere a
        missing name.
        """
        name = f"{self.path}: {key}"
        steps, place, followed = _steps(key), "/", ""
        for _ in range(_MOST_STEPS):
            if not steps:
                return place
            group = self.file[place]
            if not isinstance(group, h5py.Group):
                raise ScanError(
                    f"{name}: {place} is a data set and has no {steps[0]}; {self._has_some()}"
                )

            step, *steps = steps
            links = group.id.links
            if not links.exists(step.encode()):
                if followed:
                    raise ScanError(
                        f"{name} is a link to {followed}, which is not in the file; write "
                        "the file again"
                    )
                raise ScanError(f"{self.path} has no {key}; {self._has_some()}")

            kind = links.get_info(step.encode()).type
            if kind == h5py.h5l.TYPE_EXTERNAL:
                file_name, inside = (
                    text.decode(errors="replace") for text in links.get_val(step.encode())
                )
                raise ScanError(
                    f"{name} is a link into another file, {file_name}; open that file and "
                    f"name {inside}"
                )

            if kind == h5py.h5l.TYPE_SOFT:
                followed = links.get_val(step.encode()).decode(errors="replace")
                steps = [*_steps(followed), *steps]
                place = "/" if followed.startswith("/") else place
            else:
                place = f"{place.rstrip('/')}/{step}"

        raise ScanError(
            f"{name} leads through more than {_MOST_STEPS} links and groups; they go in a circle"
        )

    def _dimensions(self, key: str) -> int:
        with hdf5_named(f"{self.path}: {key}"):
            shape = self.file[key].shape
        return len(shape or ())

    def _has_some(self) -> str:
        more = len(self.keys) - _MOST_NAMED
        named = ", ".join(self.keys[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"it has {named or 'no data sets'}"


class CxiStore(Hdf5Store):
    """A CXI file, open."""

    def names(self, frames: str | None) -> tuple[Names, tuple[str, ...]]:
        """The places of the standard, the first that is there; raises ScanError for a file without
        frames.
        """
        frames = frames or self._first(FRAMES)
        if frames is None:
            raise ScanError(
                f"{self.path} has neither {' nor '.join(FRAMES)}, the frames of a CXI file; "
                f"{self._has_some()}"
            )
        return Names(frames, self._first(TRANSLATIONS), mask=self._first(MASKS)), ()

    def geometry(self, frame_size: int, pixel_size_m: float | None) -> Geometry:
        """Pixels per metre of sample translation, (2, 3).

        The sample moves and the beam stays, so the patch moves against the translation;
        ``basis_vectors`` say where rows and columns of the detector, and with them of the object,
        point. Without ``pixel_size_m`` the object pixel is that of the far field, wavelength *
        distance / (N * detector pixel).
        """
        (row_axis, column_axis), pixels_m, basis_note = self._basis()

        if pixel_size_m is not None:
            sizes_m = np.array([pixel_size_m, pixel_size_m])
            note = f"one object pixel is {pixel_size_m:.6g} m, as given"
        else:
            if pixels_m is None:
                raise ScanError(
                    f"{self.path} has no {_DETECTOR}/x_pixel_size; give pixel_size_m, the "
                    "size of one object pixel"
                )
            sizes_m = (
                self._wavelength_m()
                * self._scalar(f"{_DETECTOR}/distance")
                / (frame_size * pixels_m)
            )
            note = (
                f"one object pixel is {sizes_m[1]:.6g} m, wavelength * distance / (N * "
                "detector pixel) of the far field; give pixel_size_m for another geometry"
            )

        matrix = -np.stack([column_axis / sizes_m[1], row_axis / sizes_m[0]])
        return Geometry(matrix, (note, basis_note))

    def _basis(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None, str]:
        """Unit vectors of rows and columns (2, 3), the detector's pixel along them in metres (2,),
        and a note.
        """
        key = f"{_DETECTOR}/basis_vectors"
        if self.has(key):
            vectors, lengths = self._basis_vectors(key)
            signs = ", ".join(
                f"{name} along {_words(axis)}"
                for name, axis in zip(("rows", "columns"), vectors, strict=True)
            )
            note = f"translations of the sample are turned by basis_vectors ({signs})"
            return vectors, lengths, note

        sizes = [
            self._scalar(f"{_DETECTOR}/{axis}_pixel_size")
            for axis in "yx"
            if self.has(f"{_DETECTOR}/{axis}_pixel_size")
        ]
        # One size alone is that of both axes.
        lengths_m = np.array(sizes * 2)[:2] if sizes else None
        vectors = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
        note = "there are no basis_vectors: detector rows are taken along -y and columns along -x"
        return vectors, lengths_m, note

    def _basis_vectors(self, key: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Unit vectors (2, 3) and lengths in metres (2,) of what the file says; raises ScanError
        where they are no detector's.
        """
        vectors = self._numbers(key)
        if vectors.shape == (3, 2):
            vectors = vectors.T
        if vectors.shape != (2, 3):
            raise ScanError(
                f"{self.path}: {key} has shape {vectors.shape}; (3, 2) is needed, a column for "
                "each detector axis"
            )

        lengths = np.linalg.norm(vectors, axis=1)
        if not lengths.all():
            raise ScanError(f"{self.path}: {key} has an axis of no length; fix the file")
        vectors = vectors / lengths[:, None]
        if abs(vectors[0] @ vectors[1]) > _MOST_SHEAR:
            raise ScanError(
                f"{self.path}: {key} are not at right angles; frames are square pixels, fix the "
                "file"
            )
        return vectors, lengths

    def _wavelength_m(self) -> float:
        for key in (f"{_SOURCE}/wavelength", f"{_SOURCE}/energy"):
            if self.has(key):
                value = self._scalar(key)
                return value if key.endswith("wavelength") else _PLANCK_TIMES_LIGHT / value
        raise ScanError(
            f"{self.path} has neither {_SOURCE}/wavelength nor energy; give pixel_size_m, "
            "the size of one object pixel"
        )

    def _scalar(self, key: str) -> float:
        if not self.has(key):
            raise ScanError(
                f"{self.path} has no {key}; give pixel_size_m, the size of one object pixel"
            )
        values = self._numbers(key).ravel()
        if values.size == 0 or not (values > 0).all() or np.ptp(values) > 1e-6 * values[0]:
            found = f"{values[0]:g}" if values.size == 1 else f"{values.size} values"
            raise ScanError(
                f"{self.path}: {key} is {found}; one positive number of SI units is needed, "
                "or give pixel_size_m"
            )
        return float(values[0])

    def _numbers(self, key: str) -> npt.NDArray[np.float64]:
        part = self.part(key)
        if (
            part.header.dtype.kind not in "fiu"
            or int(np.prod(part.header.shape, dtype=object)) > _MOST_NUMBERS
        ):
            raise ScanError(
                f"{part.name} is {part.header.dtype} of shape {part.header.shape}; a few "
                "real numbers are needed"
            )
        values = load(part).astype(np.float64)
        if not np.isfinite(values).all():
            raise ScanError(f"{part.name} is not finite; fix the file or give pixel_size_m")
        return values

    def _first(self, keys: tuple[str, ...]) -> str | None:
        return next((key for key in keys if self.has(key)), None)


_MOST_NUMBERS = 1 << 16
"""Chosen: energy and distance may be there once for every frame."""


def _words(axis: npt.NDArray[np.float64]) -> str:
    """The coordinate axis that a unit vector is nearest to.

    >>> _words(np.array([0.1, -0.9, 0.0]))
    '-y'
    """
    largest = int(np.argmax(np.abs(axis)))
    return f"{'-' if axis[largest] < 0 else '+'}{'xyz'[largest]}"


_MOST_STEPS = 64
"""Chosen: groups and links of one path; libhdf5 itself follows 16 soft links in a row
(H5Pset_nlinks)."""


_MOST_NAMED = 12
"""Chosen: data sets in one sentence; a NeXus file may have hundreds."""


def _steps(key: str) -> list[str]:
    """The names in a path.

    >>> _steps("/entry_1//./data")
    ['entry_1', 'data']
    """
    return [step for step in re.split("/+", key) if step and step != "."]


def _datasets(path: Path, file: h5py.File) -> tuple[str, ...]:
    """Every data set by its path, links not followed."""
    found: list[str] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(f"/{name}")

    with hdf5_named(str(path)):
        file.visititems(note)
    return tuple(found)
