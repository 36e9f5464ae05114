"""The gate as a detector: a copy of the project, one planted line, a real sweep of the lazy loader,
and the verdict.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

ANCHOR = "        self._given, self._inputs = arguments, inputs\n"
KEPT_TENSOR = "        self._X = tf.convert_to_tensor(np.asarray(arguments.X))\n"
FREED_TENSOR = "        tf.reduce_mean(tensor_of(None, self._inputs.images))\n"
FREED_ARRAY = "        np.ascontiguousarray(arguments.X).mean()\n"


@pytest.fixture
def verdict_with(tmp_path, project_root):
    """Plant a line at the end of the lazy container's constructor, or change another file, sweep,
    judge: exit code and sentences.
    """

    def run(line, *, file="ptycho/containers/lazy.py", anchor=ANCHOR, chosen="loading and lazy"):
        copy = tmp_path / "project"
        for folder in ("harness", "ptycho", "scenarios", "reports"):
            shutil.copytree(
                project_root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(project_root / "pyproject.toml", copy)
        inputs = project_root / "artifacts" / "inputs"
        if inputs.exists():
            shutil.copytree(inputs, copy / "artifacts" / "inputs", symlinks=True)
        loader = copy / file
        text = loader.read_text(encoding="utf-8")
        assert text.count(anchor) == 1
        text = text.replace(anchor, anchor + line)
        loader.write_text(
            text
            if "import numpy" in text
            else text.replace("import tensorflow", "import numpy as np\nimport tensorflow")
        )
        _python(
            copy,
            "-m",
            "pytest",
            "scenarios",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            chosen,
            "--memory-out",
            "run",
        )
        judged = _python(copy, "-m", "harness", "gate", "run", "--partial", "--verbose")
        assert not judged.stderr
        return judged.returncode, " ".join(judged.stdout.split())

    return run


def _python(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_the_loader_as_it_is_passes(verdict_with):
    """Nothing planted, nothing found."""
    code, said = verdict_with("")

    assert (code, said.partition(":")[0]) == (0, "Pass"), said


@pytest.mark.parametrize(
    ("line", "meter", "slope", "fate"),
    [
        # 65,536 B is X of one image: 64 x 64 x 4 float32.
        (
            KEPT_TENSOR,
            "(device in use|host anonymous memory)",
            65_536,
            r"when the phase ends it is [\d.]+ MiB more than when it began",
        ),
        (FREED_TENSOR, "device in use", 65_536, r"when the phase ends it is .* when it began"),
        # Less than X of an image: pages of the file that the copy maps are taken off the lower
        # bound.
        (
            FREED_ARRAY,
            "host anonymous memory",
            49_152,
            r"when the phase ends it is .* when it began",
        ),
    ],
    ids=["kept tensor", "freed tensor", "freed array"],
)
def test_a_full_copy_of_the_images_turns_the_gate_red(verdict_with, line, meter, slope, fate):
    """One sentence with scenario, loader, phase, meter, slope and limit; exit code 1."""
    code, said = verdict_with(line)
    found = re.search(
        rf"loading / lazy / construct / {meter}: grows by (?P<slope>[\d,]+) B per image, "
        rf"limit 512 .*{fate}",
        said,
    )

    assert code == 1, said
    assert found is not None, said
    assert slope <= int(found["slope"].replace(",", "")) < 1.05 * 65_536


YIELDED = "        found = patches_of(images * scale, coords).numpy(), coords.numpy()\n"
KEPT_PREDICTION = (
    "        container.__dict__.setdefault('kept', []).append(patches_of(images * scale, coords))\n"
)


def test_predictions_kept_on_the_device_turn_the_gate_red(verdict_with):
    """As model.predict keeps them: complex64 of 32 x 32 x 4 for each image."""
    code, said = verdict_with(
        KEPT_PREDICTION, file="ptycho/reconstruct.py", anchor=YIELDED, chosen="inference and lazy"
    )
    found = re.search(
        r"inference / lazy / predict_0 / device in use: grows by (?P<slope>[\d,]+) B per image, "
        r"limit 4,096 .*MiB more than when it began",
        said,
    )

    assert code == 1, said
    assert found is not None, said
    # More than they are where BFC hands out a free chunk whole; the first prediction shares its
    # peak with what is traced.
    assert 0.95 * 32_768 <= int(found["slope"].replace(",", "")) < 2 * 32_768


def test_a_tensor_kept_by_the_container_is_found_in_training_too(verdict_with):
    """4,096 B of X for each image, at construction; more where BFC hands out a free chunk whole
    that is not twice the request.
    """
    code, said = verdict_with(
        KEPT_TENSOR.replace(
            "tf.convert_to_tensor(np.asarray(arguments.X))", "tensor_of(None, self._inputs.images)"
        ),
        chosen="training and lazy",
    )
    found = re.search(
        r"training / lazy / construct / device in use: keeps (?P<slope>[\d,]+) B per image, "
        r"limit 512 ",
        said,
    )

    assert code == 1, said
    assert found is not None, said
    assert 4_096 <= int(found["slope"].replace(",", "")) < 3 * 4_096


def test_a_strong_reference_to_what_a_dataset_reads_is_found(verdict_with):
    """TensorFlow keeps the callable of a dataset for good: with it stays X of each container over
    arrays, 1 MiB.
    """
    code, said = verdict_with(
        "    reference = lambda: method\n",
        file="ptycho/feeding/device_memory.py",
        anchor="    reference = weakref.WeakMethod(method)\n",
        chosen="lifetimes",
    )
    kept = re.findall(
        r"lifetimes / lazy / rounds / (\w+) / host anonymous memory: keeps ([\d,]+) B per "
        r"rounds, limit 98,304",
        said,
    )

    assert code == 1, said
    assert {phase for phase, _ in kept} == {"complete", "dropped", "raised"}, said
    assert all(
        0.95 * (1 << 20) < int(slope.replace(",", "")) < 2 * (1 << 20) for _, slope in kept
    ), said
