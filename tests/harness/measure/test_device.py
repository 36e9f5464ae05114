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
                "ask for a smaller --memory-device-budget, or free memory"
            ),
        ),
    ],
)
def test_a_device_without_room_is_unavailable_and_no_loader_is_blamed(
    project_root, pool_mib, asked_mib, said
):
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


COUNTED = """
import tensorflow as tf
from harness.measure.device import prepare_device
name = prepare_device({"kind": "emulated", "limit_bytes": 64 * 1024 * 1024})
for size in (1, 4096, 100_000, 2**20, 3 * 2**19, 2**21, 5 * 2**20):
    before = tf.config.experimental.get_memory_info(name)["current"]
    tensor = tf.raw_ops.Empty(shape=[size], dtype=tf.uint8, init=False)
    print(size, tf.config.experimental.get_memory_info(name)["current"] - before)
    del tensor
"""


def test_a_tensor_of_any_size_is_counted_to_256_bytes(project_root):
    """Also one that would fit what TensorFlow's start-up has left of its first region. The shape
    may be still held: 256 B more.
    """
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPU_ALLOCATOR_USE_BFC": "true",
        "TF_CPU_BFC_MEM_LIMIT_IN_MB": "64",
    }
    done = subprocess.run(
        [sys.executable, "-c", COUNTED],
        cwd=project_root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    counted = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]

    assert len(counted) == 7
    for size, read in counted:
        assert read - -(-size // 256) * 256 in (0, 256), (size, read)


CONFIGURE = """
import tensorflow as tf
from harness.errors import DeviceUnavailable
from harness.measure import device
from harness.words import MIB
cpu, = tf.config.list_physical_devices("CPU")
def said(function, *arguments):
    try:
        function(*arguments)
    except DeviceUnavailable as error:
        print(error)
said(device.configure, cpu, None)
said(device.configure, cpu, 64 * MIB)
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
print([logical.name for logical in tf.config.list_logical_devices("CPU")])
said(device.prepare_device, {"kind": "gpu", "name": "A100", "limit_bytes": None})
tf.config.list_physical_devices = lambda kind: [cpu, cpu]
said(device.prepare_device, {"kind": "gpu", "name": "A100", "limit_bytes": None})
tf.config.list_physical_devices = lambda kind: [cpu]
said(device.prepare_device, {"kind": "gpu", "name": "A100", "limit_bytes": 64 * MIB})
"""


def test_tensorflow_is_told_of_growth_and_limits_and_its_refusals_are_reasons(project_root):
    """On a CPU it refuses both, each in its own words; so both were asked for. A card that is not
    alone is refused.
    """
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURE],
        cwd=project_root,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    growth, limit, logical, absent, crowd, late = done.stdout.splitlines()
    cpu = "TensorFlow cannot have /physical_device:CPU:0"

    assert (
        growth
        == f"{cpu} grow on demand: Cannot set memory growth on non-GPU and non-Pluggable devices"
    )
    assert (
        limit == f"{cpu} be limited to 64 MiB: Setting memory limit on CPU virtual devices is "
        "currently not supported"
    )
    assert logical == "['/device:CPU:0', '/device:CPU:1']"
    assert "sees no GPU, though the driver has A100; install a build with CUDA" in absent
    assert "sees 2 devices of the kind GPU, but A100 was leased alone" in crowd
    assert late.startswith(f"{cpu} be limited to 64 MiB: ")
