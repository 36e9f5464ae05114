"""Reserving the emulated device, in a process of its own."""

import os
import subprocess
import sys

import pytest

RESERVE = """
from harness.errors import DeviceUnavailable
from harness.measure.device import prepare_device
try:
    print(prepare_device({"kind": "emulated", "limit_bytes": %d * 1024 * 1024}))
except DeviceUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("pool_mib", "asked_mib", "said"),
    [
        (64, 64, "CPU:0"),
        (16, 16, "CPU:0"),  # the smallest budget that can be asked for
        (
            64,
            80,
            (
                "the emulated device of 80 MiB could not be reserved in this machine's memory; "
                "ask for a smaller --device-budget, or free memory"
            ),
        ),
    ],
)
def test_a_device_without_room_is_unavailable_and_no_loader_is_blamed(project_root, pool_mib, asked_mib, said):
    """A pool has room for itself; 15/16 of 80 MiB are more than 64."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPU_ALLOCATOR_USE_BFC": "true",
        "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(pool_mib),
    }
    done = subprocess.run(
        [sys.executable, "-c", RESERVE % asked_mib],
        cwd=project_root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    assert done.stdout.strip() == said
