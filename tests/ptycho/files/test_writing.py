"""Where scans are written to: whole or not at all, through links, never over what is no file."""

import os

import numpy as np
import pytest

from ptycho.errors import ContainerError, ScanFileError
from ptycho.files.storage import write_scan
from ptycho.scan import Scan

FRAMES = np.ones((4, 16, 16), np.float32)


def write(path, chunks=(FRAMES,)):
    axis = np.arange(4.0)
    write_scan(path, chunks, frame_count=4, x=axis, y=axis, probe=np.ones((16, 16), np.complex64))


def test_what_is_there_and_is_no_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "device.npz").symlink_to("/dev/null")
    for name in ("pipe.npz", "folder.npz", "device.npz"):
        before = (tmp_path / name).stat()
        with pytest.raises(ScanFileError, match=f"{name} is there and is not a regular file"):
            write(tmp_path / name)

        assert (before.st_mode, before.st_ino) == (
            (tmp_path / name).stat().st_mode,
            (tmp_path / name).stat().st_ino,
        )
    assert len(list(tmp_path.iterdir())) == 3


def test_a_link_is_followed(tmp_path):
    """The file it names is replaced and the link stays; so does one to a file that is not there
    yet.
    """
    (tmp_path / "elsewhere").mkdir()
    real, link, dangling = (
        tmp_path / "elsewhere" / "real.npz",
        tmp_path / "link.npz",
        tmp_path / "dangling.npz",
    )
    real.write_bytes(b"old")
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "elsewhere" / "later.npz")
    for path in (link, dangling):
        write(path)

        assert path.is_symlink()
        assert Scan.open(path).frame_count == 4
    assert sorted(file.name for file in real.parent.iterdir()) == ["later.npz", "real.npz"]


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    with pytest.raises(ScanFileError, match=r"loop\.npz cannot be written \(Too many levels"):
        write(tmp_path / "loop.npz")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_permissions_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write(tmp_path / "scan.npz")
    finally:
        os.umask(before)

    assert (tmp_path / "scan.npz").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(("length", "words"), [(251, None), (252, "File name too long")])
def test_a_name_may_be_as_long_as_names_can_be(tmp_path, length, words):
    path = tmp_path / ("n" * length + ".npz")
    if words is None:
        write(path)

        assert Scan.open(path).frame_count == 4
    else:
        with pytest.raises(ScanFileError, match=words):
            write(path)

        assert list(tmp_path.iterdir()) == []


def test_frames_that_do_not_come_leave_nothing(tmp_path):
    with pytest.raises(ContainerError, match="4 frames were expected and 3 were given"):
        write(tmp_path / "scan.npz", [FRAMES[:3]])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scan", "scan.npy", "scan.npz.part"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(ScanFileError, match=r"a scan is written as \.npz"):
        write(tmp_path / name)

    assert list(tmp_path.iterdir()) == []
