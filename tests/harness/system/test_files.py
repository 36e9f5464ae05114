"""A file is replaced or made in one step, and a lock belongs to whoever has it open."""

import os
import subprocess
import sys

import pytest

from harness.errors import RunDirectoryError
from harness.system import create, lock, replace, write_text


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    """Readable by everybody, whatever its unfinished form was."""
    (tmp_path / "file").write_bytes(b"old")

    replace(tmp_path / "file", b"new")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_file_that_is_there_already_is_not_made_anew(tmp_path):
    """The first of several writers wins."""
    create(tmp_path / "file", b"first")
    create(tmp_path / "file", b"second")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"first"


@pytest.mark.parametrize("write", [replace, create])
def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path, write):
    """And one sentence in a run directory."""
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "file", b"")
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        write_text(tmp_path / "missing" / "file", "")


def test_a_lock_keeps_others_out_and_is_shared_by_readers(tmp_path):
    """Two descriptors of one file are two owners."""
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))

    try:
        assert lock(first, wait=False)
        assert not lock(second, wait=False)
        assert not lock(second, shared=True, wait=False)
        assert lock(first, shared=True, wait=False)
        assert lock(second, shared=True, wait=False)
    finally:
        os.close(first)
        os.close(second)


def test_a_child_keeps_the_lock_when_its_parent_has_closed_it(tmp_path):
    """The lock ends with the last process that has inherited the descriptor."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert lock(descriptor)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
    )
    os.close(descriptor)
    other = os.open(tmp_path, os.O_RDONLY)

    try:
        assert not lock(other, wait=False)
        child.communicate(b"\n")
        assert lock(other, wait=False)
    finally:
        child.kill()
        child.wait()
        os.close(other)
