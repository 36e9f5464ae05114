"""Bugs in the eager container, with arrays that are in memory already, in training and in
inference.
"""

# ruff: noqa: ANN401 - containers, tensors and datasets pass through; TensorFlow ships no types

from typing import Any

import numpy as np
import tensorflow as tf

import ptycho.model
from ptycho import reconstruct
from ptycho.containers import eager
from ptycho.feeding.device_memory import aligned_empty, copy_to_device, from_host
from scenarios.detector.bugs.seams import (
    EAGER,
    Kept,
    after_construction,
    instead_of_dataset,
    tensor_of,
)


def eager_truth_twice() -> None:
    """Y is worked out once more and kept under another name."""
    kept: Kept = []
    after_construction(
        lambda container: kept.append(eager.combine(container.Y_I, container.Y_phi)), EAGER
    )


def eager_images_aliased() -> None:
    """X is a tensor over memory of numpy, which the allocator does not count."""
    original = eager.tensor_of

    def aliased(given: Any, source: Any) -> Any:
        tensor = original(given, source)
        memory = aligned_empty(tuple(tensor.shape), np.float32)
        memory[...] = tensor.numpy()
        return from_host(memory)

    setattr(eager, "tensor_of", aliased)  # noqa: B010 - a checker would refuse the assignment


def eager_temporary() -> None:
    """Y is worked out through one more temporary of its size."""
    original = eager.combine

    def combine(amplitude: Any, phase: Any) -> Any:
        spare = tf.cast(phase, tf.complex64) * 1j
        combined = original(amplitude, phase)
        del spare
        return combined

    setattr(eager, "combine", combine)  # noqa: B010 - as above


def eager_array_kept() -> None:
    """The arrays are kept in numpy beside the tensors."""
    kept: Kept = []
    after_construction(lambda container: kept.append(container.X.numpy().copy()), EAGER)


def eager_frugal() -> None:
    """Y is worked out with less beside it: an improvement, to be accepted."""

    def combine(amplitude: Any, phase: Any) -> Any:
        real = amplitude * tf.cos(phase)
        return tf.complex(real, amplitude * tf.sin(phase))

    setattr(eager, "combine", combine)  # noqa: B010 - as above


def eager_dataset_copies() -> None:
    """The dataset is made of a copy of X."""
    kept: Kept = []

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del batch_size, settings
        kept.append(tf.raw_ops.DeepCopy(x=container.X))
        return dataset

    instead_of_dataset(make, EAGER)


def arrays_copied() -> None:
    """The images are copied where they were referred to."""
    kept: Kept = []
    after_construction(lambda container: kept.append(np.array(container._given.X)))


def arrays_converted() -> None:
    """The images are made float64, and back."""
    after_construction(
        lambda container: _forget(
            np.asarray(container._given.X).astype(np.float64).astype(np.float32)
        )
    )


def targets_at_once() -> None:
    """Datasets with targets are made of all ground truth, on the device."""
    kept: Kept = []

    def make(container: Any, dataset: Any, batch_size: int, settings: dict[str, Any]) -> Any:
        del batch_size
        if settings.get("targets"):
            kept.append(tensor_of(container._inputs.amplitude))
        return dataset

    instead_of_dataset(make)


def predictions_kept() -> None:
    """Every prediction stays on the device, as with model.predict."""
    kept: Kept = []
    original = ptycho.model.object_patches

    def object_patches(model: Any) -> Any:
        patches_of = original(model)

        def keeping(images: Any, coords: Any) -> Any:
            kept.append(patches_of(images, coords))
            return kept[-1]

        return keeping

    setattr(reconstruct, "object_patches", object_patches)  # noqa: B010 - as above


def canvas_for_each_group() -> None:
    """Every prediction is kept in numpy until all are there."""
    kept: Kept = []
    original = reconstruct._Canvas.add

    def add(self: Any, patches: Any, positions: Any) -> None:
        kept.append(patches.copy())
        original(self, patches, positions)

    setattr(reconstruct._Canvas, "add", add)  # noqa: B010 - as above


def probe_for_each_group() -> None:
    """The probe is repeated for every group."""
    kept: Kept = []
    after_construction(
        lambda container: kept.append(
            copy_to_device(np.repeat(container._inputs.probe[None], len(container), axis=0))
        )
    )


def _forget(value: object) -> None:
    """What was made is looked at, and let go."""
