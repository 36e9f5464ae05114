"""Datasets beside a card: an eager container's batches are gathered there, and its stack never
comes to the host.
"""

import pytest

GROUP_BYTES = 32 * 32 * 4 * 4
STACK_BYTES, BATCH_BYTES = 256 * GROUP_BYTES, 16 * GROUP_BYTES
COORDS_BYTES = 256 * 2 * 4 * 4
SMALL_BYTES = 16 << 10
"""Chosen: coordinates of a batch, numbers of its groups, and TensorFlow's own constants."""


@pytest.fixture(scope="module")
def found(measured):
    # BFC on the host as well, so that its bytes are counted; one thread for operations, which a
    # batch must not wait for.
    return measured("feeding", TF_CPU_ALLOCATOR_USE_BFC="true", TF_NUM_INTEROP_THREADS="1")


def test_an_eager_container_gives_the_same_batches_wherever_its_tensors_lie(found):
    """On the card and on the host: equal bits, order, cardinality and specs, for every way to
    ask.
    """
    assert found["placed"] == ["GPU:0", "CPU:0"]
    assert found["same"] == dict.fromkeys(
        ["in order", "shuffled", "whole batches", "targets", "second of two", "three epochs"], True
    )
    assert found["same as lazy"]


@pytest.mark.parametrize(
    ("dataset", "on_card", "on_host"),
    # Targets are computed on the host: X, X * s, its square, and the ground truth of one of four
    # channels, as it is and centred.
    [("sliced", 1, 1), ("sliced targets", 1.25, 3.5)],
)
def test_an_epoch_of_an_eager_container_needs_a_batch_of_the_card(found, dataset, on_card, on_host):
    """And of the host what a batch takes there, a 16th of the stack: before, the stack was there
    twice.
    """
    made, epoch = found[dataset]["made"], found[dataset]["epoch"]

    assert epoch["devices"] == ["CPU:0"]
    assert made["GPU:0"] == 0
    assert made["CPU:0"] <= SMALL_BYTES
    assert on_card * BATCH_BYTES <= epoch["card"] <= on_card * BATCH_BYTES + SMALL_BYTES
    assert on_host * BATCH_BYTES <= epoch["host"] <= on_host * BATCH_BYTES + SMALL_BYTES
    assert epoch["kept"] == {"GPU:0": 0, "CPU:0": 0}


def test_an_epoch_of_a_lazy_container_puts_nothing_on_the_card(found):
    """Batches of tf.data are on the host, one at a time."""
    epoch = found["streamed"]["epoch"]

    assert epoch["devices"] == ["CPU:0"]
    assert epoch["card"] == 0
    assert BATCH_BYTES <= epoch["host"] <= BATCH_BYTES + SMALL_BYTES


def test_a_traced_loop_reads_a_container_on_the_card(found):
    """Each of two calls sums up the numbers of all 256 groups."""
    assert found["traced"] == [sum(range(256))] * 2


@pytest.mark.parametrize("count", [1, 3])
def test_batches_made_ahead_are_on_the_card(found, count):
    """One at least, and never more than are asked for, beside the one in use and the one on its
    way; none is kept.
    """
    ahead = found["ahead"][str(count)]

    assert (ahead["device"], ahead["batches"]) == ("GPU:0", 16)
    assert BATCH_BYTES <= ahead["peak"] <= (count + 2) * BATCH_BYTES + SMALL_BYTES
    assert ahead["kept"] <= SMALL_BYTES


def test_a_thread_of_tf_data_and_the_loop_beside_it_do_not_mix_up_arguments(found):
    """Single operations of two threads would: they share a rendezvous on a GPU."""
    assert found["beside"] == {"wrong": 0, "steps": 320, "are_all_seen": True}


def test_the_tensors_of_a_container_live_as_long_as_its_dataset_or_an_iterator(found):
    """X and its coordinates, without a garbage collector; the rest of the container is gone at
    once.
    """
    lives = found["lives"]

    assert lives["held"] == [STACK_BYTES, STACK_BYTES + COORDS_BYTES, STACK_BYTES + COORDS_BYTES, 0]
    assert (lives["is_gone"], lives["are_all_seen"]) == (True, True)
