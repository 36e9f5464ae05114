"""What a dataset reads lives exactly as long as TensorFlow may read it.

``tf.numpy_function`` registers its callable in the outermost graph for the life of the process, so
a callable that held the frames would keep them for good. Callables made by ``weakly`` do not; a
tensor made by ``tie`` does, for as long as a dataset, an iterator or a traced function holds the
tensor.
"""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.feeding.device_memory import aligned_empty, imported


class _Tied(np.ndarray[Any, Any]):
    """An array with Python objects in tow."""

    objects: tuple[object, ...]


def tie(*objects: object) -> tf.Tensor:
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
        tied = array.view(_Tied)
        tied.objects = objects
        return imported(tied)


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` without keeping its object alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> Any:  # noqa: ANN401 - whatever the method takes and gives
        live = reference()
        if live is None:
            raise ReferenceError(
                "what this dataset reads is gone: TensorFlow took its tie apart; make the "
                "dataset anew"
            )
        return live(*arguments)

    return call
