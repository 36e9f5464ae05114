"""Frames in a .npy file, and arrays in files of their own."""

import numpy as np
import pytest

from ptycho.errors import ContainerError, ScanError, ScanFileError
from ptycho.scan import Scan

POSITIONS = np.arange(50.0).reshape(25, 2)


@pytest.fixture
def path(tmp_path, measured):
    np.save(tmp_path / "scan.npy", measured.amplitude)
    return tmp_path / "scan.npy"


def refused(path, words, kind=ScanError, **settings):
    with pytest.raises(kind, match=words) as caught:
        Scan.open(
            path, cache_dir=path.parent / "cache", **{"positions": POSITIONS, **settings}
        ).energies()

    assert "\n" not in str(caught.value)
    assert not (path.parent / "cache").exists()


ONES = np.ones((25, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (ONES.astype(np.uint16), "scan.npy is uint16, which looks like counts"),
        (ONES.astype(np.complex64), "scan.npy is complex64"),
        (ONES > 0, "scan.npy is bool"),
        (ONES.astype("U1"), "scan.npy is <U1"),
        (ONES[0], r"scan.npy has shape \(16, 16\)"),
        (ONES[:, :14], "not square"),
        (ONES[:, :15, :15], "frames of 15 pixels"),
        (ONES[:0], "no values"),
        (
            np.asfortranarray(np.random.default_rng(0).random((25, 16, 16), np.float32)),
            "Fortran order",
        ),
        (ONES * np.float32(np.nan), r"NaN or infinite amplitude in frame 0 \(nan at \[0, 0\]\)"),
        (-ONES, r"negative amplitude in frame 0 \(-1 at \[0, 0\]\)"),
        (ONES * 0, "zero in all 25 frames"),
        (
            np.full((25, 16, 16), 1e39),
            r"amplitude too large for float32 in frame 0 \(1e\+39 at \[0, 0\]\)",
        ),
    ],
)
def test_frames_that_cannot_be_are_refused(tmp_path, frames, words):
    np.save(tmp_path / "scan.npy", frames)
    refused(tmp_path / "scan.npy", words)


def test_pickled_frames_are_refused(tmp_path):
    np.save(tmp_path / "scan.npy", np.full((25, 16, 16), None), allow_pickle=True)
    refused(tmp_path / "scan.npy", "holds Python objects, which are never unpickled")


@pytest.mark.parametrize(
    ("left_bytes", "words"),
    [(0, "is empty"), (100, "ends within its header"), (-1, "announces .* it was cut")],
)
def test_a_cut_file_is_refused(path, left_bytes, words):
    content = path.read_bytes()
    path.write_bytes(content[:left_bytes])
    refused(path, words)


@pytest.mark.parametrize(
    ("settings", "words", "kind"),
    [
        ({"positions": None}, "does not say where the frames were taken", ContainerError),
        ({"frames": "diff3d"}, "is one array without names; leave frames='diff3d' out", ScanError),
        ({"frames": 3}, "frames is int; the name of the frames", ContainerError),
        (
            {"positions": ("x", "y")},
            "is one array and has no 'x'; give an array, or a .npy, .csv, .txt file",
            ScanError,
        ),
        ({"positions": POSITIONS.T}, r"positions has shape \(2, 25\) for 25 frames", ScanError),
        ({"positions": POSITIONS[:24]}, r"positions has shape \(24, 2\) for 25 frames", ScanError),
        ({"positions": POSITIONS * 1j}, "positions is complex128", ScanError),
        (
            {"positions": np.where(POSITIONS == 7, np.nan, POSITIONS)},
            "positions is nan for frame 3 in column 1",
            ScanError,
        ),
        (
            {"positions": POSITIONS * 1e-7},
            "x of positions and y of positions span .* looks like metres; convert it to pix",
            ScanError,
        ),
        ({"positions": POSITIONS * 0}, "are the same for all 25 frames", ScanError),
        ({"positions": 5}, "positions is 5; give an array, a file or a name", ContainerError),
        ({"positions": [[1, 2], [3]]}, "positions is no array", ContainerError),
        ({"positions": [object()] * 25}, "positions is .*; give an array", ContainerError),
        ({"probe": np.ones((14, 14), complex)}, r"probe has shape \(14, 14\)", ScanError),
        ({"probe": np.ones((16, 16))}, "probe is float64; it is complex", ScanError),
        (
            {"object": np.ones((40, 40), complex)},
            "x of positions is 0 for frame 0, outside object",
            ScanError,
        ),
        ({"mask": np.ones((16, 16)) / 2}, "mask is float64; a mask is whole numbers", ScanError),
        ({"units": "metres"}, "units is 'metres'; give pixel_size_m", ContainerError),
        ({"units": "mm"}, "units is 'mm'; positions are in 'pixels' or 'metres'", ContainerError),
        (
            {"pixel_size_m": 1e-8},
            "pixel_size_m is 1e-08 and positions are in pixels",
            ContainerError,
        ),
        (
            {"units": "metres", "pixel_size_m": 0},
            "pixel_size_m is 0; .* positive number of metres",
            ContainerError,
        ),
        ({"units": "metres", "pixel_size_m": "1"}, "pixel_size_m is '1'", ContainerError),
        (
            {"units": "metres", "pixel_size_m": 1e-300},
            "positions are pixels, at most 1e[+]09",
            ScanError,
        ),
        (
            {"units": "metres", "pixel_size_m": 1e9},
            "looks like metres; check pixel_size_m",
            ScanError,
        ),
        ({"intensity": "yes"}, "intensity is 'yes'; True for counts", ContainerError),
        ({"dc": "centre"}, "dc is 'centre'; 'center' or 'corner'", ContainerError),
        ({"axes": "row,column"}, "axes is 'row,column'; name the stored axes", ContainerError),
        ({"axes": "row,row,frame"}, "axes is 'row,row,frame'", ContainerError),
        ({"axes": 3}, "axes is 3", ContainerError),
        ({"cache_bytes": 0}, "cache_bytes is 0; it must be at least 1", ContainerError),
        ({"repack": 1}, "repack is 1; True or False", ContainerError),
    ],
)
def test_arguments_that_do_not_fit_are_refused(path, settings, words, kind):
    refused(path, words, kind, **settings)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.csv", "", "holds no numbers"),
        ("p.csv", "x,y\n", "holds no numbers"),
        ("p.csv", "1,2\n3,four\n", "is no table of numbers .*four"),
        ("p.csv", "1,2\n3,4,5\n", "is no table of numbers"),
        ("p.csv", "1 2\n3 4\n", "is no table of numbers"),
        ("p.txt", "1,2\n", "is no table of numbers|holds no numbers"),
        ("p.csv", "1,x\n3,4\n", "is no table of numbers"),
        ("p.csv", "1,2\n", r"p.csv has shape \(1, 2\) for 25 frames"),
        ("p.npy", "1,2\n", "has no readable npy header"),
    ],
)
def test_a_table_that_is_none_is_refused(path, name, text, words):
    place = path.with_name(name)
    place.write_text(text)
    refused(path, words, positions=place)


def test_a_table_that_is_no_text_is_refused(path):
    path.with_name("p.csv").write_bytes(b"\xff\xfe\x00" * 20)
    refused(path, "p.csv is not text", positions=path.with_name("p.csv"))


@pytest.mark.parametrize(
    ("name", "words"), [("none.csv", "does not exist"), ("folder.npy", "is a folder")]
)
def test_a_table_that_is_not_there_is_refused(path, name, words):
    path.with_name("folder.npy").mkdir()
    refused(path, words, ScanFileError, positions=str(path.with_name(name)))


def test_a_file_of_another_kind_is_not_guessed(path):
    path.with_name("p.dat").write_text("1 2\n")
    refused(
        path,
        r"has the suffix '\.dat'; arrays are read from \.npy, \.csv, \.txt",
        positions=path.with_name("p.dat"),
    )


@pytest.mark.parametrize("head", ["", "x,y\n", "# in pixels\nx,y\n", "\n# in pixels\n"])
def test_names_and_comments_of_a_table_are_passed_over(path, measured, head):
    rows = "\n".join(f"{x!r},{y!r}" for x, y in measured.positions.tolist())
    path.with_name("p.csv").write_text(f"{head}{rows}\n")

    np.testing.assert_array_equal(measured.y, Scan.open(path, positions=path.with_name("p.csv")).y)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", ">u2"])
def test_positions_of_any_real_type_are_read(path, dtype):
    np.save(path.with_name("p.npy"), POSITIONS.astype(dtype))

    np.testing.assert_array_equal(
        POSITIONS[:, 1], Scan.open(path, positions=path.with_name("p.npy")).y
    )


def test_what_was_assumed_is_said(path):
    """A .npy file says nothing about itself, and the contract says everything."""
    notes = " ".join(Scan.open(path, positions=POSITIONS).notes)

    assert "scan.npy is float32 and taken as amplitude; give intensity=True for counts" in notes
    assert "scan.npy is taken to have zero frequency at [N/2, N/2]; give dc='corner'" in notes
    assert "positions are taken as pixels of the object; give units='metres'" in notes


def test_two_tables_are_x_and_y(path):
    for name, column in (("x.npy", 0), ("y.npy", 1)):
        np.save(path.with_name(name), POSITIONS[:, column])
    scan = Scan.open(path, positions=(path.with_name("x.npy"), path.with_name("y.npy")))

    np.testing.assert_array_equal(POSITIONS, np.stack([scan.x, scan.y], axis=1))


@pytest.mark.parametrize("pair", [tuple, list])
def test_two_arrays_are_x_and_y(path, pair):
    scan = Scan.open(path, positions=pair((POSITIONS[:, 0], POSITIONS[:, 1])))

    np.testing.assert_array_equal(POSITIONS, np.stack([scan.x, scan.y], axis=1))


def test_two_frames_have_two_positions(tmp_path, measured):
    """A list of lists is an array of [x, y], also where there are two of them."""
    np.save(tmp_path / "scan.npy", measured.amplitude[:2])
    scan = Scan.open(tmp_path / "scan.npy", positions=[[1, 2], [30, 40]])

    np.testing.assert_array_equal([1, 30], scan.x)


def test_metres_become_pixels_where_it_is_asked_for(path):
    scan = Scan.open(path, positions=POSITIONS * 2e-8, units="metres", pixel_size_m=2e-8)

    np.testing.assert_allclose(POSITIONS[:, 0], scan.x, rtol=1e-12)
    assert any("one object pixel is 2e-08 m" in note for note in scan.notes)


def test_a_fortran_object_is_mapped_as_it_is(path, measured):
    """A matrix saved by columns: the same values at the same places."""
    np.save(path.with_name("object.npy"), np.asfortranarray(measured.object))
    scan = Scan.open(path, positions=measured.positions, object=path.with_name("object.npy"))

    np.testing.assert_array_equal(measured.object, scan.object)
    assert not scan.object.flags.writeable


def test_a_fortran_mask_marks_the_same_pixels(path, measured):
    mask = np.zeros((16, 16), np.uint8)
    mask[2, 5] = 1
    np.save(path.with_name("mask.npy"), np.asfortranarray(mask))
    scan = Scan.open(path, positions=measured.positions, mask=path.with_name("mask.npy"))

    np.testing.assert_array_equal(np.where(mask, 0, measured.amplitude), scan.frames)


@pytest.mark.parametrize(
    "order",
    [
        "frame,row,column",
        "frame,column,row",
        "row,column,frame",
        "column,row,frame",
        "row,frame,column",
    ],
)
@pytest.mark.parametrize("dc", ["center", "corner"])
def test_a_mask_is_turned_and_shifted_as_the_frames_are(tmp_path, measured, order, dc):
    """Frames and mask are stored alike; what comes out is masked where it was masked."""
    mask = np.random.default_rng(3).random((16, 16)) > 0.9
    words = order.split(",")
    frames, stored_mask = measured.amplitude, mask
    if dc == "corner":
        frames, stored_mask = np.fft.ifftshift(frames, axes=(1, 2)), np.fft.ifftshift(mask)
    np.save(
        tmp_path / "scan.npy",
        frames.transpose([("frame", "row", "column").index(word) for word in words]).copy(),
    )
    if words.index("column") < words.index("row"):
        stored_mask = stored_mask.T
    repack = words[0] != "frame"
    settings = {
        "positions": measured.positions,
        "axes": order,
        "dc": dc,
        "repack": repack,
        "cache_dir": tmp_path / "cache",
    }
    scan = Scan.open(tmp_path / "scan.npy", mask=stored_mask, **settings)

    np.testing.assert_array_equal(np.where(mask, 0, measured.amplitude), scan.frames)
