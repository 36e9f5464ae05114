"""What a dataset reads: alive wherever TensorFlow can still read it, gone right afterwards."""

import gc
import warnings
import weakref

import numpy as np
import pytest
import tensorflow as tf

from ptycho.feeding.device_memory import keep_alive
from ptycho.feeding.grouping import BatchOrder
from ptycho.feeding.pipeline import slice_batches, stream
from ptycho.feeding.sources import GroupedArray

GROUPS = 20
TOTAL = GROUPS * (GROUPS - 1) // 2


def sources():
    """(dataset of 20 groups whose coordinates are 0 to 19, weak reference to what it reads)."""
    images, coords = np.ones((GROUPS, 8, 8, 1), np.float32), np.zeros((GROUPS, 1, 2, 1), np.float32)
    coords[:, 0, 0, 0] = np.arange(GROUPS)
    return GroupedArray(images), coords


def order(*, shuffle):
    return BatchOrder(GROUPS, 8, shuffle=shuffle, seed=0, drop_remainder=False)


def streamed(*, shuffle=True):
    source, coords = sources()
    return stream(source, coords, order=order(shuffle=shuffle), prefetch=1), weakref.ref(source)


def sliced(*, shuffle=True):
    _, coords = sources()
    batches = order(shuffle=shuffle)
    dataset = slice_batches(
        tf.ones((GROUPS, 8, 8, 1)), tf.convert_to_tensor(coords), order=batches, prefetch=1
    )
    return dataset, weakref.ref(batches)


FEEDS = pytest.mark.parametrize("feed", [streamed, sliced])


def total(dataset):
    """Sum of the group numbers."""
    seen = tf.zeros(())
    for _, coords in dataset:
        seen += tf.reduce_sum(coords)
    return seen


def traced_total(dataset):
    """The same in a traced function, as a loop of the graph.

    Converted here, where a failure raises: tf.function then goes on with the Python function, whose
    loop has no end.
    """
    return tf.autograph.to_graph(total)(dataset)


@FEEDS
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_dataset_made_in_a_traced_function_lives_as_long_as_the_function(feed, shuffle):
    watched = []

    def once():
        dataset, reference = feed(shuffle=shuffle)
        watched.append(reference)
        return traced_total(dataset)

    function = tf.function(once)
    sums = []
    for _ in range(3):
        sums.append(float(function()))
        gc.collect()
    is_alive = watched[0]() is not None
    del function
    gc.collect()

    assert sums == [TOTAL] * 3
    assert len(watched) == 1
    assert is_alive
    assert watched[0]() is None


@FEEDS
@pytest.mark.parametrize("combine", ["flat_map", "interleave"])
def test_a_dataset_made_inside_another_lives_as_long_as_that(feed, combine):
    watched = []

    def again(_):
        dataset, reference = feed()
        watched.append(reference)
        return dataset

    dataset = getattr(tf.data.Dataset.range(3), combine)(again)
    gc.collect()
    sums = [float(total(dataset)) for _ in range(2)]
    del dataset
    gc.collect()

    assert sums == [3 * TOTAL] * 2
    assert all(reference() is None for reference in watched)


@FEEDS
def test_a_dataset_made_inside_another_inside_a_traced_function_can_be_read(feed):
    function = tf.function(
        lambda: traced_total(tf.data.Dataset.range(2).flat_map(lambda _: feed()[0].take(9)))
    )
    sums = []
    for _ in range(2):
        sums.append(float(function()))
        gc.collect()

    assert sums == [2 * TOTAL] * 2


@FEEDS
@pytest.mark.parametrize(
    "derive", [lambda dataset: dataset, lambda dataset: dataset.take(9).prefetch(1)]
)
def test_a_concrete_function_keeps_the_dataset_it_closed_over(feed, derive):
    def closed_over(dataset):
        return tf.function(lambda: traced_total(dataset)).get_concrete_function()

    dataset, watched = feed()
    concrete = closed_over(derive(dataset))
    del dataset
    gc.collect()
    result = float(concrete())
    del concrete
    gc.collect()

    assert result == TOTAL
    assert watched() is None


@FEEDS
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_dropped_dataset_needs_no_garbage_collector(feed, shuffle):
    """Buffers of many epochs, each with a dataset of its own, do not pile up until the next
    collection.
    """
    gc.collect()
    gc.disable()
    try:
        dataset, watched = feed(shuffle=shuffle)
        result = float(total(dataset))
        is_alive = watched() is not None
        del dataset
        is_gone = watched() is None
    finally:
        gc.enable()

    assert result == TOTAL
    assert (is_alive, is_gone) == (True, True)


@FEEDS
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_read_where_every_warning_is_an_error(feed, shuffle):
    """Python 3.13 warns of how autograph converts a function; ours need no conversion."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset, watched = feed(shuffle=shuffle)
        result = float(total(dataset))
    del dataset
    gc.collect()

    assert result == TOTAL
    assert watched() is None


def test_a_tie_lasts_as_long_as_its_tensor():
    class Thing:
        pass

    thing = Thing()
    watched = weakref.ref(thing)
    tensor = keep_alive(thing)
    del thing
    is_alive = watched() is not None
    value = int(tensor)
    del tensor

    assert (value, is_alive) == (0, True)
    assert watched() is None
