"""Baselines: text that can be reviewed, a key that decides, and no baseline out of an incomplete
run.
"""

import tomllib

import pytest

from harness.commands.accept import diff
from harness.errors import BaselineError
from harness.judge.baseline import _spread, from_run
from harness.judge.baseline_file import file_name, find, read, to_text, write
from harness.judge.table import load_run
from harness.records import Outcome

MIB = 1024 * 1024


def made(run):
    return from_run(load_run(run.write()), reason="the first truth", accepted="2026-01-02")


def test_what_is_written_is_read_back(synthetic_run, tmp_path):
    """Every amount, the key, the provenance; and twice the same text."""
    baseline = made(synthetic_run)
    path = write(baseline, tmp_path / "baselines")

    assert read(path) == baseline
    assert find(tmp_path / "baselines", baseline.key) == baseline
    assert path.read_text() == write(baseline, tmp_path / "again").read_text()


def test_the_text_has_one_block_for_a_point_and_one_line_for_phase_and_meter(
    synthetic_run, tmp_path
):
    """As a reviewer sees it."""
    text = write(made(synthetic_run), tmp_path).read_text()
    block = (
        text.split('[point."loading-eager-image_count=100-stack_size=2048"]\n')[1]
        .split("\n\n")[0]
        .splitlines()
    )

    assert (
        block[0]
        == 'fixed = { frame_size = 64, gridsize = 2, batch_size = 64, scan = "simulated, seed 0" }'
    )
    assert block[1] == (
        'accepted = { date = "2026-01-02", run = "20260101T000000Z-1", commit = '
        '"0123abcd", changed = "false", device = "emulated", isolation = "spawn", repeats '
        '= 2, reason = "the first truth" }'
    )
    assert block[4] == (
        "phase.construct.device_in_use = { growth_bytes = 32_768_000, growth_spread_bytes "
        "= 0, retained_bytes = 32_768_000, retained_spread_bytes = 0, net_start_bytes = 0, "
        "net_start_spread_bytes = 0 }"
    )
    assert len(block) == 2 + 6 * 2


def test_the_least_of_the_repeats_and_their_spread_are_kept(synthetic_run):
    """A second repeat that took 5 MiB more."""
    synthetic_run.plant(
        phase="epoch_0", meter="device_in_use", extra=lambda point, repeat: 5 * MIB * repeat
    )
    recorded = (
        made(synthetic_run)
        .point["loading-lazy-image_count=100-stack_size=2048"]
        .phase["epoch_0"]["device_in_use"]
    )

    assert (recorded.growth_bytes, recorded.growth_spread_bytes) == (8 * MIB, 5 * MIB)


def test_a_point_that_runs_out_of_memory_keeps_the_phases_before(synthetic_run):
    """The oom point was measured in open, and died in construct."""
    assert list(made(synthetic_run).point["oom-eager-image_count=2000-stack_size=2048"].phase) == [
        "open"
    ]


def test_texts_of_any_kind_survive():
    """Quotes, line breaks, control characters and letters of any script in a reason."""
    reason = 'he said "so\\it is"\n\ttab, bell \x07, delete \x7f, µ, 🔬'
    document = {
        "schema_version": 1,
        "key": {"device": reason},
        "point": {reason: {"accepted": {"reason": reason}, "phase": {}}},
    }
    found = tomllib.loads(to_text(document))

    assert (
        found["key"]["device"]
        == next(iter(found["point"]))
        == found["point"][reason]["accepted"]["reason"]
        == reason
    )


def refuse_broken_off(run):
    run.manifest["ended"] = None


def refuse_crash(run):
    run.ends[run.points[0].name, 0] = (Outcome.CRASHED, "SIGKILL", "construct")


def refuse_unexpected_oom(run):
    run.ends[run.points[0].name, 1] = (Outcome.DEVICE_OOM, "no room", "construct")


def refuse_blind_meters(run):
    run.without_meter("device_in_use", "no device").without_meter("host_anon", "no /proc")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (refuse_broken_off, "no end"),
        (refuse_crash, "ended crashed, not ok: SIGKILL"),
        (refuse_unexpected_oom, "ended device_oom, not ok"),
        (refuse_blind_meters, "has no reading of device_in_use or host_anon"),
    ],
)
def test_an_incomplete_run_may_not_become_a_baseline(synthetic_run, spoil, words):
    """It would make what is missing normal."""
    spoil(synthetic_run)
    with pytest.raises(BaselineError, match=words):
        made(synthetic_run)


def test_missing_rows_and_an_empty_reason_are_refused(synthetic_run):
    """Deleted rows of a run, and a reason of blanks."""
    rows = [row for row in synthetic_run.rows() if row["point"] != synthetic_run.points[0].name]
    run = load_run(synthetic_run.write(rows))
    with pytest.raises(BaselineError, match="no end of it was recorded"):
        from_run(run, reason="x", accepted="2026-01-02")
    with pytest.raises(BaselineError, match="needs a reason"):
        from_run(run, reason="  ", accepted="2026-01-02")


def test_the_key_decides_which_file(synthetic_run, tmp_path):
    """Another minor version of TensorFlow has no baseline here; the file's name holds no blank or
    slash.
    """
    baseline = made(synthetic_run)
    write(baseline, tmp_path)
    other = {**baseline.key, "tensorflow": "2.22"}

    assert find(tmp_path, other) is None
    assert file_name(other) != file_name(baseline.key)
    assert not set(file_name({"scan": "../../etc: a b"})) & set("/: ")
    assert not file_name({"scan": "../x"}).startswith(".")


def test_a_renamed_or_damaged_file_is_refused(synthetic_run, tmp_path):
    """A baseline for another key under this key's name, half a file, an unknown version, a float
    for bytes.
    """
    baseline = made(synthetic_run)
    path = write(baseline, tmp_path)
    text = path.read_text()
    for change, words in [
        (text.replace('"2.21"', '"2.20"'), "not for what its name says"),
        (text[: len(text) // 2], "cannot be read"),
        (text.replace("schema_version = 2", "schema_version = 9"), "schema_version 9"),
        (text.replace("growth_bytes = 0,", "growth_bytes = 0.5,", 1), "is damaged"),
    ]:
        path.write_text(change)
        with pytest.raises(BaselineError, match=words):
            find(tmp_path, baseline.key)


def test_a_changed_setting_is_part_of_the_difference(synthetic_run):
    """Batch size 64 -> 32."""
    old = made(synthetic_run)
    name = next(iter(old.point))
    point = old.point[name].model_copy(
        update={"fixed": {**old.point[name].fixed, "batch_size": 32}}
    )
    new = old.model_copy(update={"point": {**old.point, name: point}})

    assert list(diff(old, new)) == [f"{name} / batch_size: 64 -> 32"]


@pytest.mark.parametrize(
    ("amounts", "spread"), [([5], 0), ([5, 9], 4), ([5, 9, 6], 1), ([5, 900, 6, 7, 5], 1)]
)
def test_one_repeat_of_several_that_has_more_by_chance_is_no_spread(amounts, spread):
    """The least is what is accepted: what counts is how near a majority stays to it."""
    assert spread == _spread(amounts)
