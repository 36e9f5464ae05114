"""Amounts in words: never 0 for unknown, always with their kind."""

import pandas as pd
import pytest

from harness.judge import Check, FindingKind, Verdict
from harness.words import KIB, MIB, count
from reports.words import (
    amount,
    kind_of_number,
    limit_in_words,
    peak,
    rate,
    unavailable,
    verdict_word,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (-1e-9, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (4 * MIB, "4.0 MiB"),
        (None, "unavailable"),
        (pd.NA, "unavailable"),
    ],
)
def test_an_amount_that_is_not_known_is_not_zero(value, expected):
    """0 B is a reading; nothing else prints so."""
    assert expected == amount(value)


@pytest.mark.parametrize(
    ("bound", "quality", "expected"),
    [
        (12 * MIB + 256 * KIB, "bounded", "12.0 MiB, at most 12.2 MiB"),
        (12 * MIB, "bounded", "12.0 MiB"),
        (pd.NA, "exact", "12.0 MiB"),
    ],
)
def test_a_bounded_peak_names_both_bounds(bound, quality, expected):
    """One number where they print alike."""
    assert expected == peak(12 * MIB, bound, quality)


def test_a_sampled_number_says_how_finely():
    """Samples and largest gap."""
    assert kind_of_number("sampled", 1200, 0.004) == "sampled (1,200 samples, largest gap 4 ms)"
    assert kind_of_number("exact", 1200, 0.004) == "exact"


@pytest.mark.parametrize(
    ("slope", "expected"), [(-0.4, "0 B/image"), (-0.6, "-1 B/image"), (65_536.0, "65,536 B/image")]
)
def test_a_slope_that_rounds_to_nothing_has_no_sign(slope, expected):
    """Exact data leave a slope of minus nothing behind."""
    assert expected == rate(slope, "image")


def test_a_missing_reason_is_said_to_be_missing():
    """An empty reason does not leave half a sentence."""
    assert unavailable(" ") == "unavailable, because no reason was recorded"


def test_one_run_is_not_one_runs():
    """Singular at 1, plural at 0 and 2."""
    assert [count(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


@pytest.mark.parametrize(
    ("bound", "words"),
    [("upper", "at most 5.2 MiB allowed"), ("lower", "at least 5.2 MiB expected"), ("", "5.2 MiB")],
)
def test_a_limit_says_which_side_it_is_on(bound, words):
    """So that less than a lower one does not look as if it were within it; where there is none,
    nothing is said.
    """
    assert limit_in_words("5.2 MiB", bound) == words
    assert limit_in_words("", bound) == ""


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (FindingKind.REGRESSION, "Regression"),
        (FindingKind.FAILED, "Failed"),
        (FindingKind.INCOMPLETE, "Incomplete"),
        (FindingKind.NO_BASELINE, "No baseline"),
        (FindingKind.MOVED, "Moved, not better"),
        (FindingKind.IMPROVEMENT, "Better than the baseline"),
    ],
)
def test_the_word_of_a_verdict_is_that_of_its_gravest_finding(kind, word):
    """A death without anything earlier is no regression, and bytes that moved are not better."""
    found = Check(rule="baseline", subject="own", sentence="own: so.", finding=kind)
    better = Check(
        rule="baseline", subject="own", sentence="own: so.", finding=FindingKind.IMPROVEMENT
    )

    assert verdict_word(Verdict((better, found))) == word
    assert (
        verdict_word(Verdict((Check(rule="baseline", subject="own", sentence="own: so."),)))
        == "Pass"
    )
