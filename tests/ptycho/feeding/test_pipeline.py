"""Batches: every group once, in a reproducible order, never overwritten, nothing kept alive."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from ptycho.errors import ContainerError, ScanFileError
from ptycho.feeding.device_memory import copy_to_device
from ptycho.feeding.grouping import BatchOrder
from ptycho.feeding.pipeline import batches, slice_batches, stream
from ptycho.feeding.sources import GroupedArray, GroupSource

STACK = np.random.default_rng(0).random((50, 8, 8, 4), np.float32)
COORDS = np.arange(50 * 8, dtype=np.float32).reshape(50, 1, 2, 4)


def order(batch_size=8, *, shuffle=False, seed=0, drop_remainder=False):
    return BatchOrder(50, batch_size, shuffle=shuffle, seed=seed, drop_remainder=drop_remainder)


def streamed(prefetch=1, repeat=False, **settings):
    return stream(
        GroupedArray(STACK), COORDS, order=order(**settings), prefetch=prefetch, repeat=repeat
    )


def sliced(prefetch=1, repeat=False, **settings):
    return slice_batches(
        copy_to_device(STACK),
        copy_to_device(COORDS),
        order=order(**settings),
        prefetch=prefetch,
        repeat=repeat,
    )


def groups_of(dataset):
    """The group numbers in the order they came, read from the coordinates; the images must be
    theirs.
    """
    seen = []
    for images, coords in dataset:
        numbers = (coords.numpy()[:, 0, 0, 0] / 8).astype(int)
        np.testing.assert_array_equal(STACK[numbers], images.numpy())
        np.testing.assert_array_equal(COORDS[numbers], coords.numpy())
        seen.extend(numbers.tolist())
    return seen


FEEDS = pytest.mark.parametrize("feed", [streamed, sliced])


@FEEDS
@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 49, 50, 51])
def test_every_group_comes_once_in_order(feed, batch_size, prefetch):
    assert list(range(50)) == groups_of(feed(batch_size=batch_size, prefetch=prefetch))


@FEEDS
def test_shuffled_epochs_differ_and_repeat_with_the_seed(feed):
    """Each epoch is a new permutation; the same seed gives the same sequence of epochs."""
    dataset = feed(shuffle=True, seed=3)
    epochs = [groups_of(dataset) for _ in range(3)]

    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs == [groups_of(other) for other in [feed(shuffle=True, seed=3)] for _ in range(3)]
    assert epochs[0] != groups_of(feed(shuffle=True, seed=4))


def test_both_feeds_shuffle_alike():
    assert groups_of(streamed(shuffle=True, seed=3)) == groups_of(sliced(shuffle=True, seed=3))


def test_without_a_seed_every_dataset_has_its_own_order():
    assert groups_of(streamed(shuffle=True, seed=None)) != groups_of(
        streamed(shuffle=True, seed=None)
    )


@FEEDS
def test_repeat_reshuffles(feed):
    """Asked for beforehand or of the dataset: the same epochs, each in an order of its own."""
    seen = groups_of(feed(shuffle=True).repeat(2))

    assert sorted(seen[:50]) == sorted(seen[50:]) == list(range(50))
    assert seen[:50] != seen[50:]
    assert seen == groups_of(feed(shuffle=True, repeat=2))


@FEEDS
@pytest.mark.parametrize(
    ("repeat", "count"),
    [(False, 7), (1, 7), (3, 21), (True, tf.data.INFINITE_CARDINALITY)],
    ids=["once", "1", "3", "endless"],
)
def test_the_count_of_repeated_epochs_is_known(feed, repeat, count):
    dataset = feed(repeat=repeat, shuffle=True)

    assert count == int(dataset.cardinality())
    assert (min(30, count) if count > 0 else 30) == sum(1 for _ in dataset.take(30))


@FEEDS
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("batch_size", "drop_remainder", "count", "static"),
    [(8, False, 7, None), (8, True, 6, 8), (10, False, 5, 10), (50, True, 1, 50)],
)
def test_shapes_and_count_are_known_beforehand(
    feed, shuffle, batch_size, drop_remainder, count, static
):
    dataset = feed(batch_size=batch_size, drop_remainder=drop_remainder, shuffle=shuffle)

    assert count == int(dataset.cardinality())
    assert [(static, 8, 8, 4), (static, 1, 2, 4)] == [
        tuple(spec.shape) for spec in dataset.element_spec
    ]
    assert count == sum(1 for _ in dataset)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_that_are_kept_are_not_overwritten(prefetch):
    """Memory is used again only when nobody holds the tensors in it."""
    kept = list(streamed(batch_size=5, prefetch=prefetch))

    assert list(range(50)) == groups_of(kept)


@pytest.mark.parametrize("prefetch", [0, 1])
def test_iterators_side_by_side_do_not_mix(prefetch):
    """Twelve iterators of one dataset, more than there are buffers, each pulled in turn."""
    iterators = [iter(streamed(batch_size=5, prefetch=prefetch)) for _ in range(6)]
    dataset = streamed(batch_size=5, prefetch=prefetch)
    iterators += [iter(dataset) for _ in range(12)]
    collected = [[] for _ in iterators]
    for _ in range(10):
        for taken_batches, iterator in zip(collected, iterators, strict=True):
            taken_batches.append(next(iterator))

    assert all(list(range(50)) == groups_of(taken_batches) for taken_batches in collected)


def test_parallel_calls_do_not_overwrite_each_other():
    """Four threads of TensorFlow read one dataset at the same time, 20 times over."""
    dataset = streamed(batch_size=5, prefetch=0)

    def again(_):
        return dataset

    many = tf.data.Dataset.range(20).interleave(again, cycle_length=4, num_parallel_calls=4)
    seen = groups_of(many)

    np.testing.assert_array_equal([20] * 50, np.bincount(seen))


def doubled(images, coords):
    return images * 2, coords


def as_it_is(dataset):
    return dataset


def taken(dataset):
    return dataset.take(3)


def mapped(dataset):
    return dataset.map(doubled).repeat(2)


@pytest.mark.parametrize("derive", [as_it_is, taken, mapped])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_dropped_dataset_gives_its_frames_back(derive, shuffle):
    """TensorFlow keeps callables of numpy_function for good; ours must not keep the frames with
    them.
    """
    source = GroupedArray(STACK)
    watched = weakref.ref(source)
    dataset = derive(stream(source, COORDS, order=order(shuffle=shuffle), prefetch=1))
    del source
    count = sum(1 for _ in dataset)
    gc.collect()
    alive = watched() is not None
    del dataset
    gc.collect()

    assert count > 0
    assert alive
    assert watched() is None


def test_an_iterator_alone_keeps_what_it_reads():
    iterator = iter(streamed(batch_size=5).take(9).prefetch(1))
    gc.collect()

    assert list(range(45)) == groups_of(iterator)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -3}, "batch_size is -3"),
        ({"batch_size": 51, "drop_remainder": True}, "leaves nothing of 50 groups"),
        ({"seed": -1, "shuffle": True}, "seed is -1"),
        ({"prefetch": -1}, "prefetch is -1"),
        ({"repeat": 0}, "repeat is 0"),
        ({"repeat": 1.5}, "repeat is 1.5"),
        ({"repeat": 2**63 // 7 + 1}, f"it must be at most {(2**63 - 1) // 7}"),
        ({"prefetch": 2**63}, f"prefetch is {2**63}; it must be at most {2**63 - 1}"),
        ({"drop_remainder": "no"}, "drop_remainder is 'no'; True or False"),
        ({"drop_remainder": np.ones(2)}, "drop_remainder is array"),
        ({"shuffle": np.ones(2)}, "shuffle is array"),
        ({"shuffle": tf.constant(1)}, "shuffle is <tf.Tensor"),
    ],
)
@FEEDS
def test_sizes_that_cannot_be_met_are_refused(feed, settings, words):
    with pytest.raises(ContainerError, match=words):
        feed(**settings)


@FEEDS
def test_a_batch_may_be_larger_than_any_number_of_tensorflow(feed):
    assert list(range(50)) == groups_of(feed(batch_size=2**70))


@FEEDS
@pytest.mark.parametrize("repeat", [np.int8(100), np.uint8(100), np.int64(100)])
def test_the_count_does_not_overflow_in_the_type_of_repeat(feed, repeat):
    """7 batches in 100 epochs, of which an int8 would make -68."""
    dataset = feed(repeat=repeat)

    assert int(dataset.cardinality()) == 700
    assert sum(1 for _ in dataset) == 700


class TestBatchesWithoutDatasets:
    def seen(self, **settings):
        epoch = settings.pop("epoch", 0)
        return groups_of(batches(GroupedArray(STACK), COORDS, order=order(**settings), epoch=epoch))

    @pytest.mark.parametrize("batch_size", [1, 7, 50, 51])
    def test_every_group_comes_once_in_order(self, batch_size):
        assert list(range(50)) == self.seen(batch_size=batch_size)

    def test_the_order_is_that_of_the_dataset(self):
        dataset = streamed(shuffle=True, seed=3)

        assert [groups_of(dataset) for _ in range(2)] == [
            self.seen(shuffle=True, seed=3, epoch=epoch) for epoch in range(2)
        ]

    def test_batches_that_are_kept_are_not_overwritten(self):
        kept = list(batches(GroupedArray(STACK), COORDS, order=order(batch_size=5), epoch=0))

        assert list(range(50)) == groups_of(kept)

    def test_a_batch_is_alone_in_memory(self):
        """Once the consumer lets go of a batch nobody else holds it: the tensor is gone before the
        next is asked for.
        """
        iterator = batches(GroupedArray(STACK), COORDS, order=order(batch_size=5), epoch=0)
        images, _ = next(iterator)
        watched = weakref.ref(images)
        del images

        assert watched() is None

    def test_the_last_batch_is_as_long_as_it_is(self):
        sizes = [
            int(images.shape[0])
            for images, _ in batches(
                GroupedArray(STACK), COORDS, order=order(batch_size=20), epoch=0
            )
        ]

        assert sizes == [20, 20, 10]


class _Broken(GroupSource):
    """Fails in the last group, which is another thread's where a batch is shared out."""

    shape = (64, 64, 64, 4)

    def read(self, groups, out):
        if 63 in groups:
            raise ScanFileError("frame 63 is gone")
        out[...] = 0


def test_what_goes_wrong_in_any_thread_comes_out():
    coords = np.zeros((64, 1, 2, 4), np.float32)
    dataset = stream(
        _Broken(),
        coords,
        order=BatchOrder(64, 64, shuffle=False, seed=0, drop_remainder=False),
        prefetch=1,
    )

    with pytest.raises(tf.errors.OpError, match="frame 63 is gone"):
        list(dataset)


def test_a_shared_out_batch_is_the_same():
    """Batches of 4 MiB, gathered by several threads, hold what one thread reads."""
    stack = np.random.default_rng(0).random((130, 64, 64, 4), np.float32)
    coords = np.zeros((130, 1, 2, 4), np.float32)
    batches_of = stream(
        GroupedArray(stack),
        coords,
        order=BatchOrder(130, 64, shuffle=False, seed=0, drop_remainder=False),
        prefetch=1,
    )
    found = np.concatenate([images.numpy() for images, _ in batches_of])

    np.testing.assert_array_equal(stack, found)
