"""load(): PtychoPINN's grouped dictionaries, split and scaled."""

import numpy as np
import pytest

from ptycho.errors import ContainerError, ScanError
from ptycho.feeding.sources import GroupedArray
from ptycho.loader import (
    LazyPtychoDataContainer,
    PtychoDataContainer,
    PtychoDataset,
    compute_dataset_intensity_stats,
    load,
    normalize_data,
    split_data,
    split_tensor,
)
from ptycho.raw_data import ImageStack

PROBE = np.ones((16, 16), np.complex64)
COORDS = ("coords_start_relative", "coords_relative")
OFFSETS = ("coords_start_offsets", "coords_offsets")


@pytest.fixture
def grouped():
    generator = np.random.default_rng(0)
    return {
        "X_full": generator.random((11, 16, 16, 4), np.float32),
        "Y": (
            generator.random((11, 16, 16, 4)) * np.exp(1j * generator.random((11, 16, 16, 4)))
        ).astype(np.complex64),
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
    container = load(
        lambda: {**grouped, "Y": None, "nn_indices": None}, PROBE[..., None], None, False
    )

    assert (len(container), container.nn_indices) == (11, None)
    np.testing.assert_array_equal(np.ones((11, 16, 16, 4)), container.Y_I)


def test_images_that_are_scaled_already_stay_bit_for_bit(grouped):
    """PtychoPINN's own grouping has applied the constant, in float32."""
    grouped["X_full"] = (grouped["X_full"] * constant(grouped["X_full"])).astype(np.float32)

    np.testing.assert_array_equal(
        grouped["X_full"], images(load(lambda: grouped, PROBE, "train", False))
    )


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
        (
            lambda g: ({**g, "nn_indices": g["nn_indices"][:3]}, 0.4),
            "train",
            "nn_indices has 3 groups and X_full 11",
        ),
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
    ("value", "words"),
    [(np.nan, "NaN or infinite amplitude in frame 6"), (-1, "negative amplitude in frame 6")],
)
def test_impossible_amplitudes_are_refused(grouped, value, words):
    grouped["X_full"][6, 3, 3, 1] = value
    with pytest.raises(ScanError, match=words):
        load(lambda: grouped, PROBE, "train", False)


@pytest.mark.parametrize("nphotons", [0, -5.0, np.inf, "many"])
def test_photons_are_a_positive_number(grouped, nphotons):
    with pytest.raises(ContainerError, match="nphotons is"):
        load(lambda: grouped, PROBE, None, False, nphotons=nphotons)


@pytest.mark.parametrize("wrap", [GroupedArray, lambda images: ImageStack(GroupedArray(images))])
@pytest.mark.filterwarnings("ignore:.* puts every image:DeprecationWarning")
def test_stacks_load_as_their_arrays_do(grouped, wrap):
    """Not scaled yet, and split: the same images, ground truth and norm_Y_I."""
    stacked = {**grouped, "X_full": wrap(grouped["X_full"])}
    expected, found = (load(lambda g=g: (g, 0.4), PROBE, "test", True) for g in (grouped, stacked))

    np.testing.assert_array_equal(images(expected), images(found))
    np.testing.assert_array_equal(expected.Y, found.Y)
    assert found.norm_Y_I == expected.norm_Y_I


def test_a_stack_of_waves_is_not_amplitude(grouped):
    with pytest.raises(ContainerError, match="X_full is complex64"):
        load(lambda: {**grouped, "X_full": Waves(grouped["Y"])}, PROBE, None, False)


def test_impossible_amplitudes_in_a_stack_are_refused(grouped):
    grouped["X_full"][6, 3, 3, 1] = np.nan
    with pytest.raises(ScanError, match="NaN or infinite amplitude in frame 6"):
        load(lambda: {**grouped, "X_full": GroupedArray(grouped["X_full"])}, PROBE, None, False)


class Waves(GroupedArray):
    dtype = np.dtype(np.complex64)


@pytest.mark.parametrize(("which", "part"), [("train", slice(0, 4)), ("test", slice(4, 11))])
def test_the_split_functions_split_as_load_does(grouped, which, part):
    x_full, nominal, true = split_data(
        grouped["X_full"], grouped["coords_relative"], grouped["coords_start_relative"], 0.4, which
    )

    np.testing.assert_array_equal(grouped["X_full"][part], x_full)
    np.testing.assert_array_equal(grouped["coords_relative"][part], nominal)
    np.testing.assert_array_equal(grouped["coords_start_relative"][part], true)
    np.testing.assert_array_equal(
        grouped["nn_indices"][part], split_tensor(grouped["nn_indices"], 0.4, which)
    )


def test_a_tensor_is_split_for_testing_by_default():
    assert split_tensor(list(range(10)), 0.3) == list(range(3, 10))


def test_a_stack_is_split_without_reading_it(grouped):
    stack = ImageStack(GroupedArray(grouped["X_full"]))
    part, _, _ = split_data(
        stack, grouped["coords_relative"], grouped["coords_relative"], 0.5, "train"
    )

    assert isinstance(part, ImageStack)
    np.testing.assert_array_equal(grouped["X_full"][:5], part)


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, -0.1, 1.1, np.nan, "half", None])
def test_a_fraction_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ContainerError, match=f"train fraction is {fraction}"):
        split_tensor(np.arange(10), fraction, "train")


def test_parts_that_are_no_parts_are_refused():
    with pytest.raises(ContainerError, match="which is 'validate'"):
        split_tensor(np.arange(10), 0.5, "validate")
    with pytest.raises(ContainerError, match=r"\[10, 10, 9\] groups"):
        split_data(np.arange(10), np.arange(10), np.arange(9), 0.5, "train")


def test_normalizing_gives_a_mean_energy_of_half_the_size_squared(grouped):
    """An array for an array, a stack for a stack."""
    expected = grouped["X_full"] * np.float32(constant(grouped["X_full"]))
    array = normalize_data({"diffraction": grouped["X_full"]}, 16)
    stack = normalize_data({"diffraction": ImageStack(GroupedArray(grouped["X_full"]))}, 16)

    assert (type(array), type(stack)) == (np.ndarray, ImageStack)
    assert array.dtype == np.float32
    np.testing.assert_allclose(expected, array, rtol=1e-6)
    np.testing.assert_array_equal(array, stack)


@pytest.mark.parametrize("is_normalized", [False, True])
@pytest.mark.parametrize("is_stack", [False, True])
def test_intensity_is_the_mean_sum_of_squares(grouped, is_normalized, is_stack):
    images = grouped["X_full"]
    found = compute_dataset_intensity_stats(
        ImageStack(GroupedArray(images)) if is_stack else images, is_normalized, 2.0
    )
    expected = (images.astype(float) ** 2).sum(axis=(1, 2, 3)).mean()

    assert found["batch_mean_sum_intensity"] == pytest.approx(
        expected / 4 if is_normalized else expected
    )
    assert found["n_samples"] == 11


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.ones((3, 3)),), "diff3d has shape"),
        ((np.ones((3, 4, 4)), True), "needs the intensity_scale"),
    ],
)
def test_intensity_of_nothing_known_is_refused(arguments, words):
    with pytest.raises(ContainerError, match=words):
        compute_dataset_intensity_stats(*arguments)


def test_a_dataset_is_a_pair():
    assert (PtychoDataset(1, test_data=2).train_data, PtychoDataset(1, 2).test_data) == (1, 2)
