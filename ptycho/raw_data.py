"""``RawData``: PtychoPINN's scan of loose arrays, and its grouping, with images that are read when
they are used.
"""

# ruff: noqa: N803 - the names of the arguments are PtychoPINN's

from __future__ import annotations  # help() shows the names of types, not what they stand for

import warnings
from os import PathLike
from types import EllipsisType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, check_int
from ptycho.feeding.grouping import coordinates, group_indices
from ptycho.feeding.sources import FrameGather, GroupSource, Images, Indices, ObjectPatches, Wrapped
from ptycho.files import GivenPart
from ptycho.files.arrays import check_layout
from ptycho.files.formats import Parts
from ptycho.files.frames import Interpretation
from ptycho.files.npz import POSITION_KEYS, START_KEYS
from ptycho.files.stacks import CHUNK_BYTES, FrameStack, array_energies, normalization
from ptycho.files.storage import SUFFIX, npz_path, write_scan
from ptycho.scan import Scan


class ImageStack(np.lib.mixins.NDArrayOperatorsMixin, Wrapped):
    """Chosen groups of a source, (B, N, N, C), as an array that does not exist until it is used in
    a computation.

    ``stack[a:b]``, ``stack[indices]`` and ``scaled`` give another such stack and read nothing;
    ``stack[3]`` and ``stack[..., 0]`` give arrays. Arithmetic, numpy's functions and TensorFlow get
    the complete array: that is the cost to avoid, so choose the groups first.
    """

    def __init__(
        self, source: GroupSource, groups: Indices | None = None, scale: float = 1.0
    ) -> None:
        super().__init__(source)
        self._scale = scale
        self._groups = np.arange(source.shape[0]) if groups is None else groups

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, N, C)."""
        return len(self._groups), *self._source.shape[1:]

    @property
    def ndim(self) -> int:
        """4."""
        return 4

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

    def scaled(self, factor: float) -> ImageStack:
        """The same groups, every value times ``factor``."""
        return ImageStack(self._source, self._groups, self._scale * factor)

    def astype(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """All of it as an array."""
        return np.asarray(self, dtype)

    def __len__(self) -> int:
        """B."""
        return len(self._groups)

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - what numpy takes; an array or a stack
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


Frames = npt.NDArray[Any] | FrameStack

key_coords_offsets = "coords_start_offsets"
key_coords_relative = "coords_start_relative"

_DEFAULT_SEED = 0
"""For ``seed=None``: the same groups every time, so that two calls for the two parts of one split
agree."""


class RawData:
    """A scan of M frames under PtychoPINN's names.

    ``xcoords``, ``ycoords``, ``xcoords_start``, ``ycoords_start`` (M,) pixels; ``diff3d`` (M, N, N)
    float amplitude, a memory map where it comes from a file; ``probeGuess`` (N, N) and
    ``objectGuess`` (H, W) or None, complex; ``scan_index`` (M,) whole numbers or None; ``Y`` (M, N,
    N) complex ground truth or None. They are kept as they are given, and may be replaced: each use
    checks them again. Raises ContainerError or ScanError where they do not fit together.
    """

    def __init__(
        self,
        xcoords: npt.NDArray[Any],
        ycoords: npt.NDArray[Any],
        xcoords_start: npt.NDArray[Any],
        ycoords_start: npt.NDArray[Any],
        diff3d: Frames | None,
        probeGuess: npt.NDArray[Any] | None,
        scan_index: npt.NDArray[Any] | None,
        objectGuess: npt.NDArray[Any] | None = None,
        Y: npt.NDArray[Any] | None = None,
        norm_Y_I: float | None = None,
        metadata: Any = None,  # noqa: ANN401 - kept and never read
    ) -> None:
        self.xcoords, self.ycoords = xcoords, ycoords
        self.xcoords_start, self.ycoords_start = xcoords_start, ycoords_start
        self.diff3d, self.probeGuess, self.scan_index = diff3d, probeGuess, scan_index
        self.objectGuess, self.Y, self.norm_Y_I, self.metadata = objectGuess, Y, norm_Y_I, metadata
        self.sample_indices: npt.NDArray[Any] | None = None
        self.subsample_seed: int | None = None
        self._scan: Scan | None = None
        self._scan_energies: npt.NDArray[np.float64] | None = None
        self._check()

    @classmethod
    def from_coords_without_pc(
        cls,
        xcoords: npt.NDArray[Any],
        ycoords: npt.NDArray[Any],
        diff3d: Frames | None,
        probeGuess: npt.NDArray[Any] | None,
        scan_index: npt.NDArray[Any] | None,
        objectGuess: npt.NDArray[Any] | None = None,
    ) -> Self:
        """A scan whose start positions are its positions."""
        return cls(xcoords, ycoords, xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess)

    @classmethod
    def from_file(
        cls,
        train_data_file_path: str | PathLike[str],
        validate_config: bool = False,  # noqa: FBT001, FBT002 - PtychoPINN's call
        current_config: Any = None,  # noqa: ANN401 - PtychoPINN's configuration object
        *,
        cache_dir: str | PathLike[str] | None = None,
    ) -> Self:
        """Open a scan file; the frames stay in it. See ``Scan.open`` for ``cache_dir`` and for what
        is refused.
        """
        if validate_config and current_config is not None:
            raise ContainerError(
                "validate_config compares with metadata, which is not read; leave it out "
                "and compare yourself"
            )

        scan = Scan.open(train_data_file_path, cache_dir=cache_dir)
        order = _scan_order(scan)

        raw = cls(
            xcoords=scan.x,
            ycoords=scan.y,
            xcoords_start=order.get("xcoords_start", scan.x),
            ycoords_start=order.get("ycoords_start", scan.y),
            diff3d=scan.frames,
            probeGuess=scan.probe,
            scan_index=order.get("scan_index", np.zeros(scan.frame_count, np.int64)),
            objectGuess=scan.object,
        )

        raw._scan = scan
        return raw

    @classmethod
    def from_files(
        cls, train_data_file_path: str | PathLike[str], test_data_file_path: str | PathLike[str]
    ) -> tuple[Self, Self]:
        """Two scan files."""
        return cls.from_file(train_data_file_path), cls.from_file(test_data_file_path)

    def to_file(self, file_path: str | PathLike[str]) -> None:
        """Write a contract NPZ (float32 frames), a few frames at a time; ``.npz`` is added where it
        is missing.

        Raises ScanFileError where it cannot be written, ContainerError where frames or probe are
        missing.
        """
        frames = self._check()
        if frames is None or self.probeGuess is None:
            raise ContainerError("diff3d or probeGuess is None; a scan file needs both")

        if isinstance(frames, FrameStack):
            frames.check()
        per_chunk = max(1, CHUNK_BYTES // frames[0].nbytes)

        order = {
            "xcoords_start": self.xcoords_start,
            "ycoords_start": self.ycoords_start,
            "scan_index": self.scan_index,
        }

        write_scan(
            npz_path(file_path),
            (frames[start : start + per_chunk] for start in range(0, len(frames), per_chunk)),
            frame_count=len(frames),
            x=self.xcoords,
            y=self.ycoords,
            probe=self.probeGuess,
            obj=self.objectGuess,
            order={key: values for key, values in order.items() if values is not None},
        )

    def generate_grouped_data(
        self,
        N: int,
        K: int = 4,
        nsamples: int = 1,
        dataset_path: str | None = None,  # noqa: ARG002 - PtychoPINN ignores it too
        seed: int | None = None,
        sequential_sampling: bool = False,  # noqa: FBT001, FBT002 - PtychoPINN's call
        gridsize: int | None = None,
        enable_oversampling: bool = False,  # noqa: FBT001, FBT002 - PtychoPINN's call
        neighbor_pool_size: int | None = None,
    ) -> dict[str, Any]:
        """B = ``nsamples`` groups of C = ``gridsize``^2 frames (1 by default), as ``load`` takes
        them; no image is gathered.

        ``diffraction``, ``X_full`` (B, N, N, C) float32 and ``Y`` complex64, or None, are
        ImageStacks; ``coords_nn``, ``coords_relative`` (B, 1, 2, C) and ``coords_offsets`` (B, 1,
        2, 1) float64, once more as ``coords_start_...``; ``nn_indices`` (B, C) int64;
        ``objectGuess`` as it is. A group is its seed frame and C - 1 of its K nearest neighbours.
        More groups than frames need ``enable_oversampling``, and then K is ``neighbor_pool_size``,
        if given; without neighbours (C = 1) there are as many as frames. Raises ContainerError for
        what cannot be met, ScanError naming the frame for amplitudes that cannot be used.
        """
        frames = self._check()
        if frames is None:
            raise ContainerError("diff3d is None; there are no frames to group")

        if frames.shape[1] != check_int("N", N, least=1):
            raise ContainerError(
                f"N is {N} and the frames have {frames.shape[1]} pixels; give their size, "
                "or crop them first"
            )

        gridsize = 1 if gridsize is None else check_int("gridsize", gridsize, least=1)
        pool = neighbor_pool_size if enable_oversampling else None
        image_count, neighbor_count = self._counts(
            nsamples, K, pool, gridsize**2, is_more_allowed=enable_oversampling
        )

        nn_indices = group_indices(
            np.asarray(self.xcoords, np.float64),
            np.asarray(self.ycoords, np.float64),
            image_count=image_count,
            gridsize=gridsize,
            neighbor_count=neighbor_count,
            seed=_DEFAULT_SEED if seed is None else seed,
            order="sequential" if sequential_sampling else "random",
        )
        return self._grouped(frames, nn_indices)

    def _counts(
        self, nsamples: int, K: int, pool: int | None, channel_count: int, *, is_more_allowed: bool
    ) -> tuple[int, int]:
        """How many groups, and out of how many neighbours."""
        image_count, frame_count = check_int("nsamples", nsamples, least=1), len(self.xcoords)
        name, neighbor_count = "K", K

        if image_count > frame_count and channel_count == 1:
            warnings.warn(
                f"nsamples is {image_count} and there are {frame_count} frames: each is one "
                "group of gridsize 1",
                # past this function and generate_grouped_data, to the line that asked
                stacklevel=3,
            )
            image_count = frame_count
        elif image_count > frame_count and not is_more_allowed:
            raise ContainerError(
                f"nsamples is {image_count} and there are {frame_count} frames; "
                "more groups than frames need enable_oversampling=True, or take fewer"
            )
        elif image_count > frame_count and pool is not None:
            name, neighbor_count = "neighbor_pool_size", pool

        if check_int(name, neighbor_count, least=1) < channel_count > 1:
            raise ContainerError(
                f"{name} is {neighbor_count}; groups of C = {channel_count} frames need {name} >= C"
            )
        return image_count, neighbor_count

    def _grouped(self, frames: Frames, nn_indices: npt.NDArray[np.int64]) -> dict[str, Any]:
        energies = self._energies(frames)
        scale = normalization(energies, nn_indices, frames.shape[1])

        raw = FrameGather(frames, nn_indices, energies=energies)
        scaled = FrameGather(frames, nn_indices, scale, energies=energies)

        coords, offsets, relative = coordinates(self.xcoords, self.ycoords, nn_indices, np.float64)
        start = coords, offsets, relative
        if self.xcoords_start is not self.xcoords or self.ycoords_start is not self.ycoords:
            start = coordinates(self.xcoords_start, self.ycoords_start, nn_indices, np.float64)

        grouped = {
            "diffraction": ImageStack(raw),
            "X_full": ImageStack(scaled),
            "Y": self._ground_truth(nn_indices, coords, frames.shape[1]),
            "coords_nn": coords,
            "coords_offsets": offsets,
            "coords_relative": relative,
            "coords_start_nn": start[0],
            key_coords_offsets: start[1],
            key_coords_relative: start[2],
            "nn_indices": nn_indices,
            "objectGuess": self.objectGuess,
        }

        if self.sample_indices is not None:
            grouped["sample_indices"] = np.array(self.sample_indices)
        return grouped

    def _ground_truth(
        self, nn_indices: npt.NDArray[np.int64], coords: npt.NDArray[np.float64], frame_size: int
    ) -> ImageStack | None:
        """(B, N, N, C) complex64 where each frame was measured: out of ``Y``, else of
        ``objectGuess``.
        """
        if self.Y is not None:
            return ImageStack(FrameGather(self.Y, nn_indices))
        if self.objectGuess is not None:
            # In float32 as the containers have them, so that the same pixels are cut.
            return ImageStack(
                ObjectPatches(self.objectGuess, coords.astype(np.float32), frame_size, "complex")
            )
        return None

    def _energies(self, frames: Frames) -> npt.NDArray[np.float64]:
        """(M,) energies of the frames; one pass, and one alone for frames in a file."""
        scan = self._scan
        if scan is None or frames is not scan.frames:
            return array_energies(frames, name="diff3d")
        if self._scan_energies is None:
            self._scan_energies = scan.energies()
        return self._scan_energies

    def _check(self) -> Frames | None:
        """The frames, all arrays checked against them; a scan without frames has positions only."""
        axes = {key: getattr(self, key) for key in (*POSITION_KEYS, *START_KEYS)}
        for key, positions in axes.items():
            shape = np.shape(positions)
            if shape != np.shape(self.xcoords) or len(shape) != 1 or not shape[0]:
                raise ContainerError(
                    f"{key} has shape {shape}; all positions are (M,), one value per frame"
                )

        if self.diff3d is not None:
            check_layout(self._parts(), Interpretation())
            self._check_ground_truth(self.diff3d)

        for key, positions in axes.items():
            is_bad = ~np.isfinite(positions)
            if is_bad.any():
                frame = int(np.argmax(is_bad))
                raise ContainerError(
                    f"{key} is {positions[frame]} for frame {frame}; leave the frame out or "
                    "give its position"
                )
        return self.diff3d

    def _parts(self) -> Parts:
        """The arrays as those of a scan file."""
        keys = (*POSITION_KEYS, *START_KEYS, "diff3d", "probeGuess", "objectGuess", "scan_index")
        arrays = {key: getattr(self, key) for key in keys}
        parts = {
            key: GivenPart(f"RawData: {key}", array)
            for key, array in arrays.items()
            if array is not None
        }
        return Parts(
            frames=parts["diff3d"],
            positions=(parts["xcoords"], parts["ycoords"]),
            probe=parts.get("probeGuess"),
            object=parts.get("objectGuess"),
            mask=None,
            order=(parts["xcoords_start"], parts["ycoords_start"]),
            scan_index=parts.get("scan_index"),
            notes=(),
        )

    def _check_ground_truth(self, frames: Frames) -> None:
        if self.Y is not None and (self.Y.shape != frames.shape or self.Y.dtype.kind != "c"):
            raise ContainerError(
                f"Y is {self.Y.dtype} {self.Y.shape}; complex {frames.shape}, as diff3d, is needed"
            )

    def __str__(self) -> str:
        names = (
            "xcoords",
            "ycoords",
            "xcoords_start",
            "ycoords_start",
            "diff3d",
            "probeGuess",
            "scan_index",
            "objectGuess",
        )
        arrays = {name: getattr(self, name) for name in names}
        return "\n".join(
            [
                "RawData:",
                *(f"  {name}: {None if a is None else a.shape}" for name, a in arrays.items()),
            ]
        )


def _scan_order(scan: Scan) -> dict[str, npt.NDArray[Any]]:
    """What says how the scan was taken, (M,) each, from an NPZ that ``Scan.open`` has checked;
    empty for other formats.
    """
    if scan.path.suffix.lower() != SUFFIX:
        return {}
    with np.load(scan.path, allow_pickle=False) as archive:
        return {key: archive[key] for key in (*START_KEYS, "scan_index") if key in scan.keys}
