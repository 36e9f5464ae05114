"""The arguments of a container out of the grouped mapping that PtychoPINN's callbacks return."""

# ruff: noqa: N803 - the names of the arguments are PtychoPINN's

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.arguments import photons
from ptycho.containers.inputs import DEFAULT_NPHOTONS, Arguments
from ptycho.energy import array_energies, scale_to
from ptycho.errors import ContainerError
from ptycho.feeding.sources import GroupedArray, GroupSource, Part
from ptycho.image_stacks import ImageStack
from ptycho.raw_data import RawData
from ptycho.truth import ComplexPart, StackPart

Grouped = Mapping[str, Any]

KEYS = (
    "X_full",
    "Y",
    "coords_start_offsets",
    "coords_start_relative",
    "coords_offsets",
    "coords_relative",
    "nn_indices",
)
"""What PtychoPINN's grouping returns; ``Y`` and ``nn_indices`` may be None."""

_ROUNDING = 1e-6
"""PtychoPINN's grouping scales X already, in float32. A constant this near to 1 is its rounding,
and X stays as it is, bit for bit; the tolerance is the one to which norm_Y_I is defined."""


def arguments_from_grouped(
    returned: Any,  # noqa: ANN401 - a mapping, or (mapping, fraction); this finds out
    probe: Any,  # noqa: ANN401 - array or tensor
    *,
    which: str | None = None,
    create_split: bool = False,
    nphotons: float = DEFAULT_NPHOTONS,
) -> Arguments:
    """What ``load`` makes a container of; see there."""
    nphotons = photons("nphotons", nphotons)
    grouped, groups = _unpack(returned, which, create_split)
    x_full = _images(grouped["X_full"])
    energies = group_energies(x_full)
    scale = scale_to((x_full.shape[1] / 2) ** 2, float(energies.mean()))
    if abs(scale - 1) < _ROUNDING:
        scale = 1.0
    part = {
        key: None if grouped[key] is None else grouped[key][groups]
        for key in KEYS
        if key != "X_full"
    }
    chosen = x_full[groups]
    return Arguments(
        X=chosen.scaled(scale) if isinstance(chosen, ImageStack) else GroupedArray(chosen, scale),
        Y_I=_truth(part["Y"], "amplitude"),
        Y_phi=_truth(part["Y"], "phase"),
        norm_Y_I=scale_to(nphotons, scale**2 * float(energies[groups].mean())),
        YY_full=None,
        coords_nominal=part["coords_start_relative"],
        coords_true=part["coords_start_relative"],
        nn_indices=part["nn_indices"],
        global_offsets=part["coords_offsets"],
        local_offsets=part["coords_relative"],
        probeGuess=probe,
    )


def arguments_from_raw(
    raw: RawData, N: int | None, K: int, nsamples: int, *, gridsize: int, seed: int, nphotons: float
) -> Arguments:
    """What ``from_raw_data_without_pc`` makes a container of: all groups of a scan of loose
    arrays.
    """
    if raw.diff3d is None:
        raise ContainerError("diff3d is None; there are no frames to group")
    size = raw.diff3d.shape[1] if N is None else N
    grouped = raw.generate_grouped_data(size, K=K, nsamples=nsamples, seed=seed, gridsize=gridsize)
    return arguments_from_grouped(grouped, raw.probeGuess, nphotons=nphotons)


def group_energies(images: npt.NDArray[Any] | ImageStack) -> npt.NDArray[np.float64]:
    """Energy per image, averaged over the channels of each group: (B,) float64; images are read
    where it is not known.

    Raises ScanError naming the group for amplitudes that cannot be used.
    """
    known = images.group_energies() if isinstance(images, ImageStack) else None
    return (
        array_energies(images, name="X_full, counting groups,") / images.shape[-1]
        if known is None
        else known
    )


def _sliceable(values: Any) -> Any:  # noqa: ANN401 - anything that a mapping may hold
    return (
        ImageStack(values)
        if isinstance(values, GroupSource) and not isinstance(values, ImageStack)
        else values
    )


def _images(x_full: Any) -> npt.NDArray[Any] | ImageStack:  # noqa: ANN401 - this finds out what it is
    images: npt.NDArray[Any] | ImageStack = (
        x_full if isinstance(x_full, ImageStack) else np.asarray(x_full)
    )
    if images.dtype.kind not in "fiu":
        raise ContainerError(f"X_full is {images.dtype}; amplitudes are real, give float32")
    return images


def _truth(truth: Any, part: Part) -> GroupSource | None:  # noqa: ANN401 - array, tensor or stack
    if truth is None:
        return None
    return (
        StackPart(truth, part)
        if isinstance(truth, GroupSource)
        else ComplexPart(np.asarray(truth), part)
    )


def _unpack(returned: Any, which: str | None, create_split: bool) -> tuple[Grouped, slice]:  # noqa: ANN401, FBT001 - see above
    """The grouped mapping and the groups that are asked for."""
    grouped, fraction = returned, None
    if create_split:
        if which not in ("train", "test"):
            raise ContainerError(f"which is {which!r}; a split has 'train' and 'test'")
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ContainerError(
                "create_split needs cb() to return (grouped, train_fraction), not "
                f"{type(returned).__name__}"
            )
        grouped, fraction = returned[0], train_fraction(returned[1])
    if not isinstance(grouped, Mapping):
        raise ContainerError(
            f"cb() returned {type(grouped).__name__}; a mapping of grouped arrays is needed"
        )
    missing = [key for key in KEYS if key not in grouped]
    if missing:
        raise ContainerError(
            f"the grouped mapping lacks {', '.join(missing)}; it has "
            f"{', '.join(grouped) or 'nothing'}"
        )
    group_count = _check_lengths(grouped)
    # Every source can be cut like an array then.
    grouped = {key: _sliceable(values) for key, values in grouped.items()}
    if fraction is None:
        return grouped, slice(None)
    first = int(group_count * fraction)
    if first in (0, group_count):
        raise ContainerError(
            f"a train fraction of {fraction} leaves one part of {group_count} groups empty; "
            "choose another"
        )
    return grouped, slice(first) if which == "train" else slice(first, None)


def train_fraction(fraction: Any) -> float:  # noqa: ANN401 - this finds out what it is
    """``fraction`` between 0 and 1, both excluded; raises ContainerError for anything else."""
    if not isinstance(fraction, int | float | np.floating) or not 0 < fraction < 1:
        raise ContainerError(
            f"the train fraction is {fraction}; it lies between 0 and 1, both excluded"
        )
    return float(fraction)


def _check_lengths(grouped: Grouped) -> int:
    shape = np.shape(grouped["X_full"])
    if len(shape) != 4 or shape[1] != shape[2] or 0 in shape:
        raise ContainerError(f"X_full has shape {shape}; (groups, N, N, channels) is needed")
    for key in KEYS:
        values = grouped[key]
        if values is None and key not in ("Y", "nn_indices"):
            raise ContainerError(
                f"{key} is None; one entry for each of {shape[0]} groups is needed"
            )
        if values is not None and not np.shape(values):
            raise ContainerError(
                f"{key} is {values!r}; one entry for each of {shape[0]} groups is needed"
            )
        if values is not None and np.shape(values)[0] != shape[0]:
            raise ContainerError(
                f"{key} has {np.shape(values)[0]} groups and X_full {shape[0]}; they "
                "describe the same groups"
            )
    return int(shape[0])
