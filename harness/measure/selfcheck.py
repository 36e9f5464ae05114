"""A body with a known answer: allocate known sizes on the device and on the host, and let the meters find them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from harness.measure.phases import Memory


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phase ``device`` holds ``known_bytes`` of tensors, phase ``host`` as many of touched host memory; both are let go."""
    known_bytes = parameters["known_bytes"]
    with tf.device(parameters["device_name"]):
        with memory.phase("device"):
            tensor = tf.zeros([known_bytes], tf.uint8)
        with memory.phase("device_release"):
            del tensor
    with memory.phase("host"):
        array = np.ones(known_bytes, np.uint8)
    with memory.phase("host_release"):
        del array
