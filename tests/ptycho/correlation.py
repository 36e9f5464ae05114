"""How alike two objects are."""

from typing import Any

import numpy as np
import numpy.typing as npt


def correlation(
    first: npt.NDArray[Any], second: npt.NDArray[Any], weights: npt.NDArray[Any] | None = None
) -> float:
    """How alike two complex images are, 0 to 1, whatever their global phase and scale: |<a, b>| /
    (|a| |b|).

    All of one shape; ``weights``, real, count a pixel more or less (booleans choose). Raises
    ValueError where a side is 0.
    """
    counted = np.ones(first.shape) if weights is None else weights
    product = np.abs(np.sum(counted * np.conj(first) * second))
    energies = [float(np.sum(counted * np.abs(image) ** 2)) for image in (first, second)]
    if min(energies) == 0:
        raise ValueError("one of the images is 0 wherever it counts; nothing can be compared")
    return float(product / np.sqrt(energies[0] * energies[1]))
