"""One measured scan, and every way of writing it down."""

import dataclasses

import h5py
import numpy as np
import pytest


@dataclasses.dataclass
class Measured:
    """25 frames of 16 x 16 counts over an object of 40 x 48, and what must come out of every
    file.
    """

    counts: np.ndarray
    amplitude: np.ndarray
    x: np.ndarray
    y: np.ndarray
    probe: np.ndarray
    object: np.ndarray

    @property
    def positions(self):
        return np.stack([self.x, self.y], axis=1)


@pytest.fixture
def measured():
    generator = np.random.default_rng(7)
    counts = generator.poisson(40, (25, 16, 16)).astype(np.uint16)
    counts[3] = 0
    return Measured(
        counts=counts,
        amplitude=np.sqrt(counts.astype(np.float64)).astype(np.float32),
        x=generator.uniform(8, 40, 25),
        y=generator.uniform(8, 32, 25),
        probe=(generator.random((16, 16)) + 1j).astype(np.complex64),
        object=(generator.random((40, 48)) + 1j).astype(np.complex64),
    )


@pytest.fixture
def write_hdf5(tmp_path):
    """Write a plain HDF5 file: a mapping of paths to arrays, with what create_dataset takes for the
    frames.
    """

    def write(arrays, *, name="scan.h5", userblock_size=0, **frame_settings):
        path = tmp_path / name
        with h5py.File(path, "w", userblock_size=userblock_size) as file:
            for key, values in arrays.items():
                if isinstance(values, h5py.SoftLink | h5py.ExternalLink):
                    file[key] = values
                else:
                    file.create_dataset(
                        key, data=values, **(frame_settings if key.endswith("frames") else {})
                    )
        return path

    return write


DETECTOR, SOURCE = "/entry_1/instrument_1/detector_1", "/entry_1/instrument_1/source_1"


@pytest.fixture
def cxi_arrays(measured):
    """What a CXI file of that scan holds: a detector that looks upstream, sample translations in
    metres, SI units.
    """
    wavelength_m, distance_m, pixel_m = 1e-10, 2.0, 50e-6
    object_pixel_m = wavelength_m * distance_m / (16 * pixel_m)
    translation = -np.stack([-measured.x, -measured.y, 0 * measured.x], axis=1) * object_pixel_m
    return {
        "/cxi_version": 160,
        "/entry_1/sample_1/geometry_1/translation": translation,
        f"{DETECTOR}/frames": measured.counts,
        f"{DETECTOR}/basis_vectors": np.array([[0, -pixel_m], [-pixel_m, 0], [0, 0]]),
        f"{DETECTOR}/distance": distance_m,
        f"{DETECTOR}/x_pixel_size": pixel_m,
        f"{DETECTOR}/y_pixel_size": pixel_m,
        f"{SOURCE}/wavelength": wavelength_m,
        "/entry_1/data_1/data": h5py.SoftLink(f"{DETECTOR}/frames"),
        "/entry_1/data_1/translation": h5py.SoftLink("/entry_1/sample_1/geometry_1/translation"),
    }
