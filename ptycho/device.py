"""Host arrays onto the device so that the allocator sees every byte, every time."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

ALIGNMENT_BYTES = 64
"""EIGEN_MAX_ALIGN_BYTES of TensorFlow's builds: what dlpack imports must have, and what decides whether TensorFlow keeps
a numpy array (and its allocator sees nothing) or copies it."""


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised C-ordered array whose address is a multiple of 64."""
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + size_bytes].view(dtype).reshape(shape)


def place(array: npt.NDArray[Any], dtype: npt.DTypeLike | None = None) -> tf.Tensor:
    """A copy of ``array`` on the current device, as ``dtype`` (its own by default).

    tf.constant and tf.convert_to_tensor keep a numpy array in place whenever it happens to be 64-byte aligned, so that on
    the CPU the allocator counts the bytes or not by luck. Here it always counts them: growth is the array, and the peak
    is no higher. Raises tf.errors.ResourceExhaustedError where the device is full.
    """
    staging = _staged(array, np.asarray(array).dtype if dtype is None else np.dtype(dtype))
    device = _current_device()
    with tf.device("CPU:0"):
        # The import shares the staging memory: no allocation yet.
        alias = tf.experimental.dlpack.from_dlpack(staging.__dlpack__())
    with tf.device(device):
        return tf.identity(alias) if "GPU" in device else tf.raw_ops.DeepCopy(x=alias)


def _current_device() -> str:
    """Where an op would run now: the innermost tf.device, else the first GPU, else the CPU."""
    if not tf.config.list_logical_devices("GPU"):
        return "CPU:0"
    device: str = tf.zeros(()).device
    return device


def _staged(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The values where dlpack can import them: aligned, C-ordered, writable; the array itself where it is all that."""
    flags = array.flags
    is_aligned = array.ctypes.data % ALIGNMENT_BYTES == 0
    if array.dtype == dtype and is_aligned and flags.c_contiguous and flags.writeable:
        return array
    staging = aligned_empty(array.shape, dtype)
    staging[...] = array
    return staging
