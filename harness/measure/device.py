"""Make TensorFlow use exactly the device that was leased, before its first operation."""

from typing import Any

import tensorflow as tf

from harness.errors import DeviceUnavailable
from harness.units import MIB

_FIRST_REGION_BYTES = 2 * MIB
"""What BFC takes for TensorFlow's first small tensors, before it is asked for the pool; seen with limits of 16 to 3,072 MiB."""


def prepare_device(device: dict[str, Any]) -> str:
    """Configure the leased device and start TensorFlow's runtime; gives its name, as ``"CPU:0"``.

    The emulated device is the CPU under TensorFlow's BFC allocator; its limit came with the environment. A card is
    capped with a logical device of ``limit_bytes``, or grows on demand when there is no limit. Raises
    DeviceUnavailable when TensorFlow does not see the card that the driver has, or the emulated one has no room here.
    """
    if device["kind"] == "emulated":
        name = "CPU:0"
        _reserve(name, device["limit_bytes"])
    else:
        cards = tf.config.list_physical_devices("GPU")
        if not cards:
            raise DeviceUnavailable(
                f"TensorFlow {tf.__version__} sees no GPU, though the driver has {device['name']}; "
                "install a build with CUDA (pip install 'tensorflow[and-cuda]') or ask for --device cpu"
            )
        _cap(cards[0], device["limit_bytes"])
        name = "GPU:0"
    with tf.device(name):
        tf.zeros([]).numpy()  # thread pools and contexts start here, not inside the first phase
    return name


def _reserve(name: str, limit_bytes: int) -> None:
    """Have BFC take its whole pool as one region, as it does on a card.

    A pool that grows in steps makes readings coarse: a chunk is split only when it is at least twice the request, so
    6.25 MiB at the end of a fresh 8 MiB region count as 8 (bfc_allocator.cc). Out of one large chunk every request is
    cut to 256 B. A request for more than half of the pool makes the region the whole rest of the limit. The pages stay
    untouched; what it costs is BFC's table of chunks, 1/32 of the limit, before the first phase.
    """
    try:
        with tf.device(name):
            # In MiB by bytes, because the op's dimensions are 32 bits wide.
            limit_mib = limit_bytes // MIB
            most_mib = min(limit_mib * 15 // 16, limit_mib - _FIRST_REGION_BYTES // MIB)
            tf.raw_ops.Empty(shape=[most_mib, MIB], dtype=tf.uint8, init=False)
    except tf.errors.ResourceExhaustedError as error:
        # Not the body's doing: it would pass for a loader that ran out of memory.
        raise DeviceUnavailable(
            f"the emulated device of {limit_bytes // MIB:,} MiB could not be reserved in this machine's memory; "
            "ask for a smaller --device-budget, or free memory"
        ) from error


def _cap(card: Any, limit_bytes: int | None) -> None:  # noqa: ANN401 - tf.config.PhysicalDevice has no type stubs
    if limit_bytes is None:
        tf.config.experimental.set_memory_growth(card, True)  # noqa: FBT003 - TensorFlow's own signature
        return
    capped = tf.config.LogicalDeviceConfiguration(memory_limit=limit_bytes // MIB)
    tf.config.set_logical_device_configuration(card, [capped])
