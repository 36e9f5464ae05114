"""The programme of pretended cards: what it expects of a sweep, and what it refuses. Its steps are
run by nox -s card.
"""

import json

import pytest

from harness.judge import ExitCode
from scenarios.card.__main__ import main
from scenarios.card.bench import StepError, Swept
from scenarios.card.planted import KINDS
from scenarios.card.steps import LANES, STEPS
from scenarios.detector.bugs.registry import CARD_PLANTS, plant_named


def swept(folder, *rows, code=0):
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return Swept(run=folder, code=code, said="what the gate said")


def end(device):
    return {"kind": "end", "device": device}


def test_another_exit_code_than_the_expected_one_is_wrong_with_what_the_gate_said(tmp_path):
    """The right one passes in silence."""
    found = swept(tmp_path, code=4)
    found.expect_code(ExitCode.NO_BASELINE)

    with pytest.raises(StepError, match="ended with 4 where 0 is right:\nwhat the gate said"):
        found.expect_code(ExitCode.PASS)


def test_both_cards_have_to_be_used_and_each_by_one_run_at_a_time(tmp_path):
    """A card that nobody was on is wrong, and so is a run that had to be measured again."""
    swept(tmp_path, end("GPU-b"), end("GPU-a"), end("GPU-b")).expect_devices(("GPU-a", "GPU-b"))

    with pytest.raises(StepError, match="were on GPU-a; expected was GPU-a, GPU-b"):
        swept(tmp_path, end("GPU-a")).expect_devices(("GPU-a", "GPU-b"))
    with pytest.raises(StepError, match=r"1 runs of .* shared their device, the first: not alone"):
        swept(tmp_path, end("GPU-a"), {"kind": "again", "reason": "not alone"}).expect_devices(
            ("GPU-a",)
        )


def test_every_step_is_in_one_lane_and_every_planted_kind_is_known():
    """What only a card can show is planted in full."""
    assert [step.__name__ for lane in LANES for step in lane] == list(STEPS)
    assert [plant_named(kind).name for kind in KINDS] == list(KINDS)
    assert {plant.name for plant in CARD_PLANTS} < set(KINDS)


def test_a_folder_that_is_not_empty_or_another_root_is_a_usage_error(
    tmp_path, monkeypatch, project_root, capsys
):
    """Before a card is built."""
    (tmp_path / "there").touch()
    monkeypatch.chdir(project_root)

    assert main(["--out", str(tmp_path)]) == ExitCode.USAGE
    assert "is not empty; name a new folder" in capsys.readouterr().err

    monkeypatch.chdir(tmp_path)

    assert main(["--out", str(tmp_path / "new")]) == ExitCode.USAGE
    assert "start this in the project's root" in capsys.readouterr().err
