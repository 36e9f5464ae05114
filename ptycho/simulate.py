"""Simulated scans for everyone without data: probe times object, far field, Poisson counts,
seeded.
"""

from __future__ import annotations  # help() shows the names of types, not what they stand for

import math
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import ContainerError, check_int, check_photons
from ptycho.files.arrays import MIN_FRAME_SIZE, patch_corner
from ptycho.files.stacks import CHUNK_BYTES, frames_per_chunk
from ptycho.files.storage import write_scan
from ptycho.scan import Scan

__all__ = ["simulate", "subset", "write_scan"]

DEFAULT_PHOTONS_PER_FRAME = 1e5
"""Chosen: a bright frame, whose noise is about 1 % of its amplitude per pixel at N = 64."""
_STEP_FRACTION = 1 / 8
"""Chosen: raster step over N, about 75 % overlap of probes half as wide as the frame."""
_JITTER_FRACTION = 1 / 4
"""Chosen: jitter over the step, enough against raster artefacts."""
_SMOOTHING_PIXELS = 3.0
"""Chosen: width of the features of the object, so that a frame has structure and neighbours
differ."""
_CHUNK_BYTES = 8 << 20
"""Chosen: complex waves held at a time, 128 frames at N = 64."""
_MOST_OBJECT_PIXELS = 1 << 28
"""Chosen: 2 GiB as complex64 and about five times that while it is made; 4 million frames of 64
pixels."""
_PHOTONS = (1e-3, 1e15)
"""Chosen: below, no frame has a photon; above, counts near the end of what int64 and a Poisson draw
can hold."""


def simulate(
    path: str | PathLike[str],
    *,
    frame_count: int,
    frame_size: int = 64,
    seed: int = 0,
    photons_per_frame: float = DEFAULT_PHOTONS_PER_FRAME,
) -> None:
    """Write a simulated scan as a stored contract NPZ, a few frames at a time.

    A smooth random object, a defocused round probe and a jittered raster; frames are sqrt(counts)
    with ``photons_per_frame`` counts on average, and the probe is scaled so that the forward model
    gives them directly. The same arguments give the same bytes. Raises ContainerError for sizes
    that make no scan, ScanFileError where the file cannot be written.
    """
    frame_count = check_int("frame_count", frame_count, least=1)
    frame_size = check_int("frame_size", frame_size, least=MIN_FRAME_SIZE)
    seed = check_int("seed", seed, least=0)
    photons_per_frame = check_photons("photons_per_frame", photons_per_frame)
    _check_sizes(frame_count, frame_size, photons_per_frame)

    generator = np.random.default_rng(seed)
    x, y, shape = _raster(generator, frame_count, frame_size)
    obj = _smooth_object(generator, shape)
    probe = _defocused_probe(frame_size)
    corners = patch_corner(np.stack((y, x), axis=1), frame_size)
    lit = _lit(probe, obj, corners, photons_per_frame)

    frames = _noisy_frames(generator, obj, lit, corners)
    write_scan(path, frames, frame_count=frame_count, x=x, y=y, probe=lit, obj=obj)


def _lit(
    probe: npt.NDArray[np.complex128],
    obj: npt.NDArray[np.complex64],
    corners: npt.NDArray[np.int64],
    photons_per_frame: float,
) -> npt.NDArray[np.complex64]:
    """The probe, so bright that a frame has ``photons_per_frame`` on average."""
    # Empty regions absorb nothing by chance: the brightness is set by the mean over frames spread
    # over the scan.
    sample = corners[:: max(1, len(corners) // 64)]
    photons = [
        np.sum(amplitude**2) for chunk in _amplitudes(obj, probe, sample) for amplitude in chunk
    ]
    lit: npt.NDArray[np.complex64] = (
        probe * np.sqrt(photons_per_frame / float(np.mean(photons)))
    ).astype(np.complex64)
    return lit


def _check_sizes(frame_count: int, frame_size: int, photons_per_frame: float) -> None:
    if frame_size % 2:
        raise ContainerError(
            f"frame_size is {frame_size}; an even size of at least {MIN_FRAME_SIZE} is needed"
        )
    if not _PHOTONS[0] <= photons_per_frame <= _PHOTONS[1]:
        raise ContainerError(
            f"photons_per_frame is {photons_per_frame}; it must be between {_PHOTONS[0]:g} and "
            f"{_PHOTONS[1]:g}"
        )
    _check_extent(frame_count, frame_size)


def _check_extent(frame_count: int, frame_size: int) -> None:
    # In whole numbers, and before any array is made: the sizes may be absurd.
    height, width = (
        frame_size + frame_size * count // 8 for count in _columns_and_rows(frame_count)
    )
    if height * width > _MOST_OBJECT_PIXELS:
        raise ContainerError(
            f"frame_count {frame_count} and frame_size {frame_size} need an object of about "
            f"{height} x {width} pixels; {_MOST_OBJECT_PIXELS} pixels are the most, take "
            "fewer or smaller frames"
        )


def _columns_and_rows(frame_count: int) -> tuple[int, int]:
    columns = math.isqrt(frame_count - 1) + 1
    return columns, -(-frame_count // columns)


def _raster(
    generator: np.random.Generator, frame_count: int, frame_size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], tuple[int, int]]:
    """Columns and rows (M,) of the patch centres, and the shape of an object that holds every
    patch.
    """
    columns, rows = _columns_and_rows(frame_count)
    step = max(1.0, frame_size * _STEP_FRACTION)
    jitter = step * _JITTER_FRACTION
    row, column = np.divmod(np.arange(frame_count), columns)
    # One pixel more than the jitter, for the rounding of positions.
    margin = frame_size // 2 + int(np.ceil(jitter)) + 1
    x, y = (
        margin + step * index + generator.uniform(-jitter, jitter, frame_count)
        for index in (column, row)
    )
    height, width = (2 * margin + int(np.ceil(step * (count - 1))) + 1 for count in (rows, columns))
    return x, y, (height, width)


def _smooth_object(
    generator: np.random.Generator, shape: tuple[int, int]
) -> npt.NDArray[np.complex64]:
    """(H, W) complex64, amplitude 0.6 to 1 and phase -1 to 1 radian, without features below a few
    pixels.
    """
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    gaussian = np.exp(-2 * (np.pi * _SMOOTHING_PIXELS * frequency) ** 2)
    fields = []
    for _ in range(2):
        field = np.fft.irfft2(np.fft.rfft2(generator.standard_normal(shape)) * gaussian, s=shape)
        fields.append(np.tanh(field / field.std()))
    amplitude, phase = 0.8 + 0.2 * fields[0], fields[1]
    obj: npt.NDArray[np.complex64] = (amplitude * np.exp(1j * phase)).astype(np.complex64)
    return obj


def _defocused_probe(frame_size: int) -> npt.NDArray[np.complex128]:
    """(N, N): a soft disk a quarter of the frame in radius with a curved wavefront, as out of
    focus.
    """
    axis = np.arange(frame_size) - frame_size // 2
    radius = np.hypot(axis[:, None], axis[None, :]) / (frame_size / 4)
    # One wave of curvature at the rim, an edge a tenth of the radius wide: chosen, to spread the
    # frame over the detector.
    probe: npt.NDArray[np.complex128] = np.exp(2j * np.pi * radius**2) / (
        1 + np.exp((radius - 1) / 0.1)
    )
    return probe


def _patches(
    obj: npt.NDArray[np.complex64], corners: npt.NDArray[np.int64], frame_size: int
) -> npt.NDArray[np.complex64]:
    """(b, N, N) patches whose first pixels are ``corners`` (b, 2), [row, column]."""
    windows = np.lib.stride_tricks.sliding_window_view(obj, (frame_size, frame_size))
    return windows[corners[:, 0], corners[:, 1]]


def _amplitudes(
    obj: npt.NDArray[np.complex64], probe: npt.NDArray[Any], corners: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[Any]]:
    """Amplitudes (b, N, N) without noise of the frames at ``corners`` (M, 2), a few at a time."""
    per_chunk = max(1, _CHUNK_BYTES // (probe.size * np.dtype(np.complex128).itemsize))
    for start in range(0, len(corners), per_chunk):
        yield far_field_amplitude(
            probe, _patches(obj, corners[start : start + per_chunk], len(probe))
        )


def _noisy_frames(
    generator: np.random.Generator,
    obj: npt.NDArray[np.complex64],
    probe: npt.NDArray[np.complex64],
    corners: npt.NDArray[np.int64],
) -> Iterator[npt.NDArray[np.float32]]:
    for amplitudes in _amplitudes(obj, probe, corners):
        yield np.sqrt(generator.poisson(amplitudes**2)).astype(np.float32)


def subset(scan: Scan, path: str | PathLike[str], frame_count: int) -> None:
    """Write the first ``frame_count`` frames of a scan as a scan of their own; probe and object
    stay complete.

    Raises ContainerError where the scan has not that many, ScanFileError where the file cannot be
    written or the scan's has changed.
    """
    frame_count = check_int("frame_count", frame_count, least=1)
    if frame_count > scan.frame_count:
        raise ContainerError(
            f"frame_count is {frame_count}; {scan.path} has 1 to {scan.frame_count}"
        )
    if scan.probe is None:
        raise ContainerError(
            f"{scan.path} has no probe, which a scan of this format needs; open it with probe="
        )

    scan.frames.check()
    per_chunk = frames_per_chunk(scan.frames, CHUNK_BYTES)
    chunks = (
        scan.frames[start : min(start + per_chunk, frame_count)]
        for start in range(0, frame_count, per_chunk)
    )

    first = slice(frame_count)
    write_scan(
        path,
        chunks,
        frame_count=frame_count,
        x=scan.x[first],
        y=scan.y[first],
        probe=scan.probe,
        obj=scan.object,
    )


def far_field_amplitude(probe: npt.NDArray[Any], patch: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Amplitude on the detector, zero frequency at [N/2, N/2]: |fftshift(fft2(probe * patch))|.

    ``probe`` (N, N) complex, ``patch`` (..., N, N) complex: the object where the probe lies. The
    transform is orthonormal, so sum amplitude^2 = sum |probe * patch|^2. Returns (..., N, N), real,
    in the precision given.
    """
    wave = np.fft.fft2(probe * patch, norm="ortho")
    return np.abs(np.fft.fftshift(wave, axes=(-2, -1)))
