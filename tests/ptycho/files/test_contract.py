"""The same scan in every format: the same frames, positions and energies, read bit by bit as they
were written.
"""

import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from ptycho.feeding.sources import FrameGather
from ptycho.files.frames import ConvertedFrames
from ptycho.files.stacks import MappedFrames
from ptycho.scan import Scan

NAMES = {"positions": ("/x", "/y"), "probe": "/probe", "object": "/object"}


def npz(compressed=False, key="diff3d", convert=None, **settings):
    def write(folder, measured, write_hdf5, cxi_arrays):
        frames = measured.amplitude if convert is None else convert(measured)
        save = np.savez_compressed if compressed else np.savez
        others = {
            "xcoords": measured.x,
            "ycoords": measured.y,
            "probeGuess": measured.probe,
            "objectGuess": measured.object,
        }
        save(folder / "scan.npz", **{key: frames}, **others)
        return folder / "scan.npz", settings

    return write


def npy(positions="npy", convert=None, **settings):
    def write(folder, measured, write_hdf5, cxi_arrays):
        np.save(folder / "scan.npy", measured.amplitude if convert is None else convert(measured))
        np.save(folder / "probe.npy", measured.probe)
        np.save(folder / "object.npy", measured.object)
        place = folder / f"positions.{positions}"
        if positions == "npy":
            np.save(place, measured.positions)
        elif positions == "csv":
            np.savetxt(
                place, measured.positions, delimiter=",", fmt="%.17g", header="x,y", comments=""
            )
        elif positions == "txt":
            np.savetxt(place, measured.positions, fmt="%.17g", header="x y")
        given = measured.positions if positions == "array" else str(place)
        others = {
            "positions": given,
            "probe": folder / "probe.npy",
            "object": folder / "object.npy",
        }
        return folder / "scan.npy", {**others, **settings}

    return write


def hdf5(convert=None, opening=None, **settings):
    def write(folder, measured, write_hdf5, cxi_arrays):
        frames = measured.amplitude if convert is None else convert(measured)
        others = {
            "/x": measured.x,
            "/y": measured.y,
            "/probe": measured.probe,
            "/object": measured.object,
        }
        path = write_hdf5({"/entry/frames": frames, **others}, **settings)
        return path, {"frames": "/entry/frames", **NAMES, **(opening or {})}

    return write


def bitshuffled(folder, measured, write_hdf5, cxi_arrays):
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="the optional filters are not installed")
    filters = {"chunks": (1, 16, 16), **hdf5plugin.Bitshuffle()}
    return hdf5(lambda m: m.counts, {"intensity": True}, **filters)(
        folder, measured, write_hdf5, cxi_arrays
    )


def compact(folder, measured, write_hdf5, cxi_arrays):
    path, settings = hdf5()(folder, measured, write_hdf5, cxi_arrays)
    with h5py.File(path, "r+") as file:
        del file["/entry/frames"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(measured.amplitude.shape)
        h5py.h5d.create(file["/entry"].id, b"frames", h5py.h5t.NATIVE_FLOAT, space, layout).write(
            h5py.h5s.ALL, h5py.h5s.ALL, measured.amplitude
        )
    return path, settings


def virtual(folder, measured, write_hdf5, cxi_arrays):
    """Two files of frames, put together by a third."""
    path, settings = hdf5()(folder, measured, write_hdf5, cxi_arrays)
    layout = h5py.VirtualLayout((25, 16, 16), "u2")
    for index, span in enumerate((slice(10), slice(10, 25))):
        with h5py.File(path.with_name(f"part{index}.h5"), "w") as file:
            file["/frames"] = measured.counts[span]
        layout[span] = h5py.VirtualSource(f"part{index}.h5", "/frames", measured.counts[span].shape)
    with h5py.File(path, "r+") as file:
        file.create_virtual_dataset("/virtual", layout)
    return path, {**settings, "frames": "/virtual", "intensity": True}


def cxi(folder, measured, write_hdf5, cxi_arrays):
    path = write_hdf5(cxi_arrays, name="scan.cxi", chunks=(5, 4, 8), compression="gzip")
    return path, {"intensity": True, "probe": measured.probe, "object": measured.object}


COUNTS = {"convert": lambda m: m.counts, "intensity": True}
CORNER = {"convert": lambda m: np.fft.ifftshift(m.amplitude, axes=(1, 2)), "dc": "corner"}
TURNED = {
    "convert": lambda m: np.ascontiguousarray(m.amplitude.transpose(0, 2, 1)),
    "axes": "frame,column,row",
}
LAST = {
    "convert": lambda m: np.ascontiguousarray(m.amplitude.transpose(1, 2, 0)),
    "axes": "row,column,frame",
    "repack": True,
}
ALL = {
    "convert": lambda m: (
        np.fft.ifftshift(m.counts, axes=(1, 2)).transpose(2, 0, 1).astype(">u4", order="C")
    ),
    "axes": "column, frame, row",
    "dc": "corner",
    "intensity": True,
    "repack": True,
}

FORMATS = {
    "npz stored": npz(),
    "npz deflated": npz(compressed=True),
    "npz not aligned": npz(key="diffraction"),
    "npz float64": npz(convert=lambda m: m.amplitude.astype(np.float64)),
    "npz big-endian": npz(convert=lambda m: m.amplitude.astype(">f4")),
    "npz counts": npz(**COUNTS),
    "npz deflated counts": npz(compressed=True, **COUNTS),
    "npz float32 counts": npz(convert=lambda m: m.counts.astype(np.float32), intensity=True),
    "npz float64 counts": npz(convert=lambda m: m.counts.astype(np.float64), intensity=True),
    "npz corner": npz(**CORNER),
    "npz by another name": npz(key="patterns", frames="patterns"),
    "npy": npy(),
    "npy and csv": npy(positions="csv"),
    "npy and txt": npy(positions="txt"),
    "npy and array": npy(positions="array"),
    "npy turned": npy(**TURNED),
    "npy frames last": npy(**LAST),
    "npy everything": npy(**ALL),
    "hdf5 contiguous": hdf5(),
    "hdf5 contiguous, big-endian": hdf5(convert=lambda m: m.amplitude.astype(">f4")),
    "hdf5 behind a user block": hdf5(userblock_size=1024),
    "hdf5 contiguous counts": hdf5(lambda m: m.counts, {"intensity": True}),
    "hdf5 compact": compact,
    "hdf5 frame chunks": hdf5(chunks=(1, 16, 16), compression="gzip"),
    "hdf5 chunks over frames": hdf5(chunks=(5, 4, 16), compression="lzf", shuffle=True),
    "hdf5 chunks of no divisor": hdf5(chunks=(7, 5, 11)),
    "hdf5 float64 chunks": hdf5(convert=lambda m: m.amplitude.astype(">f8"), chunks=(5, 4, 16)),
    "hdf5 repacked": hdf5(
        opening={"repack": True, "cache_bytes": 1}, chunks=(5, 4, 16), compression="gzip"
    ),
    "hdf5 repacked everything": hdf5(
        ALL["convert"], {k: v for k, v in ALL.items() if k != "convert"}, chunks=(5, 4, 16)
    ),
    "hdf5 bitshuffle": bitshuffled,
    "hdf5 virtual": virtual,
    "cxi": cxi,
}
IS_MAPPED = {
    name: not any(word in name for word in ("compact", "chunks", "bitshuffle", "virtual", "cxi"))
    for name in FORMATS
}


@pytest.fixture(params=FORMATS)
def written(request, tmp_path, measured, write_hdf5, cxi_arrays):
    path, settings = FORMATS[request.param](tmp_path, measured, write_hdf5, cxi_arrays)
    return path, {"cache_dir": tmp_path / "cache", **settings}, IS_MAPPED[request.param]


def test_every_format_gives_the_same_scan(written, measured):
    path, settings, is_mapped = written
    scan = Scan.open(path, **settings)
    tolerance = {"rtol": 1e-12} if path.suffix == ".cxi" else {"rtol": 0}

    np.testing.assert_array_equal(measured.amplitude, scan.frames)
    np.testing.assert_allclose(measured.x, scan.x, **tolerance)
    np.testing.assert_allclose(measured.y, scan.y, **tolerance)
    np.testing.assert_array_equal(measured.probe, scan.probe)
    np.testing.assert_array_equal(measured.object, scan.object)
    np.testing.assert_allclose(
        (measured.amplitude.astype(np.float64) ** 2).sum(axis=(1, 2)), scan.energies(), rtol=1e-12
    )
    assert (scan.frame_count, scan.frame_size) == (25, 16)
    assert (
        is_mapped
        == (scan.frames.file is not None)
        == scan.frames.description.startswith("memory-mapped")
    )


def test_take_is_bit_equal_and_writes_nothing_else(written, measured):
    """Any frames in any order, and as often as asked for; the rows beside them stay."""
    path, settings, _ = written
    frames = Scan.open(path, **settings).frames
    chosen = np.array([24, 0, 3, 3, 17, 9, 24])
    out = np.full((9, 16, 16), -7, frames.dtype)
    for _ in range(2):
        frames.take(chosen, out[1:8])

    np.testing.assert_array_equal(measured.amplitude[chosen], out[1:8])
    assert (out[[0, 8]] == -7).all()


@pytest.mark.parametrize("chunk_bytes", [1, 3 * 1024, 1 << 20])
def test_chunks_come_in_file_order(written, measured, chunk_bytes):
    path, settings, _ = written
    frames = Scan.open(path, **settings).frames
    seen = 0
    for first, chunk in frames.chunks(chunk_bytes):
        assert first == seen
        assert chunk.nbytes <= max(chunk_bytes, frames.frame_bytes)
        np.testing.assert_array_equal(measured.amplitude[first : first + len(chunk)], chunk)
        seen += len(chunk)

    assert seen == 25


def test_indexing_is_that_of_an_array(written, measured):
    path, settings, _ = written
    frames, truth = Scan.open(path, **settings).frames, measured.amplitude

    for index in (
        0,
        -1,
        slice(3, 20, 4),
        np.array([[5, 1], [2, 2]]),
        truth[:, 0, 0] > 6,
        (slice(2), 3),
        (4, slice(None), 5),
    ):
        np.testing.assert_array_equal(truth[index], frames[index])
    with pytest.raises(IndexError):
        frames[25]
    assert (frames.shape, len(frames), frames.nbytes) == (
        truth.shape,
        25,
        25 * 256 * frames.dtype.itemsize,
    )
    assert frames.dtype in (np.float32, np.float64)
    assert frames.dtype.isnative


def test_a_gather_of_the_stack_is_a_gather_of_the_array(written, measured):
    path, settings, _ = written
    frames = Scan.open(path, **settings).frames
    groups = np.random.default_rng(0).integers(0, 25, (40, 4))
    expected, found = (np.empty((40, 16, 16, 4), np.float32) for _ in range(2))
    FrameGather(measured.amplitude, groups, 0.25).read(np.arange(40), expected)
    FrameGather(frames, groups, 0.25).read(np.arange(40), found)

    np.testing.assert_array_equal(expected, found)


def test_threads_read_side_by_side(written, measured):
    """Each its own frames, many times over."""
    path, settings, _ = written
    frames = Scan.open(path, **settings).frames
    wrong = []

    def read(seed):
        chosen = np.random.default_rng(seed).integers(0, 25, 6)
        out = np.empty((6, 16, 16), frames.dtype)
        for _ in range(20):
            out.fill(-1)
            frames.take(chosen, out)
            if not np.array_equal(out, measured.amplitude[chosen]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_the_second_opening_makes_no_second_copy_and_no_second_pass(written, monkeypatch):
    path, settings, _ = written
    first = Scan.open(path, **settings).energies()
    copies = {file: file.stat().st_mtime_ns for file in settings["cache_dir"].iterdir()}
    monkeypatch.setattr("ptycho.scan.frame_energies", None)  # calling it would be an error
    second = Scan.open(path, **settings)

    np.testing.assert_array_equal(first, second.energies())
    assert copies == {file: file.stat().st_mtime_ns for file in settings["cache_dir"].iterdir()}


CHILD = """
import os, sys
import numpy as np
from ptycho.scan import Scan

frames = Scan.open(sys.argv[1], frames="/entry/frames", positions=("/x", "/y")).frames
parent = frames[:4]
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, b"same" if np.array_equal(parent, frames[:4]) else b"different")
    os._exit(0)
os.waitpid(child, 0)
print(os.read(reading, 100).decode(), np.array_equal(parent, frames[:4]))
"""


def test_a_forked_child_opens_the_file_anew(tmp_path, measured, write_hdf5):
    """libhdf5's handles are one process's: the child reads the same, and the parent goes on."""
    path, _ = hdf5(chunks=(5, 4, 16), compression="gzip")(tmp_path, measured, write_hdf5, None)
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == ["same", "True"]


def test_every_kind_of_stack_is_in_the_list(tmp_path, measured, write_hdf5, cxi_arrays):
    """Mapped, chunked, and either of them converted."""
    kinds = set()
    for index, write in enumerate(FORMATS.values()):
        folder = tmp_path / str(index)
        folder.mkdir()
        path, settings = write(folder, measured, write_hdf5, cxi_arrays)
        frames = Scan.open(path, **{"cache_dir": folder, **settings}).frames
        kinds.add(
            (
                type(frames) is ConvertedFrames,
                isinstance(frames, MappedFrames) or frames.file is not None,
            )
        )

    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
