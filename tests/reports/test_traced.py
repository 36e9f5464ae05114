"""What was alive at the peak, in the page and the summary: chosen, drawn, escaped, and honest about
what is missing.
"""

import gzip
import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from harness.judge.table import load_run
from harness.records import Outcome, from_json, to_json
from harness.rundir.rows import TraceEnd
from harness.rundir.traces import Trace
from harness.words import MIB
from reports.drawing import finish
from reports.markdown import summary_text
from reports.pictures import INLINED_TRACES
from reports.timeline import timeline_figure
from reports.traced import highest, traced_run
from reports.view import RunView
from reports.writing import write_outputs

HOSTILE = '<script>alert("x")</script>\' & $\\frac$'
COUNTS = (
    "allocations",
    "deallocations",
    "from_before",
    "reordered",
    "jumps",
    "overwritten",
    "resized",
)


def alive(op, each_bytes, count=1, like=""):
    return {
        "op": op,
        "shape": "[8]",
        "dtype": "float32",
        "region": "output",
        "each_bytes": each_bytes,
        "count": count,
        "like": like,
    }


def document(point, peak_bytes, groups, *, refused=None, steps=3):
    """A trace of two phases: nothing, then ``steps`` allocations up to the peak, all given back at
    once.
    """
    edges = {"start_bytes": 0, "peak_bytes": peak_bytes, "end_bytes": 0}
    idle = {"start_bytes": 0, "peak_bytes": 0, "end_bytes": 0}
    each = peak_bytes // steps
    amounts = [peak_bytes - each * (steps - 1), *[each] * (steps - 1), -peak_bytes]
    shared = {"finished": True}
    return {
        "schema_version": 1,
        "point": point,
        "device": "CPU:0",
        "allocator": "bfc_cpu_allocator_for_gpu",
        "tensorflow": "2.21.0",
        "limit_bytes": 4096 * MIB,
        "base_bytes": 0,
        "declared": {"batch": 4 * MIB},
        "phases": [
            {
                "phase": "open",
                "index": 0,
                "start_ns": 0,
                "peak_ns": 0,
                "end_ns": 10,
                "requested": idle,
                "allocator": idle,
            }
            | shared
            | {"alive": []},
            {"phase": "epoch_0", "index": 1, "start_ns": 20, "peak_ns": 20 + steps, "end_ns": 10**7}
            | shared
            | {"requested": edges, "allocator": edges, "alive": groups},
        ],
        "timeline": {
            "time_ns": [21, *[1] * steps],
            "requested_bytes": amounts,
            "allocator_bytes": amounts,
        },
        "counts": {
            **dict.fromkeys(COUNTS, 0),
            "allocations": steps,
            "deallocations": steps,
            "other_allocators": {},
        },
        "out_of_memory": refused,
    }


@pytest.fixture
def write_traced(sweep, tmp_path):
    """Write a sweep with a trace of every point that ``trace_of`` gives one for; of the others the
    row has a reason.
    """

    def write(trace_of, planned=True, whole=False):
        if not whole:  # two points: drawing is slow
            sweep.points = tuple(
                point
                for point in sweep.points
                if point.name.startswith("arrays") and "=500" in point.name
            )
        sweep.changes = {**sweep.changes, "settings": {"traces": planned}}
        run = sweep.write(tmp_path / "run")
        (run.path / "traces").mkdir()
        for point in run.points:
            found = trace_of(point)
            file = f"{point.name}.json.gz"
            if found is not None:
                (run.path / "traces" / file).write_bytes(
                    gzip.compress(json.dumps(found).encode(), mtime=0)
                )
            end = TraceEnd(
                point=point.name,
                outcome=Outcome.OK if found else Outcome.CRASHED,
                cause="",
                reason="" if found else "killed by SIGSEGV in phase construct",
                file=file if found else None,
                launcher="zygote",
                duration_s=1.0,
            )
            with (run.path / "rows.jsonl").open("a") as rows:
                rows.write(json.dumps({"kind": "traced", **to_json(end)}) + "\n")
        return load_run(run.path)

    return write


def batch_trace(point):
    batch = alive("Empty", 4 * MIB, like="1.00 x batch")
    return document(
        point.name,
        12 * MIB,
        [batch | {"count": 2}, *(alive(f"Op{number}", MIB - number) for number in range(7))],
    )


def test_the_largest_of_each_series_is_shown_and_every_trace_is_listed(write_traced, judged, held):
    """18 points: two loaders in two scenarios, and the two of oom."""
    run = write_traced(batch_trace, whole=True)
    traced = traced_run(RunView(run), judged(run, held))

    assert [point.point for point in traced.points] == [
        "loading-eager-image_count=2000-stack_size=2048",
        "loading-lazy-image_count=2000-stack_size=2048",
        "arrays-eager-image_count=1000",
        "arrays-lazy-image_count=1000",
        "oom-eager-image_count=2000-stack_size=2048",
        "oom-lazy-image_count=2000-stack_size=2048",
    ]
    assert len(traced.overview.rows) == 18
    assert traced.notes == ()


def test_entries_are_sorted_by_their_own_bytes_and_trifles_summed_up(write_traced, judged, held):
    """Whatever order the file has them in; less than a hundredth of all is one row, with its number
    and its sum.
    """

    def mixed(point):
        groups = [
            alive("Small", 1000, count=3),
            alive("", MIB, count=4, like="1.00 x batch"),
            alive("Large", 6 * MIB),
        ]
        return document(point.name, 12 * MIB, groups)

    run = write_traced(mixed)
    first = traced_run(RunView(run), judged(run, held)).points[0]
    rows = [row for row in first.peaks.rows if row[0].startswith("epoch 0")]

    assert [(row[1], row[4], row[6]) for row in rows] == [
        ("Large", "1", "6.0 MiB"),
        ("none named", "4", "4.0 MiB"),
        ("1 other kind", "3", "2.9 KiB"),
    ]
    assert first.headline.endswith(
        "The largest part of it was 6.0 MiB: 1 x float32 [8] by Large; the next is 4.0 "
        "MiB: 4 x 1 MiB of (8) float32 without an operation, each 1.00 x batch."
    )


def test_points_of_findings_come_first(write_traced, judged, finding):
    """A finding of the lazy loader, then one of a point."""
    run = write_traced(batch_trace, whole=True)
    of_point = replace(
        finding, point="arrays-lazy-image_count=100", scenario="arrays", subject="arrays / lazy"
    )
    of_series = replace(finding, subject="loading / lazy / construct / device in use")
    traced = traced_run(RunView(run), judged(run, of_series, of_point))

    assert [point.point for point in traced.points[:3]] == [
        "arrays-lazy-image_count=100",
        "loading-lazy-image_count=2000-stack_size=2048",
        "arrays-lazy-image_count=1000",
    ]


def test_the_page_tells_what_was_alive_in_words_table_and_picture(
    write_traced, judged, held, read_text
):
    """Five kinds one by one, the rest in one row; the first pictures inline, all as files."""
    run = write_traced(batch_trace, whole=True)
    path = write_outputs(run, judged(run, held), page=True)
    page = read_text(path.read_text(encoding="utf-8"))

    assert "Traces in words" in page.text("h2")
    assert (
        page.text("summary").count("The device held most in epoch 0, 12.0 MiB as requested.") == 6
    )
    assert [
        "epoch 0, 12.0 MiB",
        "Empty",
        "[8]",
        "float32",
        "2",
        "4.0 MiB",
        "8.0 MiB",
        "1.00 x batch",
    ] in page.rows
    assert ["epoch 0, 12.0 MiB", "3 other kinds", "", "", "3", "", "3.0 MiB", ""] in page.rows
    assert ["open, 0 B", "nothing", "", "", "0", "", "0 B", ""] in page.rows
    drawn = [
        value
        for value in page.values("id")
        if value.startswith("trace-") and value.removesuffix("-narrow").count("-") == 1
    ]
    assert drawn == [
        f"trace-{number}{kind}"
        for number in range(1, INLINED_TRACES + 1)
        for kind in ("", "-narrow")
    ]
    assert sorted(file.name for file in (run.path / "plots").glob("trace-*")) == [
        f"trace-{number}.{kind}" for number in range(1, 7) for kind in ("png", "svg")
    ]
    assert len(set(page.values("id"))) == len(page.values("id"))
    assert "plots/trace-6.svg" in page.text("code")


def test_missing_traces_are_named_in_page_and_summary(write_traced, judged, held, read_text):
    """With the reason, once for all points that share it."""
    run = write_traced(
        lambda point: batch_trace(point) if point.parameters["loader"] == "lazy" else None
    )
    judgement = judged(run, held)
    page = read_text(write_outputs(run, judgement, page=True).read_text(encoding="utf-8"))
    summary = summary_text(RunView(run), judgement, has_page=True)
    eager = [point.name for point in run.points if point.parameters["loader"] == "eager"]
    note = f"No trace of {', '.join(eager)}, because killed by SIGSEGV in phase construct"

    assert note in page.text("li")
    assert note.replace("_", "\\_") in summary
    assert "arrays-lazy-image\\_count=500: The device held most in epoch 0" in summary


def test_a_run_without_traces_has_no_such_section(write_traced, judged, held, read_text):
    """--no-trace, and runs of before there were any."""
    run = write_traced(lambda point: None, planned=False)
    page = read_text(write_outputs(run, judged(run, held), page=True).read_text(encoding="utf-8"))

    assert "Traces in words" not in page.text()
    assert "No trace" not in page.text()


def test_pictures_of_traces_that_are_gone_do_not_outlive_them(write_traced, judged, held):
    """A damaged trace has no picture, and is named."""
    run = write_traced(batch_trace)
    write_outputs(run, judged(run, held), page=True)
    for file in (run.path / "traces").iterdir():
        file.write_bytes(b"")
    write_outputs(run, judged(run, held), page=True)

    assert list((run.path / "plots").glob("trace-*")) == []
    assert "is damaged" in (run.path / "report.html").read_text(encoding="utf-8")


def test_where_memory_ran_out_the_moment_has_a_table_of_its_own(
    write_traced, judged, held, read_text
):
    """What was asked for, and what was alive."""
    refused = {
        "phase": "epoch_0",
        "shape": "[999]",
        "dtype": "float32",
        "asked_bytes": 8 * MIB,
        "like": "2.00 x batch",
        "requested_bytes": 12 * MIB,
        "allocator_bytes": 12 * MIB,
        "alive": [alive("Cast", 12 * MIB)],
    }
    run = write_traced(
        lambda point: document(point.name, 12 * MIB, [alive("Empty", 12 * MIB)], refused=refused)
    )
    page = read_text(write_outputs(run, judged(run, held), page=True).read_text(encoding="utf-8"))

    assert (
        "Memory ran out in epoch 0: 8.0 MiB (2.00 x batch) for float32 [999] was asked for "
        "with 12.0 MiB in use; the largest that were alive: Cast (8) float32, 12.0 MiB."
    ) in page.text("p")
    assert ["Cast", "[8]", "float32", "1", "12.0 MiB", "12.0 MiB", ""] in page.rows
    assert "What was alive when memory ran out" in page.text("caption")


def test_hostile_operations_are_shown_and_not_obeyed(write_traced, judged, held, read_text):
    """Names of operations are a body's to choose."""
    run = write_traced(
        lambda point: document(point.name, 4 * MIB, [alive(HOSTILE, 4 * MIB, like=HOSTILE)])
    )
    judgement = judged(run, held)
    path = write_outputs(run, judgement, page=True)
    page = read_text(path.read_text(encoding="utf-8"))

    assert "<script>alert" not in path.read_text(encoding="utf-8")
    assert "<script" not in summary_text(RunView(run), judgement, has_page=True)
    assert [row for row in page.rows if HOSTILE in row]


def trace(**changes):
    found = document("p", 12 * MIB, [alive("Empty", 12 * MIB)], **changes)
    return from_json(Trace, json.loads(json.dumps(found)))


def texts(figure):
    drawing = finish(figure, "trace-1", "a timeline")
    return [
        text
        for element in ET.fromstring(drawing.svg).iter()  # noqa: S314 - our own
        if (text := (element.text or "").strip())
    ]


def test_a_timeline_names_its_phases_with_their_times_events_and_peaks():
    """Everything can be read off it."""
    shown = texts(timeline_figure(trace()))

    for expected in (
        "p",
        "open",
        "epoch 0",
        "10 ms",
        "4 events",
        "0 events",
        "12.0 MiB",
        "0 B",
        "device memory (MiB)",
    ):
        assert expected in shown
    assert not [text for text in shown if text.startswith("limit")]


@pytest.mark.parametrize(("limit_mib", "drawn"), [(48, True), (49, False)])
def test_the_devices_limit_is_drawn_where_the_peak_comes_near_it(limit_mib, drawn):
    """From a quarter of it on: at the limit and one past it."""
    near = replace(trace(), limit_bytes=limit_mib * MIB)

    assert drawn == (f"limit: {limit_mib}.0 MiB" in texts(timeline_figure(near)))


def test_a_long_timeline_is_thinned_and_keeps_its_peak():
    """A hundred thousand events take no more room than some hundreds."""
    long = timeline_figure(trace(steps=100_000))
    short = timeline_figure(trace(steps=400))

    assert len(finish(long, "trace-1", "").svg) < 1.5 * len(finish(short, "trace-1", "").svg)
    assert "12.0 MiB" in texts(long)


def test_a_trace_without_phases_has_no_timeline():
    """The body died before its first."""
    empty = replace(trace(), phases=())

    assert timeline_figure(empty) is None
    assert highest(empty) is None
