"""Images that are not read yet, against the array they stand for."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.feeding.sources import (
    ComplexPart,
    FrameGather,
    GroupedArray,
    GroupSource,
    ObjectPatches,
    StackPart,
)
from ptycho.raw_data import ImageStack

GENERATOR = np.random.default_rng(0)
FRAMES = GENERATOR.random((20, 8, 8), np.float32)
NN = GENERATOR.integers(0, 20, (12, 4))
WHOLE = np.ascontiguousarray(np.moveaxis(FRAMES[NN], 1, 3))
WAVES = (WHOLE * np.exp(3j * WHOLE)).astype(np.complex64)


@pytest.fixture
def stack():
    return ImageStack(FrameGather(FRAMES, NN))


def test_a_stack_says_what_its_array_would_say(stack):
    assert (stack.shape, stack.dtype, stack.ndim, len(stack), stack.nbytes) == (
        WHOLE.shape,
        WHOLE.dtype,
        4,
        12,
        WHOLE.nbytes,
    )
    assert isinstance(stack, GroupSource)
    assert repr(stack) == "<ImageStack (12, 8, 8, 4) float32, read when it is used>"


@pytest.mark.parametrize(
    "key",
    [
        slice(2, 7),
        slice(None, None, -3),
        slice(3, 3),
        np.array([5, 1, 1]),
        [0, -1],
        np.arange(12) % 2 == 0,
    ],
    ids=str,
)
def test_choosing_groups_reads_nothing(stack, key):
    """Another stack, of the groups that the array would give."""
    chosen = stack[key]

    assert isinstance(chosen, ImageStack)
    np.testing.assert_array_equal(WHOLE[key], chosen)
    np.testing.assert_array_equal(WHOLE[key][::2], chosen[::2])


ENDS = st.none() | st.integers(-15, 15)
CUTS = st.builds(slice, ENDS, ENDS, st.none() | st.integers(-4, 4).filter(bool))
NUMBERS = st.lists(st.integers(-12, 11), max_size=5).map(lambda numbers: np.array(numbers, int))


@settings(deadline=None)
@given(first=CUTS | NUMBERS, channel=st.integers(-4, 3) | CUTS)
def test_what_is_chosen_is_what_numpy_chooses(first, channel):
    stack = ImageStack(FrameGather(FRAMES, NN))

    np.testing.assert_array_equal(WHOLE[first], stack[first])
    np.testing.assert_array_equal(WHOLE[first, :, :, channel], stack[first, :, :, channel])
    np.testing.assert_array_equal(WHOLE[first][::-1], stack[first][::-1])


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        np.int64(2),
        (3, 1),
        (slice(2, 5), 1),
        (..., 0),
        ...,
        (slice(None), slice(2, 4), slice(2, 4)),
        ([1, 2], slice(None), slice(None), [0, 1]),
        (0, slice(None), slice(None), [0, 1]),
        (slice(1, 3), slice(None), slice(None), [0, 1]),
        (slice(None), None),
        None,
    ],
    ids=str,
)
def test_any_other_index_gives_the_array(stack, key):
    assert isinstance(stack[key], np.ndarray)
    np.testing.assert_array_equal(WHOLE[key], stack[key])


@pytest.mark.parametrize("key", [12, -13, [12], np.zeros((2, 2), int)], ids=str)
def test_groups_that_are_not_there_are_refused(stack, key):
    with pytest.raises(IndexError):
        stack[key]


@pytest.mark.parametrize(
    "compute",
    [
        lambda images: images * 2,
        lambda images: np.float32(2) * images,
        lambda images: images**2 + images,
        lambda images: -images > -0.5,
        np.sqrt,
        np.mean,
        lambda images: np.sum(images, axis=(1, 2)),
        lambda images: np.transpose(images, [0, 3, 1, 2]),
        lambda images: np.concatenate([images, images]),
        lambda images: images.astype(np.float64),
        lambda images: np.stack(list(images)),
        lambda images: tf.convert_to_tensor(images).numpy(),
        lambda images: tf.reduce_sum(images**2, axis=[1, 2]).numpy(),
        lambda images: np.stack(
            list(tf.data.Dataset.from_tensor_slices(images).as_numpy_iterator())
        ),
    ],
)
def test_computing_gives_what_the_array_gives(stack, compute):
    np.testing.assert_array_equal(compute(WHOLE), compute(stack))
    assert compute(WHOLE).dtype == compute(stack).dtype


def test_only_the_groups_that_are_asked_for_are_read(stack):
    """A stack of a source that counts."""

    class Counting(GroupedArray):
        asked = 0

        def read(self, groups, out):
            self.asked += len(groups)
            super().read(groups, out)

    source = Counting(WHOLE)
    counted = ImageStack(source)[2:10].scaled(2)
    np.testing.assert_array_equal(2 * WHOLE[[2, 9]], counted[[0, 7]])

    assert source.asked == 2


def test_scaling_is_in_the_precision_of_the_images(stack):
    np.testing.assert_array_equal(WHOLE * np.float32(0.3), stack.scaled(0.3))
    assert np.asarray(stack.scaled(0.3)).dtype == np.float32


def test_energies_are_known_where_those_of_the_frames_are():
    """Mean over channels; of the chosen groups, scaled."""
    energies = (FRAMES.astype(np.float64) ** 2).sum(axis=(1, 2))
    stack = ImageStack(FrameGather(FRAMES, NN, 3.0, energies=energies))[[4, 2]].scaled(2)

    np.testing.assert_allclose(36 * energies[NN[[4, 2]]].mean(axis=1), stack.group_energies())
    assert ImageStack(FrameGather(FRAMES, NN)).group_energies() is None


@pytest.mark.parametrize("part", ["amplitude", "phase"])
def test_parts_of_a_complex_stack_are_those_of_its_array(part):
    """Bit for bit; frames that are complex are gathered as such."""
    waves = (FRAMES * np.exp(3j * FRAMES)).astype(np.complex64)
    stack = ImageStack(FrameGather(waves, NN))

    assert stack.dtype == np.complex64
    np.testing.assert_array_equal(np.moveaxis(waves[NN], 1, 3), stack)
    np.testing.assert_array_equal(
        np.asarray(ComplexPart(WAVES, part)), np.asarray(StackPart(stack, part))
    )


def test_patches_of_the_object_can_stay_complex():
    obj = (GENERATOR.random((40, 48)) + 1j * GENERATOR.random((40, 48))).astype(np.complex64)
    coords = GENERATOR.uniform(8, 32, (5, 1, 2, 4)).astype(np.float32)
    whole = ImageStack(ObjectPatches(obj, coords, 16, "complex"))

    assert whole.dtype == np.complex64
    assert whole.nbytes == 5 * 16 * 16 * 4 * 8
    for part, function in (("amplitude", np.abs), ("phase", np.angle)):
        np.testing.assert_array_equal(ObjectPatches(obj, coords, 16, part), StackPart(whole, part))
        np.testing.assert_array_equal(function(whole), StackPart(whole, part))
