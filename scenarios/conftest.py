"""Options of the sweep: which scan, how many groups. ``pytest scenarios --help`` lists them with the harness's own."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios.catalog import SIMULATED, ScanChoice, points, refuse_counts


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options that choose what is swept."""
    group = parser.getgroup("scenarios", "the sweep over the ptychography loaders")
    group.addoption(
        "--scan",
        metavar="FILE",
        type=Path,
        help="your own scan, a contract NPZ, instead of the simulated one; the image counts are chosen to fit it",
    )
    group.addoption(
        "--image-counts",
        metavar="N,N,...",
        type=_counts,
        help="numbers of image groups to sweep (default: 100,500,1000,2000, or what fits the scan)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Multiply the catalogue out into the tests."""
    if "point" not in metafunc.fixturenames:
        return
    scan = _scan(metafunc.config)
    counts = metafunc.config.getoption("image_counts")
    if counts is not None and (refusal := refuse_counts(scan, counts)):
        raise pytest.UsageError(refusal)
    planned = points(scan, counts)
    metafunc.parametrize("point", planned, ids=[point.name for point in planned])


def _scan(config: pytest.Config) -> ScanChoice:
    path: Path | None = config.getoption("scan")
    if path is None:
        return SIMULATED
    # Asked in a child: this process stays free of numpy and of the code under test.
    asked = subprocess.run(
        [sys.executable, "-m", "ptycho", "info", "--json", str(path.resolve())],
        capture_output=True,
        text=True,
        check=False,
        cwd=config.rootpath,
    )
    if asked.returncode != 0:
        reason = asked.stderr.strip().splitlines()
        raise pytest.UsageError(f"--scan {path} cannot be used: {reason[-1] if reason else 'no reason was given'}")
    facts = json.loads(asked.stdout)
    frame_count, frame_size = int(facts["frame_count"]), int(facts["frame_size"])
    label = f"{path.name}, {frame_count} frames of {frame_size} x {frame_size}"
    return ScanChoice(label=label, frame_count=frame_count, frame_size=frame_size, file=str(path.resolve()))


def _counts(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of image counts; write whole numbers above 0, as 100,500,1000")
    counts = tuple(sorted({int(part) for part in parts}))
    if len(counts) < 3:
        raise argparse.ArgumentTypeError(
            f"{text!r} has {len(counts)} different counts; a slope with its uncertainty needs 3 or more"
        )
    return counts
