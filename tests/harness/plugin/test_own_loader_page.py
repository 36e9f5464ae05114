"""The page for those who measure a loader of their own: its files, run as it says, with real children."""

import json
import os
import re
import subprocess
import sys

import pytest

from harness.plugin.limits import SECTIONS
from harness.plugin.settings import SETTINGS

# What its example imports of PtychoPINN, with the same names and arguments; written for this test.
PINN = {
    "PtychoPINN/ptycho/__init__.py": "",
    "PtychoPINN/ptycho/params.py": "cfg = {}\n",
    "PtychoPINN/ptycho/loader.py": """
import tensorflow as tf
from ptycho import params


class PtychoDataContainer:
    def __init__(self, X, Y_I, Y_phi, norm_Y_I, YY_full, coords_nominal, coords_true, nn_indices, global_offsets, local_offsets,
                 probeGuess):
        self.images = X

    @property
    def X(self):
        return tf.identity(self.images)

    def as_tf_dataset(self, batch_size, shuffle=True):
        def batches():
            for start in range(0, len(self.images), batch_size):
                yield tf.identity(self.images[start : start + batch_size]) * params.cfg["intensity_scale"]

        return tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec((None, None, None, 1), tf.float32))
""",
}


@pytest.fixture(scope="module")
def page(request):
    return (request.config.rootpath / "docs" / "your-own-loader.md").read_text(encoding="utf-8")


@pytest.fixture
def repository(page, tmp_path):
    """A folder with the files of the page; none of this repository is importable from it."""
    files = dict(re.findall(r"`([\w/]+\.py)`[^\n]*:\n\n```python\n(.*?)```", page, re.DOTALL))
    for name, code in {**files, **PINN}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")

    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
        # -P, as of the program pytest: the working directory is no import path.
        return subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    assert sorted(files) == [
        "host_bodies.py",
        "memory_bodies.py",
        "mylab/pipeline.py",
        "pinn_bodies.py",
        "tests/test_host.py",
        "tests/test_memory.py",
        "tests/test_pinn.py",
    ]
    return run


def test_the_files_of_the_page_give_its_findings(repository, page, tmp_path):
    """All tests pass, the session fails: the cached pipeline costs 16,384 B of the device for each image, to the byte."""
    done = repository("tests/test_memory.py", "--memory-out", "out", "--memory-no-trace")
    found = json.loads((tmp_path / "out" / "findings.json").read_text())

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "7 passed" in done.stdout, done.stdout
    (shown,) = re.findall(r"^regression: (cached / construct / device in use: .*?)\nregression", page, re.DOTALL | re.MULTILINE)
    sentence, of_host = [finding["sentence"] for finding in found["findings"]]
    assert of_host.startswith("cached / construct / host anonymous memory: grows by ")
    # Without traces nobody can say what was alive.
    assert sentence == re.sub(r"; alive at the peak of .*?MiB\.", ".", " ".join(shown.split()))


def test_the_short_form_finds_what_the_host_keeps_and_lets_the_right_ways_pass(repository, tmp_path):
    """Retracing, weights and views in their tests, the cache of all images at the end."""
    done = repository("tests/test_host.py", "--memory-out", "out", "--memory-no-trace")
    found = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "3 failed, 9 passed" in done.stdout, done.stdout
    assert {finding["rule"] for finding in found} == {"leak", "slope"}, done.stdout
    assert all(finding["meter"] == "host_anon" for finding in found if "views" not in finding["subject"])
    kept = {finding["point"] for finding in found if finding["rule"] == "leak"}
    assert kept == {f"no_epoch_keeps_anything-{habit}-wrong" for habit in ("retraced", "weights", "views")}
    slopes = [finding["subject"] for finding in found if finding["rule"] == "slope"]
    assert "no_image_costs_anything / wrong / epoch_0 / host anonymous memory" in slopes
    assert not [subject for subject in slopes if "/ right /" in subject]


def test_a_package_of_our_name_is_measured_from_its_own_folder(repository, tmp_path):
    """The rows say which files it came from; its loader keeps the page's promise."""
    done = repository("tests/test_pinn.py", "--memory-out", "out", "--memory-no-trace", "-k", "256", "--memory-repeats", "1")
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    packages = [row["packages"] for row in rows if row["kind"] == "code"][-1]  # the first comes before the body imports it

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert packages["ptycho"] == str(tmp_path / "PtychoPINN" / "ptycho" / "__init__.py")
    assert packages["pinn_bodies"] == str(tmp_path / "pinn_bodies.py")
    whole = next(row for row in rows if row["kind"] == "phase" and row["phase"] == "whole")
    device = next(reading for reading in whole["readings"] if reading["meter"] == "device_in_use")
    assert device["end_bytes"] - device["start_bytes"] >= 256 * 64 * 64 * 4


def test_every_argument_of_the_marker_is_in_the_tables_of_the_page(page):
    """And nothing else is."""
    tables = page[page.index("| setting |") : page.index("Dicts have the keys of")]

    assert re.findall(r"^\| `?(\w+)`? \|", tables, re.MULTILINE)[1:] == [*SETTINGS, "limit", *SECTIONS]
