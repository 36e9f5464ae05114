"""What a child costs that does nothing, and one that does a single operation."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.measure import Memory

ANSWER = 6
"""Of the one operation."""


def nothing(workspace: Path, parameters: Mapping[str, Any]) -> None:
    """An empty preparation: the child, and nothing else."""


def one_operation(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Leaves the time at which TensorFlow had finished its first operation (CLOCK_MONOTONIC, s),
    and its answer.
    """
    import tensorflow as tf

    answer = int(tf.reduce_sum([1, 2, 3]))
    Path(memory.workspace, str(parameters["told_in"])).write_text(
        f"{time.monotonic()} {answer}", encoding="utf-8"
    )
