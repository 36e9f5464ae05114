"""How alike two objects are, by identities."""

import numpy as np
import pytest

from tests.ptycho.correlation import correlation


def test_correlation_does_not_know_global_phase_and_scale_and_counts_by_weight():
    """1 for the same object turned and scaled, 0 for orthogonal ones, and a pixel of no weight is
    not there.
    """
    generator = np.random.default_rng(0)
    image = generator.standard_normal((8, 8)) + 1j * generator.standard_normal((8, 8))
    spoilt = image.copy()
    spoilt[0, 0] = 100

    assert correlation(image, -3j * image) == pytest.approx(1)
    assert correlation(np.array([1, 1j]), np.array([1, -1j])) == pytest.approx(0)
    assert correlation(image, spoilt) < 0.5
    assert correlation(image, spoilt, spoilt != 100) == pytest.approx(1)


def test_nothing_is_compared_with_nothing():
    """A side that is 0 wherever it counts is an error, never a number."""
    with pytest.raises(ValueError, match="nothing can be compared"):
        correlation(np.ones(4), np.zeros(4))
    with pytest.raises(ValueError, match="nothing can be compared"):
        correlation(np.ones(4), np.ones(4), np.zeros(4))
