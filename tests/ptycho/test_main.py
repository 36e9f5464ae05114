"""The command line: what it prints, what it makes, how it refuses."""

import json
import os
import subprocess
import sys

import pytest

from ptycho.__main__ import main
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
    assert main(["simulate", str(whole), "--frame-count", "12", "--frame-size", "16", "--seed", "3"]) == 0
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
        (["simulate", "x.npz", "--frame-count", "1", "--frame-size", "1000000000"], "frame_size 1000000000"),
        (["simulate", "x.npz", "--frame-count", "1", "--frame-size", "63"], "frame_size is 63"),
        (["simulate", "x.npz", "--frame-count", "1", "--photons-per-frame", "1e300"], "photons_per_frame is 1e+300"),
        (["simulate", "x.npz", "--frame-count", "1", "--photons-per-frame", "1e-300"], "photons_per_frame is 1e-300"),
        (["simulate", "x.npz", "--frame-count", "1", "--photons-per-frame", "nan"], "photons_per_frame is nan"),
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
    "arguments", [["info", ""], ["simulate", "", "--frame-count", "1"], ["subset", "a.npz", "", "--frame-count", "1"]]
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
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)

    assert (result.returncode, result.stderr) == (1, "")
