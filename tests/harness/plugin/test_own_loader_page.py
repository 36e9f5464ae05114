"""The page for those who measure a loader of their own: its files, run as it says, with real
children.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from harness.plugin.arguments import SETTINGS
from harness.plugin.limits import SECTIONS

# What its example imports of PtychoPINN, with the same names and arguments; written for this test.
PINN = {
    "ptycho/__init__.py": "",
    "ptycho/params.py": "cfg = {}\n",
    "ptycho/raw_data.py": (
        "key_coords_offsets, key_coords_relative = 'start_offsets', 'start_relative'\n"
    ),
    "ptycho/loader.py": """
import tensorflow as tf
from ptycho import params


def load(cb, probeGuess, which, create_split):
    images = cb()["X_full"]
    squares = tf.convert_to_tensor(images) ** 2
    return images, float(tf.reduce_mean(squares)) * params.cfg["gridsize"]
""",
}


@pytest.fixture(scope="module")
def page(request):
    return (request.config.rootpath / "docs" / "your-own-loader.md").read_text(encoding="utf-8")


@pytest.fixture
def repository(page, tmp_path):
    """A folder with the files of the page; none of this repository is importable from it."""
    files = dict(
        re.findall(r"`([\w/]+\.(?:py|ini))`[^\n]*:\n\n```(?:python|ini)\n(.*?)```", page, re.DOTALL)
    )
    for name, code in {**files, **PINN}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")

    def run(*arguments):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "PYTHONPATH"))
        }
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
        "memory_tests/bodies.py",
        "memory_tests/pytest.ini",
        "memory_tests/test_load.py",
        "mylab/pipeline.py",
        "tests/test_host.py",
        "tests/test_memory.py",
    ]
    return run


def test_the_files_of_the_page_give_its_findings(repository, page, tmp_path):
    """All tests pass, the session fails: the cached pipeline costs 16,384 B of the device for each
    image, to the byte.
    """
    done = repository("tests/test_memory.py", "--memory-out", "out", "--memory-no-trace")
    found = json.loads((tmp_path / "out" / "findings.json").read_text())

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "7 passed" in done.stdout, done.stdout
    (shown,) = re.findall(
        r"^regression: (cached / construct / device in use: .*?)\nregression",
        page,
        re.DOTALL | re.MULTILINE,
    )
    sentence, of_host = [finding["sentence"] for finding in found["findings"]]
    assert of_host.startswith("cached / construct / host anonymous memory: grows by ")
    # Without traces nobody can say what was alive.
    assert sentence == re.sub(
        r"; alive at the peak of .*? operation\.", ".", " ".join(shown.split())
    )


def test_the_short_form_finds_what_the_host_keeps_and_lets_the_right_ways_pass(
    repository, page, tmp_path
):
    """Retracing, weights and views in their tests, the cache of all images at the end."""
    done = repository("tests/test_host.py", "--memory-out", "out", "--memory-no-trace")
    found = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "3 failed, 9 passed" in done.stdout, done.stdout
    assert {finding["rule"] for finding in found} == {"leak", "slope"}, done.stdout
    views = [
        (finding["rule"], finding["meter"], finding["phase"])
        for finding in found
        if "views" in finding["subject"]
    ]
    assert views == [("leak", "device_in_use", "epoch_1"), ("leak", "device_in_use", "epoch_2")]
    assert (
        "its two findings, one for each step, are about `device in use`, and none is about the host"
        in " ".join(page.split())
    )
    assert all(
        finding["meter"] == "host_anon" for finding in found if "views" not in finding["subject"]
    )
    kept = {finding["point"] for finding in found if finding["rule"] == "leak"}
    assert kept == {
        f"no_epoch_keeps_anything-{habit}-wrong" for habit in ("retraced", "weights", "views")
    }
    slopes = [finding["subject"] for finding in found if finding["rule"] == "slope"]
    assert "no_image_costs_anything / wrong / epoch_0 / host anonymous memory" in slopes
    assert not [subject for subject in slopes if "/ right /" in subject]


def test_another_checkout_is_gated_by_the_command_of_the_page(repository, page, tmp_path):
    """Its package has the name of ours; its own tests are not collected; all images pass through
    the device twice.
    """
    (tmp_path / "test_of_its_own.py").write_text(
        "def test_nothing():\n    raise RuntimeError('this one is not ours')\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "--nothing-that-pytest-knows"\n'
    )
    (command,) = re.findall(r"^pytest (-c \S+ --rootdir \S+ \S+)$", page, re.MULTILINE)
    done = repository(*command.split(), "--memory-out", "out", "--memory-no-trace")
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    # the first comes before the body imports it
    packages = [row["packages"] for row in rows if row["kind"] == "code"][-1]
    found = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    finding = next(one for one in found if one["meter"] == "device_in_use")

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert packages["ptycho"] == str(tmp_path / "ptycho" / "__init__.py")
    assert packages["memory_tests"] == str(tmp_path / "memory_tests")
    assert {(one["rule"], one["meter"]) for one in found} == {
        ("slope", "device_in_use"),
        ("slope", "host_anon"),
    }
    assert (finding["rule"], finding["subject"]) == ("slope", "load / load / device in use")
    assert finding["measured"] == pytest.approx(2 * 64 * 64 * 4, rel=0.001)
    assert "2.00 x X" in finding["sentence"]


def test_every_argument_of_the_marker_is_in_the_tables_of_the_page(page):
    """And nothing else is."""
    tables = page[page.index("| setting |") : page.index("Dicts have the keys of")]

    assert re.findall(r"^\| `?(\w+)`? \|", tables, re.MULTILINE)[1:] == [
        *SETTINGS,
        "limit",
        *SECTIONS,
    ]
