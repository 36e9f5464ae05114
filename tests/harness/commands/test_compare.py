"""Two runs beside each other: what they were measured with, what moved, and the exit code."""

import dataclasses
import json

import pytest

from harness.__main__ import main

KIB, MIB = 1024, 1024 * 1024
TOLERANCE_BYTES = 64 * KIB
"""Of the device's memory, by default."""
KEPT_BYTES = MIB
"""What construct of one point keeps in the earlier run."""
PLACE = ("loading-lazy-image_count=500-stack_size=2048", "construct", "device_in_use")


@pytest.fixture
def two_runs(synthetic_run, tmp_path):
    """An earlier run and a later one, in which construct of one point keeps so much more."""

    def kept(kept_bytes):
        def amounts(point, repeat, phase):
            read = dict(synthetic_run.amounts(point, repeat, phase))
            if (point.name, phase) == PLACE[:2]:
                edges = read["device_in_use"]
                read["device_in_use"] = dataclasses.replace(
                    edges, peak=edges.peak + kept_bytes, end=edges.end + kept_bytes
                )
            return read

        return amounts

    def write(more_bytes=0, **later):
        earlier = dataclasses.replace(
            synthetic_run, path=tmp_path / "before", amounts=kept(KEPT_BYTES)
        )
        # a run that took as long in every phase would be the same run
        started = {"started": "2026-01-01T00:01:00+00:00", "run_id": "later"}
        changes = {"amounts": kept(KEPT_BYTES + more_bytes), **later}
        manifest = {**started, **changes.pop("manifest", {})}
        now = dataclasses.replace(
            earlier, path=tmp_path / "after", manifest={**earlier.manifest, **manifest}, **changes
        )
        earlier.write()
        rows = [{**row, "duration_s": 0.25} if "duration_s" in row else row for row in now.rows()]
        now.write(rows)
        return [str(earlier.path), str(now.path)]

    return write


@pytest.mark.parametrize(
    ("more_bytes", "code"),
    [(0, 0), (TOLERANCE_BYTES, 0), (TOLERANCE_BYTES + 1, 1), (-TOLERANCE_BYTES - 1, 0)],
)
def test_the_exit_code_is_1_from_one_byte_past_the_tolerance_on(two_runs, capsys, more_bytes, code):
    """Without any policy; less is no fault."""
    assert main(["compare", *two_runs(more_bytes), "--json"]) == code

    found = json.loads(capsys.readouterr().out)
    places = [
        (one["point"], one["phase"], one["meter"]) for one in found["amounts"] if one["finding"]
    ]
    assert found["exit_code"] == code
    assert set(places) == ({PLACE} if code else set())
    assert {one["now"] - one["then"] for one in found["amounts"]} == {0, more_bytes}


def test_what_got_worse_is_listed_with_then_and_now(two_runs, capsys):
    """After what the runs were measured with."""
    environment = {"python": "3.12.1", "git_commit": "0123abcd", "git_dirty": False}
    runs = two_runs(MIB, manifest={"environment": environment})

    assert main(["compare", *runs]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "1 difference in what they were measured with:",
        "  python was 3.11.9 and is 3.12.1",
    ]
    row = next(line for line in lines if line.startswith("  loading / lazy / image_count=500"))
    assert row.split()[-8:] == ["1.0", "MiB", "2.0", "MiB", "+1,048,576", "B", "64.0", "KiB"]
    assert "better" not in lines[-1]


def test_what_got_better_is_listed_on_request(two_runs, capsys):
    """And counted in any case."""
    runs = two_runs(-MIB // 2)

    assert main(["compare", *runs]) == 0
    assert " better amounts: --all lists them" in capsys.readouterr().out
    assert main(["compare", *runs, "--all"]) == 0
    assert "Better: amounts that moved" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_runs_of_two_devices_are_not_compared(two_runs, capsys, options):
    """Whatever their amounts are, with the reason."""
    key = {
        "device": "emulated, 2.0 GiB",
        "device_memory_bytes": 4096 * MIB,
        "allocator": "bfc",
        "tensorflow": "2.21",
        "scan": "simulated, seed 0",
    }
    then, now = two_runs(MIB, manifest={"comparability": key})
    sentence = (
        f"{then} and {now} cannot be compared: device was emulated and is emulated, 2.0 GiB. "
        "Measure both alike, and compare again."
    )

    assert main(["compare", then, now, *options]) == 3
    said = capsys.readouterr().out
    if options:
        found = json.loads(said)
        assert (found["comparable"], found["sentence"], found["amounts"]) == (False, sentence, [])
    else:
        assert said.splitlines()[-1] == sentence


def test_points_that_only_the_earlier_run_has_are_no_pass(two_runs, synthetic_run, capsys):
    """Unless less was measured on purpose; runs without a common point are not compared."""
    points = synthetic_run.points[:3]
    then, now = two_runs(points=points)

    assert main(["compare", then, now]) == 3
    assert f"points of {then} are not in {now}, first " in capsys.readouterr().out
    assert main(["compare", then, now, "--partial"]) == 0


def test_a_run_is_not_compared_with_itself(two_runs, capsys):
    """Nothing could differ."""
    _, now = two_runs()

    assert main(["compare", now, now]) == 3
    assert "so that the run was compared with itself" in capsys.readouterr().out


def test_the_page_goes_into_a_folder_of_its_own(two_runs, tmp_path, capsys):
    """Neither run directory is changed."""
    runs = two_runs(MIB)
    before = sorted(path.name for path in (tmp_path / "after").iterdir())

    assert main(["compare", *runs, "--out", str(tmp_path / "compared")]) == 1
    page = tmp_path / "compared" / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page}"
    written = {path.name for path in (tmp_path / "compared").iterdir()}
    assert {"report.html", "findings.json", "junit.xml", "summary.md"} <= written
    assert sorted(path.name for path in (tmp_path / "after").iterdir()) == before


def test_a_folder_that_is_no_run_is_one_sentence(two_runs, capsys):
    """With exit code 2."""
    _, now = two_runs()

    assert main(["compare", "nowhere", now]) == 2
    assert capsys.readouterr().err.startswith("harness: nowhere is not a run directory")
