"""Starting the sampler: a private folder, a socket that fits, one process however often it is asked
for, a reason else.
"""

import json
import os
import signal
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from harness.records import Outcome, Point, Quality
from harness.run.devices import emulated_device
from harness.run.launchers import Sampling, SpawnLauncher
from harness.run.runner import ChildSettings, Runner
from harness.rundir.manifest import start_run
from harness.rundir.rows import PhaseRecord
from harness.words import GIB, MIB

HOLD = Point(
    scenario="hold",
    body="tests.harness.measure.watched:hold",
    parameters={"amount_bytes": 64 * MIB},
    phases=("hold", "release"),
)


@pytest.fixture
def sampling():
    started = Sampling()
    yield started
    started.close()


def test_one_sampler_serves_until_it_is_closed_and_leaves_nothing_behind(sampling):
    """The same address each time; its folder is this user's alone, and gone in the end."""
    first, second = sampling.address(), sampling.address()
    folder = Path(first[0]).parent
    mode = stat.S_IMODE(folder.stat().st_mode)
    process = sampling.process_id
    sampling.close()

    assert (first, first[1], mode) == (second, "", 0o700)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_nothing_is_started_before_it_is_asked_for(sampling):
    """A session that measures nothing has no sampler."""
    assert sampling.process_id is None


def test_a_folder_that_is_too_long_for_a_socket_gives_way_to_a_short_one(
    sampling, tmp_path, monkeypatch
):
    """The path of a socket has some hundred bytes."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    address, _ = sampling.address()

    assert (len(address) < 100, long in Path(address).parents, list(long.iterdir())) == (
        True,
        False,
        [],
    )


def test_a_sampler_that_cannot_start_is_a_reason_and_no_error(tmp_path):
    """The measurement goes on without it."""
    sampling = Sampling(options=("--counters", "none"))
    address, reason = sampling.address()

    assert address == ""
    assert reason.startswith("the sampler could not be started: it ended with code 2: ")
    assert "invalid choice: 'none'" in reason


def test_an_interpreter_that_is_gone_is_a_reason_and_no_error(sampling, monkeypatch):
    """In the system's words."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    assert sampling.address() == (
        "",
        "the sampler could not be started: [Errno 2] No such file or directory: '/nowhere/python'",
    )


@pytest.fixture
def run_with(tmp_path, project_root):
    """``run_with(sampling)``: a runner of HOLD, and a function that gives the readings of host_anon
    of one repeat.
    """

    def made(sampling):
        runner = Runner(
            run_directory=tmp_path / "run",
            device=emulated_device("a test"),
            launcher=SpawnLauncher(),
            children=ChildSettings(
                root=project_root,
                workspace=tmp_path / "inputs",
                host_limit_bytes=GIB,
                timeout_s=120.0,
                meters=("harness.measure.host_meter:HostMeter",),
                prepare_device="tests.harness.measure.watched:find_no_device",
            ),
            sampling=sampling,
        )
        start_run(
            runner.run_directory,
            points=[HOLD],
            repeats=2,
            device=runner.device,
            command="test",
            root=project_root,
            settings={},
        )

        def anon(repeat):
            end = runner.measure(HOLD, repeat)
            assert end.outcome is Outcome.OK, end.reason
            rows = [
                json.loads(line)
                for line in (runner.run_directory / "rows.jsonl").read_text().splitlines()
            ]
            phases = [
                PhaseRecord.from_json(row)
                for row in rows
                if row["kind"] == "phase" and row["repeat"] == repeat
            ]
            return [next(r for r in phase.readings if r.meter == "host_anon") for phase in phases]

        return anon

    return made


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_run_is_looked_at_by_a_sampler_and_by_another_when_that_one_has_died(sampling, run_with):
    """The second run's readings say what became of the first sampler."""
    anon = run_with(sampling)
    hold, release = anon(0)
    os.kill(sampling.process_id, signal.SIGKILL)
    os.waitid(os.P_PID, sampling.process_id, os.WEXITED | os.WNOWAIT)
    again, _ = anon(1)

    assert 64 * MIB <= hold.growth_bytes < 65 * MIB
    assert release.retained_bytes == pytest.approx(-64 * MIB, abs=MIB)
    assert hold.source.startswith("VmHWM in windows, and faults; the kernel's counters to ")
    assert (hold.quality, hold.reason) == (Quality.BOUNDED, "")
    assert again.source == hold.source
    assert "the sampler before this one ended with code -9" in again.reason


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_run_without_a_sampler_is_measured_and_says_so(run_with):
    """By the edges of its phases."""
    hold, _ = run_with(Sampling(options=("--counters", "none")))(0)

    assert 64 * MIB <= hold.growth_bytes < 65 * MIB
    assert (
        "without the sampler: the sampler could not be started: it ended with code 2" in hold.source
    )
