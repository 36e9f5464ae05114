"""What loading costs: exact device bytes in a child of its own, and traced host bytes."""

import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from ptycho.files.stacks import CHUNK_BYTES
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
    for epoch in range(5):
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
    """Eager keeps its tensors; lazy keeps nothing and peaks at the batches that are held, being
    made or read ahead.
    """
    environment = {
        **os.environ,
        "TF_CPU_ALLOCATOR_USE_BFC": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [
        sys.executable,
        "-c",
        CODE,
        str(simulated_path),
        str(IMAGE_COUNT),
        str(BATCH_SIZE),
        str(prefetch),
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout.strip().splitlines()[-1])

    declared = PtychoDataContainer.tensor_bytes(
        image_count=IMAGE_COUNT, frame_size=FRAME_SIZE, channel_count=4
    )
    assert rows["LazyPtychoDataContainer construct"] == 0
    assert rows["PtychoDataContainer construct"] == pytest.approx(sum(declared.values()), rel=0.02)
    for kind in ("LazyPtychoDataContainer", "PtychoDataContainer"):
        assert rows[f"{kind} kept"] < BATCH_BYTES / 10
        peaks = [rows[f"{kind} epoch {epoch}"] for epoch in range(5)]
        assert min(peaks) >= BATCH_BYTES
        # The least: on a busy machine the thread that handed a batch over may let go of it later
        # than the consumer does.
        assert min(peaks) <= (most_batches + 0.5) * BATCH_BYTES


HELD = """
import json, sys
import tensorflow as tf
from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan

def memory():
    return tf.config.experimental.get_memory_info("CPU:0")

tf.raw_ops.Empty(shape=[1 << 30], dtype=tf.uint8)
container = LazyPtychoDataContainer.from_scan(Scan.open(sys.argv[1]), image_count=256)
start = memory()["current"]
for batch in container.as_dataset(16, shuffle=True, prefetch=int(sys.argv[2])):
    pass
kept, peaks = [], []
for _ in range(5):
    kept.append(memory()["current"] - start)
    tf.config.experimental.reset_memory_stats("CPU:0")
    for batch in container.as_dataset(16, shuffle=True, prefetch=int(sys.argv[2])):
        pass
    peaks.append(memory()["peak"] - start)
print(json.dumps([min(kept), min(peaks)]))  # the least: see above
"""


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_the_last_batch_of_a_dataset_that_is_gone_is_one_batch(simulated_path, prefetch):
    """A loop's variable outlives its dataset; the next dataset begins beside that one batch."""
    environment = {
        **os.environ,
        "TF_CPU_ALLOCATOR_USE_BFC": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-c", HELD, str(simulated_path), str(prefetch)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kept_bytes, peak_bytes = json.loads(result.stdout.strip().splitlines()[-1])

    assert BATCH_BYTES <= kept_bytes <= 1.1 * BATCH_BYTES
    assert 2 * BATCH_BYTES <= peak_bytes <= (2.5 + prefetch) * BATCH_BYTES


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
    """Indices, coordinates and patch corners: no images, whatever their number; K = 12 for 9,000
    groups of 100 frames.
    """
    scan = Scan.open(simulated_path)
    peaks = {}
    for image_count in (1000, 9000):
        tracemalloc.start()
        container = LazyPtychoDataContainer.from_scan(
            scan, image_count=image_count, neighbor_count=12
        )
        _, peaks[image_count] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del container

    assert 0 < (peaks[9000] - peaks[1000]) / 8000 < 1024


MOST_BYTES_PER_FRAME = 64
"""Positions are 16 and energies 8; the rest is for one temporary of each, never for the object or
the frames."""


def write_large(folder, frame_count, kind):
    """Tiny frames over an object of 400 bytes per frame, with every optional array."""
    import h5py

    generator = np.random.default_rng(0)
    arrays = {
        "diff3d": generator.random((frame_count, 8, 8), np.float32),
        "xcoords": generator.uniform(4, 96, frame_count),
        "ycoords": generator.uniform(4, frame_count // 2 - 4, frame_count),
        "probeGuess": np.ones((8, 8), np.complex64),
        "objectGuess": np.ones((frame_count // 2, 100), np.complex64),
        "scan_index": np.arange(frame_count),
        "xcoords_start": np.zeros(frame_count),
        "ycoords_start": np.zeros(frame_count),
    }
    if kind.startswith("npz"):
        path = folder / f"{frame_count}.npz"
        (np.savez_compressed if kind == "npz deflated" else np.savez)(path, **arrays)
        return path, {}
    path = folder / f"{frame_count}.h5"
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            chunks = (
                None if kind == "hdf5 contiguous" else (min(100, len(values)), *values.shape[1:])
            )
            file.create_dataset(key, data=values, chunks=chunks, compression=chunks and "gzip")
    settings = {
        "frames": "diff3d",
        "positions": ("xcoords", "ycoords"),
        "probe": "probeGuess",
        "object": "objectGuess",
    }
    return path, {**settings, "repack": kind == "hdf5 repacked", "cache_bytes": 1 << 20}


KINDS = ["npz stored", "npz deflated", "hdf5 contiguous", "hdf5 chunked", "hdf5 repacked"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_second", [False, True])
def test_a_frame_more_costs_its_position_and_its_energy(tmp_path, kind, is_second):
    """Opening and energies, at 10,000 and at 40,000 frames: the slope of what Python and numpy hold
    at the peak.
    """
    peaks = {}
    for frame_count in (10_000, 40_000):
        path, settings = write_large(tmp_path, frame_count, kind)
        for _ in range(2 if is_second else 1):
            tracemalloc.start()
            scan = Scan.open(path, cache_dir=tmp_path / "cache", **settings)
            scan.energies()
            _, peaks[frame_count] = tracemalloc.get_traced_memory()
            tracemalloc.stop()

        assert scan.frame_count == frame_count
        assert scan.object.nbytes == 400 * frame_count
    slope = (peaks[40_000] - peaks[10_000]) / 30_000

    # From below: the positions were seen, less up to 240 KB that a first opening alone takes
    # (imports, caches of Python).
    assert 8 <= slope <= MOST_BYTES_PER_FRAME


ANON = """
import json, sys
from ptycho.scan import Scan
import h5py  # before anything is measured

def anon_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

warm, path, cache, settings = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
Scan.open(warm, cache_dir=cache, **settings).energies()
start = anon_bytes()
scan = Scan.open(path, cache_dir=cache, **settings)
scan.energies()
print(anon_bytes() - start)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_the_process_grows_by_no_more(tmp_path, kind):
    """What the kernel counts, in children that have done the same with a small scan before, at
    20,000 and 100,000 frames.
    """
    warm, settings = write_large(tmp_path, 10_000, kind)
    grown = {}
    for frame_count in (20_000, 100_000):
        path, _ = write_large(tmp_path, frame_count, kind)
        command = [
            sys.executable,
            "-c",
            ANON,
            str(warm),
            str(path),
            str(tmp_path / "cache"),
            json.dumps(settings),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        grown[frame_count] = int(result.stdout)

    assert grown[100_000] > 0
    assert (grown[100_000] - grown[20_000]) / 80_000 <= MOST_BYTES_PER_FRAME
