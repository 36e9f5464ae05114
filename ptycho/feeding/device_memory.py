"""Memory of the device and of its allocator: arrays copied there, memory for batches, and what
keeps them alive. The allocator sees every byte, every time.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.feeding.grouping import BatchOrder

ALIGNMENT_BYTES = 64
"""EIGEN_MAX_ALIGN_BYTES of TensorFlow's builds: what dlpack imports must have, and what decides
whether TensorFlow keeps a numpy array (and its allocator sees nothing) or copies it."""
_MOST_FREE = 2
"""Chosen: pieces of memory that wait to be used again. One is enough for a steady consumer; one
that held many batches and lets all but one go should not leave them to us."""


class _Memory:
    """The memory of a tensor, for numpy (its array interface protocol, version 3): writable, kept
    as long as it is viewed.
    """

    def __init__(self, tensor: tf.Tensor) -> None:
        view = np.asarray(memoryview(tensor))
        self._tensor = tensor
        # TensorFlow's own view is read-only.
        self.__array_interface__ = {**view.__array_interface__, "data": (view.ctypes.data, False)}


def empty_on_host(
    shape: tuple[int, ...], dtype: npt.DTypeLike
) -> tuple[tf.Tensor, npt.NDArray[Any]]:
    """A tensor in host memory that TensorFlow's allocator counts, and a writable view of it; its
    values are undefined.

    Write before the tensor is used by anything, never after. Raises
    tf.errors.ResourceExhaustedError where the CPU's allocator has a limit and is full.
    """
    # Eager even while a function is traced.
    with tf.init_scope(), tf.device("CPU:0"):
        tensor = tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype))
    return tensor, np.asarray(_Memory(tensor))


def from_host(array: npt.NDArray[Any]) -> tf.Tensor:
    """A tensor that is the memory of ``array`` (aligned, C-ordered, writable) and keeps it; it lies
    on the host.
    """
    # The capsule says which device the memory is on; a tf.device around this took four times as
    # long as the import.
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class BatchMemory:
    """Host memory for batches of one shape, used again and again: TensorFlow's own, so its
    allocator counts every byte.

    An array that was taken is in use for as long as anybody uses its memory, TensorFlow included;
    only then is the memory handed out again. So there is as much of it as was ever in use at the
    same time, and none once the last array is back. Memory that waits goes with this object:
    keeping a dataset's last batch keeps only that batch alive.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._shape, self._dtype = shape, dtype
        self._free: list[npt.NDArray[Any]] = []
        # One mark for each array that is in use. Threads take and return at any moment: every step
        # here is one atomic operation.
        self._taken: set[object] = set()

    def take(self, size: int) -> npt.NDArray[Any]:
        """A writable, 64-byte aligned array of the first ``size`` rows, its values undefined.

        Raises tf.errors.ResourceExhaustedError where more memory is needed and the allocator's
        limit is reached.
        """
        try:
            memory = self._free.pop()
        except IndexError:  # Asking first would race with the other threads.
            memory = empty_on_host(self._shape, self._dtype)[1]

        mark = object()
        self._taken.add(mark)
        array: npt.NDArray[Any] = memory[:size]
        weakref.finalize(array, _take_back, weakref.ref(self), memory, mark).atexit = False
        return array

    def _take_back(self, memory: npt.NDArray[Any], mark: object) -> None:
        if len(self._free) < _MOST_FREE:
            self._free.append(memory)
        # Last: whoever takes the last mark away clears what all others have put down before.
        self._taken.discard(mark)
        if not self._taken:
            self._free.clear()


def _take_back(reference: weakref.ref[BatchMemory], memory: npt.NDArray[Any], mark: object) -> None:
    owner = reference()
    if owner is not None:
        owner._take_back(memory, mark)


def copy_to_device(array: npt.NDArray[Any], dtype: npt.DTypeLike | None = None) -> tf.Tensor:
    """A copy of ``array`` on the current device, as ``dtype`` (its own by default).

    tf.constant and tf.convert_to_tensor keep a numpy array in place whenever it happens to be
    64-byte aligned, so that on the CPU it depends on the alignment whether the allocator counts
    the bytes. Here it always counts them: growth is the array, and the peak is no higher. Raises
    tf.errors.ResourceExhaustedError where the device is full.
    """
    staging = _staged(array, np.asarray(array).dtype if dtype is None else np.dtype(dtype))
    device = current_device()
    alias = from_host(staging)  # It shares the staging memory: no allocation yet.
    with tf.device(device):
        return tf.identity(alias) if "GPU" in device else tf.raw_ops.DeepCopy(x=alias)


def empty_for_device(
    shape: tuple[int, ...], dtype: npt.DTypeLike
) -> tuple[tf.Tensor, npt.NDArray[Any]]:
    """``empty_on_host`` for a tensor that ``on_device`` then takes to the current device, which
    must have room for it.
    """
    device = current_device()
    if "GPU" in device:
        # Asked for and given back: what does not fit is found out before the host has made it.
        with tf.device(device):
            tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype))
    return empty_on_host(shape, dtype)


def on_device(tensor: tf.Tensor) -> tf.Tensor:
    """``tensor`` on the current device: itself where that is the CPU."""
    device = current_device()
    if "GPU" not in device:
        return tensor
    with tf.device(device):
        return tf.identity(tensor)


def current_device() -> str:
    """Where an op would run now: the innermost tf.device, else the first GPU, else the CPU."""
    if not tf.config.list_logical_devices("GPU"):
        return "CPU:0"
    device: str = tf.zeros(()).device
    return device


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised C-ordered array whose address is a multiple of 64."""
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + size_bytes].view(dtype).reshape(shape)


def _staged(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The values where dlpack can import them: aligned, C-ordered, writable; the array itself where
    it is all that.
    """
    flags = array.flags
    is_aligned = array.ctypes.data % ALIGNMENT_BYTES == 0
    if array.dtype == dtype and is_aligned and flags.c_contiguous and flags.writeable:
        return array
    staging = aligned_empty(array.shape, dtype)
    staging[...] = array
    return staging


# What a dataset reads lives exactly as long as TensorFlow may read it. ``tf.numpy_function``
# registers its callable in the outermost graph for the life of the process, so a callable that held
# the frames would keep them for good. Callables made by ``weak_method`` do not hold them. A tensor
# made by ``keep_alive`` does, as long as a dataset, an iterator or a traced function holds it.


class _KeepingAlive(np.ndarray[Any, Any]):
    """An array that refers to Python objects."""

    objects: tuple[object, ...]


def keep_alive(*objects: object) -> tf.Tensor:
    """A scalar int64 tensor that keeps ``objects`` alive until TensorFlow lets go of it.

    Its memory is a numpy array that owns them, imported without a copy. Pass it through a dataset
    as an element (``from_tensors``), not captured by a function: a function's graph is a cycle that
    only the garbage collector ends.
    """
    # Eager even while a function is traced: the trace then captures the tensor instead of a copy of
    # its value.
    with tf.init_scope():
        array: npt.NDArray[Any] = aligned_empty((), np.int64)
        array[()] = 0
        keeping = array.view(_KeepingAlive)
        keeping.objects = objects
        return from_host(keeping)


def weak_method(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` without keeping its object alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> Any:  # noqa: ANN401 - as the method takes and gives
        live = reference()
        if live is None:
            raise ReferenceError(
                "what this dataset reads is gone: TensorFlow let go of it; make the dataset again"
            )
        return live(*arguments)

    return call


# Batches of tensors that lie on a card are gathered there, so that the host never has more of them
# than a batch.
#
# A function of tf.data runs on the host. A tensor on a card that it captures is copied to the host
# as a complete stack when the dataset is made and again by its iterator, and every batch is then
# gathered out of that copy: 65.5 MB of images took 131 MB. Gathered here, an epoch takes a batch of
# the card and a batch of the host, and 35 B of the host at most for each image (100 to 2,000 of
# them). Both measured with TensorFlow 2.21 on a pretended card.


def is_on_card(tensor: Any) -> bool:  # noqa: ANN401 - TensorFlow ships no types; arrays of numpy have a device, too
    """Whether Python holds the values and they are in a GPU's memory; a tensor that is only traced
    has no values yet.
    """
    return tf.is_tensor(tensor) and not tf.is_symbolic_tensor(tensor) and "GPU" in tensor.device


class Slicer:
    """Gathers the batches of one dataset where its tensors lie."""

    def __init__(
        self,
        order: BatchOrder,
        images: tf.Tensor,
        coords: tf.Tensor,
        amplitude: tf.Tensor | None = None,
    ) -> None:
        """``images`` and ``amplitude`` (B, N, N, C), ``coords`` (B, 1, 2, C), all float32."""
        self._order, self._images, self._coords, self._amplitude = order, images, coords, amplitude

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of what ``numbered`` gives, with all groups as the first extent."""
        shapes = [tuple(self._images.shape), tuple(self._coords.shape)]
        return shapes if self._amplitude is None else [*shapes, (*self._amplitude.shape[:-1], 1)]

    def numbered(self, number: np.int64) -> tuple[npt.NDArray[np.float32], ...]:
        """The ``number``-th batch since the first epoch began, as tf.numpy_function asks for it.

        X (b, N, N, C), coords (b, 1, 2, C) and, if it was asked for, Y_I of channel 0 (b, N, N, 1),
        all float32.
        """
        groups = self._order.numbered(int(number))
        arrays = gathered(self._images, groups), gathered(self._coords, groups)
        if self._amplitude is None:
            return arrays
        return *arrays, gathered(self._amplitude, groups, channel_count=1)


def gathered(
    tensor: tf.Tensor, groups: npt.NDArray[np.int64], *, channel_count: int | None = None
) -> npt.NDArray[np.float32]:
    """The rows ``groups`` (b,) of ``tensor`` (B, ..., C), gathered where it lies; memory of
    TensorFlow's on the host.

    Of the last extent only the first ``channel_count``, or all.
    """
    batch = _gather_on(tensor.device, channel_count)(
        tf.convert_to_tensor(tensor), tf.constant(groups, tf.int64)
    )
    # Copied before the operation runs, without a rendezvous, into memory as that of any other batch
    # on the host; what a function gives back on the host is in pinned memory, whose pool grows by
    # regions.
    with tf.device("CPU:0"):
        return np.asarray(memoryview(tf.identity(batch)))


@functools.cache
def _gather_on(device: str, channel_count: int | None) -> Callable[..., tf.Tensor]:
    """A function of a tensor on ``device`` and group numbers; it is traced once and holds no
    tensor.

    A function, because each of its calls has a rendezvous of its own. Single operations that run
    eagerly on a GPU share one, in which an argument from the host can reach the same operation of
    another thread (tensorflow/tensorflow issue 62778). Batches are gathered in threads of tf.data:
    seen with TensorFlow 2.21 beside a user's loop were a slice with arguments of the other thread,
    a crash, and a thread that waited for ever.
    """

    def gather(tensor: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
        # Without a device operations run on the first card, and a complete tensor of another card
        # is taken there.
        with tf.device(device):
            batch = tf.gather(tensor, groups)
            return batch if channel_count is None else batch[..., :channel_count]

    signature = [tf.TensorSpec(None, tf.float32), tf.TensorSpec([None], tf.int64)]
    concrete: Callable[..., tf.Tensor] = tf.function(
        gather, input_signature=signature, autograph=False
    ).get_concrete_function()
    return concrete
