"""CXI: places, units and signs of the standard; the measured near-field set where it is there."""

import h5py
import numpy as np
import pytest

from ptycho.errors import ContainerError, ScanError
from ptycho.scan import Scan

DETECTOR, SOURCE = "/entry_1/instrument_1/detector_1", "/entry_1/instrument_1/source_1"
P25 = "p25_nearfield/PETRAIII_P25_Near_Field_Ptycho.cxi"


@pytest.fixture
def write(write_hdf5, cxi_arrays):
    def write_changed(**changed):
        arrays = {**cxi_arrays, **changed}
        return write_hdf5(
            {key: values for key, values in arrays.items() if values is not None}, name="scan.cxi"
        )

    return write_changed


def opened(path, **settings):
    return Scan.open(path, intensity=True, cache_dir=path.parent / "cache", **settings)


@pytest.mark.parametrize("row_sign", [1, -1])
@pytest.mark.parametrize("column_sign", [1, -1])
@pytest.mark.parametrize("is_turned", [False, True])
def test_the_sign_is_that_of_the_basis_vectors(
    write, measured, cxi_arrays, row_sign, column_sign, is_turned
):
    """The sample moves against the patch, along wherever rows and columns of the detector point."""
    pixel_m, translation = 50e-6, cxi_arrays["/entry_1/sample_1/geometry_1/translation"]
    object_pixel_m = 1e-10 * 2 / (16 * pixel_m)
    basis = np.array([[0, column_sign], [row_sign, 0], [0, 0]]) * pixel_m
    if is_turned:
        basis = basis[[1, 0, 2]]
    x, y = translation[:, 1 if is_turned else 0], translation[:, 0 if is_turned else 1]
    scan = opened(write(**{f"{DETECTOR}/basis_vectors": basis}))

    np.testing.assert_allclose(-column_sign * x / object_pixel_m, scan.x, rtol=1e-12)
    np.testing.assert_allclose(-row_sign * y / object_pixel_m, scan.y, rtol=1e-12)


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        (
            {f"{DETECTOR}/basis_vectors": None},
            "there are no basis_vectors: detector rows are taken along -y and columns along -x",
        ),
        (
            {f"{DETECTOR}/basis_vectors": None, f"{DETECTOR}/y_pixel_size": None},
            "there are no basis_vectors",
        ),
        (
            {f"{DETECTOR}/basis_vectors": np.array([[0, -5e-5, 0], [-5e-5, 0, 0]])},
            "rows along -y, columns along -x",
        ),
        ({f"{SOURCE}/wavelength": None, f"{SOURCE}/energy": 1.986445857e-15}, "wavelength"),
        ({f"{SOURCE}/wavelength": np.full(25, 1e-10)}, "wavelength"),
        ({"/entry_1/data_1/translation": None}, "wavelength"),
        ({"/entry_1/data_1/data": None, f"{DETECTOR}/data": h5py.SoftLink("frames")}, "wavelength"),
    ],
)
def test_what_the_standard_leaves_open_is_found(write, measured, changed, note):
    scan = opened(write(**changed))

    np.testing.assert_allclose(measured.x, scan.x, rtol=1e-9)
    np.testing.assert_allclose(measured.y, scan.y, rtol=1e-9)
    np.testing.assert_array_equal(measured.amplitude, scan.frames)
    assert any(note in text for text in scan.notes)


def test_pixels_of_a_detector_may_differ(write, measured):
    """Twice as wide a detector pixel is half as wide an object pixel."""
    basis = np.array([[0, -1e-4], [-5e-5, 0], [0, 0]])
    scan = opened(write(**{f"{DETECTOR}/basis_vectors": basis}))

    np.testing.assert_allclose(2 * measured.x, scan.x, rtol=1e-12)
    np.testing.assert_allclose(measured.y, scan.y, rtol=1e-12)


def test_a_given_pixel_size_needs_no_optics(write, measured):
    changed = {f"{DETECTOR}/distance": None, f"{SOURCE}/wavelength": None}
    scan = opened(write(**changed), pixel_size_m=1e-10 * 2 / (16 * 50e-6) / 2)

    np.testing.assert_allclose(2 * measured.x, scan.x, rtol=1e-12)
    assert any("as given" in note for note in scan.notes)


@pytest.mark.parametrize("place", [f"{DETECTOR}/mask", "/entry_1/data_1/mask"])
def test_the_mask_of_the_file_is_used(write, measured, place):
    """0 is good; zeros given instead are no mask."""
    mask = np.zeros((16, 16), np.uint32)
    mask[2, 3] = 1 << 16
    path = write(**{place: mask})
    scan = opened(path)

    np.testing.assert_array_equal(np.where(mask, 0, measured.amplitude), scan.frames)
    np.testing.assert_array_equal(
        measured.amplitude, opened(path, mask=np.zeros((16, 16), int)).frames
    )
    assert any("mask marks 1 of 256 pixels as bad (0 is good)" in note for note in scan.notes)
    assert opened(path).energies()[0] != opened(path, mask=np.zeros((16, 16), int)).energies()[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"/entry_1/data_1/data": None},
            "has neither /entry_1/data_1/data nor .*, the frames of a CXI file; it has",
        ),
        ({f"{DETECTOR}/distance": None}, "has no .*/distance; give pixel_size_m"),
        ({f"{DETECTOR}/distance": 0.0}, "distance is 0; one positive number"),
        ({f"{DETECTOR}/distance": np.nan}, "distance is not finite"),
        ({f"{DETECTOR}/distance": b"2 m"}, "distance is .*a few real numbers|distance holds text"),
        (
            {f"{DETECTOR}/distance": np.array([1.0, 2.0])},
            "distance is 2 values; one positive number",
        ),
        ({f"{SOURCE}/wavelength": None}, "has neither .*/wavelength nor energy; give pixel_size_m"),
        (
            {
                f"{DETECTOR}/basis_vectors": None,
                f"{DETECTOR}/x_pixel_size": None,
                f"{DETECTOR}/y_pixel_size": None,
            },
            "has no .*/x_pixel_size; give pixel_size_m",
        ),
        ({f"{DETECTOR}/basis_vectors": np.zeros((3, 2))}, "basis_vectors has an axis of no length"),
        ({f"{DETECTOR}/basis_vectors": np.ones((3, 3))}, r"basis_vectors has shape \(3, 3\)"),
        ({f"{DETECTOR}/basis_vectors": np.ones((3, 2))}, "basis_vectors are not at right angles"),
        (
            {"/entry_1/sample_1/geometry_1/translation": np.zeros((24, 3))},
            r"translation has shape \(24, 3\) for 25 frames",
        ),
        (
            {"/entry_1/sample_1/geometry_1/translation": np.zeros((25, 3))},
            "x of /entry_1/data_1/translation and y of .* the same",
        ),
        (
            {"/entry_1/sample_1/geometry_1/translation": np.full((25, 3), np.inf)},
            "translation is inf for frame 0 in column 0",
        ),
        (
            {"/entry_1/sample_1/geometry_1/translation": None},
            "/entry_1/data_1/translation is a link to .* not in the file",
        ),
        (
            {f"{DETECTOR}/mask": np.zeros((25, 16, 16), int)},
            r"mask has shape \(25, 16, 16\); one of \(16, 16\) for all frames",
        ),
    ],
)
def test_a_broken_cxi_file_is_refused_in_one_sentence(write, changed, words):
    path = write(**changed)
    with pytest.raises(ScanError, match=words) as caught:
        opened(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_translations_needs_positions(write, measured):
    path = write(
        **{"/entry_1/sample_1/geometry_1/translation": None, "/entry_1/data_1/translation": None}
    )
    with pytest.raises(
        ContainerError, match="does not say where the frames were taken; give positions"
    ):
        opened(path)

    np.testing.assert_array_equal(measured.y, opened(path, positions=measured.positions).y)


def test_a_wrong_pixel_size_is_noticed(write):
    """A scan within one pixel of the object never moved."""
    with pytest.raises(ScanError, match="looks like metres; check pixel_size_m"):
        opened(write(), pixel_size_m=1.0)


@pytest.fixture
def p25(siemens_star):
    path = siemens_star.parents[1] / P25
    if not path.exists():
        pytest.skip(f"the measured scan {path.name} is not here")
    return path


def test_the_measured_near_field_set(p25, tmp_path):
    """Every frame by another route; positions with the effective pixel of the Fresnel scaling."""
    settings = {"intensity": True, "pixel_size_m": 178.66e-9, "cache_dir": tmp_path}
    scan = Scan.open(p25, **settings)
    with h5py.File(p25) as file:
        counts, mask = (file[f"{DETECTOR}/{name}"][:] for name in ("data", "mask"))
        translation = file["/entry_1/sample_1/geometry_1/translation"][:].astype(np.float64)

    np.testing.assert_array_equal(
        np.sqrt(np.where(mask, 0, counts)).astype(np.float32), scan.frames
    )
    np.testing.assert_allclose(translation[:, 1] / 178.66e-9, scan.y, rtol=1e-12)
    np.testing.assert_allclose(translation[:, 0] / 178.66e-9, scan.x, rtol=1e-12)
    np.testing.assert_allclose(counts[:, mask == 0].sum(axis=1), scan.energies(), rtol=1e-6)
    assert scan.frames.description.startswith(
        "read through a chunk cache of 32 MiB (chunks of 25 x 13 x 25)"
    )
    np.testing.assert_array_equal(scan.frames, Scan.open(p25, repack=True, **settings).frames)
    with pytest.raises(ScanError, match="/entry_1/data_1/data is int32, which looks like counts"):
        Scan.open(p25, cache_dir=tmp_path)
