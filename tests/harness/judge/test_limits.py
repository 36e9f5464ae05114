"""Amounts of a policy: bytes, multiples of what bodies declare, and bytes on top of either."""

import pytest

from harness.errors import BytesError
from harness.judge.limits import Amount

DECLARED = {"batch": 1000}


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("64 KiB", 65536, "64.0 KiB"),
        ("4 batches", 4000, "4 batches (3.9 KiB)"),
        ("64 KiB + 1 MiB", 65536 + 1024**2, "64 KiB + 1 MiB (1.1 MiB)"),
        ("4 batches + 96 B", 4096, "4 batches + 96 B (4.0 KiB)"),
        ("4 frames + 96 B", None, "4 frames + 96 B"),
    ],
)
def test_an_amount_may_be_a_sum_and_says_what_it_adds_up_to(text, size, words):
    """A multiple of what no body declared is of no size."""
    assert Amount.parse(text).in_bytes(DECLARED) == size
    assert Amount.parse(text).in_words(DECLARED) == words


@pytest.mark.parametrize(
    "text", ["1 KiB + 4 batches", "1 KiB +", "+ 1 KiB", "1 KiB + 1 KiB + 1 KiB", "1 KiB + 2"]
)
def test_what_is_added_is_bytes_once(text):
    """Anything else is refused."""
    with pytest.raises(BytesError):
        Amount.parse(text)
