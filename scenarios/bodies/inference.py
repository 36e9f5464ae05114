"""The object of a whole scan out of a network, with one of the two loaders."""

import gc
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ptycho.model import build_model
from ptycho.reconstruct import reconstruct
from scenarios.bodies.collector import leave_imports_out, return_free_pages
from scenarios.bodies.device import touch
from scenarios.bodies.loading import CONTAINERS, declare
from scenarios.bodies.memory import Memory
from scenarios.bodies.physics import without_network
from scenarios.bodies.scans import open_scan, scan_path

TOUCHED_BYTES = 32 << 20
"""Six times what a prediction was seen to have on the device."""


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases open, construct, stitch, build, predict_0, predict_1, release.

    ``parameters``: loader ("eager" | "lazy"), image_count, stack_size, frame_size, gridsize,
    batch_size. Predicting twice shows what a call keeps. The network is not trained: its memory
    does not depend on its weights.
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
    with memory.phase("stitch"):
        bare = without_network(parameters["frame_size"], parameters["gridsize"], container.probe)
        reconstruct(bare, container, parameters["batch_size"], progress=False)
        del bare
        gc.collect()  # models are cycles
    with memory.phase("build"):
        model = build_model(parameters["frame_size"], parameters["gridsize"], container.probe)
    for number in range(2):
        with memory.phase(f"predict_{number}"):
            found = reconstruct(model, container, parameters["batch_size"], progress=False)
        if not np.isfinite(found.object).all() or not found.weights.any():
            raise ValueError(f"predict_{number} gave no object")
        del found
    return_free_pages()
    with memory.phase("release"):
        del model, container, scan
        # part of what is measured: cycles between datasets and their functions end here
        gc.collect()
