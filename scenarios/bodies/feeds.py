"""The ways in and out that ``loading`` does not take: HDF5 and PtychoPINN's names; default
settings, targets, ``batches``.
"""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptycho.loader import LazyPtychoDataContainer, load
from ptycho.raw_data import RawData
from ptycho.scan import Scan
from scenarios.bodies import scans
from scenarios.bodies.collector import leave_imports_out, return_free_pages
from scenarios.bodies.device import touch
from scenarios.bodies.feed_files import hdf5_path
from scenarios.bodies.loading import consume, declare, taken
from scenarios.bodies.memory import Memory

CACHE_BYTES = 4 << 20
"""Chunk cache of the HDF5 file: an eighth of the smaller scan, so that every run fills it, whatever
the size of the stack."""
TOUCHED_BYTES = 32 << 20
"""Five times what the epochs have on the device, so that an order of chunks that nobody foresees
stays inside."""


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases open, construct, epoch_defaults, epoch_targets, epoch_batches, release.

    ``parameters``: source ("hdf5" | "raw_data"), image_count, stack_size, frame_size, gridsize,
    batch_size.
    """
    open_source, make_container = SOURCES[parameters["source"]]
    declare(memory, parameters)
    touch(TOUCHED_BYTES)
    leave_imports_out()
    batch_size = parameters["batch_size"]
    with memory.phase("open"):
        source = open_source(memory.workspace, parameters)
    with memory.phase("construct"):
        container = make_container(source, parameters)
        return_free_pages()
    with memory.phase("epoch_defaults"):
        _all_seen(consume(container.as_dataset(batch_size)), parameters)
        return_free_pages()
    with memory.phase("epoch_targets"):
        _all_seen(_consume_targets(container, batch_size), parameters)
        return_free_pages()
    with memory.phase("epoch_batches"):
        _all_seen(consume(container.batches(batch_size, shuffle=True)), parameters)
        return_free_pages()
    with memory.phase("release"):
        del container, source
        # part of what is measured: cycles between datasets and their functions end here
        gc.collect()


def _open_hdf5(workspace: Path, parameters: Mapping[str, Any]) -> Scan:
    return Scan.open(
        hdf5_path(workspace, parameters),
        frames="/diff3d",
        positions=("/xcoords", "/ycoords"),
        probe="/probeGuess",
        object="/objectGuess",
        cache_bytes=CACHE_BYTES,
        keep_energies=False,
    )


def _group_scan(scan: Scan, parameters: Mapping[str, Any]) -> LazyPtychoDataContainer:
    return LazyPtychoDataContainer.from_scan(
        scan, image_count=parameters["image_count"], gridsize=parameters["gridsize"], seed=0
    )


def _open_raw(workspace: Path, parameters: Mapping[str, Any]) -> RawData:
    return RawData.from_file(scans.scan_path(workspace, parameters), cache_dir=workspace)


def _group_raw(raw: RawData, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of two containers
    size, count, gridsize = (
        parameters["frame_size"],
        parameters["image_count"],
        parameters["gridsize"],
    )
    return load(
        lambda: raw.generate_grouped_data(N=size, K=7, nsamples=count, seed=0, gridsize=gridsize),
        raw.probeGuess,
        which=None,
        create_split=False,
    )


def _consume_targets(container: LazyPtychoDataContainer, batch_size: int) -> int:
    batches = container.as_dataset(batch_size, shuffle=True, seed=0, prefetch=0, targets=True)
    return consume(_taken_inputs(batch) for batch in batches)


def _taken_inputs(batch: Any) -> Any:  # noqa: ANN401 - nested tensors; TensorFlow ships no types
    """The inputs of a batch whose targets were on the device, too."""
    inputs, _ = taken(batch)
    return inputs


def _all_seen(images: int, parameters: Mapping[str, Any]) -> None:
    if images != parameters["image_count"]:
        raise ValueError(f"an epoch fed {images} of {parameters['image_count']} groups")


SOURCES: dict[
    str, tuple[Callable[[Path, Mapping[str, Any]], Any], Callable[[Any, Mapping[str, Any]], Any]]
] = {
    "hdf5": (_open_hdf5, _group_scan),
    "raw_data": (_open_raw, _group_raw),
}
"""How each source is opened, and how a container is made of it."""
