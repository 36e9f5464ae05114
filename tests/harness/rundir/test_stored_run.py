"""A run directory of schema 2 that an earlier version measured: it opens, and is judged as then.

``stored/run`` was measured on the emulated device with a trace of one point, and one point measured
again (``policy.toml``, ``baselines``); ``judged.json`` and ``fits.csv.gz`` are what gate and
report made of it then.
"""

import gzip
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from harness.__main__ import main
from harness.judge.completeness import read_traces
from harness.judge.table import load_run
from harness.plugin.result import read_run
from harness.records import Outcome
from harness.rundir.manifest import read_manifest
from harness.rundir.reading import SEAL, seal_of
from harness.rundir.resume import Resumption, read_resumption, settings_of
from harness.rundir.rows import KINDS, ends_of
from harness.rundir.traces import (
    read_trace,
    trace_path,
    trace_rows_path,
    traces_of,
    write_trace,
)

STORED = Path(__file__).parent / "stored"
JUDGED = json.loads((STORED / "judged.json").read_text(encoding="utf-8"))
TRACED = "loading-lazy-image_count=100-stack_size=2048"
MEASURED = {
    TRACED: 3,  # its third was measured because of a finding
    "loading-lazy-image_count=500-stack_size=2048": 2,
    "loading-lazy-image_count=1000-stack_size=2048": 2,
    "oom-eager-image_count=2000-stack_size=2048": 2,
}


@pytest.fixture
def stored(tmp_path):
    """A copy of the run, to be judged."""
    return Path(shutil.copytree(STORED / "run", tmp_path / "run"))


def judge(run, command="gate"):
    """The exit code of a command that judges the run, and findings.json."""
    where = ["--policy", str(STORED / "policy.toml"), "--baselines", str(STORED / "baselines")]
    code = main([command, str(run), "--partial", *where])
    return code, json.loads((run / "findings.json").read_text(encoding="utf-8"))


def assert_judged_as_then(run):
    """The same exit code, verdict, findings, number of checks by rule, and tables."""
    code, found = judge(run)
    checks = Counter(f"{check['rule']}: {check['finding'] or 'holds'}" for check in found["checks"])

    assert (code, found["exit_code"], found["verdict"]) == (1, 1, JUDGED["verdict"])
    assert [_kept(finding) for finding in found["findings"]] == JUDGED["findings"]
    assert dict(sorted(checks.items())) == JUDGED["checks"]
    assert found["tables"]["phases.csv"] == JUDGED["phases_sha256"]


def _kept(finding):
    readings = [[reading["repeat"], reading["amount_bytes"]] for reading in finding["readings"]]
    return {key: finding[key] for key in JUDGED["findings"][0]} | {"readings": readings}


def test_the_verdict_is_the_one_of_then(stored):
    """Exit code, findings with their readings, checks by rule, and every reading."""
    assert_judged_as_then(stored)


def test_the_fits_are_those_of_then(stored):
    """Slopes and their intervals, to nine digits; every word."""
    judge(stored)
    then = pd.read_csv(io.BytesIO(gzip.decompress((STORED / "fits.csv.gz").read_bytes())))

    pd.testing.assert_frame_equal(
        pd.read_csv(stored / "fits.csv"), then, check_exact=False, rtol=1e-9
    )


def test_the_summary_has_the_numbers_of_then(stored):
    """Growth and retained bytes of each phase that could be read."""
    judge(stored)
    lines = (stored / "summary.md").read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if line in JUDGED["summary_rows"]] == JUDGED["summary_rows"]


def test_the_page_can_be_drawn(stored):
    """And the run is judged by it as the gate did."""
    judge(stored)

    assert main(["report", str(stored)]) == 0
    assert (stored / "report.html").exists()


def test_the_seal_is_whole_and_every_row_can_be_used(stored):
    """Nothing is missing from it."""
    run = load_run(stored)

    assert run.problems == ()
    assert {point.name: len(run.repeats_of(point.name)) for point in run.points} == MEASURED
    assert len(run.phases) == 322
    assert Counter(run.ends["outcome"]) == {Outcome.OK: 7, Outcome.DEVICE_OOM: 2}


def test_the_trace_can_be_read(stored):
    """What was alive at its peak is one batch."""
    traces = read_traces(load_run(stored))
    first_batch = traces.found[TRACED].phases[2]

    assert dict(traces.absent) == {}
    assert (first_batch.requested.peak_bytes, first_batch.alive[0].like) == (
        4196712,
        "1.00 x batch",
    )
    assert [(end.point, end.outcome) for end in traces_of(stored)] == [(TRACED, Outcome.OK)]


def test_the_plug_in_reads_what_it_would_have_given_its_test(stored):
    """Three runs of six phases."""
    point = read_manifest(stored).planned[0]
    run = read_run(stored, point)

    assert (len(run.ends), len(run), run.outcome) == (3, 6, Outcome.OK)
    assert run["first_batch"]["device_in_use"].growth_bytes == 4197888
    assert len(ends_of(stored)) == 9


def test_a_resumption_finds_everything_measured(stored):
    """Also after it has been handed to a worker; and it would measure with the same settings."""
    found = read_resumption(stored)
    handed = Resumption.from_json(found.to_json())

    for resumption in (found, handed):
        assert {name: len(resumption.repeats_of(name)) for name in MEASURED} == MEASURED
        assert not any(
            resumption.lacks(name, repeat)
            for name in MEASURED
            for repeat in (-1, *resumption.repeats_of(name))
        )
        assert resumption.run_count == 10
    assert settings_of(stored)["memory_device_budget"] == 3221225472


def test_every_row_is_written_again_as_it_was(stored):
    """Byte by byte, those of the traced run too."""
    for path in (stored / "rows.jsonl", trace_rows_path(stored, TRACED)):
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [KINDS[found["kind"]].from_json(found) for found in map(json.loads, lines)]

        assert [json.dumps(row.to_json()) for row in rows] == lines


def test_the_trace_is_written_again_as_it_was(stored, tmp_path):
    """The same document, with its keys in the same order."""
    path = trace_path(stored, TRACED)
    write_trace(tmp_path / "again.json.gz", read_trace(path, TRACED))

    assert gzip.decompress((tmp_path / "again.json.gz").read_bytes()) == gzip.decompress(
        path.read_bytes()
    )


def test_run_json_is_written_again_as_it_was(stored):
    """Every value but the seal, which is made of the others."""
    manifest = read_manifest(stored)
    written = manifest.model_dump(mode="json", exclude_unset=True)

    assert {**written, SEAL: manifest.content[SEAL]} == manifest.content


NEWER_KEYS = {
    "policy",
    "asked",
    "root",
    "remeasured",
    "passed_over",
    "pool",
    "equals",
    "left_out",
    "repeats_given",
    "judged_by_pytest",
}
"""Of run.json, at any depth; runs of earlier days lack them."""
NEWER_KEYS_OF_POINTS = {"inputs", "path", "environment"}
NEWER_KEYS_OF_ROWS = {
    "end": {"device", "device_limit_bytes", "left_out"},
    "phase": {"source", "contended", "largest_gap_s", "samples", "rate_hz"},
}


def _without(value, keys):
    if isinstance(value, dict):
        return {key: _without(each, keys) for key, each in value.items() if key not in keys}
    if isinstance(value, list):
        return [_without(each, keys) for each in value]
    return value


def test_keys_that_came_later_may_be_missing(stored):
    """The verdict is the same, and so are the amounts."""
    lines = (stored / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [
        _without(row, NEWER_KEYS_OF_ROWS.get(row["kind"], set()))
        for row in map(json.loads, lines)
        if row["kind"] != "code"
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    manifest = _without(json.loads((stored / "run.json").read_text(encoding="utf-8")), NEWER_KEYS)
    manifest.pop(SEAL)
    manifest["planned"] = _without(manifest["planned"], NEWER_KEYS_OF_POINTS)
    (stored / "rows.jsonl").write_bytes(text)
    (stored / "run.json").write_text(json.dumps({**manifest, SEAL: seal_of(manifest, text)}))

    code, found = judge(stored)
    assert (code, found["verdict"]) == (1, JUDGED["verdict"])
    assert [_kept(finding) for finding in found["findings"]] == JUDGED["findings"]
    assert load_run(stored).problems == ()
    assert len(read_run(stored, read_manifest(stored).planned[0]).ends) == 3
    assert len(ends_of(stored)) == 9
    assert read_resumption(stored).run_count == 10


def test_keys_that_this_version_does_not_know_are_passed_over(stored):
    """In rows and in run.json: a later version may have written them."""
    lines = (stored / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{**json.loads(line), "unheard_of": [1]} for line in lines]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    manifest = json.loads((stored / "run.json").read_text(encoding="utf-8"))
    manifest |= {"unheard_of": {"a": 1}}
    (stored / "rows.jsonl").write_bytes(text)
    (stored / "run.json").write_text(json.dumps({**manifest, SEAL: seal_of(manifest, text)}))

    assert_judged_as_then(stored)
