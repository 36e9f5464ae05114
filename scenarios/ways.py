"""The ways through the loader that ``catalog`` does not take: several one after the other in a
child, over two sizes.

A phase is one way from its file or arrays to the last batch; what it holds is let go of after it.
Swept over the stack alone, with one group for every four frames, so that two sizes show what a
frame costs as well as what an image does. The scans are simulated, whatever scan the others read.
"""

from harness.records import Outcome, Point
from scenarios.scenario import Scenario

STACK_SIZES = (768, 2048)
"""Frames: 20 MiB of them apart, 40 times what runs of a point may differ by; a scan of the larger
size is there already. The smaller one compresses to 1.3 MB, more than the buffer that it is
unpacked through: 512 frames would not fill it."""
FRAME_SIZE = 64
GRIDSIZE = 2
BATCH_SIZE = 16
"""As of ``feeds``: 1 MiB, and twelve batches at the smaller size."""

WAYS = (
    Scenario(
        name="formats",
        body="scenarios.bodies.formats:measure",
        prepare="scenarios.bodies.written:prepare",
        phases=("counts", "cxi", "compressed", "repacked", "tables", "release"),
        expected={"lazy": Outcome.OK},
    ),
    Scenario(
        name="scripts",
        body="scenarios.bodies.scripts:measure",
        prepare="scenarios.bodies.written:prepare",
        phases=(
            "raw_data",
            "grouped",
            "normalized",
            "saved",
            "assigned",
            "images",
            "truth",
            "release",
        ),
        expected={"lazy": Outcome.OK},
    ),
    Scenario(
        name="settings",
        body="scenarios.bodies.settings:measure",
        prepare="scenarios.bodies.written:prepare",
        phases=(
            "epochs_of_chunks",
            "repeated",
            "sharded",
            "ahead",
            "without_truth",
            "oversampled",
            "singles",
            "nines",
            "release",
        ),
        expected={"lazy": Outcome.OK},
    ),
)


def way_points() -> list[Point]:
    """Every way at both sizes; the smaller one is traced."""
    return [_point(scenario, stack_size) for scenario in WAYS for stack_size in STACK_SIZES]


def _point(scenario: Scenario, stack_size: int) -> Point:
    return Point(
        scenario=scenario.name,
        body=scenario.body,
        prepare=scenario.prepare,
        phases=scenario.phases,
        parameters={"loader": "lazy", "stack_size": stack_size},
        fixed={"frame_size": FRAME_SIZE, "gridsize": GRIDSIZE, "batch_size": BATCH_SIZE},
        traced=stack_size == min(STACK_SIZES),
        expected=scenario.expected["lazy"],
    )
