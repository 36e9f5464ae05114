"""Plain HDF5: what is refused, in which words, and that nothing is left behind."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptycho.errors import PtychoError, ScanError, ScanFileError
from ptycho.scan import Scan

FRAMES = "/entry/frames"


@pytest.fixture
def arrays(measured):
    return {
        FRAMES: measured.amplitude,
        "/x": measured.x,
        "/y": measured.y,
        "/probe": measured.probe,
        "/object": measured.object,
    }


SETTINGS = {"frames": FRAMES, "positions": ("/x", "/y"), "probe": "/probe", "object": "/object"}


def refused(path, words, kind=ScanError, **settings):
    """One sentence that names the file, from opening or from the pass over all frames; nothing in
    the cache.
    """
    cache = path.parent / "cache"
    with pytest.raises(kind, match=words) as caught:
        Scan.open(path, cache_dir=cache, **{**SETTINGS, **settings}).energies()

    assert isinstance(caught.value, PtychoError)
    assert "\n" not in str(caught.value)
    assert not cache.exists() or not list(cache.iterdir())
    return str(caught.value)


ONES = np.ones((25, 16, 16), np.float32)
RECORDS = np.zeros((25, 16, 16), [("counts", "f4"), ("flags", "u1")])
TEXT = np.full((25, 16, 16), b"1", object)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {FRAMES: ONES.astype(np.int32)},
            "/entry/frames is int32, which looks like counts; give intensity=True",
        ),
        ({FRAMES: ONES.astype(np.complex64)}, "/entry/frames is complex64"),
        ({FRAMES: ONES > 0}, "/entry/frames is bool"),
        ({FRAMES: ONES.astype("S1")}, r"/entry/frames is \|S1"),
        ({FRAMES: ONES.astype(np.float16)}, "/entry/frames is float16"),
        ({FRAMES: RECORDS}, r"/entry/frames holds records with fields \(counts, flags\)"),
        ({FRAMES: TEXT}, "/entry/frames holds text"),
        ({FRAMES: h5py.Empty("f4")}, "/entry/frames is an empty data set"),
        ({FRAMES: np.float32(1)}, r"/entry/frames has shape \(\)"),
        ({FRAMES: ONES[0]}, r"/entry/frames has shape \(16, 16\)"),
        ({FRAMES: ONES[:, :14]}, "not square"),
        ({FRAMES: np.ones((16, 16, 25), np.float32)}, "last axis; give axes='row,column,frame'"),
        ({FRAMES: ONES[:, :15, :15]}, "frames of 15 pixels"),
        ({FRAMES: ONES[:, :6, :6]}, "frames of 6 pixels"),
        ({FRAMES: ONES[:0]}, "no values"),
        ({FRAMES: ONES * 0}, "zero in all 25 frames"),
        (
            {FRAMES: h5py.SoftLink("/nowhere")},
            "/entry/frames is a link to /nowhere, which is not in the file",
        ),
        ({FRAMES: h5py.SoftLink("frames")}, "they go in a circle"),
        ({FRAMES: h5py.SoftLink("/x")}, r"/entry/frames has shape \(25,\)"),
        ({FRAMES: h5py.SoftLink("/")}, "/entry/frames is a group; name a data set"),
        (
            {FRAMES: h5py.ExternalLink("other.h5", "/raw")},
            "is a link into another file, other.h5; open that file and name /raw",
        ),
        (
            {"/entry": h5py.ExternalLink("other.h5", "/raw"), FRAMES: None},
            "is a link into another file, other.h5",
        ),
        ({"/x": np.arange(24.0)}, r"/x has shape \(24,\) for 25 frames"),
        ({"/x": np.full(25, b"1", object)}, "/x holds text"),
        ({"/y": np.full(25, 1j)}, "/y is complex128; positions are real"),
        ({"/y": np.where(np.arange(25) == 9, np.nan, 20)}, "/y is nan for frame 9"),
        (
            {"/y": np.where(np.arange(25) == 9, 33, 20)},
            "/y is 33 for frame 9, outside /object; .* 8 and 32",
        ),
        ({"/probe": np.ones((14, 14), np.complex64)}, r"/probe has shape \(14, 14\)"),
        ({"/probe": np.ones((16, 16))}, "/probe is float64; it is complex"),
        ({"/probe": np.zeros((16, 16), np.complex64)}, "/probe is zero everywhere"),
        ({"/probe": np.full((16, 16), np.inf + 0j)}, r"/probe is \(?inf.* at \[0, 0\]"),
        ({"/object": np.ones((40, 15), np.complex64)}, "/object .*smaller than one frame"),
        (
            {"/object": np.where(np.arange(40 * 48).reshape(40, 48) == 99, np.nan, 1j)},
            r"/object is .*nan.* at \[2, 3\]",
        ),
    ],
)
@pytest.mark.parametrize("chunks", [None, True])
def test_a_broken_scan_is_refused_in_one_sentence(write_hdf5, arrays, changed, words, chunks):
    wanted = {key: values for key, values in {**arrays, **changed}.items() if values is not None}
    is_chunked = (
        chunks
        and isinstance(wanted.get(FRAMES), np.ndarray)
        and wanted[FRAMES].ndim == 3
        and wanted[FRAMES].size
    )
    path = write_hdf5(wanted, **({"chunks": True} if is_chunked else {}))

    assert str(path) in refused(path, words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"frames": None},
            (
                "is plain HDF5, so name the data set of the frames, frames='/...'; data sets of "
                "three dimensions: /entry/frames"
            ),
        ),
        (
            {"frames": "/entry/none"},
            "has no /entry/none; it has /entry/frames, /object, /probe, /x, /y",
        ),
        ({"frames": "/entry"}, "/entry is a group; name a data set"),
        ({"frames": "/x/y"}, "/x is a data set and has no y"),
        ({"frames": ""}, "/ is a group; name a data set"),
        ({"positions": "/none"}, "has no /none"),
        ({"positions": "/x"}, r"/x has shape \(25,\) for 25 frames; \(25, 2\)"),
        ({"mask": "/probe"}, "/probe is complex64; a mask is whole numbers"),
        ({"mask": np.zeros((16, 15), int)}, r"mask has shape \(16, 15\); one of \(16, 16\)"),
        ({"mask": np.ones((16, 16), bool)}, "mask marks all 256 pixels as bad"),
    ],
)
def test_names_that_lead_nowhere_are_refused(write_hdf5, arrays, settings, words):
    refused(write_hdf5(arrays), words, **settings)


@pytest.mark.parametrize("position_names", [None, "given"])
def test_plain_hdf5_needs_positions(write_hdf5, arrays, measured, position_names):
    """And takes them from anywhere."""
    path = write_hdf5(arrays)
    if position_names is None:
        refused(
            path,
            "does not say where the frames were taken; give positions",
            ValueError,
            positions=None,
        )
    else:
        np.testing.assert_array_equal(
            measured.x, Scan.open(path, **{**SETTINGS, "positions": measured.positions}).x
        )


def test_a_scan_without_probe_opens_and_says_so(write_hdf5, arrays):
    """A probe is reconstructed later as often as not; containers refuse to go without."""
    scan = Scan.open(write_hdf5(arrays), frames=FRAMES, positions=("/x", "/y"))

    assert scan.probe is None
    assert scan.object is None
    assert any("there is no probe" in note for note in scan.notes)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1, r"count in frame 5 \(-1 at \[3, 2\]\)"),
        (np.nan, r"count in frame 5 \(nan at \[3, 2\]\)"),
    ],
)
@pytest.mark.parametrize("chunks", [None, (5, 4, 16)])
def test_impossible_counts_are_named(write_hdf5, arrays, measured, value, words, chunks):
    """One pixel of frame 5; a mask over it makes the scan whole."""
    counts = measured.counts.astype(np.float64 if np.isnan(value) else np.int32)
    counts[5, 3, 2] = value
    path = write_hdf5({**arrays, FRAMES: counts}, chunks=chunks)
    refused(path, f"NaN, infinite or negative {words}", intensity=True)
    mask = np.zeros((16, 16), np.uint8)
    mask[3, 2] = 4
    scan = Scan.open(path, cache_dir=path.parent / "cache", intensity=True, mask=mask, **SETTINGS)

    assert scan.energies()[5] == pytest.approx(measured.counts[5].sum() - measured.counts[5, 3, 2])
    assert any("mask marks 1 of 256 pixels as bad" in note for note in scan.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; an HDF5 file was expected"),
        (b"PK\x03\x04 and more", "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "is a damaged HDF5 file"),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".hdf", ".cxi"])
def test_what_is_no_hdf5_is_said_to_be_none(tmp_path, content, words, suffix):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    refused(path, words)


def test_a_truncated_file_is_called_truncated(write_hdf5, arrays):
    path = write_hdf5(arrays)
    os.truncate(path, path.stat().st_size - 100)
    refused(path, "is a truncated HDF5 file")


@pytest.mark.parametrize("settings", [{}, {"repack": True}])
def test_a_damaged_chunk_is_named_with_its_frames(write_hdf5, arrays, measured, settings):
    """Bytes of the compressed chunk of frame 7 are others."""
    path = write_hdf5(arrays, chunks=(1, 16, 16), compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        chunk = file[FRAMES].id.get_chunk_info_by_coord((7, 0, 0))
    image = bytearray(path.read_bytes())
    image[chunk.byte_offset + 20 : chunk.byte_offset + 30] = bytes(10)
    path.write_bytes(image)
    words = refused(
        path,
        "/entry/frames, from 0 on cannot be read" if settings else "/entry/frames, frames 0 to 24",
        **settings,
    )
    assert "the file is damaged; copy or write it again" in words
    if not settings:
        with pytest.raises(
            ScanError, match=r"/entry/frames, frame 7 cannot be read \(.*\); the file is damaged"
        ):
            Scan.open(path, **SETTINGS).frames[np.array([6, 7])]


MISSING = """
import os, sys
os.environ["HDF5_PLUGIN_PATH"] = "/nonexistent"
sys.modules["hdf5plugin"] = None  # as if it were not installed
from ptycho.__main__ import main
sys.exit(main(["info", sys.argv[1], "--frames", "/entry/frames", "--positions", "/x", "/y"]))
"""


def test_a_missing_filter_is_named_with_its_package(write_hdf5, arrays):
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="the optional filters are not installed")
    path = write_hdf5(arrays, chunks=(1, 16, 16), **hdf5plugin.Bitshuffle())
    result = subprocess.run(
        [sys.executable, "-c", MISSING, str(path)], capture_output=True, text=True, check=False
    )

    assert result.returncode == 2
    assert (
        "/entry/frames is compressed with bitshuffle (HDF5 filter 32008), which is not installed"
        in result.stderr
    )
    assert "pip install hdf5plugin" in result.stderr
    assert result.stderr.count("\n") == 1


def virtual(path, source, *, dataset="/frames"):
    layout = h5py.VirtualLayout((25, 16, 16), "f4")
    layout[:] = h5py.VirtualSource(source, dataset, (25, 16, 16))
    with h5py.File(path, "r+") as file:
        del file[FRAMES]
        file.create_virtual_dataset(FRAMES, layout)


def test_missing_sources_of_a_virtual_data_set_are_named(write_hdf5, arrays, measured):
    """libhdf5 would read zeros instead."""
    path = write_hdf5(arrays)
    virtual(path, "raw.h5")
    refused(path, r"virtual data set and its source .*raw\.h5 cannot be read \(No such file")
    with h5py.File(path.with_name("raw.h5"), "w") as file:
        file["/other"] = measured.amplitude
    refused(path, r"raw\.h5 has no /frames")
    with h5py.File(path.with_name("raw.h5"), "w") as file:
        file["/frames"] = measured.amplitude

    np.testing.assert_array_equal(measured.amplitude, Scan.open(path, **SETTINGS).frames)


def test_a_changed_source_is_a_changed_scan(write_hdf5, arrays, measured, tmp_path):
    """Energies that were kept are not believed either."""
    path = write_hdf5(arrays)
    virtual(path, "raw.h5")
    with h5py.File(path.with_name("raw.h5"), "w") as file:
        file["/frames"] = measured.amplitude
    scan = Scan.open(path, cache_dir=tmp_path / "cache", **SETTINGS)
    first = scan.energies()
    with h5py.File(path.with_name("new.h5"), "w") as file:
        file["/frames"] = measured.amplitude * 2
    path.with_name("new.h5").replace(path.with_name("raw.h5"))
    with pytest.raises(ScanFileError, match=r"raw\.h5 changed after it was opened"):
        scan.energies()

    np.testing.assert_allclose(
        4 * first, Scan.open(path, cache_dir=tmp_path / "cache", **SETTINGS).energies()
    )


@pytest.mark.parametrize("change", ["write", "remove"])
@pytest.mark.parametrize("chunks", [None, (5, 4, 16)])
def test_a_changed_file_is_refused(write_hdf5, arrays, chunks, change):
    path = write_hdf5(arrays, chunks=chunks)
    scan = Scan.open(path, cache_dir=path.parent / "cache", **SETTINGS)
    if change == "write":
        with h5py.File(path, "r+") as file:
            file[FRAMES][0] = 1
        os.utime(path, ns=(0, 1))
    else:
        path.unlink()
    words = (
        "changed after it was opened"
        if change == "write"
        else r"cannot be read any more \(No such file"
    )
    for attempt in (scan.energies, scan.frames.check, lambda: next(scan.frames.chunks(1))):
        with pytest.raises(ScanFileError, match=words):
            attempt()


def test_values_in_another_file_are_not_followed(write_hdf5, arrays):
    """Nobody would notice that file to change."""
    path = write_hdf5(arrays)
    with h5py.File(path, "r+") as file:
        del file[FRAMES]
        file.create_dataset(
            FRAMES, (25, 16, 16), "f4", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)]
        )
    refused(
        path,
        r"/entry/frames has its values in another file, raw\.bin; put them into this one "
        r"with h5repack",
    )


def test_a_scan_that_is_still_open_does_not_hide_what_changed(write_hdf5, arrays, tmp_path):
    """libhdf5 shares an open file and its chunk cache in the whole process: in place, other values,
    the first scan alive.
    """
    path = write_hdf5(arrays, chunks=(5, 4, 16))
    first = Scan.open(path, cache_dir=tmp_path / "cache", **SETTINGS)
    before = first.energies()
    with h5py.File(
        write_hdf5({**arrays, FRAMES: arrays[FRAMES] * 2}, name="other.h5", chunks=(5, 4, 16))
    ) as file:
        chunks = [
            file[FRAMES].id.get_chunk_info(index)
            for index in range(file[FRAMES].id.get_num_chunks())
        ]
    image = path.with_name("other.h5").read_bytes()
    with path.open("r+b") as file:
        for chunk in chunks:
            file.seek(chunk.byte_offset)
            file.write(image[chunk.byte_offset : chunk.byte_offset + chunk.size])
    os.utime(path, ns=(0, 1))
    second = Scan.open(path, cache_dir=tmp_path / "cache", **SETTINGS)

    np.testing.assert_array_equal(arrays[FRAMES] * 2, second.frames)
    np.testing.assert_allclose(4 * before, second.energies())


ROW_BYTES = 4 * 1 * 5 * 4 * 16 * 4
"""Of chunks (5, 4, 16) that one frame of 16 x 16 lies in, float32."""


@pytest.mark.parametrize(("cache_bytes", "is_refused"), [(ROW_BYTES, False), (ROW_BYTES - 1, True)])
def test_a_chunk_cache_holds_what_one_frame_lies_in(
    write_hdf5, arrays, measured, cache_bytes, is_refused
):
    path = write_hdf5(arrays, chunks=(5, 4, 16))
    if is_refused:
        words = refused(path, f"one frame needs {ROW_BYTES} bytes of them", cache_bytes=cache_bytes)
        assert f"give at least {ROW_BYTES}, or repack=True" in words
    else:
        scan = Scan.open(path, cache_bytes=cache_bytes, **SETTINGS)
        np.testing.assert_array_equal(measured.amplitude, scan.frames)
        assert "(chunks of 5 x 4 x 16)" in scan.frames.description


def test_scattered_frames_must_be_repacked(write_hdf5, arrays, measured):
    path = write_hdf5({**arrays, FRAMES: measured.amplitude.transpose(1, 2, 0)})
    refused(
        path,
        "every frame is scattered over the whole file; give repack=True",
        axes="row,column,frame",
    )


def test_repacked_frames_are_written_once_for_their_owner(write_hdf5, arrays, measured, tmp_path):
    path = write_hdf5(arrays, chunks=(5, 4, 16), compression="gzip")
    told = []
    settings = {"cache_dir": tmp_path / "cache", "repack": True, **SETTINGS}
    scan = Scan.open(path, progress=lambda *what: told.append(what), **settings)
    (copy,) = (tmp_path / "cache").iterdir()

    np.testing.assert_array_equal(measured.amplitude, np.load(copy))
    assert copy.stat().st_mode & 0o777 == 0o600
    assert told[-1][0] == "repacking /entry/frames"
    assert any(f"was repacked once to {copy}" in note for note in scan.notes)
    assert any(
        f"is read from its repacked copy {copy}" in note
        for note in Scan.open(path, **settings).notes
    )


@pytest.mark.parametrize("spare_bytes", [0, -1])
def test_a_full_disk_is_seen_before_frames_are_repacked(
    write_hdf5, arrays, tmp_path, monkeypatch, spare_bytes
):
    path = write_hdf5(arrays, chunks=(5, 4, 16))
    needed = 128 + arrays[FRAMES].nbytes
    monkeypatch.setattr("ptycho.files.storage.free_bytes", lambda folder: needed + spare_bytes)
    if spare_bytes == 0:
        scan = Scan.open(path, cache_dir=tmp_path / "cache", repack=True, **SETTINGS)
        assert scan.frames.file.path.stat().st_size == needed
    else:
        refused(
            path,
            f"needs {needed} bytes unpacked and .* has {needed - 1} free",
            ScanFileError,
            repack=True,
        )


WRITER = """
import h5py, sys
with h5py.File(sys.argv[1], "r+") as file:
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_file_that_is_being_written_is_left_alone(write_hdf5, arrays, measured):
    """Until its writer has closed it."""
    path = write_hdf5(arrays)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout.readline() == b"open\n"
        refused(
            path,
            "is being written by another program; wait until it has closed the file",
            ScanFileError,
        )
    assert writer.returncode == 0

    np.testing.assert_array_equal(measured.amplitude, Scan.open(path, **SETTINGS).frames)
