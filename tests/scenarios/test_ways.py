"""The ways that several phases of one child take: the files are one scan, and each phase holds what
it says and no more.
"""

import contextlib
import subprocess
import sys

import numpy as np
import pytest

from scenarios.bodies import formats, scripts, settings, written
from scenarios.bodies.ways import all_seen
from scenarios.catalog import points
from scenarios.ways import BATCH_SIZE, STACK_SIZES, WAYS, way_points

BODIES = {"formats": formats, "scripts": scripts, "settings": settings}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A scan of 256 frames of 64 x 64 in every form, of which 128 are used, and what a body is told
    of it.
    """
    workspace = tmp_path_factory.mktemp("inputs")
    parameters = {
        "loader": "lazy",
        "stack_size": 128,
        "frame_size": 64,
        "gridsize": 2,
        "batch_size": 16,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "LARGEST_STACK_SIZE", 256)
        patch.setattr(settings, "SMALL_BATCH_SIZE", 64)
        patch.setattr(settings, "EPOCHS", 2)
        written.prepare(workspace, parameters)
        yield workspace, parameters


class Phases:
    """Meters of nothing: which phases were entered, and what was declared."""

    def __init__(self, workspace):
        self.workspace, self.entered, self.declared = workspace, [], {}

    @contextlib.contextmanager
    def phase(self, name):
        self.entered.append(name)
        yield

    def declare(self, **amounts):
        self.declared |= amounts


def test_the_ways_are_swept_over_two_stacks_and_the_smaller_one_is_traced():
    """Complete batches, so that an epoch's peak is the same at each size."""
    swept = {
        (point.scenario, point.parameters["stack_size"]): point.traced for point in way_points()
    }

    assert swept == {
        (scenario.name, size): size == 768 for scenario in WAYS for size in STACK_SIZES
    }
    assert {size // 4 % BATCH_SIZE for size in STACK_SIZES} == {0}
    assert {size % settings.SMALL_BATCH_SIZE for size in STACK_SIZES} == {0}


@pytest.mark.parametrize("scenario", WAYS, ids=lambda scenario: scenario.name)
def test_a_body_enters_the_phases_that_the_catalogue_names_and_leaves_no_file(small, scenario):
    """In their order; what was unpacked goes with its phase."""
    workspace, parameters = small
    before = sorted(workspace.rglob("*"))
    memory = Phases(workspace)
    BODIES[scenario.name].measure(memory, parameters)

    assert tuple(memory.entered) == scenario.phases == (*BODIES[scenario.name].WAYS, "release")
    assert memory.declared["image"] == 4 * memory.declared["frame"] == 64 * 64 * 4 * 4
    assert sorted(workspace.rglob("*")) == before


def test_every_form_is_the_same_scan(small, tmp_path):
    """Positions and frames, but for the pixels that are marked as bad."""
    workspace, parameters = small
    files = written.folder_of(workspace, parameters)
    plain = formats.Scan.open(files / "plain.npz", keep_energies=False)
    for name, opened in formats.WAYS.items():
        scan = opened(files, tmp_path)
        found, expected = np.asarray(scan.frames, np.float32), np.array(plain.frames)
        is_bad = (found != expected).any(axis=0)

        assert is_bad.sum() <= (written.BAD_PIXELS if name in ("counts", "cxi") else 0), name
        assert not found[:, is_bad].any(), name
        np.testing.assert_allclose(scan.x, plain.x, rtol=1e-9)
        np.testing.assert_allclose(scan.y, plain.y, rtol=1e-9)
        assert (scan.object is None) == (name not in ("counts", "compressed")), name


def test_an_epoch_of_another_number_of_groups_ends_the_run():
    """What was not fed was not measured."""
    all_seen(16, 16)
    with pytest.raises(ValueError, match="15 of 16 groups were fed"):
        all_seen(15, 16)


@pytest.mark.parametrize(
    "module", sorted({point.prepare.partition(":")[0] for point in points() if point.prepare})
)
def test_a_preparation_brings_no_tensorflow(project_root, module):
    """It runs in a fresh interpreter, which would import it for seconds; once for each size and
    worker.
    """
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", code], cwd=project_root, check=False).returncode == 0
    )


def test_files_of_another_writer_are_not_read(small, monkeypatch, tmp_path):
    """The folder's name carries what its content depends on."""
    workspace, parameters = small
    other = tmp_path / "written.py"
    other.write_text("# another writer")
    folder = written.folder_of(workspace, parameters)
    monkeypatch.setattr(written, "__file__", str(other))

    assert written.folder_of(workspace, parameters) != folder
