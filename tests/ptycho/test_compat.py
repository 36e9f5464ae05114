"""load(): PtychoPINN's grouped dictionaries, split and scaled."""

import numpy as np
import pytest

from ptycho.errors import ContainerError, ScanError
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer, load

PROBE = np.ones((16, 16), np.complex64)
COORDS = ("coords_start_relative", "coords_relative")
OFFSETS = ("coords_start_offsets", "coords_offsets")


@pytest.fixture
def grouped():
    generator = np.random.default_rng(0)
    return {
        "X_full": generator.random((11, 16, 16, 4), np.float32),
        "Y": (generator.random((11, 16, 16, 4)) * np.exp(1j * generator.random((11, 16, 16, 4)))).astype(np.complex64),
        **{key: generator.random((11, 1, 2, 4), np.float32) for key in COORDS},
        **{key: generator.random((11, 1, 2, 1), np.float32) for key in OFFSETS},
        "nn_indices": generator.integers(0, 20, (11, 4)),
        "objectGuess": None,
    }


def images(container):
    return np.concatenate([batch.numpy() for batch, _ in container.as_dataset(4)])


def constant(x_full):
    return np.sqrt(8**2 / (x_full.astype(np.float64) ** 2).sum(axis=(1, 2)).mean())


@pytest.mark.parametrize("kind", [PtychoDataContainer, LazyPtychoDataContainer])
@pytest.mark.parametrize(("which", "part"), [("train", slice(0, 4)), ("test", slice(4, 11))])
def test_every_array_is_split_alike(grouped, kind, which, part):
    """int(11 * 0.4) = 4 groups train; one constant over all 11, norm_Y_I over the part alone."""
    container = load(lambda: (grouped, 0.4), PROBE, which, True, container=kind)
    expected = grouped["X_full"][part] * np.float32(constant(grouped["X_full"]))

    assert isinstance(container, kind)
    np.testing.assert_array_equal(expected, images(container))
    np.testing.assert_array_equal(grouped["coords_start_relative"][part], container.coords)
    np.testing.assert_array_equal(grouped["nn_indices"][part], container.nn_indices)
    np.testing.assert_array_equal(grouped["coords_offsets"][part], container.global_offsets)
    np.testing.assert_array_equal(grouped["coords_relative"][part], container.local_offsets)
    mean_energy = (expected.astype(np.float64) ** 2).sum(axis=(1, 2)).mean()
    assert container.norm_Y_I == pytest.approx(np.sqrt(1e9 / mean_energy), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Y.* puts every image:DeprecationWarning")
def test_ground_truth_is_split_with_the_images(grouped):
    container = load(lambda: (grouped, 0.4), PROBE, "test", True)

    np.testing.assert_array_equal(np.abs(grouped["Y"][4:]), container.Y_I)
    np.testing.assert_array_equal(np.angle(grouped["Y"][4:]), container.Y_phi)


@pytest.mark.filterwarnings("ignore:Y.* puts every image:DeprecationWarning")
def test_without_a_split_everything_is_there_and_y_may_be_missing(grouped):
    container = load(lambda: {**grouped, "Y": None, "nn_indices": None}, PROBE[..., None], None, False)

    assert (len(container), container.nn_indices) == (11, None)
    np.testing.assert_array_equal(np.ones((11, 16, 16, 4)), container.Y_I)


def test_images_that_are_scaled_already_stay_bit_for_bit(grouped):
    """PtychoPINN's own grouping has applied the constant, in float32."""
    grouped["X_full"] = (grouped["X_full"] * constant(grouped["X_full"])).astype(np.float32)

    np.testing.assert_array_equal(grouped["X_full"], images(load(lambda: grouped, PROBE, "train", False)))


def test_no_array_is_copied(grouped):
    container = load(lambda: (grouped, 0.4), PROBE, "test", True)
    grouped["X_full"][4:] = 0

    assert not images(container).any()
    assert np.shares_memory(container.nn_indices, grouped["nn_indices"])


@pytest.mark.parametrize(
    ("returned", "which", "words"),
    [
        (lambda g: (g, 0.4), "validate", "which is 'validate'"),
        (lambda g: (g, 0.4), None, "which is None"),
        (lambda g: (g, 0.0), "train", "train fraction is 0.0"),
        (lambda g: (g, 1), "train", "train fraction is 1"),
        (lambda g: (g, 0.09), "train", "leaves one part of 11 groups empty"),
        (lambda g: g, "train", "not dict"),
        (lambda g: ([], 0.4), "train", "cb\\(\\) returned list"),
        (lambda g: ({"X_full": g["X_full"]}, 0.4), "train", "lacks Y, coords_start_offsets"),
        (lambda g: ({**g, "nn_indices": g["nn_indices"][:3]}, 0.4), "train", "nn_indices has 3 groups and X_full 11"),
        (lambda g: ({**g, "nn_indices": 3}, 0.4), "train", "nn_indices is 3; one entry"),
        (lambda g: ({**g, "X_full": g["X_full"] * 1j}, 0.4), "train", "X_full is complex64"),
        (lambda g: (g, "half"), "train", "train fraction is half"),
        (lambda g: ({**g, "coords_relative": None}, 0.4), "train", "coords_relative is None"),
        (lambda g: ({**g, "X_full": g["X_full"][0]}, 0.4), "train", "X_full has shape"),
    ],
)
def test_what_does_not_fit_is_refused(grouped, returned, which, words):
    with pytest.raises(ContainerError, match=words):
        load(lambda: returned(grouped), PROBE, which, True)


@pytest.mark.parametrize(("fraction", "train"), [(0.091, 1), (0.999, 10)])
def test_each_part_has_at_least_one_group(grouped, fraction, train):
    assert train == len(load(lambda: (grouped, fraction), PROBE, "train", True))
    assert 11 - train == len(load(lambda: (grouped, fraction), PROBE, "test", True))


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "NaN or infinite amplitude in frame 6"), (-1, "negative amplitude in frame 6")]
)
def test_impossible_amplitudes_are_refused(grouped, value, words):
    grouped["X_full"][6, 3, 3, 1] = value
    with pytest.raises(ScanError, match=words):
        load(lambda: grouped, PROBE, "train", False)


@pytest.mark.parametrize("nphotons", [0, -5.0, np.inf, "many"])
def test_photons_are_a_positive_number(grouped, nphotons):
    with pytest.raises(ContainerError, match="nphotons is"):
        load(lambda: grouped, PROBE, None, False, nphotons=nphotons)
