"""Datasets and groups by other settings than ``loading`` has: each in a phase of its own."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan
from scenarios.bodies.formats import open_tables
from scenarios.bodies.loading import consume
from scenarios.bodies.memory import Memory
from scenarios.bodies.ways import (
    Parameters,
    all_seen,
    consume_batches,
    consume_targets,
    image_count,
    run_ways,
)
from scenarios.bodies.written import folder_of

EPOCHS = 96
"""Of small images: an order that is remembered for each of them costs 768 B for each image."""
SMALL_BATCH_SIZE = 256
"""Images of 1 KiB; complete batches at both sizes."""
PASSES = 2
"""Of ``repeat``: the second one shows what is kept of the first."""
WORKERS = 2
AHEAD = 4
"""Batches made ahead."""
NEIGHBORS_OF_NINE = 12
"""Groups of nine frames need nine neighbours at least."""


def measure(memory: Memory, parameters: Parameters) -> None:
    """Phases epochs_of_chunks, repeated, sharded, ahead, without_truth, oversampled, singles,
    nines, release.

    ``parameters``: stack_size, frame_size, gridsize, batch_size.
    """
    files = folder_of(memory.workspace, parameters)
    run_ways(
        memory,
        parameters,
        {name: functools.partial(way, files, parameters) for name, way in WAYS.items()},
        with_targets=True,
    )


def _container(
    files: Path,
    parameters: Parameters,
    *,
    name: str = "plain.npz",
    **settings: Any,  # noqa: ANN401 - those of a grouping
) -> LazyPtychoDataContainer:
    scan = Scan.open(files / name, cache_dir=files, keep_energies=False)
    grouping = {
        "image_count": image_count(parameters),
        "gridsize": parameters["gridsize"],
        "seed": 0,
        **settings,
    }
    return LazyPtychoDataContainer.from_scan(scan, **grouping)


def _epochs_of_chunks(files: Path, parameters: Parameters, folder: Path) -> object:
    """Many epochs of small single frames in an order that a disk can follow."""
    del folder
    count = parameters["stack_size"]
    container = _container(files, parameters, name="small.npz", image_count=count, gridsize=1)
    dataset = container.as_dataset(
        SMALL_BATCH_SIZE, shuffle="chunks", seed=0, prefetch=0, repeat=EPOCHS
    )
    all_seen(consume(dataset), EPOCHS * count)
    return dataset


def _repeated(files: Path, parameters: Parameters, folder: Path) -> object:
    """A pass over several epochs, and one without end that is left in its second."""
    del folder
    batch_size, count = parameters["batch_size"], image_count(parameters)
    container = _container(files, parameters)
    dataset = container.as_dataset(
        batch_size, shuffle="chunks", seed=0, prefetch=0, repeat=PASSES, drop_remainder=True
    )
    all_seen(consume(dataset), PASSES * count)
    endless = container.as_dataset(batch_size, prefetch=0, repeat=True)
    all_seen(consume(endless.take(count // batch_size + 1)), count + batch_size)
    return dataset, endless


def _sharded(files: Path, parameters: Parameters, folder: Path) -> object:
    """The share of each of two workers, one after the other."""
    del folder
    container = _container(files, parameters)
    contexts = [tf.distribute.InputContext(WORKERS, worker, WORKERS) for worker in range(WORKERS)]
    datasets = [
        container.as_dataset(
            parameters["batch_size"], shuffle=True, seed=0, prefetch=0, input_context=context
        )
        for context in contexts
    ]
    all_seen(sum(map(consume, datasets)), image_count(parameters))
    return datasets


def _ahead(files: Path, parameters: Parameters, folder: Path) -> object:
    """Several batches made ahead."""
    del folder
    container = _container(files, parameters)
    dataset = container.as_dataset(parameters["batch_size"], shuffle=True, seed=0, prefetch=AHEAD)
    all_seen(consume(dataset), image_count(parameters))
    return dataset


def _without_truth(files: Path, parameters: Parameters, folder: Path) -> object:
    """Targets of a scan that has no object: amplitude 1, phase 0."""
    scan, count = open_tables(files, folder), image_count(parameters)
    container = LazyPtychoDataContainer.from_scan(
        scan, image_count=count, gridsize=parameters["gridsize"]
    )
    return consume_targets(container, parameters)


def _oversampled(files: Path, parameters: Parameters, folder: Path) -> object:
    """Two groups for each frame of a smaller scan, whose frames are taken in their order."""
    del folder
    return consume_batches(
        _container(files, parameters, name="few.npz", order="sequential"), parameters
    )


def _singles(files: Path, parameters: Parameters, folder: Path) -> object:
    """Groups of one frame."""
    del folder
    return consume_batches(_container(files, parameters, gridsize=1), parameters)


def _nines(files: Path, parameters: Parameters, folder: Path) -> object:
    """Groups of nine."""
    del folder
    return consume_batches(
        _container(files, parameters, gridsize=3, neighbor_count=NEIGHBORS_OF_NINE), parameters
    )


WAYS: Mapping[str, Callable[[Path, Parameters, Path], object]] = {
    "epochs_of_chunks": _epochs_of_chunks,
    "repeated": _repeated,
    "sharded": _sharded,
    "ahead": _ahead,
    "without_truth": _without_truth,
    "oversampled": _oversampled,
    "singles": _singles,
    "nines": _nines,
}
"""Each phase, and what happens in it."""
