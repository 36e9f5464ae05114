"""What scripts written for PtychoPINN do with arrays that are in memory: each way in a phase of its
own.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ptycho.loader import (
    LazyPtychoDataContainer,
    compute_dataset_intensity_stats,
    load,
    normalize_data,
)
from scenarios.bodies.memory import Memory
from scenarios.bodies.scans import open_scan
from scenarios.bodies.ways import (
    Parameters,
    all_seen,
    consume_batches,
    consume_targets,
    image_count,
    run_ways,
)
from scenarios.bodies.written import folder_of

TRAIN_FRACTION = 0.75
"""Chosen: complete batches in both parts."""
_NEIGHBORS = 7
"""PtychoPINN's K."""


class Held(NamedTuple):
    """What the script has in memory before anything is measured."""

    scan: Mapping[str, Any]
    """The arguments of ``from_raw_data_without_pc``: M frames (M, N, N) float32 with all that
    belongs to them."""
    grouped: Mapping[str, Any]
    """What PtychoPINN's grouping returns: X_full (B, N, N, C) float32, Y complex64, coordinates."""
    amplitude: npt.NDArray[np.float32]
    phase: npt.NDArray[np.float32]
    """(B, N, N, C) ground truth."""


def measure(memory: Memory, parameters: Parameters) -> None:
    """Phases raw_data, grouped, normalized, saved, assigned, images, truth, release.

    ``parameters``: stack_size, frame_size, gridsize, batch_size. The arrays exist before the first
    phase and stay.
    """
    held = _held(memory.workspace, parameters)
    # Attributes that old code reads say that they are deprecated.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        run_ways(
            memory,
            parameters,
            {name: functools.partial(way, held, parameters) for name, way in WAYS.items()},
            with_targets=True,
        )


def _held(workspace: Path, parameters: Parameters) -> Held:
    scan = open_scan(workspace, folder_of(workspace, parameters) / "plain.npz")
    container = LazyPtychoDataContainer.from_scan(
        scan, image_count=image_count(parameters), gridsize=parameters["gridsize"], seed=0
    )
    inputs = container._inputs
    images, amplitude, phase = (
        np.asarray(source) for source in (inputs.images, inputs.amplitude, inputs.phase)
    )
    raw = {
        "xcoords": scan.x,
        "ycoords": scan.y,
        "diff3d": np.asarray(scan.frames),
        "probeGuess": np.asarray(scan.probe),
        "scan_index": np.zeros(scan.frame_count, np.int64),
        "objectGuess": np.asarray(scan.object),
    }
    grouped = {
        "X_full": 2 * images,  # so that its scale has to be found
        "Y": (amplitude * np.exp(1j * phase)).astype(np.complex64),
        "coords_start_offsets": container.global_offsets,
        "coords_start_relative": inputs.coords_nominal,
        "coords_offsets": container.global_offsets,
        "coords_relative": inputs.coords_nominal,
        "nn_indices": container.nn_indices,
    }
    return Held(raw, grouped, amplitude, phase)


def _container(held: Held) -> LazyPtychoDataContainer:
    """One over the arrays as they are."""
    grouped = held.grouped
    return LazyPtychoDataContainer(
        grouped["X_full"],
        held.amplitude,
        held.phase,
        np.float32(1),
        None,
        grouped["coords_start_relative"],
        grouped["coords_start_relative"],
        grouped["nn_indices"],
        grouped["coords_offsets"],
        grouped["coords_relative"],
        held.scan["probeGuess"],
    )


def _raw_data(held: Held, parameters: Parameters, folder: Path) -> object:
    """Loose frames are grouped, and truth is cut out of the object."""
    del folder
    size, gridsize = parameters["frame_size"], parameters["gridsize"]
    container = LazyPtychoDataContainer.from_raw_data_without_pc(
        **held.scan, N=size, K=_NEIGHBORS, nsamples=image_count(parameters), gridsize=gridsize
    )
    return consume_targets(container, parameters)


def _grouped(held: Held, parameters: Parameters, folder: Path) -> object:
    """A mapping of arrays is split, and both parts are fed."""
    del folder
    containers = [
        load(
            lambda: (held.grouped, TRAIN_FRACTION),
            held.scan["probeGuess"],
            which,
            create_split=True,
        )
        for which in ("train", "test")
    ]
    return [consume_targets(container, parameters) for container in containers]


def _normalized(held: Held, parameters: Parameters, folder: Path) -> object:
    """Images times a constant are an array of their own where they were one; the statistics need
    none.
    """
    del folder
    images = normalize_data({"diffraction": held.grouped["X_full"]}, parameters["frame_size"])
    found = compute_dataset_intensity_stats(images)
    if not np.isfinite(found["batch_mean_sum_intensity"]):
        raise ValueError(f"the statistics of normalized images are {found}")
    return images


def _saved(held: Held, parameters: Parameters, folder: Path) -> object:
    """Written to a file, opened again, and fed from it."""
    path = folder / "container.npz"
    _container(held).to_npz(path)
    return consume_batches(LazyPtychoDataContainer.from_npz(path, cache_dir=folder), parameters)


def _images(held: Held, parameters: Parameters, folder: Path) -> object:
    """Three attributes, one after the other, each let go of before the next."""
    del folder
    container = _container(held)
    for name in ("X", "Y_I", "Y_phi"):
        all_seen(int(getattr(container, name).shape[0]), image_count(parameters))
    return container


def _truth(held: Held, parameters: Parameters, folder: Path) -> object:
    """The complex ground truth of all images."""
    del folder
    container = _container(held)
    all_seen(int(container.Y.shape[0]), image_count(parameters))
    return container


def _assigned(held: Held, parameters: Parameters, folder: Path) -> object:
    """Other arrays for X and the truth, referred to as the first ones were, and an epoch of
    them.
    """
    del folder
    container = _container(held)
    container.X, container.Y_I, container.Y_phi = (
        held.amplitude,
        held.grouped["X_full"],
        held.amplitude,
    )
    return consume_batches(container, parameters)


WAYS: Mapping[str, Callable[[Held, Parameters, Path], object]] = {
    "raw_data": _raw_data,
    "grouped": _grouped,
    "normalized": _normalized,
    "saved": _saved,
    "assigned": _assigned,
    "images": _images,
    "truth": _truth,
}
"""Each phase, and what happens in it. What puts all images on the device comes last: its pages stay
with the process."""
