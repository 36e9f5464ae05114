"""Options of the sweep: which scan, how many groups. ``pytest scenarios --help`` lists them with
the harness's own.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from difflib import get_close_matches
from pathlib import Path

import pytest

from harness.plugin.options import declare_short_names
from harness.words import count
from scenarios.catalog import SIMULATED, ScanChoice, points, refuse_counts, refuse_scan
from scenarios.detector.bugs.registry import CARD_PLANTS, PLANTS, plant_named, planted

_SCAN = pytest.StashKey[ScanChoice]()


_SHORT_NAMES = (
    "against",
    "device",
    "device-budget",
    "growth",
    "host-budget",
    "isolation",
    "no-trace",
    "repeats",
    "resume",
    "revision",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options that choose what is swept, and short names for those of the plug-in."""
    group = parser.getgroup("scenarios", "the sweep over the ptychography loaders")
    group.addoption(
        "--scan",
        metavar="FILE",
        type=Path,
        help="your own scan, a contract NPZ, instead of the simulated one; the image counts are "
        "chosen to fit it",
    )
    group.addoption(
        "--image-counts",
        metavar="N,N,...",
        type=_counts,
        help="numbers of image groups to sweep (default: 100,500,1000,2000, or what fits the scan)",
    )
    group.addoption(
        "--plant",
        metavar="KIND",
        type=_plant,
        help="put a known bug into the loader of every point, to see what the gate says about "
        "it; the kinds are in scenarios/detector/bugs/registry.py, each with the points (-k) that "
        "it is meant for",
    )
    declare_short_names(parser, "scenarios", _SHORT_NAMES)


def _plant(name: str) -> str:
    """The name of a planted bug. Of some seventy the nearest are told."""
    known = [plant.name for plant in (*PLANTS, *CARD_PLANTS)]
    if name in known:
        return name
    near = get_close_matches(name, known, n=_NEAREST, cutoff=_LIKENESS)
    more = [each for each in known if name and each.startswith(name) and each not in near]
    told = ", ".join([*near, *more][:_NEAREST])
    raise argparse.ArgumentTypeError(
        f"there is no bug called {name!r}; "
        + (f"near are {told}" if told else "all are in scenarios/detector/bugs/registry.py")
    )


_NEAREST, _LIKENESS = 4, 0.6
"""Names that are told of one that is not there, and how alike they are (difflib's ratio and its
default)."""


def pytest_configure(config: pytest.Config) -> None:
    """Settle the scan and check the counts against it, once: xdist's workers get it from the
    controller.
    """
    from_controller = getattr(config, "workerinput", {}).get("scenarios_scan")
    config.stash[_SCAN] = (
        _settle_scan(config) if from_controller is None else ScanChoice(**from_controller)
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell an xdist worker which scan is swept."""
    node.workerinput["scenarios_scan"] = dataclasses.asdict(node.config.stash[_SCAN])  # type: ignore[attr-defined]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Multiply the catalogue out into the tests."""
    if "point" not in metafunc.fixturenames:
        return
    planned = points(metafunc.config.stash[_SCAN], metafunc.config.getoption("image_counts", None))
    if (plant := metafunc.config.getoption("plant", None)) is not None:
        planned = [planted(point, plant_named(plant)) for point in planned]
    metafunc.parametrize("point", planned, ids=[point.name for point in planned])


def _settle_scan(config: pytest.Config) -> ScanChoice:
    # Where this file is found only in the course of collection (pytest .), its options were not
    # declared in time.
    path: Path | None = config.getoption("scan", None)
    counts: tuple[int, ...] = config.getoption("image_counts", None) or ()
    scan = SIMULATED if path is None else _ask_scan(path, config.rootpath)
    if refusal := refuse_scan(scan) or refuse_counts(scan, counts):
        raise pytest.UsageError(refusal)
    return scan


def _ask_scan(path: Path, root: Path) -> ScanChoice:
    # Asked in a child: this process stays free of numpy and of the code under test.
    asked = subprocess.run(
        [sys.executable, "-m", "ptycho", "info", "--json", str(path.resolve())],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    if asked.returncode != 0:
        said = asked.stderr.strip().splitlines() or ["no reason was given"]
        reason = said[-1].removeprefix("ptycho: ").replace(str(path.resolve()), str(path))
        raise pytest.UsageError(f"--scan cannot be used: {reason}")
    facts = json.loads(asked.stdout)
    frame_count, frame_size = int(facts["frame_count"]), int(facts["frame_size"])
    label = f"{path.name}, {frame_count} frames of {frame_size} x {frame_size}"
    return ScanChoice(
        label=label, frame_count=frame_count, frame_size=frame_size, file=str(path.resolve())
    )


def _counts(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of image counts; write whole numbers above 0, as 100,500,1000"
        )
    counts = tuple(sorted({int(part) for part in parts}))
    if len(counts) < 3:
        raise argparse.ArgumentTypeError(
            f"{text!r} has {count(len(counts), 'different count')}; "
            "a slope with its uncertainty needs 3 or more"
        )
    return counts
