"""What both containers are made of: arguments that fit together, from arrays or from a scan."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ptycho.arguments import photons
from ptycho.energy import normalization
from ptycho.errors import ContainerError
from ptycho.feeding.grouping import DEFAULT_NEIGHBOR_COUNT, Order, group
from ptycho.feeding.sources import FrameGather, GroupedArray, GroupSource
from ptycho.scan import Scan
from ptycho.truth import Constant, ObjectPatches

DEFAULT_NPHOTONS = 1e9
"""PtychoPINN's default nphotons."""

Given = Any
"""An array, a tensor or a GroupSource; TensorFlow ships no types, so a checker cannot tell more."""

__all__ = [
    "DEFAULT_NEIGHBOR_COUNT",
    "DEFAULT_NPHOTONS",
    "Arguments",
    "Given",
    "Inputs",
    "arguments_from_scan",
    "check_inputs",
    "intensity_scale",
    "made",
]


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
    nphotons = photons("nphotons", nphotons)
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
        amplitude, phase = _no_truth(images.shape)
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


class Container(Protocol):
    """What both containers have that no argument of theirs gives."""

    intensity_scale: float


Kind = TypeVar("Kind", bound=Container)


def made(kind: Callable[..., Kind], arguments: Arguments, scale: float | None) -> Kind:
    """A container of these arguments, with ``scale`` as its intensity_scale, or the default one for
    None.
    """
    container = kind(*arguments)
    if scale is not None:
        container.intensity_scale = scale
    return container


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
        amplitude, phase = _no_truth(images.shape)
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


def _no_truth(shape: tuple[int, int, int, int]) -> tuple[GroupSource, GroupSource]:
    return Constant(1.0, shape), Constant(0.0, shape)


def _source(name: str, images: Given) -> GroupSource:
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
    name: str, values: Given, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype == object:
        raise ContainerError(f"{name} is {values!r}; an array of shape {shape} is needed")
    # PtychoPINN hands the probe over as (N, N, 1).
    if array.shape == (*shape, 1):
        array = array[..., 0]
    if array.shape != shape:
        raise ContainerError(f"{name} has shape {array.shape}; X asks for {shape}")
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
