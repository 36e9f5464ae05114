"""Files that are not a plain NPZ: each is opened, grouped and fed once in a phase of its own."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from ptycho.loader import LazyPtychoDataContainer
from ptycho.scan import Scan
from scenarios.bodies.memory import Memory
from scenarios.bodies.ways import Parameters, consume_batches, image_count, run_ways
from scenarios.bodies.written import folder_of

CACHE_BYTES = 1 << 20
"""Chunk cache of the CXI file: a twelfth of the smaller stack, so that every run fills it."""


def measure(memory: Memory, parameters: Parameters) -> None:
    """Phases counts, cxi, compressed, repacked, tables, release.

    ``parameters``: stack_size, frame_size, gridsize, batch_size. What is unpacked or repacked is so
    in the phase, into a folder that goes with it.
    """
    files = folder_of(memory.workspace, parameters)
    run_ways(
        memory,
        parameters,
        {
            name: functools.partial(_feed, files, parameters, opened)
            for name, opened in WAYS.items()
        },
        with_targets=False,
    )


def _feed(
    files: Path, parameters: Parameters, opened: Callable[[Path, Path], Scan], cache: Path
) -> LazyPtychoDataContainer:
    count = image_count(parameters)
    container = LazyPtychoDataContainer.from_scan(
        opened(files, cache), image_count=count, gridsize=parameters["gridsize"], seed=0
    )
    return consume_batches(container, parameters)


def _counts(files: Path, cache: Path) -> Scan:
    return Scan.open(
        files / "counts.h5",
        frames="/frames",
        positions="/positions",
        probe="/probe",
        object="/object",
        mask="/mask",
        intensity=True,
        dc="corner",
        axes="frame,column,row",
        cache_dir=cache,
        keep_energies=False,
    )


def _cxi(files: Path, cache: Path) -> Scan:
    return Scan.open(
        files / "scan.cxi",
        probe="/probe",
        intensity=True,
        dc="corner",
        cache_dir=cache,
        cache_bytes=CACHE_BYTES,
        keep_energies=False,
    )


def _compressed(files: Path, cache: Path) -> Scan:
    return Scan.open(files / "compressed.npz", cache_dir=cache, keep_energies=False)


def _repacked(files: Path, cache: Path) -> Scan:
    return Scan.open(
        files / "scattered.h5",
        frames="/frames",
        positions="/positions",
        probe="/probe",
        axes="row,column,frame",
        repack=True,
        cache_dir=cache,
        keep_energies=False,
    )


def open_tables(files: Path, cache: Path) -> Scan:
    """Big-endian frames in a .npy file, positions in a table, and no object."""
    return Scan.open(
        files / "frames.npy",
        positions=files / "positions.csv",
        probe=files / "probe.npy",
        cache_dir=cache,
        keep_energies=False,
    )


WAYS: Mapping[str, Callable[[Path, Path], Scan]] = {
    "counts": _counts,
    "cxi": _cxi,
    "compressed": _compressed,
    "repacked": _repacked,
    "tables": open_tables,
}
"""Each phase, and how its file is opened: mapped counts that are turned, shifted and masked; CXI in
chunks; a compressed NPZ whose object is copied, too; float64 frames that are scattered over the
file; a .npy and tables."""
