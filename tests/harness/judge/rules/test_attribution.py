"""What grew, in the user's terms: multiples of declared arrays, and what was alive at the peak."""

import gzip
import json

import pytest

from harness.judge.gate import judge
from harness.judge.rules.evidence import alive_then, risen
from harness.judge.table import load_run
from harness.records import TRACE_SCHEMA_VERSION, Outcome, Point, to_json
from harness.rundir.rows import TraceEnd
from harness.rundir.traces import read_trace
from harness.words import MOST_MULTIPLES, as_multiple

X_BYTES = 65_536
SMALLEST, LARGEST = (f"loading-lazy-image_count={count}-stack_size=2048" for count in (100, 2000))


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (131_072, "2.00 x X"),
        (132_382, "2.02 x X"),
        (132_384, ""),
        (129_762, "1.98 x X"),
        (129_760, ""),
        (MOST_MULTIPLES * X_BYTES, "16.00 x X"),
        ((MOST_MULTIPLES + 1) * X_BYTES, ""),
        (0, ""),
        (-X_BYTES, ""),
        (300, ""),
    ],
)
def test_a_whole_multiple_within_one_percent(amount, expected):
    """And one byte or one multiple further no more; nothing is said where nothing fits."""
    assert as_multiple(amount, {"X": X_BYTES, "nothing": 0}) == expected


def test_the_smallest_multiple_is_named_and_equals_beside_it():
    """As large as Y, and as two of X: both are said, as sizes alone do not tell; an image is always
    four frames, which is not.
    """
    assert as_multiple(131_072, {"X": X_BYTES, "Y": 2 * X_BYTES}) == "1.00 x Y or 2.00 x X"
    assert as_multiple(X_BYTES, {"frame": X_BYTES // 4, "image": X_BYTES}) == "1.00 x image"
    assert (
        as_multiple(X_BYTES, {"X": X_BYTES, "Y_I": X_BYTES, "Y_phi": X_BYTES, "image": X_BYTES})
        == "1.00 x X (or Y_I, Y_phi)"
    )


def test_an_uncertain_amount_is_about_as_large():
    """Within its interval, and said so."""
    assert as_multiple(70_000, {"X": X_BYTES}) == ""
    assert as_multiple(70_000, {"X": X_BYTES}, within=5_000) == "about 1.07 x X"


def arrays(point):
    """What an eager body declares by name."""
    count = point.parameters["image_count"]
    return {"X": X_BYTES * count, "Y": 2 * X_BYTES * count, "image": X_BYTES, "batch": 4_194_304}


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (2 * X_BYTES, "); as large as 1.00 x Y or 2.00 x X. At 2,000"),
        (X_BYTES, "); as large as 1.00 x X. At 2,000"),
    ],
)
@pytest.mark.parametrize("meter", ["device_in_use", "host_anon"])
def test_a_slope_is_told_in_arrays_that_the_body_declared(
    synthetic_run, verdict_of, slope, words, meter
):
    """Arrays that grow with the images, and only where none of them fits what one image is
    anyway.
    """
    synthetic_run.declared = lambda point: (
        arrays(point) | {"frame": 16_384, "arrays": 327_680 * point.parameters["image_count"]}
    )
    synthetic_run.plant(
        phase="construct",
        meter=meter,
        extra=lambda point, repeat: slope * point.parameters["image_count"],
    )
    (finding,) = [
        check
        for check in verdict_of(synthetic_run).findings
        if check.rule == "slope" and check.scenario == "loading"
    ]

    assert words in finding.sentence


# --- traces ---


def one(op, shape, each_bytes, count=1, dtype="float32"):
    return {
        "op": op,
        "shape": shape,
        "dtype": dtype,
        "region": "output",
        "each_bytes": each_bytes,
        "count": count,
        "like": "",
    }


def write_trace(folder, point, phases, requested=None):
    """A trace that tells what was alive in each phase; ``requested`` is start, peak and end of
    each, all 0 without.
    """
    nothing = {"start_bytes": 0, "peak_bytes": 0, "end_bytes": 0}
    edges = {
        name: dict(zip(nothing, (requested or {}).get(name, (0, 0, 0)), strict=True))
        for name in phases
    }
    counts = (
        "allocations",
        "deallocations",
        "from_before",
        "reordered",
        "jumps",
        "overwritten",
        "resized",
    )
    times = {"start_ns": 0, "peak_ns": 0, "end_ns": 0}
    document = {
        "schema_version": TRACE_SCHEMA_VERSION,
        "point": point,
        "device": "CPU:0",
        "allocator": "bfc",
        "tensorflow": "2.21.0",
        "limit_bytes": None,
        "base_bytes": 0,
        "declared": {},
        "phases": [
            {
                "phase": name,
                "index": index,
                "finished": True,
                **times,
                "requested": edges[name],
                "allocator": nothing,
                "alive": alive,
            }
            for index, (name, alive) in enumerate(phases.items())
        ],
        "timeline": {"time_ns": [], "requested_bytes": [], "allocator_bytes": []},
        "counts": {**dict.fromkeys(counts, 0), "other_allocators": {}},
        "out_of_memory": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{point}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    return path


def phases_of(count):
    """A loader that keeps a copy of its images, beside a batch and an array that was there
    before.
    """
    kept = one("Mul", f"[{count},2]", 8 * count)
    cast = one("Cast", f"[{count},64,64,4]", X_BYTES * count)
    return {
        "open": [kept],
        "construct": [
            one("Empty", "[64,64,64,4]", 4_194_304),
            kept,
            cast,
            one("", f"[{count}]", 800 * count),
        ],
    }


@pytest.fixture
def traced(tmp_path, synthetic_run):
    """Traces of the smallest and the largest lazy point, and these points."""
    points = [point for point in synthetic_run.points if point.name in (SMALLEST, LARGEST)]
    found = {
        point.name: read_trace(
            write_trace(tmp_path, point.name, phases_of(point.parameters["image_count"])),
            point.name,
        )
        for point in points
    }
    return found, points


def test_what_grew_is_told_by_its_own_bytes_and_all_others_together(traced):
    """The batch is as large in both, so it did not grow, and is one of the others; shapes are those
    of the largest point.
    """
    traces, points = traced
    told = alive_then(traces, points, "construct", "growth")

    assert told.words == (
        f"alive at the peak of construct in {LARGEST}: Cast (2000, 64, 64, 4) float32, "
        "125.0 MiB; 1.5 MiB of (2000) float32 without an operation; and 2 others, 4.0 MiB "
        "together"
    )
    assert told.grown_bytes == 1900 * X_BYTES
    assert told.points == tuple(points)


def test_of_one_point_it_is_what_was_alive(traced):
    """There is nothing to compare it with."""
    traces, points = traced

    told = alive_then(traces, points[:1], "construct", "peak").words

    assert told.endswith(
        "Cast (100, 64, 64, 4) float32, 6.2 MiB; Empty (64, 64, 64, 4) float32, 4.0 MiB; "
        "and 2 others, 78.9 KiB together"
    )


def test_without_a_trace_or_a_phase_nothing_is_said(traced):
    """Nothing is guessed."""
    traces, points = traced

    assert (
        alive_then({}, points, "construct", "peak").words
        == alive_then(traces, points, "release", "peak").words
        == ""
    )


def test_a_finding_ends_with_what_was_alive(synthetic_run, policy, baselines):
    """Read from the run directory, for the device alone."""
    for meter in ("device_in_use", "host_anon"):
        synthetic_run.plant(
            phase="construct",
            meter=meter,
            extra=lambda point, repeat: 65_536 * point.parameters["image_count"],
        )
    synthetic_run.manifest["settings"] = {"traces": True}
    file = f"{LARGEST}.json.gz"
    end = TraceEnd(
        point=LARGEST,
        outcome=Outcome.OK,
        cause="",
        reason="",
        file=file,
        launcher="spawn",
        duration_s=1.0,
    )
    path = synthetic_run.write([*synthetic_run.rows(), {"kind": "traced", **to_json(end)}])
    write_trace(path / "traces", LARGEST, phases_of(2000))
    findings = judge(load_run(path), policy, baselines).verdict.findings
    device, host = (
        next(check.sentence for check in findings if check.rule == "slope" and check.meter == meter)
        for meter in ("device_in_use", "host_anon")
    )

    assert (
        f"; as large as 1.00 x image; alive at the peak of construct in {LARGEST}: Cast "
        "(2000, 64, 64, 4) float32, 125.0 MiB; " in device
    )
    assert "alive" not in host


# --- what was alive at a start, at an end, and in one phase more than in the one before ---

BATCH = one("Empty", "[64,64,64,4]", 4_194_304)
NOTES = one("Pack", "[9]", 1_000_000)
EPOCHS = ("epoch_0", "epoch_1", "release")


@pytest.fixture
def epochs(tmp_path):
    """Read a trace of two epochs and a release, of a point of the same phases."""

    def epochs(first, second, released, requested):
        point = Point(scenario="own", body="own:body", parameters={}, fixed={}, phases=EPOCHS)
        phases = dict(zip(EPOCHS, (first, second, released), strict=True))
        path = write_trace(tmp_path, point.name, phases, requested)
        return {point.name: read_trace(path, point.name)}, point

    return epochs


def test_what_an_epoch_keeps_is_named_where_the_next_phase_shows_it(epochs):
    """Release peaks as it begins, with what the epoch ended with: three batches, of which one was
    there before.
    """
    traces, point = epochs(
        [BATCH],
        [BATCH | {"count": 2}, NOTES],
        [BATCH | {"count": 3}],
        {"epoch_0": (0, 4, 4), "epoch_1": (4, 9, 12), "release": (12, 12, 0)},
    )

    assert alive_then(traces, [point], "epoch_1", "retained").words == (
        f"alive when epoch_1 ended in {point.name}: 3 x Empty (64, 64, 64, 4) float32, 12.0 MiB"
    )
    assert alive_then(traces, [point], "release", "net_start").words.startswith(
        f"alive when release began in {point.name}: 3 x"
    )
    # How the first epoch ended no trace shows, as the second one grew: so it is the peaks that are
    # told of.
    assert risen(traces, point, ("epoch_0", "epoch_1"), "end") == (
        "alive at the peak of epoch_1 (what both ended with is not traced), beyond what "
        "there was when epoch_0 peaked: Empty (64, 64, 64, 4) float32, 4.0 MiB; Pack (9) "
        "float32, 976.6 KiB"
    )


def test_where_nothing_shows_the_start_or_the_end_nothing_is_said_of_it(epochs):
    """Release takes more than it begins with: its peak is not what the epoch left, nor what it
    began with itself.
    """
    traces, point = epochs([BATCH], [NOTES], [BATCH], {"epoch_1": (0, 9, 4), "release": (4, 8, 0)})

    assert [
        alive_then(traces, [point], "epoch_1", field).words
        for field in ("end", "retained", "net_end")
    ] == [""] * 3
    assert [
        alive_then(traces, [point], "release", field).words for field in ("start", "net_start")
    ] == [""] * 2
    assert alive_then(traces, [point], "epoch_1", "peak").words.startswith(
        f"alive at the peak of epoch_1 in {point.name}: Pack (9)"
    )


def test_of_two_epochs_that_had_the_same_nothing_is_said(epochs):
    """Neither at the peak nor at the end; nor without a trace."""
    traces, point = epochs([BATCH], [BATCH], [], {})

    assert risen(traces, point, ("epoch_0", "epoch_1"), "peak") == ""
    assert risen({}, point, ("epoch_0", "epoch_1"), "end") == ""


def test_a_multiple_is_left_out_where_the_trace_shows_several_arrays(
    synthetic_run, policy, baselines
):
    """X and its square together are as large as Y, and are not Y; one array of that size is."""
    synthetic_run.keep_points(
        lambda point: point.scenario == "loading" and point.parameters["loader"] == "lazy"
    )
    synthetic_run.declared = lambda point: arrays(point) | {"frame": 16_384}
    synthetic_run.plant(
        phase="construct",
        meter="device_in_use",
        extra=lambda point, _: 2 * X_BYTES * point.parameters["image_count"],
    )
    synthetic_run.manifest["settings"] = {"traces": True}
    told = []
    for ops, parts in ((("Cast", "Square"), 2), (("Cast",), 1)):
        rows = synthetic_run.rows()
        for name, count in ((SMALLEST, 100), (LARGEST, 2000)):
            file = f"{name}.json.gz"
            end = TraceEnd(
                point=name,
                outcome=Outcome.OK,
                cause="",
                reason="",
                file=file,
                launcher="spawn",
                duration_s=1.0,
            )
            rows.append({"kind": "traced", **to_json(end)})
            alive = [one(op, f"[{count}]", 2 * X_BYTES * count // parts) for op in ops]
            write_trace(synthetic_run.path / "traces", name, {"open": [], "construct": alive})
        findings = judge(
            load_run(synthetic_run.write(rows)), policy, baselines, partial=True
        ).verdict.findings
        told.append(next(check.sentence for check in findings if check.rule == "slope"))

    assert "as large as" not in told[0]
    assert "Cast (2000) float32, 125.0 MiB; Square (2000) float32, 125.0 MiB" in told[0]
    assert "as large as 1.00 x Y or 2.00 x X; alive at the peak of" in told[1]
