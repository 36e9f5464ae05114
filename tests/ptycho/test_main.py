"""The command line: what it prints, what it makes, how it refuses."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptycho.__main__ import main
from ptycho.errors import ScanError
from ptycho.scan import Scan


def test_info_says_what_the_file_holds(simulated_path, capsys):
    assert main(["info", str(simulated_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)

    assert (facts["frame_count"], facts["frame_size"], facts["dtype"]) == (100, 32, "float32")
    assert "diff3d" in facts["keys"]


def test_info_for_people_has_the_notes(simulated_path, capsys):
    assert main(["info", str(simulated_path)]) == 0
    printed = capsys.readouterr().out

    assert "frame count  100" in printed
    assert "note: diff3d is mapped" in printed


def test_simulate_and_subset_make_scans(tmp_path, capsys):
    whole, part = tmp_path / "whole.npz", tmp_path / "part.npz"
    assert (
        main(["simulate", str(whole), "--frame-count", "12", "--frame-size", "16", "--seed", "3"])
        == 0
    )
    assert main(["subset", str(whole), str(part), "--frame-count", "5"]) == 0

    assert (Scan.open(whole).frame_count, Scan.open(part).frame_count) == (12, 5)
    assert str(part) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "none.npz"], "none.npz does not exist"),
        (["simulate", "x.npz", "--frame-count", "0"], "frame_count is 0"),
        (["subset", "none.npz", "x.npz", "--frame-count", "1"], "none.npz does not exist"),
        (["info", "two\nlines.npz"], r"two\nlines.npz does not exist"),
        (["info", "n" * 300 + ".npz"], "File name too long"),
        (["simulate", "x.npz", "--frame-count", "1" + "0" * 30], "frame_count 1000"),
        (["simulate", "x.npz", "--frame-count", "1" + "0" * 400], "frame_count 1000"),
        (
            ["simulate", "x.npz", "--frame-count", "1", "--frame-size", "1000000000"],
            "frame_size 1000000000",
        ),
        (["simulate", "x.npz", "--frame-count", "1", "--frame-size", "63"], "frame_size is 63"),
        (
            ["simulate", "x.npz", "--frame-count", "1", "--photons-per-frame", "1e300"],
            "photons_per_frame is 1e+300",
        ),
        (
            ["simulate", "x.npz", "--frame-count", "1", "--photons-per-frame", "1e-300"],
            "photons_per_frame is 1e-300",
        ),
        (
            ["simulate", "x.npz", "--frame-count", "1", "--photons-per-frame", "nan"],
            "photons_per_frame is nan",
        ),
        (["simulate", "x.npy", "--frame-count", "1"], "x.npy has the suffix '.npy'"),
        (["simulate", "x", "--frame-count", "1"], "x has the suffix ''"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()

    assert printed.out == ""
    assert printed.err.startswith("ptycho: ")
    assert words in printed.err
    assert printed.err.count("\n") == 1


def test_a_bad_option_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "x.npz", "--frame-count", "many"])

    assert ended.value.code == 2
    assert "invalid int value" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["info"], ["simulate"], ["subset"]])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])

    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 150


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", ""],
        ["simulate", "", "--frame-count", "1"],
        ["subset", "a.npz", "", "--frame-count", "1"],
    ],
)
def test_an_empty_path_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "the path is empty" in capsys.readouterr().err


def test_a_reader_that_goes_away_leaves_no_traceback(simulated_path):
    """The pipe's reading end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "ptycho", "info", str(simulated_path)]
        result = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)

    assert (result.returncode, result.stderr) == (1, "")


@pytest.fixture
def counted(tmp_path):
    """An HDF5 file of counts, positions in metres and a probe."""
    generator = np.random.default_rng(0)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "/entry/data",
            data=generator.poisson(9, (25, 16, 16)),
            chunks=(5, 4, 8),
            compression="gzip",
        )
        file["/entry/x"], file["/entry/y"] = generator.uniform(0, 1e-6, (2, 25))
        file["/entry/probe"] = np.ones((16, 16), np.complex64)
    place = ["--positions", "/entry/x", "/entry/y", "--units", "metres", "--pixel-size-m", "2e-8"]
    return path, ["--frames", "/entry/data", "--probe", "/entry/probe", "--intensity", *place]


def test_info_reads_every_format(counted, tmp_path, capsys):
    """The same names as ``Scan.open``; what was assumed is among the notes."""
    path, settings = counted
    assert (
        main(["info", str(path), *settings, "--cache-dir", str(tmp_path / "cache"), "--json"]) == 0
    )
    facts = json.loads(capsys.readouterr().out)

    assert (facts["frame_count"], facts["frame_size"], facts["dtype"], facts["has_probe"]) == (
        25,
        16,
        "float32",
        True,
    )
    assert facts["reading"].startswith("read through a chunk cache of 32 MiB (chunks of 5 x 4 x 8)")
    assert 0 <= facts["x_range"][0] < facts["x_range"][1] <= 50
    assert any("taken as counts" in note for note in facts["notes"])
    assert not (tmp_path / "cache").exists()


def test_info_checks_the_frames_where_it_is_asked_to(counted, tmp_path, capsys):
    path, settings = counted
    command = [
        "info",
        str(path),
        *settings,
        "--cache-dir",
        str(tmp_path / "cache"),
        "--check",
        "--repack",
    ]
    assert main(command) == 0
    printed = capsys.readouterr()

    assert "note: energies and the check of all frames are kept in" in printed.out
    assert "was repacked once to" in printed.out
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert printed.err == ""  # no terminal, no bar


def test_check_refuses_what_cannot_be_counts(counted, tmp_path, capsys):
    path, settings = counted
    with h5py.File(path, "r+") as file:
        file["/entry/data"][7, 1, 2] = -5
    assert (
        main(["info", str(path), *settings, "--cache-dir", str(tmp_path / "cache"), "--check"]) == 2
    )

    assert "NaN, infinite or negative count in frame 7 (-5 at [1, 2])" in capsys.readouterr().err


def test_subset_makes_a_contract_scan_of_any_format(counted, tmp_path, capsys):
    path, settings = counted
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert (
        main(
            [
                "subset",
                str(path),
                str(tmp_path / "part.npz"),
                "--frame-count",
                "4",
                *settings,
                *cache,
            ]
        )
        == 0
    )
    with h5py.File(path) as file:
        expected = np.sqrt(file["/entry/data"][:4]).astype(np.float32)

    np.testing.assert_array_equal(expected, Scan.open(tmp_path / "part.npz").frames)


def test_subset_needs_a_probe(counted, tmp_path, capsys):
    path, settings = counted
    settings = [word for word in settings if "probe" not in word]
    assert (
        main(["subset", str(path), str(tmp_path / "part.npz"), "--frame-count", "4", *settings])
        == 2
    )

    assert (
        "has no probe, which a scan of this format needs; open it with probe="
        in capsys.readouterr().err
    )
    assert not (tmp_path / "part.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "scan.h5"], "scan.h5 is plain HDF5, so name the data set of the frames"),
        (
            ["info", "scan.h5", "--frames", "/entry/data"],
            "does not say where the frames were taken",
        ),
        (
            ["info", "scan.h5", "--frames", "/entry/data", "--positions", "a", "b", "c"],
            "--positions has 3 names",
        ),
        (["info", "scan.h5", "--cache-bytes", "0"], "cache_bytes is 0"),
        (["info", "scan.h5", "--cache-bytes", "0KiB"], "cache_bytes is 0"),
    ],
)
def test_mistakes_in_names_are_one_sentence(counted, arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(counted[0].parent)
    assert main(arguments) == 2
    printed = capsys.readouterr().err

    assert words in printed
    assert printed.count("\n") == 1


def test_a_bar_is_drawn_where_somebody_looks(counted, tmp_path):
    """A terminal on stderr gets one; what is printed on stdout stays the same."""
    path, settings = counted
    leading, following = os.openpty()
    command = [
        sys.executable,
        "-m",
        "ptycho",
        "info",
        str(path),
        *settings,
        "--cache-dir",
        str(tmp_path),
        "--check",
    ]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with os.fdopen(leading, "rb", buffering=0) as terminal:
        process = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=following, env=environment, check=True
        )
        os.close(following)
        drawn = terminal.read(1 << 16)

    assert b"checking frames" in drawn
    assert b"checking frames" not in process.stdout


@pytest.mark.parametrize(
    ("text", "bytes_"), [("4096", 4096), ("64KiB", 65_536), ("2 MiB", 2**21), ("1GiB", 2**30)]
)
def test_the_cache_is_given_with_its_unit(counted, text, bytes_, monkeypatch):
    """A number alone is bytes."""
    asked = []

    def opened(path, **settings):
        asked.append(settings["cache_bytes"])
        raise ScanError("enough")

    monkeypatch.setattr(Scan, "open", opened)

    assert main(["info", str(counted[0]), "--cache-bytes", text]) == 2
    assert asked == [bytes_]


@pytest.mark.parametrize("text", ["32MB", "32mib", "-1", "1.5MiB", "", "MiB"])
def test_an_amount_that_cannot_be_read_says_what_to_write(text, capsys):
    """Decimal units mean different amounts to different people."""
    with pytest.raises(SystemExit, match="2"):
        main(["info", "scan.h5", f"--cache-bytes={text}"])

    assert "write B, KiB, MiB or GiB, for example 32MiB" in capsys.readouterr().err
