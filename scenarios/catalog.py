"""What is measured. ``SCENARIOS`` is the whole catalogue; everything below it only multiplies it
out into points.

Bodies are named by string: they import TensorFlow, and are loaded in the child alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.records import Outcome, Point, Scalar
from scenarios.scenario import Scenario
from scenarios.ways import WAYS, way_points

MIB = 1024 * 1024

IMAGE_COUNTS = (100, 500, 1000, 2000)
"""Groups of the simulated sweep: over a factor of 20, and every epoch has more than one batch of
64."""
ARRAY_COUNTS = (100, 500, 1000)
"""Groups of the in-memory sweep: the sizes users know from tests/test_lazy_loading.py."""
STACK_SIZE = 2048
"""Frames of the simulated scan: enough to seed 2,000 groups without drawing one twice."""
STACK_FACTOR = 4
"""Each loader has one point with this many times the stack, at an image count that is in the sweep
too."""
STACK_COUNT = 500
"""The image count of that point."""
LEAST_STACK_SIZE = 16
"""Frames of the smallest scan swept: twice the 8 that a group of 4 is drawn from (a seed and its 7
nearest neighbours), so that groups are formed as in a large scan, and that an eighth of it is still
two groups."""
FRAME_SIZE = 64
GRIDSIZE = 2
BATCH_SIZE = 64
"""Groups in a batch: with N = 64 and C = 4 a batch of X is 4 MiB, which the BFC allocator counts
without rounding."""
OOM_BUDGET_BYTES = 256 * MIB
"""Device of the oom scenario: a tenth of what the eager loader asks for at 2,000 groups, 64 batches
of the lazy one."""

LOADERS = ("eager", "lazy")

MODEL_COUNTS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "training": {"eager": (64,), "lazy": (64, 128, 256)},
    "inference": {"eager": (), "lazy": (16, 96, 192)},
}
"""Groups that the network sees. The lazy loader's slope is gated and needs three sizes; what the
eager one costs is known from ``loading``, and one point shows that it trains. Some predictions peak
0.2 to 0.8 MiB above others, whatever their number: over 176 groups that is a quarter of one. Each
child traces a step of the network first, 4 s of its 6."""
MODEL_GRIDSIZE: Mapping[str, int] = {"training": 1, "inference": 2}
"""Single frames train at 3 ms each on one core, groups of 4 by the same code in four times that."""
MODEL_FRAME_SIZE = 32
"""A quarter of the time and of the memory of 64."""
MODEL_BATCH_SIZE = 4
"""The peak of a network is tens of batches: the smaller the batch, the finer is the slope. The
device is measured to 256 B; a batch has 16 KiB and more."""
MODEL_THREADS = 1
"""Operations of a step at the same time. Measured: with two, peaks of identical epochs lay between
65 and 93 MB, because each gradient of a convolution takes 30 MB of scratch on the CPU, whatever the
batch, and one to three of them run at once; with one, between 34.8 and 34.9 MB."""
MODEL_STACK_SIZE = 256
"""As many frames as the largest count of groups."""

FEED_SOURCES = ("hdf5", "raw_data")
"""What ``feeds`` reads: a compressed, chunked HDF5 file, and an NPZ by PtychoPINN's names."""
FEED_COUNTS = (128, 256, 512)
"""Three sizes are what a slope needs; the smallest has more batches than any feed has on the device
at a time."""
FEED_BATCH_SIZE = 16
"""1 MiB at N = 64 and C = 4, which the allocator counts without rounding."""

LIFETIME_ROUNDS = (1, 2, 4)
"""Rounds of containers that come and go: three are what a slope needs, and one that keeps a
container shows at any."""
LIFETIME_COUNT = 16
"""Groups of each container, 1 MiB of X at N = 64 and C = 4: what is kept of one is far above what
runs differ by."""
LIFETIME_BATCH_SIZE = 4
"""Four batches, so that two of them are half of the way."""


SCENARIOS = (
    Scenario(
        name="loading",
        body="scenarios.bodies.loading:measure",
        prepare="scenarios.bodies.scans:prepare",
        phases=("open", "construct", "first_batch", "epoch_0", "epoch_1", "release"),
        expected={"eager": Outcome.OK, "lazy": Outcome.OK},
    ),
    Scenario(
        name="arrays",
        body="scenarios.bodies.arrays:measure",
        prepare=None,
        phases=("arrays", "construct", "first_batch", "epoch_0", "epoch_1", "release"),
        expected={"eager": Outcome.OK, "lazy": Outcome.OK},
    ),
    Scenario(
        name="oom",
        body="scenarios.bodies.loading:measure",
        prepare="scenarios.bodies.scans:prepare",
        phases=("open", "construct", "first_batch", "epoch_0", "epoch_1", "release"),
        device_budget_bytes=OOM_BUDGET_BYTES,
        expected={"eager": Outcome.DEVICE_OOM, "lazy": Outcome.OK},
    ),
    Scenario(
        name="feeds",
        body="scenarios.bodies.feeds:measure",
        prepare="scenarios.bodies.feed_files:prepare",
        phases=("open", "construct", "epoch_defaults", "epoch_targets", "epoch_batches", "release"),
        expected={"lazy": Outcome.OK},
    ),
    Scenario(
        name="training",
        body="scenarios.bodies.training:measure",
        prepare="scenarios.bodies.scans:prepare",
        phases=("open", "construct", "forward", "build", "train_0", "train_1", "release"),
        expected={"eager": Outcome.OK, "lazy": Outcome.OK},
    ),
    Scenario(
        name="inference",
        body="scenarios.bodies.inference:measure",
        prepare="scenarios.bodies.scans:prepare",
        phases=("open", "construct", "stitch", "build", "predict_0", "predict_1", "release"),
        expected={"eager": Outcome.OK, "lazy": Outcome.OK},
    ),
    Scenario(
        name="lifetimes",
        body="scenarios.bodies.lifetimes:measure",
        prepare="scenarios.bodies.scans:prepare",
        phases=("first", "complete", "dropped", "raised", "release"),
        expected={"lazy": Outcome.OK},
    ),
    *WAYS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanChoice:
    """The scan that a sweep reads: how many frames of which size, and the user's file unless it is
    simulated.
    """

    label: str
    frame_count: int
    frame_size: int
    file: str | None


SIMULATED = ScanChoice(
    label="simulated, seed 0", frame_count=STACK_SIZE, frame_size=FRAME_SIZE, file=None
)


def default_image_counts(scan: ScanChoice) -> tuple[int, ...]:
    """The catalogue's counts where the scan seeds them all; else an eighth, a quarter, half and all
    of its frames.
    """
    if scan.frame_count >= IMAGE_COUNTS[-1]:
        return IMAGE_COUNTS
    return tuple(scan.frame_count // part for part in (8, 4, 2, 1))


def points(scan: ScanChoice = SIMULATED, image_counts: Sequence[int] | None = None) -> list[Point]:
    """Every point of the catalogue, in the order of ``SCENARIOS``.

    ``image_counts`` replaces the counts of ``loading`` and ``arrays``; ``oom`` takes the largest.
    Their values must have been checked against the scan, and the scan itself: see ``refuse_counts``
    and ``refuse_scan``. ``feeds``, ``training``, ``inference`` and ``lifetimes`` have simulated
    scans and counts of their own, so that they take seconds with every scan.
    """
    counts = tuple(image_counts or default_image_counts(scan))
    array_counts = tuple(image_counts or ARRAY_COUNTS)
    loading, arrays, oom, feeds, *with_model, lifetimes = SCENARIOS[: -len(WAYS)]
    return [
        *(
            _scan_point(loading, scan, counts, loader, count, scan.frame_count)
            for loader in LOADERS
            for count in counts
        ),
        *_stack_points(loading, scan, counts),
        *(
            _array_point(arrays, counts, array_counts, loader, count)
            for loader in LOADERS
            for count in array_counts
        ),
        *_oom_points(oom, scan, counts),
        *(
            _feed_point(feeds, source, count, STACK_SIZE)
            for source in FEED_SOURCES
            for count in FEED_COUNTS
        ),
        *(
            _feed_point(feeds, source, FEED_COUNTS[1], STACK_SIZE * STACK_FACTOR)
            for source in FEED_SOURCES
        ),
        *(
            _model_point(scenario, loader, count)
            for scenario in with_model
            for loader in LOADERS
            for count in MODEL_COUNTS[scenario.name][loader]
        ),
        *(_lifetime_point(lifetimes, rounds) for rounds in LIFETIME_ROUNDS),
        *way_points(),
    ]


def refuse_scan(scan: ScanChoice) -> str | None:
    """Why this scan is too small to be swept, in one sentence; None when it is not."""
    if scan.frame_count >= LEAST_STACK_SIZE:
        return None
    return (
        f"--scan {scan.label} is too small: groups of {GRIDSIZE**2} neighbouring frames, at "
        f"three image counts or more, need {LEAST_STACK_SIZE} frames; name a larger scan"
    )


def refuse_counts(scan: ScanChoice, image_counts: Sequence[int]) -> str | None:
    """Why this scan cannot be swept over these counts, in one sentence; None when it can."""
    too_many = [count for count in image_counts if count > scan.frame_count]
    if not too_many:
        return None
    return (
        f"--image-counts asks for {', '.join(map(str, too_many))} groups, but {scan.label} "
        f"has {scan.frame_count} frames to seed groups from; ask for {scan.frame_count} or "
        "fewer"
    )


def eager_bytes(scan: ScanChoice, image_count: int) -> int:
    """Least device memory of the eager loader: X, Y_I and Y_phi are float32, Y is complex64."""
    return image_count * GRIDSIZE**2 * scan.frame_size**2 * (4 + 4 + 4 + 8)


def _fixed(frame_size: int, counts: Sequence[int]) -> dict[str, Scalar]:
    # Whole batches at every count: a batch that one count cannot fill would pass for growth.
    return {"frame_size": frame_size, "gridsize": GRIDSIZE, "batch_size": min(BATCH_SIZE, *counts)}


def _scan_point(
    scenario: Scenario,
    scan: ScanChoice,
    counts: Sequence[int],
    loader: str,
    image_count: int,
    stack_size: int,
) -> Point:
    is_end_of_series = image_count in (min(counts), max(counts)) or stack_size != scan.frame_count
    return Point(
        scenario=scenario.name,
        body=scenario.body,
        prepare=scenario.prepare,
        phases=scenario.phases,
        # A series is explained by its smallest and its largest point; running out of memory takes
        # BFC 10 s each time.
        traced=is_end_of_series and scenario.device_budget_bytes is None,
        parameters={"loader": loader, "image_count": image_count, "stack_size": stack_size},
        fixed={**_fixed(scan.frame_size, counts), "scan": scan.label},
        inputs={} if scan.file is None else {"scan_file": scan.file},
        expected=scenario.expected[loader],
        device_budget_bytes=scenario.device_budget_bytes,
    )


def _stack_points(scenario: Scenario, scan: ScanChoice, counts: Sequence[int]) -> list[Point]:
    """One point per loader at another stack size: four times a simulated scan, the first quarter of
    a user's own.

    None where that quarter has fewer frames than can be swept: its groups would be drawn from other
    neighbours.
    """
    stack_size = (
        scan.frame_count * STACK_FACTOR if scan.file is None else scan.frame_count // STACK_FACTOR
    )
    if stack_size < LEAST_STACK_SIZE:
        return []
    fitting = [count for count in counts if count <= min(stack_size, STACK_COUNT)]
    return (
        [
            _scan_point(scenario, scan, counts, loader, max(fitting), stack_size)
            for loader in LOADERS
        ]
        if fitting
        else []
    )


def _array_point(
    scenario: Scenario,
    counts: Sequence[int],
    array_counts: Sequence[int],
    loader: str,
    image_count: int,
) -> Point:
    return Point(
        scenario=scenario.name,
        body=scenario.body,
        prepare=scenario.prepare,
        phases=scenario.phases,
        traced=image_count in (min(array_counts), max(array_counts)),
        parameters={"loader": loader, "image_count": image_count},
        fixed=_fixed(FRAME_SIZE, counts),
        expected=scenario.expected[loader],
    )


def _feed_point(scenario: Scenario, source: str, image_count: int, stack_size: int) -> Point:
    return Point(
        scenario=scenario.name,
        body=scenario.body,
        prepare=scenario.prepare,
        phases=scenario.phases,
        parameters={
            "loader": "lazy",
            "source": source,
            "image_count": image_count,
            "stack_size": stack_size,
        },
        fixed={**_fixed(FRAME_SIZE, FEED_COUNTS), "batch_size": FEED_BATCH_SIZE},
        # The others would show the same batches once more.
        traced=(image_count, stack_size) == (FEED_COUNTS[0], STACK_SIZE),
        expected=scenario.expected["lazy"],
    )


def _model_point(scenario: Scenario, loader: str, image_count: int) -> Point:
    return Point(
        scenario=scenario.name,
        body=scenario.body,
        prepare=scenario.prepare,
        phases=scenario.phases,
        parameters={"loader": loader, "image_count": image_count},
        fixed={
            "frame_size": MODEL_FRAME_SIZE,
            "gridsize": MODEL_GRIDSIZE[scenario.name],
            "batch_size": MODEL_BATCH_SIZE,
            "stack_size": MODEL_STACK_SIZE,
            "inter_op_threads": MODEL_THREADS,
        },
        # A network allocates 40,000 times in 64 steps, which take longer to read than to run; more
        # steps show nothing new.
        traced=loader == "lazy" and image_count == min(MODEL_COUNTS[scenario.name][loader]),
        environment={"TF_NUM_INTEROP_THREADS": str(MODEL_THREADS)},
        expected=scenario.expected[loader],
    )


def _lifetime_point(scenario: Scenario, rounds: int) -> Point:
    fixed = {
        **_fixed(FRAME_SIZE, (LIFETIME_BATCH_SIZE,)),
        "image_count": LIFETIME_COUNT,
        "stack_size": STACK_SIZE,
    }
    return Point(
        scenario=scenario.name,
        body=scenario.body,
        prepare=scenario.prepare,
        phases=scenario.phases,
        parameters={"loader": "lazy", "rounds": rounds},
        fixed=fixed,
        # More rounds would show the same batches once more.
        traced=rounds == LIFETIME_ROUNDS[0],
        expected=scenario.expected["lazy"],
    )


def _oom_points(scenario: Scenario, scan: ScanChoice, counts: Sequence[int]) -> list[Point]:
    """Both loaders at the largest count; none for a scan so small that the eager loader fits the
    budget.
    """
    largest = max(counts)
    if (
        scenario.device_budget_bytes is None
        or eager_bytes(scan, largest) <= scenario.device_budget_bytes
    ):
        return []
    return [
        _scan_point(scenario, scan, counts, loader, largest, scan.frame_count) for loader in LOADERS
    ]
