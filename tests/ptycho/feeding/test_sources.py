"""Sources against the naive way of making the same stack."""

import numpy as np
import pytest

from ptycho.errors import ContainerError
from ptycho.feeding.sources import (
    ComplexPart,
    Constant,
    FirstChannel,
    FrameGather,
    GroupedArray,
    GroupSource,
    ObjectPatches,
    Scaled,
)

GENERATOR = np.random.default_rng(0)
NN = GENERATOR.integers(0, 40, (50, 4))
COORDS = GENERATOR.uniform(8, 32, (50, 1, 2, 4)).astype(np.float32)
OBJECT = (GENERATOR.standard_normal((40, 48)) + 1j * GENERATOR.standard_normal((40, 48))).astype(
    np.complex64
)
FRAMES = GENERATOR.random((40, 16, 16), np.float32)
STACK = GENERATOR.random((50, 16, 16, 4))
WAVES = (STACK * np.exp(2j * STACK)).astype(np.complex64)


def patches(function):
    out = np.empty((50, 16, 16, 4), np.float32)
    for group in range(50):
        for channel in range(4):
            x, y = np.rint(COORDS[group, 0, :, channel]).astype(int)
            out[group, ..., channel] = function(OBJECT[y - 8 : y + 8, x - 8 : x + 8])
    return out


SOURCES = [
    pytest.param(GroupedArray(STACK), STACK.astype(np.float32), id="array of doubles"),
    pytest.param(
        GroupedArray(STACK.astype(np.float32), 0.3),
        STACK.astype(np.float32) * np.float32(0.3),
        id="scaled array",
    ),
    pytest.param(FrameGather(FRAMES, NN), np.moveaxis(FRAMES[NN], 1, 3), id="gather"),
    pytest.param(
        FrameGather(FRAMES, NN, 0.3),
        np.moveaxis(FRAMES[NN], 1, 3) * np.float32(0.3),
        id="scaled gather",
    ),
    pytest.param(
        FrameGather(FRAMES.astype(np.float64), NN, 0.3),
        (np.moveaxis(FRAMES[NN], 1, 3).astype(np.float64) * 0.3).astype(np.float32),
        id="gather of doubles",
    ),
    pytest.param(ObjectPatches(OBJECT, COORDS, 16, "amplitude"), patches(np.abs), id="amplitude"),
    pytest.param(ObjectPatches(OBJECT, COORDS, 16, "phase"), patches(np.angle), id="phase"),
    pytest.param(ComplexPart(WAVES, "amplitude"), np.abs(WAVES), id="part"),
    pytest.param(ComplexPart(WAVES, "phase"), np.angle(WAVES), id="part of phase"),
    pytest.param(
        Constant(1.0, (50, 16, 16, 4)), np.ones((50, 16, 16, 4), np.float32), id="constant"
    ),
]


@pytest.mark.parametrize(("source", "expected"), SOURCES)
def test_any_groups_in_any_order_are_read(source, expected):
    """Repeated, reversed and more than one block of groups: bit for bit."""
    groups = np.array([*range(49, 10, -1), 3, 3])
    out = np.full((len(groups), 16, 16, 4), np.nan, np.float32)
    source.read(groups, out)

    np.testing.assert_array_equal(expected[groups], out)


@pytest.mark.parametrize(("source", "expected"), SOURCES)
def test_a_source_says_its_shape_and_bytes_and_can_be_read_whole(source, expected):
    assert isinstance(source, GroupSource)
    assert source.shape == expected.shape
    assert source.nbytes == expected.astype(np.float32).nbytes
    np.testing.assert_array_equal(expected, np.asarray(source))


def test_an_array_is_not_copied():
    array = STACK.astype(np.float32)
    source = GroupedArray(array)
    array[7] = 5
    out = np.empty((1, 16, 16, 4), np.float32)
    source.read(np.array([7]), out)

    assert (out == 5).all()


@pytest.mark.parametrize(("x", "is_inside"), [(8, True), (40, True), (7, False), (41, False)])
def test_patches_stay_inside_the_object(x, is_inside):
    coords = np.full((3, 1, 2, 1), 20, np.float32)
    coords[2, 0, 0, 0] = x
    if is_inside:
        assert ObjectPatches(OBJECT, coords, 16, "phase").shape == (3, 16, 16, 1)
    else:
        with pytest.raises(ContainerError, match="group 2 leaves the object"):
            ObjectPatches(OBJECT, coords, 16, "phase")


@pytest.mark.parametrize(("index", "refused"), [(0, False), (4, False), (5, True), (-1, True)])
def test_a_group_of_frames_that_do_not_exist_is_refused(index, refused):
    """Gathering would else read another frame in silence."""
    frames = np.ones((5, 8, 8), np.float32)
    if refused:
        with pytest.raises(ContainerError, match="there are 5 frames, numbered from 0"):
            FrameGather(frames, np.array([[0, index]]))
    else:
        assert FrameGather(frames, np.array([[0, index]])).shape == (1, 8, 8, 2)


class Watched(GroupedArray):
    """An array of groups that counts how often its file was asked for."""

    checked = 0

    def check(self):
        self.checked += 1


def test_a_source_that_wraps_another_one_forwards_the_rest():
    """Shape, type, file, description, frames and the check of the file are the inner source's."""
    array = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    inner = Watched(array)
    scaled, first = Scaled(inner, 2.0), FirstChannel(inner)
    groups = np.arange(2)

    for source in (scaled, first):
        assert source.dtype == inner.dtype
        assert (source.file, source.description) == (inner.file, inner.description)
        source.check()
        np.testing.assert_array_equal(source.frames_of(groups), inner.frames_of(groups))
    assert inner.checked == 2
    assert (scaled.shape, first.shape) == ((2, 4, 4, 3), (2, 4, 4, 1))
    np.testing.assert_array_equal(np.asarray(scaled), 2 * array)
    np.testing.assert_array_equal(np.asarray(first), array[..., :1])


def test_a_source_without_images_cannot_be_made():
    """A subclass must say its shape and how it is read."""
    with pytest.raises(TypeError, match="abstract"):
        GroupSource()
