"""A child on two cards: an eager container on the second one, and what the first one sees of it."""

import tempfile
from pathlib import Path

import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from tests.ptycho.card.meters import Growth, arrays, cap_cards, device_of, report

CARDS = ("GPU:0", "GPU:1")


def epoch(container):
    with Growth(*CARDS) as growth:
        count = sum(1 for _ in container.as_dataset(16, shuffle=True, seed=0, prefetch=0))
    return {"batches": count, "peak": growth.peak}


def stored(container):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stored.npz"
        with Growth(*CARDS) as growth:
            container.to_npz(path)
        again = LazyPtychoDataContainer.from_npz(path)
        is_equal = all(
            (images.numpy() == container.X.numpy()[start : start + 16]).all()
            for start, (images, _) in zip(
                range(0, len(again), 16), again.as_dataset(16), strict=True
            )
        )
    return {"peak": growth.peak, "is_equal": bool(is_equal)}


if __name__ == "__main__":
    cap_cards()
    with tf.device("GPU:1"), Growth(*CARDS) as constructed:
        container = PtychoDataContainer(*arrays(256, 32, 4))
    result = {"device": device_of(container.X), "constructed": constructed.kept}
    report({**result, "epoch": epoch(container), "stored": stored(container)})
