"""``load``: containers from the grouped dictionaries that PtychoPINN's callbacks return."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.arguments import photons
from ptycho.containers.eager import PtychoDataContainer
from ptycho.containers.inputs import DEFAULT_NPHOTONS
from ptycho.containers.lazy import LazyPtychoDataContainer
from ptycho.energy import CHUNK_BYTES, chunk_energies, scale_to
from ptycho.errors import ContainerError
from ptycho.sources import ComplexPart, GroupedArray

Grouped = Mapping[str, Any]
Container = PtychoDataContainer | LazyPtychoDataContainer

KEYS = ("X_full", "Y", "coords_start_offsets", "coords_start_relative", "coords_offsets", "coords_relative", "nn_indices")
"""What PtychoPINN's grouping returns; ``Y`` and ``nn_indices`` may be None."""

_ROUNDING = 1e-6
"""PtychoPINN's grouping scales X already, in float32. A constant this near to 1 is its rounding, and X stays as it is, bit
for bit; the tolerance is the one to which norm_Y_I is defined."""


def load(
    cb: Callable[[], Any],
    probeGuess: Any,  # noqa: ANN401, N803 - array or tensor, under PtychoPINN's name
    which: str | None,
    create_split: bool,  # noqa: FBT001 - PtychoPINN's call is positional
    *,
    nphotons: float = DEFAULT_NPHOTONS,
    container: type[PtychoDataContainer] | type[LazyPtychoDataContainer] = LazyPtychoDataContainer,
) -> Container:
    """A container from grouped arrays, none of which is copied.

    ``cb()`` returns the grouped mapping (see ``KEYS``), or (mapping, train_fraction) with ``create_split``; ``which`` is
    then "train" (the first int(B * fraction) groups) or "test" (the rest), and every per-group array is split alike. X is
    scaled by one constant found over all groups, before the split. Raises ContainerError naming key or value.
    """
    nphotons = photons("nphotons", nphotons)
    grouped, groups = _unpack(cb(), which, create_split)
    x_full = np.asarray(grouped["X_full"])
    if x_full.dtype.kind not in "fiu":
        raise ContainerError(f"X_full is {x_full.dtype}; amplitudes are real, give float32")
    energies = _group_energies(x_full)
    scale = scale_to((x_full.shape[1] / 2) ** 2, float(energies.mean()))
    if abs(scale - 1) < _ROUNDING:
        scale = 1.0
    part = {key: None if grouped[key] is None else grouped[key][groups] for key in KEYS}
    truth = part["Y"]
    return container(
        X=GroupedArray(x_full[groups], scale),
        Y_I=None if truth is None else ComplexPart(np.asarray(truth), "amplitude"),
        Y_phi=None if truth is None else ComplexPart(np.asarray(truth), "phase"),
        norm_Y_I=scale_to(nphotons, scale**2 * float(energies[groups].mean())),
        YY_full=None,
        coords_nominal=part["coords_start_relative"],
        coords_true=part["coords_start_relative"],
        nn_indices=part["nn_indices"],
        global_offsets=part["coords_offsets"],
        local_offsets=part["coords_relative"],
        probeGuess=probeGuess,
    )


def _unpack(returned: Any, which: str | None, create_split: bool) -> tuple[Grouped, slice]:  # noqa: ANN401, FBT001 - see load
    """The grouped mapping and the groups that are asked for."""
    grouped, fraction = returned, None
    if create_split:
        if which not in ("train", "test"):
            raise ContainerError(f"which is {which!r}; a split has 'train' and 'test'")
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ContainerError(f"create_split needs cb() to return (grouped, train_fraction), not {type(returned).__name__}")
        grouped, fraction = returned
        if not isinstance(fraction, int | float | np.floating) or not 0 < fraction < 1:
            raise ContainerError(f"the train fraction is {fraction}; it lies between 0 and 1, both excluded")
    if not isinstance(grouped, Mapping):
        raise ContainerError(f"cb() returned {type(grouped).__name__}; a mapping of grouped arrays is needed")
    missing = [key for key in KEYS if key not in grouped]
    if missing:
        raise ContainerError(f"the grouped mapping lacks {', '.join(missing)}; it has {', '.join(grouped) or 'nothing'}")
    group_count = _check_lengths(grouped)
    if fraction is None:
        return grouped, slice(None)
    first = int(group_count * fraction)
    if first in (0, group_count):
        raise ContainerError(f"a train fraction of {fraction} leaves one part of {group_count} groups empty; choose another")
    return grouped, slice(first) if which == "train" else slice(first, None)


def _check_lengths(grouped: Grouped) -> int:
    shape = np.shape(grouped["X_full"])
    if len(shape) != 4 or shape[1] != shape[2] or 0 in shape:
        raise ContainerError(f"X_full has shape {shape}; (groups, N, N, channels) is needed")
    for key in KEYS:
        values = grouped[key]
        if values is None and key not in ("Y", "nn_indices"):
            raise ContainerError(f"{key} is None; one entry for each of {shape[0]} groups is needed")
        if values is not None and not np.shape(values):
            raise ContainerError(f"{key} is {values!r}; one entry for each of {shape[0]} groups is needed")
        if values is not None and len(values) != shape[0]:
            raise ContainerError(f"{key} has {len(values)} groups and X_full {shape[0]}; they describe the same groups")
    return int(shape[0])


def _group_energies(x_full: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Energy per image, averaged over the channels of each group: (B,) float64, in chunks that stay small."""
    group_bytes = max(1, x_full[0].nbytes)
    per_chunk = max(1, CHUNK_BYTES // group_bytes)
    energies = np.empty(len(x_full))
    for start in range(0, len(x_full), per_chunk):
        chunk = x_full[start : start + per_chunk]
        energies[start : start + per_chunk] = chunk_energies(chunk, first=start, name="X_full, counting groups,")
    energies /= x_full.shape[-1]
    return energies
