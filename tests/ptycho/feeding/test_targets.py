"""Training batches: the same numbers as the eager preparation of PtychoPINN's scripts, bit for
bit.
"""

import numpy as np
import pytest
import tensorflow as tf

from ptycho.errors import ContainerError
from ptycho.feeding.pipeline import center_channels
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer

S = np.sqrt(1e9) / 16


@pytest.fixture(params=[1, 2])
def containers(request, scan):
    return [
        kind.from_scan(scan, image_count=50, gridsize=request.param)
        for kind in (PtychoDataContainer, LazyPtychoDataContainer)
    ]


def eager_preparation(eager, scale=S):
    """As scripts do it with whole tensors."""
    scaled = eager.X * scale
    return (scaled, eager.coords), (
        center_channels(eager.Y_I, eager.coords)[..., :1],
        scaled,
        tf.square(scaled),
    )


def joined(dataset):
    batches = list(dataset)
    return tf.nest.map_structure(
        lambda *parts: np.concatenate([part.numpy() for part in parts]), *batches
    )


def assert_same(expected, found):
    tf.nest.assert_same_structure(expected, found)
    for one, other in zip(tf.nest.flatten(expected), tf.nest.flatten(found), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("batch_size", [1, 16, 50, 64])
def test_as_tf_dataset_is_the_eager_preparation(containers, batch_size):
    """Every value of every input and target, from both containers, at sizes that divide and that do
    not.
    """
    eager, lazy = containers
    expected = eager_preparation(eager)
    for container in containers:
        assert_same(expected, joined(container.as_tf_dataset(batch_size, shuffle=False)))
    assert_same(expected, joined(lazy.as_dataset(batch_size, targets=True, prefetch=0)))


def test_shuffled_epochs_are_the_same_from_both(containers):
    eager, lazy = (
        list(c.as_dataset(16, shuffle=True, seed=4, targets=True).repeat(2)) for c in containers
    )

    assert len(eager) == len(lazy) == 8
    for one, other in zip(eager, lazy, strict=True):
        assert_same(one, other)


def test_shapes_are_static_and_the_count_is_known(containers):
    for container in containers:
        dataset = container.as_dataset(16, targets=True, drop_remainder=True)
        (images, coords), (amplitude, scaled, squared) = dataset.element_spec
        channels = images.shape[-1]

        assert int(dataset.cardinality()) == 3
        assert images.shape == scaled.shape == squared.shape == (16, 32, 32, channels)
        assert (coords.shape, amplitude.shape) == ((16, 1, 2, channels), (16, 32, 32, 1))


def test_the_scale_is_that_of_nphotons(scan):
    """Energy of X*s in a frame is nphotons on average, whatever nphotons is."""
    container = LazyPtychoDataContainer.from_scan(scan, image_count=100, gridsize=1, nphotons=1e6)
    (scaled, _), (_, _, squared) = joined(container.as_dataset(10, targets=True))

    assert container.intensity_scale == pytest.approx(np.sqrt(1e6) / 16, rel=1e-12)
    assert squared.sum(axis=(1, 2, 3), dtype=np.float64).mean() == pytest.approx(1e6, rel=1e-5)
    np.testing.assert_array_equal(scaled * scaled, squared)


def test_centring_brings_the_same_place_to_the_same_pixel():
    """A patch cut at its own position and centred shows the object as seen from the group's mean
    position.
    """
    obj = np.random.default_rng(0).random((64, 64), np.float32)
    # Whole pixels and a difference that lands on the grid: no interpolation is involved.
    positions = np.array([[30, 26], [34, 30]])  # (channel, [x, y]); mean [32, 28]
    offsets = -(positions.T[None, None] - positions.mean(axis=0)[None, None, :, None]).astype(
        np.float32
    )
    channels = np.stack([obj[y - 8 : y + 8, x - 8 : x + 8] for x, y in positions], axis=-1)[None]
    centred = center_channels(tf.constant(channels), tf.constant(offsets)).numpy()[0]
    expected = obj[20:36, 24:40]

    for channel in range(2):
        np.testing.assert_array_equal(expected[2:-2, 2:-2], centred[2:-2, 2:-2, channel])
    # Beyond the edge of the patch there is nothing.
    np.testing.assert_array_equal(np.zeros((2, 2)), centred[-2:, -2:, 0])
    np.testing.assert_array_equal(np.zeros((2, 2)), centred[:2, :2, 1])


def test_without_an_object_the_truth_is_ones_centred(arrays):
    grouped = np.ones((3, 16, 16, 4), np.float32)
    coords = np.zeros((3, 1, 2, 4), np.float32)
    arguments = (
        grouped,
        None,
        None,
        1.0,
        None,
        coords,
        coords,
        None,
        None,
        None,
        np.ones((16, 16), np.complex64),
    )
    for kind in (PtychoDataContainer, LazyPtychoDataContainer):
        _, (amplitude, _, _) = next(iter(kind(*arguments).as_dataset(3, targets=True)))

        np.testing.assert_array_equal(np.ones((3, 16, 16, 1)), amplitude.numpy())


@pytest.mark.parametrize("scale", [None, "3", 0, -1.0, np.nan, 1e39, np.ones(2)])
def test_a_scale_that_is_no_factor_is_refused(containers, scale):
    """None would leave the targets out without a word, and 1e39 is infinite as a float32."""
    for container in containers:
        container.intensity_scale = scale
        container.as_dataset(16)
        with pytest.raises(
            ContainerError, match=r"intensity_scale is .*; a positive number within float32"
        ):
            container.as_tf_dataset(16)


def test_targets_are_wanted_or_not(containers):
    for container in containers:
        with pytest.raises(ContainerError, match="targets is 'no'; True or False is needed"):
            container.as_dataset(16, targets="no")


@pytest.mark.parametrize("is_in_file", [True, False])
def test_chunks_are_shuffled_alike(scan, is_in_file):
    """The eager container has no file any more, and still the order of the lazy one: 256 groups in
    a chunk of 4 MiB.
    """
    kinds = (PtychoDataContainer, LazyPtychoDataContainer)
    containers = [kind.from_scan(scan, image_count=1000) for kind in kinds]
    if not is_in_file:
        eager = containers[0]
        names = (
            "X",
            "Y_I",
            "Y_phi",
            "norm_Y_I",
            "YY_full",
            "coords_nominal",
            "coords_true",
            "nn_indices",
        )
        rest = {"global_offsets": None, "local_offsets": None, "probeGuess": eager.probe}
        containers = [
            kind(**{name: getattr(eager, name) for name in names}, **rest) for kind in kinds
        ]
    one, other = (
        joined(container.as_dataset(100, shuffle="chunks", seed=4)) for container in containers
    )

    assert_same(one, other)
