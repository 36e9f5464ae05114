"""What loading costs: exact device bytes in a child of its own, and traced host bytes."""

import json
import os
import subprocess
import sys
import tracemalloc

import pytest

from ptycho.energy import CHUNK_BYTES
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.scan import Scan
from ptycho.simulate import simulate

IMAGE_COUNT, FRAME_SIZE, BATCH_SIZE = 256, 32, 16
BATCH_BYTES = BATCH_SIZE * FRAME_SIZE * FRAME_SIZE * 4 * 4

CODE = """
import json, sys
import tensorflow as tf
from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.scan import Scan

path, image_count, batch_size, prefetch = sys.argv[1], *map(int, sys.argv[2:])
def memory():
    return tf.config.experimental.get_memory_info("CPU:0")

# One large region, given back: BFC hands out a chunk whole unless it is twice the request.
tf.raw_ops.Empty(shape=[1 << 30], dtype=tf.uint8)
scan = Scan.open(path)
rows = {}
for kind in (LazyPtychoDataContainer, PtychoDataContainer):
    start = memory()["current"]
    container = kind.from_scan(scan, image_count=image_count)
    constructed = memory()["current"]
    for epoch in range(2):
        tf.config.experimental.reset_memory_stats("CPU:0")
        for images, coords in container.as_dataset(batch_size, shuffle=True, prefetch=prefetch):
            pass
        del images, coords
        rows[f"{kind.__name__} epoch {epoch}"] = memory()["peak"] - constructed
    rows[f"{kind.__name__} construct"] = constructed - start
    rows[f"{kind.__name__} kept"] = memory()["current"] - constructed
print(json.dumps(rows))
"""


@pytest.mark.parametrize(("prefetch", "most_batches"), [(0, 2), (1, 3), (2, 4)])
def test_device_bytes_are_the_arithmetic(simulated_path, prefetch, most_batches):
    """Eager keeps its tensors; lazy keeps nothing and peaks at the batches that are held, being made or read ahead."""
    environment = {**os.environ, "TF_CPU_ALLOCATOR_USE_BFC": "true", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", CODE, str(simulated_path), str(IMAGE_COUNT), str(BATCH_SIZE), str(prefetch)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout.strip().splitlines()[-1])

    declared = PtychoDataContainer.tensor_bytes(image_count=IMAGE_COUNT, frame_size=FRAME_SIZE, channel_count=4)
    assert rows["LazyPtychoDataContainer construct"] == 0
    assert rows["PtychoDataContainer construct"] == pytest.approx(sum(declared.values()), rel=0.02)
    for kind in ("LazyPtychoDataContainer", "PtychoDataContainer"):
        assert rows[f"{kind} kept"] < BATCH_BYTES / 10
        for epoch in (0, 1):
            assert BATCH_BYTES <= rows[f"{kind} epoch {epoch}"] <= (most_batches + 0.5) * BATCH_BYTES


def test_the_energy_pass_holds_one_chunk(tmp_path):
    """A stack of 40 MiB is read with a buffer of one chunk and little beside."""
    path = tmp_path / "scan.npz"
    simulate(path, frame_count=640, frame_size=128)
    scan = Scan.open(path)
    tracemalloc.start()
    scan.energies()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert scan.frames.nbytes == 40 << 20
    assert CHUNK_BYTES <= peak_bytes <= CHUNK_BYTES + (1 << 20)


def test_a_lazy_container_is_a_few_hundred_bytes_per_image(simulated_path):
    """Indices, coordinates and patch corners: no images, whatever their number; K = 12 for 9,000 groups of 100 frames."""
    scan = Scan.open(simulated_path)
    peaks = {}
    for image_count in (1000, 9000):
        tracemalloc.start()
        container = LazyPtychoDataContainer.from_scan(scan, image_count=image_count, neighbor_count=12)
        _, peaks[image_count] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del container

    assert 0 < (peaks[9000] - peaks[1000]) / 8000 < 1024
