"""Two cards: a container on the second one, and MirroredStrategy's replicas."""

import pytest

GROUP_BYTES = 32 * 32 * 4 * 4
BATCH_BYTES = 16 * GROUP_BYTES
PART_BYTES = BATCH_BYTES // 2
"""What one of two replicas gets of a batch."""
SMALL_BYTES = 16 << 10
"""Chosen: coordinates of a batch, numbers of its groups, and TensorFlow's own constants."""
COUNTS = (256, 512)


@pytest.fixture(scope="module")
def second(measured):
    return measured("second", cards=2)


@pytest.fixture(scope="module")
def epochs(measured):
    """What MirroredStrategy's replicas saw of containers of 256 and of 512 groups."""
    return {count: measured("mirrored", count, cards=2) for count in COUNTS}


def test_a_container_on_the_second_card_is_gathered_there(second):
    """The first card sees nothing of it: not a batch in an epoch, not a group when it is stored."""
    assert second["device"] == "GPU:1"
    assert second["constructed"]["GPU:0"] == 0
    assert second["epoch"]["batches"] == 16
    assert BATCH_BYTES <= second["epoch"]["peak"]["GPU:1"] <= BATCH_BYTES + SMALL_BYTES
    assert second["stored"]["is_equal"]
    assert max(second["epoch"]["peak"]["GPU:0"], second["stored"]["peak"]["GPU:0"]) <= SMALL_BYTES


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("loader", ["lazy", "eager"])
def test_replicas_see_every_group_once_an_epoch(epochs, loader, count):
    """By input_context, each replica's part on its own card."""
    found = epochs[count]

    assert found["replicas"] == 2
    assert [epoch["seen"] for epoch in found[loader]] == [list(range(count))] * 2
    assert all(
        epoch["places"] == [["GPU:0", "GPU:0"], ["GPU:1", "GPU:1"]] for epoch in found[loader]
    )


@pytest.mark.parametrize("card", ["GPU:0", "GPU:1"])
@pytest.mark.parametrize("loader", ["lazy", "eager"])
def test_what_replicas_need_does_not_grow_with_the_groups(epochs, loader, card):
    """Five parts of a batch at most, at 256 groups and at 512: parts in use, made ahead, and for
    the eager one gathered.

    The stack is 32 and 64 parts. Threads decide how many of the parts meet, so two epochs differ by
    some.
    """
    peaks = [epoch["peak"][card] for count in COUNTS for epoch in epochs[count][loader]]
    kept = [epoch["kept"][card] for count in COUNTS for epoch in epochs[count][loader]]

    assert min(peaks) >= PART_BYTES
    assert max(peaks) <= 5 * PART_BYTES + SMALL_BYTES
    assert max(kept) <= SMALL_BYTES


def test_the_eager_stack_is_on_one_card(epochs):
    """X, Y_I, Y_phi and Y of each group on the first, nothing on the second."""
    first, last = (epochs[count]["constructed"] for count in COUNTS)

    assert first["GPU:1"] == last["GPU:1"] == 0
    assert last["GPU:0"] - first["GPU:0"] == pytest.approx(
        (COUNTS[1] - COUNTS[0]) * 5 * GROUP_BYTES, rel=0.01
    )
