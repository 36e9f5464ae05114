"""Batches gathered into memory that TensorFlow has allocated, and therefore counts.

``Feed`` gathers; large batches are shared by ``GatherThreads``, and ``ReadAhead`` asks the kernel
for the frames of later batches.
"""

import functools
import os
import threading
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ptycho.feeding.device_memory import BatchMemory
from ptycho.feeding.grouping import BatchOrder
from ptycho.feeding.sources import GroupSource, Images, Indices
from ptycho.files import FileArray

# Threads that share one batch: numpy copies without the interpreter's lock, so two gather faster
# than one.


Job = Callable[[], None]


class GatherThreads:
    """``size`` threads beside the caller's own; they end when this object is dropped.

    Two bare locks hand a job over and back. concurrent.futures did the same for 150 us more a batch
    (measured, batches of 4 MiB on two cores), a seventh of what the batch takes.
    """

    def __init__(self, size: int) -> None:
        self._threads = [_Thread() for _ in range(size)]
        self._is_free = threading.Lock()
        for thread in self._threads:
            # The running thread refers to its _Thread alone, or this object would never go.
            threading.Thread(target=thread.work, name="ptycho-gather", daemon=True).start()
            weakref.finalize(self, thread.stop).atexit = False

    def run(self, jobs: list[Job]) -> None:
        """Run all ``jobs``, at most ``size`` + 1, and return when all have ended; raises what the
        first of them raised.

        Where the threads are busy for another caller, this one runs all jobs itself.
        """
        first, *others = jobs
        if not self._is_free.acquire(blocking=False):
            for job in jobs:
                job()
            return

        try:
            busy = self._threads[: len(others)]
            for thread, job in zip(busy, others, strict=True):
                thread.begin(job)
            try:
                first()
            finally:
                # Also after an error: no thread may go on writing once this returns.
                errors = [thread.end() for thread in busy]
        finally:
            self._is_free.release()

        for error in errors:
            if error is not None:
                raise error


class _Thread:
    """One thread's job, and the two locks that pass it over."""

    def __init__(self) -> None:
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._job: Job | None = None
        self._error: BaseException | None = None

    def begin(self, job: Job) -> None:
        self._job = job
        self._go.release()

    def end(self) -> BaseException | None:
        """Wait for the job; what it raised."""
        self._done.acquire()
        error, self._error = self._error, None
        return error

    def stop(self) -> None:
        """Let the thread end; it has no job."""
        self._go.release()

    def work(self) -> None:
        while True:
            self._go.acquire()
            job, self._job = self._job, None
            if job is None:
                return
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - raised again where the batch is waited for
                self._error = error
            del job  # or its arrays would live as long as the thread waits
            self._done.release()


# Asking the kernel for the frames of coming batches, so that a cold file is read while the
# present batch is used.


AHEAD_BYTES = 32 << 20
"""How far ahead of the present batch frames are asked for. Measured on a disk of 1.5 GB/s: 16
frames of 64 KiB under way read as fast as 1,024 do, one at a time 2.3 times slower; 32 MiB leaves
room for a slower disk, and is page cache, not ours."""
_ADVICE_BYTES = 128 << 10
"""Linux cuts one POSIX_FADV_WILLNEED to the device's read-ahead, 128 KiB unless it was set
(mm/readahead.c, force_page_cache_ra); what is longer is asked for in pieces."""
_PROBED_FRAMES = 4
"""Chosen: frames of a batch that are looked at before any is asked for; in a warm file asking costs
and gains nothing."""


class ReadAhead:
    """Advice for one file; holds a descriptor of its own."""

    def __init__(self, file: FileArray) -> None:
        self._frame_bytes = int(np.prod(file.shape[1:])) * file.dtype.itemsize
        self._start_bytes = file.offset_bytes
        self._descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    @staticmethod
    def is_possible() -> bool:
        """Whether this system takes advice at all: macOS and Windows do not."""
        return hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")

    def ask_for(self, frames: npt.NDArray[np.int64]) -> None:
        """Have the kernel read ``frames`` (any shape of frame numbers) unless they seem to be in
        memory already.
        """
        flat = frames.ravel()
        if all(
            self._is_cached(int(frame)) for frame in flat[:: max(1, len(flat) // _PROBED_FRAMES)]
        ):
            return

        wanted = np.unique(flat)
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)

        for first, last in zip(
            wanted[starts].tolist(),
            wanted[np.append(starts[1:], len(wanted)) - 1].tolist(),
            strict=True,
        ):
            at_bytes, end_bytes = (
                self._start_bytes + frame * self._frame_bytes for frame in (first, last + 1)
            )
            for piece_bytes in range(at_bytes, end_bytes, _ADVICE_BYTES):
                length_bytes = min(_ADVICE_BYTES, end_bytes - piece_bytes)
                os.posix_fadvise(
                    self._descriptor, piece_bytes, length_bytes, os.POSIX_FADV_WILLNEED
                )

    def _is_cached(self, frame: int) -> bool:
        """Whether the middle of a frame can be read without waiting; False where the file system
        cannot tell.
        """
        middle_bytes = self._start_bytes + frame * self._frame_bytes + self._frame_bytes // 2
        try:
            return os.preadv(self._descriptor, [bytearray(1)], middle_bytes, os.RWF_NOWAIT) == 1
        except OSError:  # EAGAIN: not in memory. EOPNOTSUPP: unknown, and asking does no harm.
            return False


_SHARED_BYTES = 2 << 20
"""Batches of this size are gathered by more than one thread. Measured on two cores: half the time
at 4 MiB; at 1 MiB waking the other thread costs what it gains."""
_MOST_THREADS = 4
"""Chosen: four threads gather faster than any consumer here trains, and leave a server's other
cores alone."""


class Feed:
    """Gathers the batches of one dataset.

    TensorFlow takes an array that is 64-byte aligned as it is. These are, always, and lie in memory
    of its own: nothing is copied, and the allocator counts every batch, whatever its alignment. A
    build of TensorFlow that copies all the same costs time, and its copy is counted too.
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
        self._memories = [BatchMemory((most, *shape[1:]), np.float32) for shape in shapes]

        self._batch_bytes = source.nbytes // source.shape[0] * most
        self._thread_count = (
            min(_MOST_THREADS, _processors()) if self._batch_bytes >= _SHARED_BYTES else 1
        )
        # Made at the first batch: a dataset that is never iterated has no threads.
        self._threads: GatherThreads | None = None

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

        Their memory is used again when nobody holds the arrays.
        """
        groups = self.order.batch(epoch, step)
        if self._read_ahead is not None:
            self._announce(self._read_ahead, epoch, step)
        images, coords, *amplitude = (memory.take(len(groups)) for memory in self._memories)
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
        if self._threads is None:
            self._threads = GatherThreads(self._thread_count - 1)
        share = -(-len(groups) // self._thread_count)
        parts = [slice(start, start + share) for start in range(0, len(groups), share)]
        self._threads.run(
            [functools.partial(self.source.read, groups[part], images[part]) for part in parts]
        )


def _read_ahead(file: FileArray | None) -> ReadAhead | None:
    if file is None or not ReadAhead.is_possible():
        return None
    try:
        return ReadAhead(file)
    except OSError:
        # Out of descriptors, for example. This is only advice: an error of the file itself is
        # reported when its frames are read.
        return None


def _processors() -> int:
    """Those this process may run on; all of them where the system does not say."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )
