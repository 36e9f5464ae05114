"""The data of the page: every reading, check, run and fit is in it, and unknown stays unknown."""

import base64
import gzip
import json
from dataclasses import replace

import pytest

from harness.judge import Check, FindingKind
from reports.data import anchors, pack, packed_tables
from reports.view import RunView


def unpacked(packed):
    return json.loads(gzip.decompress(base64.b64decode(packed.text)))


def rows_of(table):
    """A table as the page shows it: one mapping a row."""
    columns = {
        column["name"]: [column["words"][cell] for cell in column["cells"]]
        if column["kind"] == "text"
        else column["cells"]
        for column in table["columns"]
    }
    return [{name: cells[row] for name, cells in columns.items()} for row in range(table["count"])]


@pytest.fixture(scope="module")
def tables(whole_run):
    from tests.reports.conftest import FINDING, HELD, judgement_of

    packed = packed_tables(RunView(whole_run), judgement_of(whole_run, FINDING, HELD))
    return {one.id: rows_of(unpacked(one)) for one in packed}


def test_every_reading_of_every_repeat_is_there_to_the_byte(tables, whole_run):
    """Not the least of the repeats alone, and amounts as phases.csv has them."""
    phases = whole_run.phases

    assert len(tables["data-readings"]) == len(phases)
    assert [row["peak"] for row in tables["data-readings"]] == [
        None if value != value or value is None else int(value)
        for value in phases["peak_bytes"].astype(object).where(phases["peak_bytes"].notna(), None)
    ]


def test_what_was_not_read_is_unknown_with_its_reason_and_never_0(tables):
    """The driver's meters read nothing in this run."""
    silent = [row for row in tables["data-readings"] if row["quality"] == "unavailable"]

    assert {row["peak"] for row in silent} == {None}
    assert {row["reason"] for row in silent if row["meter"].endswith("(driver)")} == {
        "no NVIDIA driver library (libnvidia-ml.so.1) on this machine"
    }


def test_checks_runs_and_fits_are_complete(tables, whole_run):
    """Those that hold too; runs as they ended; every slope with its unit."""
    first = tables["data-checks"][0]

    assert [row["finding"] for row in tables["data-checks"]] == ["regression", "holds"]
    assert (first["measured"], first["limit"], first["unit"]) == (65_536, 1024, "B/image")
    assert len(tables["data-runs"]) == 36
    assert [row["outcome"] for row in tables["data-runs"]].count("device_oom") == 2
    assert {row["unit"] for row in tables["data-fits"]} == {"B/image", "B/frame"}
    assert 327_680 in {round(row["slope"]) for row in tables["data-fits"]}


def test_a_slope_without_a_bound_is_no_number_in_json(sweep, tmp_path, judged):
    """One repeat of two sizes bounds nothing; infinity is not JSON."""
    kept = [
        point
        for point in sweep.points
        if point.scenario == "arrays" and point.parameters["image_count"] != 1000
    ]
    run = replace(sweep, points=tuple(kept), repeats=1).write(tmp_path / "run")
    fits = rows_of(unpacked(packed_tables(RunView(run), judged(run))[3]))

    assert {row["high"] for row in fits} == {None}


def test_the_same_content_is_packed_into_the_same_text():
    """Whenever it is: a page that is made again is the same page. No letter of it ends a script."""
    content = {"name": "</script><!--", "amount": 1}

    assert pack("data", content) == pack("data", content)
    assert unpacked(pack("data", content)) == content
    assert not {"<", '"'} & set(pack("data", content).text)


def test_an_anchor_follows_from_rule_and_subject_alone():
    """A sentence that changes from run to run moves no link; the second of a pair has a number."""
    check = Check(rule="budget", subject="loading / lazy", sentence="holds")
    broken = replace(check, sentence="does not", finding=FindingKind.REGRESSION)
    other = replace(check, subject="loading / eager")

    first, second, third = anchors([check, broken, other])
    assert anchors([broken]) == [first]
    assert second == f"{first}-2"
    assert third not in {first, second}
