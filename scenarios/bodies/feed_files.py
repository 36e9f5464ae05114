"""The files that ``feeds`` reads. Without TensorFlow: preparations run in fresh interpreters, one
for each size and worker.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptycho.scan import Scan
from scenarios.bodies import scans

CHUNK_FRAMES = 4
"""Frames in a chunk of the HDF5 file: several, as detectors write them; few, because each shuffled
frame unpacks a whole chunk."""


def prepare(workspace: Path, parameters: Mapping[str, Any]) -> None:
    """Make the simulated scan; write it as compressed HDF5, or find its energies, which
    PtychoPINN's names always keep.
    """
    scans.prepare(workspace, parameters)
    if parameters["source"] == "raw_data":
        # Or the first run alone would have the pass over the frames in its measurements.
        Scan.open(scans.scan_path(workspace, parameters), cache_dir=workspace).energies()
        return
    path = hdf5_path(workspace, parameters)
    if not path.exists():
        _write_hdf5(path, scans.open_scan(workspace, scans.scan_path(workspace, parameters)))


def _write_hdf5(path: Path, scan: Scan) -> None:
    unfinished = path.with_suffix(".part")
    with h5py.File(unfinished, "w") as file:
        shape = scan.frames.shape
        frames = file.create_dataset(
            "diff3d", shape, np.float32, chunks=(CHUNK_FRAMES, *shape[1:]), compression="lzf"
        )
        for start, block in scan.frames.chunks():
            frames[start : start + len(block)] = block
        for name, array in {
            "xcoords": scan.x,
            "ycoords": scan.y,
            "probeGuess": scan.probe,
            "objectGuess": scan.object,
        }.items():
            file[name] = array
    unfinished.replace(path)


def hdf5_path(workspace: Path, parameters: Mapping[str, Any]) -> Path:
    """The HDF5 file of the point's scan."""
    path = scans.scan_path(workspace, parameters)
    return path.with_name(f"{path.stem}-chunks-of-{CHUNK_FRAMES}.h5")
