"""What the two containers share is written once."""

import inspect

import numpy as np
import pytest

from ptycho.containers.base import Container
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer

KINDS = (LazyPtychoDataContainer, PtychoDataContainer)
SHARED = (
    "__init__",
    "from_scan",
    "from_raw_data_without_pc",
    "from_npz",
    "as_tf_dataset",
    "to_npz",
)


@pytest.mark.parametrize("name", SHARED)
def test_both_containers_have_it_from_their_base(name):
    """Neither has a copy of its own."""
    assert all(issubclass(kind, Container) for kind in KINDS)
    assert [name for kind in KINDS if name in vars(kind)] == []


def test_datasets_take_the_same_arguments():
    """As the base declares them."""
    expected = inspect.signature(Container.as_dataset)

    assert [inspect.signature(kind.as_dataset) for kind in KINDS] == [expected, expected]


def test_what_is_made_of_arrays_is_of_the_class_that_was_asked():
    """A subclass of a container makes objects of itself."""

    class Mine(LazyPtychoDataContainer):
        """A user's own."""

    axis = np.arange(8.0) * 10
    frames = np.ones((8, 16, 16), np.float32)
    probe = np.ones((16, 16), np.complex64)
    mine = Mine.from_raw_data_without_pc(axis, axis, frames, probe, None, nsamples=4)

    assert (type(mine), len(mine)) == (Mine, 4)
