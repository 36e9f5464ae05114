"""Groups: who belongs together, where, and for which arguments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import ContainerError
from ptycho.grouping import group


def positions(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (2, count))


@settings(max_examples=40, deadline=None)
@given(frame_count=st.integers(4, 60), image_count=st.integers(1, 150), gridsize=st.integers(1, 2), seed=st.integers(0, 9))
def test_every_group_is_its_seed_and_near_neighbours(frame_count, image_count, gridsize, seed):
    """C different frames, the seed first, the rest among its K nearest."""
    x, y = positions(frame_count, seed)
    groups = group(x, y, image_count=image_count, gridsize=gridsize, neighbor_count=5, seed=seed)

    assert groups.nn_indices.shape == (image_count, gridsize**2)
    assert groups.nn_indices.dtype == np.int64
    for row in groups.nn_indices:
        distances = np.hypot(x - x[row[0]], y - y[row[0]])
        assert len(set(row.tolist())) == gridsize**2
        assert set(row.tolist()) <= set(np.argsort(distances)[:6].tolist())


@pytest.mark.parametrize(("image_count", "most"), [(49, 1), (50, 1), (51, 2), (100, 2), (101, 3)])
def test_seeds_repeat_only_when_there_are_more_groups_than_frames(image_count, most):
    x, y = positions(50)
    seeds = group(x, y, image_count=image_count, gridsize=2).nn_indices[:, 0]

    assert np.bincount(seeds).max() == most


def test_coordinates_are_those_of_the_frames():
    """offsets are the mean over channels, relative = -(coords - offsets), axis 2 is [x, y]."""
    x, y = positions(50)
    groups = group(x, y, image_count=30, gridsize=2)
    coords = np.stack((x[groups.nn_indices], y[groups.nn_indices]), axis=1)[:, None]
    offsets = coords.mean(axis=3, keepdims=True)

    assert groups.coords.shape == groups.relative.shape == (30, 1, 2, 4)
    assert groups.offsets.shape == (30, 1, 2, 1)
    assert {a.dtype for a in (groups.coords, groups.offsets, groups.relative)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(coords.astype(np.float32), groups.coords)
    np.testing.assert_allclose(offsets, groups.offsets, rtol=1e-6)
    np.testing.assert_allclose(-(coords - offsets), groups.relative, atol=1e-5)


def test_frames_at_one_position_still_form_whole_groups():
    """Where all distances are zero the tree may not return the seed; it is in its group all the same."""
    groups = group(np.zeros(20), np.zeros(20), image_count=20, gridsize=2)

    assert all(len(set(row)) == 4 for row in groups.nn_indices.tolist())
    assert set(groups.nn_indices[:, 0].tolist()) == set(range(20))


def test_the_seed_decides_and_the_global_one_is_left_alone():
    x, y = positions(50)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first, again, other = (group(x, y, image_count=40, gridsize=2, seed=seed).nn_indices for seed in (5, 5, 6))

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gridsize": 0}, "gridsize is 0"),
        ({"image_count": 0}, "image_count is 0"),
        ({"neighbor_count": 3}, "neighbor_count of at least 4, not 3"),
        ({"gridsize": 4, "neighbor_count": 16}, "needs 16 frames per group and the scan has 15"),
    ],
)
def test_counts_that_cannot_be_met_are_refused(changed, words):
    x, y = positions(15)
    with pytest.raises(ContainerError, match=words):
        group(x, y, **{"image_count": 10, "gridsize": 2, **changed})


def test_counts_at_the_limit_are_met():
    """K = C, and M = C."""
    x, y = positions(4)

    assert group(x, y, image_count=4, gridsize=2, neighbor_count=4).nn_indices.shape == (4, 4)
