"""The lazy container on a measured scan: its batches against the forward model."""

import numpy as np
import pytest

from ptycho.files.stacks import normalization
from ptycho.loader import LazyPtychoDataContainer
from ptycho.simulate import far_field_amplitude


@pytest.mark.parametrize(("is_swapped", "expected"), [(False, 0.118), (True, 0.326)])
def test_batches_of_the_measured_scan_fit_the_forward_model(siemens_scan, is_swapped, expected):
    """Relative misfit over every seventh frame, through the container's own batches: a loader
    cannot pass by accident.
    """
    scan = siemens_scan
    lazy = LazyPtychoDataContainer.from_scan(scan, image_count=scan.frame_count, gridsize=1)
    scale = normalization(scan.energies(), lazy.nn_indices, scan.frame_size)
    difference = total = 0.0
    frames = iter(lazy.nn_indices[:, 0])
    for images, _ in lazy.as_dataset(64):
        for image in images.numpy()[..., 0] / scale:
            frame = next(frames)
            if frame % 7 == 0:
                column, row = (round(float(axis[frame])) - 64 for axis in (scan.x, scan.y))
                if is_swapped:
                    column, row = row, column
                model = far_field_amplitude(
                    scan.probe, scan.object[row : row + 128, column : column + 128]
                )
                difference, total = (
                    difference + float(((model - image) ** 2).sum()),
                    total + float((image**2).sum()),
                )

    assert np.sqrt(difference / total) == pytest.approx(expected, abs=0.002)
