"""Amounts of bytes, read and printed."""

import pytest

from harness.errors import BytesError
from harness.words import MIB, format_bytes, format_rate, format_way, parse_bytes


@pytest.mark.parametrize(
    ("text", "amount_bytes"),
    [
        ("0B", 0),
        ("4096 B", 4096),
        ("1KiB", 1024),
        ("256MiB", 268435456),
        (" 1.5 GiB ", 1610612736),
        ("2TiB", 2199023255552),
    ],
)
def test_iec_amounts_are_read(text, amount_bytes):
    """Number and unit, with or without a space."""
    assert parse_bytes(text) == amount_bytes


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("256MB", "256MiB"),
        ("1g", "1GiB"),
        ("12", "12MiB"),
        ("2giB", "has the unit giB; write 2GiB$"),
        ("1.5kib", "has the unit kib; write 1.5KiB$"),
        ("8b", "has the unit b; write 8B$"),
        ("3QiB", "for example 3MiB"),
        ("MiB", "for example 256MiB"),
        ("-1MiB", "for example 256MiB"),
        ("", "for example 256MiB"),
        ("0.3B", "smaller unit"),
    ],
)
def test_everything_else_is_refused_with_what_to_write(text, advice):
    """Decimal units mean different amounts to different people."""
    with pytest.raises(BytesError, match=advice):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("amount_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (4194304, "4.0 MiB"),
        (1048575, "1.0 MiB"),
        (-1610612736, "-1.5 GiB"),
        (3 * 1024**4, "3.0 TiB"),
    ],
)
def test_amounts_are_printed_for_people(amount_bytes, text):
    """Never 1,024.0 of a smaller unit."""
    assert format_bytes(amount_bytes) == text


def test_slopes_are_printed_in_plain_bytes():
    """So that a limit of 1,024 stays readable."""
    assert format_rate(65536.4, "image") == "65,536 B/image"
    assert format_rate(-0.4, "image") == "0 B/image"
    assert format_rate(float("-inf"), "image") == "-inf B/image"


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ([4 * MIB, 4_299_162, 4_508_877], "4.00 -> 4.10 -> 4.30 MiB"),
        ([0, 512], "0 -> 512 B"),
        ([0], "0 B"),
        ([4 * MIB, 4 * MIB + 1], "4,194,304 -> 4,194,305 B"),
        ([-2 * MIB, MIB], "-2.00 -> 1.00 MiB"),
    ],
)
def test_a_way_is_in_one_unit_that_tells_its_amounts_apart(amounts, expected):
    """In bytes where two would look alike."""
    assert format_way(amounts) == expected


def test_a_way_may_leave_some_out():
    """And shows where."""
    assert format_way([MIB, 3 * MIB], gap_after=1) == "1.00 -> ... -> 3.00 MiB"
