"""Containers of grouped images for TensorFlow: eager, lazy, and what PtychoPINN's module of this
name has.
"""

from __future__ import annotations  # help() shows the names of types, not what they stand for

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.containers.base import build_container
from ptycho.containers.eager import PtychoDataContainer
from ptycho.containers.inputs import (
    DEFAULT_NPHOTONS,
    arguments_from_grouped,
    group_energies,
    intensity_scale,
    train_fraction,
)
from ptycho.containers.lazy import LazyPtychoDataContainer
from ptycho.errors import ContainerError
from ptycho.files.stacks import array_energies, scale_to
from ptycho.raw_data import ImageStack, RawData, key_coords_offsets, key_coords_relative

# ruff: noqa: N803 - the names of the arguments are PtychoPINN's


@dataclass
class PtychoDataset:
    """A pair of containers."""

    train_data: Any
    test_data: Any


def load(
    cb: Callable[[], Any],
    probeGuess: Any,  # noqa: ANN401 - array or tensor
    which: str | None,
    create_split: bool,  # noqa: FBT001 - PtychoPINN's call is positional
    *,
    nphotons: float = DEFAULT_NPHOTONS,
    container: type[PtychoDataContainer] | type[LazyPtychoDataContainer] = LazyPtychoDataContainer,
) -> PtychoDataContainer | LazyPtychoDataContainer:
    """A container from grouped arrays, none of which is copied; stacks that are not read yet stay
    so.

    ``cb()`` returns the grouped mapping (see ``ptycho.containers.inputs.KEYS``), or (mapping,
    train_fraction) with ``create_split``; ``which`` is then "train" (the first int(B * fraction)
    groups) or "test" (the rest), and every per-group array is split alike. X is scaled by one
    constant found over all groups, before the split. Raises ContainerError naming key or value.
    """
    arguments = arguments_from_grouped(
        cb(), probeGuess, which=which, create_split=create_split, nphotons=nphotons
    )
    kind: Callable[..., PtychoDataContainer | LazyPtychoDataContainer] = container
    return build_container(kind, arguments, intensity_scale(nphotons, arguments.X.shape[1]))


def split_tensor(tensor: Any, frac: float, which: str = "test") -> Any:  # noqa: ANN401 - anything with a length and slices
    """The first int(B * frac) entries for "train", the rest for "test"; raises ContainerError for
    another part or fraction.
    """
    if which not in ("train", "test"):
        raise ContainerError(f"which is {which!r}; a split has 'train' and 'test'")
    first = int(len(tensor) * train_fraction(frac))
    return tensor[:first] if which == "train" else tensor[first:]


def split_data(
    X_full: Any,  # noqa: ANN401 - as in split_tensor
    coords_nominal: Any,  # noqa: ANN401
    coords_true: Any,  # noqa: ANN401
    train_frac: float,
    which: str,
) -> tuple[Any, Any, Any]:
    """``split_tensor`` of all three, which must be of one length."""
    lengths = [len(array) for array in (X_full, coords_nominal, coords_true)]
    if len(set(lengths)) != 1:
        raise ContainerError(
            f"X_full, coords_nominal and coords_true have {lengths} groups; they describe "
            "the same groups"
        )
    nominal, true = (
        split_tensor(coords, train_frac, which) for coords in (coords_nominal, coords_true)
    )
    return split_tensor(X_full, train_frac, which), nominal, true


def normalize_data(dset: Mapping[str, Any], N: int) -> npt.NDArray[Any] | ImageStack:
    """``dset["diffraction"]`` (B, N, N, C) times the constant that makes its mean energy (N/2)^2; a
    stack stays a stack.

    Raises ScanError naming the group for amplitudes that cannot be used.
    """
    images = dset["diffraction"]
    scale = scale_to((N / 2) ** 2, float(group_energies(images).mean()))
    return (
        images.scaled(scale)
        if isinstance(images, ImageStack)
        else images * images.dtype.type(scale)
    )


def compute_dataset_intensity_stats(
    diff3d: Any,  # noqa: ANN401 - array or stack
    is_normalized: bool = False,  # noqa: FBT001, FBT002 - PtychoPINN's call
    intensity_scale: float | None = None,
) -> dict[str, Any]:
    """Mean of sum |amplitude|^2 over frames (M, N, N) or groups (B, N, N, C), divided by
    intensity_scale^2 if ``is_normalized``.

    Keys as in PtychoPINN: ``batch_mean_sum_intensity``, ``n_samples``, ``spec_reference``.
    """
    if len(np.shape(diff3d)) not in (3, 4):
        raise ContainerError(
            f"diff3d has shape {np.shape(diff3d)}; (M, N, N) or (M, N, N, C) is needed"
        )
    if is_normalized and intensity_scale is None:
        raise ContainerError(
            "is_normalized needs the intensity_scale that the amplitudes were multiplied by"
        )

    mean = float(array_energies(diff3d, name="diff3d").mean())
    return {
        "batch_mean_sum_intensity": mean / intensity_scale**2
        if is_normalized and intensity_scale is not None
        else mean,
        "n_samples": len(diff3d),
        "spec_reference": "mean over the first axis of the sum of squared amplitudes",
    }


__all__ = [
    "LazyPtychoDataContainer",
    "PtychoDataContainer",
    "PtychoDataset",
    "RawData",
    "compute_dataset_intensity_stats",
    "key_coords_offsets",
    "key_coords_relative",
    "load",
    "normalize_data",
    "split_data",
    "split_tensor",
]
