"""The container built from arrays that are in host memory already, as scripts that group by
themselves do.
"""

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np

from scenarios.bodies.collector import leave_imports_out, return_free_pages
from scenarios.bodies.loading import CONTAINERS, declare, feed
from scenarios.bodies.memory import Memory


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases arrays, construct, first_batch, epoch_0, epoch_1, release; the arrays are let go of in
    the last.

    ``parameters``: loader ("eager" | "lazy"), image_count, frame_size, gridsize, batch_size.
    """
    declare(memory, parameters)
    leave_imports_out()
    with memory.phase("arrays"):
        arrays = grouped_arrays(
            parameters["image_count"], parameters["frame_size"], parameters["gridsize"] ** 2
        )
    with memory.phase("construct"):
        container = CONTAINERS[parameters["loader"]](**arrays)
    feed(memory, container, parameters)
    return_free_pages()
    with memory.phase("release"):
        del container, arrays
        # part of what is measured: cycles between datasets and their functions end here
        gc.collect()


def grouped_arrays(image_count: int, frame_size: int, channel_count: int) -> dict[str, Any]:
    """The container's eleven arguments, seeded: images (B, N, N, C) float32, coords (B, 1, 2, C)
    float32.
    """
    generator = np.random.default_rng(0)
    images = (image_count, frame_size, frame_size, channel_count)
    coords = generator.uniform(-8, 8, (image_count, 1, 2, channel_count)).astype(np.float32)
    return {
        "X": generator.random(images, dtype=np.float32),
        "Y_I": generator.random(images, dtype=np.float32),
        "Y_phi": generator.random(images, dtype=np.float32),
        "norm_Y_I": np.float32(1.0),
        "YY_full": None,
        "coords_nominal": coords,
        "coords_true": coords.copy(),
        "nn_indices": None,
        "global_offsets": None,
        "local_offsets": None,
        "probeGuess": np.ones((frame_size, frame_size), np.complex64),
    }
