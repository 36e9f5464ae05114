"""Containers, datasets and iterators that come and go in a loop: what a process keeps of each that
is gone.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan
from scenarios.bodies.arrays import grouped_arrays
from scenarios.bodies.collector import leave_imports_out, return_free_pages
from scenarios.bodies.device import touch
from scenarios.bodies.loading import consume, declare, taken
from scenarios.bodies.memory import Memory
from scenarios.bodies.scans import open_scan, scan_path

TOUCHED_BYTES = 32 << 20
"""Far more than the batches that are on the device at a time, 1 MiB each at the most."""


class _StopHereError(Exception):
    """What a loop over batches ends with when something in it goes wrong."""


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases first, complete, dropped, raised, release.

    ``parameters``: rounds, image_count, stack_size, frame_size, gridsize, batch_size. In each round
    a container over arrays of its own and one over the scan are made, fed by a dataset and by
    ``batches``, and let go of. ``first`` is one round of each kind, with all that TensorFlow keeps
    of a first time; the others are as many rounds of one kind as ``rounds`` says.
    """
    declare(memory, parameters)
    touch(TOUCHED_BYTES)
    leave_imports_out()
    scan = open_scan(memory.workspace, scan_path(memory.workspace, parameters))
    with memory.phase("first"):
        for use in WAYS.values():
            _rounds(use, scan, parameters, rounds=1)
    for name, use in WAYS.items():
        with memory.phase(name):
            _rounds(use, scan, parameters, rounds=parameters["rounds"])
    with memory.phase("release"):
        del scan
        gc.collect()  # part of what is measured, as everywhere


def _rounds(
    use: Callable[[Any], None], scan: Scan, parameters: Mapping[str, Any], *, rounds: int
) -> None:
    for _ in range(rounds):
        for container in _containers(scan, parameters):
            for feed in (container.as_dataset, container.batches):
                use(iter(feed(parameters["batch_size"], shuffle=True, seed=0)))
            del container, feed
    # cycles between datasets and their functions end here, as they do in a loop that runs for long
    gc.collect()
    return_free_pages()


def _containers(scan: Scan, parameters: Mapping[str, Any]) -> Iterator[LazyPtychoDataContainer]:
    count, gridsize = parameters["image_count"], parameters["gridsize"]
    yield LazyPtychoDataContainer(**grouped_arrays(count, parameters["frame_size"], gridsize**2))
    yield LazyPtychoDataContainer.from_scan(scan, image_count=count, gridsize=gridsize, seed=0)


def _complete(batches: Iterator[Any]) -> None:
    consume(batches)


def _dropped(batches: Iterator[Any]) -> None:
    """Two batches, and no more: as a training that stops early, or a look at the first images."""
    for _ in range(2):
        taken(next(batches))


def _raised(batches: Iterator[Any]) -> None:
    """An exception while a batch is held."""
    with contextlib.suppress(_StopHereError):
        for batch in batches:
            _refuse(taken(batch))


def _refuse(batch: Any) -> None:  # noqa: ANN401 - nested tensors; TensorFlow ships no types
    raise _StopHereError(len(batch))


WAYS: Mapping[str, Callable[[Iterator[Any]], None]] = {
    "complete": _complete,
    "dropped": _dropped,
    "raised": _raised,
}
"""How a loop over batches ends, by the name of its phase."""
