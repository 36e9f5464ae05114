"""Both containers: the same numbers from the same arguments, on the device or not."""

import dataclasses
import gc
import re
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from ptycho.errors import ContainerError
from ptycho.feeding.sources import GroupedArray
from ptycho.files.stacks import normalization
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer

BOTH = pytest.mark.parametrize("kind", [PtychoDataContainer, LazyPtychoDataContainer])
IMAGES = ("X", "Y_I", "Y_phi", "Y")
SMALL = ("coords", "coords_nominal", "coords_true", "probe")


@pytest.fixture
def arguments():
    """20 groups of 4 images of 16 x 16 pixels."""
    generator = np.random.default_rng(0)
    shape = (20, 16, 16, 4)
    return {
        "X": generator.random(shape, np.float32),
        "Y_I": generator.random(shape, np.float32),
        "Y_phi": generator.random(shape, np.float32),
        "norm_Y_I": 3.0,
        "YY_full": None,
        "coords_nominal": generator.random((20, 1, 2, 4), np.float32),
        "coords_true": generator.random((20, 1, 2, 4), np.float32),
        "nn_indices": None,
        "global_offsets": None,
        "local_offsets": None,
        "probeGuess": (1j * generator.random((16, 16))).astype(np.complex64),
    }


def read(container, name):
    """The whole tensor, warning or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(container, name)


@BOTH
def test_the_attributes_are_the_arguments(kind, arguments):
    """By keyword or by position, from arrays or from tensors; Y = Y_I exp(i Y_phi)."""
    tensors = {
        key: tf.constant(value) if isinstance(value, np.ndarray) else value
        for key, value in arguments.items()
    }
    for container in (kind(**arguments), kind(*arguments.values()), kind(**tensors)):
        for name in ("X", "Y_I", "Y_phi", "coords_nominal", "coords_true"):
            tensor = read(container, name)

            assert tensor.dtype == tf.float32
            np.testing.assert_array_equal(arguments[name], tensor)
        expected = arguments["Y_I"] * np.exp(1j * arguments["Y_phi"])
        np.testing.assert_allclose(expected, read(container, "Y"), rtol=1e-5)
        np.testing.assert_array_equal(arguments["coords_nominal"], container.coords)
        np.testing.assert_array_equal(arguments["probeGuess"], container.probe)
        assert (len(container), container.norm_Y_I, container.nn_indices) == (20, 3.0, None)


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("without_object", [False, True])
def test_eager_and_lazy_are_bit_for_bit_the_same(simulated_path, scan, gridsize, without_object):
    """From a scan: every tensor, and every batch of a shuffled dataset."""
    if without_object:
        scan = dataclasses.replace(scan, object=None)
    eager, lazy = (
        kind.from_scan(scan, image_count=30, gridsize=gridsize)
        for kind in (PtychoDataContainer, LazyPtychoDataContainer)
    )
    for name in (*IMAGES, *SMALL):
        np.testing.assert_array_equal(
            read(eager, name).numpy(), read(lazy, name).numpy(), err_msg=name
        )
    for name in ("norm_Y_I", "nn_indices", "global_offsets", "local_offsets"):
        np.testing.assert_array_equal(getattr(eager, name), getattr(lazy, name))
    datasets = [container.as_dataset(7, shuffle=True, seed=2) for container in (eager, lazy)]
    batches = 0
    for here, there in zip(*datasets, strict=True):
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_array_equal(here[1], there[1])
        batches += 1

    assert batches == 5


@BOTH
def test_groups_of_a_scan_can_follow_its_order(kind, scan):
    container = kind.from_scan(scan, image_count=30, order="sequential")

    np.testing.assert_array_equal(np.arange(30), container.nn_indices[:, 0])


def test_images_of_a_scan_keep_the_numeric_contract(scan):
    """X = c frames[nn], mean energy (N/2)^2, norm_Y_I = sqrt(nphotons / mean energy)."""
    lazy = LazyPtychoDataContainer.from_scan(scan, image_count=30, nphotons=1e6)
    scale = np.float32(normalization(scan.energies(), lazy.nn_indices, 32))
    images = read(lazy, "X").numpy()
    mean_energy = (images.astype(np.float64) ** 2).sum(axis=(1, 2)).mean()

    np.testing.assert_array_equal(np.moveaxis(scan.frames[lazy.nn_indices], 1, 3) * scale, images)
    assert mean_energy == pytest.approx(16**2, rel=1e-6)
    assert lazy.norm_Y_I == pytest.approx(np.sqrt(1e6 / mean_energy), rel=1e-6)
    assert lazy.global_offsets.shape == (30, 1, 2, 1)


def test_ground_truth_is_the_object_where_each_frame_was_measured(scan):
    lazy = LazyPtychoDataContainer.from_scan(scan, image_count=30)
    truth = read(lazy, "Y").numpy()
    for group, frames in enumerate(lazy.nn_indices):
        for channel, frame in enumerate(frames):
            x, y = round(float(np.float32(scan.x[frame]))), round(float(np.float32(scan.y[frame])))
            np.testing.assert_allclose(
                scan.object[y - 16 : y + 16, x - 16 : x + 16], truth[group, ..., channel], atol=1e-5
            )


def test_missing_ground_truth_is_amplitude_one_and_phase_zero(arguments):
    for kind in (PtychoDataContainer, LazyPtychoDataContainer):
        container = kind(**{**arguments, "Y_I": None, "Y_phi": None})

        np.testing.assert_array_equal(np.ones((20, 16, 16, 4), np.complex64), read(container, "Y"))


@pytest.mark.parametrize("name", IMAGES)
def test_old_code_is_warned_at_its_own_line(arguments, name):
    """The warning names the attribute and as_dataset, and points here."""
    container = LazyPtychoDataContainer(**arguments)
    with pytest.warns(
        DeprecationWarning, match=rf"{name} puts every image.*as_dataset\(batch_size\)"
    ) as caught:
        getattr(container, name)

    assert [__file__] == [warning.filename for warning in caught]


@pytest.mark.parametrize("name", SMALL)
def test_small_tensors_come_without_a_warning(arguments, name):
    assert getattr(LazyPtychoDataContainer(**arguments), name) is not None


@pytest.mark.parametrize("name", [*IMAGES, *SMALL])
def test_a_tensor_is_the_same_while_held_and_gone_afterwards(arguments, name):
    container = LazyPtychoDataContainer(**arguments)
    first = read(container, name)
    is_same = read(container, name) is first
    watched = weakref.ref(first)
    del first
    gc.collect()

    assert is_same
    assert watched() is None


def test_a_tensor_that_was_given_is_given_back(arguments):
    """No second copy on the device for those who pass tensors."""
    arguments["X"] = tf.constant(arguments["X"])

    assert read(LazyPtychoDataContainer(**arguments), "X") is arguments["X"]
    assert PtychoDataContainer(**arguments).X is arguments["X"]


def test_the_lazy_container_copies_no_array(arguments):
    """What changes in the array changes in the batches."""
    container = LazyPtychoDataContainer(**arguments)
    arguments["X"][:] = 7
    ((images, _),) = container.as_dataset(20)

    assert (images.numpy() == 7).all()


def test_dropping_container_and_dataset_frees_the_arrays(arguments):
    watched = weakref.ref(arguments["X"])
    container = LazyPtychoDataContainer(**arguments)
    dataset = container.as_dataset(8, shuffle=True)
    count = sum(1 for _ in dataset)
    arguments.clear()
    del container
    gc.collect()
    alive = watched() is not None
    del dataset
    gc.collect()

    assert count == 3
    assert alive
    assert watched() is None


@BOTH
def test_a_dataset_outlives_its_container(kind, arguments):
    dataset = kind(**arguments).as_dataset(8)
    gc.collect()

    np.testing.assert_array_equal(arguments["X"], np.concatenate([images for images, _ in dataset]))


def test_the_arithmetic_is_what_the_eager_container_keeps(arguments):
    """Name by name, against the tensors themselves."""
    container = PtychoDataContainer(**arguments)
    declared = PtychoDataContainer.tensor_bytes(image_count=20, frame_size=16, channel_count=4)

    assert list(declared) == ["X", "Y_I", "Y_phi", "Y", "coords_nominal", "coords_true", "probe"]
    for name, size_bytes in declared.items():
        assert size_bytes == getattr(container, name).numpy().nbytes, name


@BOTH
@pytest.mark.parametrize("name", ["X", "Y_I", "Y_phi", *SMALL])
def test_attributes_may_be_assigned(kind, arguments, name):
    """As in old code; what is made of them afterwards is made of the new value."""
    container = kind(**arguments)
    value = tf.constant(np.flip(read(container, name).numpy(), axis=0) * 2)
    setattr(container, name, value)

    np.testing.assert_array_equal(value, read(container, name))
    if name in ("X", "coords"):
        images, coords = next(iter(container.as_dataset(20)))
        np.testing.assert_array_equal(value, images if name == "X" else coords)


@pytest.mark.parametrize(
    "name", ["norm_Y_I", "YY_full", "nn_indices", "global_offsets", "local_offsets"]
)
@BOTH
def test_what_is_kept_as_it_was_given_may_be_assigned(kind, arguments, name):
    container = kind(**arguments)
    setattr(container, name, 3)

    assert getattr(container, name) == 3


def test_ground_truth_follows_what_was_assigned(arguments):
    """Y is made of Y_I and Y_phi, even while somebody holds the one before; itself it cannot be
    assigned.
    """
    container = LazyPtychoDataContainer(**arguments)
    before = read(container, "Y")
    container.Y_I = 2 * arguments["Y_I"]

    np.testing.assert_allclose(2 * before, read(container, "Y"), rtol=1e-6)
    with pytest.raises(AttributeError):
        container.Y = before


def test_an_assignment_that_does_not_fit_changes_nothing(arguments):
    container = LazyPtychoDataContainer(**arguments)
    with pytest.raises(ContainerError, match=r"probeGuess has shape \(14, 14\)"):
        container.probe = np.ones((14, 14), np.complex64)

    np.testing.assert_array_equal(arguments["probeGuess"], container.probe)


def test_a_dataset_keeps_what_it_was_made_of(arguments):
    container = LazyPtychoDataContainer(**arguments)
    dataset = container.as_dataset(20)
    container.X = np.zeros_like(arguments["X"])
    ((images, _),) = dataset

    np.testing.assert_array_equal(arguments["X"], images)


@BOTH
@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_container_of_loose_arrays(kind, scan, gridsize):
    """PtychoPINN's call; the frames' own size by default."""
    given = (scan.x, scan.y, scan.frames, scan.probe, np.arange(100))
    container = kind.from_raw_data_without_pc(
        *given, scan.object, N=None, K=7, nsamples=30, gridsize=gridsize
    )
    expected = kind.from_scan(scan, image_count=30, gridsize=gridsize)

    for name in (*IMAGES, "coords", "nn_indices"):
        np.testing.assert_array_equal(read(expected, name), read(container, name))
    assert len(kind.from_raw_data_without_pc(*given)) == 1
    with pytest.raises(ContainerError, match="diff3d is None"):
        kind.from_raw_data_without_pc(scan.x, scan.y, None, scan.probe, None)


@BOTH
def test_waves_are_no_amplitudes(kind, arguments):
    """Nor is a source of them, which is not read to find out."""

    class Waves(GroupedArray):
        dtype = np.dtype(np.complex64)

    with pytest.raises(ContainerError, match="Y_I is complex64"):
        kind(**{**arguments, "Y_I": Waves(arguments["Y_I"])})


@BOTH
def test_repr_is_short_and_warns_of_nothing(kind, arguments):
    assert repr(kind(**arguments)).startswith(f"<{kind.__name__} of 20 groups, X (20, 16, 16, 4)")


@BOTH
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"X": np.ones((20, 16, 16), np.float32)}, r"X has shape \(20, 16, 16\)"),
        ({"X": np.ones((20, 16, 14, 4), np.float32)}, r"X has shape \(20, 16, 14, 4\)"),
        ({"X": np.ones((0, 16, 16, 4), np.float32)}, r"X has shape \(0, 16, 16, 4\)"),
        ({"X": np.ones((20, 16, 16, 4), np.complex64)}, "X is complex64"),
        ({"Y_I": np.ones((19, 16, 16, 4), np.float32)}, r"Y_I has shape \(19, 16, 16, 4\)"),
        ({"Y_phi": None}, "one of Y_I and Y_phi is None"),
        (
            {"coords_nominal": np.ones((20, 2, 4), np.float32)},
            r"coords_nominal has shape \(20, 2, 4\)",
        ),
        ({"coords_true": None}, "coords_true is None"),
        ({"nn_indices": np.ones((19, 4), np.int64)}, "nn_indices has 19 groups and X 20"),
        ({"nn_indices": 3}, "nn_indices is 3; one entry for each of 20 groups"),
        (
            {"global_offsets": np.zeros((20, 2))},
            r"global_offsets has shape \(20, 2\); \(20, 1, 2, 1\)",
        ),
        (
            {"coords_nominal": np.full((20, 1, 2, 4), np.nan)},
            r"coords_nominal is nan at \[0, 0, 0, 0\]",
        ),
        (
            {"coords_true": np.full((20, 1, 2, 4), 1e39)},
            r"coords_true is 1e\+39 at \[0, 0, 0, 0\]; finite values within float32",
        ),
        ({"probeGuess": np.ones((14, 14), np.complex64)}, r"probeGuess has shape \(14, 14\)"),
        ({"probeGuess": np.zeros((16, 16), np.complex64)}, "probeGuess is zero everywhere"),
        ({"probeGuess": np.full((16, 16), np.inf, np.complex64)}, "probeGuess is .*inf.* at"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kind, arguments, changed, words):
    with pytest.raises(ContainerError, match=words):
        kind(**{**arguments, **changed})


@BOTH
@pytest.mark.parametrize(
    ("settings", "words"),
    [({"batch_size": 0}, "batch_size is 0"), ({"batch_size": 4, "prefetch": -1}, "prefetch is -1")],
)
def test_datasets_that_cannot_be_are_refused(kind, arguments, settings, words):
    with pytest.raises(ContainerError, match=words):
        kind(**arguments).as_dataset(**settings)


@BOTH
@pytest.mark.parametrize("value", [4.0, "4", [4], True])
@pytest.mark.parametrize("name", ["batch_size", "prefetch", "seed"])
def test_counts_of_a_dataset_are_whole_numbers(kind, arguments, name, value):
    settings = {"batch_size": 4, "shuffle": True, name: value}
    with pytest.raises(ContainerError, match=re.escape(f"{name} is {value!r}; a whole number")):
        kind(**arguments).as_dataset(**settings)


def test_counts_may_be_numpy_integers(arguments):
    dataset = LazyPtychoDataContainer(**arguments).as_dataset(
        np.int64(8), prefetch=np.uint8(1), shuffle=True, seed=np.int32(3)
    )

    assert [len(images) for images, _ in dataset] == [8, 8, 4]


@pytest.mark.parametrize("value", [4.0, "4", None, True])
@pytest.mark.parametrize("name", ["image_count", "gridsize", "neighbor_count", "seed"])
def test_counts_of_a_grouping_are_whole_numbers(scan, name, value):
    with pytest.raises(ContainerError, match=re.escape(f"{name} is {value!r}; a whole number")):
        LazyPtychoDataContainer.from_scan(scan, **{"image_count": 4, name: value})


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("ignore:.* puts every image:DeprecationWarning")
def test_threads_share_one_tensor(arguments, name):
    """Eight threads ask at the same time, and nobody builds a second one."""
    container = LazyPtychoDataContainer(**arguments)
    start = threading.Barrier(8)

    def ask():
        start.wait()
        return getattr(container, name)

    with ThreadPoolExecutor(8) as pool:
        tensors = [future.result() for future in [pool.submit(ask) for _ in range(8)]]

    assert all(tensor is tensors[0] for tensor in tensors)


@pytest.mark.parametrize("nphotons", [0, -1, np.nan, "many", None])
def test_a_scan_needs_photons(scan, nphotons):
    with pytest.raises(ContainerError, match="nphotons is"):
        LazyPtychoDataContainer.from_scan(scan, image_count=4, nphotons=nphotons)


def test_the_global_seed_is_left_alone(scan):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    for _ in LazyPtychoDataContainer.from_scan(scan, image_count=30).as_dataset(
        8, shuffle=True, seed=1
    ):
        pass

    np.testing.assert_array_equal(before, np.random.get_state()[1])
