"""The detector with real children: one kind above the bar, by the command, and one that the gate cannot see."""

import json

from scenarios.detector.__main__ import main


def test_a_planted_kind_is_found_in_a_sweep_that_was_broken_off(tmp_path, monkeypatch, project_root, capsys):
    """Killed half-way and resumed: the gate tells the cache by its slope; the table and the JSON say so, and the code is 0."""
    monkeypatch.chdir(project_root)
    # Inference alone is small enough for this suite; its baseline comes from the same points.
    monkeypatch.setattr("scenarios.detector.__main__.ACCEPTED", "inference and lazy")
    code = main(["--only", "predictions_kept", "--clean", "0", "--modes", "resumed", "--workers", "1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "detector.json").read_text())

    assert code == 0, capsys.readouterr()
    assert found["detection"]["above the bar"]["count"] == found["detection"]["above the bar"]["total"] == 1
    assert [plant["found"] for plant in found["plants"]] == [True]
    assert "predictions_kept" in (tmp_path / "detector.md").read_text()
