"""A runner with real children, and the bodies of children.py as its points."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import Point
from harness.run.devices import emulated_device
from harness.run.launchers import SpawnLauncher, open_launcher
from harness.run.runner import ChildSettings, Runner
from harness.rundir.manifest import start_run
from harness.words import GIB

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def zygote():
    """One zygote for all tests that only want a child soon."""
    opened = open_launcher("zygote", environment=os.environ, folder=ROOT)
    yield opened
    opened.close()


@pytest.fixture
def make_runner(tmp_path, project_root):
    """A runner of fresh interpreters; any of its settings may be another."""

    def make(**changes):
        settings = {
            "run_directory": tmp_path / "run",
            "device": emulated_device("a test"),
            "launcher": SpawnLauncher(),
        }
        children = {
            "root": project_root,
            "workspace": tmp_path / "inputs",
            "host_limit_bytes": 5 * GIB,
            "timeout_s": 120.0,
        }
        of_children = {field.name for field in dataclasses.fields(ChildSettings)}
        for name, value in changes.items():
            (children if name in of_children else settings)[name] = value
        return Runner(**settings, children=ChildSettings(**children))

    return make


@pytest.fixture
def runner(make_runner):
    return make_runner()


@pytest.fixture
def measure(runner, project_root):
    """Measure one function of children.py; its end, and the rows."""

    def run(
        function,
        phases,
        *,
        parameters=None,
        prepare=None,
        device_budget_bytes=None,
        environment=None,
    ):
        point = Point(
            scenario=function,
            body=f"tests.harness.run.children:{function}",
            prepare=prepare,
            parameters=parameters or {},
            phases=phases,
            device_budget_bytes=device_budget_bytes,
            environment=environment or {},
        )
        start_run(
            runner.run_directory,
            points=[point],
            repeats=1,
            device=runner.device,
            command="test",
            root=project_root,
            settings={},
        )
        end = runner.measure(point, 0)
        rows = [
            json.loads(line)
            for line in (runner.run_directory / "rows.jsonl").read_text().splitlines()
        ]
        return end, rows

    return run


@pytest.fixture
def fresh_process(driver_environment, project_root):
    """What a script prints as JSON that is given one value, in a process of its own on the stub
    driver with all cards visible.
    """

    def ask(script, value):
        environment = {
            name: text for name, text in driver_environment.items() if not name.startswith("CUDA_")
        }
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(value)],
            env=environment,
            cwd=project_root,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask
