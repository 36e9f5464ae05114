"""Two epochs of a small network on one of the two loaders, as a training script would run them."""

import gc
from collections.abc import Mapping
from typing import Any

import keras

from ptycho.model import build_model, compile_model
from scenarios.bodies.collector import leave_imports_out, return_free_pages
from scenarios.bodies.device import touch
from scenarios.bodies.loading import CONTAINERS, declare
from scenarios.bodies.memory import Memory
from scenarios.bodies.physics import one_batch, without_network
from scenarios.bodies.scans import open_scan, scan_path

TOUCHED_BYTES = 64 << 20
"""Twice what a step was seen to have on the device where convolutions take most scratch."""


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases open, construct, forward, build, train_0, train_1, release.

    ``parameters``: loader ("eager" | "lazy"), image_count, stack_size, frame_size, gridsize,
    batch_size. The first epoch contains what TensorFlow keeps of the traced step and the state of
    the optimizer.
    """
    keras.utils.set_random_seed(0)  # the child is a process of its own
    path = scan_path(memory.workspace, parameters)
    declare(memory, parameters)
    touch(TOUCHED_BYTES)
    leave_imports_out()
    with memory.phase("open"):
        scan = open_scan(memory.workspace, path)
    with memory.phase("construct"):
        container = CONTAINERS[parameters["loader"]].from_scan(
            scan, image_count=parameters["image_count"], gridsize=parameters["gridsize"], seed=0
        )
        return_free_pages()
    with memory.phase("forward"):
        one_batch(
            without_network(parameters["frame_size"], parameters["gridsize"], container.probe),
            parameters,
        )
        gc.collect()  # models are cycles
    with memory.phase("build"):
        model = compile_model(
            build_model(parameters["frame_size"], parameters["gridsize"], container.probe)
        )
    dataset = container.as_dataset(
        parameters["batch_size"], shuffle=True, seed=0, prefetch=0, targets=True
    )
    for epoch in range(2):
        with memory.phase(f"train_{epoch}"):
            # The batches come in another order each time already; asked to shuffle them, Keras
            # warns that it cannot.
            model.fit(dataset, epochs=1, shuffle=False, verbose=0)
    return_free_pages()
    with memory.phase("release"):
        del dataset, model, container, scan
        # part of what is measured: cycles between datasets and their functions end here
        gc.collect()
