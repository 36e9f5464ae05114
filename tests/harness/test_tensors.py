"""Which of the tensors that were alive a sentence names."""

import pytest

from harness.tensors import number_named


@pytest.mark.parametrize(
    ("totals_bytes", "number"),
    [
        ([], 0),
        ([0], 1),
        ([25, 15, 2, 1], 3),
        ([98, 1, 1], 3),
        ([990, 9, 1], 1),
        ([990, 10], 2),
    ],
)
def test_the_first_is_named_and_two_more_that_are_a_hundredth_of_all(totals_bytes, number):
    """At the hundredth and one byte less."""
    assert number_named(totals_bytes) == number
