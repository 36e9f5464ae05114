"""Batches written where they are wanted: memory that TensorFlow has allocated, and therefore counts."""

import concurrent.futures
import mmap
import os
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.order import BatchOrder
from ptycho.readahead import AHEAD_BYTES, ReadAhead
from ptycho.sources import GroupSource, Images, Indices

_SHIFT_BYTES = 4
"""One float32 past a multiple of 64: aligned for numpy and in no build for TensorFlow (EIGEN_MAX_ALIGN_BYTES is 16 at the
least), so it always copies the buffer and never keeps it."""
_SHARED_BYTES = 2 << 20
"""Batches of this size are gathered by more than one thread. Measured on two cores: half the time at 4 MiB; at 1 MiB
waking the other thread costs what it gains."""
_MOST_THREADS = 4
"""Chosen: four threads gather faster than any consumer here trains, and leave a server's other cores alone."""


class Feed:
    """Writes the batches of one dataset."""

    def __init__(
        self, source: GroupSource, coords: npt.NDArray[np.float32], order: BatchOrder, *, amplitude: GroupSource | None = None
    ) -> None:
        self.source, self.coords, self.order, self.amplitude = source, coords, order, amplitude
        self._batch_bytes = source.nbytes // source.shape[0] * order.batch_size
        self._thread_count = min(_MOST_THREADS, _processors()) if self._batch_bytes >= _SHARED_BYTES else 1
        # Made when it is needed: its threads end with the feed.
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._steps_ahead = max(2, -(-AHEAD_BYTES // self._batch_bytes))
        is_on_disk = source.file is not None and ReadAhead.is_possible()
        self._read_ahead = ReadAhead(source.file) if is_on_disk and source.file is not None else None

    def begin(self) -> np.int64:
        """The number of the epoch that begins now; raises ScanFileError where the source's file has changed."""
        self.source.check()
        return self.order.next_epoch()

    def fill(self, epoch: int, step: int, images: Images, coords: Images, amplitude: Images | None = None) -> None:
        """Write one batch: X (b, N, N, C), coords (b, 1, 2, C) and, if given, Y_I of channel 0 (b, N, N, 1), all float32."""
        groups = self.order.batch(int(epoch), int(step))
        if self._read_ahead is not None:
            self._announce(self._read_ahead, int(epoch), int(step))
        self._read(groups, images)
        np.take(self.coords, groups, axis=0, out=coords, mode="clip")
        if amplitude is not None and self.amplitude is not None:
            self.amplitude.read(groups, amplitude)

    def fill_tensors(self, epoch: int, step: int, *buffers: Images) -> np.int64:
        """``fill`` as tf.numpy_function calls it: with views of TensorFlow's own memory."""
        self.fill(epoch, step, *buffers)
        return np.int64(step)

    def _announce(self, read_ahead: ReadAhead, epoch: int, step: int) -> None:
        steps = range(1, self._steps_ahead + 1) if step == 0 else (step + self._steps_ahead,)
        for coming in steps:
            if coming < self.order.batch_count:
                read_ahead.ask_for(self.source.frames_of(self.order.batch(epoch, coming)))

    def _read(self, groups: Indices, images: Images) -> None:
        if self._thread_count == 1:
            self.source.read(groups, images)
            return
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self._thread_count - 1, thread_name_prefix="ptycho-feed")
        share = -(-len(groups) // self._thread_count)
        others = [
            self._pool.submit(self.source.read, groups[start : start + share], images[start : start + share])
            for start in range(share, len(groups), share)
        ]
        try:
            self.source.read(groups[:share], images[:share])
        finally:
            # Whatever happened: nobody may write into the memory once it is handed back.
            concurrent.futures.wait(others)
        for other in others:
            other.result()


class CopiedFeed(Feed):
    """The same batches in buffers of our own, which TensorFlow copies: for builds that copy a function's arguments."""

    def __init__(self, source: GroupSource, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - Feed's own
        super().__init__(source, *arguments, **settings)
        # Buffers that no call is using; never more than there were calls at the same time.
        self._free: list[tuple[Images, ...]] = []

    def arrays(self, epoch: int, step: int) -> tuple[Images, ...]:
        """One batch as ``fill`` writes it, good for as long as its first array is held."""
        size = len(self.order.batch(int(epoch), int(step)))
        try:
            buffer = self._free.pop()
        except IndexError:  # Asking first would race with the other threads.
            buffer = tuple(_mapped_empty((self._most, *shape[1:])) for shape in self._shapes())
        batch = tuple(array[:size] for array in buffer)
        # TensorFlow copies the arrays before it lets go of them, whatever thread it calls from; only then is the
        # buffer free again.
        weakref.finalize(batch[0], self._free.append, buffer).atexit = False
        self.fill(epoch, step, *batch)
        return batch

    @property
    def _most(self) -> int:
        return min(self.order.batch_size, self.order.group_count)

    def _shapes(self) -> list[tuple[int, ...]]:
        more = [] if self.amplitude is None else [self.amplitude.shape]
        return [self.source.shape, self.coords.shape, *more]


def _processors() -> int:
    """Those this process may run on; all of them where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _mapped_empty(shape: tuple[int, ...]) -> Images:
    """Float32 memory of its own mapping, one value past a 64-byte boundary.

    Not from malloc: each of TensorFlow's threads would take it from an arena of its own, which keeps what is freed.
    """
    size_bytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    raw = np.frombuffer(mmap.mmap(-1, size_bytes + _SHIFT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    return raw[_SHIFT_BYTES:].view(np.float32).reshape(shape)
