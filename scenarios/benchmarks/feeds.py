"""Warm feeds of the simulated scan beside their alternatives: groups per second, and what they keep
on the device.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho.feeding.device_memory import empty_on_host
from ptycho.feeding.grouping import BatchOrder
from ptycho.feeding.pipeline import stream
from ptycho.feeding.sources import GroupSource, Images, Indices, read_all
from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan
from scenarios.benchmarks.timing import in_turns, per_second, speed_ratio

IMAGE_COUNT = 20_480
"""Groups of the in-memory rival: 1.25 GiB of X, five times the frames they are made of."""
GENERATOR_BATCHES = 100
"""A slow contender is asked for so many batches only."""


def main() -> None:
    """Print the figures of both batch sizes as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    options = parser.parse_args()
    scan = Scan.open(options.scan, cache_dir=options.cache_dir)
    lazy = LazyPtychoDataContainer.from_scan(scan, image_count=IMAGE_COUNT, gridsize=2)
    figures: dict[str, float] = {}
    tables: dict[str, dict[str, float]] = {}
    # with prefetching: one batch more
    lazy_bytes = peak_bytes(lazy.as_dataset(64, shuffle=True, seed=0))
    before = current_bytes()
    # Written where the slices are taken from: a second copy of it beside would be more than a small
    # machine has.
    everything, memory = empty_on_host(lazy_images(lazy).shape, np.float32)
    read_all(lazy_images(lazy), memory)
    del memory
    # At its best: tf.data's default optimisations would copy the whole tensor once.
    optimizations = tf.data.Options()
    optimizations.experimental_optimization.apply_default_optimizations = False
    slices = tf.data.Dataset.from_tensor_slices((everything, lazy.coords)).with_options(
        optimizations
    )
    figures["slices_memory"] = lazy_bytes / (current_bytes() - before)
    for batch_size in (64, 16):
        seconds = in_turns(contenders(scan, lazy, slices, batch_size), options.repeats)
        tables[f"batch {batch_size}"] = per_second(seconds)
        figures[f"feed_{batch_size}"] = speed_ratio(seconds, "tf.data feed", "numpy gather")
        figures[f"generator_{batch_size}"] = speed_ratio(seconds, "tf.data feed", "from_generator")
        figures[f"slices_{batch_size}"] = speed_ratio(seconds, "tf.data feed", "from_tensor_slices")
        figures[f"batches_{batch_size}"] = speed_ratio(seconds, "batches", "numpy gather")
    seconds = in_turns(parts(lazy), options.repeats)
    tables["what a batch of 64 is made of, batches/s"] = {
        name: speed / 64 for name, speed in per_second(seconds).items()
    }
    print(json.dumps({"figures": figures, "tables": tables}))  # noqa: T201 - the parent reads it


def contenders(
    scan: Scan, lazy: LazyPtychoDataContainer, slices: tf.data.Dataset, batch_size: int
) -> dict[str, Any]:
    """One epoch each of the same (X, coords), every group once, in random order."""
    # Prefetching hides a batch behind the consumer's work. These consumers do none: it can only
    # cost, and is shown beside.
    dataset = lazy.as_dataset(batch_size, shuffle=True, seed=0, prefetch=0)
    ahead = lazy.as_dataset(batch_size, shuffle=True, seed=0)
    shuffled = slices.shuffle(len(lazy), seed=0).batch(batch_size).prefetch(1)
    generated = tf.data.Dataset.from_generator(
        lambda: converted(scan, lazy, batch_size),
        output_signature=tf.nest.map_structure(loosened, dataset.element_spec),
    ).prefetch(1)
    graph = in_tensorflow(scan, lazy, batch_size)
    return {
        "numpy gather": lambda: gathered(lazy, batch_size),
        "tf.data feed": lambda: consumed(dataset),
        "tf.data feed, prefetch 1": lambda: consumed(ahead),
        "batches": lambda: consumed(lazy.batches(batch_size, shuffle=True, seed=0)),
        "from_tensor_slices": lambda: consumed(shuffled),
        "TensorFlow's gather": lambda: consumed(graph),
        "from_generator": lambda: consumed(generated.take(GENERATOR_BATCHES)),
    }


class Nothing(GroupSource):
    """As many groups, none of which is read."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._shape = shape

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return self._shape

    def read(self, groups: Indices, out: Images) -> None:
        """Leave ``out`` as it is."""


def parts(lazy: LazyPtychoDataContainer) -> dict[str, Any]:
    """The pieces that the feed's time is made of, one epoch each in batches of 64."""
    order = BatchOrder(len(lazy), 64, shuffle=True, seed=0, drop_remainder=False)
    empty = stream(Nothing(lazy_images(lazy).shape), lazy.coords.numpy(), order=order, prefetch=0)
    numbers = tf.data.Dataset.range(order.batch_count)
    return {
        "gather into one buffer": lambda: gathered(lazy, 64),
        "gather into three in turn": lambda: gathered(lazy, 64, buffers=3),
        "tf.data feed": lambda: consumed(lazy.as_dataset(64, shuffle=True, seed=0, prefetch=0)),
        "tf.data feed, nothing gathered": lambda: consumed(empty),
        "Dataset.range alone": lambda: 64 * sum(1 for _ in numbers),
    }


def consumed(batches: Any) -> int:  # noqa: ANN401 - a dataset or an iterator
    """Take every batch as a training loop does, holding one until the next is there; the number of
    groups.
    """
    batch_count, most = 0, 0
    for images, _ in batches:
        # Asking a tensor for its shape takes a tenth of what a small batch does: the first and the
        # last are asked.
        most = most or int(images.shape[0])
        batch_count += 1
    return (batch_count - 1) * most + int(images.shape[0])


def gathered(lazy: LazyPtychoDataContainer, batch_size: int, *, buffers: int = 1) -> int:
    """The limit: the same gather into one buffer that is overwritten by every batch, in one thread,
    handed to nobody.
    """
    images = lazy_images(lazy)
    coords = lazy.coords.numpy()
    order = np.random.default_rng(0).permutation(len(lazy))
    turns = itertools.cycle(
        [np.empty((batch_size, *images.shape[1:]), np.float32) for _ in range(buffers)]
    )
    places = np.empty((batch_size, *coords.shape[1:]), np.float32)
    for start in range(0, len(order), batch_size):
        groups = order[start : start + batch_size]
        images.read(groups, next(turns)[: len(groups)])
        np.take(coords, groups, axis=0, out=places[: len(groups)], mode="clip")
    return len(order)


def converted(
    scan: Scan, lazy: LazyPtychoDataContainer, batch_size: int
) -> Iterator[tuple[Any, Any]]:
    """What scripts do without us: index the frames, put the channels last, scale, convert, batch by
    batch.
    """
    frames, coords, indices = np.asarray(scan.frames), lazy.coords.numpy(), lazy.nn_indices
    order = np.random.default_rng(0).permutation(len(lazy))
    for start in range(0, len(order), batch_size):
        groups = order[start : start + batch_size]
        images = np.moveaxis(frames[indices[groups]], 1, -1) * np.float32(1.5)
        yield tf.convert_to_tensor(images), tf.convert_to_tensor(coords[groups])


def in_tensorflow(scan: Scan, lazy: LazyPtychoDataContainer, batch_size: int) -> tf.data.Dataset:
    """All frames as one tensor, gathered and turned by TensorFlow's own operations, two batches at
    a time.
    """
    frames, indices, coords = (
        tf.constant(np.asarray(scan.frames)),
        tf.constant(lazy.nn_indices),
        lazy.coords,
    )

    def batch(groups: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.transpose(tf.gather(frames, tf.gather(indices, groups)), (0, 2, 3, 1)) * 1.5
        return images, tf.gather(coords, groups)

    order = tf.data.Dataset.range(len(lazy)).shuffle(len(lazy), seed=0).batch(batch_size)
    return order.map(batch, num_parallel_calls=2, deterministic=True).prefetch(1)


def lazy_images(lazy: LazyPtychoDataContainer) -> Any:  # noqa: ANN401 - a GroupSource
    """The container's own source of images."""
    return lazy._inputs.images


def loosened(spec: tf.TensorSpec) -> tf.TensorSpec:
    """The spec of a batch of any size."""
    return tf.TensorSpec((None, *spec.shape[1:]), spec.dtype)


def peak_bytes(dataset: tf.data.Dataset) -> int:
    """Most device memory of one epoch over what was in use before."""
    consumed(dataset)  # what TensorFlow keeps of a first pass is no batch's
    start = current_bytes()
    tf.config.experimental.reset_memory_stats("CPU:0")
    consumed(dataset)
    return int(tf.config.experimental.get_memory_info("CPU:0")["peak"]) - start


def current_bytes() -> int:
    """Device memory in use."""
    return int(tf.config.experimental.get_memory_info("CPU:0")["current"])


if __name__ == "__main__":
    main()
