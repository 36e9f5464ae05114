"""A scan file of 5 GB, larger than a laptop leaves for its page cache; cold and warm epochs over
it, and its second opening.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.scan import Scan

FRAME_COUNT, FRAME_SIZE = 80_000, 128
"""4.9 GiB of float32 frames, from which 20,000 groups of 4 need not share one."""
IMAGE_COUNT, BATCH_SIZE = 20_000, 16
"""The dense study; a batch of 16 groups is 4 MiB."""
_DISTINCT = 256
"""Frames that are simulated; the file repeats them, each time with its own number in one pixel."""


def path_in(workspace: Path) -> Path:
    """Where the file is, or will be."""
    return workspace / f"large-{FRAME_COUNT}-frames-of-{FRAME_SIZE}.npz"


def make(workspace: Path) -> None:
    """Write the file unless it is there: about 10 s."""
    from ptycho.simulate import write_scan  # only who makes it needs it

    if path_in(workspace).exists():
        return
    generator = np.random.default_rng(0)
    frames = generator.random((_DISTINCT, FRAME_SIZE, FRAME_SIZE), np.float32)
    columns = int(np.ceil(np.sqrt(FRAME_COUNT)))
    row, column = np.divmod(np.arange(FRAME_COUNT), columns)
    x, y = (
        FRAME_SIZE + 16.0 * axis + generator.uniform(-4, 4, FRAME_COUNT) for axis in (column, row)
    )

    def chunks() -> Iterator[npt.NDArray[Any]]:
        for start in range(0, FRAME_COUNT, _DISTINCT):
            chunk = frames[: min(_DISTINCT, FRAME_COUNT - start)]
            chunk[:, 0, 0] = np.arange(start, start + len(chunk))
            yield chunk

    write_scan(
        path_in(workspace),
        chunks(),
        frame_count=FRAME_COUNT,
        x=x,
        y=y,
        probe=np.ones((FRAME_SIZE, FRAME_SIZE), np.complex64),
    )


def drop_from_cache(path: Path) -> None:
    """Have the kernel forget the file's pages; whoever maps it must do so afterwards, mapped pages
    stay.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def container(workspace: Path, *, in_scan_order: bool) -> Any:  # noqa: ANN401 - LazyPtychoDataContainer, imported late
    """20,000 groups of the file, drawn at random; in the order of their first frames, or as they
    were drawn.
    """
    from ptycho.containers.inputs import Arguments
    from ptycho.feeding.grouping import group
    from ptycho.feeding.sources import FrameGather
    from ptycho.loader import LazyPtychoDataContainer

    scan = Scan.open(path_in(workspace), cache_dir=workspace)
    groups = group(scan.x, scan.y, image_count=IMAGE_COUNT, gridsize=2, seed=0)
    turn = np.argsort(groups.nn_indices[:, 0]) if in_scan_order else np.arange(IMAGE_COUNT)
    images = FrameGather(scan.frames, groups.nn_indices[turn])
    coords = groups.relative[turn]
    return LazyPtychoDataContainer(
        *Arguments(images, None, None, 1.0, None, coords, coords, None, None, None, scan.probe)
    )


def cold(workspace: Path, shuffle: str) -> dict[str, float]:
    """Seconds of one epoch over a file that is in no cache."""
    from scenarios.benchmarks.feeds import consumed

    choice = {"none": False, "all": True, "chunks": "chunks"}[shuffle]
    drop_from_cache(path_in(workspace))
    lazy = container(workspace, in_scan_order=True)
    dataset = lazy.as_dataset(BATCH_SIZE, shuffle=choice, seed=0)
    start = time.perf_counter()
    groups = consumed(dataset)
    return {"seconds": time.perf_counter() - start, "groups": groups}


def opening(workspace: Path) -> dict[str, float]:
    """Milliseconds of opening the file and having its energies, the second time and later."""
    start = time.perf_counter()
    scan = Scan.open(path_in(workspace), cache_dir=workspace)
    scan.energies()
    return {"milliseconds": 1e3 * (time.perf_counter() - start)}


def study(workspace: Path, repeats: int) -> dict[str, float]:
    """The warm feed of the dense study, of the numpy gather's speed, in turns."""
    from scenarios.benchmarks.feeds import consumed, gathered
    from scenarios.benchmarks.timing import in_turns, per_second, speed_ratio

    lazy = container(workspace, in_scan_order=False)
    dataset = lazy.as_dataset(BATCH_SIZE, shuffle=True, seed=0, prefetch=0)
    seconds = in_turns(
        {"gather": lambda: gathered(lazy, BATCH_SIZE), "feed": lambda: consumed(dataset)}, repeats
    )
    return {"ratio": speed_ratio(seconds, "feed", "gather"), **per_second(seconds)}


def main() -> None:
    """Print one measurement as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make", "cold", "opening", "study"])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--shuffle", default="none", choices=["none", "all", "chunks"])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if options.what == "make":
        make(options.workspace)
        opening(options.workspace)  # the first one: it reads the file and keeps the energies
        result: dict[str, float] = {}
    elif options.what == "cold":
        result = cold(options.workspace, options.shuffle)
    elif options.what == "opening":
        result = opening(options.workspace)
    else:
        result = study(options.workspace, options.repeats)
    print(json.dumps(result))  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main()
