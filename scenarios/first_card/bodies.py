"""What the step ``runner`` has measured: a body like a scenario's, without TensorFlow."""

import time
from collections.abc import Mapping
from typing import Any

from scenarios.bodies.memory import Memory
from scenarios.first_card.cuda import DriverMemory

_REST_S = 0.05
"""Chosen: 25 looks of the sampler at what is held."""


def leave_the_device_alone(device: Mapping[str, Any]) -> str:  # noqa: ARG001 - called as every such function is
    """What makes TensorFlow use the device, where there is no TensorFlow."""
    return "GPU:0"


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases context, take, free; ``parameters``: amount_bytes."""
    card = DriverMemory()
    with memory.phase("context"):
        card.open()
    with memory.phase("take"):
        card.take(parameters["amount_bytes"])
        time.sleep(_REST_S)
    with memory.phase("free"):
        card.free()
