"""Scan positions to groups of C neighbours: indices and offsets only, no images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ptycho.arguments import whole
from ptycho.errors import ContainerError

DEFAULT_NEIGHBOR_COUNT = 7
"""PtychoPINN's default K."""

_CHUNK_GROUPS = 1 << 16
"""Chosen: 65,536 groups are asked of the tree at once, about 8 MiB at K = 7."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """B groups of C frames that lie beside each other. Axis 2 of the coordinates is [x, y], pixels."""

    nn_indices: npt.NDArray[np.int64]
    """(B, C) frame numbers; channel 0 is the seed of the group."""
    coords: npt.NDArray[np.float32]
    """(B, 1, 2, C) position of every frame."""
    offsets: npt.NDArray[np.float32]
    """(B, 1, 2, 1) mean position of the group."""
    relative: npt.NDArray[np.float32]
    """(B, 1, 2, C) = -(coords - offsets)."""

    @property
    def group_count(self) -> int:
        """B."""
        return len(self.nn_indices)

    @property
    def channel_count(self) -> int:
        """C."""
        return int(self.nn_indices.shape[1])


def group(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    *,
    image_count: int,
    gridsize: int,
    neighbor_count: int = DEFAULT_NEIGHBOR_COUNT,
    seed: int = 0,
) -> Groups:
    """Choose ``image_count`` seed frames and C - 1 of the K nearest neighbours of each, C = gridsize^2.

    ``x`` and ``y`` are (M,) float64 pixels. Seeds are drawn without replacement while they last; beyond M groups every
    frame is a seed again, with other neighbours. K = ``neighbor_count`` is cut to the M - 1 neighbours there are. The
    draw has a generator of its own: numpy's global seed is neither read nor set. Raises ContainerError for counts that
    cannot be met.
    """
    gridsize, image_count = whole("gridsize", gridsize, least=1), whole("image_count", image_count, least=1)
    neighbor_count, seed = whole("neighbor_count", neighbor_count, least=0), whole("seed", seed, least=0)
    frame_count, channel_count = len(x), gridsize * gridsize
    _check(frame_count, gridsize, neighbor_count)
    generator = np.random.default_rng(seed)
    seeds = _draw_seeds(generator, frame_count, image_count)
    nn_indices = np.empty((image_count, channel_count), np.int64)
    nn_indices[:, 0] = seeds
    if channel_count > 1:
        tree = cKDTree(np.column_stack((x, y)))
        nearest = min(neighbor_count, frame_count - 1)
        for start in range(0, image_count, _CHUNK_GROUPS):
            chunk = slice(start, start + _CHUNK_GROUPS)
            nn_indices[chunk, 1:] = _draw_neighbors(generator, tree, seeds[chunk], nearest, channel_count - 1)
    return _with_coordinates(x, y, nn_indices)


def _check(frame_count: int, gridsize: int, neighbor_count: int) -> None:
    channel_count = gridsize * gridsize
    if frame_count < channel_count:
        raise ContainerError(f"gridsize {gridsize} needs {channel_count} frames per group and the scan has {frame_count}")
    if channel_count > 1 and neighbor_count < channel_count:
        raise ContainerError(f"gridsize {gridsize} needs a neighbor_count of at least {channel_count}, not {neighbor_count}")


def _draw_seeds(generator: np.random.Generator, frame_count: int, image_count: int) -> npt.NDArray[np.int64]:
    """(B,) int64: whole permutations of the frames, the last one cut."""
    seeds = np.empty(image_count, np.int64)
    for start in range(0, image_count, frame_count):
        part = seeds[start : start + frame_count]
        part[:] = generator.permutation(frame_count)[: len(part)]
    return seeds


def _draw_neighbors(
    generator: np.random.Generator, tree: cKDTree, seeds: npt.NDArray[np.int64], nearest: int, wanted: int
) -> npt.NDArray[np.int64]:
    """(b, wanted) of the ``nearest`` frames around each seed, drawn without replacement, never the seed itself."""
    _, found = tree.query(tree.data[seeds], k=nearest + 1)
    # The seed is not always first, nor always there, where frames share a position: push it (or the farthest) out.
    found = np.asarray(found)
    is_seed = found == seeds[:, None]
    is_seed[~is_seed.any(axis=1), -1] = True
    candidates = found[~is_seed].reshape(len(seeds), nearest)
    order = np.argsort(generator.random(candidates.shape), axis=1)[:, :wanted]
    drawn: npt.NDArray[np.int64] = np.take_along_axis(candidates, order, axis=1).astype(np.int64, copy=False)
    return drawn


def _with_coordinates(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], nn_indices: npt.NDArray[np.int64]) -> Groups:
    # Two float64 arrays of (B, C) at a time, cast once: the mean is that of the positions as given.
    group_count, channel_count = nn_indices.shape
    coords = np.empty((group_count, 1, 2, channel_count), np.float32)
    offsets = np.empty((group_count, 1, 2, 1), np.float32)
    relative = np.empty_like(coords)
    for axis, positions in enumerate((x, y)):
        here = positions[nn_indices]
        mean = here.mean(axis=1, keepdims=True)
        coords[:, 0, axis], offsets[:, 0, axis], relative[:, 0, axis] = here, mean, mean - here
    return Groups(nn_indices, coords, offsets, relative)
