"""What the bodies of several ways share: one way after the other, each in a phase of its own, and
gone after it.
"""

import contextlib
import ctypes
import gc
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan
from scenarios.bodies.loading import Container, consume, declare, taken
from scenarios.bodies.memory import Memory
from scenarios.bodies.written import folder_of

FRAMES_PER_IMAGE = 4
"""Frames of the stack for each group: what keeps a frame for each, or an image for each group,
keeps the stack once."""
_TOUCHED_BYTES = 32 << 20
"""Of the emulated device, before the first phase. Its pages count as host memory once they were
written, so that what a phase takes of the host would depend on what earlier ones took of the
device. Three times what any way but the complete tensors takes."""

Parameters = Mapping[str, Any]


def run_ways(
    memory: Memory,
    parameters: Parameters,
    ways: Mapping[str, Callable[[Path], object]],
    *,
    with_targets: bool,
) -> None:
    """Each of ``ways`` in a phase of its name, given an empty folder that goes after it; a last
    phase, release.

    What a way returns is there when its phase ends, and gone when the next one begins, so that
    ``retained`` is what it holds.
    """
    declare(memory, {**parameters, "image_count": image_count(parameters)})
    _use_once(folder_of(memory.workspace, parameters), parameters, with_targets=with_targets)
    # What is there by now is no garbage of a way: a collection looks at what is younger, in 5 ms
    # instead of 200.
    gc.freeze()
    for name, way in ways.items():
        with tempfile.TemporaryDirectory(dir=memory.workspace) as folder:
            with memory.phase(name):
                held = way(Path(folder))
                # part of what is measured: cycles between datasets and their functions end here
                _give_back()
            del held
            _give_back()  # or the next way would get the blame
    with memory.phase("release"):
        _give_back()


def _give_back() -> None:
    """Cycles end, and glibc's malloc gives its free pages back.

    Those between what is in use hide as much of what is kept next: a megabyte after the first HDF5
    file.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _use_once(files: Path, parameters: Parameters, *, with_targets: bool) -> None:
    """Code of first use and pages of the emulated device, before the first phase: both would be the
    first way's.
    """
    tf.zeros(_TOUCHED_BYTES, tf.uint8)
    scan = Scan.open(files / "few.npz", cache_dir=files, keep_energies=False)
    container = LazyPtychoDataContainer.from_scan(
        scan, image_count=parameters["batch_size"], gridsize=parameters["gridsize"]
    )
    consume_batches(container, parameters)
    if with_targets:
        consume_targets(container, parameters)
    del container, scan
    _give_back()


def image_count(parameters: Parameters) -> int:
    """Groups that are made of a stack."""
    return int(parameters["stack_size"]) // FRAMES_PER_IMAGE


def all_seen(images: int, wanted: int) -> None:
    """Raise ValueError where an epoch fed another number of groups."""
    if images != wanted:
        raise ValueError(f"{images} of {wanted} groups were fed")


def consume_batches(
    container: LazyPtychoDataContainer, parameters: Parameters
) -> LazyPtychoDataContainer:
    """The container after an epoch without tf.data, whose traced functions cost a tenth of a second
    each: the feed is the same.
    """
    all_seen(consume(container.batches(parameters["batch_size"], shuffle=True)), len(container))
    return container


def consume_targets(container: Container, parameters: Parameters) -> Container:
    """The container after an epoch of a training's inputs and targets."""
    dataset = container.as_dataset(
        parameters["batch_size"], shuffle=True, seed=0, prefetch=0, targets=True
    )
    all_seen(consume(taken(batch)[0] for batch in dataset), len(container))
    return container
