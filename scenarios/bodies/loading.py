"""From the file to the end of the second epoch, with one of the two loaders, as a training script
would.
"""

import gc
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from scenarios.bodies.collector import leave_imports_out, return_free_pages
from scenarios.bodies.memory import Memory
from scenarios.bodies.scans import open_scan, scan_path

Container = PtychoDataContainer | LazyPtychoDataContainer
CONTAINERS: dict[str, type[PtychoDataContainer] | type[LazyPtychoDataContainer]] = {
    "eager": PtychoDataContainer,
    "lazy": LazyPtychoDataContainer,
}


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases open, construct, first_batch, epoch_0, epoch_1, release.

    ``parameters``: loader ("eager" | "lazy"), image_count, stack_size, frame_size, gridsize,
    batch_size.
    """
    container_type = CONTAINERS[parameters["loader"]]
    path = scan_path(memory.workspace, parameters)
    declare(memory, parameters)
    leave_imports_out()
    with memory.phase("open"):
        scan = open_scan(memory.workspace, path)
    with memory.phase("construct"):
        container = container_type.from_scan(
            scan, image_count=parameters["image_count"], gridsize=parameters["gridsize"], seed=0
        )
        return_free_pages()
    feed(memory, container, parameters)
    return_free_pages()
    with memory.phase("release"):
        del container, scan
        # part of what is measured: cycles between datasets and their functions end here
        gc.collect()


def declare(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Say what each tensor of the eager container adds up to by its name, all of them, a frame, a
    group and a batch of X.
    """
    channel_count = parameters["gridsize"] ** 2
    arrays = PtychoDataContainer.tensor_bytes(
        image_count=parameters["image_count"],
        frame_size=parameters["frame_size"],
        channel_count=channel_count,
    )
    frame_bytes = parameters["frame_size"] ** 2 * tf.float32.size
    image_bytes = channel_count * frame_bytes
    batch_bytes = parameters["batch_size"] * image_bytes
    memory.declare(
        **arrays,
        arrays=sum(arrays.values()),
        frame=frame_bytes,
        image=image_bytes,
        batch=batch_bytes,
    )


def feed(memory: Memory, container: Container, parameters: Mapping[str, Any]) -> None:
    """First batch and two shuffled epochs, each batch taken to the device.

    Without prefetching, and dropping each batch before the next is asked for, an epoch's peak
    repeats to the byte.
    """
    with memory.phase("first_batch"):
        dataset = container.as_dataset(parameters["batch_size"], shuffle=True, seed=0, prefetch=0)
        batch = taken(next(iter(dataset)))
        del batch
    for epoch in range(2):
        with memory.phase(f"epoch_{epoch}"):
            images = consume(dataset)
        if images != parameters["image_count"]:
            raise ValueError(f"epoch {epoch} fed {images} of {parameters['image_count']} groups")


def consume(dataset: tf.data.Dataset) -> int:
    """Take every batch to the device and let it go again; the number of groups seen."""
    images = 0
    batches = iter(dataset)
    batch = next(batches, None)
    while batch is not None:
        batch = taken(batch)
        images += int(batch[0].shape[0])
        batch = None
        batch = next(batches, None)
    return images


def taken(batch: Any) -> Any:  # noqa: ANN401 - nested tensors; TensorFlow ships no types
    """The batch on the device, as a model takes it: tf.data makes host tensors, which are on the
    emulated device already.
    """
    return tf.nest.map_structure(_on_device, batch)


def _on_device(tensor: tf.Tensor) -> tf.Tensor:
    # In TensorFlow's words alone: this body runs with older revisions of ptycho, too, whose modules
    # have other names.
    if not tf.config.list_logical_devices("GPU"):
        return tensor
    with tf.device(tf.zeros(()).device):
        return tf.identity(tensor)
