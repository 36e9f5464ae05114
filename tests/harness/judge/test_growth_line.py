"""Lines through whole numbers, checked by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy.stats import linregress
from scipy.stats import t as student

from harness.judge.growth import fit_line

SIZES = [100, 500, 1000, 2000] * 2


def test_exact_data_has_the_slope_and_an_interval_of_no_width():
    """A slope of exactly the limit is exactly the limit, not a rounding error above it."""
    line = fit_line(SIZES, [1024 * size + 7 for size in SIZES])

    assert (line.slope, line.slope_low, line.slope_high) == (1024.0, 1024.0, 1024.0)
    assert (line.intercept_bytes, line.residual_bytes, line.mean_size) == (7.0, 0.0, 900.0)


def test_small_fit_matches_the_sums_done_by_hand():
    """x = 1, 2, 3 and y = 1, 2, 4: slope 1.5, intercept -2/3, squares 1/6, t(1) = 12.706."""
    line = fit_line([1, 2, 3], [1, 2, 4])

    assert line.slope == 1.5
    assert line.intercept_bytes == pytest.approx(-2 / 3)
    assert line.residual_bytes == pytest.approx(math.sqrt(1 / 6 / 3))
    assert line.half_width == pytest.approx(12.7062047 * math.sqrt(1 / 6 / 1 / 2))


def test_noisy_fit_matches_scipy():
    """The interval is Student's t times the standard error that scipy computes."""
    noise = np.random.default_rng(7).integers(-(2**20), 2**20, len(SIZES))
    amounts = [327_680 * size + int(extra) for size, extra in zip(SIZES, noise, strict=True)]
    expected = linregress(SIZES, amounts)
    line = fit_line(SIZES, amounts)

    assert line.slope == pytest.approx(expected.slope)
    assert line.half_width == pytest.approx(student.ppf(0.975, len(SIZES) - 2) * expected.stderr)


def test_two_runs_leave_no_interval():
    """Without a degree of freedom anything is possible, and nothing is concluded."""
    line = fit_line([1, 2], [10, 30])

    assert (line.slope, line.slope_low, line.slope_high) == (20.0, -math.inf, math.inf)


def test_the_bend_of_a_parabola_is_its_bulge_below_the_chord():
    """y = x^2 from 0 to 4 lies 4 below its chord in the middle; without noise the bend is
    certain.
    """
    line = fit_line([0, 1, 2, 3, 4], [0, 1, 4, 9, 16])

    assert line.bend_bytes == pytest.approx(4.0)
    assert line.bend_p_value == 0.0


@pytest.mark.parametrize(
    ("sizes", "amounts"),
    [([0, 1, 2], [0, 1, 4]), ([0, 0, 4, 4], [0, 1, 4, 5]), ([0, 1, 2, 3, 4], [16, 15, 12, 7, 0])],
)
def test_a_bend_that_cannot_be_tested_or_points_downward_is_no_evidence(sizes, amounts):
    """Three runs have no degree of freedom left, two sizes have no curvature, and saturation is not
    superlinear.
    """
    assert fit_line(sizes, amounts).bend_p_value == 1.0


def test_one_size_is_no_line():
    """A slope needs a difference."""
    with pytest.raises(ValueError, match="two different sizes"):
        fit_line([5, 5], [1, 2])
