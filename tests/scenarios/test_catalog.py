"""The catalogue multiplied out: which points there are, and which a scan cannot have."""

from dataclasses import replace

import pytest

from harness.records import Outcome
from scenarios.catalog import (
    SIMULATED,
    ScanChoice,
    default_image_counts,
    eager_bytes,
    points,
    refuse_counts,
    refuse_scan,
)


def scan_of(frame_count, frame_size=128):
    return ScanChoice(label="my.npz", frame_count=frame_count, frame_size=frame_size, file="my.npz")


def names(planned, scenario):
    return [point.name for point in planned if point.scenario == scenario]


def test_the_default_sweep_has_both_loaders_at_every_size_and_one_larger_stack():
    """Eight points over image counts, and two at four times the stack."""
    assert names(points(), "loading") == [
        *(f"loading-eager-image_count={count}-stack_size=2048" for count in (100, 500, 1000, 2000)),
        *(f"loading-lazy-image_count={count}-stack_size=2048" for count in (100, 500, 1000, 2000)),
        "loading-eager-image_count=500-stack_size=8192",
        "loading-lazy-image_count=500-stack_size=8192",
    ]


def test_arrays_are_swept_at_the_sizes_users_know():
    """100, 500 and 1000, for both loaders."""
    assert names(points(), "arrays") == [
        f"arrays-{loader}-image_count={count}"
        for loader in ("eager", "lazy")
        for count in (100, 500, 1000)
    ]


def test_running_out_of_memory_is_expected_of_the_eager_loader_alone():
    """Both at 2,000 groups under 256 MiB."""
    eager, lazy = (point for point in points() if point.scenario == "oom")

    assert (eager.expected, lazy.expected) == (Outcome.DEVICE_OOM, Outcome.OK)
    assert eager.device_budget_bytes == lazy.device_budget_bytes == 256 * 1024 * 1024
    assert eager.parameters["image_count"] == lazy.parameters["image_count"] == 2000


@pytest.mark.parametrize(
    ("scenario", "counts"),
    [
        ("training", {"eager": (64,), "lazy": (64, 128, 256)}),
        ("inference", {"eager": (), "lazy": (16, 96, 192)}),
    ],
)
def test_the_network_is_swept_on_a_small_scan_of_its_own(scenario, counts):
    """Whatever scan and counts are asked for: whole batches, and one operation at a time."""
    expected = [
        f"{scenario}-{loader}-image_count={count}"
        for loader in ("eager", "lazy")
        for count in counts[loader]
    ]
    chosen = [point for point in points(scan_of(516), (64, 128, 129)) if point.scenario == scenario]

    assert names(points(), scenario) == [point.name for point in chosen] == expected
    assert all(point.parameters["image_count"] % point.fixed["batch_size"] == 0 for point in chosen)
    assert {point.environment["TF_NUM_INTEROP_THREADS"] for point in chosen} == {"1"}


def test_the_other_feeds_are_swept_over_three_counts_and_a_second_stack_whatever_the_scan():
    """More batches than any feed has on the device at a time, and whole ones, so that an epoch's
    peak is the same at each size.
    """
    chosen = [point for point in points(scan_of(516), (64, 128, 129)) if point.scenario == "feeds"]
    sizes = [
        tuple(point.parameters[name] for name in ("source", "image_count", "stack_size"))
        for point in chosen
    ]

    assert names(points(), "feeds") == [point.name for point in chosen]
    assert sizes == [
        *((source, count, 2048) for source in ("hdf5", "raw_data") for count in (128, 256, 512)),
        ("hdf5", 256, 8192),
        ("raw_data", 256, 8192),
    ]
    assert {point.parameters["image_count"] % point.fixed["batch_size"] for point in chosen} == {0}
    assert (
        min(point.parameters["image_count"] // point.fixed["batch_size"] for point in chosen) == 8
    )


def test_what_comes_and_goes_is_swept_over_rounds_whatever_the_scan():
    """Three sizes, which a slope needs, and batches that can be left half-way."""
    chosen = [
        point for point in points(scan_of(516), (64, 128, 129)) if point.scenario == "lifetimes"
    ]

    assert names(points(), "lifetimes") == [point.name for point in chosen]
    assert [point.parameters["rounds"] for point in chosen] == [1, 2, 4]
    assert {point.fixed["image_count"] // point.fixed["batch_size"] for point in chosen} == {4}


def test_the_ends_of_every_series_are_traced_and_no_point_that_is_to_run_out_of_memory():
    """What was alive is told of the smallest and the largest; running out takes the allocator 10 s
    each time.
    """
    traced = [point for point in points() if point.traced]
    sizes = {
        (scenario, loader): [
            p.parameters["image_count"]
            for p in traced
            if (p.scenario, p.parameters["loader"]) == (scenario, loader)
        ]
        for scenario in ("loading", "arrays", "oom")
        for loader in ("eager", "lazy")
    }

    assert sizes == {
        **{key: [100, 2000, 500] for key in [("loading", "eager"), ("loading", "lazy")]},
        **{key: [100, 1000] for key in [("arrays", "eager"), ("arrays", "lazy")]},
        **{key: [] for key in [("oom", "eager"), ("oom", "lazy")]},
    }
    assert [point.scenario for point in traced if point.scenario not in ("loading", "arrays")] == [
        "feeds",
        "feeds",
        "training",
        "inference",
        "lifetimes",
        "formats",
        "scripts",
        "settings",
    ]


def test_every_point_has_a_name_of_its_own():
    """Rows are told apart by it."""
    planned = points()

    assert len({point.name for point in planned}) == len(planned) == 42


@pytest.mark.parametrize(
    ("frame_count", "counts"),
    [
        (516, (64, 129, 258, 516)),
        (2000, (100, 500, 1000, 2000)),
        (1999, (249, 499, 999, 1999)),
        (16, (2, 4, 8, 16)),
    ],
)
def test_default_counts_fit_the_scan(frame_count, counts):
    """The catalogue's own where all of them fit, else parts of the scan."""
    assert default_image_counts(scan_of(frame_count)) == counts


def test_counts_up_to_the_number_of_frames_are_taken_and_one_more_is_refused():
    """The sentence says what was asked, what was found and what to do."""
    assert refuse_counts(scan_of(516), (100, 516)) is None
    assert refuse_counts(scan_of(516), (100, 517)) == (
        "--image-counts asks for 517 groups, but my.npz has 516 frames to seed groups "
        "from; ask for 516 or fewer"
    )


def test_a_users_scan_has_a_quarter_of_its_frames_as_the_second_stack():
    """Every frame of a measured scan is in the sweep already; four times as many do not exist."""
    assert names(points(scan_of(516)), "loading")[-2:] == [
        "loading-eager-image_count=129-stack_size=129",
        "loading-lazy-image_count=129-stack_size=129",
    ]


def test_a_scan_of_16_frames_is_swept_and_one_of_15_is_refused():
    """In one sentence."""
    assert refuse_scan(scan_of(16)) is None
    assert refuse_scan(scan_of(15)) == (
        "--scan my.npz is too small: groups of 4 neighbouring frames, at three image "
        "counts or more, need 16 frames; name a larger scan"
    )


@pytest.mark.parametrize(("frame_count", "stack_points"), [(63, 0), (64, 2)])
def test_a_second_stack_has_16_frames_or_is_left_out(frame_count, stack_points):
    """A quarter of 63 frames is 15."""
    planned = points(scan_of(frame_count))
    second = [point for point in planned if point.parameters.get("stack_size") == frame_count // 4]

    assert len(second) == stack_points


def test_the_batch_never_exceeds_the_smallest_count():
    """A batch that one count cannot fill would pass for growth."""
    loaders = ("loading", "arrays", "oom")

    assert {
        point.fixed["batch_size"]
        for point in points(SIMULATED, (32, 64, 96))
        if point.scenario in loaders
    } == {32}
    assert {point.fixed["batch_size"] for point in points() if point.scenario in loaders} == {64}


def test_a_scan_that_fits_the_budget_has_no_oom_points_and_one_image_more_has():
    """Expecting a small scan to run out of memory would be a false alarm."""
    scan = replace(SIMULATED, frame_count=819)

    assert eager_bytes(scan, 819) <= 256 * 1024 * 1024 < eager_bytes(scan, 820)
    assert names(points(scan, (100, 200, 819)), "oom") == []
    assert len(names(points(replace(scan, frame_count=820), (100, 200, 820)), "oom")) == 2
