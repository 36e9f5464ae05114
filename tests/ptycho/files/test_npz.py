"""The zip and npy layers: damage, forgery, and the spool."""

import io
import struct
import zipfile

import numpy as np
import pytest

from ptycho.errors import ScanError, ScanFileError
from ptycho.files import storage
from ptycho.scan import Scan


def stored(tmp_path, arrays):
    path = tmp_path / "scan.npz"
    np.savez(path, **arrays)
    return path


def deflated(tmp_path, arrays):
    path = tmp_path / "scan.npz"
    np.savez_compressed(path, **arrays)
    return path


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "scan.npz").write_bytes(b"")
    with pytest.raises(ScanError, match="is empty"):
        Scan.open(tmp_path / "scan.npz")


def test_something_else_is_not_a_zip(tmp_path):
    (tmp_path / "scan.npz").write_bytes(npy(np.zeros(100)))
    with pytest.raises(ScanError, match="is not a zip file"):
        Scan.open(tmp_path / "scan.npz")


def test_a_truncated_file_is_called_truncated(tmp_path, arrays):
    path = stored(tmp_path, arrays)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ScanError, match="truncated"):
        Scan.open(path)


def test_duplicate_members_are_refused(tmp_path, arrays):
    path = stored(tmp_path, arrays)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("diff3d.npy", npy(arrays["diff3d"]))
    with pytest.raises(ScanError, match=r"diff3d\.npy more than once"):
        Scan.open(path)


def test_a_member_without_npy_header_is_refused(tmp_path, arrays):
    path = tmp_path / "scan.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, values in arrays.items():
            archive.writestr(f"{key}.npy", b"no header here" if key == "diff3d" else npy(values))
    with pytest.raises(ScanError, match="diff3d has no readable npy header"):
        Scan.open(path)


@pytest.mark.parametrize("missing_bytes", [1, 4])
def test_a_member_shorter_than_its_header_says_is_refused(tmp_path, arrays, missing_bytes):
    path = tmp_path / "scan.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, values in arrays.items():
            image = npy(values)
            archive.writestr(f"{key}.npy", image[:-missing_bytes] if key == "diff3d" else image)
    with pytest.raises(
        ScanError,
        match=f"announces {9 * 16 * 16 * 4} bytes of values and holds "
        f"{9 * 16 * 16 * 4 - missing_bytes}",
    ):
        Scan.open(path)


def test_a_forged_offset_is_refused(tmp_path, arrays):
    """The directory points the first member elsewhere: its local header is not there."""
    path = stored(tmp_path, arrays)
    image = bytearray(path.read_bytes())
    entry = image.rindex(b"PK\x01\x02", 0, image.index(b"diff3d.npy", image.index(b"PK\x01\x02")))
    image[entry + 42 : entry + 46] = struct.pack("<I", 77)
    path.write_bytes(image)
    with pytest.raises(ScanError, match="not where the zip directory says"):
        Scan.open(path)


def test_an_encrypted_member_is_refused(tmp_path, arrays):
    path = stored(tmp_path, arrays)
    image = bytearray(path.read_bytes())
    entry = image.rindex(b"PK\x01\x02", 0, image.index(b"diff3d.npy", image.index(b"PK\x01\x02")))
    image[entry + 8] |= 1
    path.write_bytes(image)
    with pytest.raises(ScanError, match="diff3d is encrypted"):
        Scan.open(path)


def test_a_small_array_with_a_wrong_checksum_is_refused(tmp_path, arrays):
    path = stored(tmp_path, arrays)
    image = bytearray(path.read_bytes())
    at = image.index(arrays["xcoords"].tobytes())
    image[at] ^= 1
    path.write_bytes(image)
    with pytest.raises(ScanError, match="xcoords is damaged"):
        Scan.open(path)


def test_compressed_frames_are_unpacked_once(tmp_path, arrays):
    """The second opening reads the same copy, untouched, and both say so."""
    path, cache = deflated(tmp_path, arrays), tmp_path / "cache"
    first = Scan.open(path, cache_dir=cache)
    (copy,) = cache.iterdir()
    written = copy.stat().st_mtime_ns, copy.stat().st_ino
    second = Scan.open(path, cache_dir=cache)

    np.testing.assert_array_equal(arrays["diff3d"], first.frames)
    np.testing.assert_array_equal(arrays["diff3d"], second.frames)
    assert [copy] == list(cache.iterdir())
    assert (copy.stat().st_mtime_ns, copy.stat().st_ino) == written
    assert any("was unpacked once" in note for note in first.notes)
    assert any("read from its unpacked copy" in note for note in second.notes)


def test_a_changed_scan_is_unpacked_again(tmp_path, arrays):
    cache = tmp_path / "cache"
    Scan.open(deflated(tmp_path, arrays), cache_dir=cache)
    arrays["diff3d"] += 1
    scan = Scan.open(deflated(tmp_path, arrays), cache_dir=cache)

    np.testing.assert_array_equal(arrays["diff3d"], scan.frames)
    assert len(list(cache.iterdir())) == 2


def test_a_cut_copy_is_written_anew(tmp_path, arrays):
    path, cache = deflated(tmp_path, arrays), tmp_path / "cache"
    Scan.open(path, cache_dir=cache)
    (copy,) = cache.iterdir()
    copy.write_bytes(copy.read_bytes()[:1000])

    np.testing.assert_array_equal(arrays["diff3d"], Scan.open(path, cache_dir=cache).frames)


@pytest.mark.parametrize("spare_bytes", [0, -1])
def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, arrays, monkeypatch, spare_bytes):
    """Exactly enough room passes; one byte less is refused and leaves nothing."""
    path, cache = deflated(tmp_path, arrays), tmp_path / "cache"
    needed = len(npy(arrays["diff3d"]))
    monkeypatch.setattr(storage, "free_bytes", lambda folder: needed + spare_bytes)
    if spare_bytes == 0:
        Scan.open(path, cache_dir=cache)

        assert [needed] == [file.stat().st_size for file in cache.iterdir()]
    else:
        with pytest.raises(
            ScanFileError, match=rf"needs {needed} bytes unpacked and .* has {needed - 1} free"
        ):
            Scan.open(path, cache_dir=cache)

        assert list(cache.iterdir()) == []


def test_damaged_compressed_frames_leave_no_copy(tmp_path, arrays):
    path, cache = deflated(tmp_path, arrays), tmp_path / "cache"
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("diff3d.npy")
    image = bytearray(path.read_bytes())
    image[member.header_offset + 30 + len("diff3d.npy") + member.compress_size - 40] ^= 0xFF
    path.write_bytes(image)
    with pytest.raises(ScanError, match=r"diff3d.* damaged"):
        Scan.open(path, cache_dir=cache)

    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path, arrays):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ScanFileError, match=r"cannot be unpacked into .*cache"):
        Scan.open(deflated(tmp_path, arrays), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("/somewhere", "/somewhere/ptycho-memory"), (None, "/home/me/.cache/ptycho-memory")],
)
def test_the_default_cache_follows_the_xdg_convention(monkeypatch, variable, expected):
    monkeypatch.setenv("HOME", "/home/me")
    if variable:
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
    else:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    assert expected == str(storage.default_cache_dir())
