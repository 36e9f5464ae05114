"""A body with a known answer: allocate known sizes on the device and on the host, and let the meters find them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from harness.measure.phases import Memory

# Chosen: far above the start-up allocations of either runtime, far below the smallest machine.
KNOWN_BYTES = 32 * 1024 * 1024


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phase ``device`` holds KNOWN_BYTES of tensors, phase ``host`` as many of touched host memory; both are let go."""
    with tf.device(parameters["device_name"]):
        with memory.phase("device"):
            tensor = tf.zeros([KNOWN_BYTES], tf.uint8)
        with memory.phase("device_release"):
            del tensor
    with memory.phase("host"):
        array = np.ones(KNOWN_BYTES, np.uint8)
    with memory.phase("host_release"):
        del array
