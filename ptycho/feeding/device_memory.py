"""Host arrays onto the device so that the allocator sees every byte, every time."""

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

ALIGNMENT_BYTES = 64
"""EIGEN_MAX_ALIGN_BYTES of TensorFlow's builds: what dlpack imports must have, and what decides
whether TensorFlow keeps a numpy array (and its allocator sees nothing) or copies it."""
_MOST_FREE = 2
"""Chosen: pieces of memory that wait to be lent again. One is enough for a steady consumer; one
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


def imported(array: npt.NDArray[Any]) -> tf.Tensor:
    """A tensor that is the memory of ``array`` (aligned, C-ordered, writable) and keeps it; it lies
    on the host.
    """
    # The capsule says which device the memory is on; a tf.device around this took four times as
    # long as the import.
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class Lender:
    """Host memory for batches of one shape, lent and taken back: TensorFlow's own, so its allocator
    counts every byte.

    An array is lent for as long as anybody uses its memory, TensorFlow included; only then is the
    memory lent again. So there is as much of it as was ever in use at the same time, and none once
    the last array is back. Memory that waits goes with the lender: who keeps the last batch of a
    dataset that is gone keeps that batch alone.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._shape, self._dtype = shape, dtype
        self._free: list[npt.NDArray[Any]] = []
        # One mark for each that is lent. Threads lend and return at any moment: every step here is
        # one atomic operation.
        self._lent: set[object] = set()

    def lend(self, size: int) -> npt.NDArray[Any]:
        """A writable, 64-byte aligned array of the first ``size`` rows, its values undefined.

        Raises tf.errors.ResourceExhaustedError where more memory is needed and the allocator's
        limit is reached.
        """
        try:
            memory = self._free.pop()
        except IndexError:  # Asking first would race with the other threads.
            memory = empty_on_host(self._shape, self._dtype)[1]
        mark = object()
        self._lent.add(mark)
        array: npt.NDArray[Any] = memory[:size]
        weakref.finalize(array, _give_back, weakref.ref(self), memory, mark).atexit = False
        return array

    def _take_back(self, memory: npt.NDArray[Any], mark: object) -> None:
        if len(self._free) < _MOST_FREE:
            self._free.append(memory)
        # Last: whoever takes the last mark away clears what all others have put down before.
        self._lent.discard(mark)
        if not self._lent:
            self._free.clear()


def _give_back(reference: weakref.ref[Lender], memory: npt.NDArray[Any], mark: object) -> None:
    lender = reference()
    if lender is not None:
        lender._take_back(memory, mark)


def place(array: npt.NDArray[Any], dtype: npt.DTypeLike | None = None) -> tf.Tensor:
    """A copy of ``array`` on the current device, as ``dtype`` (its own by default).

    tf.constant and tf.convert_to_tensor keep a numpy array in place whenever it happens to be
    64-byte aligned, so that on the CPU the allocator counts the bytes or not by luck. Here it
    always counts them: growth is the array, and the peak is no higher. Raises
    tf.errors.ResourceExhaustedError where the device is full.
    """
    staging = _staged(array, np.asarray(array).dtype if dtype is None else np.dtype(dtype))
    device = current_device()
    alias = imported(staging)  # It shares the staging memory: no allocation yet.
    with tf.device(device):
        return tf.identity(alias) if "GPU" in device else tf.raw_ops.DeepCopy(x=alias)


def empty_for_device(
    shape: tuple[int, ...], dtype: npt.DTypeLike
) -> tuple[tf.Tensor, npt.NDArray[Any]]:
    """``empty_on_host`` for a tensor that ``placed`` then takes to the current device, which must
    have room for it.
    """
    device = current_device()
    if "GPU" in device:
        # Asked for and given back: what does not fit is found out before the host has made it.
        with tf.device(device):
            tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype))
    return empty_on_host(shape, dtype)


def placed(tensor: tf.Tensor) -> tf.Tensor:
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
