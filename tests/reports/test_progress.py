"""The line that says how far measuring has come: of rows alone, and gone before others write."""

import json
import os
import pty
import re
import select
from dataclasses import replace

import pytest

from harness.meters import DEVICE_IN_USE
from harness.records import Outcome, Reading, to_json
from harness.rundir.rows import Again, Announced, Remeasure, TraceEnd
from reports.progress import (
    PLAIN_EVERY_S,
    LiveLine,
    Progress,
    SessionDisplay,
    is_terminal,
    live_line,
    point_in_words,
)


class Clock:
    """A clock that stands still."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def measuring(sweep, tmp_path):
    """``measuring(rows)``: appends rows to a run that plans the whole sweep; its folder."""
    folder = tmp_path / "run"
    sweep.write(folder)
    (folder / "rows.jsonl").write_text("")

    def append(rows):
        with (folder / "rows.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return folder

    return append


def rows_of(sweep, name, repeat=0):
    """The rows of one run."""
    return [row for row in sweep.rows() if (row["point"], row["repeat"]) == (name, repeat)]


FIRST = "loading-eager-image_count=100-stack_size=2048"
LAZY = "loading-lazy-image_count=2000-stack_size=2048"


def test_the_line_says_run_point_phase_and_peak(sweep, measuring, clock):
    """As rows come: the highest of the run so far; before the first row there is no line."""
    rows = rows_of(sweep, LAZY)
    place = next(
        number
        for number, row in enumerate(rows)
        if row["kind"] == "phase" and row["phase"] == "epoch_0"
    )
    progress = Progress([measuring([])], clock=clock)
    lines = []
    for part in (
        [],
        rows[: place - 1],
        rows[place - 1 : place],
        rows[place : place + 1],
        rows[place + 1 :],
    ):
        measuring(part)
        progress.look()
        lines.append(progress.line)

    assert lines == [
        "",
        "0/36 loading-lazy 2,000 first_batch 8.0 MiB",
        "0/36 loading-lazy 2,000 epoch_0 8.0 MiB",
        "0/36 loading-lazy 2,000 epoch_0 12.0 MiB",
        "1/36 loading-lazy 2,000 release 12.0 MiB",
    ]


def test_what_was_there_before_the_first_phase_is_not_in_the_peak(sweep, measuring, clock):
    """The emulated device's first region, which the harness fills."""
    rows = rows_of(sweep, LAZY)[:3]
    readings = [
        reading | {"start_bytes": 2_097_152, "peak_bytes": 6_291_456, "end_bytes": 2_097_152}
        for reading in rows[-1]["readings"]
        if reading["meter"] == DEVICE_IN_USE
    ]
    progress = Progress([measuring([*rows[:-1], rows[-1] | {"readings": readings}])], clock=clock)
    progress.look()

    assert progress.line == "0/36 loading-lazy 2,000 open 4.0 MiB"


def test_where_the_device_cannot_be_read_the_host_is_named(sweep, measuring, clock):
    """An amount never stands there for another meter."""
    rows = rows_of(sweep, LAZY)[:3]
    readings = [
        to_json(Reading.unavailable(DEVICE_IN_USE, "no card"))
        if reading["meter"] == DEVICE_IN_USE
        else reading
        for reading in rows[-1]["readings"]
    ]
    progress = Progress([measuring([*rows[:-1], rows[-1] | {"readings": readings}])], clock=clock)
    progress.look()

    assert progress.line == "0/36 loading-lazy 2,000 open host 1.0 MiB"


def test_half_a_row_is_waited_for(sweep, measuring, clock):
    """A child is in the midst of writing it; a damaged one says nothing."""
    folder = measuring([])
    rows = rows_of(sweep, LAZY)
    progress = Progress([folder], clock=clock)
    end = json.dumps(rows[-1]).encode()
    with (folder / "rows.jsonl").open("ab") as file:
        file.write(b"{damaged\n" + end[:20])
        file.flush()
        progress.look()
        before = progress.done
        file.write(end[20:] + b"\n")
        file.flush()
        progress.look()

    assert (before, progress.done) == (0, 1)


def test_the_time_left_is_told_after_three_runs(sweep, measuring, clock):
    """By what runs of the same point and scenario took, and how many went on at a time."""
    clock.now_s = 100.0
    progress = Progress([measuring([])], clock=clock)
    progress.look()
    told = []
    for repeat in (0, 1, 2):
        measuring([rows_of(sweep, FIRST)[-1] | {"repeat": repeat, "duration_s": 4.0}])
        progress.look()
        clock.now_s = 100.0 + 2.0 * (repeat + 1)  # two at a time
        told.append(progress.left_s)

    # the point has had one run more than it needs; 34 are left, of 4 s each, two at a time
    assert told == [None, None, 34 * 4.0 * 6.0 / 12.0]
    assert progress.line == "3/36, about 1:08 left"


def test_what_a_resumed_run_had_before_says_nothing_of_the_time(sweep, measuring, clock):
    """It was measured then, on whatever else was going on; it counts as done."""
    ends = [row for row in sweep.rows() if row["kind"] == "end"]
    progress = Progress([measuring(ends[:20])], clock=clock)
    progress.look()
    clock.now_s = 10.0
    measuring(ends[20:22])
    progress.look()

    assert (progress.done, progress.left_s) == (22, None)


def test_a_longer_scenario_is_reckoned_by_its_own_runs(sweep, measuring, clock):
    """And one that has had none, by all."""
    ends = [row for row in sweep.rows() if row["kind"] == "end"]
    loading = [row | {"duration_s": 1.0} for row in ends if row["point"].startswith("loading")]
    arrays = [row | {"duration_s": 9.0} for row in ends if row["point"].startswith("arrays")]
    progress = Progress([measuring([])], clock=clock)
    progress.look()
    measuring([*loading, arrays[0]])
    progress.look()
    clock.now_s = len(loading) * 1.0 + 9.0

    mean_of_all = (len(loading) * 1.0 + 9.0) / (len(loading) + 1)
    assert progress.left_s == pytest.approx((len(arrays) - 1) * 9.0 + 4 * mean_of_all)


def test_announced_runs_traces_and_the_other_side_are_counted(sweep, measuring, tmp_path, clock):
    """Whatever is still to be measured; a run that is measured once more is open again."""
    sweep.changes = {"settings": {"traces": True}}
    folder = tmp_path / "run"
    sweep.write(folder)
    other = tmp_path / "then"
    sweep.changes = {}
    sweep.write(other)
    extra = replace(sweep.points[0], scenario="own")
    measuring(
        [
            Announced(point=extra.name, record=extra, test="t", repeats=5).to_json(),
            Remeasure(point=FIRST, repeats=3, reason="a finding").to_json(),
            Again(point=LAZY, repeat=1, reason="its test was run again").to_json(),
            TraceEnd(
                point=FIRST,
                outcome=Outcome.OK,
                cause="",
                reason="",
                file=None,
                launcher="spawn",
                duration_s=3.0,
            ).to_json(),
        ]
    )
    progress = Progress([folder, other], clock=clock)
    progress.look()

    planned = len(sweep.points)
    assert progress.total == planned * 2 + planned + 5 + 1 + 3 + planned * 2
    assert progress.done == 2 * planned - 1 + 1 + 2 * planned


def test_tests_that_have_not_said_what_they_measure_leave_the_total_open(sweep, measuring, clock):
    """A plus says that it may be more, and no time is told."""
    sweep.changes = {"asked": ["a", "b"]}
    folder = measuring([])
    sweep.write(folder)
    progress = Progress([folder], clock=clock)
    progress.look()
    clock.now_s = 5.0

    assert progress.line == "36/36+ oom-lazy 2,000 release 12.0 MiB"
    for test in ("a", "b"):
        own = replace(sweep.points[0], scenario=test)
        measuring([Announced(point=own.name, record=own, test=test).to_json()])
    progress.look()
    assert progress.line.startswith("36/40 ")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"loader": "lazy", "image_count": 2000, "stack_size": 2048}, "load-lazy 2,000"),
        (
            {"loader": "lazy", "image_count": 500, "stack_size": 8192},
            "load-lazy 500 stack_size=8,192",
        ),
        ({"image_count": 5, "shuffle": True}, "load 5 shuffle=True"),
        ({}, "load"),
    ],
)
def test_a_point_is_named_by_what_tells_it_from_others(sweep, parameters, words):
    """What most points of its scenario share is left out."""
    others = {
        str(count): replace(
            sweep.points[0],
            scenario="load",
            parameters={"loader": "lazy", "image_count": count, "stack_size": 2048},
        )
        for count in (1, 2)
    }
    point = replace(sweep.points[0], scenario="load", parameters=parameters)

    assert point_in_words(point, {**others, "this": point}) == words


# On a terminal: what is there when all is over is what others have written.


class Screen:
    """A terminal of 80 columns, as far as anything here makes use of one."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        for sign in re.findall(r"\x1b\[(?:\d*)[A-Z]|\r|\n|[^\x1b\r\n]+", text):
            self._take(sign)
        return self

    def _take(self, sign):
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif sign == "\x1b[2K":
            self.lines[self.row] = ""
        elif sign == "\x1b[A":
            self.row -= 1
        elif sign.startswith("\x1b["):
            assert sign.endswith("G"), sign
            self.column = int(sign[2:-1]) - 1
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + sign + line[self.column + len(sign) :]
            self.column += len(sign)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")


@pytest.fixture
def terminal(monkeypatch):
    """Both ends of a pseudo-terminal: ``read(until)`` gives what came, once it holds a text."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()

    def read(until):
        found = ""
        while until not in found:
            ready, _, _ = select.select([master], [], [], 30)
            assert ready, f"{until!r} did not come; there was {found!r}"
            found += os.read(master, 65_536).decode().replace("\r\n", "\n")
        return found

    yield slave, read
    os.close(master)
    os.close(slave)


def test_the_line_is_below_what_others_write_and_gone_when_they_go_on(terminal):
    """The cursor is where it was, at the end of their line."""
    slave, read = terminal
    screen, dots = Screen(), ".."
    os.write(slave, dots.encode())
    live = LiveLine(slave, lambda: "3/9 load", column=lambda: len(dots))
    live.start()
    screen.feed(read("3/9 load"))
    during = screen.text
    with live.aside():
        os.write(slave, b".")
        dots += "."
    screen.feed(read("3/9 load"))
    again = screen.text
    live.stop()
    os.write(slave, b" [100%]")
    screen.feed(read("[100%]"))

    assert (during, again, screen.text) == ("..\n3/9 load", "...\n3/9 load", "... [100%]")


@pytest.mark.parametrize(
    ("written", "shown"),
    [("x" * 79, "x" * 79), ("x" * 80, f"{'x' * 76}..."), ("x" * 200, f"{'x' * 76}...")],
)
def test_a_line_never_fills_the_last_column(terminal, written, shown):
    """It would go on in the next row, which nobody takes away."""
    slave, read = terminal
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    live = LiveLine(slave, lambda: written)
    live.start()

    assert read("x" * 70 if len(written) < 80 else "...").strip() == shown
    live.stop()


def test_nothing_is_drawn_where_there_is_no_terminal(tmp_path, monkeypatch, terminal):
    """Nor on one that can take nothing away."""
    slave, _ = terminal
    with (tmp_path / "file").open("w") as file, live_line(file.fileno(), lambda: "line"):
        pass

    assert (tmp_path / "file").read_text() == ""
    assert is_terminal(slave)
    monkeypatch.setenv("TERM", "dumb")
    assert not is_terminal(slave)


def test_elsewhere_a_line_is_written_now_and_then(sweep, measuring, clock):
    """Every half minute at most, and none that says nothing new."""
    written, given = [], 1
    ends = [row for row in sweep.rows() if row["kind"] == "end"]
    display = SessionDisplay(
        [measuring(ends[:1])],
        drawn=False,
        column=lambda: 0,
        write_line=lambda line: written.append((clock.now_s, line)),
        clock=clock,
    )
    for now_s, more in (
        (PLAIN_EVERY_S - 1, 1),
        (PLAIN_EVERY_S, 0),
        (PLAIN_EVERY_S + 1, 1),
        (2 * PLAIN_EVERY_S, 1),
        (4 * PLAIN_EVERY_S, 0),
    ):
        measuring(ends[given : given + more])
        given += more
        clock.now_s = now_s
        with display.aside():
            pass
    display.close()

    assert [now_s for now_s, _ in written] == [PLAIN_EVERY_S, 2 * PLAIN_EVERY_S]
    assert [line.split(",")[0] for _, line in written] == ["2/36", "4/36"]
