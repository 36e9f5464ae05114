"""A run directory that fills up, or becomes read-only, in the middle of a sweep: one sentence, and
no finished row is lost.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness.errors import RunDirectoryError
from harness.records import Outcome, Point
from harness.run.ends import ChildEnd
from harness.rundir.manifest import start_run
from harness.rundir.rows import Done, append_row, open_rows

POINT = Point(scenario="s", body="no.body:at_all", parameters={}, phases=("construct",))


class WritingLauncher:
    """Instead of a child: one that leaves a row and ends well."""

    name = "fake"

    def run(self, order):
        row = {"point": order.job.point, "repeat": order.job.repeat}
        rows = open_rows(Path(order.job.rows_path))
        try:
            append_row(rows, Done(**row, outcome=Outcome.OK, cause="", reason=""))
        except OSError:
            return ChildEnd(exit_code=os.EX_IOERR, timed_out=False, duration_s=1.0)
        finally:
            os.close(rows)
        return ChildEnd(exit_code=0, timed_out=False, duration_s=1.0)

    def close(self):
        pass


def mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def runner(make_runner, small_disk, project_root):
    """A runner whose run directory lies on the small disk, with one finished run."""
    made = make_runner(run_directory=small_disk / "run", launcher=WritingLauncher())
    start_run(
        made.run_directory,
        points=[POINT],
        repeats=9,
        device=made.device,
        command="test",
        root=project_root,
        settings={},
    )
    assert made.measure(POINT, 0).outcome is Outcome.OK
    return made


def test_a_disk_that_is_full_is_one_sentence_and_what_is_finished_stays(runner, small_disk):
    """The next run cannot be written down; its torn row, if any, spoils no other, and with room
    again the sweep goes on.
    """
    rows = runner.run_directory / "rows.jsonl"
    filling = small_disk / "filling"
    before = rows.read_bytes()
    with pytest.raises(
        RunDirectoryError,
        match=r"the end of s cannot be written to .*: (No space left on device|a row was cut "
        r"short)",
    ):
        _fill(filling, runner)
    during = rows.read_bytes()
    filling.unlink()

    assert during.startswith(before)
    assert runner.measure(POINT, 8).outcome is Outcome.OK
    lines = rows.read_bytes()[len(during) :].strip().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["done", "end"]


def _fill(path, runner):
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
    # The last page of rows.jsonl has room for some more.
    for repeat in range(1, 8):
        for _ in range(100):
            runner.measure(POINT, repeat)


def test_a_run_directory_that_becomes_read_only_is_one_sentence(runner, small_disk):
    """What is there stays as it is."""
    before = (runner.run_directory / "rows.jsonl").read_bytes()
    mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(RunDirectoryError, match=r"cannot be written to .*: Read-only file system"):
        runner.measure(POINT, 1)

    assert (runner.run_directory / "rows.jsonl").read_bytes() == before
