"""Sentences by the edges of phases, which are amounts: true whichever blocks they are of, and of
all steps of a leak.
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judge.rules.fields import FIELDS, at_edges, beside, leak_of_every_step
from harness.judge.rules.findings import Edges
from harness.words import MIB, format_bytes

CLAIMS = ("there already", "given back", "still held", "made in the phase", "were there")
"""Which memory it is, amounts do not tell."""
EPOCHS = [("epoch_0", "epoch_1"), ("epoch_1", "epoch_2")]
KEPT = (
    "find what epoch_1 and epoch_2 keep (a list, a cache, a function traced anew); if it goes "
    "on so, every further one adds as much"
)
BETWEEN = "find what is made between epoch_0 and epoch_2, outside of them, and kept"


@pytest.mark.parametrize(
    ("epochs", "where", "to_do"),
    [
        (
            ((0, 5, 5), (5, 10, 10), (10, 15, 15)),
            "each of epoch_1 and epoch_2 keeps about as much or more",
            KEPT,
        ),
        (
            ((0, 5, 5), (5, 15, 15), (15, 20, 20)),
            "each of epoch_1 and epoch_2 keeps about as much or more",
            KEPT,
        ),
        (
            ((0, 5, 0), (4, 5, 4), (8, 9, 8)),
            "as much more was in use already when each of epoch_1 and epoch_2 began",
            BETWEEN,
        ),
        (
            ((0, 5, 5), (7, 10, 10), (12, 15, 15)),
            "epoch_1 and epoch_2 keep 6.0 MiB in all, and 4.0 MiB more come between the phases",
            "find what epoch_1 and epoch_2 keep, and what is made between",
        ),
        (
            ((0, 50, 50), (53, 73, 73), (70, 100, 100)),
            "epoch_1 and epoch_2 keep 50.0 MiB in all",
            KEPT,
        ),
    ],
)
def test_a_leak_of_every_step_is_told_of_all_the_steps(epochs, where, to_do):
    """Not of the first and the last phase, between which the others have done as much. In MiB."""
    each = [Edges(start=start * MIB, peak=peak * MIB, end=end * MIB) for start, peak, end in epochs]
    words = leak_of_every_step(EPOCHS, list(itertools.pairwise(each)))

    assert words.where == where
    assert words.to_do.startswith(to_do)


# --- amounts and the blocks behind them ---


@given(
    st.lists(st.integers(0, 9), max_size=4),
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=12),
)
def test_no_word_is_false_whichever_blocks_the_amounts_are(before, steps):
    """Blocks come and go at random; every amount that is told is one of what is alive at that
    edge.
    """
    alive = {("before", number): size * MIB for number, size in enumerate(before)}
    totals = [sum(alive.values())]
    for number, (makes, value) in enumerate(steps):
        if makes:
            alive["phase", number] = value * MIB
        elif alive:
            del alive[sorted(alive)[value % len(alive)]]
        totals.append(sum(alive.values()))
    edges = Edges(start=totals[0], peak=max(totals), end=totals[-1])
    start, end = format_bytes(edges.start), format_bytes(edges.end)
    more = edges.end - edges.start
    than = (
        "as much as"
        if not more
        else f"{format_bytes(abs(more))} {'more' if more > 0 else 'less'} than"
    )
    told = {field: (beside(field, edges), at_edges(field, edges)) for field in FIELDS}

    assert not [claim for claim in CLAIMS for words in told.values() if claim in "".join(words)]
    assert told["start"] in (
        ("", ""),
        (f"it ends with {end}", f" when the phase begins, and {end} when it ends"),
    )
    assert told["end"] in (
        ("", ""),
        (f"{than} it began with", f" when the phase ends, and {start} when it begins"),
    )
    assert told["growth"] in (
        ("", ""),
        (
            f"it ends with {than} it began with",
            f" at its peak; when the phase ends it is {than} when it began",
        ),
    )
    assert told["peak"] in (
        ("", ""),
        (
            f"it begins with {start} and ends with {end}",
            f" at its peak, {start} when it begins and {end} when it ends",
        ),
    )
    if edges.start > 0:
        assert told["net_start"][0] == f"over the same, it ends with {end}"
    # what "keeps" says: of what is alive at the end, at least so much came in the phase
    if more > 0:
        assert sum(size for (when, _), size in alive.items() if when == "phase") >= more
