"""Rows on a disk that is full, torn or read-only: a line is whole, or it is told, and it spoils no other."""

import json
import os
import subprocess
import sys

import pytest

from harness.judge.completeness import missing_from_run
from harness.judge.table import load_run
from harness.records import ROWS_FILE, append_row, open_rows
from harness.resuming import DAMAGED_FILE, set_damage_aside


@pytest.fixture
def rows(tmp_path):
    """rows.jsonl, and a descriptor of it."""
    path = tmp_path / ROWS_FILE
    descriptor = open_rows(path)
    yield path, descriptor
    os.close(descriptor)


def test_a_row_is_one_line(rows):
    """And another one the next."""
    path, descriptor = rows
    append_row(descriptor, {"kind": "a"})
    append_row(descriptor, {"kind": "b"})

    assert path.read_text() == '{"kind": "a"}\n{"kind": "b"}\n'


def test_a_row_after_one_that_was_cut_short_begins_a_line_of_its_own(rows):
    """Also when another process was cut short."""
    path, descriptor = rows
    append_row(descriptor, {"kind": "a"})
    with path.open("a") as other:
        other.write('{"kind": "cut')
    append_row(descriptor, {"kind": "b"})

    assert path.read_text() == '{"kind": "a"}\n{"kind": "cut\n{"kind": "b"}\n'


def test_a_full_disk_is_an_error_with_its_reason():
    """/dev/full has no room for anything."""
    descriptor = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(OSError, match="No space left on device"):
        append_row(descriptor, {"kind": "a"})
    os.close(descriptor)


def test_a_row_that_is_cut_short_is_an_error_and_what_was_written_before_is_whole(tmp_path, project_root):
    """The file may grow to 40 bytes, in a process of its own: two rows fit, the third does not."""
    code = (
        "import resource, sys; from pathlib import Path; from harness.records import append_row, open_rows; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY)); rows = open_rows(Path(sys.argv[1])); "
        "[append_row(rows, {'kind': letter}) for letter in 'abc']"
    )
    path = tmp_path / ROWS_FILE
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=project_root, capture_output=True, text=True, check=False, timeout=60
    )

    assert "a row was cut short; is the disk full?" in done.stderr
    assert path.read_text() == '{"kind": "a"}\n{"kind": "b"}\n{"kind": "c"'


def test_lines_that_were_cut_short_are_set_aside_and_everything_else_stays(tmp_path):
    """In the order in which it was."""
    path = tmp_path / ROWS_FILE
    path.write_bytes(b'{"kind": "a"}\n{"ki\n{"kind": "b"}\n\xff\n[1]\n{"kind": "c"}\n{"kind": "d')

    assert set_damage_aside(tmp_path) == 4
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert path.read_bytes().endswith(b"\n")
    assert (tmp_path / DAMAGED_FILE).read_bytes() == b'{"ki\n\xff\n[1]\n{"kind": "d\n'


def test_whole_rows_are_not_touched(tmp_path):
    """Nothing to set aside, no file for it."""
    path = tmp_path / ROWS_FILE
    path.write_bytes(b'{"kind": "a"}\n')
    before = path.stat()

    assert set_damage_aside(tmp_path) == 0
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert [file.name for file in tmp_path.iterdir()] == [ROWS_FILE]


def test_a_run_with_a_torn_last_line_is_incomplete_with_the_lines_number(synthetic_run):
    """Until it is resumed."""
    path = synthetic_run.write()
    with (path / ROWS_FILE).open("ab") as file:
        file.write(b'{"kind": "phase", "point": "loa')
    problems = [problem for problem in missing_from_run(load_run(path)) if "line" in problem]

    assert len(problems) == 1
    assert problems[0].endswith("damaged or cut short, not JSON")
