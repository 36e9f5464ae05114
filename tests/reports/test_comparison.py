"""What moved, beside what it was: now, then, in bytes, in percent, and in parts of the
tolerance.
"""

from dataclasses import replace

import pytest

from harness.judge import Check, FindingKind
from reports.comparison import MOST_MOVES, comparison_of

MIB = 1024 * 1024


def amount(
    place, earlier, measured, tolerance=MIB, finding=None, origin="accepted 2026-01-01 from run s1"
):
    limit = earlier + tolerance if measured >= earlier else earlier - tolerance
    return Check(
        rule="baseline",
        subject=f"{place} / growth",
        sentence="x",
        measured=float(measured),
        limit=float(limit),
        earlier=float(earlier),
        earlier_from=origin,
        unit="B",
        finding=finding,
    )


def test_amounts_are_counted_and_the_largest_moves_come_first():
    """In parts of their tolerance, whichever way; what did not move is not in the table."""
    found = comparison_of(
        [
            amount("a / x", 4 * MIB, 4 * MIB),
            amount("b / x", 8 * MIB, 6 * MIB, finding=FindingKind.IMPROVEMENT),
            amount("c / x", 4 * MIB, 4 * MIB + 1),
            amount("d / x", 4 * MIB, 8 * MIB, finding=FindingKind.REGRESSION),
        ]
    )

    assert found.sentence == (
        "4 amounts compared with those accepted 2026-01-01 from run s1: 2 moved beyond "
        "tolerance, 1 within it, 1 not by a byte."
    )
    assert found.moves.rows == (
        (
            "d / x",
            "growth",
            "8.0 MiB",
            "4.0 MiB",
            "+4,194,304 B",
            "+100.0 %",
            "1.0 MiB",
            "1",
            "regression",
        ),
        (
            "b / x",
            "growth",
            "6.0 MiB",
            "8.0 MiB",
            "-2,097,152 B",
            "-25.0 %",
            "1.0 MiB",
            "1",
            "improvement",
        ),
        ("c / x", "growth", "4.0 MiB", "4.0 MiB", "+1 B", "+0.0 %", "1.0 MiB", "1", ""),
    )


def test_what_is_better_than_other_code_is_beyond_tolerance_and_no_finding():
    """The next comparison starts from there, so nobody has to accept it."""
    found = comparison_of(
        [replace(amount("a / x", 8 * MIB, 4 * MIB, origin="at main (abc1234)"), better=True)]
    )

    assert found.sentence == (
        "1 amount compared with those at main (abc1234): 1 moved beyond tolerance, 0 "
        "within it, 0 not by a byte."
    )
    assert found.moves.rows[0][-1] == "better"


def test_the_points_of_one_series_are_one_row():
    """Sizes of one phase and meter: the one that moved most, and how many did."""
    (row,) = comparison_of(
        [amount(f"a / image_count={size} / x", 0, size * MIB) for size in (1, 3, 2)]
    ).moves.rows

    assert row == (
        "a / image_count=3 / x",
        "growth",
        "3.0 MiB",
        "0 B",
        "+3,145,728 B",
        "from 0 B",
        "1.0 MiB",
        "3",
        "",
    )


@pytest.mark.parametrize("number", [MOST_MOVES, MOST_MOVES + 1])
def test_a_long_table_says_how_much_it_leaves_out(number):
    """All at the limit; the largest of them one past it."""
    moves = comparison_of([amount(f"a{index} / x", 0, index + 1) for index in range(number)]).moves

    assert len(moves.rows) == MOST_MOVES
    assert moves.caption.startswith(
        "The 15 of 16 amounts that moved most," if number > MOST_MOVES else "Amounts that moved,"
    )


def test_nothing_to_compare_with_is_said():
    """Not the same as nothing moved."""
    check = Check(rule="budget", subject="a", sentence="x", measured=1.0, limit=2.0)

    assert comparison_of([check]).sentence == "No amount was compared with an earlier one."
    assert comparison_of([check]).moves is None


def test_several_origins_are_counted():
    """Points that were accepted on other days."""
    checks = [
        amount("a / x", 0, 0),
        amount("b / x", 0, 0, origin="accepted 2026-02-02 from run s2"),
    ]

    assert (
        "those accepted 2026-01-01 from run s1, and 1 other origin: "
        in comparison_of(checks).sentence
    )


def test_only_what_is_worse_beyond_tolerance_stands_in_the_open():
    """At its tolerance an amount is within it, one byte past it is beyond; less is never worse."""
    found = comparison_of(
        [
            amount("at / x", 0, MIB),
            amount("past / x", 0, MIB + 1),
            amount("less / x", 8 * MIB, MIB, finding=FindingKind.IMPROVEMENT),
            replace(amount("better / x", 8 * MIB, 4 * MIB), better=True),
            amount("same / x", MIB, MIB),
        ]
    )

    assert [move.cells[0] for move in found.worse] == ["past / x"]
    assert [move.cells[0] for move in found.others] == ["less / x", "better / x", "at / x"]
    assert found.worse[0].cells[7] == "1.0 times"
    assert found.others[-1].cells[7] == "100 %"


def test_a_multiple_of_little_is_no_percentage():
    """A thousand percent is one; beyond it a multiple."""
    moves = [
        comparison_of([amount("a / x", 100, measured)]).worse
        or comparison_of([amount("a / x", 100, measured)]).others
        for measured in (1100, 1101)
    ]

    assert [move[0].cells[5] for move in moves] == ["+1,000.0 %", "11 times"]


def test_where_the_runs_were_measured_differently_is_said(sweep, tmp_path):
    """Versions and device; the commits stand in the header, and what is alike nowhere."""
    now = sweep.write(tmp_path / "now").manifest
    environment = {
        **sweep.manifest()["environment"],
        "tensorflow": "2.20.0",
        "git_commit": "another",
    }
    device = {**sweep.manifest()["device"], "memory_bytes": 2 * 1024**3}
    sweep.changes = {"environment": environment, "device": device}
    then = sweep.write(tmp_path / "then").manifest

    assert comparison_of([], now=now, then=then).differences == (
        ("tensorflow", "2.21.0", "2.20.0"),
        ("device memory bytes", "4294967296", "2147483648"),
    )
    assert comparison_of([], now=now, then=now).differences == ()
    assert comparison_of([], now=now).differences == ()
