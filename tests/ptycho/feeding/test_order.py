"""The order of groups: every group once, reproducible, shared out over workers, in runs that a disk
can follow.
"""

import numpy as np
import pytest

from ptycho.errors import ContainerError
from ptycho.feeding.grouping import BatchOrder, Shard

GROUPS = 1000
ALONE = Shard()


def order(*, shuffle=False, seed=0, shard=ALONE, batch_size=64, drop_remainder=False, **settings):
    return BatchOrder(
        GROUPS,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_remainder=drop_remainder,
        shard=shard,
        **settings,
    )


def epoch_of(batches, epoch=0):
    return np.concatenate([batches.batch(epoch, step) for step in range(batches.batch_count)])


@pytest.mark.parametrize("shuffle", [False, True, "chunks"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
def test_workers_together_see_every_group_once(shuffle, count):
    """Whatever the order and the number of workers, also where they cannot share evenly, and in
    every epoch.
    """
    orders = [
        order(shuffle=shuffle, shard=Shard(index, count), group_bytes=1 << 17)
        for index in range(count)
    ]
    for epoch in range(2):
        seen = np.concatenate([epoch_of(part, epoch) for part in orders])

        np.testing.assert_array_equal(np.arange(GROUPS), np.sort(seen))
    sizes = {part.group_count for part in orders}
    assert max(sizes) - min(sizes) <= 1


def test_workers_cut_one_common_order():
    """Interleaved, the parts are the order of a single worker: the number of workers does not
    change the epoch.
    """
    whole = epoch_of(order(shuffle=True, seed=5))
    parts = [epoch_of(order(shuffle=True, seed=5, shard=Shard(index, 4))) for index in range(4)]

    np.testing.assert_array_equal(whole, np.stack(parts, axis=1).ravel())


def test_a_shuffled_share_needs_a_common_seed():
    order(shuffle=True, seed=None)
    with pytest.raises(ContainerError, match="2 input pipelines needs a seed"):
        order(shuffle=True, seed=None, shard=Shard(0, 2))


def test_more_workers_than_groups_are_refused():
    order(shard=Shard(999, 1000))
    with pytest.raises(
        ContainerError, match="input pipeline 1000 of 1001 gets none of 1000 groups"
    ):
        order(shard=Shard(1000, 1001))


@pytest.mark.parametrize("given", [3, "worker", object()])
def test_an_input_context_that_is_none_is_refused(given):
    with pytest.raises(
        ContainerError, match=r"input_context is .*; a tf\.distribute\.InputContext is needed"
    ):
        Shard.of(given)


@pytest.mark.parametrize("shuffle", ["yes", 2, None])
def test_other_ways_of_shuffling_are_refused(shuffle):
    with pytest.raises(ContainerError, match='it is False, True or "chunks"'):
        order(shuffle=shuffle)


class TestChunks:
    GROUP_BYTES = 1 << 18  # 16 groups in a chunk of 4 MiB, 256 in a pool of 16 chunks

    def orders(self, places, epochs=3):
        batches = order(shuffle="chunks", group_bytes=self.GROUP_BYTES, places=lambda: places)
        return [epoch_of(batches, epoch) for epoch in range(epochs)]

    def test_epochs_differ_and_repeat(self):
        places = np.random.default_rng(0).permutation(GROUPS)
        first, again = self.orders(places), self.orders(places)

        assert all((a == b).all() for a, b in zip(first, again, strict=True))
        assert all((first[0] != other).any() for other in first[1:])

    def test_a_pool_reads_few_runs_of_the_file(self):
        """256 groups in a row lie in at most 17 runs of the file (16 chunks, one of them cut by the
        turn), not in 256.
        """
        places = np.random.default_rng(0).permutation(GROUPS)
        pool = np.sort(places[self.orders(places, 1)[0][:256]])

        assert 1 <= np.count_nonzero(np.diff(pool) != 1) + 1 <= 17

    def test_within_a_pool_any_group_may_come_first(self):
        """The first group of an epoch is not the first of its chunk, and neighbours in the file are
        not neighbours here.
        """
        places = np.arange(GROUPS)
        drawn = self.orders(places, 20)
        offsets = {int(epoch[0]) % 16 for epoch in drawn}
        adjacent = np.mean([np.mean(np.abs(np.diff(epoch)) == 1) for epoch in drawn])

        assert len(offsets) > 5
        assert adjacent < 0.05
