"""A child: arrays onto the card, and batches without tf.data."""

import numpy as np
import tensorflow as tf

from ptycho.feeding.device_memory import aligned_empty, copy_to_device, empty_for_device, on_device
from ptycho.loader import LazyPtychoDataContainer
from tests.ptycho.card.meters import Growth, arrays, cap_cards, device_of, report

MIB = 1 << 20


def placing(array, dtype=None, device="GPU:0"):
    with tf.device(device), Growth() as growth:
        tensor = copy_to_device(array, dtype)
    expected = array if dtype is None else array.astype(dtype)
    return {
        "device": device_of(tensor),
        "kept_bytes": growth.kept["GPU:0"],
        "peak_bytes": growth.peak["GPU:0"],
        "is_equal": bool((tensor.numpy() == expected).all() and tensor.dtype == expected.dtype),
    }


def aligned(array):
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def filled_on_the_host():
    with Growth() as making:
        tensor, memory = empty_for_device((256, 1024), np.float32)
        memory[...] = 3
    with Growth() as taking:
        there = on_device(tensor)
    with Growth() as again:
        on_device(there)
    return {
        "devices": [device_of(tensor), device_of(there)],
        "kept_bytes": [making.kept["GPU:0"], taking.kept["GPU:0"], again.kept["GPU:0"]],
        "is_equal": bool((there.numpy() == 3).all()),
    }


def batches():
    container = LazyPtychoDataContainer(*arrays(64, 32, 4))
    streamed = list(container.as_dataset(16, shuffle=True, seed=3))
    numbers, places = [], []
    with Growth() as growth:
        for images, coords in container.batches(16, shuffle=True, seed=3):
            places += [device_of(images), device_of(coords)]
            numbers.append([images.numpy().tobytes(), coords.numpy().tobytes()])
            del images, coords
    return {
        "devices": sorted(set(places)),
        "peak_bytes": growth.peak["GPU:0"],
        "kept_bytes": growth.kept["GPU:0"],
        "is_equal": numbers == [[part.numpy().tobytes() for part in batch] for batch in streamed],
    }


if __name__ == "__main__":
    cap_cards()
    values = np.random.default_rng(0).random((257, 1024), np.float32)
    report(
        {
            "aligned": placing(aligned(values)),
            "not aligned": placing(aligned(values)[1:]),
            "turned": placing(values.T),
            "as float32": placing(values.astype(np.float64), np.float32),
            "on the host": placing(values, device="CPU:0"),
            "filled": filled_on_the_host(),
            "batches": batches(),
        }
    )
