"""What a judgement says on a terminal: within 80 columns, each thing once, in the words of the
checks.
"""

import json
from dataclasses import replace

import pytest

from harness.judge import Check, FindingKind
from harness.judge.causes import AliveTensors, Cause, CauseKind, Command
from harness.records import Outcome
from harness.words import MIB
from reports.terminal import (
    MOST_CAUSES,
    MOST_ROWS,
    WIDTH,
    LoaderTable,
    Tone,
    measured_lines,
    sparkline,
    table_lines,
    verdict_json,
    verdict_lines,
)
from reports.view import RunView
from reports.words import time_taken

LAZY = "loading-lazy-image_count=2000-stack_size=2048"


def texts(lines):
    return [line.text for line in lines]


def check(**changes):
    """A check about the lazy loader's largest point, on the device."""
    values = {
        "rule": "budget",
        "subject": "loading / lazy",
        "sentence": "loading / lazy: peaks at 12.0 MiB, limit 16.0 MiB.",
        "scenario": "loading",
        "point": LAZY,
        "phase": "epoch_0",
        "meter": "device_in_use",
        "measured": 12.0 * MIB,
        "limit": 16.0 * MIB,
        "bound": "upper",
        "unit": "B",
    }
    return Check(**(values | changes))


BROKEN = check(
    measured=12.0 * MIB, limit=8.0 * MIB, finding=FindingKind.REGRESSION, sentence="too much " * 40
)
CAUSE = Cause(
    id="a1",
    kind=CauseKind.MEMORY,
    finding=FindingKind.REGRESSION,
    what="the lazy loader keeps the whole X",
    where="loading; first in construct",
    how_much="125.0 MiB at 2,000 images, 65,536 B for each; allowed 512 B",
    since="not at main (e4ecc0f)",
    checks=(BROKEN,) * 3,
    alive=(
        AliveTensors(
            dtype="float32",
            shape=(2000, 64, 64, 4),
            operation="Empty",
            count=1,
            nbytes=125 * MIB,
            declared="1.00 x X",
        ),
    ),
    commands=(
        Command(purpose="measure this point again", line=f"pytest --memory-points={LAZY}"),
        Command(purpose="find the commit", line="python -m harness bisect main"),
    ),
)


@pytest.fixture
def judgement(whole_run, judged):
    """``judgement(*checks, causes=...)``."""
    return lambda *checks, causes=(): replace(judged(whole_run, *checks), causes=causes)


def test_a_green_run_shows_what_every_loader_takes(whole_run, judgement):
    """Peak at the largest size, its limit, what each image adds, the host, the change, the bars."""
    compared = check(rule="baseline", measured=8.5 * MIB, earlier=8.0 * MIB)

    lines = texts(verdict_lines(whole_run, judgement(check(), compared)))

    assert lines[:2] == [
        "Pass: all 2 checks hold.",
        "36 runs, 3 min 41 s, emulated, e559833, no baseline",
    ]
    assert lines[2:] == [
        "               device peak   limit  per image  host peak      change",
        "loading eager      1.4 GiB       -  735,000 B  625.0 MiB           -  ▁▂▄█",
        "loading lazy      12.0 MiB  16 MiB        0 B   18.0 MiB  +512.0 KiB  ▁▁▁▁",
        "arrays eager     701.0 MiB       -  735,000 B  312.5 MiB           -  ▁▄▇",
        "arrays lazy       12.0 MiB       -        0 B   18.0 MiB           -  ▁▁▁",
        "oom eager      out of device memory, as planned",
        "oom lazy          12.0 MiB       -          -   18.0 MiB           -",
        "judged by the policy",
    ]


def test_every_cell_of_the_table_is_what_was_read(whole_run, judgement):
    """The eager loader peaks in construct, at 735,000 B for each image; the lazy one at three
    batches.
    """
    rows = {
        row.name: row
        for row in LoaderTable(RunView(whole_run), judgement(check()).verdict.checks).rows
    }

    eager, lazy = rows["loading eager"], rows["loading lazy"]
    assert (eager.size, eager.device_bytes, eager.limit_bytes) == (2000, 2000 * 735_000, None)
    assert eager.each_bytes == pytest.approx(735_000)
    assert (lazy.device_bytes, lazy.limit_bytes, lazy.each_bytes) == (12 * MIB, 16 * MIB, 0)
    assert [size for size, _ in lazy.sizes] == [100, 500, 1000, 2000]
    assert rows["oom eager"].device_bytes is None
    assert rows["oom eager"].ended == "out of device memory, as planned"


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 16 * MIB),
        ({"measured": 12 * MIB * 0.91}, 16 * MIB),
        ({"measured": 12 * MIB * 0.89}, None),
        ({"rule": "leak"}, None),
        ({"bound": "lower"}, None),
        ({"meter": "host_anon"}, None),
        ({"point": "loading-lazy-image_count=1000-stack_size=2048"}, None),
    ],
)
def test_a_limit_stands_beside_the_amount_that_it_is_about(whole_run, judgement, changes, limit):
    """No limit on a small part of the peak, or on something else, looks like one on the peak."""
    rows = LoaderTable(RunView(whole_run), judgement(check(**changes)).verdict.checks).rows

    (lazy,) = [row for row in rows if row.name == "loading lazy"]
    assert lazy.limit_bytes == limit


def test_a_red_run_tells_each_cause_once(whole_run, judgement):
    """In one wrapped paragraph, with what was alive and what to type; its findings with
    --verbose.
    """
    red = judgement(BROKEN, check(), causes=(CAUSE,))

    lines = texts(verdict_lines(whole_run, red))
    verbose = texts(verdict_lines(whole_run, red, verbose=True))

    assert lines[0] == "Regression: 1 cause; 1 of 2 checks does not hold."
    assert lines[lines.index("") :] == [
        "",
        "1. The lazy loader keeps the whole X (loading; first in construct): 125.0 MiB at",
        "   2,000 images, 65,536 B for each; allowed 512 B; not at main (e4ecc0f). 2 more",
        "   findings follow from it (--verbose).",
        "   alive there: Empty (2000, 64, 64, 4) float32, 125.0 MiB, 1.00 x X",
        "   measure this point again:",
        f"     pytest --memory-points={LAZY}",
        "judged by the policy",
    ]
    assert not [line for line in lines if "too much" in line or "bisect" in line]
    assert sum("- regression: too much" in line for line in verbose) == 3
    assert "     python -m harness bisect main" in verbose


def test_the_row_of_a_finding_is_marked(whole_run, judgement):
    """By a sign and a colour; all others are indented alike."""
    lines = verdict_lines(whole_run, judgement(BROKEN, causes=(CAUSE,)))
    rows = [line for line in lines if line.text[2:].startswith(("loading", "arrays", "oom"))]

    marked = [line for line in rows if line.text.startswith("! ")]
    assert [line.text.split()[1:3] for line in marked] == [["loading", "lazy"]]
    assert [line.tone for line in marked] == [Tone.BAD]
    assert {line.text[:2] for line in rows if line not in marked} == {"  "}


@pytest.mark.parametrize("number", [MOST_CAUSES, MOST_CAUSES + 1])
def test_more_causes_than_a_screen_holds_are_counted(whole_run, judgement, number):
    """The first are the gravest."""
    causes = tuple(replace(CAUSE, id=f"a{place}") for place in range(number))
    lines = texts(verdict_lines(whole_run, judgement(BROKEN, causes=causes)))

    assert sum(line.startswith(f"{MOST_CAUSES}. ") for line in lines) == 1
    assert ("1 more cause (--verbose)" in lines) is (number > MOST_CAUSES)


def test_a_death_shows_the_end_of_its_log_and_what_was_found(whole_run, judgement):
    """Cut where the line ends, for it is not to be copied."""
    death = replace(
        CAUSE,
        kind=CauseKind.DEATH,
        checks=(replace(BROKEN, sentence="It died."),),
        alive=(),
        log_tail=("first", *(f"line {number} {'x' * 90}" for number in range(3))),
    )
    lines = texts(verdict_lines(whole_run, judgement(BROKEN, causes=(death,))))
    tail = [line for line in lines if line.startswith("   | ")]

    assert [line[5:11] for line in tail] == ["line 0", "line 1", "line 2"]
    assert {len(line) for line in tail} == {WIDTH}
    assert "   - regression: It died." in lines


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_but_a_command_is_longer_than_the_terminal(whole_run, judgement, width):
    """Long names are cut in the middle."""
    red = judgement(BROKEN, causes=(CAUSE,))
    for verbose in (False, True):
        for line in texts(verdict_lines(whole_run, red, width=width, verbose=verbose)):
            assert len(line) <= width or line.strip().startswith(("pytest", "python"))


def test_names_that_are_alike_are_told_apart_where_they_are_cut(whole_run):
    """At both ends."""
    row = LoaderTable(RunView(whole_run)).rows[0]
    long = [
        replace(row, scenario="scenario" * 12, series=f"lazy, source={end}")
        for end in ("files", "names")
    ]
    lines = texts(table_lines(long))

    assert all(len(line) <= WIDTH for line in lines)
    assert "files" in lines[1]
    assert "names" in lines[2]


@pytest.mark.parametrize("number", [MOST_ROWS, MOST_ROWS + 1])
def test_a_long_table_says_how_much_of_it_is_left_out(whole_run, number):
    """A screen is enough."""
    row = LoaderTable(RunView(whole_run)).rows[0]
    lines = texts(table_lines([row] * number))

    assert len(lines) == MOST_ROWS + 1 + (number > MOST_ROWS)
    assert (lines[-1] == "... and 1 more in summary.md") is (number > MOST_ROWS)


def test_columns_that_nobody_has_an_amount_for_are_left_out(whole_run):
    """A sweep that was not judged has no limits, and is compared with nothing."""
    heading, *_ = texts(measured_lines(whole_run))

    assert heading.split() == ["device", "peak", "per", "image", "host", "peak"]
    assert texts(table_lines([])) == []


@pytest.mark.parametrize(
    ("amounts", "bars"),
    [
        ([], ""),
        ([5], ""),
        ([None, None], ""),
        ([0, 0], "▁▁"),
        ([1, None], "▁x"),
        ([0, 100], "▁█"),
        ([100, 101], "▁▁"),
        (range(1, 18), "▁▂▃▄▆▇█"),
    ],
)
def test_bars_are_in_eighths_of_the_largest(amounts, bars):
    """What is level looks level; a size that died is an x; a long sweep is thinned out, and its
    last size stays.
    """
    shown = sparkline([*amounts])

    assert (shown[:1], shown[-1:]) == (bars[:1], bars[-1:])
    assert len(shown) <= 8
    assert shown == bars or len(amounts) > 8


def test_without_block_characters_there_are_no_bars(whole_run):
    """An encoding of the reader's that has none."""
    assert "".join(texts(measured_lines(whole_run, bars=False))).isascii()


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ("2026-01-01T00:00:07+00:00", "7 s"),
        ("2026-01-01T00:59:59+00:00", "59 min 59 s"),
        ("2026-01-01T01:00:00+00:00", "1 h 0 min"),
        (None, ""),
        ("yesterday", ""),
        ("2026-01-01T01:00:00", ""),
    ],
)
def test_how_long_a_run_took(ended, words):
    """Nothing where it is not known."""
    assert time_taken("2026-01-01T00:00:00+00:00", ended) == words


def test_runs_that_died_otherwise_than_planned_are_said_so(sweep, tmp_path):
    """And what was never measured."""
    dead = {
        cell.name: (Outcome.CRASHED, "construct", "killed by SIGSEGV")
        for cell in sweep.points
        if cell.scenario == "arrays" and cell.parameters["loader"] == "eager"
    }
    sweep.deaths = {**sweep.deaths, **dead}
    sweep.missing = frozenset(
        cell.name
        for cell in sweep.points
        if cell.scenario == "arrays" and cell.parameters["loader"] == "lazy"
    )
    rows = {
        row.name: row.ended
        for row in LoaderTable(RunView(sweep.write(tmp_path / "run"))).rows
        if row.ended
    }

    assert rows == {
        "arrays eager": "crashed",
        "arrays lazy": "not measured",
        "oom eager": "out of device memory, as planned",
    }


def test_programs_get_the_same_as_one_object(whole_run, judgement):
    """In bytes; of each cause the words and the commands."""
    found = json.loads(verdict_json(whole_run, judgement(BROKEN, causes=(CAUSE,))))

    assert (found["verdict"], found["exit_code"], found["findings"]) == ("regression", 1, 1)
    assert found["causes"][0]["what"] == CAUSE.what
    assert found["causes"][0]["commands"][0]["line"] == CAUSE.commands[0].line
    assert found["causes"][0]["checks"] == ["loading / lazy"] * 3
    (lazy,) = [
        row for row in found["loaders"] if (row["scenario"], row["series"]) == ("loading", "lazy")
    ]
    assert (lazy["device_bytes"], lazy["limit_bytes"]) == (12 * MIB, 8 * MIB)
