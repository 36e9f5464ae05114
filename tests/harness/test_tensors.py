"""Which of the tensors that were alive a sentence names, and what it says of those that nothing is
known of.
"""

import pytest

from harness.words import KIB, MIB, largest_in_words, range_in_use, tensors_in_words, with_known_use


@pytest.mark.parametrize(
    ("totals_bytes", "words"),
    [
        ([], ""),
        ([0], "A0"),
        ([25, 15, 2], "A0; A1; A2"),
        ([25, 15, 2, 1], "A0; A1; A2; and one other, 1 B"),
        ([98, 1, 1], "A0; A1; A2"),
        ([990, 9, 1], "A0; and 2 others, 10 B together"),
        ([990, 10], "A0; A1"),
        ([10, 990], "A1; A0"),
    ],
)
def test_the_largest_by_their_own_bytes_are_named_and_trifles_summed_up(totals_bytes, words):
    """At the hundredth of all and one byte less; in whatever order they come."""
    assert (
        largest_in_words([(f"A{place}", 1, total) for place, total in enumerate(totals_bytes)])
        == words
    )


def test_others_are_counted_one_by_one_and_make_a_tensor_small():
    """Groups are of several; what was alive beside them is never named."""
    groups = [("A", 1, 1000), ("B", 2, 100), ("C", 7, 5)]

    assert largest_in_words(groups) == "A; B; and 7 others, 5 B together"
    assert (
        largest_in_words(groups, beside=[("D", 1, 100_000)])
        == "A; and 10 others, 97.8 KiB together"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "16 x 256 KiB without an operation, each 1.00 x batch"),
        ({"count": 1, "total_bytes": 256 * KIB}, "256 KiB without an operation, 1.00 x batch"),
        ({"like": "", "total_bytes": 16 * 300}, "16 x 300 B without an operation"),
        (
            {"like": "", "total_bytes": 16 * MIB + 16 * KIB * 512},
            "16 x 1.5 MiB without an operation",
        ),
        (
            {"shape": "[64,64]", "dtype": "float32"},
            "16 x 256 KiB of (64, 64) float32 without an operation, each 1.00 x batch",
        ),
    ],
)
def test_an_allocation_without_an_operation_is_its_size_and_nothing_more(changes, words):
    """Not an array of numpy: an iterator's buffers are without one, too."""
    values = {
        "op": "",
        "shape": "",
        "dtype": "",
        "count": 16,
        "total_bytes": 4 * MIB,
        "like": "1.00 x batch",
    }

    assert tensors_in_words(**values | changes) == words


def test_a_range_gives_way_to_what_a_traced_run_saw_and_nothing_else_does():
    """Whatever stands around it."""
    reason = f"refused 8.0 MiB; {range_in_use(2 * MIB, 256 * MIB, 256 * MIB)}: the pool"

    assert "between 2.0 MiB and 256.0 MiB of 256.0 MiB were in use" in reason
    assert with_known_use(reason, 250 * MIB) == (
        "refused 8.0 MiB; 250.0 MiB of 256.0 MiB were in use (by the traced run): the pool"
    )
    assert (
        with_known_use("2.0 MiB of 4.0 MiB were in use", 3 * MIB)
        == "2.0 MiB of 4.0 MiB were in use"
    )
