"""The body of a planted point: put the bug in, then run the scenario's own body.

Both are imported with this module, before anything is measured, as the body alone would be.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from scenarios.bodies.memory import Memory
from scenarios.detector.bugs.registry import BODY_VARIABLE, PLANT_VARIABLE, plant_named


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """The phases of the body that the point's environment names, in a loader with the bug that it
    names.
    """
    _PLANT()
    _BODY(memory, parameters)


def _load(name: str) -> Callable[..., None]:
    module, _, function = name.partition(":")
    loaded: Callable[..., None] = getattr(import_module(module), function)
    return loaded


_BODY, _PLANT = (
    _load(os.environ[BODY_VARIABLE]),
    _load(plant_named(os.environ[PLANT_VARIABLE]).function),
)
