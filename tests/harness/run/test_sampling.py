"""Starting the sampler: a private folder, a socket that fits, one process however often it is asked for, a reason else."""

import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from harness.run.sampling import Sampling


@pytest.fixture
def sampling():
    started = Sampling()
    yield started
    started.close()


def test_one_sampler_serves_until_it_is_closed_and_leaves_nothing_behind(sampling):
    """The same address each time; its folder is this user's alone, and gone in the end."""
    first, second = sampling.address(), sampling.address()
    folder = Path(first[0]).parent
    mode = stat.S_IMODE(folder.stat().st_mode)
    process = sampling.process_id
    sampling.close()

    assert (first, first[1], mode) == (second, "", 0o700)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_nothing_is_started_before_it_is_asked_for(sampling):
    """A session that measures nothing has no sampler."""
    assert sampling.process_id is None


def test_a_folder_that_is_too_long_for_a_socket_gives_way_to_a_short_one(sampling, tmp_path, monkeypatch):
    """The path of a socket has some hundred bytes."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    address, _ = sampling.address()

    assert (len(address) < 100, long in Path(address).parents, list(long.iterdir())) == (True, False, [])


def test_a_sampler_that_cannot_start_is_a_reason_and_no_error(tmp_path):
    """The measurement goes on without it."""
    sampling = Sampling(options=("--counters", "none"))
    address, reason = sampling.address()

    assert address == ""
    assert reason.startswith("the sampler could not be started: it ended with code 2: ")
    assert "invalid choice: 'none'" in reason


def test_an_interpreter_that_is_gone_is_a_reason_and_no_error(sampling, monkeypatch):
    """In the system's words."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    assert sampling.address() == ("", "the sampler could not be started: [Errno 2] No such file or directory: '/nowhere/python'")
