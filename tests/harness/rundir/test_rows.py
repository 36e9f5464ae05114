"""Rows on a disk that is full, torn or read-only: a line is whole, or it is told, and it spoils no
other.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.judge.completeness import missing_from_run
from harness.judge.table import load_run
from harness.records import ROWS_FILE, Outcome, Point, Quality, Reading
from harness.rundir.resume import DAMAGED_FILE, set_damage_aside
from harness.rundir.rows import (
    KINDS,
    Again,
    Announced,
    Begin,
    CodeFiles,
    Declared,
    Done,
    Parked,
    PhaseRecord,
    Remeasure,
    RowError,
    RunEnd,
    TraceEnd,
    TraceWritten,
    append_line,
    append_row,
    open_rows,
    rows_since,
    write_row,
)
from harness.system import read_whole


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
    append_line(descriptor, '{"kind": "a"}')
    append_line(descriptor, '{"kind": "b"}')

    assert path.read_text() == '{"kind": "a"}\n{"kind": "b"}\n'


def test_a_row_after_one_that_was_cut_short_begins_a_line_of_its_own(rows):
    """Also when another process was cut short."""
    path, descriptor = rows
    append_line(descriptor, '{"kind": "a"}')
    with path.open("a") as other:
        other.write('{"kind": "cut')
    append_line(descriptor, '{"kind": "b"}')

    assert path.read_text() == '{"kind": "a"}\n{"kind": "cut\n{"kind": "b"}\n'


def test_a_full_disk_is_an_error_with_its_reason():
    """/dev/full has no room for anything."""
    descriptor = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(OSError, match="No space left on device"):
        append_line(descriptor, '{"kind": "a"}')
    os.close(descriptor)


def test_a_row_that_is_cut_short_is_an_error_and_what_was_written_before_is_whole(
    tmp_path, project_root
):
    """The file may grow to 40 bytes, in a process of its own: two rows fit, the third does not."""
    code = (
        "import resource, sys; from pathlib import Path; from harness.rundir.rows import "
        "append_line, open_rows; resource.setrlimit(resource.RLIMIT_FSIZE, (40, "
        "resource.RLIM_INFINITY)); rows = open_rows(Path(sys.argv[1])); [append_line(rows, "
        "f'{{\"kind\": \"{letter}\"}}') for letter in 'abc']"
    )
    path = tmp_path / ROWS_FILE
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
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


WRITERS, ROWS_EACH = 8, 100
LONG = "x" * 20_000
"""Five pages, so that a writer that is killed may be in the middle of one."""

_WRITE = """
import sys
from pathlib import Path
from harness.rundir.rows import Begin, append_row, open_rows

rows = open_rows(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    append_row(rows, Begin(point=sys.argv[2], repeat=number, phase=sys.argv[4], index=0))
    print(number, flush=True)
"""


def start_writer(path, root, writer, count=ROWS_EACH, text=LONG):
    command = [sys.executable, "-c", _WRITE, str(path), str(writer), str(count), text]
    return subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_eight_writers_of_whom_one_is_killed_lose_no_row_and_leave_no_blank_line(
    tmp_path, project_root
):
    """All begin at once, the last one writes without an end until it is killed; a reader beside
    them sees whole lines alone.
    """
    path = tmp_path / ROWS_FILE
    writers = [start_writer(path, project_root, writer) for writer in range(WRITERS - 1)]
    writers.append(start_writer(path, project_root, WRITERS - 1, count=10**9))
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    *others, killed = writers
    said = []
    for _ in range(5):
        said.append(killed.stdout.readline())
        seen = read_whole(path)
        assert seen.endswith(b"\n")
        assert b"\n\n" not in seen
    killed.send_signal(signal.SIGKILL)
    written = len([*said, *killed.stdout])
    assert [writer.stdout.read().split()[-1] for writer in others] == [str(ROWS_EACH - 1)] * len(
        others
    )
    for writer in writers:
        writer.stdin.close()
        writer.stdout.close()
    assert [writer.wait() for writer in writers] == [0] * len(others) + [-signal.SIGKILL]

    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    rows = [json.loads(line) for line in lines if is_whole(line)]
    assert b"" not in lines
    assert len(lines) - len(rows) <= 1, "the line in which the killed one was"
    for writer in range(WRITERS - 1):
        assert [row["repeat"] for row in rows if row["point"] == str(writer)] == list(
            range(ROWS_EACH)
        )
    # It may have been killed between a row and its word for it.
    assert len([row for row in rows if row["point"] == str(WRITERS - 1)]) - written in (0, 1)


def is_whole(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_writer_that_dies_in_mid_row_keeps_nobody_out_not_even_with_forks_of_its_own_alive(
    tmp_path, project_root
):
    """It dies with the lock in its hands, half a row on the disk and a fork beside it; the next row
    has a line of its own.
    """
    path = tmp_path / ROWS_FILE
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from harness.system import locked\n"
        "from harness.rundir.rows import open_rows\n"
        "rows = open_rows(Path(sys.argv[1])); fork = os.fork()\n"
        "if fork == 0: signal.pause()\n"
        "with locked(rows):\n"
        '    os.write(rows, b\'{"kind": "cut\'); print(fork, flush=True); '
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=project_root, stdout=subprocess.PIPE, text=True
    ) as dying:
        fork = int(dying.stdout.readline())
    try:
        descriptor = open_rows(path)
        append_line(descriptor, '{"kind": "a"}')
        os.close(descriptor)
    finally:
        os.kill(fork, signal.SIGKILL)

    assert path.read_text() == '{"kind": "cut\n{"kind": "a"}\n'


def test_where_there_are_no_locks_a_line_without_an_end_is_left_to_whoever_opens_the_run(
    rows, monkeypatch
):
    """It might be another's that is being written: a line break would split it."""
    path, descriptor = rows
    path.write_text('{"kind": "being wri')

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    append_line(descriptor, '{"kind": "a"}')

    assert path.read_text() == '{"kind": "being wri{"kind": "a"}\n'
    assert read_whole(path) == path.read_bytes()


def test_threads_of_one_process_keep_its_lock_from_another_process(tmp_path, project_root):
    """Each opens and closes the file for every row, as runners of one process do; a writer beside
    them, and a reader.
    """
    path = tmp_path / ROWS_FILE
    other = start_writer(path, project_root, 0)
    assert other.stdout.readline() == "ready\n"
    other.stdin.write("go\n")
    other.stdin.flush()

    def write(writer):
        for number in range(ROWS_EACH):
            write_row(tmp_path, Begin(point=str(writer), repeat=number, phase=LONG, index=0))
            assert read_whole(path).endswith(b"\n")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(1, 4)))
    assert other.stdout.read().split()[-1] == str(ROWS_EACH - 1)
    other.stdin.close()
    other.stdout.close()
    assert other.wait() == 0
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]

    for writer in range(4):
        assert [row["repeat"] for row in rows if row["point"] == str(writer)] == list(
            range(ROWS_EACH)
        )


RUN = {"point": "p", "repeat": 0}
SKIPPED = {"outcome": Outcome.SKIPPED, "cause": "device", "reason": "it is full"}
ROWS = (
    Announced(
        point="s-n=1",
        record=Point(scenario="s", body="b:b", parameters={"n": 1}, phases=()),
        test="t",
        repeats=2,
    ),
    Remeasure(point="p", repeats=3, reason="a finding"),
    Parked(test="t", points=("p", "q"), reason="known"),
    Again(**RUN, reason="not alone"),
    Begin(**RUN, phase="open", index=0),
    PhaseRecord(
        **RUN,
        phase="open",
        index=0,
        finished=True,
        duration_s=0.5,
        readings=(
            Reading(
                meter="m",
                quality=Quality.SAMPLED,
                start_bytes=1,
                peak_bytes=3,
                end_bytes=2,
                samples=4,
            ),
            Reading.unavailable("n", "no card"),
        ),
    ),
    Declared(**RUN, values={"batch": 4}),
    CodeFiles(**RUN, packages={"pkg": "/src/pkg/__init__.py"}),
    Done(**RUN, **SKIPPED),
    TraceWritten(**RUN, file=None, reason="no profiler"),
    RunEnd(**RUN, **SKIPPED, phase=None, exit_code=None, launcher="spawn", duration_s=1.0),
    TraceEnd(point="p", **SKIPPED, file="p.json.gz", launcher="spawn", duration_s=1.0),
)


@pytest.mark.parametrize("row", ROWS, ids=[row.kind for row in ROWS])
def test_a_row_of_every_kind_is_read_back_as_it_was(rows, row):
    """Its kind comes first on its line, and no kind has two records."""
    path, descriptor = rows
    append_row(descriptor, row)

    assert list(rows_since(path, 0)) == [row]
    assert path.read_text().startswith(f'{{"kind": "{row.kind}", ')
    assert KINDS[row.kind] is type(row)


def test_there_is_a_row_of_every_kind():
    """The list above has all of them."""
    assert {row.kind for row in ROWS} == set(KINDS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repeat": "0"}, "a damaged row: repeat: Input should be a valid integer"),
        ({"repeat": True}, "a damaged row: repeat: Input should be a valid integer"),
        ({"duration_s": "1"}, "a damaged row: duration_s: Input should be a valid number"),
        ({"outcome": "fine"}, "a damaged row: outcome: Input should be 'ok', 'device_oom', "),
        ({"left_out": [1]}, "a damaged row: left_out.0: Input should be a valid string"),
    ],
)
def test_a_row_of_another_shape_is_refused_with_the_place(change, words):
    """Nothing is converted: a text is no number, and true is none either."""
    end = next(row for row in ROWS if isinstance(row, RunEnd))
    with pytest.raises(RowError) as refused:
        RunEnd.from_json({**end.to_json(), **change})

    assert str(refused.value).startswith(words)


def test_a_row_that_lacks_a_value_is_refused_and_a_whole_number_is_a_duration():
    """Only values that came later may be missing."""
    plain = next(row for row in ROWS if isinstance(row, RunEnd)).to_json()
    later = {"device", "device_limit_bytes", "left_out"}

    assert RunEnd.from_json({**plain, "duration_s": 1}).duration_s == 1.0
    for name in plain.keys() - later - {"kind"}:
        with pytest.raises(RowError, match=f"a damaged row: {name}: Field required"):
            RunEnd.from_json({key: value for key, value in plain.items() if key != name})
    assert RunEnd.from_json({key: plain[key] for key in plain.keys() - later}).left_out == ()


def test_the_child_reads_and_writes_rows_without_pydantic(project_root):
    """It is imported into every child before the body."""
    code = (
        "import sys, harness.rundir.rows, harness.rundir.traces; print('pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"
