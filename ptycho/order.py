"""Which groups are in which batch of which epoch, and on which worker: numbers alone, no images."""

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ptycho.arguments import switch, whole
from ptycho.errors import ContainerError

Shuffle = bool | Literal["chunks"]
"""False: as the groups come; True: any group may follow any other; "chunks": see ``BatchOrder``."""

_MAX_ORDERS = 4
"""Chosen: epochs whose order is remembered; any other is drawn anew from the seed."""
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
        """The part of a tf.distribute.InputContext; the whole for None."""
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
        batch_size = whole("batch_size", batch_size, least=1)
        drop_remainder = switch("drop_remainder", drop_remainder)
        # Asked one by one: an array or a tensor compares element by element, or not at all.
        if not (
            isinstance(shuffle, bool | np.bool_)
            or (isinstance(shuffle, int | str) and shuffle in (0, 1, "chunks"))
        ):
            raise ContainerError(f'shuffle is {shuffle!r}; it is False, True or "chunks"')
        if shard.count > 1 and shuffle and seed is None:
            raise ContainerError(
                f"shuffle over {shard.count} input pipelines needs a seed, the same for "
                "all; give seed=0"
            )
        self.group_count = len(range(shard.index, group_count, shard.count))
        if not self.group_count:
            raise ContainerError(
                f"input pipeline {shard.index} of {shard.count} gets none of {group_count} "
                "groups; use fewer workers"
            )
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
        self._seed = secrets.randbits(64) if seed is None else whole("seed", seed, least=0)
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
