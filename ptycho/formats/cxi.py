"""CXI: HDF5 with fixed names and SI units (cxidb.org/cxi.html; the NeXus definition NXcxi_ptycho
names the same places).
"""

import numpy as np
import numpy.typing as npt

from ptycho.errors import ScanError
from ptycho.formats.contents import Geometry, Names, load
from ptycho.formats.hdf5 import Hdf5Store

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
            vectors = self._numbers(key)
            if vectors.shape == (3, 2):
                vectors = vectors.T
            if vectors.shape != (2, 3):
                raise ScanError(
                    f"{self.path}: {key} has shape {vectors.shape}; (3, 2) is needed, a "
                    "column for each detector axis"
                )
            lengths = np.linalg.norm(vectors, axis=1)
            if not lengths.all():
                raise ScanError(f"{self.path}: {key} has an axis of no length; mend the file")
            vectors = vectors / lengths[:, None]
            if abs(vectors[0] @ vectors[1]) > _MOST_SHEAR:
                raise ScanError(
                    f"{self.path}: {key} are not at right angles; frames are square pixels, "
                    "mend the file"
                )
            signs = ", ".join(
                f"{'row' if index == 0 else 'column'}s along {_words(axis)}"
                for index, axis in enumerate(vectors)
            )
            return (
                vectors,
                lengths,
                f"translations of the sample are turned by basis_vectors ({signs})",
            )
        sizes = [
            self._scalar(f"{_DETECTOR}/{axis}_pixel_size")
            for axis in "yx"
            if self.has(f"{_DETECTOR}/{axis}_pixel_size")
        ]
        # One size alone is that of both axes.
        lengths_m = np.array(sizes * 2)[:2] if sizes else None
        vectors = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
        return (
            vectors,
            lengths_m,
            "there are no basis_vectors: detector rows are taken along -y and columns along -x",
        )

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
            raise ScanError(f"{part.name} is not finite; mend the file or give pixel_size_m")
        return values

    def _first(self, keys: tuple[str, ...]) -> str | None:
        return next((key for key in keys if self.has(key)), None)


_MOST_NUMBERS = 1 << 16
"""Chosen: energy and distance may be there once for every frame."""


def _words(axis: npt.NDArray[np.float64]) -> str:
    largest = int(np.argmax(np.abs(axis)))
    return f"{'-' if axis[largest] < 0 else '+'}{'xyz'[largest]}"
