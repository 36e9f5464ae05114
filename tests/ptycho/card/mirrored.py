"""A child on two cards: ``python -m tests.ptycho.card.mirrored GROUPS``; a loader's share of
MirroredStrategy's training.
"""

import sys

import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from tests.ptycho.card.meters import Growth, arrays, cap_cards, device_of, report

BATCH = 16
CARDS = ("GPU:0", "GPU:1")


def parts(strategy, batch):
    return strategy.experimental_local_results(batch)


def epoch(strategy, dataset):
    """Group numbers that the replicas saw, on which cards, and each card's bytes."""
    seen, places = [], set()
    with Growth(*CARDS) as growth:
        for images, coords in dataset:
            places |= {
                (device_of(image), device_of(place))
                for image, place in zip(
                    parts(strategy, images), parts(strategy, coords), strict=True
                )
            }
            seen += [
                int(number)
                for part in parts(strategy, images)
                for number in part[:, 0, 0, 0].numpy()
            ]
            del images, coords
    return {
        "seen": sorted(seen),
        "places": sorted(places),
        "peak": growth.peak,
        "kept": growth.kept,
    }


def fed(strategy, container):
    def make(context):
        size = context.get_per_replica_batch_size(BATCH)
        return container.as_dataset(
            size, shuffle=True, seed=0, prefetch=0, drop_remainder=True, input_context=context
        )

    dataset = strategy.distribute_datasets_from_function(make)
    return [epoch(strategy, dataset) for _ in range(2)]


if __name__ == "__main__":
    cap_cards()
    strategy = tf.distribute.MirroredStrategy(
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce()
    )
    given = arrays(int(sys.argv[1]), 32, 4)
    result = {
        "replicas": strategy.num_replicas_in_sync,
        "lazy": fed(strategy, LazyPtychoDataContainer(*given)),
    }
    with Growth(*CARDS) as constructed:
        eager = PtychoDataContainer(*given)
    result |= {"eager": fed(strategy, eager), "constructed": constructed.kept}
    report(result)
