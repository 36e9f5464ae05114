"""Grouped images that look like the array they would be, for code that was written for arrays."""

from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.feeding.sources import GroupSource, Images, Indices
from ptycho.files import FileArray


class ImageStack(np.lib.mixins.NDArrayOperatorsMixin, GroupSource):
    """Chosen groups of a source, (B, N, N, C), as an array that is not there before somebody
    computes with it.

    ``stack[a:b]``, ``stack[indices]`` and ``scaled`` give another such stack and read nothing;
    ``stack[3]`` and ``stack[..., 0]`` give arrays. Arithmetic, numpy's functions and TensorFlow get
    the whole array: that is the cost to avoid, so choose the groups first.
    """

    def __init__(
        self, source: GroupSource, groups: Indices | None = None, scale: float = 1.0
    ) -> None:
        self._source, self._scale = source, scale
        self._groups = np.arange(source.shape[0]) if groups is None else groups

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return len(self._groups), *self._source.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the source."""
        return self._source.dtype

    @property
    def ndim(self) -> int:
        """4."""
        return 4

    def check(self) -> None:
        """Raise ScanFileError where a file behind the images has changed since it was opened."""
        self._source.check()

    @property
    def file(self) -> FileArray | None:
        """That of the source."""
        return self._source.file

    @property
    def way(self) -> str:
        """That of the source."""
        return self._source.way

    def frames_of(self, groups: Indices) -> npt.NDArray[np.int64]:
        """Those of the source."""
        return self._source.frames_of(self._groups[groups])

    def first_channel(self) -> GroupSource:
        """Channel 0 alone, (B, N, N, 1)."""
        return ImageStack(self._source.first_channel(), self._groups, self._scale)

    def group_energies(self) -> npt.NDArray[np.float64] | None:
        """(B,), where the source knows its own."""
        known = self._source.group_energies()
        return None if known is None else self._scale**2 * known[self._groups]

    def read(self, groups: Indices, out: Images) -> None:
        """Write the images of ``groups`` (b,) into ``out`` (b, N, N, C)."""
        self._source.read(self._groups[groups], out)
        if self._scale != 1:
            out *= out.real.dtype.type(self._scale)

    def scaled(self, factor: float) -> "ImageStack":
        """The same groups, every value times ``factor``."""
        return ImageStack(self._source, self._groups, self._scale * factor)

    def astype(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """All of it as an array."""
        return np.asarray(self, dtype)

    def __len__(self) -> int:
        """B."""
        return len(self._groups)

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - whatever numpy takes; an array or a stack
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is None or isinstance(first, EllipsisType):
            return np.asarray(self)[key]
        chosen = self._groups[first]
        if chosen.ndim == 1 and not rest:
            return ImageStack(self._source, chosen, self._scale)
        if chosen.ndim > 1:
            raise IndexError(
                "groups are chosen along one axis: a number, a slice or a list of numbers"
            )
        # The groups that were chosen, then all else as numpy has it: a number and a list count as
        # indices, a slice does not.
        images = np.asarray(ImageStack(self._source, np.atleast_1d(chosen), self._scale))
        if chosen.ndim == 0:
            return images[(0, *rest)]
        return images[(slice(None) if isinstance(first, slice) else np.arange(len(images)), *rest)]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:  # noqa: ANN401 - numpy's protocol
        arrays = [np.asarray(given) if isinstance(given, ImageStack) else given for given in inputs]
        return getattr(ufunc, method)(*arrays, **settings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape} {self.dtype}, read when it is used>"
