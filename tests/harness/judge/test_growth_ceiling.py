"""A fixed amount that small sizes do not fill is a ceiling; straight growth never is, at the edge
on both sides.
"""

import numpy as np
import pytest

from harness.judge.gate import judge
from harness.judge.growth import (
    LEVEL_SHARE,
    GrowthClass,
    GrowthLimits,
    find_ceiling,
    fit_run,
)
from harness.judge.policy import parse_policy
from harness.judge.table import load_run
from harness.records import Point
from harness.words import KIB, MIB

SIZES = (100, 500, 1000, 2000)
IMAGE = 65_536


def twice(amount_of, sizes=SIZES):
    """Two runs of every size."""
    pairs = [(size, amount_of(size)) for size in sizes for _ in range(2)]
    return [size for size, _ in pairs], [amount for _, amount in pairs]


@pytest.mark.parametrize(
    ("fills", "from_size"), [(300, 500), (500, 500), (700, 1000), (1000, 1000)]
)
def test_a_cache_levels_off_from_the_first_size_that_fills_it(fills, from_size):
    """Whatever it holds: two sizes have it in full at least."""
    found = find_ceiling(*twice(lambda size: IMAGE * min(size, fills)))

    assert (found.level_bytes, found.from_size, found.smallest) == (IMAGE * fills, from_size, 100)
    assert found.holds(at_most=0, resolve=0)


@pytest.mark.parametrize("fills", [1100, 2000, 10_000])
def test_what_only_the_largest_size_fills_or_none_is_no_ceiling(fills):
    """One size cannot show that it is level."""
    assert find_ceiling(*twice(lambda size: IMAGE * min(size, fills))) is None


@pytest.mark.parametrize("bytes_per_image", [1, 512, 1025, IMAGE, 10 * IMAGE])
@pytest.mark.parametrize(
    "sizes",
    [(100, 500, 1000, 2000), (64, 128, 256), (1, 2, 3), (100, 1000, 1010), (10, 2000, 2001, 2002)],
)
def test_straight_growth_is_no_ceiling(bytes_per_image, sizes):
    """Also where the largest sizes lie near each other, so that they differ by little of the
    rise.
    """
    assert find_ceiling(*twice(lambda size: bytes_per_image * size, sizes)) is None


@pytest.mark.parametrize("seed", range(20))
def test_straight_growth_in_noise_is_no_ceiling(seed):
    """Noise of a quarter of what one step adds."""
    draws = np.random.default_rng(seed)

    assert (
        find_ceiling(*twice(lambda size: int(MIB * size / 500 + draws.normal(0, MIB / 4)))) is None
    )


@pytest.mark.parametrize("power", [0.3, 0.5, 0.8])
def test_growth_that_bends_down_is_no_ceiling(power):
    """It goes on all the same."""
    assert find_ceiling(*twice(lambda size: int(MIB * size**power))) is None


def test_the_level_differs_by_a_tenth_of_the_rise_at_most():
    """At the limit and one byte past it."""
    level_bytes, rise_bytes = 100 * MIB, 90 * MIB
    most_bytes = int(LEVEL_SHARE * rise_bytes)
    for more_bytes, found in ((0, True), (1000, False)):
        amounts = [
            10 * MIB,
            10 * MIB,
            level_bytes,
            level_bytes,
            level_bytes,
            level_bytes - most_bytes - more_bytes,
        ]
        sizes = [100, 100, 1000, 1000, 2000, 2000]

        assert (find_ceiling(sizes, amounts) is not None) is found


def test_one_run_of_two_sizes_is_no_evidence_and_of_three_it_is():
    """Two numbers are alike by chance."""
    assert find_ceiling([100, 500, 1000], [MIB, 5 * MIB, 5 * MIB]) is None
    assert find_ceiling([100, 500, 1000, 2000], [MIB, 5 * MIB, 5 * MIB, 5 * MIB]) is not None
    assert find_ceiling([100, 500, 500, 1000], [MIB, 5 * MIB, 5 * MIB, 5 * MIB]) is not None


def test_two_sizes_a_flat_line_and_a_fall_are_none():
    """There is nothing that rises to a level."""
    assert find_ceiling(*twice(lambda size: size * MIB, (100, 200))) is None
    assert find_ceiling(*twice(lambda size: 5 * MIB)) is None
    assert find_ceiling(*twice(lambda size: MIB * (10 if size == 100 else 5))) is None


# --- in a run ---


def run_of(synthetic_run, edges, kept):
    """A run of one scenario whose only phase keeps ``kept(count)`` bytes."""
    synthetic_run.points = [
        Point(
            scenario="own",
            body="own:body",
            parameters={"image_count": size},
            fixed={},
            phases=("use",),
        )
        for size in SIZES
    ]
    synthetic_run.declared = lambda _: {"batch": 4 * MIB}
    synthetic_run.amounts = lambda point, repeat, phase: {
        "device_in_use": edges(
            0, kept(point.parameters["image_count"]), kept(point.parameters["image_count"])
        )
    }
    return load_run(synthetic_run.write())


def finding(run, tmp_path, section, **rule):
    policy = parse_policy(
        {
            "schema_version": 1,
            section: [
                {
                    "scenarios": ["own"],
                    "meters": ["device_in_use"],
                    "over": "image_count",
                    "because": "chosen",
                    **rule,
                },
            ],
        },
        "own.toml",
    )
    return next(
        (
            check
            for check in judge(run, policy, tmp_path / "none", partial=True).verdict.findings
            if check.rule == section
        ),
        None,
    )


@pytest.mark.parametrize(("more", "is_level"), [(0, True), (512, True), (513, False)])
def test_a_slope_that_levels_off_is_a_finding_in_words_of_its_own(
    synthetic_run, edges, tmp_path, more, is_level
):
    """Up to the rule's own limit beyond the level, and one byte past it, where it is growth for
    each image again.
    """
    run = run_of(
        synthetic_run, edges, lambda size: 2 * IMAGE * min(size, 256) + more * max(0, size - 500)
    )
    check = finding(run, tmp_path, "slope", at_most="512 B", resolve="1 KiB")

    assert ("growth levels off at " in check.sentence) is is_level
    assert (check.bound, check.limit) == ("upper", 512)
    if is_level and not more:
        assert check.sentence.startswith(
            "own / use / device in use: growth levels off at 32.0 MiB from 500 images on, "
            "a fixed amount that 100 images do not fill; as large as 8.00 x batch. From "
            "100 to 500 images it rises by 51,118 B per image, limit 512 (the line "
        )
        assert (
            "To do: find what use fills up to a fixed amount (a cache, a buffer); the limit is"
            in check.sentence
        )
        assert "for each image" not in check.sentence


@pytest.mark.parametrize(("at_most", "is_found"), [("linear", False), ("flat", True)])
def test_a_ceiling_is_a_class_of_its_own_between_flat_and_linear(
    synthetic_run, edges, tmp_path, at_most, is_found
):
    """It is not flat over these sizes, and takes no more for more images; its fit says from which
    amount on.
    """
    run = run_of(synthetic_run, edges, lambda size: 2 * IMAGE * min(size, 500))
    check = finding(run, tmp_path, "growth_class", at_most=at_most)
    (fit,) = [fit for fit in fit_run(run, GrowthLimits()) if fit.field == "growth"]

    assert fit.growth_class is GrowthClass.CEILING
    assert fit.ceiling is not None
    assert fit.ceiling.level_bytes == 62.5 * MIB
    assert (check is not None) is is_found
    if check is not None:
        assert (
            "growth over image_count levels off at 62.5 MiB from 500 images on, a fixed "
            "amount that 100 images" in check.sentence
        )


def test_what_goes_on_by_more_than_flat_is_no_ceiling(synthetic_run, edges):
    """1,024 B for each image beyond the level, and one more."""
    for more, is_ceiling in ((KIB, True), (KIB + 1, False)):
        run = run_of(
            synthetic_run,
            edges,
            lambda size, more=more: 2 * IMAGE * min(size, 256) + more * max(0, size - 500),
        )
        (fit,) = [fit for fit in fit_run(run, GrowthLimits()) if fit.field == "growth"]

        assert (fit.growth_class is GrowthClass.CEILING) is is_ceiling
