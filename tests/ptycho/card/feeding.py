"""A child: datasets of both containers, what they put on the card and what on the host."""

import functools
import gc
import weakref

import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from tests.ptycho.card.meters import Growth, arrays, cap_cards, current, device_of, report

GROUPS, BATCH = 256, 16
SETTINGS = {
    "in order": {},
    "shuffled": {"shuffle": True, "seed": 3},
    "whole batches": {"batch_size": 48, "drop_remainder": True, "shuffle": True, "seed": 3},
    "targets": {"targets": True, "shuffle": True, "seed": 3},
    "second of two": {
        "shuffle": True,
        "seed": 3,
        "input_context": tf.distribute.InputContext(2, 1, 2),
    },
    "three epochs": {"repeat": 3, "shuffle": True, "seed": 3},
}


def values(dataset):
    return [part.numpy().tobytes() for batch in dataset for part in tf.nest.flatten(batch)]


def described(dataset):
    return str(dataset.element_spec), int(dataset.cardinality())


def same_as_on_the_host(on_card, on_host, **settings):
    settings = {"batch_size": BATCH, "prefetch": 0, **settings}
    one, other = on_card.as_dataset(**settings), on_host.as_dataset(**settings)
    return values(one) == values(other) and described(one) == described(other)


def epoch(dataset):
    """Bytes of an epoch on the card and on the host; each batch is let go before the next one is
    made.
    """
    with Growth("GPU:0", "CPU:0") as growth:
        for batch in dataset:
            devices = {device_of(part) for part in tf.nest.flatten(batch)}
            del batch
    return {
        "devices": sorted(devices),
        "card": growth.peak["GPU:0"],
        "host": growth.peak["CPU:0"],
        "kept": growth.kept,
    }


def made_and_consumed(make):
    """As ``epoch``, of the making of the dataset, too."""
    with Growth("GPU:0", "CPU:0") as growth:
        dataset = make()
    return {"made": growth.peak, "epoch": epoch(dataset)}


def traced_over(container):
    """The sum of all group numbers, by a loop in a graph."""

    @tf.function
    def total():
        seen = tf.zeros(())
        for images, _ in container.as_dataset(BATCH, shuffle=True, seed=3):
            seen += tf.reduce_sum(images[:, 0, 0, 0])
        return seen

    return [float(total()) for _ in range(2)]


def beside(container):
    """A thread gathers 320 batches ahead while this one slices and copies others: the numbers of
    groups that both saw.
    """
    stack = container.X
    wrong = 0
    seen = set()
    dataset = container.as_dataset(BATCH, shuffle=True, seed=3, prefetch=4, repeat=20)
    for step, (images, _) in enumerate(dataset):
        first = step % (GROUPS - BATCH)
        numbers = stack[first : first + BATCH, 0, 0, 0].numpy()
        with tf.device("CPU:0"):
            copied = tf.identity(tf.gather(stack, [first, first + 1], axis=0)[:, 0, 0, 0]).numpy()
        wrong += list(numbers) != list(range(first, first + BATCH)) or list(copied) != [
            first,
            first + 1,
        ]
        seen |= {int(number) for number in images[:, 0, 0, 0].numpy()}
    return {"wrong": wrong, "steps": step + 1, "are_all_seen": seen == set(range(GROUPS))}


def lives():
    """Bytes on the card while a dataset, its iterator and nobody holds a container that has been
    let go.
    """
    gc.collect()
    gc.disable()
    start = current()
    container = PtychoDataContainer(*arrays(GROUPS, 32, 4))
    watched = weakref.ref(container)
    held = [container.X.shape.num_elements() * 4]
    dataset = container.as_dataset(BATCH, shuffle=True, seed=3, prefetch=0)
    del container
    held.append(current() - start)
    iterator = iter(dataset)
    del dataset
    held.append(current() - start)
    numbers = sorted(int(number) for images, _ in iterator for number in images[:, 0, 0, 0].numpy())
    del iterator
    held.append(current() - start)
    gc.enable()
    return {
        "held": held,
        "is_gone": watched() is None,
        "are_all_seen": numbers == list(range(GROUPS)),
    }


def ahead(container, count):
    """Bytes on the card with ``count`` batches made ahead there, and where they lie."""
    ahead = tf.data.experimental.prefetch_to_device("/GPU:0", buffer_size=count)
    with Growth() as growth:
        batches = iter(container.as_dataset(BATCH, prefetch=0).apply(ahead))
        images, _ = next(batches)
        where = device_of(images)
        del images
        seen = 1 + sum(1 for _ in batches)
        del batches
        gc.collect()
    return {
        "device": where,
        "batches": seen,
        "peak": growth.peak["GPU:0"],
        "kept": growth.kept["GPU:0"],
    }


if __name__ == "__main__":
    cap_cards()
    given = arrays(GROUPS, 32, 4)
    on_card = PtychoDataContainer(*given)
    with tf.device("CPU:0"):
        on_host = PtychoDataContainer(*given)
    lazy = LazyPtychoDataContainer(*given)
    dataset = functools.partial(on_card.as_dataset, BATCH, shuffle=True, seed=3, prefetch=0)
    values(dataset())
    result = {
        "placed": [device_of(on_card.X), device_of(on_host.X)],
        "same": {
            name: same_as_on_the_host(on_card, on_host, **settings)
            for name, settings in SETTINGS.items()
        },
        "same as lazy": same_as_on_the_host(on_card, lazy, shuffle=True, seed=3, targets=True),
        "sliced": made_and_consumed(dataset),
        "sliced targets": made_and_consumed(functools.partial(dataset, targets=True)),
        "streamed": made_and_consumed(functools.partial(lazy.as_dataset, BATCH, prefetch=0)),
        "traced": traced_over(on_card),
        "ahead": {count: ahead(lazy, count) for count in (1, 3)},
        "beside": beside(on_card),
        "lives": lives(),
    }
    report(result)
