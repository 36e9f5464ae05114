"""What a child is asked to do: one record, built by its parent and read by the child."""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.records import TRACED_REPEAT, Job, Point, to_json
from harness.run.devices import emulated_device
from harness.run.runner import METERS, TRACED_METERS

POINT = Point(
    scenario="s",
    body="bodies:measure",
    prepare="bodies:prepare",
    parameters={"image_count": 8},
    fixed={"epochs": 2},
    inputs={"file": "scan.npz"},
    phases=("load",),
)


@pytest.mark.parametrize(("repeat", "meters"), [(0, METERS), (TRACED_REPEAT, TRACED_METERS)])
def test_a_job_to_measure_has_the_body_and_no_preparation(make_runner, repeat, meters):
    """The limit of its memory has the device's share in it."""
    runner, device = make_runner(host_limit_bytes=100), emulated_device("a test")

    job = runner.children.measurement(POINT, repeat, device, Path("rows.jsonl"))

    assert (job.body, job.prepare, job.meters) == ("bodies:measure", None, meters)
    assert job.parameters == {"epochs": 2, "file": "scan.npz", "image_count": 8}
    assert job.host_limit_bytes == 100 + device.host_bytes


def test_a_job_to_prepare_has_no_body_and_no_instruments(make_runner):
    """It needs no TensorFlow."""
    job = make_runner().children.preparation(
        POINT, 0, emulated_device("a test"), Path("rows.jsonl")
    )

    assert (job.body, job.prepare) == (None, "bodies:prepare")
    assert (job.prepare_device, job.meters, job.tracer) == ("", (), "")


def test_a_child_reads_the_job_that_its_parent_wrote(make_runner):
    """Every field comes over the line; a list in place of a tuple is all that JSON changes."""
    job = make_runner().children.measurement(
        POINT, 0, emulated_device("a test"), Path("rows.jsonl")
    )

    read = Job.from_json(json.dumps(to_json(job)))

    assert (
        dataclasses.replace(
            read,
            meters=tuple(read.meters),
            import_paths=tuple(read.import_paths),
            kept_out=tuple(read.kept_out),
        )
        == job
    )
