"""The detector with real children: one kind, planted, broken off, resumed, judged and counted by
the command.
"""

import json

from scenarios.detector.__main__ import main


def test_a_planted_kind_is_found_in_a_sweep_that_was_broken_off(
    tmp_path, monkeypatch, project_root, capsys
):
    """Killed half-way and resumed, beside a clean sweep: the gate tells the copy by its slope, and
    passes the other.
    """
    monkeypatch.chdir(project_root)
    # Arrays alone need no scan and half a second a child; the baseline comes from the same points.
    for name in ("ACCEPTED", "LAZY"):
        monkeypatch.setattr(f"scenarios.detector.__main__.{name}", "arrays and lazy")
    monkeypatch.setattr("scenarios.detector.__main__.CLEAN_IN_MODES", 0)
    arguments = [
        "--only",
        "arrays_copied",
        "--clean",
        "1",
        "--modes",
        "resumed",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    code = main(arguments)
    found = json.loads((tmp_path / "detector.json").read_text())

    assert code == 0, capsys.readouterr()
    assert (
        found["detection"]["above the bar"]["count"]
        == found["detection"]["above the bar"]["total"]
        == 1
    )
    assert (found["false_alarms"]["count"], found["false_alarms"]["total"]) == (0, 1)
    assert (
        "| `arrays_copied`: images are copied where they were referred to | 65,536 B per "
        "image | slope (construct, host)" in ((tmp_path / "detector.md").read_text())
    )

    # Everything is there: the same command again measures nothing, and counts the same.
    before = (tmp_path / "detector.jsonl").read_bytes()

    assert main(arguments) == 0
    assert (tmp_path / "detector.jsonl").read_bytes() == before
