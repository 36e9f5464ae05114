"""Figures that are no race: device peaks, the time to the first batch, the misfit of the measured
scan.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import tensorflow as tf

from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan
from ptycho.simulate import far_field_amplitude
from scenarios.benchmarks.feeds import lazy_images, peak_bytes

_POOL_BYTES = 256 << 20
"""The device's pool is taken as one region first: a pool that grows hands out chunks larger than
asked for."""
_EVERY = 7
"""Frames between those the misfit is taken over, as it is defined for this scan."""


def peaks(scan: Scan) -> dict[str, float]:
    """Peak of a shuffled epoch in batches of 4 MiB, by the allocator."""
    tf.raw_ops.Empty(shape=[_POOL_BYTES], dtype=tf.uint8)
    lazy = LazyPtychoDataContainer.from_scan(scan, image_count=1024, gridsize=2)
    images = lazy_images(lazy)
    # X, and two float32 coordinates of four channels
    batch_bytes = 64 * (images.nbytes // len(lazy) + 2 * 4 * 4)
    found = {
        f"peak_{prefetch}": peak_bytes(lazy.as_dataset(64, shuffle=True, seed=0, prefetch=prefetch))
        / batch_bytes
        for prefetch in (0, 1)
    }
    return {**found, "least_peak": min(found.values())}


def first_batch(scan: Scan, repeats: int) -> dict[str, float]:
    """Time from as_dataset to the first shuffled batch, at ten times the images."""
    containers = [
        LazyPtychoDataContainer.from_scan(scan, image_count=count, gridsize=2)
        for count in (2_000, 20_000)
    ]
    seconds: list[list[float]] = [[], []]
    for round_ in range(repeats + 1):
        for times, lazy in zip(seconds, containers, strict=True):
            start = time.perf_counter()
            next(iter(lazy.as_dataset(64, shuffle=True, seed=0)))
            if round_:
                times.append(time.perf_counter() - start)
    return {"first_batch": median(large / small for small, large in zip(*seconds, strict=True))}


def misfits(scan: Scan) -> dict[str, float]:
    """Distance of the relative misfit, through the container's own batches, from that of the
    measured scan.
    """
    lazy = LazyPtychoDataContainer.from_scan(
        scan, image_count=scan.frame_count, gridsize=1, order="sequential"
    )
    frames = np.concatenate([images.numpy()[..., 0] for images, _ in lazy.as_dataset(64)])
    # X is the frames times one constant: that which gives their mean energy.
    scale = np.sqrt(
        np.mean(np.sum(np.square(frames, dtype=np.float64), axis=(1, 2))) / scan.energies().mean()
    )
    obj, probe = np.asarray(scan.object), np.asarray(scan.probe)
    found = {}
    for name, (x, y), expected in (
        ("misfit", (scan.x, scan.y), 0.118),
        ("misfit_swapped", (scan.y, scan.x), 0.326),
    ):
        difference = total = 0.0
        half = scan.frame_size // 2
        for frame in range(0, scan.frame_count, _EVERY):
            column, row = round(float(x[frame])) - half, round(float(y[frame])) - half
            patch = obj[row : row + 2 * half, column : column + 2 * half]
            model, measured = far_field_amplitude(probe, patch), frames[frame] / scale
            difference, total = (
                difference + float(((model - measured) ** 2).sum()),
                total + float((measured**2).sum()),
            )
        found[name] = abs(float(np.sqrt(difference / total)) - expected)
    return found


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["peaks", "first_batch", "misfits"])
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    scan = Scan.open(options.scan, cache_dir=options.cache_dir)
    if options.what == "peaks":
        result = peaks(scan)
    elif options.what == "first_batch":
        result = first_batch(scan, options.repeats)
    else:
        result = misfits(scan)
    print(json.dumps(result))  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main()
