"""RawData: PtychoPINN's names and semantics, and its known faults the right way round."""

import itertools
import os
import tracemalloc

import numpy as np
import pytest

from ptycho.errors import ContainerError, ScanError, ScanFileError
from ptycho.files.stacks import MappedFrames
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer, load
from ptycho.raw_data import ImageStack, RawData
from ptycho.simulate import far_field_amplitude

BOTH = pytest.mark.parametrize("kind", [PtychoDataContainer, LazyPtychoDataContainer])
QUIET = pytest.mark.filterwarnings("ignore:.* puts every image:DeprecationWarning")


@pytest.fixture
def raw(simulated_path):
    return RawData.from_file(simulated_path)


@pytest.fixture
def loose(arrays):
    """RawData's own arguments: 9 frames of 16 x 16 pixels."""
    x, y, frames, probe = (arrays[key] for key in ("xcoords", "ycoords", "diff3d", "probeGuess"))
    return {
        "xcoords": x,
        "ycoords": y,
        "xcoords_start": x + 1,
        "ycoords_start": y - 1,
        "diff3d": frames,
        "probeGuess": probe,
        "scan_index": np.arange(9),
        "objectGuess": arrays["objectGuess"],
    }


def test_a_file_is_opened_without_reading_its_frames(raw, scan):
    """Start positions are the positions and scan_index is 0 where a file has neither."""
    np.testing.assert_array_equal(scan.x, raw.xcoords_start)
    np.testing.assert_array_equal(np.zeros(100), raw.scan_index)
    np.testing.assert_array_equal(scan.object, raw.objectGuess)
    assert raw.diff3d is raw._scan.frames
    assert isinstance(raw.diff3d, MappedFrames)
    assert str(raw).splitlines()[0:2] == ["RawData:", "  xcoords: (100,)"]
    assert "  diff3d: (100, 32, 32)" in str(raw)


def test_what_is_written_is_read_again(loose, tmp_path):
    """Every array, float32 frames; the suffix is added as numpy does it."""
    RawData(**loose).to_file(tmp_path / "scan")
    again = RawData.from_file(tmp_path / "scan.npz")
    for name, values in loose.items():
        np.testing.assert_array_equal(values, getattr(again, name), err_msg=name)
    with np.load(tmp_path / "scan.npz", allow_pickle=False) as archive:
        assert set(archive.files) == set(loose)


def test_two_files_are_two_scans(simulated_path):
    train, test = RawData.from_files(simulated_path, simulated_path)

    np.testing.assert_array_equal(train.diff3d[7], test.diff3d[7])


@pytest.mark.parametrize("gridsize", [1, 2])
def test_grouping_gives_ptychopinns_keys(raw, gridsize):
    channels = gridsize**2
    grouped = raw.generate_grouped_data(N=32, K=7, nsamples=20, seed=3, gridsize=gridsize)
    shapes = {key: (values.shape, values.dtype.name) for key, values in grouped.items()}
    images, places, means = (20, 32, 32, channels), (20, 1, 2, channels), (20, 1, 2, 1)

    assert shapes == {
        "diffraction": (images, "float32"),
        "X_full": (images, "float32"),
        "Y": (images, "complex64"),
        "coords_nn": (places, "float64"),
        "coords_relative": (places, "float64"),
        "coords_offsets": (means, "float64"),
        "coords_start_nn": (places, "float64"),
        "coords_start_relative": (places, "float64"),
        "coords_start_offsets": (means, "float64"),
        "nn_indices": ((20, channels), "int64"),
        "objectGuess": (raw.objectGuess.shape, "complex64"),
    }
    assert all(isinstance(grouped[key], ImageStack) for key in ("diffraction", "X_full", "Y"))


def test_groups_are_one_by_default(raw):
    """gridsize is an argument, or 1: nothing global is asked; nsamples is 1."""
    assert raw.generate_grouped_data(32)["diffraction"].shape == (1, 32, 32, 1)


def test_the_values_are_those_of_the_frames(raw):
    """diffraction = frames[nn], X_full scaled to a mean energy of (N/2)^2, coordinates by their
    definitions.
    """
    grouped = raw.generate_grouped_data(32, K=7, nsamples=30, gridsize=2)
    nn = grouped["nn_indices"]
    whole = np.moveaxis(raw.diff3d[nn], 1, 3)
    x_full = np.asarray(grouped["X_full"])
    positions = np.stack((raw.xcoords[nn], raw.ycoords[nn]), axis=1)[:, None]

    np.testing.assert_array_equal(whole, grouped["diffraction"])
    np.testing.assert_allclose(
        whole * np.sqrt(16**2 / (whole.astype(float) ** 2).sum(axis=(1, 2)).mean()),
        x_full,
        rtol=1e-6,
    )
    assert (x_full.astype(float) ** 2).sum(axis=(1, 2)).mean() == pytest.approx(16**2, rel=1e-6)
    np.testing.assert_array_equal(positions, grouped["coords_nn"])
    np.testing.assert_array_equal(positions.mean(axis=3, keepdims=True), grouped["coords_offsets"])
    np.testing.assert_array_equal(
        -(positions - grouped["coords_offsets"]), grouped["coords_relative"]
    )


def test_start_positions_have_coordinates_of_their_own(loose):
    grouped = RawData(**loose).generate_grouped_data(16, nsamples=9, gridsize=2)

    np.testing.assert_allclose(grouped["coords_nn"] + [[[1], [-1]]], grouped["coords_start_nn"])
    np.testing.assert_allclose(
        grouped["coords_offsets"] + [[[1], [-1]]], grouped["coords_start_offsets"]
    )
    np.testing.assert_allclose(grouped["coords_relative"], grouped["coords_start_relative"])


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_seed_gives_the_same_groups_each_time(raw, seed):
    """None too, so that two calls for train and test agree."""
    first, again = (
        raw.generate_grouped_data(32, nsamples=50, seed=seed, gridsize=2)["nn_indices"]
        for _ in range(2)
    )

    np.testing.assert_array_equal(first, again)
    assert (
        first != raw.generate_grouped_data(32, nsamples=50, seed=8, gridsize=2)["nn_indices"]
    ).any()


def test_sequential_sampling_takes_the_first_frames(raw):
    nn = raw.generate_grouped_data(32, nsamples=20, sequential_sampling=True, gridsize=2)[
        "nn_indices"
    ]

    np.testing.assert_array_equal(np.arange(20), nn[:, 0])


# Faults of the original that are not reproduced.


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("sequential", [False, True])
def test_the_global_seed_is_neither_read_nor_set(raw, seed, sequential):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = raw.generate_grouped_data(
        32, nsamples=30, seed=seed, sequential_sampling=sequential, gridsize=2
    )["nn_indices"]
    after = np.random.get_state()[1].copy()
    np.random.seed(4)
    again = raw.generate_grouped_data(
        32, nsamples=30, seed=seed, sequential_sampling=sequential, gridsize=2
    )["nn_indices"]

    np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(first, again)


def test_the_seed_point_belongs_to_its_group(raw):
    """As channel 0: 100 groups of 100 frames have every frame there once."""
    nn = raw.generate_grouped_data(32, nsamples=100, gridsize=2)["nn_indices"]

    assert sorted(nn[:, 0]) == list(range(100))


def test_ground_truth_is_not_mirrored(raw):
    """Each channel's patch is where its frame was measured: patch centre = offset - relative, not
    offset + relative.
    """
    grouped = raw.generate_grouped_data(32, K=7, nsamples=20, gridsize=2)
    measured = grouped["coords_offsets"] - grouped["coords_relative"]
    np.testing.assert_allclose(grouped["coords_nn"], measured)
    truth, mirrored = np.asarray(grouped["Y"]), 0
    for group, channel in itertools.product(range(20), range(4)):
        x, y = np.rint(grouped["coords_nn"][group, 0, :, channel].astype(np.float32)).astype(int)
        np.testing.assert_array_equal(
            raw.objectGuess[y - 16 : y + 16, x - 16 : x + 16], truth[group, ..., channel]
        )
        x, y = np.rint(
            (grouped["coords_offsets"] + grouped["coords_relative"])[group, 0, :, channel]
        ).astype(int)
        patch = raw.objectGuess[max(0, y - 16) : y + 16, max(0, x - 16) : x + 16]
        mirrored += patch.shape == (32, 32) and np.array_equal(patch, truth[group, ..., channel])

    assert mirrored < 80 / 2


@BOTH
@QUIET
def test_the_way_over_loose_arrays_gives_what_a_scan_gives(raw, scan, kind):
    """Bit for bit the same container as from_scan."""
    grouped = raw.generate_grouped_data(32, K=7, nsamples=30, seed=5, gridsize=2)
    loaded = load(lambda: grouped, raw.probeGuess, None, False, container=kind)
    expected = kind.from_scan(scan, image_count=30, seed=5)
    for name in ("X", "Y_I", "Y_phi", "Y", "coords", "coords_true", "probe", "nn_indices"):
        np.testing.assert_array_equal(getattr(expected, name), getattr(loaded, name), err_msg=name)
    assert loaded.norm_Y_I == pytest.approx(expected.norm_Y_I, rel=1e-6)
    np.testing.assert_allclose(expected.global_offsets, loaded.global_offsets, rtol=1e-6)


@QUIET
def test_a_ground_truth_of_its_own_goes_before_the_object(loose):
    waves = np.exp(1j * loose["diff3d"]).astype(np.complex64)
    raw = RawData(**loose, Y=waves)
    grouped = raw.generate_grouped_data(16, nsamples=9, gridsize=2)
    container = load(lambda: grouped, raw.probeGuess, None, False)

    np.testing.assert_array_equal(np.moveaxis(waves[grouped["nn_indices"]], 1, 3), grouped["Y"])
    np.testing.assert_array_equal(np.angle(grouped["Y"]), container.Y_phi)


def test_without_an_object_there_is_no_ground_truth(loose):
    assert RawData(**{**loose, "objectGuess": None}).generate_grouped_data(16)["Y"] is None


def test_sample_indices_come_along(loose):
    raw = RawData(**loose)
    raw.sample_indices = np.arange(9)

    np.testing.assert_array_equal(np.arange(9), raw.generate_grouped_data(16)["sample_indices"])


def test_loading_reads_no_image(raw):
    """9,000 groups would be 147 MB of images, and twice that of ground truth; less than 1 KiB per
    group is held.
    """
    raw.generate_grouped_data(32)  # energies
    tracemalloc.start()
    grouped = raw.generate_grouped_data(
        32, K=12, nsamples=9000, gridsize=2, enable_oversampling=True
    )
    container = load(lambda: (grouped, 0.5), raw.probeGuess, "train", True)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(container) == 4500
    assert 9000 * 64 < peak_bytes < 9000 * 1024


def test_frames_that_are_not_scaled_yet_are_scaled_by_load(raw):
    grouped = raw.generate_grouped_data(32, K=7, nsamples=30, gridsize=2)
    container = load(
        lambda: {**grouped, "X_full": grouped["diffraction"]}, raw.probeGuess, None, False
    )
    ((images, _),) = container.as_dataset(30)

    np.testing.assert_allclose(grouped["X_full"], images, rtol=1e-6)


def test_frames_replaced_by_hand_are_the_ones_that_are_grouped(raw):
    """Attributes are plain, as old code has them."""
    raw.diff3d = raw.diff3d[:50] * np.float32(2)
    for name in ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "scan_index"):
        setattr(raw, name, getattr(raw, name)[:50])
    grouped = raw.generate_grouped_data(32, nsamples=50, gridsize=2)

    assert grouped["nn_indices"].max() == 49
    np.testing.assert_array_equal(
        np.moveaxis(raw.diff3d[grouped["nn_indices"]], 1, 3), grouped["diffraction"]
    )


def test_a_file_that_changed_is_refused(loose, tmp_path):
    RawData(**loose).to_file(tmp_path / "scan.npz")
    raw = RawData.from_file(tmp_path / "scan.npz", cache_dir=tmp_path / "cache")
    grouped = raw.generate_grouped_data(16)
    os.utime(tmp_path / "scan.npz", ns=(1, 1))
    with pytest.raises(ScanFileError, match="changed after it was opened"):
        np.asarray(grouped["X_full"])
    with pytest.raises(ScanFileError, match="changed after it was opened"):
        raw.to_file(tmp_path / "copy.npz")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "scan.npz"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"N": 64}, "N is 64 and the frames have 16 pixels"),
        ({"N": "16"}, "N is '16'; a whole number"),
        ({"gridsize": 0}, "gridsize is 0; it must be at least 1"),
        ({"nsamples": 0}, "nsamples is 0; it must be at least 1"),
        ({"gridsize": 2, "K": 3}, "K is 3; groups of C = 4 frames need K >= C"),
        ({"gridsize": 4, "K": 16}, "gridsize 4 needs 16 frames per group and the scan has 9"),
        (
            {"gridsize": 2, "nsamples": 10},
            "nsamples is 10 and there are 9 frames.*enable_oversampling=True",
        ),
        (
            {"gridsize": 2, "nsamples": 10, "enable_oversampling": True, "neighbor_pool_size": 3},
            "neighbor_pool_size is 3; .* need neighbor_pool_size >= C",
        ),
        (
            {"gridsize": 2, "nsamples": 316, "K": 7, "enable_oversampling": True},
            "9 frames with 7 neighbours each make at most 315 different groups",
        ),
    ],
)
def test_counts_that_cannot_be_met_are_refused(loose, settings, words):
    with pytest.raises(ContainerError, match=words):
        RawData(**loose).generate_grouped_data(**{"N": 16, **settings})


@pytest.mark.parametrize(
    ("settings", "most"),
    [({"K": 7}, 315), ({"K": 4, "neighbor_pool_size": 7}, 315), ({"K": 4}, 36)],
)
def test_oversampling_makes_different_groups(loose, settings, most):
    """Of K neighbours, or of neighbor_pool_size: 9 * comb(7, 3), or 9 * comb(4, 3)."""
    grouped = RawData(**loose).generate_grouped_data(
        16, nsamples=most, gridsize=2, enable_oversampling=True, **settings
    )

    assert len({(row[0], *sorted(row[1:])) for row in grouped["nn_indices"].tolist()}) == most


def test_single_frames_are_as_many_as_there_are(loose):
    with pytest.warns(UserWarning, match="nsamples is 10 and there are 9 frames") as caught:
        grouped = RawData(**loose).generate_grouped_data(16, nsamples=10)

    assert sorted(grouped["nn_indices"][:, 0]) == list(range(9))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"xcoords": np.zeros(8)}, r"ycoords has shape \(9,\); all positions are \(M,\)"),
        ({"ycoords_start": np.zeros((9, 1))}, r"ycoords_start has shape \(9, 1\)"),
        ({"diff3d": np.ones((8, 16, 16), np.float32)}, "xcoords has shape .9,. for 8 frames"),
        ({"diff3d": np.ones((9, 16, 14), np.float32)}, "diff3d has shape .* not square"),
        ({"diff3d": np.ones((9, 16), np.float32)}, "diff3d has shape"),
        ({"diff3d": np.ones((9, 16, 16), np.int32)}, "looks like counts"),
        ({"diff3d": np.ones((9, 16, 16), np.complex64)}, "diff3d is complex64"),
        ({"probeGuess": np.ones((14, 14), np.complex64)}, "probeGuess has shape"),
        ({"scan_index": np.ones(9)}, "scan_index is float64"),
        (
            {"objectGuess": np.ones((9, 40), np.complex64)},
            "objectGuess has shape .* smaller than one frame",
        ),
        ({"Y": np.ones((9, 16, 16), np.float32)}, "Y is float32"),
        ({"xcoords": np.full(9, np.nan)}, "xcoords is nan for frame 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(loose, changed, words):
    with pytest.raises((ContainerError, ScanError), match=words):
        RawData(**{**loose, **changed})


def test_amplitudes_that_cannot_be_are_refused(loose):
    loose["diff3d"][5, 2, 2] = np.inf
    with pytest.raises(ScanError, match="diff3d has NaN or infinite amplitude in frame 5"):
        RawData(**loose).generate_grouped_data(16)


def test_a_patch_outside_the_object_is_refused(loose):
    raw = RawData(**{**loose, "xcoords": loose["xcoords"] - 8})
    with pytest.raises(ContainerError, match="leaves the object"):
        raw.generate_grouped_data(16, nsamples=9)


def test_a_scan_without_frames_is_kept_and_not_grouped(loose, tmp_path):
    raw = RawData(**{**loose, "diff3d": None})
    for use in (lambda: raw.generate_grouped_data(16), lambda: raw.to_file(tmp_path / "scan.npz")):
        with pytest.raises(ContainerError, match="diff3d"):
            use()

    assert list(tmp_path.iterdir()) == []


def test_a_configuration_cannot_be_validated(simulated_path):
    with pytest.raises(ContainerError, match="validate_config"):
        RawData.from_file(simulated_path, True, object())


@BOTH
@QUIET
def test_the_measured_scan_goes_the_old_way(siemens_path, tmp_path_factory, kind):
    """from_file, generate_grouped_data, load; each frame of a batch fits the forward model with its
    own ground truth.

    The misfit of this reconstruction is 0.118 over the scan; mirrored or swapped patches would miss
    by 0.3.
    """
    raw = RawData.from_file(siemens_path, cache_dir=tmp_path_factory.mktemp("cache"))
    grouped = raw.generate_grouped_data(N=128, K=7, nsamples=60, seed=0, gridsize=2)
    scale = np.asarray(grouped["X_full"][:1]).max() / np.asarray(grouped["diffraction"][:1]).max()
    container = load(lambda: (grouped, 0.5), raw.probeGuess, "train", True, container=kind)
    images, truth = np.asarray(container.X) / scale, np.asarray(container.Y)
    model = far_field_amplitude(raw.probeGuess, np.moveaxis(truth, 3, 1))
    measured = np.moveaxis(images, 3, 1)

    assert len(container) == 30
    assert np.sqrt(((model - measured) ** 2).sum() / (measured**2).sum()) == pytest.approx(
        0.118, abs=0.01
    )
