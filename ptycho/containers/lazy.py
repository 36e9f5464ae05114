"""The lazy container: nothing on the device until a batch is asked for, and nothing kept
afterwards.
"""

# ruff: noqa: N803 - the names of the arguments are PtychoPINN's

import functools
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, Self

import tensorflow as tf

from ptycho.containers.base import KEPT_NAMES, STACK_KEYS, arguments_from_npz, save_container
from ptycho.containers.eager import combine, tensor_of
from ptycho.containers.inputs import (
    DEFAULT_NEIGHBOR_COUNT,
    DEFAULT_NPHOTONS,
    Arguments,
    Given,
    arguments_from_raw,
    arguments_from_scan,
    check_inputs,
    intensity_scale,
    made,
)
from ptycho.errors import factor, switch, whole
from ptycho.feeding.device_memory import place
from ptycho.feeding.grouping import BatchOrder, Order, Shard, Shuffle
from ptycho.feeding.pipeline import Repeat, batches, stream
from ptycho.feeding.sources import places_of
from ptycho.raw_data import RawData
from ptycho.scan import Scan


class LazyPtychoDataContainer:
    """Grouped images that stay where they are until ``as_dataset`` streams them.

    The same constructor and attributes as ``PtychoDataContainer``; arrays and tensors are referred
    to, not copied. ``X``, ``Y_I``, ``Y_phi`` and ``Y`` still give the whole tensor to old code,
    with a DeprecationWarning: the same tensor as long as somebody holds it, and none after that.
    ``coords``, ``coords_nominal``, ``coords_true`` and ``probe`` are small: they follow the same
    rule without the warning. All but ``Y`` may be assigned; datasets that are there already keep
    what they were made of. ``intensity_scale`` is the s of ``targets``: sqrt(nphotons) / (N/2).
    """

    def __init__(
        self,
        X: Given,
        Y_I: Given,
        Y_phi: Given,
        norm_Y_I: Given,
        YY_full: Given,
        coords_nominal: Given,
        coords_true: Given,
        nn_indices: Given,
        global_offsets: Given,
        local_offsets: Given,
        probeGuess: Given,
    ) -> None:
        self._given = Arguments(
            X,
            Y_I,
            Y_phi,
            norm_Y_I,
            YY_full,
            coords_nominal,
            coords_true,
            nn_indices,
            global_offsets,
            local_offsets,
            probeGuess,
        )
        self._inputs = check_inputs(self._given)
        self._held: weakref.WeakValueDictionary[str, tf.Tensor] = weakref.WeakValueDictionary()
        # Threads that ask at the same time share one tensor. Reentrant: Y is made of Y_I and Y_phi.
        self._building = threading.RLock()
        self.norm_Y_I, self.YY_full, self.nn_indices = norm_Y_I, YY_full, nn_indices
        self.global_offsets, self.local_offsets = global_offsets, local_offsets
        self.intensity_scale = intensity_scale(DEFAULT_NPHOTONS, self._inputs.images.shape[1])

    @classmethod
    def from_scan(
        cls,
        scan: Scan,
        *,
        image_count: int,
        gridsize: int = 2,
        neighbor_count: int = DEFAULT_NEIGHBOR_COUNT,
        seed: int = 0,
        nphotons: float = DEFAULT_NPHOTONS,
        order: Order = "random",
    ) -> Self:
        """Group a scan, frames left in their file; see ``ptycho.feeding.grouping.group`` for the
        counts.
        """
        arguments = arguments_from_scan(
            scan,
            image_count=image_count,
            gridsize=gridsize,
            neighbor_count=neighbor_count,
            seed=seed,
            nphotons=nphotons,
            order=order,
        )
        return made(cls, arguments, intensity_scale(nphotons, scan.frame_size))

    @classmethod
    def from_raw_data_without_pc(
        cls,
        xcoords: Given,
        ycoords: Given,
        diff3d: Given,
        probeGuess: Given,
        scan_index: Given,
        objectGuess: Given = None,
        N: int | None = None,
        K: int = DEFAULT_NEIGHBOR_COUNT,
        nsamples: int = 1,
        *,
        gridsize: int = 1,
        seed: int = 0,
        nphotons: float = DEFAULT_NPHOTONS,
    ) -> Self:
        """Group a scan of loose arrays, as ``RawData.generate_grouped_data`` does it."""
        raw = RawData.from_coords_without_pc(
            xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess
        )
        arguments = arguments_from_raw(
            raw, N, K, nsamples, gridsize=gridsize, seed=seed, nphotons=nphotons
        )
        return made(cls, arguments, intensity_scale(nphotons, arguments.X.shape[1]))

    @classmethod
    def from_npz(
        cls, file_path: str | PathLike[str], *, cache_dir: str | PathLike[str] | None = None
    ) -> Self:
        """Open what ``to_npz`` wrote; the images stay in the file.

        ``cache_dir`` is where compressed images are unpacked, see ``Scan.open``. Raises ScanError
        or ScanFileError for a file that cannot be used.
        """
        return made(cls, *arguments_from_npz(file_path, cache_dir))

    def as_dataset(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle = False,
        seed: int | None = None,
        prefetch: int = 1,
        drop_remainder: bool = False,
        targets: bool = False,
        repeat: Repeat = False,
        input_context: Any = None,  # noqa: ANN401 - tf.distribute.InputContext; TensorFlow ships no types
    ) -> tf.data.Dataset:
        """Batches (X (b, N, N, C) float32, coords (b, 1, 2, C) float32), gathered one at a time
        from where the frames are.

        ``targets`` makes them what ``model.fit`` takes: ((X*s, coords), (centred Y_I of channel 0
        (b, N, N, 1), X*s, (X*s)^2)) with s = ``intensity_scale``. ``shuffle`` draws a new order
        every epoch, the same sequence of orders for the same ``seed``; "chunks" draws one that a
        disk can follow, see ``ptycho.feeding.grouping.BatchOrder``. ``repeat`` is how many epochs a
        pass has, without end for True. ``input_context`` is the tf.distribute.InputContext of a
        worker: all workers together see every group once.

        Raises ContainerError for sizes that cannot be met, ScanFileError where the scan file has
        changed since it was opened; what goes wrong in a later epoch comes out of the iterator as a
        tf.errors.OpError with the same sentence.
        """
        targets = switch("targets", targets)
        order = self._order(
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            shard=Shard.of(input_context),
        )
        return stream(
            self._inputs.images,
            self._inputs.coords_nominal,
            order=order,
            prefetch=prefetch,
            repeat=repeat,
            amplitude=self._inputs.amplitude if targets else None,
            scale=factor("intensity_scale", self.intensity_scale) if targets else None,
        )

    def as_tf_dataset(self, batch_size: int, shuffle: bool = True) -> tf.data.Dataset:  # noqa: FBT001, FBT002 - PtychoPINN's call
        """``as_dataset`` with targets, under the name and with the defaults that PtychoPINN's users
        know.
        """
        return self.as_dataset(batch_size, shuffle=shuffle, targets=True)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle = False,
        seed: int = 0,
        epoch: int = 0,
        drop_remainder: bool = False,
    ) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """One epoch of (X (b, N, N, C) float32, coords (b, 1, 2, C) float32) for loops of your own,
        without tf.data.

        Twice as fast as ``as_dataset`` where batches are small; no batch is made before it is asked
        for. The order is that of the dataset's epoch ``epoch`` with the same ``seed``. Raises as
        ``as_dataset`` does, when it is called.
        """
        order = self._order(
            batch_size, shuffle=shuffle, seed=seed, drop_remainder=drop_remainder, shard=Shard()
        )
        return batches(
            self._inputs.images,
            self._inputs.coords_nominal,
            order=order,
            epoch=whole("epoch", epoch, least=0),
        )

    def _order(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle,
        seed: int | None,
        drop_remainder: bool,
        shard: Shard,
    ) -> BatchOrder:
        images = self._inputs.images
        return BatchOrder(
            len(self),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            shard=shard,
            group_bytes=images.nbytes // len(self),
            places=None if images.file is None else functools.partial(places_of, images),
        )

    @property
    def X(self) -> tf.Tensor:  # noqa: N802 - PtychoPINN's name
        """All amplitudes, (B, N, N, C) float32. Deprecated: use ``as_dataset``."""
        _warn("X")
        return self._images("X")

    @X.setter
    def X(self, given: Given) -> None:  # noqa: N802 - PtychoPINN's name
        self._replace(X=given)

    @property
    def Y_I(self) -> tf.Tensor:  # noqa: N802 - PtychoPINN's name
        """All ground truth amplitudes, (B, N, N, C) float32. Deprecated: use ``as_dataset``."""
        _warn("Y_I")
        return self._images("Y_I")

    @Y_I.setter
    def Y_I(self, given: Given) -> None:  # noqa: N802 - PtychoPINN's name
        self._replace(Y_I=given)

    @property
    def Y_phi(self) -> tf.Tensor:  # noqa: N802 - PtychoPINN's name
        """All ground truth phases, (B, N, N, C) float32. Deprecated: use ``as_dataset``."""
        _warn("Y_phi")
        return self._images("Y_phi")

    @Y_phi.setter
    def Y_phi(self, given: Given) -> None:  # noqa: N802 - PtychoPINN's name
        self._replace(Y_phi=given)

    @property
    def Y(self) -> tf.Tensor:  # noqa: N802 - PtychoPINN's name
        """All of Y_I * exp(i Y_phi), (B, N, N, C) complex64. Deprecated: use ``as_dataset``."""
        _warn("Y")
        return self._tensor("Y", lambda: combine(self._images("Y_I"), self._images("Y_phi")))

    @property
    def coords(self) -> tf.Tensor:
        """The same tensor as ``coords_nominal``."""
        return self.coords_nominal

    @coords.setter
    def coords(self, given: Given) -> None:
        self._replace(coords_nominal=given)

    @property
    def coords_nominal(self) -> tf.Tensor:
        """(B, 1, 2, C) float32, axis 2 is [x, y]."""
        return self._tensor("coords_nominal", lambda: place(self._inputs.coords_nominal))

    @coords_nominal.setter
    def coords_nominal(self, given: Given) -> None:
        self._replace(coords_nominal=given)

    @property
    def coords_true(self) -> tf.Tensor:
        """(B, 1, 2, C) float32, axis 2 is [x, y]."""
        return self._tensor("coords_true", lambda: place(self._inputs.coords_true))

    @coords_true.setter
    def coords_true(self, given: Given) -> None:
        self._replace(coords_true=given)

    @property
    def probe(self) -> tf.Tensor:
        """(N, N) complex64."""
        return self._tensor("probe", lambda: place(self._inputs.probe))

    @probe.setter
    def probe(self, given: Given) -> None:
        self._replace(probeGuess=given)

    def to_npz(self, file_path: str | PathLike[str]) -> None:
        """Write everything to an NPZ, the images a few groups at a time; None is left out. See
        ``from_npz``.

        Raises ScanFileError where it cannot be written (what was there stays then) or the scan file
        has changed.
        """
        inputs = self._inputs
        save_container(
            file_path,
            dict(zip(STACK_KEYS, (inputs.images, inputs.amplitude, inputs.phase), strict=True)),
            {
                "coords_nominal": inputs.coords_nominal,
                "coords_true": inputs.coords_true,
                "probe": inputs.probe,
                **{name: getattr(self, name) for name in KEPT_NAMES},
            },
        )

    def __len__(self) -> int:
        """B."""
        return self._inputs.images.shape[0]

    def __repr__(self) -> str:
        images = self._inputs.images
        return (
            f"<{type(self).__name__} of {len(self)} groups, X {images.shape} not on the device, "
            f"{images.way}>"
        )

    def _replace(self, **given: Given) -> None:
        """Take another argument, as the constructor does: checked against the rest, nothing changed
        where it does not fit.
        """
        with self._building:
            arguments = self._given._replace(**given)
            self._inputs = check_inputs(arguments)
            self._given = arguments
            # Tensors that are still held were made of what was there before.
            self._held.clear()

    def _images(self, name: str) -> tf.Tensor:
        source = {
            "X": self._inputs.images,
            "Y_I": self._inputs.amplitude,
            "Y_phi": self._inputs.phase,
        }[name]
        return self._tensor(name, lambda: tensor_of(getattr(self._given, name), source))

    def _tensor(self, name: str, build: Callable[[], tf.Tensor]) -> tf.Tensor:
        """The tensor of that name while somebody holds it, else a new one that only the caller
        holds.
        """
        with self._building:
            tensor = self._held.get(name)
            if tensor is None:
                tensor = self._held[name] = build()
            return tensor


def _warn(name: str) -> None:
    warnings.warn(
        f"{name} puts every image on the device at once; stream batches with "
        "as_dataset(batch_size) instead",
        DeprecationWarning,
        stacklevel=3,  # Past this function and the property, to the line that asked.
    )
