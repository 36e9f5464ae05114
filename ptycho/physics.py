"""The forward model of far-field ptychography."""

from typing import Any

import numpy as np
import numpy.typing as npt


def far_field_amplitude(probe: npt.NDArray[Any], patch: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Amplitude on the detector, zero frequency at [N/2, N/2]: |fftshift(fft2(probe * patch))|.

    ``probe`` (N, N) complex, ``patch`` (..., N, N) complex: the object where the probe lies. The
    transform is orthonormal, so sum amplitude^2 = sum |probe * patch|^2. Returns (..., N, N), real,
    in the precision given.
    """
    wave = np.fft.fft2(probe * patch, norm="ortho")
    return np.abs(np.fft.fftshift(wave, axes=(-2, -1)))


def patch_corner(position: npt.NDArray[np.float64], frame_size: int) -> npt.NDArray[np.int64]:
    """First row or column of the patch centred at ``position`` pixels, rounded half to even."""
    return np.rint(position).astype(np.int64) - frame_size // 2


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
