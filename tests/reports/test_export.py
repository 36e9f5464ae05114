"""Exports, each read by a client that is not ours."""

import base64
import csv as csv_files
import gzip
import importlib.util
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from harness.__main__ import main
from harness.commands import export
from harness.judge.completeness import read_traces
from harness.judge.table import load_run
from reports.export import DOCUMENTS, PROFILES
from reports.export.profiles import collapsed, perfetto, pprof, xplane

STORED = Path(__file__).parents[1] / "harness" / "rundir" / "stored" / "run"
POINT = "loading-lazy-image_count=100-stack_size=2048"

BMF = {
    "$schema": "http://json-schema.org/draft-07/schema",
    "type": "object",
    "patternProperties": {
        ".+": {
            "type": "object",
            "patternProperties": {
                ".+": {
                    "type": "object",
                    "properties": {
                        "value": {"type": "number"},
                        "lower_value": {"type": "number"},
                        "upper_value": {"type": "number"},
                    },
                    "required": ["value"],
                }
            },
        }
    },
}
"""https://bencher.dev/bmf.json"""
BADGE = {
    "type": "object",
    "properties": {
        "schemaVersion": {"const": 1},
        "label": {"type": "string"},
        "message": {"type": "string", "minLength": 1},
        "color": {"enum": ["brightgreen", "blue", "yellow", "red"]},
    },
    "required": ["schemaVersion", "label", "message"],
    "additionalProperties": False,
}
"""The table of shields.io/badges/endpoint-badge, with the colours that are ours."""


@pytest.fixture(scope="module")
def run():
    return load_run(STORED)


@pytest.fixture(scope="module")
def trace(run):
    return read_traces(run).found[POINT]


def test_the_command_has_every_format_that_is_written():
    """Under the same names."""
    assert list(export.PROFILES) == list(PROFILES)
    assert list(export.DOCUMENTS) == list(DOCUMENTS)


# pprof, by the schema of github.com/google/pprof/blob/main/proto/profile.proto.

_INT64, _UINT64, _STRING, _MESSAGE = 3, 4, 9, 11
_ONE, _MANY = 1, 3
SCHEMA = {
    "ValueType": [("type", 1, _INT64, _ONE), ("unit", 2, _INT64, _ONE)],
    "Sample": [("location_id", 1, _UINT64, _MANY), ("value", 2, _INT64, _MANY)],
    "Line": [("function_id", 1, _UINT64, _ONE), ("line", 2, _INT64, _ONE)],
    "Location": [("id", 1, _UINT64, _ONE), ("line", 4, "Line", _MANY)],
    "Function": [
        ("id", 1, _UINT64, _ONE),
        ("name", 2, _INT64, _ONE),
        ("system_name", 3, _INT64, _ONE),
    ],
    "Profile": [
        ("sample_type", 1, "ValueType", _MANY),
        ("sample", 2, "Sample", _MANY),
        ("location", 4, "Location", _MANY),
        ("function", 5, "Function", _MANY),
        ("string_table", 6, _STRING, _MANY),
        ("period_type", 11, "ValueType", _ONE),
        ("period", 12, _INT64, _ONE),
        ("comment", 13, _INT64, _MANY),
        ("default_sample_type", 14, _INT64, _ONE),
    ],
}


@pytest.fixture(scope="module")
def read_pprof():
    file = descriptor_pb2.FileDescriptorProto(
        name="profile.proto", package="perftools.profiles", syntax="proto3"
    )
    for message, fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, number, kind, label in fields:
            field = described.field.add(name=name, number=number, label=label)
            field.type = kind if isinstance(kind, int) else _MESSAGE
            if not isinstance(kind, int):
                field.type_name = f".perftools.profiles.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    described = pool.FindMessageTypeByName("perftools.profiles.Profile")
    if hasattr(message_factory, "GetMessageClass"):
        profile = message_factory.GetMessageClass(described)
    else:  # before protobuf 4.22
        profile = message_factory.MessageFactory(pool).GetPrototype(described)

    def read(content):
        found = profile.FromString(gzip.decompress(content))
        whole_bytes = found.ByteSize()
        found.DiscardUnknownFields()
        assert found.ByteSize() == whole_bytes
        return found

    return read


def test_pprof_has_what_was_alive_at_the_peak_of_each_phase(trace, read_pprof):
    """To the byte, one profile for each phase in which anything was; the innermost frame first."""
    files = pprof(trace)
    alive = [phase for phase in trace.phases if phase.alive]
    assert list(files) == [f".{phase.phase}.pb.gz" for phase in alive]
    assert len(alive) == 3

    for phase, content in zip(alive, files.values(), strict=True):
        found = read_pprof(content)
        text = found.string_table
        names = {function.id: text[function.name] for function in found.function}
        frames = {one.id: names[one.line[0].function_id] for one in found.location}
        assert text[0] == ""
        assert [(text[one.type], text[one.unit]) for one in found.sample_type] == [
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ]
        assert sum(sample.value[1] for sample in found.sample) == phase.requested.peak_bytes
        assert sum(sample.value[0] for sample in found.sample) == sum(
            one.count for one in phase.alive
        )
        assert {frames[sample.location_id[-1]] for sample in found.sample} == {phase.phase}
        assert POINT in text[found.comment[0]]


def test_folded_stacks_add_up_to_the_peak_of_their_phase(trace):
    """A line is a stack and a number, whatever operations are called."""
    files = collapsed(trace)
    for phase in trace.phases:
        lines = files.get(f".{phase.phase}.collapsed.txt", b"").decode().splitlines()
        stacks = [line.rpartition(" ") for line in lines]
        assert sum(int(amount) for _, _, amount in stacks) == phase.requested.peak_bytes
        assert all(stack.split(";")[0] == phase.phase for stack, _, _ in stacks)


def test_the_trace_events_have_phases_as_spans_and_amounts_as_counters(trace):
    """In microseconds; the highest value of the counter is the highest peak."""
    events = json.loads(perfetto(trace)[".perfetto.json"])["traceEvents"]
    spans = {event["name"]: event for event in events if event["ph"] == "X"}
    counters = [event for event in events if event["ph"] == "C"]
    requested = [one["args"]["bytes"] for one in counters if one["name"] == "requested bytes"]

    assert {event["ph"] for event in events} == {"M", "X", "i", "C"}
    assert list(spans) == [phase.phase for phase in trace.phases]
    assert max(requested) == max(phase.requested.peak_bytes for phase in trace.phases)
    assert len(requested) == len(trace.timeline.time_ns)
    for phase in trace.phases:
        span = spans[phase.phase]
        assert span["ts"] * 1000 == pytest.approx(phase.start_ns, abs=1)
        assert (span["ts"] + span["dur"]) * 1000 == pytest.approx(phase.end_ns, abs=1)


@pytest.fixture(scope="module")
def xplane_pb2():
    """TensorFlow's own schema, without importing TensorFlow."""
    root = Path(importlib.util.find_spec("tensorflow").submodule_search_locations[0])
    path = root / "tsl" / "profiler" / "protobuf" / "xplane_pb2.py"
    if not path.exists():
        pytest.skip(f"this TensorFlow has no {path.name}")
    spec = importlib.util.spec_from_file_location("xplane_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_xspace_is_read_by_the_schema_of_tensorflow(trace, xplane_pb2):
    """Phases and the allocator's events, with the amounts after each."""
    content = xplane(trace)[".xplane.pb"]
    space = xplane_pb2.XSpace.FromString(content)
    assert space.ByteSize() == len(content)
    (plane,) = space.planes
    phases, memory = plane.lines
    events, stats = plane.event_metadata, plane.stat_metadata
    amounts = [
        {stats[stat.metadata_id].name: stat.int64_value or stat.str_value for stat in event.stats}
        for event in memory.events
    ]
    _, requested, in_use = trace.timeline.columns()

    assert plane.name == "/host:CPU"
    assert [events[event.metadata_id].name for event in phases.events] == [
        phase.phase for phase in trace.phases
    ]
    assert [event.offset_ps // 1000 for event in phases.events] == [
        phase.start_ns for phase in trace.phases
    ]
    assert {events[event.metadata_id].name for event in memory.events} == {
        "MemoryAllocation",
        "MemoryDeallocation",
    }
    assert [int(one["bytes_allocated"] or 0) for one in amounts] == in_use
    assert {one["allocator_name"] for one in amounts} == {trace.allocator}
    grown = sum(
        int(one["requested_bytes"] or 0)
        * (1 if events[event.metadata_id].name == "MemoryAllocation" else -1)
        for event, one in zip(memory.events, amounts, strict=True)
    )
    assert grown == requested[-1]


# speedscope, in the browser: its page with a profile, as its own command opens them.

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--allow-file-access-from-files", "--virtual-time-budget=15000", "--dump-dom",
)  # fmt: skip


@pytest.fixture
def title_in_speedscope(tmp_path):
    """The title of speedscope's page with a file open: the name of the profile, once it is read."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    page = Path(os.environ.get("SPEEDSCOPE", "speedscope")) / "index.html"
    if browser is None or not page.exists():
        pytest.skip(
            "needs chromium, and SPEEDSCOPE=FOLDER with dist/release of the npm package speedscope"
        )

    def title(name, content):
        script = tmp_path / "profile.js"
        encoded = base64.b64encode(content).decode()
        script.write_text(f'speedscope.loadFileFromBase64("{name}", "{encoded}")')
        address = f"{page.resolve().as_uri()}#localProfilePath={script}"
        found = subprocess.run(
            [browser, *_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", address],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        return found.partition("<title>")[2].partition("</title>")[0]

    return title


@pytest.mark.parametrize("write", [perfetto, pprof, collapsed])
def test_speedscope_opens_it(write, trace, title_in_speedscope):
    """Offline, in the browser."""
    suffix, content = max(write(trace).items(), key=lambda file: len(file[1]))
    name = f"run{suffix}"

    assert title_in_speedscope(name, content) == f"{name} - speedscope"


# Trackers.


@pytest.fixture
def exported(capsys):
    """What the command prints of the stored run."""

    def text(*arguments):
        assert main(["export", str(STORED), *arguments]) == 0
        return capsys.readouterr().out

    return text


def test_bencher_gets_what_its_schema_describes(exported, run):
    """With the least and the most of the repeats, names within Bencher's limits."""
    found = json.loads(exported("--format", "bmf"))
    jsonschema.validate(found, BMF)
    measures = [measure for benchmark in found.values() for measure in benchmark.items()]

    assert len(found) == len({(row.point.name, row.phase) for row in run.rows if row.finished})
    assert max(map(len, found)) <= 1024
    assert max(len(name) for name, _ in measures) <= 64
    assert all(one["lower_value"] <= one["value"] <= one["upper_value"] for _, one in measures)
    assert found[f"{POINT} / epoch_0"]["device-in-use-peak"] == {
        "value": 6_295_040,
        "lower_value": 6_295_040,
        "upper_value": 6_295_040,
    }


def test_github_action_benchmark_gets_peaks_that_it_can_divide(exported):
    """Name, unit and value of each, every name once, none of them 0."""
    found = json.loads(exported("--format", "github-action-benchmark"))

    assert {key for one in found for key in one} == {"name", "unit", "value", "range", "extra"}
    assert len({one["name"] for one in found}) == len(found)
    assert all(isinstance(one["value"], int) and one["value"] > 0 for one in found)
    assert {one["unit"] for one in found} == {"B"}


def test_prometheus_reads_the_metrics(exported):
    """Gauges in bytes, whole numbers, and the verdict."""
    text = exported("--format", "openmetrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    peaks = {
        (one.labels["phase"], one.labels["meter"]): one.value
        for one in families["memory_phase_peak_bytes"].samples
        if one.labels["point"] == POINT
    }

    assert {family.type for family in families.values()} == {"gauge"}
    assert families["memory_phase_peak_bytes"].unit == "bytes"
    assert peaks["epoch_0", "device_in_use"] == 6_295_040
    assert families["memory_gate_exit_code"].samples[0].value == 3
    assert sum(one.value for one in families["memory_gate_findings"].samples) > 0
    assert "." not in text.partition("memory_phase_peak_bytes{")[2].splitlines()[0].split()[-1]


def test_a_label_may_hold_what_ends_a_label():
    """Quotes, backslashes and line breaks come back as they were."""
    from reports.export import trackers

    hostile = 'a "b" \\ c\nd'
    labels = trackers._labels({"point": hostile})
    text = f"# TYPE x gauge\nx{labels} 1\n# EOF\n"
    (family,) = text_string_to_metric_families(text)

    assert family.samples[0].labels == {"point": hostile}


def test_the_badge_is_what_shields_takes(exported):
    """Red for a run that is no pass."""
    found = json.loads(exported("--format", "badge"))
    jsonschema.validate(found, BADGE)

    assert found["message"].startswith("incomplete: ")
    assert found["color"] == "red"


def test_the_table_is_that_of_the_phases(exported, run):
    """One row for each reading, and of one point alone."""
    rows = list(csv_files.DictReader(io.StringIO(exported("--format", "csv"))))
    of_point = list(csv_files.DictReader(io.StringIO(exported(POINT, "--format", "csv"))))

    assert len(rows) == len(run.phases)
    assert of_point == [row for row in rows if row["point"] == POINT]
    assert 0 < len(of_point) < len(rows)


# The command.


def test_profiles_go_into_a_folder_and_texts_into_a_file(tmp_path, capsys):
    """Each path is printed."""
    assert main(["export", str(STORED), POINT, "--format", "pprof", "--out", str(tmp_path)]) == 0
    assert main(["export", str(STORED), "--format", "badge", "--out", str(tmp_path / "b")]) == 0
    printed = [Path(line).name for line in capsys.readouterr().out.splitlines()]

    assert sorted(printed) == sorted(path.name for path in tmp_path.iterdir())
    assert printed == [
        f"{POINT}.first_batch.pb.gz",
        f"{POINT}.epoch_0.pb.gz",
        f"{POINT}.epoch_1.pb.gz",
        "b",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "--format", "bmf"], "nowhere is not a run directory"),
        ([str(STORED), "load", "--format", "bmf"], f"{STORED} has no point load; "),
        ([str(STORED), "--format", "csv", "--out", "no/such/file"], "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(arguments, sentence, capsys):
    """With exit code 2."""
    assert main(["export", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_a_run_without_traces_says_what_to_do(whole_path, capsys):
    """Nothing is written for it."""
    path = whole_path.parent

    assert main(["export", str(path), "--format", "pprof"]) == 2
    assert capsys.readouterr().err == (
        f"harness: {path} has no trace to export: measure again, without --memory-no-trace\n"
    )
    assert not (path / "export").exists()
