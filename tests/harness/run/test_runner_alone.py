"""A run that was not alone on the device is measured again, twice at most, and the judge is told
who it was.
"""

import json

import pytest

from harness.judge.table import load_run
from harness.records import Outcome, Point
from harness.run.devices import Device, emulated_device
from harness.run.launchers import Sampling, SpawnLauncher
from harness.run.runner import PAUSES_S, ChildSettings, Runner
from harness.rundir.manifest import end_run, start_run
from harness.words import GIB, MIB

CHILDREN = "tests.harness.run.lease_children"
WHO = "4711 (python3, 120.0 MiB)"


@pytest.fixture
def measure(tmp_path, project_root):
    """Measure a point whose first ``contended`` attempts have a neighbour; gives its end and the
    rows.
    """

    def measure(contended, body="mark_a_phase"):
        point = Point(
            scenario="alone",
            body=f"{CHILDREN}:{body}",
            parameters={"attempts": contended},
            phases=("look",),
        )
        runner = Runner(
            run_directory=tmp_path / "run",
            device=emulated_device("a test"),
            launcher=SpawnLauncher(),
            children=ChildSettings(
                root=project_root,
                workspace=tmp_path,
                host_limit_bytes=GIB,
                timeout_s=60.0,
                meters=(f"{CHILDREN}:NeighbourMeter",),
                prepare_device=f"{CHILDREN}:leave_the_device_alone",
                environment={"NEIGHBOURS": f"{tmp_path / 'attempts'} {contended} {WHO}"},
            ),
            pauses_s=tuple(0.0 for _ in PAUSES_S),
        )
        start_run(
            tmp_path / "run",
            points=[point],
            repeats=1,
            device=runner.device,
            command="test",
            root=project_root,
            settings={},
        )
        end = runner.measure(point, 0)
        runner.close()
        end_run(tmp_path / "run")
        rows = [
            json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()
        ]
        return end, rows

    return measure


ONCE = ["code", "begin", "phase", "done", "end"]


@pytest.mark.parametrize(
    ("contended", "kinds"),
    [
        (0, ONCE),
        (1, [*ONCE, "again", *ONCE]),
        (2, [*ONCE, "again", *ONCE, "again", *ONCE]),
        (3, [*ONCE, "again", *ONCE, "again", *ONCE]),
        (9, [*ONCE, "again", *ONCE, "again", *ONCE]),
    ],
)
def test_a_disturbed_run_is_measured_at_most_twice_more(measure, tmp_path, contended, kinds):
    """The row before each further attempt says who it was; only the last attempt counts, and what
    disturbed that stays in it.
    """
    end, rows = measure(contended)
    run = load_run(tmp_path / "run")

    assert end.outcome is Outcome.OK
    assert [row["kind"] for row in rows] == kinds
    assert {row["reason"] for row in rows if row["kind"] == "again"} <= {
        f"not alone on the device: {WHO}"
    }
    assert run.problems == ()
    assert run.phases["contended"].tolist() == [WHO if contended > 2 else ""]


def test_a_disturbed_run_that_failed_is_measured_again_too(measure):
    """The neighbour may have taken the memory that it lacked."""
    _, rows = measure(1, body="fail_in_a_phase")

    assert [row["outcome"] for row in rows if row["kind"] == "end"] == ["error", "error"]


@pytest.mark.parametrize(
    ("body", "attempts", "left"), [("see_the_neighbour_off", 2, ""), ("mark_a_phase", 3, WHO)]
)
def test_a_neighbour_that_the_driver_lists_disturbs(
    driver, driver_environment, nvml_stub, tmp_path, project_root, body, attempts, left
):
    """Through the sampler, NVML's own structures and the meter; one that goes, and one that
    stays.
    """
    card = driver.add_device("GPU-0", total_bytes=40 * GIB, used_bytes=100 * MIB)
    driver.add_process(card, 1, 0)
    driver.add_process(card, 4711, 120 * MIB, name="python3")
    point = Point(scenario="alone", body=f"{CHILDREN}:{body}", parameters={}, phases=("look",))
    runner = Runner(
        run_directory=tmp_path / "run",
        device=Device(
            kind="gpu",
            name="A100",
            uuid="GPU-0",
            memory_bytes=40 * GIB,
            limit_bytes=None,
            driver="stub",
        ),
        launcher=SpawnLauncher(),
        children=ChildSettings(
            root=project_root,
            workspace=tmp_path,
            host_limit_bytes=GIB,
            timeout_s=60.0,
            meters=("harness.measure.card_meter:NvmlMeter",),
            prepare_device=f"{CHILDREN}:appear_on_the_card",
            environment=driver_environment,
        ),
        lease_folder=tmp_path,
        with_room=lambda device: device,
        pauses_s=(0.0, 0.0),
        sampling=Sampling(environment=driver_environment),
    )
    start_run(
        tmp_path / "run",
        points=[point],
        repeats=1,
        device=runner.device,
        command="test",
        root=project_root,
        settings={},
    )
    end = runner.measure(point, 0)
    runner.close()
    run = load_run(tmp_path / "run")
    readings = {row["meter"]: row for row in run.phases.to_dict("records")}
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]

    assert end.outcome is Outcome.OK, end.reason
    assert [row["kind"] for row in rows].count("end") == attempts
    assert {row["reason"] for row in rows if row["kind"] == "again"} == {
        f"not alone on the device: {WHO}"
    }
    assert (
        readings["nvml_device_used"]["contended"],
        readings["nvml_device_used"]["peak_bytes"],
    ) == (left, 100 * MIB)
    assert readings["nvml_process"]["peak_bytes"] == 40 * MIB


def test_two_further_attempts_and_no_more():
    """As the documentation says."""
    assert len(PAUSES_S) == 2
