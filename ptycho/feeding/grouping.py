"""Which frames form a group, and which groups form a batch: numbers alone, no images.

``group`` finds the neighbours of scan positions; ``BatchOrder`` has the order of the groups in each
epoch, and each worker's share of them.
"""

import bisect
import itertools
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ptycho.errors import ContainerError, check_bool, check_int

Order = Literal["random", "sequential"]

DEFAULT_NEIGHBOR_COUNT = 7
"""PtychoPINN's default K."""

_CHUNK_NEIGHBORS = 1 << 16
"""Chosen: neighbours that are asked of the tree at once, those of 8,192 seeds at K = 7; about 2 MiB
with all that is made of them."""
_LEAF_FRAMES = 64
"""Frames per leaf of the tree. With scipy's default of 16 the tree's nodes take up to 36 bytes per
frame while it grows (72 bytes each, in a vector that doubles), with 64 a quarter of that; queries
are as fast (measured)."""
_MOST_COMBINATIONS = 1 << 62
"""The sum of two numbers below it is still an int64."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """B groups of C frames that lie beside each other. Axis 2 of the coordinates is [x, y],
    pixels.
    """

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
    order: Order = "random",
) -> Groups:
    """Choose ``image_count`` seed frames and C - 1 of the K nearest neighbours of each, C =
    gridsize^2.

    ``x`` and ``y`` are (M,) float64 pixels. Seeds are all different while they last: in random
    order, or frame 0, 1, 2, ... with ``order="sequential"``. Beyond M groups every frame is a seed
    again in the same order, each time with another combination of its neighbours, so that M *
    comb(K, C - 1) groups are the most. K = ``neighbor_count`` is cut to the M - 1 neighbours there
    are. The draw has a generator of its own, made from ``seed``: numpy's global state is neither
    read nor set. Raises ContainerError for counts that cannot be met.
    """
    nn_indices = group_indices(
        x,
        y,
        image_count=image_count,
        gridsize=gridsize,
        neighbor_count=neighbor_count,
        seed=seed,
        order=order,
    )
    return Groups(nn_indices, *coordinates(x, y, nn_indices, np.float32))


def group_indices(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    *,
    image_count: int,
    gridsize: int,
    neighbor_count: int,
    seed: int,
    order: Order,
) -> npt.NDArray[np.int64]:
    """The (B, C) frame numbers of ``group``, without coordinates."""
    gridsize, image_count = (
        check_int("gridsize", gridsize, least=1),
        check_int("image_count", image_count, least=1),
    )
    neighbor_count, seed = (
        check_int("neighbor_count", neighbor_count, least=0),
        check_int("seed", seed, least=0),
    )
    if order not in get_args(Order):
        raise ContainerError(
            f"order is {order!r}; seeds are taken in 'random' or 'sequential' order"
        )

    frame_count, channel_count = len(x), gridsize * gridsize
    nearest = min(neighbor_count, frame_count - 1) if channel_count > 1 else 0
    _check(frame_count, gridsize, neighbor_count, nearest, image_count)

    generator = np.random.default_rng(seed)
    seeds = _first_seeds(generator, frame_count, min(image_count, frame_count), order)
    nn_indices = np.empty((image_count, channel_count), np.int64)
    for start in range(0, image_count, frame_count):
        nn_indices[start : start + frame_count, 0] = seeds[: image_count - start]

    if channel_count > 1:
        _fill_neighbors(generator, x, y, nn_indices, seeds, nearest=nearest)
    return nn_indices


def coordinates(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    nn_indices: npt.NDArray[np.int64],
    dtype: npt.DTypeLike,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """(coords, offsets, relative) of the groups (B, C) as ``dtype``; shapes as in ``Groups``."""
    # Two float64 arrays of (B, C) at a time, cast once: the mean is that of the positions as given.
    group_count, channel_count = nn_indices.shape
    coords = np.empty((group_count, 1, 2, channel_count), dtype)
    offsets = np.empty((group_count, 1, 2, 1), dtype)
    relative = np.empty_like(coords)
    for axis, positions in enumerate((x, y)):
        here = positions[nn_indices]
        mean = here.mean(axis=1, keepdims=True)
        coords[:, 0, axis], offsets[:, 0, axis], relative[:, 0, axis] = here, mean, mean - here
    return coords, offsets, relative


def _check(
    frame_count: int, gridsize: int, neighbor_count: int, nearest: int, image_count: int
) -> None:
    channel_count = gridsize * gridsize
    if frame_count < channel_count:
        raise ContainerError(
            f"gridsize {gridsize} needs {channel_count} frames per group and the scan has "
            f"{frame_count}"
        )
    if channel_count > 1 and neighbor_count < channel_count:
        raise ContainerError(
            f"gridsize {gridsize} needs a neighbor_count of at least {channel_count}, not "
            f"{neighbor_count}"
        )

    combinations = math.comb(nearest, channel_count - 1)
    if combinations >= _MOST_COMBINATIONS:
        raise ContainerError(
            f"neighbor_count {nearest} has more than 2^62 choices of {channel_count - 1} "
            f"neighbours for gridsize {gridsize}; "
            f"{_most_neighbors(nearest, channel_count - 1)} is the most"
        )

    if image_count > frame_count * combinations:
        advice = "take a larger neighbor_count or fewer" if channel_count > 1 else "take fewer"
        raise ContainerError(
            f"image_count is {image_count}; {frame_count} frames with {nearest} neighbours "
            f"each make at most {frame_count * combinations} different groups of gridsize "
            f"{gridsize}, {advice}"
        )


def _most_neighbors(too_many: int, wanted: int) -> int:
    return (
        bisect.bisect_left(
            range(too_many), _MOST_COMBINATIONS, key=lambda count: math.comb(count, wanted)
        )
        - 1
    )


def _first_seeds(
    generator: np.random.Generator, frame_count: int, count: int, order: Order
) -> npt.NDArray[np.int64]:
    """(count,) int64, all different."""
    if order == "sequential":
        return np.arange(count)
    # Copied: a slice would keep the complete permutation, 8 bytes per frame.
    return generator.permutation(frame_count)[:count].copy()


def _fill_neighbors(
    generator: np.random.Generator,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    nn_indices: npt.NDArray[np.int64],
    seeds: npt.NDArray[np.int64],
    *,
    nearest: int,
) -> None:
    """Write neighbours into channels 1 to C - 1.

    ``seeds`` (s,) are channel 0 of the first s groups, and of every further s groups again.

    The combinations of a seed are walked through by number, from a random one in steps of a random
    stride without common divisor with their number: none comes twice before all were there, and
    nothing has to be remembered.
    """
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    # 16 bytes per frame for the points, which the tree refers to, 8 for its order of them, and its
    # nodes.
    tree = cKDTree(points, leafsize=_LEAF_FRAMES, copy_data=False)

    wanted = nn_indices.shape[1] - 1
    table = _combination_counts(nearest, wanted)
    combinations = math.comb(nearest, wanted)
    per_chunk = max(1, _CHUNK_NEIGHBORS // (nearest + 1))

    for start in range(0, len(seeds), per_chunk):
        chosen = seeds[start : start + per_chunk]
        candidates = _candidates(tree, chosen, nearest)
        rank = generator.integers(combinations, size=len(chosen))
        stride = _strides(generator, combinations, len(chosen))
        for first in range(start, len(nn_indices), len(seeds)):
            rows = nn_indices[first : first + len(chosen), 1:]
            picked = np.take_along_axis(
                candidates[: len(rows)], _combination(rank[: len(rows)], table), axis=1
            )
            # By number the farthest neighbour comes first; no channel is to mean anything.
            rows[...] = generator.permuted(picked, axis=1)
            rank = (rank + stride) % combinations


def _candidates(tree: cKDTree, seeds: npt.NDArray[np.int64], nearest: int) -> npt.NDArray[np.int64]:
    """(s, nearest) frames around each seed, never the seed itself."""
    _, found = tree.query(tree.data[seeds], k=nearest + 1)
    # The seed is not always first, nor always there, where frames share a position: push it (or the
    # farthest) out.
    found = np.asarray(found, np.int64)
    is_seed = found == seeds[:, None]
    is_seed[~is_seed.any(axis=1), -1] = True
    candidates: npt.NDArray[np.int64] = found[~is_seed].reshape(len(seeds), nearest)
    return candidates


def _strides(
    generator: np.random.Generator, combinations: int, count: int
) -> npt.NDArray[np.int64]:
    """(count,) numbers from 1 to ``combinations`` without common divisor with it."""
    strides = generator.integers(1, combinations, size=count, endpoint=True)
    while (is_bad := np.gcd(strides, combinations) != 1).any():
        strides[is_bad] = generator.integers(1, combinations, size=int(is_bad.sum()), endpoint=True)
    return strides


def _combination_counts(nearest: int, wanted: int) -> npt.NDArray[np.int64]:
    """(wanted, nearest) int64: comb(number, size), sizes falling from ``wanted`` to 1."""
    combinations = math.comb(nearest, wanted)
    # Cut at the number of combinations, which no rank reaches, so that every entry is an int64.
    return np.array(
        [
            [min(math.comb(number, size), combinations) for number in range(nearest)]
            for size in range(wanted, 0, -1)
        ],
        np.int64,
    )


def _combination(
    rank: npt.NDArray[np.int64], table: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(s, wanted) different numbers below ``nearest``: the combination that has the number ``rank``
    (s,).

    The combinatorial number system (Knuth, TAOCP 4A, 7.2.1.3): rank = comb(c_w, w) + ... +
    comb(c_1, 1), c_w > ... > c_1.
    """
    rest = rank.copy()
    picked = np.empty((len(rank), len(table)), np.int64)
    for column, counts in enumerate(table):
        picked[:, column] = np.searchsorted(counts, rest, side="right") - 1
        rest -= counts[picked[:, column]]
    return picked


# Which groups are in which batch of which epoch, and on which worker: numbers alone, no images.


Shuffle = bool | Literal["chunks"]
"""False: as the groups come; True: any group may follow any other; "chunks": see ``BatchOrder``."""

_MAX_ORDERS = 4
"""Chosen: epochs whose order is remembered; any other is drawn again from the seed."""
_CHUNK_BYTES = 4 << 20
"""Images of a chunk. Chosen: a disk that needs 10 ms to seek and reads 200 MB/s then spends two
thirds of its time reading."""
_MIXED_CHUNKS = 16
"""Chunks that are shuffled into each other. Chosen: 64 MiB of images, a fraction of any page
cache."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` workers, each of which takes every ``count``-th group of the common
    order.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, input_context: Any) -> "Shard":  # noqa: ANN401 - tf.distribute.InputContext; TensorFlow ships no types
        """The part of a tf.distribute.InputContext; all groups for None."""
        if input_context is None:
            return cls()
        try:
            return cls(int(input_context.input_pipeline_id), int(input_context.num_input_pipelines))
        except (AttributeError, TypeError, ValueError):
            raise ContainerError(
                f"input_context is {input_context!r}; a tf.distribute.InputContext is "
                "needed, or None"
            ) from None


class BatchOrder:
    """Which groups are in which batch of which epoch.

    ``shuffle="chunks"`` is for files that no page cache holds: the groups are sorted by ``places``
    (where in the file each begins), cut into chunks of 4 MiB of images, the chunks are drawn in
    random order, and 16 at a time are shuffled into each other. A disk then reads runs and not
    single frames; neighbours in a batch are no longer independent draws.
    """

    def __init__(
        self,
        group_count: int,
        batch_size: int,
        *,
        shuffle: Shuffle,
        seed: int | None,
        drop_remainder: bool,
        shard: Shard = Shard(),
        group_bytes: int = 1,
        places: Callable[[], npt.NDArray[np.int64]] | None = None,
    ) -> None:
        batch_size = check_int("batch_size", batch_size, least=1)
        drop_remainder = check_bool("drop_remainder", drop_remainder)
        _check_shuffle(shuffle, seed, shard)

        self.group_count = _share_of(shard, group_count)
        if drop_remainder and batch_size > self.group_count:
            raise ContainerError(
                f"batch_size {batch_size} with drop_remainder leaves nothing of "
                f"{self.group_count} groups"
            )

        self.batch_size, self.shuffle, self.shard = batch_size, shuffle, shard
        full, rest = divmod(self.group_count, batch_size)
        self.batch_count = full if drop_remainder or not rest else full + 1
        self.static_size = batch_size if drop_remainder or not rest else None

        self._all_count = group_count
        # None: another order for every dataset.
        self._seed = secrets.randbits(64) if seed is None else check_int("seed", seed, least=0)
        self._chunk_groups, self._places = max(1, _CHUNK_BYTES // group_bytes), places
        self._sorted: npt.NDArray[np.intp] | None = None
        self._epochs = itertools.count()
        self._orders: dict[int, npt.NDArray[np.intp]] = {}

    def next_epoch(self) -> np.int64:
        """The number of the epoch that begins now."""
        return np.int64(next(self._epochs))

    def numbered(self, number: int) -> npt.NDArray[np.intp]:
        """``batch`` of the ``number``-th batch since the first epoch began."""
        return self.batch(*divmod(int(number), self.batch_count))

    def batch(self, epoch: int, step: int) -> npt.NDArray[np.intp]:
        """(b,) group numbers of batch ``step``; the same for the same seed, epoch and step."""
        start, end = step * self.batch_size, min((step + 1) * self.batch_size, self.group_count)
        if not self.shuffle:
            return np.arange(start, end) * self.shard.count + self.shard.index
        order = self._orders.get(epoch)
        if order is None:
            order = self._orders[epoch] = self._draw(epoch)
            for old in list(self._orders)[:-_MAX_ORDERS]:
                self._orders.pop(old, None)
        return order[start:end]

    def _draw(self, epoch: int) -> npt.NDArray[np.intp]:
        """(B,) group numbers of this worker in the order of one epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        order = (
            self._draw_chunks(generator)
            if self.shuffle == "chunks"
            else generator.permutation(self._all_count)
        )
        # A copy: a view would keep the others' share as long as ours.
        return order[self.shard.index :: self.shard.count].copy() if self.shard.count > 1 else order

    def _draw_chunks(self, generator: np.random.Generator) -> npt.NDArray[np.intp]:
        if self._sorted is None:
            self._sorted = (
                np.arange(self._all_count)
                if self._places is None
                else np.argsort(self._places(), kind="stable")
            )

        # Cut at another place every epoch, so that no two groups are always in chunks of their own.
        turned = np.roll(self._sorted, int(generator.integers(self._all_count)))
        chunks = [
            turned[start : start + self._chunk_groups]
            for start in range(0, len(turned), self._chunk_groups)
        ]

        drawn = [chunks[index] for index in generator.permutation(len(chunks))]
        pools = [
            np.concatenate(drawn[start : start + _MIXED_CHUNKS])
            for start in range(0, len(drawn), _MIXED_CHUNKS)
        ]
        return np.concatenate([generator.permutation(pool) for pool in pools])


def _check_shuffle(shuffle: object, seed: int | None, shard: Shard) -> None:
    # Asked one by one: an array or a tensor compares element by element, or not at all.
    if not (
        isinstance(shuffle, bool | np.bool_)
        or (isinstance(shuffle, int | str) and shuffle in (0, 1, "chunks"))
    ):
        raise ContainerError(f'shuffle is {shuffle!r}; it is False, True or "chunks"')
    if shard.count > 1 and shuffle and seed is None:
        raise ContainerError(
            f"shuffle over {shard.count} input pipelines needs a seed, the same for all; give "
            "seed=0"
        )


def _share_of(shard: Shard, group_count: int) -> int:
    """How many of ``group_count`` groups one worker gets; raises ContainerError for none."""
    share = len(range(shard.index, group_count, shard.count))
    if not share:
        raise ContainerError(
            f"input pipeline {shard.index} of {shard.count} gets none of {group_count} groups; "
            "use fewer workers"
        )
    return share
