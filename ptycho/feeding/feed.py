"""Batches gathered into memory that TensorFlow has allocated, and therefore counts."""

import functools
import os

import numpy as np
import numpy.typing as npt

from ptycho.crew import Crew
from ptycho.feeding.device_memory import Lender
from ptycho.feeding.sources import GroupSource, Images, Indices
from ptycho.files import FileArray
from ptycho.order import BatchOrder
from ptycho.readahead import AHEAD_BYTES, ReadAhead

_SHARED_BYTES = 2 << 20
"""Batches of this size are gathered by more than one thread. Measured on two cores: half the time
at 4 MiB; at 1 MiB waking the other thread costs what it gains."""
_MOST_THREADS = 4
"""Chosen: four threads gather faster than any consumer here trains, and leave a server's other
cores alone."""


class Feed:
    """Gathers the batches of one dataset.

    TensorFlow takes an array that is 64-byte aligned as it is. These are, always, and lie in memory
    of its own: nothing is copied, and nothing escapes its allocator by luck of alignment. A build
    that copies all the same costs time, and its copy is counted too.
    """

    def __init__(
        self,
        source: GroupSource,
        coords: npt.NDArray[np.float32],
        order: BatchOrder,
        *,
        amplitude: GroupSource | None = None,
    ) -> None:
        # Contiguous, or every batch would copy all of them.
        self.source, self.coords, self.order, self.amplitude = (
            source,
            np.ascontiguousarray(coords),
            order,
            amplitude,
        )
        most = min(order.batch_size, order.group_count)
        shapes = [source.shape, coords.shape, *([] if amplitude is None else [amplitude.shape])]
        self._lenders = [Lender((most, *shape[1:]), np.float32) for shape in shapes]
        self._batch_bytes = source.nbytes // source.shape[0] * most
        self._thread_count = (
            min(_MOST_THREADS, _processors()) if self._batch_bytes >= _SHARED_BYTES else 1
        )
        # Made when it is needed: a dataset that nobody iterates has no threads.
        self._crew: Crew | None = None
        self._steps_ahead = max(2, -(-AHEAD_BYTES // self._batch_bytes))
        self._stride = max(1, self._steps_ahead // 4)
        self._read_ahead = _read_ahead(source.file)

    def begin(self) -> np.int64:
        """The number of the epoch that begins now; raises ScanFileError where the source's file has
        changed.
        """
        self.source.check()
        return self.order.next_epoch()

    def numbered(self, number: np.int64) -> tuple[Images, ...]:
        """The ``number``-th batch since the first epoch began, as tf.numpy_function asks for it:
        see ``batch``.
        """
        return self.batch(*divmod(int(number), self.order.batch_count))

    def batch(self, epoch: int, step: int) -> tuple[Images, ...]:
        """X (b, N, N, C), coords (b, 1, 2, C) and, if it was asked for, Y_I of channel 0 (b, N, N,
        1), all float32.

        The arrays are lent: their memory is used again when nobody holds them.
        """
        groups = self.order.batch(epoch, step)
        if self._read_ahead is not None:
            self._announce(self._read_ahead, epoch, step)
        images, coords, *amplitude = (lender.lend(len(groups)) for lender in self._lenders)
        self._read(groups, images)
        np.take(self.coords, groups, axis=0, out=coords, mode="clip")
        if self.amplitude is not None:
            self.amplitude.read(groups, amplitude[0])
        return images, coords, *amplitude

    def _announce(self, read_ahead: ReadAhead, epoch: int, step: int) -> None:
        """Ask for the frames of later batches, a few batches at a time: looking whether they are
        cached costs, too.
        """
        if step % self._stride:
            return
        last = step + self._steps_ahead + self._stride
        coming = range(
            1 if step == 0 else step + self._steps_ahead, min(last, self.order.batch_count)
        )
        if coming:
            read_ahead.ask_for(
                np.concatenate(
                    [self.source.frames_of(self.order.batch(epoch, later)) for later in coming]
                )
            )

    def _read(self, groups: Indices, images: Images) -> None:
        if self._thread_count == 1:
            self.source.read(groups, images)
            return
        if self._crew is None:
            self._crew = Crew(self._thread_count - 1)
        share = -(-len(groups) // self._thread_count)
        parts = [slice(start, start + share) for start in range(0, len(groups), share)]
        self._crew.run(
            [functools.partial(self.source.read, groups[part], images[part]) for part in parts]
        )


def _read_ahead(file: FileArray | None) -> ReadAhead | None:
    if file is None or not ReadAhead.is_possible():
        return None
    try:
        return ReadAhead(file)
    except (
        OSError
    ):  # Out of descriptors, say. It is only advice; who reads the file says what is wrong with it.
        return None


def _processors() -> int:
    """Those this process may run on; all of them where the system does not say."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )
