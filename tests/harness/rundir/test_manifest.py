"""run.json: written once, whole, and never over another run."""

import json
from pathlib import Path

import pytest

from harness.errors import RunDirectoryError, UsageError
from harness.records import Outcome, Point
from harness.run.devices import Device, emulated_device
from harness.rundir.manifest import (
    claim_run_directory,
    end_run,
    make_run_directory,
    plans_anything,
    read_manifest,
    start_run,
)
from harness.rundir.reading import seal_of
from harness.words import GIB

POINT = Point(
    scenario="loading",
    body="b:b",
    parameters={"loader": "lazy", "image_count": 5},
    fixed={"scan": "mine.npz"},
    phases=("open",),
    expected=Outcome.DEVICE_OOM,
)

CARD = Device(
    kind="gpu", name="H100", uuid="GPU-0", memory_bytes=80 * GIB, limit_bytes=None, driver="575.57"
)


def start(path, points=(POINT,), swept=None):
    device = emulated_device("no driver")
    start_run(
        path,
        points=points,
        swept=swept,
        repeats=2,
        device=device,
        command="c",
        root=Path(),
        settings={},
    )


def test_the_plan_is_read_back_as_it_was(tmp_path):
    """Points, their expected outcomes and their order."""
    start(tmp_path / "run")

    assert read_manifest(tmp_path / "run").planned == (POINT,)


def test_runs_are_comparable_by_device_allocator_tensorflow_and_scan(tmp_path):
    """Nothing else: another host or commit is no other baseline."""
    start(tmp_path / "run")
    key = json.loads((tmp_path / "run" / "run.json").read_text())["comparability"]

    assert key.keys() == {"device", "allocator", "tensorflow", "scan"}
    assert (key["device"], key["allocator"], key["scan"]) == (
        "emulated, 3.0 GiB",
        "bfc",
        "mine.npz",
    )


def test_a_selection_is_comparable_with_the_sweep_that_it_was_chosen_from(tmp_path):
    """The scan is that of all the points, even if none of the chosen reads it."""
    start(tmp_path / "run", points=(), swept=(POINT,))

    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["comparability"]["scan"]
        == "mine.npz"
    )


def test_an_empty_plan_plans_nothing(tmp_path):
    """And a plan of one point does."""
    start(tmp_path / "empty", points=())
    start(tmp_path / "one")

    assert (plans_anything(tmp_path / "empty"), plans_anything(tmp_path / "one")) == (False, True)


def test_a_folder_is_tried_out_and_left_empty(tmp_path):
    """What cannot be written to is refused by its name."""
    make_run_directory(tmp_path / "a" / "run")

    assert list((tmp_path / "a" / "run").iterdir()) == []
    with pytest.raises(
        UsageError,
        match=r"--memory-out /proc/x cannot be written to \(.*\); name a folder in which",
    ):
        make_run_directory(Path("/proc/x"))
    with pytest.raises(UsageError, match=r"--memory-out /proc cannot be written to"):
        make_run_directory(Path("/proc"))


def test_the_first_of_several_workers_writes_the_plan(tmp_path):
    """The others find it there and leave it."""
    start(tmp_path / "run")
    first = (tmp_path / "run" / "run.json").read_bytes()
    start(tmp_path / "run", points=())

    assert (tmp_path / "run" / "run.json").read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["rows.jsonl", "run.json"]


def test_the_end_is_noted_and_nothing_else_changes(tmp_path):
    """An interrupted run has none."""
    start(tmp_path / "run")
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    end_run(tmp_path / "run")
    after = json.loads((tmp_path / "run" / "run.json").read_text())

    assert before["ended"] is None
    assert after["ended"] is not None
    assert after.pop("seal") == seal_of(after, b"")
    assert {**after, "ended": None} == before


def test_an_empty_folder_may_be_used_and_a_run_may_not(tmp_path):
    """Nor a file."""
    claim_run_directory(tmp_path)
    start(tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a run"):
        claim_run_directory(tmp_path / "run")
    with pytest.raises(UsageError, match="is a file"):
        claim_run_directory(tmp_path / "run" / "run.json")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    """Its parent is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        start(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("device", "words", "pool"),
    [
        (CARD, "H100, 80.0 GiB", "reserved"),
        (CARD.with_budget(3 * GIB), "H100, 80.0 GiB, limited to 3.0 GiB", "reserved"),
        (CARD.with_growth(), "H100, 80.0 GiB, growing on demand", "grown"),
        # told apart by the key's allocator
        (CARD.with_allocator("cuda_malloc_async"), "H100, 80.0 GiB", "driver"),
        (emulated_device("no driver"), "emulated, 3.0 GiB", "reserved"),
    ],
)
def test_runs_with_another_pool_are_not_comparable(tmp_path, device, words, pool):
    """The key has the card's size, its budget, and whether it grows; run.json says how the pool is
    taken.
    """
    start_run(
        tmp_path / "run",
        points=[POINT],
        repeats=2,
        device=device,
        command="c",
        root=Path(),
        settings={},
    )
    written = json.loads((tmp_path / "run" / "run.json").read_text())

    assert (written["comparability"]["device"], written["device"]["pool"]) == (words, pool)
    assert written["comparability"]["allocator"] == device.allocator
