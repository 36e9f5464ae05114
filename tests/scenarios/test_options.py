"""The sweep's own options: a bad one is one sentence, before anything is collected."""

import argparse
import os
import subprocess
import sys

import pytest

from ptycho.simulate import simulate
from scenarios.conftest import _plant


@pytest.fixture
def sweep(project_root):
    """Run ``pytest`` with these arguments, at the project's root, measuring nothing."""

    def run(*arguments):
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=project_root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("full_tensor", "near are full_tensor_kept"),
        ("full_tensor_kep", "near are full_tensor_kept"),
        ("nothing like it", "all are in scenarios/detector/bugs/registry.py"),
    ],
)
def test_a_bug_that_is_not_there_is_answered_with_the_nearest(typed, told):
    """Four at most of some seventy."""
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        _plant(typed)

    said = str(refused.value)
    assert f"there is no bug called {typed!r}; {told}" in said
    assert said.count(",") < 4
    assert _plant("full_tensor_kept") == "full_tensor_kept"


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--scan", "missing.npz"),
            "ERROR: --scan cannot be used: missing.npz does not exist; check the path",
        ),
        (
            ("--image-counts", "100,200,2049"),
            (
                "ERROR: --image-counts asks for 2049 groups, but simulated, seed 0 has "
                "2048 frames to seed groups from; ask for 2048 or fewer"
            ),
        ),
    ],
    ids=["scan", "counts"],
)
def test_what_cannot_be_swept_is_told_in_one_sentence(sweep, arguments, sentence, workers):
    """A usage error, with no worker started and nothing of the inside shown."""
    done = sweep("scenarios", *arguments, *workers)

    assert (done.returncode, done.stderr.strip()) == (pytest.ExitCode.USAGE_ERROR, sentence)
    assert "Traceback" not in done.stdout
    assert "ERROR collecting" not in done.stdout


@pytest.mark.parametrize(
    ("frame_count", "code"), [(15, pytest.ExitCode.USAGE_ERROR), (16, pytest.ExitCode.OK)]
)
def test_the_smallest_scan_is_swept_and_one_frame_less_is_refused(
    sweep, tmp_path, frame_count, code
):
    """16 frames."""
    simulate(tmp_path / "mine.npz", frame_count=frame_count, frame_size=64, seed=0)
    done = sweep("scenarios", "--scan", str(tmp_path / "mine.npz"), "--collect-only", "-q")

    assert done.returncode == code
    assert ("is too small" in done.stderr) == (code != pytest.ExitCode.OK)


def test_workers_sweep_the_scan_that_the_controller_settled(sweep, tmp_path):
    """They find the points of the user's scan, none of which is called lazy and eager."""
    simulate(tmp_path / "mine.npz", frame_count=64, frame_size=64, seed=0)
    done = sweep(
        "scenarios", "-n", "2", "--scan", str(tmp_path / "mine.npz"), "-k", "lazy and eager"
    )

    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "100,100,100",
            "'100,100,100' has 1 different count; a slope with its uncertainty needs 3 or more",
        ),
        (
            "100,200,200",
            "'100,200,200' has 2 different counts; a slope with its uncertainty needs 3 or more",
        ),
        (
            "100,,300",
            (
                "'100,,300' is not a list of image counts; write whole numbers above 0, as "
                "100,500,1000"
            ),
        ),
    ],
)
def test_counts_that_are_no_sweep_are_refused(sweep, text, sentence):
    """Three different ones are the least."""
    done = sweep("scenarios", "--image-counts", text)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--repeats", "0"), "argument --repeats: '0' is not a number of repeats"),
        (("--resume", "nowhere"), "nowhere is not a run directory"),
        (
            ("--resume", "a", "--memory-out", "b"),
            "--resume a resumes the run in that directory; leave --memory-out b out",
        ),
        (
            ("--memory-resume", "a", "--memory-out", "b"),
            "--memory-resume a resumes the run in that directory; leave --memory-out b out",
        ),
    ],
)
def test_options_have_short_names_here_and_sentences_say_the_name_that_was_typed(
    sweep, arguments, sentence
):
    """Both end up in the same setting."""
    done = sweep("scenarios", *arguments)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert sentence in done.stderr


def test_a_short_name_has_the_effect_of_the_long_one(sweep):
    """Three repeats and no trace of a point are three tests."""
    point = ("--memory-points", "loading-lazy-image_count=100-*")
    done = sweep("scenarios", "--repeats", "3", "--no-trace", *point, "--collect-only", "-q")

    assert done.stdout.count("loading-lazy-image_count=100-") == 3, done.stdout + done.stderr


def test_the_sweep_is_listed_beside_the_tests(sweep):
    """Its options are known to both."""
    done = sweep("scenarios", "tests/harness/run", "--collect-only", "-q")

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "loading-lazy-image_count=2000" in done.stdout
