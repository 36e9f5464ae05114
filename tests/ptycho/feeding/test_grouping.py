"""Groups: who belongs together, where, and for which arguments."""

import itertools
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import ContainerError
from ptycho.feeding.grouping import _combination, _combination_counts, group


def positions(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (2, count))


@settings(max_examples=60, deadline=None)
@given(
    frame_count=st.integers(4, 60),
    share=st.floats(0, 1),
    gridsize=st.integers(1, 2),
    seed=st.integers(0, 9),
    order=st.sampled_from(["random", "sequential"]),
    is_coarse=st.booleans(),
)
def test_every_group_is_its_seed_and_near_neighbours(
    frame_count, share, gridsize, seed, order, is_coarse
):
    """C different frames, the seed first, the rest among its K nearest, no group twice; on coarse
    positions, many coincide.
    """
    x, y = positions(frame_count, seed)
    if is_coarse:
        x, y = x // 50, y // 50
    nearest = min(5, frame_count - 1)
    most = frame_count * math.comb(nearest, gridsize**2 - 1)
    image_count = max(1, round(share * most))
    groups = group(
        x, y, image_count=image_count, gridsize=gridsize, neighbor_count=5, seed=seed, order=order
    )

    assert groups.nn_indices.shape == (image_count, gridsize**2)
    assert groups.nn_indices.dtype == np.int64
    for row in groups.nn_indices:
        distances = np.hypot(x - x[row[0]], y - y[row[0]])
        assert len(set(row.tolist())) == gridsize**2
        assert distances[row].max() <= np.sort(distances)[nearest] + 1e-9
    assert len({(row[0], *sorted(row[1:])) for row in groups.nn_indices.tolist()}) == image_count
    times = np.bincount(groups.nn_indices[:, 0], minlength=frame_count)
    assert times.max() - times.min() <= 1


@pytest.mark.parametrize(("nearest", "wanted"), [(5, 3), (7, 3), (4, 4), (9, 1), (10, 8)])
def test_combinations_are_numbered_one_to_one(nearest, wanted):
    ranks = np.arange(math.comb(nearest, wanted))
    found = [
        tuple(sorted(row))
        for row in _combination(ranks, _combination_counts(nearest, wanted)).tolist()
    ]

    assert sorted(found) == sorted(itertools.combinations(range(nearest), wanted))


@settings(deadline=None)
@given(nearest=st.integers(1, 119), wanted=st.integers(1, 15), share=st.floats(0, 1))
def test_numbers_beyond_what_can_be_listed_have_their_combination_too(nearest, wanted, share):
    """Up to comb(119, 15), just below 2^62: different neighbours, whose number in whole numbers of
    any size is the rank.
    """
    wanted = min(wanted, nearest)
    most = math.comb(nearest, wanted)
    rank = min(most - 1, int(share * most))
    (picked,) = _combination(np.array([rank]), _combination_counts(nearest, wanted)).tolist()

    assert picked == sorted(set(picked), reverse=True)
    assert 0 <= picked[-1] <= picked[0] < nearest
    assert rank == sum(
        math.comb(number, size) for number, size in zip(picked, range(wanted, 0, -1), strict=True)
    )


def test_a_seed_walks_through_all_its_combinations_before_one_comes_again():
    """Six frames in a row: each seed makes the comb(5, 3) = 10 groups there are, and an eleventh is
    refused.
    """
    x, y = np.arange(6.0), np.zeros(6)
    nn_indices = group(x, y, image_count=60, gridsize=2, neighbor_count=5).nn_indices
    for seed in range(6):
        others = {tuple(sorted(row[1:])) for row in nn_indices.tolist() if row[0] == seed}

        assert others == set(
            itertools.combinations([frame for frame in range(6) if frame != seed], 3)
        )
    with pytest.raises(
        ContainerError,
        match="image_count is 61; 6 frames with 5 neighbours each make at most 60 different groups",
    ):
        group(x, y, image_count=61, gridsize=2, neighbor_count=5)


def test_no_channel_means_near_or_far():
    """Every neighbour is as often in each channel: 3,000 draws, 5 standard deviations."""
    x, y = positions(1000)
    groups = group(x, y, image_count=1000, gridsize=2, neighbor_count=4)
    coords = groups.coords[:, 0]
    distances = np.hypot(*(coords[..., 1:] - coords[..., :1]).swapaxes(0, 1))
    farthest = np.bincount(distances.argmax(axis=1), minlength=3)

    assert np.abs(farthest - 1000 / 3).max() < 5 * np.sqrt(1000 * 2 / 9)


@pytest.mark.parametrize("image_count", [1, 49, 50, 51, 120])
def test_sequential_seeds_are_the_frames_in_order(image_count):
    x, y = positions(50)
    nn_indices = group(
        x, y, image_count=image_count, gridsize=2, order="sequential", seed=3
    ).nn_indices

    np.testing.assert_array_equal(np.arange(image_count) % 50, nn_indices[:, 0])


def test_random_seeds_are_in_no_order():
    x, y = positions(50)
    nn_indices = group(x, y, image_count=50, gridsize=1).nn_indices[:, 0]

    assert sorted(nn_indices) == list(range(50))
    assert list(nn_indices) != list(range(50))


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
    assert {a.dtype for a in (groups.coords, groups.offsets, groups.relative)} == {
        np.dtype(np.float32)
    }
    np.testing.assert_array_equal(coords.astype(np.float32), groups.coords)
    np.testing.assert_allclose(offsets, groups.offsets, rtol=1e-6)
    np.testing.assert_allclose(-(coords - offsets), groups.relative, atol=1e-5)


def test_frames_at_one_position_still_form_whole_groups():
    """Where all distances are zero the tree may not return the seed; it is in its group all the
    same.
    """
    groups = group(np.zeros(20), np.zeros(20), image_count=20, gridsize=2)

    assert all(len(set(row)) == 4 for row in groups.nn_indices.tolist())
    assert set(groups.nn_indices[:, 0].tolist()) == set(range(20))


def test_the_seed_decides_and_the_global_one_is_left_alone():
    x, y = positions(50)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first, again, other = (
        group(x, y, image_count=40, gridsize=2, seed=seed).nn_indices for seed in (5, 5, 6)
    )

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
        ({"order": "reversed"}, "order is 'reversed'"),
        (
            {"image_count": 16, "gridsize": 1},
            "15 frames with 0 neighbours each make at most 15 different groups",
        ),
        (
            {"image_count": 526},
            "at most 525 different groups of gridsize 2, take a larger neighbor_count",
        ),
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


def test_the_largest_number_of_groups_is_met():
    x, y = positions(15)

    assert (
        len({tuple(row) for row in group(x, y, image_count=525, gridsize=2).nn_indices.tolist()})
        == 525
    )


@pytest.mark.parametrize(("neighbor_count", "is_met"), [(119, True), (120, False)])
def test_choices_are_numbered_by_int64(neighbor_count, is_met):
    """comb(119, 15) is below 2^62 and comb(120, 15) above."""
    x, y = positions(200)
    arguments = {"image_count": 3, "gridsize": 4, "neighbor_count": neighbor_count}
    if is_met:
        assert len(np.unique(group(x, y, **arguments).nn_indices[0])) == 16
    else:
        with pytest.raises(
            ContainerError,
            match=r"neighbor_count 120 has more than 2\^62 choices of 15.*119 is the most",
        ):
            group(x, y, **arguments)


def test_frames_on_a_line_are_grouped_with_those_beside_them():
    groups = group(
        np.arange(100.0), np.full(100, 7.0), image_count=100, gridsize=2, neighbor_count=4
    )

    assert np.ptp(groups.nn_indices[2:-2], axis=1).max() <= 4


MEMORY = """
import sys
import numpy as np
from ptycho.feeding.grouping import group

def resident_bytes(key):
    lines = open("/proc/self/status").readlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

x, y = np.random.default_rng(0).uniform(0, 1000, (2, int(sys.argv[1])))
group(x[:100], y[:100], image_count=50, gridsize=2)
open("/proc/self/clear_refs", "w").write("5")  # VmHWM begins anew, see proc(5)
start = resident_bytes("RssAnon")
groups = group(x, y, image_count=1000, gridsize=2)
print(resident_bytes("VmHWM") - resident_bytes("RssFile") - start)
"""


def test_a_frame_of_the_stack_costs_less_than_36_bytes():
    """1,000 groups out of 250,000 and of 500,000 frames, in a child: what is resident at the
    highest, and what numpy counts.

    What a search must have are the points (16 bytes per frame) and an order of them (8); 29 and 24
    were measured, and one more array of 8 bytes per frame is too much.
    """
    frame_counts = (250_000, 500_000)
    peaks, traced = [], []
    for frame_count in frame_counts:
        result = subprocess.run(
            [sys.executable, "-c", MEMORY, str(frame_count)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(result.stdout))
        x, y = positions(frame_count)
        tracemalloc.start()
        group(x, y, image_count=1000, gridsize=2)
        traced.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    slopes = [
        (there - here) / (frame_counts[1] - frame_counts[0]) for here, there in (peaks, traced)
    ]

    assert all(23 < slope < 36 for slope in slopes), slopes
