"""TensorFlow's own statistics, probed before they are trusted; TensorFlow is faked in a child of
its own.
"""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json
import sys
from types import SimpleNamespace, ModuleType

class Allocator:
    live = peak = 0

class Tensor:
    def __init__(self, size):
        Allocator.live += size if %(counts)r else 0
        Allocator.peak = max(Allocator.peak, Allocator.live)
        self.size = size
    def __del__(self):
        Allocator.live -= self.size if %(counts)r else 0

def refuse(device):
    raise ValueError(f"Allocator stats not available for device {device!r}")

def reset(device):
    Allocator.peak = Allocator.live if %(forgets)r else Allocator.peak

class Device:
    def __init__(self, name): pass
    def __enter__(self): pass
    def __exit__(self, *error): pass

tensorflow = ModuleType("tensorflow")
tensorflow.device, tensorflow.uint8, tensorflow.zeros = Device, None, \
lambda shape, dtype: Tensor(shape[0])
info = refuse if %(silent)r else lambda device: {"current": Allocator.live, "peak": Allocator.peak}
tensorflow.config = SimpleNamespace(
    experimental=SimpleNamespace(get_memory_info=info, \
reset_memory_stats=refuse if %(stuck)r else reset)
)
sys.modules["tensorflow"] = tensorflow

from harness.errors import MeterUnavailable
from harness.measure import MeterContext
from harness.measure.device import AllocatorMeter

try:
    meter = AllocatorMeter(MeterContext(device_name="GPU:0", device={}))
    meter.open()
    %(then)s
    print(json.dumps("open"))
except MeterUnavailable as reason:
    print(json.dumps(str(reason)))
"""
GOOD = {"counts": True, "forgets": True, "silent": False, "stuck": False, "then": "pass"}
RESET_IN_MID_PHASE = """
    tensorflow.test = SimpleNamespace(experimental=SimpleNamespace(sync_devices=lambda: None))
    meter.begin()
    large = Tensor(5000)
    del large
    tensorflow.config.experimental.reset_memory_stats("GPU:0")
    small = Tensor(300)
    (first,) = meter.end()
    meter.begin()
    (second,) = meter.end()
    print(json.dumps([first.peak_bytes, first.end_bytes, second.peak_bytes]))
    sys.exit()
"""


@pytest.mark.parametrize(
    ("allocator", "said"),
    [
        ({}, "open"),
        (
            {"silent": True},
            "TensorFlow has no memory statistics for GPU:0: Allocator stats not available",
        ),
        ({"counts": False}, "TensorFlow's allocator on GPU:0 counted 0 B of a tensor of 1048576 B"),
        (
            {"stuck": True},
            "TensorFlow cannot reset the peak of GPU:0: Allocator stats not available",
        ),
        ({"forgets": False}, "TensorFlow's allocator on GPU:0 does not forget its peak"),
    ],
)
def test_an_allocator_is_probed_before_it_is_trusted(project_root, allocator, said):
    """As cuda_malloc_async, which kept no statistics at first: unavailable with the reason, not an
    error of the body.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % {**GOOD, **allocator}],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert json.loads(done.stdout).startswith(said)


def test_a_body_that_has_the_peak_forgotten_hides_nothing(project_root):
    """5,000 B came and went before its own reset: they are the phase's peak, and not that of the
    next one.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % {**GOOD, "then": RESET_IN_MID_PHASE}],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert json.loads(done.stdout) == [5000, 300, 300]
