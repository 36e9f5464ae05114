"""Probe and object: mapped where that is possible, copied once where it is not, and always
checked.
"""

import mmap

import h5py
import numpy as np
import pytest

from ptycho.errors import ScanError
from ptycho.files import arrays as complex_arrays
from ptycho.scan import Scan

LIMIT = complex_arrays.KEPT_OBJECT_BYTES
"""An object of 362 x 362 is just below it, one of 363 x 363 above."""


def large(rows=363, dtype=np.complex64):
    generator = np.random.default_rng(0)
    return (generator.random((rows, rows)) + 1j * generator.random((rows, rows))).astype(dtype)


def base_of(values):
    """What the memory of an array belongs to."""
    while isinstance(values, np.ndarray) and values.base is not None:
        values = values.base
    return values


def write(path, arrays, obj, *, save=np.savez):
    save(path, **{**arrays, "objectGuess": obj})
    return path


@pytest.fixture
def passes(monkeypatch):
    """How often the values of an object or a probe were checked."""
    found, real = [], complex_arrays._finite

    def counted(part):
        found.append(part.key)
        return real(part)

    monkeypatch.setattr(complex_arrays, "_finite", counted)
    return found


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_stored_object_is_mapped_where_it_lies(tmp_path, arrays, order):
    obj = np.asarray(large(), order=order)
    scan = Scan.open(write(tmp_path / "scan.npz", arrays, obj))

    np.testing.assert_array_equal(obj, scan.object)
    assert isinstance(base_of(scan.object), mmap.mmap)
    assert type(scan.object) is np.ndarray
    assert not scan.object.flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


@pytest.mark.parametrize(("rows", "is_copied"), [(362, False), (363, True)])
@pytest.mark.parametrize(
    ("save", "dtype"),
    [
        (np.savez_compressed, np.complex64),
        (np.savez, np.complex128),
        (np.savez, ">c8"),
        (np.savez, np.clongdouble),
    ],
)
def test_what_cannot_be_mapped_is_held_if_it_is_small_and_copied_if_not(
    tmp_path, arrays, rows, is_copied, save, dtype
):
    obj = large(rows, dtype)
    assert (rows * rows * 8 > LIMIT) == is_copied
    path = write(tmp_path / "scan.npz", arrays, obj, save=save)
    first, second = (Scan.open(path, cache_dir=tmp_path / "cache") for _ in range(2))
    copies = [
        file for file in (tmp_path / "cache").glob("*.npy") if np.load(file).dtype == np.complex64
    ]

    np.testing.assert_array_equal(obj.astype(np.complex64), first.object)
    np.testing.assert_array_equal(obj.astype(np.complex64), second.object)
    assert len(copies) == is_copied
    assert isinstance(base_of(second.object), mmap.mmap) == is_copied
    assert (
        any(
            "objectGuess cannot be mapped where it lies; it was copied once to" in note
            for note in first.notes
        )
        == is_copied
    )
    assert any("it is read from its copy" in note for note in second.notes) == is_copied


def test_a_bad_value_of_a_copied_object_leaves_no_copy(tmp_path, arrays):
    obj = large()
    obj[300, 20] = np.nan
    path = write(tmp_path / "scan.npz", arrays, obj, save=np.savez_compressed)
    with pytest.raises(ScanError, match=r"objectGuess is .*nan.* at \[300, 20\]"):
        Scan.open(path, cache_dir=tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bad_value_of_a_mapped_object_is_named_by_its_place(tmp_path, arrays, order):
    obj = np.asarray(large(), order=order)
    obj[300, 20] = np.inf
    with pytest.raises(ScanError, match=r"objectGuess is .*inf.* at \[300, 20\]; fix it"):
        Scan.open(write(tmp_path / "scan.npz", arrays, obj))


def test_the_checksum_of_a_mapped_object_is_compared(tmp_path, arrays):
    path = write(tmp_path / "scan.npz", arrays, large())
    image = bytearray(path.read_bytes())
    image[image.index(large().tobytes()) + 100_000] ^= 1
    path.write_bytes(image)
    with pytest.raises(ScanError, match="objectGuess is damaged"):
        Scan.open(path)


def test_a_mapped_object_is_checked_until_the_energies_are_kept(tmp_path, arrays, passes):
    """Then the file is known to be sound as it is; another file is not."""
    path = write(tmp_path / "scan.npz", arrays, large())
    for _ in range(2):
        scan = Scan.open(path)
    assert passes.count("objectGuess") == 2
    scan.energies()
    Scan.open(path)
    assert passes.count("objectGuess") == 2
    other = tmp_path / "other.npy"
    np.save(other, large() * 2)
    Scan.open(path, object=other)
    assert passes.count("other.npy") == 1
    write(path, arrays, large() * 3)
    Scan.open(path)

    assert passes.count("objectGuess") == 3


def test_a_given_object_is_taken_as_it_is(tmp_path, arrays):
    """It is in memory already; nothing is copied to disk, and no other of the same shape is
    mistaken for it.
    """
    path = write(tmp_path / "scan.npz", arrays, None)
    for factor in (1, 2):
        scan = Scan.open(
            path,
            object=large() * factor,
            probe=arrays["probeGuess"] * factor,
            cache_dir=tmp_path / "cache",
        )
        np.testing.assert_array_equal(large() * factor, scan.object)
        np.testing.assert_array_equal(arrays["probeGuess"] * factor, scan.probe)

    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("chunks", [None, (50, 60)])
def test_an_hdf5_object_is_mapped_or_copied(tmp_path, measured_like, chunks):
    path, settings = measured_like(chunks)
    scan = Scan.open(path, cache_dir=tmp_path / "cache", **settings)

    np.testing.assert_array_equal(large(), scan.object)
    assert isinstance(base_of(scan.object), mmap.mmap)
    assert (tmp_path / "cache").exists() == (chunks is not None)


@pytest.fixture
def measured_like(tmp_path, arrays):
    def write_hdf5(chunks):
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            file["/frames"], file["/x"], file["/y"] = (
                arrays[key] for key in ("diff3d", "xcoords", "ycoords")
            )
            file.create_dataset(
                "/object", data=large(), chunks=chunks, compression=chunks and "gzip"
            )
        return tmp_path / "scan.h5", {
            "frames": "/frames",
            "positions": ("/x", "/y"),
            "object": "/object",
        }

    return write_hdf5
