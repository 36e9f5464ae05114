"""One scan in every form that ``formats`` and the other ways read: written once, in a child of its
own, without TensorFlow.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ptycho.scan import Scan
from ptycho.simulate import simulate, subset
from scenarios.bodies import scans

LARGEST_STACK_SIZE = 2048
"""Frames of the scan that all are cut from. Its object stays complete: of one size, 1.4 MiB,
whatever the number of frames."""
SMALL_FRAME_SIZE = 16
"""Pixels of frames for what has many epochs: an epoch costs a thirty-second of a frame's bytes of N
= 64."""
CHUNK_FRAMES = 4
"""Frames in a chunk of the CXI file, as in ``feeds``: libhdf5 keeps 420 B for each chunk that it
has opened."""
BAD_PIXELS = 40
"""Chosen: 1 % of a frame of 64 x 64."""
_WAVELENGTH_M, _DISTANCE_M, _PIXEL_M = 1e-10, 2.0, 50e-6
"""Of the CXI file; chosen, any geometry does."""
_DETECTOR, _SOURCE = "/entry_1/instrument_1/detector_1", "/entry_1/instrument_1/source_1"


def folder_of(workspace: Path, parameters: Mapping[str, Any]) -> Path:
    """The folder with the files of these sizes; its name carries whatever they depend on."""
    scan = scans.scan_path(workspace, {**parameters, "stack_size": LARGEST_STACK_SIZE})
    writer = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    return workspace / f"{scan.stem}-{parameters['stack_size']}-in-forms-{writer}"


def prepare(workspace: Path, parameters: Mapping[str, Any]) -> None:
    """Write the first ``stack_size`` frames of the simulated scan in every form, unless they are
    there.
    """
    folder = folder_of(workspace, parameters)
    if folder.exists():
        return
    whole = {**parameters, "stack_size": LARGEST_STACK_SIZE}
    scans.prepare(workspace, whole)
    with tempfile.TemporaryDirectory(dir=workspace) as unfinished:
        made = Path(unfinished) / folder.name
        made.mkdir()
        _write(
            made,
            scans.open_scan(workspace, scans.scan_path(workspace, whole)),
            parameters["stack_size"],
        )
        _write_small_frames(made, parameters["stack_size"])
        shutil.move(made, folder)


def _write(folder: Path, whole: Scan, stack_size: int) -> None:
    subset(whole, folder / "plain.npz", stack_size)
    # Fewer frames than groups: two groups for each frame, see ``settings``.
    subset(whole, folder / "few.npz", stack_size // 8)
    scan = Scan.open(folder / "plain.npz", keep_energies=False)
    amplitudes = np.asarray(scan.frames)
    counts = np.rint(amplitudes**2).astype(np.uint32)
    is_bad = np.zeros(amplitudes.shape[1:], bool)
    is_bad.flat[np.random.default_rng(0).permutation(is_bad.size)[:BAD_PIXELS]] = True
    counts[:, is_bad] = np.iinfo(np.uint32).max  # what a counting detector writes there
    _write_counts(folder / "counts.h5", scan, counts, is_bad)
    _write_cxi(folder / "scan.cxi", scan, counts, is_bad)
    positions = np.stack([scan.x, scan.y], axis=1)
    np.savez_compressed(
        folder / "compressed.npz",
        diff3d=amplitudes,
        xcoords=scan.x,
        ycoords=scan.y,
        probeGuess=np.asarray(scan.probe),
        objectGuess=np.asarray(scan.object),
    )
    with h5py.File(folder / "scattered.h5", "w") as file:
        file["frames"] = np.ascontiguousarray(amplitudes.transpose(1, 2, 0), np.float64)
        file["positions"], file["probe"] = positions, scan.probe
    np.save(folder / "frames.npy", amplitudes.astype(">f8"))
    np.save(folder / "probe.npy", np.asarray(scan.probe))
    np.savetxt(folder / "positions.csv", positions, delimiter=",", header="x,y", comments="")


def _write_counts(
    path: Path, scan: Scan, counts: npt.NDArray[np.uint32], is_bad: npt.NDArray[np.bool_]
) -> None:
    """Counts with zero frequency in the corner, columns before rows, and a mask: contiguous, so
    that they can be mapped.
    """
    with h5py.File(path, "w") as file:
        file["frames"] = np.fft.ifftshift(counts, axes=(1, 2)).transpose(0, 2, 1)
        file["mask"] = np.fft.ifftshift(is_bad).T.astype(np.uint8)
        file["positions"] = np.stack([scan.x, scan.y], axis=1)
        file["probe"], file["object"] = scan.probe, scan.object


def _write_cxi(
    path: Path, scan: Scan, counts: npt.NDArray[np.uint32], is_bad: npt.NDArray[np.bool_]
) -> None:
    """Compressed chunks of counts in the standard's places, SI units, and no object, as a beamline
    writes them.
    """
    object_pixel_m = _WAVELENGTH_M * _DISTANCE_M / (scan.frame_size * _PIXEL_M)
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        chunks = (CHUNK_FRAMES, *counts.shape[1:])
        shifted = np.fft.ifftshift(counts, axes=(1, 2))
        file.create_dataset("/entry_1/data_1/data", data=shifted, chunks=chunks, compression="lzf")
        file["/entry_1/data_1/translation"] = (
            np.stack([scan.x, scan.y, 0 * scan.x], axis=1) * object_pixel_m
        )
        file[f"{_DETECTOR}/mask"] = np.fft.ifftshift(is_bad).astype(np.uint32)
        file[f"{_DETECTOR}/basis_vectors"] = np.array([[0, -_PIXEL_M], [-_PIXEL_M, 0], [0, 0]])
        file[f"{_DETECTOR}/distance"], file[f"{_DETECTOR}/x_pixel_size"] = _DISTANCE_M, _PIXEL_M
        file[f"{_SOURCE}/wavelength"] = _WAVELENGTH_M
        file["probe"] = scan.probe


def _write_small_frames(folder: Path, stack_size: int) -> None:
    simulate(folder / "small.npz", frame_count=stack_size, frame_size=SMALL_FRAME_SIZE, seed=0)
