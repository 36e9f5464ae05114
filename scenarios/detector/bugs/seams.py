"""Where a bug is put in: the places at which a programmer would have written it. Each child is a
process of its own.
"""

# ruff: noqa: ANN401 - containers, tensors and datasets pass through; TensorFlow ships no types

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ptycho.containers import eager
from ptycho.feeding.feed import Feed
from ptycho.feeding.sources import GroupSource
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.scan import Scan

Lazy = LazyPtychoDataContainer
Kept = list[Any]
"""What a bug holds on to: a list of the closure, as a forgotten cache would be."""
_STEP = 64


def after_construction(act: Callable[[Any], None], kind: type[Any] = Lazy) -> None:
    """``act(container)`` at the end of the container's constructor."""
    original = kind.__init__

    def construct(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        act(self)

    kind.__init__ = construct


def after_batch(act: Callable[[Feed, int, int, tuple[Any, ...]], None]) -> None:
    """``act(feed, epoch, step, arrays)`` when a batch has been gathered, in the thread that
    gathers.
    """
    original = Feed.batch

    def batch(self: Feed, epoch: int, step: int) -> tuple[Any, ...]:
        arrays = original(self, epoch, step)
        act(self, epoch, step, arrays)
        return arrays

    setattr(Feed, "batch", batch)  # noqa: B010 - a checker would refuse the assignment


def at_epoch(act: Callable[[Feed, int], None]) -> None:
    """``act(feed, epoch)`` when an epoch begins."""
    original = Feed.begin

    def begin(self: Feed) -> np.int64:
        epoch = original(self)
        act(self, int(epoch))
        return epoch

    setattr(Feed, "begin", begin)  # noqa: B010 - as above


def instead_of_dataset(
    make: Callable[[Any, Any, int, dict[str, Any]], Any], kind: type[Any] = Lazy
) -> None:
    """``make(container, dataset, batch_size, settings)`` in place of what ``as_dataset`` gives."""
    original = kind.as_dataset

    def as_dataset(self: Any, batch_size: int, **settings: Any) -> Any:
        return make(self, original(self, batch_size, **settings), batch_size, settings)

    kind.as_dataset = as_dataset


def after_opening(act: Callable[[Scan], None]) -> None:
    """``act(scan)`` when a scan has been opened."""
    original = Scan.open.__func__  # type: ignore[attr-defined]

    def open_scan(cls: type[Scan], *arguments: Any, **named: Any) -> Scan:
        scan: Scan = original(cls, *arguments, **named)
        act(scan)
        return scan

    setattr(Scan, "open", classmethod(open_scan))  # noqa: B010 - as above


def images_of(container: Any) -> GroupSource:
    """Its X as a source."""
    source: GroupSource = container._inputs.images
    return source


def tensor_of(source: GroupSource) -> Any:
    """The whole source on the device, through nothing but device memory."""
    return eager.tensor_of(None, source)


def filled(source: GroupSource, out: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``out`` with all images of the source, of which 64 groups at a time are read beside it."""
    for start in range(0, len(out), _STEP):
        part = np.empty((min(_STEP, len(out) - start), *source.shape[1:]), np.float32)
        source.read(np.arange(start, start + len(part)), part)
        out[start : start + len(part)] = part
    return out


def ones(size_bytes: int) -> npt.NDArray[np.uint8]:
    """That much host memory, every page of it touched."""
    return np.ones(size_bytes, np.uint8)


def on_device(size_bytes: int) -> Any:
    """That much of the device."""
    with tf.init_scope():
        return tf.raw_ops.Empty(shape=[size_bytes], dtype=tf.uint8, init=True)


EAGER = PtychoDataContainer
