"""The container of this project in the words of its users: how eager loading runs out of memory,
and lazy does not.

Every measurement runs in a child of its own, on the GPU's allocator, or without a GPU on the same
allocator on the CPU.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.records import Outcome, Point
from harness.run.cards import usable_device
from harness.run.launchers import open_launcher
from harness.run.runner import ChildSettings, Runner
from harness.rundir.manifest import start_run
from harness.rundir.rows import PhaseRecord
from harness.words import GIB, MIB
from scenarios.catalog import points

ROOT = Path(__file__).resolve().parent.parent
N, GRIDSIZE = 64, 2
BATCH_BYTES = 64 * GRIDSIZE**2 * N**2 * 4


@pytest.fixture(scope="module")
def launcher():
    opened = open_launcher("auto", environment=os.environ, folder=ROOT)
    yield opened
    opened.close()


@pytest.fixture
def measure(launcher, tmp_path):
    """Run one point of the catalogue: how it ended, and what the device's allocator read in each
    phase.
    """

    def run(point):
        device = usable_device("auto", ROOT)
        runner = Runner(
            run_directory=tmp_path / "run",
            device=device,
            launcher=launcher,
            children=ChildSettings(
                root=ROOT,
                workspace=ROOT / "artifacts" / "inputs",
                host_limit_bytes=5 * GIB,
                timeout_s=300.0,
            ),
        )
        start_run(
            runner.run_directory,
            points=[point],
            repeats=1,
            device=device,
            command="test",
            root=ROOT,
            settings={},
        )
        end = runner.measure(point, 0)
        rows = [
            json.loads(line)
            for line in (runner.run_directory / "rows.jsonl").read_text().splitlines()
        ]
        phases = [PhaseRecord.from_json(row) for row in rows if row["kind"] == "phase"]
        return end, {
            p.phase: next(r for r in p.readings if r.meter == "device_in_use") for p in phases
        }

    return run


def point_of(scenario, loader, image_count) -> Point:
    """The point of the catalogue at these parameters."""
    wanted = {"loader": loader, "image_count": image_count}
    return next(
        p for p in points() if p.scenario == scenario and wanted.items() <= p.parameters.items()
    )


class TestEagerLoadingOOM:
    """What users have today: every array on the device at construction."""

    @pytest.mark.parametrize("image_count", [100, 500, 1000])
    def test_memory_usage_scales_with_dataset_size(self, measure, image_count):
        """What construction keeps on the device is what its arrays add up to, within 2 %."""
        end, device = measure(point_of("arrays", "eager", image_count))
        float_images = image_count * N * N * GRIDSIZE**2 * 4
        coords = image_count * 2 * GRIDSIZE**2 * 4
        # X, Y_I, Y_phi are float32, Y is complex64; two sets of coords; the probe is complex64.
        arrays_bytes = 3 * float_images + 2 * float_images + 2 * coords + N * N * 8

        assert end.outcome is Outcome.OK, end.reason
        assert device["construct"].retained_bytes == pytest.approx(arrays_bytes, rel=0.02)
        assert device["construct"].retained_bytes >= arrays_bytes
        assert device["construct"].peak_bytes >= device["construct"].end_bytes

    @pytest.mark.oom
    def test_oom_with_eager_loading(self, measure):
        """At 2,000 groups under 256 MiB the device runs out during construction, and the row says
        so.
        """
        end, device = measure(point_of("oom", "eager", 2000))

        assert (end.outcome, end.phase) == (Outcome.DEVICE_OOM, "construct"), end.reason
        assert device["construct"].peak_bytes <= 256 * MIB
        assert set(device) == {"open", "construct"}

    @pytest.mark.oom
    def test_oom_with_eager_loading_at_dense_study_size(self, measure):
        """The study that started it, N = 128 and 20,000 groups: X alone, 5 GB, does not fit a
        device of 4 GiB.

        The device is asked first: nothing of it is ever made on the host.
        """
        point = replace(
            point_of("loading", "eager", 2000),
            parameters={"loader": "eager", "image_count": 20_000, "stack_size": 1024},
            fixed={"frame_size": 128, "gridsize": GRIDSIZE, "batch_size": 16},
            expected=Outcome.DEVICE_OOM,
            device_budget_bytes=4 * GIB,
        )
        end, device = measure(point)

        assert (end.outcome, end.phase) == (Outcome.DEVICE_OOM, "construct"), end.reason
        assert device["construct"].growth_bytes < MIB


class TestLazyLoading:
    """What this project gives them: nothing on the device before a batch is asked for."""

    def test_lazy_loading_avoids_oom(self, measure):
        """The same groups under the same 256 MiB: both epochs run, with between one and four
        batches on the device.
        """
        end, device = measure(point_of("oom", "lazy", 2000))

        assert end.outcome is Outcome.OK, end.reason
        assert device["construct"].growth_bytes == 0
        for epoch in ("epoch_0", "epoch_1"):
            assert BATCH_BYTES <= device[epoch].growth_bytes <= 4 * BATCH_BYTES
            # What stays are constants of TensorFlow's own functions.
            assert device[epoch].retained_bytes < MIB

    def test_lazy_container_backward_compatible(self):
        """Old code that reads whole tensors still gets them, bit for bit, with a warning that says
        what to use.
        """
        import tensorflow as tf

        from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
        from scenarios.bodies.arrays import grouped_arrays

        arrays = grouped_arrays(12, 16, GRIDSIZE**2)
        eager, lazy = PtychoDataContainer(**arrays), LazyPtychoDataContainer(*arrays.values())

        assert len(lazy) == len(eager) == 12
        for name in ("X", "Y_I", "Y_phi", "Y"):
            with pytest.warns(DeprecationWarning, match="as_dataset"):
                tensor = getattr(lazy, name)
            assert isinstance(tensor, tf.Tensor)
            np.testing.assert_array_equal(tensor.numpy(), getattr(eager, name).numpy())
        for name in ("coords", "coords_nominal", "coords_true", "probe"):
            np.testing.assert_array_equal(
                np.asarray(getattr(lazy, name)), np.asarray(getattr(eager, name))
            )
        assert lazy.norm_Y_I == eager.norm_Y_I
        assert lazy.nn_indices is eager.nn_indices is None
