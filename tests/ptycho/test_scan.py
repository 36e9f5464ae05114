"""Opening scans: what is read, what is refused and in which words."""

import subprocess
import sys

import numpy as np
import pytest

from ptycho.errors import PtychoError, ScanError, ScanFileError
from ptycho.files.stacks import MappedFrames
from ptycho.scan import Scan


def save(path, arrays, **changed):
    """Write the arrays with some changed; None leaves one out."""
    kept = {key: value for key, value in {**arrays, **changed}.items() if value is not None}
    np.savez(path, **kept)
    return path


def test_a_stored_scan_gives_back_every_array(tmp_path, arrays):
    """Frames mapped at the local header's offset are the frames that were saved."""
    scan = Scan.open(save(tmp_path / "scan.npz", arrays))

    assert isinstance(scan.frames, MappedFrames)
    assert isinstance(scan.frames[:], np.memmap)
    np.testing.assert_array_equal(arrays["diff3d"], scan.frames)
    np.testing.assert_array_equal(arrays["xcoords"], scan.x)
    np.testing.assert_array_equal(arrays["ycoords"], scan.y)
    np.testing.assert_array_equal(arrays["probeGuess"], scan.probe)
    np.testing.assert_array_equal(arrays["objectGuess"], scan.object)
    assert (scan.frame_count, scan.frame_size) == (9, 16)


def test_a_scan_without_object_says_what_its_ground_truth_is(tmp_path, arrays):
    scan = Scan.open(save(tmp_path / "scan.npz", arrays, objectGuess=None))

    assert scan.object is None
    assert any("amplitude 1, phase 0" in note for note in scan.notes)


def test_frames_are_found_under_their_older_name(tmp_path, arrays):
    scan = Scan.open(save(tmp_path / "scan.npz", arrays, diff3d=None, diffraction=arrays["diff3d"]))

    np.testing.assert_array_equal(arrays["diff3d"], scan.frames)


def test_double_frames_are_accepted_and_noted(tmp_path, arrays):
    scan = Scan.open(
        save(tmp_path / "scan.npz", arrays, diff3d=arrays["diff3d"].astype(np.float64))
    )

    assert any("float64" in note for note in scan.notes)
    np.testing.assert_allclose(
        (np.asarray(scan.frames) ** 2).sum(axis=(1, 2)), scan.energies(), rtol=1e-12
    )


def test_the_same_frames_under_both_names_are_accepted(tmp_path, arrays):
    scan = Scan.open(save(tmp_path / "scan.npz", arrays, diffraction=arrays["diff3d"]))

    assert any("same bytes" in note for note in scan.notes)


def test_repr_reads_no_frame(tmp_path, arrays):
    """The repr is short and the same after the file's frames are gone."""
    path = save(tmp_path / "scan.npz", arrays)
    scan = Scan.open(path)
    path.unlink()

    assert repr(scan) == f"<Scan of 9 frames of 16 x 16 pixels, memory-mapped: {path}>"
    assert "array(" not in repr(scan)


FRAMES = np.ones((9, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"xcoords": None}, "lacks xcoords"),
        ({"probeGuess": None, "ycoords": None}, "lacks ycoords, probeGuess"),
        ({"diff3d": None}, "lacks diff3d"),
        ({"diffraction": FRAMES}, "both diff3d and diffraction"),
        ({"diff3d": FRAMES[0]}, r"diff3d has shape \(16, 16\)"),
        ({"diff3d": FRAMES[:, :, :14]}, "not square"),
        ({"diff3d": np.ones((16, 16, 9), np.float32)}, "last axis"),
        ({"diff3d": FRAMES[:, :15, :15]}, "frames of 15 pixels"),
        ({"diff3d": FRAMES[:, :6, :6]}, "frames of 6 pixels"),
        ({"diff3d": FRAMES[:0]}, "no values"),
        ({"diff3d": FRAMES.astype(np.complex64)}, "diff3d is complex64"),
        ({"diff3d": FRAMES > 0}, "diff3d is bool"),
        ({"diff3d": FRAMES.astype("U1")}, "diff3d is <U1"),
        ({"diff3d": FRAMES.astype(np.int32)}, "looks like counts"),
        ({"diff3d": FRAMES.astype(np.float16)}, "diff3d is float16"),
        ({"diff3d": FRAMES.astype(object)}, "diff3d holds Python objects"),
        (
            {"diff3d": np.asfortranarray(np.random.default_rng(0).random((9, 16, 16), np.float32))},
            "Fortran order",
        ),
        ({"objectGuess": np.array(None)}, "objectGuess holds Python objects"),
        ({"xcoords": np.arange(8.0)}, r"xcoords has shape \(8,\) for 9 frames"),
        ({"ycoords": np.array(["1"] * 9)}, "ycoords is <U1"),
        ({"xcoords": np.array([20.0] * 4 + [np.nan] * 5)}, "xcoords is nan for frame 4"),
        ({"ycoords": np.array([20.0] * 7 + [np.inf] * 2)}, "ycoords is inf for frame 7"),
        (
            {"xcoords": np.array([20.0] * 8 + [41.0])},
            "xcoords is 41 for frame 8, outside objectGuess.* 8 and 40",
        ),
        (
            {"ycoords": np.array([7.0] + [20.0] * 8)},
            "ycoords is 7 for frame 0, outside objectGuess.* 8 and 32",
        ),
        (
            {"objectGuess": None, "xcoords": np.linspace(0, 1e-5, 9), "ycoords": np.zeros(9)},
            "looks like metres",
        ),
        ({"probeGuess": np.ones((14, 14), np.complex64)}, r"probeGuess has shape \(14, 14\)"),
        ({"probeGuess": np.ones((16, 16), np.float32)}, "probeGuess is float32"),
        ({"probeGuess": np.zeros((16, 16), np.complex64)}, "probeGuess is zero"),
        (
            {"probeGuess": np.full((16, 16), np.nan, np.complex64)},
            r"probeGuess is \(?nan.* at \[0, 0\]",
        ),
        ({"objectGuess": np.ones((40, 15), np.complex64)}, "smaller than one frame"),
        (
            {"objectGuess": np.ones((2, 40, 40), np.complex64)},
            r"objectGuess has shape \(2, 40, 40\)",
        ),
        ({"objectGuess": np.ones((40, 48), np.float64)}, "objectGuess is float64"),
        (
            {"objectGuess": np.full((40, 48), 1e39 + 0j)},
            r"objectGuess is .*1e\+39.* at \[0, 0\]; too large for complex64",
        ),
        ({"probeGuess": np.full((16, 16), 1e-60 + 0j)}, "probeGuess is zero"),
        ({"scan_index": np.arange(8)}, r"scan_index has shape \(8,\) for 9 frames"),
        ({"scan_index": np.arange(9.0)}, "scan_index is float64"),
        ({"scan_index": np.array([0, 1, 2, -3, 4, 5, 6, 7, 8])}, "scan_index is -3 for frame 3"),
        ({"scan_index": np.arange(9).astype(object)}, "scan_index holds Python objects"),
        ({"xcoords_start": np.zeros(8)}, r"xcoords_start has shape \(8,\) for 9 frames"),
        ({"ycoords_start": np.array([0.0] * 6 + [np.inf] * 3)}, "ycoords_start is inf for frame 6"),
        (
            {"xcoords": np.array([20.0] * 2 + [1e300] * 7)},
            r"xcoords is 1e\+300 for frame 2; positions are pixels",
        ),
        (
            {"objectGuess": None, "ycoords": np.full(9, -2e9)},
            r"ycoords is -2e\+09 for frame 0; positions are pixels",
        ),
        (
            {"objectGuess": None, "xcoords": np.full(9, 20.0), "ycoords": np.full(9, 21.0)},
            "are the same for all 9 frames",
        ),
        (
            {"objectGuess": None, "ycoords": np.linspace(-1e-5, 1e-5, 9)},
            "ycoords spans 2e-05 pixels, which looks like metres",
        ),
    ],
)
def test_a_broken_contract_is_refused_in_one_sentence(tmp_path, arrays, changed, words):
    """The sentence names the file, the key and what was found."""
    path = save(tmp_path / "scan.npz", arrays, **changed)
    with pytest.raises(ScanError, match=words) as caught:
        Scan.open(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "is_inside"), [(8.0, True), (40.0, True), (7.4, False), (40.6, False)]
)
def test_positions_may_touch_the_edge_of_the_object(tmp_path, arrays, x, is_inside):
    """A patch of 16 pixels in an object 48 wide has its centre between 8 and 40."""
    path = save(tmp_path / "scan.npz", arrays, xcoords=np.array([20.0] * 8 + [x]))
    if is_inside:
        assert Scan.open(path).x[8] == x
    else:
        with pytest.raises(ScanError, match="frame 8"):
            Scan.open(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"scan_index": np.arange(9), "xcoords_start": np.zeros(9), "ycoords_start": np.arange(9)},
        {"objectGuess": None, "ycoords": np.full(9, 3.0)},  # a line scan
        {"objectGuess": None, "ycoords": 3 + np.linspace(0, 4e-3, 9)},  # that jitters
        {"objectGuess": None, "ycoords": np.linspace(0, 1e-12, 9)},  # or was rounded
        {"objectGuess": None, "xcoords": np.linspace(-1e9, 1e9, 9)},
        {"objectGuess": np.full((40, 48), 1e38 + 0j)},
        {"objectGuess": np.full((40, 48), 1 + 0j, ">c8")},
    ],
)
def test_what_keeps_to_the_contract_is_opened(tmp_path, arrays, changed):
    assert Scan.open(save(tmp_path / "scan.npz", arrays, **changed)).frame_count == 9


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (-np.inf, "NaN or infinite"),
        (-1e-6, "negative"),
    ],
)
def test_the_energy_pass_refuses_impossible_amplitudes(tmp_path, arrays, value, words):
    """One pixel of frame 5 is enough."""
    arrays["diff3d"][5, 3, 2] = value
    scan = Scan.open(save(tmp_path / "scan.npz", arrays))
    with pytest.raises(ScanError, match=f"diff3d has {words} amplitude in frame 5"):
        scan.energies()


def test_the_energy_pass_refuses_a_stack_of_zeros(tmp_path, arrays):
    scan = Scan.open(save(tmp_path / "scan.npz", arrays, diff3d=np.zeros((9, 16, 16), np.float32)))
    with pytest.raises(ScanError, match="zero in all 9 frames"):
        scan.energies()


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ScanFileError, match="does not exist"):
        Scan.open(tmp_path / "none.npz")
    with pytest.raises(ScanFileError, match="is a folder"):
        Scan.open(tmp_path)


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "scan.tif").write_bytes(b"II")
    with pytest.raises(ScanError, match=r"'\.tif'; scans are read from \.npz, \.npy, \.h5"):
        Scan.open(tmp_path / "scan.tif")


def test_errors_are_also_the_builtin_they_mean():
    assert issubclass(ScanError, ValueError)
    assert issubclass(ScanError, PtychoError)
    assert issubclass(ScanFileError, OSError)
    assert issubclass(ScanFileError, PtychoError)


def test_importing_and_opening_needs_no_tensorflow(simulated_path):
    """A machine without TensorFlow may still look at scans."""
    look = f"ptycho.scan.Scan.open({str(simulated_path)!r}).energies()"
    code = (
        f"import sys, ptycho.scan, ptycho.__main__; {look}; print('tensorflow' in sys.modules "
        "or 'h5py' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "False"
