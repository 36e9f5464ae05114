"""What the bodies of several ways share: one way after the other, each within a phase and gone when it ends."""

import gc
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer
from scenarios.bodies.loading import Container, consume, declare, taken
from scenarios.bodies.memory import Memory

FRAMES_PER_IMAGE = 4
"""Frames of the stack for each group: what keeps a frame for each, or an image for each group, keeps the stack once."""
_TOUCHED_BYTES = 32 << 20
"""Of the emulated device, before the first phase. Its pages count as host memory once they were written, so that what a phase
takes of the host would depend on what earlier ones took of the device. Three times what any way but the complete tensors takes."""

Parameters = Mapping[str, Any]


def run_ways(memory: Memory, parameters: Parameters, ways: Mapping[str, Callable[[Path], None]]) -> None:
    """Each of ``ways`` in a phase of its name, with an empty folder that goes after it."""
    declare(memory, {**parameters, "image_count": image_count(parameters)})
    tf.zeros(_TOUCHED_BYTES, tf.uint8)
    # What is there by now is no garbage of a way: a collection looks at what is younger, in 5 ms instead of 200.
    gc.freeze()
    for name, way in ways.items():
        with tempfile.TemporaryDirectory(dir=memory.workspace) as folder, memory.phase(name):
            way(Path(folder))
            gc.collect()  # part of what is measured, as in loading


def image_count(parameters: Parameters) -> int:
    """Groups that are made of a stack."""
    return int(parameters["stack_size"]) // FRAMES_PER_IMAGE


def all_seen(images: int, wanted: int) -> None:
    """Raise ValueError where an epoch fed another number of groups."""
    if images != wanted:
        raise ValueError(f"{images} of {wanted} groups were fed")


def consume_batches(container: LazyPtychoDataContainer, parameters: Parameters) -> None:
    """An epoch without tf.data, whose traced functions cost a tenth of a second each: the same feed gathers the batches."""
    all_seen(consume(container.batches(parameters["batch_size"], shuffle=True)), len(container))


def consume_targets(container: Container, parameters: Parameters) -> None:
    """An epoch of a training's inputs and targets."""
    dataset = container.as_dataset(parameters["batch_size"], shuffle=True, seed=0, prefetch=0, targets=True)
    all_seen(consume(taken(batch)[0] for batch in dataset), len(container))
