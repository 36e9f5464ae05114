"""Forged and damaged archives: one sentence each, before anything large is allocated or
unpacked.
"""

import io
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

from ptycho.errors import PtychoError, ScanError
from ptycho.files import npz
from ptycho.scan import Scan


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def header(shape, dtype):
    """An npy header alone, whatever it announces."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def pack(path, arrays, *, method=zipfile.ZIP_DEFLATED, **contents):
    """The arrays as npy members, some with other contents."""
    with zipfile.ZipFile(path, "w", method) as file:
        for key, values in {**arrays, **contents}.items():
            file.writestr(f"{key}.npy", values if isinstance(values, bytes) else npy(values))
    return path


def forge(path, key, *, at, value):
    """Overwrite a field of the directory entry of ``key``."""
    image = bytearray(path.read_bytes())
    entry = image.rindex(
        b"PK\x01\x02", 0, image.index(f"{key}.npy".encode(), image.index(b"PK\x01\x02"))
    )
    image[entry + at : entry + at + len(value)] = value
    path.write_bytes(image)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.npz"


def refused(path, cache, words):
    """The scan is refused in one sentence and nothing lies in the cache."""
    with pytest.raises(ScanError, match=words) as caught:
        Scan.open(path, cache_dir=cache)

    assert "\n" not in str(caught.value)
    assert not cache.exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("key", ["diff3d", "objectGuess"])
def test_a_damaged_header_is_named(path, cache, arrays, method, key):
    image = npy(arrays[key]).replace(b"'shape': (", b"'shape': ((", 1)
    pack(path, arrays, method=method, **{key: image})
    refused(path, cache, f"{key} has no readable npy header")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused_by_number(path, cache, arrays, method):
    """Nobody knows how much would come out of them, and numpy writes none."""
    refused(
        pack(path, arrays, method=method), cache, f"diff3d is compressed by zip method {method}"
    )


@pytest.mark.parametrize("key", ["diff3d", "objectGuess"])
def test_a_deflated_member_shorter_than_announced_is_refused(path, tmp_path, arrays, key):
    """The directory says 4,096 bytes more than come out, and the header agrees with it; the
    checksum is right.
    """
    shape = {"diff3d": (13, 16, 16), "objectGuess": (40, 48)}[key]
    image = header(shape, arrays[key].dtype) + bytes(2048)
    image = image[
        : len(header(shape, arrays[key].dtype))
        + int(np.prod(shape)) * arrays[key].dtype.itemsize
        - 4096
    ]
    arrays = {
        **arrays,
        **{name: np.full(13, 20.0) for name in ("xcoords", "ycoords") if key == "diff3d"},
    }
    pack(path, arrays, **{key: image})
    announced = (
        len(header(shape, arrays[key].dtype)) + int(np.prod(shape)) * arrays[key].dtype.itemsize
    )
    forge(path, key, at=24, value=announced.to_bytes(4, "little"))
    with pytest.raises(ScanError, match=rf"{key}(\.npy)? announces {announced} bytes"):
        Scan.open(path, cache_dir=tmp_path / "cache")

    assert not list((tmp_path / "cache").glob("*"))
    assert not list((tmp_path / "cache").glob(".*"))


def test_the_length_is_compared_piece_by_piece(path, arrays):
    """The last piece alone is missing: what came before was handed out, then the sentence."""
    pack(path, arrays)
    with zipfile.ZipFile(path) as file:
        member = file.getinfo("objectGuess.npy")
        true_bytes = member.file_size
        member.file_size += 1
        whole = npz.pieces(path, "objectGuess", file, member, piece_bytes=1 << 20)

        assert len(next(whole)) == true_bytes
        with pytest.raises(
            ScanError, match=f"announces {true_bytes + 1} bytes and unpacks to {true_bytes}"
        ):
            next(whole)


@pytest.mark.parametrize(("extra", "is_refused"), [(0, False), (1, True)])
def test_no_member_unpacks_to_more_than_deflate_can(path, arrays, extra, is_refused):
    pack(path, arrays)
    with zipfile.ZipFile(path) as file:
        member = file.getinfo("objectGuess.npy")
    member.file_size = member.compress_size * 1032 + extra
    if is_refused:
        with pytest.raises(
            ScanError,
            match=f"objectGuess announces {member.file_size} bytes, which {member.compress_size} "
            "bytes",
        ):
            npz.values_offset(path, "objectGuess", member)
    else:
        assert npz.values_offset(path, "objectGuess", member) > member.header_offset


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("objectGuess", np.zeros((2000, 2000), np.complex128), None),
        ("xcoords", np.zeros(4_000_000), r"xcoords has shape \(4000000,\) for 9 frames"),
        (
            "scan_index",
            np.zeros(4_000_000, np.int64),
            r"scan_index has shape \(4000000,\) for 9 frames",
        ),
        (
            "probeGuess",
            np.zeros((2000, 2000), np.complex64),
            r"probeGuess has shape \(2000, 2000\)",
        ),
        ("objectGuess", np.zeros((8, 4_000_000), np.complex64), "smaller than one frame"),
    ],
)
def test_a_bomb_costs_nothing(path, cache, arrays, key, values, words):
    """32 MB and more of zeros in a few kB: refused by the header, with neither memory nor a spooled
    copy spent.
    """
    if words is None:
        values, words = (
            header((2000, 2000), np.complex128) + bytes(1000),
            "objectGuess announces 64000000 bytes of values",
        )
    pack(path, arrays, **{key: values})
    tracemalloc.start()
    refused(path, cache, words)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 1 << 20


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"probeGuess": np.full((16, 16), np.nan, np.complex64)}, "probeGuess is"),
        ({"probeGuess": np.ones((14, 14), np.complex64)}, "probeGuess has shape"),
        ({"xcoords": np.full(9, np.nan)}, "xcoords is nan"),
        ({"scan_index": np.ones(8, np.int64)}, "scan_index has shape"),
    ],
)
def test_a_bad_small_array_leaves_no_spooled_copy_that_headers_could_prevent(
    path, tmp_path, arrays, changed, words
):
    """What a header shows costs no unpacking; what only values show is refused all the same."""
    pack(path, arrays, **changed)
    with pytest.raises(ScanError, match=words):
        Scan.open(path, cache_dir=tmp_path / "cache")

    if "shape" in words:
        assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (6, b"\xff\x00"),  # version needed: NotImplementedError
        (10, b"\x63\x00"),  # an unknown method
        (42, b"\xff\xff\xff\x7f"),  # the member lies beyond the end
        (20, b"\xff\xff\xff\x7f"),  # more compressed bytes than the file has
        (30, b"\xff\xff"),  # an extra field that is longer than the directory
        (28, b"\x02\x00"),  # a shorter name
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_forged_directory_fields_are_refused(path, cache, arrays, at, value, method):
    pack(path, arrays, method=method)
    forge(path, "xcoords", at=at, value=value)
    with pytest.raises(ScanError) as caught:
        Scan.open(path, cache_dir=cache)

    assert str(path) in str(caught.value)
    assert not cache.exists()


def test_an_undecodable_name_is_damage(path, cache, arrays):
    """The flag says UTF-8 and the name is none."""
    pack(path, arrays, xü=np.ones(2))
    path.write_bytes(path.read_bytes().replace("xü.npy".encode(), b"x\xff\xff.npy"))
    refused(path, cache, "the zip directory is damaged")


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_is_always_one_of_our_errors(path, tmp_path, arrays, seed):
    """150 archives each, with bytes changed in headers and directories."""
    generator = random.Random(seed)  # noqa: S311 - damage, no secret
    images = [
        pack(path, arrays, method=method).read_bytes()
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]
    sentences = []
    for _ in range(150):
        image = bytearray(generator.choice(images))
        signature = generator.choice([b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY"])
        starts = [at for at in range(len(image)) if image.startswith(signature, at)] or [0]
        for _ in range(generator.choice([1, 1, 3])):
            at = min(generator.choice(starts) + generator.randrange(100), len(image) - 1)
            image[at] = generator.choice([*b"([{'\"L,-0\0\xff", generator.randrange(256)])
        path.write_bytes(image)
        try:
            Scan.open(path, cache_dir=tmp_path / "cache").energies()
        except PtychoError as error:
            sentences.append(str(error))

    assert len(sentences) > 50
    assert not any("\n" in sentence for sentence in sentences)
    assert not list((tmp_path / "cache").glob(".*"))
