"""Paths that are no scan files, and cache folders that are no folders: one sentence each, and the
right one blamed.
"""

import os

import numpy as np
import pytest

from ptycho.errors import ScanError, ScanFileError
from ptycho.files import storage
from ptycho.scan import Scan


def refused(path, words, **settings):
    with pytest.raises(ScanFileError, match=words) as caught:
        Scan.open(path, **settings)

    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    """A pipe would be waited for, a device might never end."""
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz", r"pipe\.npz is not a regular file")
    refused("/dev/zero", "/dev/zero is not a regular file")


def test_a_symlink_loop_is_not_followed(tmp_path):
    (tmp_path / "a.npz").symlink_to(tmp_path / "b.npz")
    (tmp_path / "b.npz").symlink_to(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", "cannot be reached .*symbolic links")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n" * 300 + ".npz", "File name too long"),
        ("a\0b.npz", r"null"),
        ("scan.npz/more.npz", "does not exist"),
    ],
)
def test_names_that_cannot_be_are_said_to_be_so(tmp_path, arrays, name, words):
    np.savez(tmp_path / "scan.npz", **arrays)
    refused(tmp_path / name, words)


def test_a_folder_that_may_not_be_entered_is_named(tmp_path, monkeypatch):
    """Root may enter every folder, so the answer of the system is played."""

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.stat", denied)
    refused(tmp_path / "scan.npz", r"scan\.npz cannot be reached \(Permission denied\)")


def test_lines_in_names_do_not_break_the_sentence(tmp_path, arrays):
    """Names of files and of arrays come into messages as Python escapes."""
    assert r"two\nlines.npz" in refused(tmp_path / "two\nlines.npz", "does not exist")
    np.savez(tmp_path / "scan.npz", **{"a\nkey": np.ones(2), "diff3d": arrays["diff3d"]})
    with pytest.raises(ScanError, match="lacks xcoords") as caught:
        Scan.open(tmp_path / "scan.npz")

    assert r"a\nkey" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def compressed(tmp_path, arrays):
    np.savez_compressed(tmp_path / "scan.npz", **arrays)
    return tmp_path / "scan.npz"


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "loop", "scan.npz"])
def test_a_cache_folder_that_cannot_be_used_is_blamed_and_not_the_scan(compressed, name):
    folder = compressed.with_name(name)
    if name == "loop":
        folder.symlink_to(folder)
    sentence = refused(compressed, "diff3d.npy cannot be unpacked into", cache_dir=folder)

    assert "give another cache_dir" in sentence


def test_a_cache_folder_that_may_not_be_entered_is_blamed(compressed, tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.exists", denied)
    refused(
        compressed,
        r"cannot be unpacked into .*cache \(Permission denied\)",
        cache_dir=tmp_path / "cache",
    )


def test_a_long_name_has_a_short_copy(compressed, tmp_path):
    """A scan's own name may be as long as names can be."""
    long = compressed.rename(compressed.with_name("n" * 251 + ".npz"))
    Scan.open(long, cache_dir=tmp_path / "cache")
    (copy,) = (tmp_path / "cache").iterdir()

    assert len(copy.name) == storage._STEM_LETTERS + len("-0123456789abcdef.npy")


def test_a_copy_is_for_its_owner_alone(compressed, tmp_path):
    Scan.open(compressed, cache_dir=tmp_path / "cache")
    (copy,) = (tmp_path / "cache").iterdir()

    assert copy.stat().st_mode & 0o777 == 0o600


def test_without_a_home_folder_the_cache_must_be_given(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.raises(ScanFileError, match="give a cache_dir"):
        storage.default_cache_dir()
