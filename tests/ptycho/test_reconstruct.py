"""Patches put together: where they belong, with both loaders, and what is refused."""

import numpy as np
import pytest

from ptycho import reconstruct as module
from ptycho.errors import ContainerError
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.model import build_model
from ptycho.reconstruct import reconstruct

BATCH_SIZE = 7  # leaves a partial batch of 50 groups


@pytest.fixture(params=[LazyPtychoDataContainer, PtychoDataContainer], ids=["lazy", "eager"])
def container(request, scan):
    return request.param.from_scan(scan, image_count=50, gridsize=2)


@pytest.fixture
def model(scan):
    return build_model(scan.frame_size, 2, scan.probe)


def cut_from(obj, container, scan):
    """Stands for a perfect network: gives the object where each group is, in the order of the
    container.
    """
    size, start = scan.frame_size, 0
    positions = (
        np.rint(np.asarray(container.global_offsets) - np.asarray(container.local_offsets)).astype(
            int
        )[:, 0]
        - size // 2
    )

    def patches(scaled, coords):
        nonlocal start
        assert scaled.shape[0] == coords.shape[0] <= BATCH_SIZE
        groups = positions[start : start + scaled.shape[0]]
        start += scaled.shape[0]
        return Patches(
            np.stack(
                [[obj[y : y + size, x : x + size] for x, y in group.T] for group in groups]
            ).transpose(0, 2, 3, 1)
        )

    return lambda model: patches


class Patches:
    """What a tensor gives: a host array, when asked."""

    def __init__(self, values):
        self.values = values

    def numpy(self):
        return self.values


def test_perfect_patches_give_the_object_where_it_was_lit(monkeypatch, model, container, scan):
    """At its place: pixel (0, 0) is origin in the scan's own object."""
    monkeypatch.setattr(module, "object_patches", cut_from(scan.object, container, scan))
    found = reconstruct(model, container, BATCH_SIZE, progress=False)
    (row, column), (height, width) = found.origin, found.object.shape
    truth = scan.object[row : row + height, column : column + width]
    lit = found.weights > 1e-3

    assert found.object.dtype == np.complex64
    assert lit.mean() > 0.4
    np.testing.assert_allclose(found.object[lit], truth[lit], rtol=1e-4)


def test_both_loaders_give_the_same_object(model, scan):
    """Whatever the batch size, the last one partial."""
    eager, lazy = (
        kind.from_scan(scan, image_count=50, gridsize=2)
        for kind in (PtychoDataContainer, LazyPtychoDataContainer)
    )
    first, second = (
        reconstruct(model, eager, 50, progress=False),
        reconstruct(model, lazy, BATCH_SIZE, progress=False),
    )

    assert first.origin == second.origin
    np.testing.assert_allclose(first.object, second.object, atol=1e-3)
    np.testing.assert_allclose(first.weights, second.weights, rtol=1e-5)


def test_the_bar_is_shown_on_stderr_unless_it_is_not_wanted(model, container, capsys):
    """Nothing on stdout."""
    reconstruct(model, container, BATCH_SIZE)
    shown = capsys.readouterr()
    reconstruct(model, container, BATCH_SIZE, progress=False)
    silent = capsys.readouterr()

    assert (shown.out, silent.out, silent.err) == ("", "", "")
    assert "reconstructing" in shown.err


def test_what_cannot_be_put_together_is_refused(model, container, scan):
    """One sentence each, before anything is predicted."""
    with pytest.raises(ContainerError, match="batch_size is 0"):
        reconstruct(model, container, 0)
    with pytest.raises(
        ContainerError,
        match=r"is for frames and channels of \(32, 32, 1\) and the container has \(32, 32, 4\)",
    ):
        reconstruct(build_model(32, 1, scan.probe), container, BATCH_SIZE)
    offsets = container.global_offsets
    container.global_offsets = None
    with pytest.raises(ContainerError, match="has no global_offsets"):
        reconstruct(model, container, BATCH_SIZE)
    container.global_offsets = offsets * 1e6
    with pytest.raises(ContainerError, match=r"span \d+ x \d+ pixels; .* give positions in pixels"):
        reconstruct(model, container, BATCH_SIZE)
