"""The object of a scan out of a trained model: batch by batch on the device, on one canvas in host
memory.
"""

from __future__ import annotations  # help() shows the names of types, not what they stand for

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, check_int
from ptycho.files.arrays import patch_corner
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.model import Patches, intensity_scale_of, object_patches

_MOST_CANVAS_PIXELS = 1 << 28
"""Chosen: 3 GiB of canvas; beyond it positions are rather in other units than pixels."""

Container = PtychoDataContainer | LazyPtychoDataContainer


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """The object where the scan has seen it."""

    object: npt.NDArray[np.complex64]
    """(H, W); 0 where no probe has been. Up to a global phase, which frames do not determine."""
    weights: npt.NDArray[np.float32]
    """(H, W) how often a pixel was lit, in visits by the brightest spot of the probe."""
    origin: tuple[int, int]
    """[row, column] of the first pixel, in the pixels that scan positions count: (0, 0) is the
    first of the scan's object."""


def reconstruct(
    model: keras.Model, container: Container, batch_size: int, *, progress: bool = True
) -> Reconstruction:
    """Predict the patches of every group and put them together.

    A patch lies at object[y-N/2:y+N/2, x-N/2:x+N/2] around its rounded position, offset - relative;
    where patches overlap, they are averaged by the brightness of the probe, |probe|^2. On the
    device is one batch at a time, whatever their number; on the host the canvas, 12 bytes a pixel.
    ``progress`` shows a bar on stderr.

    Raises ContainerError for a container without offsets, for a model of other frames or groups,
    and for positions so far apart that no canvas holds them.
    """
    batch_size = check_int("batch_size", batch_size, least=1)
    _check_fit(model, container)
    offsets = np.asarray(container.global_offsets)
    probe = container.probe.numpy()
    canvas = _Canvas(offsets - container.coords_nominal.numpy(), probe)
    batches = _predictions(object_patches(model), container, batch_size, intensity_scale_of(model))
    start = 0
    for patches, coords in _shown(batches, -(-len(container) // batch_size), progress=progress):
        canvas.add(patches, offsets[start : start + len(patches)] - coords)
        start += len(patches)
    return canvas.finish()


def _check_fit(model: keras.Model, container: Container) -> None:
    if container.global_offsets is None:
        raise ContainerError(
            "the container has no global_offsets; without the positions of its groups "
            "nothing can be put together"
        )
    shape, coords = tuple(container.probe.shape), tuple(container.coords_nominal.shape)
    asked = tuple(model.inputs[0].shape[1:])
    found = (*shape, coords[-1])
    if asked != found:
        raise ContainerError(
            f"the model is for frames and channels of {asked} and the container has "
            f"{found}; build it for these"
        )


def _predictions(
    patches_of: Patches, container: Container, batch_size: int, scale: float
) -> Iterator[tuple[npt.NDArray[np.complex64], npt.NDArray[np.float32]]]:
    """Patches (b, N, N, C) and coords (b, 1, 2, C) of one batch after the other, on the host."""
    for images, coords in container.as_dataset(batch_size, prefetch=0):
        found = patches_of(images * scale, coords).numpy(), coords.numpy()
        del images, coords  # before the next batch is made beside them
        yield found


def _shown(batches: Iterator[Any], batch_count: int, *, progress: bool) -> Iterator[Any]:
    if not progress:
        return batches
    from rich.console import Console  # only for those who look
    from rich.progress import track

    return iter(track(batches, "reconstructing", total=batch_count, console=Console(stderr=True)))


class _Canvas:
    """Weighted sums of patches, large enough for all of them."""

    def __init__(
        self, positions: npt.NDArray[np.float32], probe: npt.NDArray[np.complex64]
    ) -> None:
        """``positions`` (B, 1, 2, C) are the centres of all patches, [x, y]."""
        size = len(probe)
        columns, rows = (
            patch_corner(positions[:, 0, axis].astype(np.float64), size) for axis in (0, 1)
        )

        self.origin = int(rows.min()), int(columns.min())
        shape = tuple(
            int(corners.max()) - first + size
            for corners, first in zip((rows, columns), self.origin, strict=True)
        )

        if shape[0] * shape[1] > _MOST_CANVAS_PIXELS:
            raise ContainerError(
                f"the positions of the container span {shape[0]} x {shape[1]} pixels; "
                f"{_MOST_CANVAS_PIXELS} pixels are the most, give positions in pixels of the object"
            )

        brightness = np.abs(probe) ** 2
        self._weight = (brightness / brightness.max()).astype(np.float32)
        self._sum, self._weights = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)

    def add(self, patches: npt.NDArray[np.complex64], positions: npt.NDArray[np.float32]) -> None:
        """Put ``patches`` (b, N, N, C) where ``positions`` (b, 1, 2, C) say."""
        size = len(self._weight)
        corners = patch_corner(positions[:, 0].astype(np.float64), size)
        for group, places in zip(patches, corners, strict=True):
            for channel, (column, row) in enumerate(places.T - self.origin[::-1]):
                area = slice(row, row + size), slice(column, column + size)
                self._sum[area] += self._weight * group[..., channel]
                self._weights[area] += self._weight

    def finish(self) -> Reconstruction:
        """Divide, in place."""
        np.divide(self._sum, self._weights, out=self._sum, where=self._weights > 0)
        return Reconstruction(self._sum, self._weights, self.origin)
