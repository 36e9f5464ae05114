"""Names that files, tables and sentences can have, whatever texts a test is parametrized with."""

import pytest

from harness.errors import UsageError
from harness.records import Point
from harness.words import (
    MOST_BYTES,
    MOST_PHASE_CHARACTERS,
    file_stem,
    one_line,
    phase_name,
    shortened,
)


def named(*texts):
    return Point(
        scenario="load",
        body="b:b",
        parameters={str(n): text for n, text in enumerate(texts)},
        phases=(),
    ).name


@pytest.mark.parametrize(
    "letter", ["x", "\u00e4", "\u4e16", "\U0001f600"], ids=["1 B", "2 B", "3 B", "4 B"]
)
def test_a_long_name_is_cut_to_its_bytes_with_a_digest(letter):
    """Two that differ in their last letter alone still differ; one at the limit is left as it
    is.
    """
    long, other = named(letter * 260), named(letter * 259 + "y")

    assert len(long.encode()) <= MOST_BYTES
    assert len(other.encode()) <= MOST_BYTES
    assert long != other
    assert long.startswith(f"load-{letter * 9}")
    whole = letter * (MOST_BYTES // len(letter.encode()))
    assert shortened(whole) == whole
    assert shortened(f"{whole}yyy") != f"{whole}yyy"


def test_line_breaks_tabs_and_control_characters_are_written_out():
    """As in Python, so that two different texts never look alike; what can be shown stays."""
    assert named("a\nb\tc\x00\x1b[0m|d") == r"load-a\nb\tc\x00\x1b[0m|d"
    assert named("\u2028") == r"load-\u2028"
    assert named("a\\nb") == r"load-a\\nb"
    assert one_line("\ud800") == r"\ud800"
    assert one_line("data/train \u00e4|b") == "data/train \u00e4|b"


def test_a_slash_makes_no_folder_and_no_two_points_share_their_files():
    """The longest of them, with all that is added to it, still is a name that a file can have (255
    bytes).
    """
    assert file_stem("load-a_b") == "load-a_b"
    assert file_stem("load-a/b").startswith("load-a_b-")
    longest = file_stem(named("/" * 300))
    assert "/" not in longest
    assert len(f".{longest}.json.gz.profile.4194304".encode()) <= 255


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (0, r"is a text, and 0 is none; write memory.phase\('0'\)"),
        (None, r"is a text, and None is none; write memory.phase\('construct'\)"),
        (b"load", r"is a text, and b'load' is none; write memory.phase\('construct'\)"),
        ("", "is '', which nobody can read"),
        (" \t", "which nobody can read"),
        ("a\nb", r"'a\\nb', has a line break, a tab or another character that cannot be shown"),
        ("x" * (MOST_PHASE_CHARACTERS + 1), "has 101 characters; write one of 100 at most"),
    ],
)
def test_the_name_of_a_phase_that_is_none_is_refused(name, sentence):
    """With what was given and what to write."""
    with pytest.raises(UsageError, match=sentence):
        phase_name(name)


def test_the_name_of_a_phase_may_be_any_line_of_text():
    """At the limit of its length too."""
    assert phase_name("epoch 1 | \u00e4") == "epoch 1 | \u00e4"
    assert len(phase_name("x" * MOST_PHASE_CHARACTERS)) == MOST_PHASE_CHARACTERS
