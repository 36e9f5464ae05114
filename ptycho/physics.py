"""The forward model of far-field ptychography."""

from typing import Any

import numpy as np
import numpy.typing as npt


def far_field_amplitude(probe: npt.NDArray[Any], patch: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Amplitude on the detector, zero frequency at [N/2, N/2]: |fftshift(fft2(probe * patch))|.

    ``probe`` (N, N) complex, ``patch`` (..., N, N) complex: the object where the probe lies. The transform is
    orthonormal, so sum amplitude^2 = sum |probe * patch|^2. Returns (..., N, N), real, in the precision given.
    """
    wave = np.fft.fft2(probe * patch, norm="ortho")
    return np.abs(np.fft.fftshift(wave, axes=(-2, -1)))


def patch_corner(position: npt.NDArray[np.float64], frame_size: int) -> npt.NDArray[np.int64]:
    """First row or column of the patch centred at ``position`` pixels, rounded half to even."""
    return np.rint(position).astype(np.int64) - frame_size // 2
