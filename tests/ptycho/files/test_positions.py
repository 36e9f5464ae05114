"""Positions: read block by block, the same as in one piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import ScanError
from ptycho.files import ArrayHeader, Part
from ptycho.files.arrays import check_inside, check_span, read_axis


class Blocks(Part):
    """An array in blocks of any size."""

    name = key = "positions"

    def __init__(self, values, block_size):
        self.header, self._values, self._block_size = (
            ArrayHeader(values.shape, values.dtype),
            values.reshape(-1),
            block_size,
        )

    def blocks(self):
        for start in range(0, len(self._values), self._block_size):
            yield self._values[start : start + self._block_size]


@settings(max_examples=200, deadline=None)
@given(
    frame_count=st.integers(1, 40),
    weights=st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 3e6]), min_size=1, max_size=3),
    block_size=st.integers(1, 130),
    seed=st.integers(0, 1 << 16),
)
def test_an_axis_is_a_weighted_sum_of_columns(frame_count, weights, block_size, seed):
    values = np.random.default_rng(seed).uniform(-300, 300, (frame_count, len(weights)))
    found = read_axis(Blocks(values, block_size), weights, frame_count)

    np.testing.assert_allclose(values @ np.array(weights), found, rtol=1e-12, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    block_size=st.integers(1, 70),
    frame=st.integers(0, 19),
    column=st.integers(0, 2),
    value=st.sampled_from([np.nan, np.inf, -np.inf, 2e9]),
)
def test_a_bad_value_is_found_wherever_it_is(block_size, frame, column, value):
    """In the frame and the column where it is; what is not used may be anything."""
    values = np.zeros((20, 3))
    values[frame, column] = value
    weights = [float(index == column) for index in range(3)]
    with pytest.raises(ScanError, match=f"positions is .* for frame {frame} in column {column}"):
        read_axis(Blocks(values, block_size), weights, 20)
    others = [1 - weight for weight in weights]

    assert not read_axis(Blocks(values, block_size), others, 20).any()


@pytest.mark.parametrize(
    ("frame", "value", "is_inside"),
    [(0, 8, True), (19_999, 40, True), (0, 7.4, False), (19_999, 40.6, False)],
)
def test_a_patch_outside_is_found_in_every_step(frame, value, is_inside):
    positions = np.full(20_000, 20.0)
    positions[frame] = value
    if is_inside:
        check_inside("x", positions, 48, 16, "object")
    else:
        with pytest.raises(
            ScanError,
            match=f"x is {value:g} for frame {frame}, outside object; .* between 8 and 40",
        ):
            check_inside("x", positions, 48, 16, "object")


@pytest.mark.parametrize(("span", "is_refused"), [(1.0, False), (0.999, True)])
def test_a_span_of_less_than_a_pixel_looks_like_metres(span, is_refused):
    x = np.linspace(5, 5 + span, 9)
    if is_refused:
        with pytest.raises(
            ScanError, match=r"scan: x and y span 0\.999 pixels, which looks like metres; do that"
        ):
            check_span("scan", ("x", "y"), x, x, "do that")
    else:
        check_span("scan", ("x", "y"), x, x, "do that")
