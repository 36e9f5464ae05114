"""What both containers are made of: arguments that fit together, from arrays, from a scan, from
``RawData`` or from the grouped mapping of PtychoPINN's callbacks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, check_photons
from ptycho.feeding.grouping import Order, group
from ptycho.feeding.sources import (
    ComplexPart,
    Constant,
    FrameGather,
    GroupedArray,
    GroupSource,
    ObjectPatches,
    Part,
    StackPart,
)
from ptycho.files.stacks import array_energies, normalization, scale_to
from ptycho.raw_data import ImageStack, RawData
from ptycho.scan import Scan

DEFAULT_NPHOTONS = 1e9
"""PtychoPINN's default nphotons."""

ArrayLike = Any
"""An array, a tensor or a GroupSource; TensorFlow ships no types, so a checker cannot tell more."""


class Arguments(NamedTuple):
    """The arguments of a container, in the order and under the names of PtychoPINN's."""

    X: Any
    Y_I: Any
    Y_phi: Any
    norm_Y_I: Any  # noqa: N815 - PtychoPINN's name
    YY_full: Any
    coords_nominal: Any
    coords_true: Any
    nn_indices: Any
    global_offsets: Any
    local_offsets: Any
    probeGuess: Any  # noqa: N815 - PtychoPINN's name


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Images as sources, the rest as host arrays; nothing was copied that had its dtype already."""

    images: GroupSource
    amplitude: GroupSource
    phase: GroupSource
    coords_nominal: npt.NDArray[np.float32]
    coords_true: npt.NDArray[np.float32]
    probe: npt.NDArray[np.complex64]


def arguments_from_scan(
    scan: Scan,
    *,
    image_count: int,
    gridsize: int,
    neighbor_count: int,
    seed: int,
    nphotons: float,
    order: Order = "random",
) -> Arguments:
    """Group the scan, find its scale in one pass over the frames, and refer to it; no image is
    gathered.

    X = c * frames with c such that the mean energy of the grouped frames is (N/2)^2. Raises
    ContainerError for counts that cannot be met, ScanError for frames that cannot be used.
    """
    nphotons = check_photons("nphotons", nphotons)
    groups = group(
        scan.x,
        scan.y,
        image_count=image_count,
        gridsize=gridsize,
        neighbor_count=neighbor_count,
        seed=seed,
        order=order,
    )

    scale = normalization(scan.energies(), groups.nn_indices, scan.frame_size)
    images = FrameGather(scan.frames, groups.nn_indices, scale)

    if scan.object is None:
        amplitude, phase = _no_ground_truth(images.shape)
    else:
        amplitude = ObjectPatches(scan.object, groups.coords, scan.frame_size, "amplitude")
        phase = ObjectPatches(scan.object, groups.coords, scan.frame_size, "phase")

    return Arguments(
        X=images,
        Y_I=amplitude,
        Y_phi=phase,
        # The mean energy of X is (N/2)^2 by its scale.
        norm_Y_I=intensity_scale(nphotons, scan.frame_size),
        YY_full=scan.object,
        coords_nominal=groups.relative,
        coords_true=groups.relative,
        nn_indices=groups.nn_indices,
        global_offsets=groups.offsets,
        local_offsets=groups.relative,
        probeGuess=scan.probe,
    )


def intensity_scale(nphotons: float, frame_size: int) -> float:
    """PtychoPINN's s: sqrt(nphotons) / (N/2), so that (X*s)^2 has ``nphotons`` in a frame of the
    mean energy (N/2)^2.
    """
    return math.sqrt(nphotons) / (frame_size / 2)


def check_inputs(arguments: Arguments) -> Inputs:
    """Images, coordinates and probe of a container, checked against each other; raises
    ContainerError.
    """
    images = _source("X", arguments.X)
    group_count, rows, columns, channel_count = images.shape
    if rows != columns or min(images.shape) < 1:
        raise ContainerError(
            f"X has shape {images.shape}; (groups, N, N, channels) with at least one of "
            "each is needed"
        )

    if (arguments.Y_I is None) != (arguments.Y_phi is None):
        raise ContainerError(
            "one of Y_I and Y_phi is None; give both, or neither for amplitude 1 and phase 0"
        )
    if arguments.Y_I is None:
        amplitude, phase = _no_ground_truth(images.shape)
    else:
        amplitude, phase = _source("Y_I", arguments.Y_I), _source("Y_phi", arguments.Y_phi)
    for name, source in (("Y_I", amplitude), ("Y_phi", phase)):
        if source.shape != images.shape:
            raise ContainerError(
                f"{name} has shape {source.shape} and X {images.shape}; they describe the "
                "same images"
            )

    _check_groups(arguments, group_count)
    probe = _host("probeGuess", arguments.probeGuess, np.complex64, (rows, rows))
    if not probe.any():
        raise ContainerError("probeGuess is zero everywhere; nothing would be illuminated")

    coords_shape = (group_count, 1, 2, channel_count)
    nominal, true = (
        _host(name, getattr(arguments, name), np.float32, coords_shape)
        for name in ("coords_nominal", "coords_true")
    )
    return Inputs(images, amplitude, phase, nominal, true, probe)


def _check_groups(arguments: Arguments, group_count: int) -> None:
    """What is kept as it was given must at least belong to the same groups."""
    for name in ("nn_indices", "global_offsets", "local_offsets"):
        values = getattr(arguments, name)
        if values is None:
            continue
        shape = tuple(np.shape(values))
        if not shape:
            raise ContainerError(
                f"{name} is {values!r}; one entry for each of {group_count} groups is needed"
            )
        if shape[0] != group_count:
            raise ContainerError(
                f"{name} has {shape[0]} groups and X {group_count}; they describe the same groups"
            )
        if name == "global_offsets" and shape != (group_count, 1, 2, 1):
            raise ContainerError(
                f"{name} has shape {shape}; {(group_count, 1, 2, 1)}, one [x, y] per group, "
                "is needed"
            )


def _no_ground_truth(shape: tuple[int, int, int, int]) -> tuple[GroupSource, GroupSource]:
    return Constant(1.0, shape), Constant(0.0, shape)


def _source(name: str, images: ArrayLike) -> GroupSource:
    # A source is asked for its shape alone: numpy would read all of it.
    if isinstance(images, GroupSource):
        if images.dtype != np.float32:
            raise ContainerError(f"{name} is {images.dtype}; its images are real, give float32")
        return images
    array = np.asarray(images)
    if array.ndim != 4:
        raise ContainerError(f"{name} has shape {array.shape}; (groups, N, N, channels) is needed")
    if array.dtype.kind not in "fiu":
        raise ContainerError(f"{name} is {array.dtype}; its images are real, give float32")
    return GroupedArray(array)


def _host(
    name: str, values: ArrayLike, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype == object:
        raise ContainerError(f"{name} is {values!r}; an array of shape {shape} is needed")
    # PtychoPINN hands the probe over as (N, N, 1).
    if array.shape == (*shape, 1):
        array = array[..., 0]
    if array.shape != shape:
        raise ContainerError(f"{name} has shape {array.shape}; X needs {shape}")

    if array.dtype.kind not in ("fiuc" if dtype is np.complex64 else "fiu"):
        raise ContainerError(f"{name} is {array.dtype}; {np.dtype(dtype)} is needed")

    with np.errstate(over="ignore", invalid="ignore"):  # refused below, by name
        converted = array.astype(dtype, copy=False)

    if not np.isfinite(converted).all():
        index = np.unravel_index(int(np.argmin(np.isfinite(converted))), shape)
        found, place = array[index], [int(axis) for axis in index]
        raise ContainerError(
            f"{name} is {found} at {place}; finite values within {np.dtype(dtype)} are needed"
        )
    return converted


# The arguments of a container out of the grouped mapping that PtychoPINN's callbacks return.


# ruff: noqa: N803 - the names of the arguments are PtychoPINN's


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
    nphotons = check_photons("nphotons", nphotons)
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
        Y_I=_ground_truth(part["Y"], "amplitude"),
        Y_phi=_ground_truth(part["Y"], "phase"),
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


def _ground_truth(truth: Any, part: Part) -> GroupSource | None:  # noqa: ANN401 - array, tensor or stack
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
            f"the train fraction is {fraction}; it must be between 0 and 1, both excluded"
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
