"""Host arrays onto the device so that the allocator sees every byte, every time."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

ALIGNMENT_BYTES = 64
"""EIGEN_MAX_ALIGN_BYTES of TensorFlow's builds: what dlpack imports must have, and what decides whether TensorFlow keeps
a numpy array (and its allocator sees nothing) or copies it."""


class _Memory:
    """The memory of a tensor, for numpy (its array interface protocol, version 3): writable, kept as long as it is viewed."""

    def __init__(self, tensor: tf.Tensor) -> None:
        view = np.asarray(memoryview(tensor))
        self._tensor = tensor
        # TensorFlow's own view is read-only.
        self.__array_interface__ = {**view.__array_interface__, "data": (view.ctypes.data, False)}


def empty_on_host(shape: Any, dtype: npt.DTypeLike) -> tuple[tf.Tensor, npt.NDArray[Any]]:  # noqa: ANN401 - ints or an int32 tensor
    """A tensor in host memory that TensorFlow's allocator counts, and a writable view of it; its values are undefined.

    Write before the tensor is used by anything, never after. A ``shape`` that is a tensor already saves four fifths of
    the call (measured: 33 us for 160 us). Raises tf.errors.ResourceExhaustedError where the CPU's allocator has a limit and
    is full.
    """
    with tf.device("CPU:0"):
        tensor = tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype))
    return tensor, np.asarray(_Memory(tensor))


def place(array: npt.NDArray[Any], dtype: npt.DTypeLike | None = None) -> tf.Tensor:
    """A copy of ``array`` on the current device, as ``dtype`` (its own by default).

    tf.constant and tf.convert_to_tensor keep a numpy array in place whenever it happens to be 64-byte aligned, so that on
    the CPU the allocator counts the bytes or not by luck. Here it always counts them: growth is the array, and the peak
    is no higher. Raises tf.errors.ResourceExhaustedError where the device is full.
    """
    staging = _staged(array, np.asarray(array).dtype if dtype is None else np.dtype(dtype))
    device = current_device()
    with tf.device("CPU:0"):
        # The import shares the staging memory: no allocation yet.
        alias = tf.experimental.dlpack.from_dlpack(staging.__dlpack__())
    with tf.device(device):
        return tf.identity(alias) if "GPU" in device else tf.raw_ops.DeepCopy(x=alias)


def empty_for_device(shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[tf.Tensor, npt.NDArray[Any]]:
    """``empty_on_host`` for a tensor that ``placed`` then takes to the current device, which must have room for it."""
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


@functools.cache
def fills_in_place() -> bool:
    """Whether tf.numpy_function gives a function the very memory of its arguments, so that it can be written to.

    All builds since 2.18 do on the CPU, without promising it; therefore it is tried, once in a process.
    """

    def write(memory: npt.NDArray[np.float32]) -> np.int64:
        if memory.flags.writeable:
            memory[...] = 1
        return np.int64(0)

    def written() -> tf.Tensor:
        tensor = tf.raw_ops.Empty(shape=(4,), dtype=tf.float32, init=True)
        # Eagerly called it would be given a copy: only within a graph, as in a dataset, is it the memory itself.
        with tf.control_dependencies([tf.numpy_function(write, [tensor], tf.int64)]):
            return tf.identity(tensor)

    # Eager even while a function is traced.
    with tf.init_scope(), tf.device("CPU:0"):
        return bool(tf.reduce_all(tf.function(written)() == 1))


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised C-ordered array whose address is a multiple of 64."""
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + size_bytes].view(dtype).reshape(shape)


def _staged(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The values where dlpack can import them: aligned, C-ordered, writable; the array itself where it is all that."""
    flags = array.flags
    is_aligned = array.ctypes.data % ALIGNMENT_BYTES == 0
    if array.dtype == dtype and is_aligned and flags.c_contiguous and flags.writeable:
        return array
    staging = aligned_empty(array.shape, dtype)
    staging[...] = array
    return staging
