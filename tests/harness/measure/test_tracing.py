"""Traced children on the emulated device: known allocations come back byte for byte, deaths have a
reason instead.
"""

import json
import os
from collections import Counter
from dataclasses import astuple, replace
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.judge.completeness import agreement, read_traces
from harness.judge.table import load_run
from harness.measure.replay import Event
from harness.measure.tracing import Profile, why_empty
from harness.records import TRACED_REPEAT, Outcome, Point
from harness.run.devices import emulated_device
from harness.run.launchers import open_launcher
from harness.run.runner import ChildSettings, Runner
from harness.rundir.manifest import start_run
from harness.rundir.traces import traces_in_words, traces_of
from harness.words import GIB, MIB

BODIES = "tests.harness.measure.traced_bodies"


@pytest.fixture(scope="module")
def launcher(request):
    """Forks where that is safe here: a traced child is the same either way."""
    launcher = open_launcher("auto", environment=_environment(), folder=request.config.rootpath)
    yield launcher
    launcher.close()


@pytest.fixture
def runner(tmp_path, project_root, launcher):
    return Runner(
        run_directory=tmp_path / "run",
        device=emulated_device("a test"),
        launcher=launcher,
        children=ChildSettings(
            root=project_root,
            workspace=tmp_path / "inputs",
            host_limit_bytes=5 * GIB,
            timeout_s=120.0,
            environment=_environment(),
        ),
    )


def _environment():
    """That of the tests, with the project's root, whose bodies the zygote's forks import."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.fixture
def traced(runner, project_root):
    """Run a body traced, after as many untraced repeats as asked: its end, its trace or why there
    is none, the run.
    """

    def run(body, phases, *, repeats=0, changes=None, **fields):
        name = body if ":" in body else f"{BODIES}:{body}"
        point = Point(
            **{"scenario": "traced", "body": name, "parameters": {}, "phases": phases, **fields}
        )
        mine = replace(runner, children=replace(runner.children, **(changes or {})))
        start_run(
            mine.run_directory,
            points=[point],
            repeats=max(repeats, 1),
            device=mine.device,
            command="test",
            root=project_root,
            settings={"traces": True},
        )
        for repeat in range(repeats):
            mine.measure(point, repeat)
        end = mine.measure(point, TRACED_REPEAT)
        found = load_run(mine.run_directory)
        return end, read_traces(found), found

    return run


def only(traces):
    (trace,) = traces.found.values()
    return trace


def test_a_known_sequence_comes_back_byte_for_byte(traced):
    """Order, requested bytes, the allocator's 256 B steps, and what the peaks were made of."""
    end, traces, _ = traced("known_sequence", ("first", "second", "third", "fourth"))
    trace = only(traces)
    times, requested, allocator = trace.timeline.columns()

    assert end.outcome is Outcome.OK, end.reason
    assert times[0] == 0
    # The three shapes, of 4 B each, are made before the first phase, and go when the body has
    # returned.
    assert requested == [
        4,
        8,
        12,
        *(12 + live for live in (4000, 4300, 300, 8300, 16_300, 8300, 8000, 0)),
        8,
        4,
        0,
    ]
    in_chunks = [
        256,
        512,
        768,
        *(768 + live for live in (4096, 4608, 512, 8704, 16_896, 8704, 8192, 0)),
        512,
        256,
        0,
    ]
    assert allocator == [trace.base_bytes + live for live in in_chunks]
    assert times == sorted(times)
    edges = [
        (phase.requested.start_bytes, phase.requested.peak_bytes, phase.requested.end_bytes)
        for phase in trace.phases
    ]
    assert edges == [(12, 8312, 8312), (8312, 16_312, 8012), (8012, 8012, 8012), (8012, 8012, 12)]
    assert [astuple(one) for one in trace.phases[0].alive] == [
        ("Empty", "[2000]", "float32", "output", 8000, 1, "1.00 x batch"),
        ("Empty", "[300]", "uint8", "output", 300, 1, ""),
        ("", "", "", "", 4, 3, ""),
    ]
    assert [(one.op, one.each_bytes) for one in trace.phases[1].alive[:3]] == [
        ("AddV2", 8000),
        ("Empty", 8000),
        ("Empty", 300),
    ]
    counts = trace.counts
    assert (
        counts.reordered,
        counts.jumps,
        counts.overwritten,
        counts.resized,
        counts.from_before,
    ) == (0, 0, 0, 0, 0)


def test_the_allocators_peaks_of_an_untraced_repeat_are_those_of_the_trace(traced):
    """In all four phases."""
    _, traces, run = traced("known_sequence", ("first", "second", "third", "fourth"), repeats=1)

    assert agreement(only(traces), run) == (
        "The trace and the allocator's own peak in the untraced repeats agree in all 4 "
        "phases to the byte."
    )


def test_the_rows_of_a_traced_run_are_its_own(traced, runner):
    """rows.jsonl holds one line of it; the profiler's files are gone."""
    _, _, run = traced("known_sequence", ("first", "second", "third", "fourth"))
    rows = [json.loads(line) for line in (run.path / "rows.jsonl").read_text().splitlines()]
    name = run.points[0].name

    assert [row["kind"] for row in rows] == ["traced"]
    assert rows[0]["file"] == f"{name}.json.gz"
    assert sorted(path.name for path in (run.path / "traces").iterdir()) == [
        f"{name}.json.gz",
        f"{name}.jsonl",
    ]
    assert [path.name for path in (run.path / "logs").iterdir()] == [f"{name}-traced.log"]
    assert not run.problems


def test_arrays_that_become_tensors_are_told_by_their_size(traced):
    """No operation names them; each is as large as three batches."""
    _, traces, _ = traced("convert_arrays", ("convert", "release"))
    largest = only(traces).phases[0].alive[0]

    assert (largest.op, largest.each_bytes, largest.like) == ("", 12_288, "3.00 x batch")
    assert 1 <= largest.count <= 8


@pytest.mark.oom
def test_where_memory_ran_out_there_is_what_was_alive_and_what_was_asked_for(traced):
    """30 MiB held of 64, and 64 asked for in the second phase."""
    end, traces, run = traced(
        "exhaust",
        ("fits", "does_not_fit"),
        device_budget_bytes=64 * MIB,
        expected=Outcome.DEVICE_OOM,
    )
    refused = only(traces).out_of_memory

    assert end.outcome is Outcome.DEVICE_OOM
    assert run.traces[run.points[0].name].outcome is Outcome.DEVICE_OOM
    assert (refused.phase, refused.shape, refused.dtype) == ("does_not_fit", "[67108864]", "uint8")
    assert (refused.asked_bytes, refused.like) == (64 * MIB, "1.00 x batch")
    assert [(one.op, one.shape, one.each_bytes) for one in refused.alive[:2]] == [
        ("Empty", "[20971520]", 20 * MIB),
        ("Empty", "[10485760]", 10 * MIB),
    ]
    alive = (
        "Empty (20971520) uint8, 20.0 MiB; Empty (10485760) uint8, 10.0 MiB; and 3 others, 12 "
        "B together"
    )
    assert end.reason.endswith(f"of 64.0 MiB were in use; the largest that were alive: {alive}")
    assert refused.requested_bytes == 30 * MIB + sum(
        one.each_bytes * one.count for one in refused.alive[2:]
    )
    assert [phase.finished for phase in only(traces).phases] == [True, False]


def test_a_child_that_dies_by_a_signal_has_no_trace_and_says_why(traced):
    """Its parent knows; nothing is left of the recording."""
    end, traces, run = traced("die_by_signal", ("first", "second"))
    (reason,) = traces.absent.values()

    assert end.outcome is not Outcome.OK
    assert "SIGSEGV" in reason
    assert not traces.found
    assert next(iter(traces.notes)).startswith(f"No trace of {run.points[0].name}, because ")
    assert [path.suffix for path in (run.path / "traces").iterdir()] == [".jsonl"]


def test_without_the_profilers_description_the_run_goes_on_and_says_so(traced, runner):
    """Other versions of TensorFlow may have it elsewhere."""
    phases = ("first", "second", "third", "fourth")
    end, traces, _ = traced(
        "known_sequence", phases, changes={"prepare_device": f"{BODIES}:without_xplane_prepare"}
    )
    (reason,) = traces.absent.values()

    assert end.outcome is Outcome.OK
    assert (
        "has no tensorflow.tsl.profiler.protobuf.xplane_pb2 to read the profiler's file with"
        in reason
    )
    assert [end.file for end in traces_of(runner.run_directory)] == [None]


ALLOCATED = Event(
    time_ns=1, allocated=True, address=1, requested_bytes=8, allocation_bytes=256, in_use_bytes=256
)
FREED = replace(ALLOCATED, allocated=False, in_use_bytes=0)
REPORTED_NONE = "the profiler of TensorFlow 2.19.1 reported no allocation of GPU_0_bfc"


@pytest.mark.parametrize(
    ("events", "others", "grown_bytes", "reason"),
    [
        ([], {}, {}, ""),
        ([], {"mklcpu": 3}, {}, ""),
        ([FREED], {}, {}, ""),
        ([ALLOCATED], {}, {"construct": 2 * MIB}, ""),
        (
            [],
            {},
            {"first": 1, "construct": 2 * MIB},
            f"{REPORTED_NONE}, though device_in_use grew by 2.0 MiB in construct",
        ),
        ([FREED], {}, {"first": 1}, f"{REPORTED_NONE}, though device_in_use grew by 1 B in first"),
        (
            [],
            {"mklcpu": 3},
            {"first": 1},
            f"{REPORTED_NONE}, only events of mklcpu, though device_in_use grew by 1 B in first",
        ),
    ],
)
def test_a_recording_without_allocations_is_none_where_the_meter_saw_growth(
    events, others, grown_bytes, reason
):
    """A body that allocates nothing keeps its empty trace; one byte of growth is enough."""
    profile = Profile(events=events, others=Counter(others))

    assert why_empty(profile, "GPU_0_bfc", grown_bytes, "2.19.1") == reason


def test_a_profiler_that_reports_no_allocation_leaves_a_reason_and_no_trace(traced, runner):
    """The amount that the meter saw, and the version; the summary of the session says it too."""
    phases = ("first", "second", "third", "fourth")
    end, traces, run = traced(
        "known_sequence", phases, changes={"prepare_device": f"{BODIES}:unheard_prepare"}
    )
    name = run.points[0].name
    (reason,) = traces.absent.values()

    assert end.outcome is Outcome.OK
    assert reason == (
        f"the profiler of TensorFlow {version('tensorflow')} reported no allocation of "
        "bfc_cpu_allocator_for_gpu, though device_in_use grew by 8.5 KiB in first"
    )
    assert traces_in_words(runner.run_directory) == [
        "0 of 1 traced points have a trace in traces/",
        f"no trace of {name}, because {reason}",
    ]
    assert list(traces.notes) == [f"No trace of {name}, because {reason}"]
    assert [path.suffix for path in (run.path / "traces").iterdir()] == [".jsonl"]


def test_a_body_that_allocates_nothing_keeps_its_empty_trace(traced):
    """Nothing was asked for, and the meter saw nothing grow."""
    _, traces, _ = traced("allocate_nothing", ("idle",))

    assert (only(traces).counts.allocations, only(traces).phases[0].requested.peak_bytes) == (0, 0)


def test_threads_that_allocate_at_the_same_time_are_followed(traced):
    """Four at once, 201 allocations each: every event fits, and the four that stay are alive at the
    end.
    """
    _, traces, _ = traced("many_threads", ("threads",))
    trace = only(traces)
    counts, (phase,) = trace.counts, trace.phases

    assert (counts.jumps, counts.overwritten, counts.resized) == (0, 0, 0)
    assert counts.allocations >= 4 * 201
    assert phase.requested.end_bytes - phase.requested.start_bytes == 4 * (
        1000 + 1001 + 1002 + 1003
    )


def test_the_batch_of_the_real_loading_scenario_is_named(traced):
    """Lazy, 100 groups: one batch alive at the peak of an epoch, made by the operation that lends
    the memory.
    """
    end, traces, run = traced(
        "scenarios.bodies.loading:measure",
        ("open", "construct", "first_batch", "epoch_0", "epoch_1", "release"),
        repeats=1,
        prepare="scenarios.bodies.scans:prepare",
        parameters={"loader": "lazy", "image_count": 100, "stack_size": 256},
        fixed={"frame_size": 64, "gridsize": 2, "batch_size": 64},
    )
    trace = only(traces)
    by_phase = {phase.phase: phase for phase in trace.phases}
    batch = by_phase["epoch_0"].alive[0]

    assert end.outcome is Outcome.OK, end.reason
    assert batch.sentence == "4.0 MiB: 1 x float32 [64,64,64,4] by Empty, 1.00 x batch"
    assert by_phase["construct"].requested.peak_bytes == 0
    assert "agree in all 6 phases" in agreement(trace, run)
