"""The programme for a first card: what it says of a pretended one, of a driver without CUDA, and of
none.
"""

import json
import os
import subprocess
import sys

import pytest

from harness.words import GIB, MIB
from scenarios.first_card.rows import Kind, amount, exit_code, expect, fact, failed, unavailable

CONTEXT_BYTES = 300 * MIB
STEADY = (
    "queries",
    "context",
    "lists",
    "allocations",
    "refused",
    "killed",
    "accounting",
    "neighbour",
    "leases",
    "runner",
)
"""The steps whose expectations do not depend on how busy this machine is."""


def first_card(project_root, out, environment, *options):
    """The exit code, what was printed, and the rows by their question."""
    command = [sys.executable, "-m", "scenarios.first_card", "--out", str(out), *options]
    environment = {**os.environ, **environment}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        command, cwd=project_root, env=environment, capture_output=True, text=True, check=False
    )
    steps = json.loads(out.read_text())["steps"] if out.exists() else {}
    return (
        done.returncode,
        done.stdout + done.stderr,
        {row["what"]: row for rows in steps.values() for row in rows},
    )


@pytest.fixture
def pretended(machine):
    """One pretended card, of which the driver keeps 500 MiB and each context takes 300 MiB."""
    return machine(reserved_bytes=500 * MIB, context_bytes=CONTEXT_BYTES)


@pytest.fixture
def card(driver):
    """A card that NVML has and CUDA has not."""
    return driver.add_device(total_bytes=8 * GIB, reserved_bytes=500 * MIB)


def test_a_pretended_card_holds_what_is_expected(project_root, tmp_path, pretended):
    """All steps that a busy machine does not disturb: exit 0, and every amount to the byte."""
    code, said, rows = first_card(
        project_root, tmp_path / "card.json", pretended.environment, "--only", *STEADY
    )

    assert code == 0, said
    for taken_bytes in (MIB, 32 * MIB, GIB):
        row = next(
            row
            for what, row in rows.items()
            if row["asked_bytes"] == taken_bytes and "nvml_device_used" in what
        )
        assert (row["kind"], row["error_bytes"]) == ("holds", 0)
    assert rows["all of it given back, nvml_process"]["read_bytes"] == -(MIB + 32 * MIB + GIB)
    assert rows["used after SIGKILL"]["error_bytes"] == 0
    assert (
        rows["a context, of the card"]["read_bytes"]
        == rows["a context, of the process"]["read_bytes"]
        == CONTEXT_BYTES
    )
    assert rows["the driver's own peak of the process"]["read_bytes"] == CONTEXT_BYTES + 32 * MIB
    assert rows["free by CUDA beside NVML's v2"]["error_bytes"] == 0
    assert rows["a lease that is held"]["read"] == "it waits"
    assert "556.0 MiB" in rows["a neighbour"]["read"]
    assert rows["a point under a host limit of 2.0 GiB"]["read"] == "ok"
    assert rows["take under 2.0 GiB, nvml_process"]["error_bytes"] == 0


def test_spikes_are_counted(project_root, tmp_path, pretended):
    """Three spikes of each length; how many are seen depends on this machine."""
    options = ("--only", "spikes", "--spikes", "3")

    _, said, rows = first_card(
        project_root, tmp_path / "card.json", pretended.environment, *options
    )

    assert len(rows) == 3, said
    assert all(row["read"] in {f"{seen} of 3" for seen in range(4)} for row in rows.values())


def test_a_card_that_lists_no_processes_is_no_failure(project_root, tmp_path, pretended):
    """What this driver does not tell is unavailable, with the reason; the rest holds: exit 0."""
    for version in ("", "_v2", "_v3"):
        # NVML_ERROR_NOT_SUPPORTED
        pretended.control.fail(f"nvmlDeviceGetComputeRunningProcesses{version}", 3)

    code, said, rows = first_card(
        project_root, tmp_path / "card.json", pretended.environment, "--only", "allocations"
    )

    assert code == 0, said
    assert rows["1.0 GiB taken, nvml_device_used"]["error_bytes"] == 0
    assert rows["1.0 GiB taken, nvml_process"]["kind"] == "unavailable"
    assert "the driver does not report that" in rows["1.0 GiB taken, nvml_process"]["finding"]


def test_an_older_query_is_off(project_root, tmp_path, driver, card, driver_environment):
    """A driver whose memory query has no second version: the meter's figures would be others, exit
    1.
    """
    driver.fail("nvmlDeviceGetMemoryInfo_v2", 13)  # NVML_ERROR_FUNCTION_NOT_FOUND

    code, said, rows = first_card(
        project_root, tmp_path / "card.json", driver_environment, "--only", "queries"
    )

    assert code == 1, said
    assert (
        rows["query that the meter takes"]["read"],
        rows["query that the meter takes"]["kind"],
    ) == ("memory v1", "off")


def test_a_driver_without_cuda_fails_step_by_step(
    project_root, tmp_path, driver, card, driver_environment
):
    """NVML is there and libcuda is not: the steps that need memory say so, the others go on, exit
    1.
    """
    options = ("--only", "queries", "allocations", "refused")

    code, said, rows = first_card(
        project_root, tmp_path / "card.json", driver_environment, *options
    )

    assert code == 1
    assert rows["total, v1 beside v2"]["kind"] == "holds"
    assert rows["allocations"]["finding"].startswith(
        "unavailable, because the step failed: HolderError: no CUDA driver here: "
    )
    assert rows["refused"]["kind"] == "off"
    assert "Traceback" not in said


def test_without_a_card_it_says_so(project_root, tmp_path):
    """No driver: one sentence and exit 3; nothing is written."""
    code, said, _ = first_card(
        project_root, tmp_path / "card.json", {"LD_LIBRARY_PATH": "", "NVML_STUB_CONTROL": ""}
    )

    assert code == 3
    assert said.startswith("first_card: no card to measure on: ")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "card.json").exists()


@pytest.mark.parametrize(
    ("read_bytes", "kind"), [(9, "off"), (10, "holds"), (12, "holds"), (13, "off")]
)
def test_an_amount_holds_up_to_its_limits(read_bytes, kind):
    """From the asked bytes to two above them, both included."""
    row = amount("bytes", 10, read_bytes, above_bytes=2)

    assert (row.kind, row.error_bytes) == (kind, read_bytes - 10)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([expect("a", "1", "1", holds=True), fact("b", 2), unavailable("c", "no")], 0),
        ([expect("a", "1", "1", holds=True), failed("b", "no")], 1),
        ([expect("a", "1", "2", holds=False)], 1),
        ([fact("b", 2), unavailable("c", "no")], 1),
        ([], 1),
    ],
)
def test_the_exit_code_needs_something_that_holds(rows, code):
    """0 when something holds and nothing is off; facts alone are no success."""
    assert exit_code(rows) == code
    assert set(Kind) >= {row.kind for row in rows}
