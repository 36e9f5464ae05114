"""The lazy container: nothing on the device until a batch is asked for, and nothing kept
afterwards.
"""

from __future__ import annotations  # help() shows the names of types, not what they stand for

import functools
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from ptycho.containers.base import STACK_KEYS, Container
from ptycho.containers.eager import combine, tensor_of
from ptycho.containers.inputs import Arguments, ArrayLike, Inputs, check_inputs
from ptycho.errors import check_bool, check_int, check_positive
from ptycho.feeding.device_memory import copy_to_device
from ptycho.feeding.grouping import BatchOrder, Shard, Shuffle
from ptycho.feeding.pipeline import Repeat, batches, stream
from ptycho.feeding.sources import GroupSource, places_of


class LazyPtychoDataContainer(Container):
    """Grouped images that stay where they are until ``as_dataset`` streams them.

    The same constructor and attributes as ``PtychoDataContainer``; arrays and tensors are referred
    to, not copied. ``X``, ``Y_I``, ``Y_phi`` and ``Y`` still give the complete tensor to old code,
    with a DeprecationWarning: the same tensor as long as it is held, and a new one after that.
    ``coords``, ``coords_nominal``, ``coords_true`` and ``probe`` are small: they follow the same
    rule without the warning. All but ``Y`` may be assigned; datasets that are there already keep
    what they were made of. ``intensity_scale`` is the s of ``targets``: sqrt(nphotons) / (N/2).
    """

    def _set_inputs(self, arguments: Arguments, inputs: Inputs) -> None:
        self._given, self._inputs = arguments, inputs
        self._held: weakref.WeakValueDictionary[str, tf.Tensor] = weakref.WeakValueDictionary()
        # Threads that ask at the same time share one tensor. Reentrant: Y is made of Y_I and Y_phi.
        self._building = threading.RLock()

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
        from where the frames are; ``Container.as_dataset`` explains the arguments and errors.
        """
        targets = check_bool("targets", targets)
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
            scale=check_positive("intensity_scale", self.intensity_scale) if targets else None,
        )

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
            epoch=check_int("epoch", epoch, least=0),
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
    def X(self, given: ArrayLike) -> None:  # noqa: N802 - PtychoPINN's name
        self._reassign(X=given)

    @property
    def Y_I(self) -> tf.Tensor:  # noqa: N802 - PtychoPINN's name
        """All ground truth amplitudes, (B, N, N, C) float32. Deprecated: use ``as_dataset``."""
        _warn("Y_I")
        return self._images("Y_I")

    @Y_I.setter
    def Y_I(self, given: ArrayLike) -> None:  # noqa: N802 - PtychoPINN's name
        self._reassign(Y_I=given)

    @property
    def Y_phi(self) -> tf.Tensor:  # noqa: N802 - PtychoPINN's name
        """All ground truth phases, (B, N, N, C) float32. Deprecated: use ``as_dataset``."""
        _warn("Y_phi")
        return self._images("Y_phi")

    @Y_phi.setter
    def Y_phi(self, given: ArrayLike) -> None:  # noqa: N802 - PtychoPINN's name
        self._reassign(Y_phi=given)

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
    def coords(self, given: ArrayLike) -> None:
        self._reassign(coords_nominal=given)

    @property
    def coords_nominal(self) -> tf.Tensor:
        """(B, 1, 2, C) float32, axis 2 is [x, y]."""
        return self._tensor("coords_nominal", lambda: copy_to_device(self._inputs.coords_nominal))

    @coords_nominal.setter
    def coords_nominal(self, given: ArrayLike) -> None:
        self._reassign(coords_nominal=given)

    @property
    def coords_true(self) -> tf.Tensor:
        """(B, 1, 2, C) float32, axis 2 is [x, y]."""
        return self._tensor("coords_true", lambda: copy_to_device(self._inputs.coords_true))

    @coords_true.setter
    def coords_true(self, given: ArrayLike) -> None:
        self._reassign(coords_true=given)

    @property
    def probe(self) -> tf.Tensor:
        """(N, N) complex64."""
        return self._tensor("probe", lambda: copy_to_device(self._inputs.probe))

    @probe.setter
    def probe(self, given: ArrayLike) -> None:
        self._reassign(probeGuess=given)

    def __len__(self) -> int:
        """B."""
        return self._inputs.images.shape[0]

    def __repr__(self) -> str:
        images = self._inputs.images
        return (
            f"<{type(self).__name__} of {len(self)} groups, X {images.shape} not on the device, "
            f"{images.description}>"
        )

    def _contents(self) -> tuple[Mapping[str, GroupSource], Mapping[str, Any]]:
        inputs = self._inputs
        images = inputs.images, inputs.amplitude, inputs.phase
        return dict(zip(STACK_KEYS, images, strict=True)), {
            "coords_nominal": inputs.coords_nominal,
            "coords_true": inputs.coords_true,
            "probe": inputs.probe,
        }

    def _reassign(self, **given: ArrayLike) -> None:
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
        """The tensor of that name as long as it is held anywhere, else a new one that only the
        caller holds.
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
