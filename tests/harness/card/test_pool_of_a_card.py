"""Pools on a pretended card, by TensorFlow's own GPU device: what the doctor finds in each, and
which card auto takes.
"""

import json
import os
import subprocess
import sys

import pytest

from harness.run.devices import reservable_bytes
from harness.words import MIB

CONTEXT_BYTES = 400 * MIB


@pytest.fixture
def card(machine):
    """One card whose contexts take as much as those of real ones."""
    return machine(context_bytes=CONTEXT_BYTES)


@pytest.fixture
def doctor(card, project_root):
    """``doctor(*options, **variables)``: its exit code, its findings as JSON, and what it says on
    standard error.
    """

    def doctor(*options, **variables):
        environment = {**os.environ, **card.environment, **variables}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        done = subprocess.run(
            [sys.executable, "-m", "harness", "doctor", "--device", "gpu", "--json", *options],
            cwd=project_root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return (
            done.returncode,
            json.loads(done.stdout) if done.stdout.startswith("{") else {},
            done.stderr,
        )

    return doctor


def errors(found, meter):
    return {
        check["phase"]: check["error_bytes"] for check in found["checks"] if check["meter"] == meter
    }


def asked(found, meter):
    return {
        check["phase"]: check["asked_bytes"] for check in found["checks"] if check["meter"] == meter
    }


def test_a_pool_that_is_reserved_reads_exactly_and_the_driver_sees_the_whole_of_it(doctor, card):
    """To the byte, but for the arguments of an operation; the pool is what was free, less what is
    left, in whole MiB.
    """
    code, found, said = doctor()
    pool_bytes = asked(found, "nvml_process")["device_large"]

    assert (code, found["usable"]) == (0, True), said
    assert found["device"]["pool"] == "reserved"
    assert all(0 <= error_bytes <= 1024 for error_bytes in errors(found, "device_in_use").values())
    assert pool_bytes == reservable_bytes(card.devices[0].total_bytes, 8)
    assert errors(found, "nvml_process") == {"device_large": CONTEXT_BYTES}


def test_a_budget_caps_the_pool(doctor):
    """The driver sees the budget, and no tensor in it."""
    code, found, said = doctor("--device-budget", "512MiB")

    assert (code, found["device"]["limit_bytes"]) == (0, 512 * MIB), said
    assert asked(found, "nvml_process") == {"device_large": 512 * MIB}
    assert all(0 <= error_bytes <= 1024 for error_bytes in errors(found, "device_in_use").values())


def test_a_pool_that_grows_reads_up_to_twice_the_amount_and_is_found_all_the_same(doctor):
    """1 MiB is all of the first region, of 2 MiB; less would be a meter that does not see it."""
    code, found, said = doctor("--growth")
    small_bytes = errors(found, "device_in_use")["device_small"]

    assert (code, found["device"]["pool"]) == (0, "grown"), said
    assert MIB // 2 < small_bytes < MIB
    assert asked(found, "nvml_process") == {"device_large": 32 * MIB}


def test_the_drivers_own_pool_is_examined_without_a_limit_and_refused_with_one(doctor):
    """TF_GPU_ALLOCATOR=cuda_malloc_async: a limit would not be kept."""
    code, found, said = doctor(TF_GPU_ALLOCATOR="cuda_malloc_async")
    assert (code, found["device"]["pool"], found["device"]["limit_bytes"]) == (0, "driver", None), (
        said
    )
    code, _, said = doctor("--device-budget", "512MiB", TF_GPU_ALLOCATOR="cuda_malloc_async")

    assert code == 2
    assert "that allocator enforces no limit" in said


def test_tensorflow_sees_the_card_and_auto_takes_it(card, project_root):
    """Asked in a process of its own; where the card is full it is not taken, and gpu says who fills
    it.
    """
    command = [sys.executable, "-m", "harness", "doctor", "--find", "--device"]
    environment = {**os.environ, **card.environment}
    environment.pop("CUDA_VISIBLE_DEVICES", None)

    def find(choice):
        return subprocess.run(
            [*command, choice],
            cwd=project_root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    assert "(gpu)" in find("auto").stdout
    neighbour = card.control.add_process(
        card.devices[0], os.getpid(), card.devices[0].total_bytes, name="python3"
    )
    card.devices[0].used_bytes = neighbour.used_bytes
    assert "(emulated)" in find("auto").stdout
    full = find("gpu")

    assert full.returncode == 3
    assert f"On the card: process {os.getpid()} (python3, " in full.stderr
