"""Runs of tests with markers, which promise limits and no tolerances, are compared with the
baselines that were accepted.
"""

import json
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.plugin.judgement import judge_session

KIB, MIB = 1024, 1024 * 1024
MARKERS = {
    "schema_version": 1,
    "budget": [
        {
            "scenarios": ["arrays"],
            "meters": ["device_in_use"],
            "field": "peak",
            "at_most": "2 GiB",
            "because": "marker of tests/test_feed.py::test_arrays",
        }
    ],
}
BY_TESTS = {"repeats": 2, "judged_by_pytest": True}


@pytest.fixture
def measured(synthetic_run, tmp_path, monkeypatch):
    """A project's folder; a run of its tests, with ``extra`` bytes more in each batch of the lazy
    loader.
    """
    monkeypatch.chdir(tmp_path)
    synthetic_run.keep_points(lambda point: point.name.startswith("arrays-lazy"))
    good, points = synthetic_run.amounts, list(synthetic_run.points)

    def measure(extra=0, *, policy=MARKERS, keep=lambda _: True, key=None):
        synthetic_run.amounts, synthetic_run.points = (
            good,
            [point for point in points if keep(point)],
        )
        if extra:
            synthetic_run.plant(phase="first_batch", meter="device_in_use", extra=lambda *_: extra)
        settings = {"settings": BY_TESTS} | ({} if policy is None else {"policy": policy})
        synthetic_run.manifest = {**settings, **({} if key is None else {"comparability": key})}
        synthetic_run.write()

    return measure


def accept(*more):
    return main(["accept", "run", "--reason", "the first truth", *more])


def rules():
    return {
        check["rule"] for check in json.loads(Path("run/findings.json").read_text())["findings"]
    }


def test_without_a_baseline_the_limits_decide_alone(measured, tmp_path):
    """Nothing is there, or an empty folder that nobody names: a pass."""
    measured()

    assert main(["gate", "run"]) == 0
    (tmp_path / "scenarios" / "baselines").mkdir(parents=True)
    assert main(["gate", "run"]) == 0


@pytest.mark.parametrize("folder", ["scenarios/baselines", "mine"])
def test_a_folder_that_is_named_and_has_none_is_no_baseline(measured, tmp_path, folder):
    """Exit code 4, also of the folder that is looked into anyway."""
    measured()
    (tmp_path / folder).mkdir(parents=True)

    assert main(["gate", "run", "--baselines", folder]) == 4
    assert rules() == {"comparability"}


@pytest.mark.parametrize("policy", [MARKERS, None], ids=["limits", "no limits"])
@pytest.mark.parametrize("where", [(), ("--baselines", "mine")], ids=["default", "named"])
def test_what_grows_beyond_tolerance_is_a_regression_and_less_an_improvement(
    measured, policy, where
):
    """8 MiB accepted: 163 KiB more are within 2 %, 170 KiB more are not; and the reverse. The
    marker allows 2 GiB.
    """
    measured(policy=policy)
    assert accept(*where) == 0
    assert main(["gate", "run", *where]) == 0

    for extra, code in (
        (163 * KIB, 0),
        (170 * KIB, 1),
        (-163 * KIB, 0),
        (-170 * KIB, 5),
        (8 * MIB, 1),
    ):
        measured(extra, policy=policy)
        assert (extra, main(["gate", "run", *where])) == (extra, code)
        assert rules() == ({"baseline"} if code else set())


def test_a_test_that_is_gone_is_missed_unless_less_was_measured_on_purpose(measured):
    """Two of the three points that were accepted: incomplete, and a pass with --partial."""
    measured()
    accept()
    measured(keep=lambda point: point.parameters["image_count"] > 100)

    assert main(["gate", "run"]) == 3
    assert rules() == {"coverage"}
    assert main(["gate", "run", "--partial"]) == 0


def test_a_point_that_was_never_accepted_has_no_baseline(measured):
    """One accepted, three measured."""
    measured(keep=lambda point: point.parameters["image_count"] == 100)
    accept()
    measured()

    assert main(["gate", "run"]) == 4


def test_baselines_of_another_version_are_no_silent_pass(measured, capsys):
    """Accepted with one TensorFlow, measured with another: nothing can be compared, and the gate
    says so.
    """
    key = {"device": "emulated, 4.0 GiB", "allocator": "bfc", "tensorflow": "2.20"}
    measured(key=key)
    accept()
    measured(key={**key, "tensorflow": "2.21"})
    capsys.readouterr()

    assert main(["gate", "run"]) == 4
    said = " ".join(capsys.readouterr().out.split())
    assert "tensorflow was 2.20 and is 2.21" in said, said


def test_another_version_is_held_against_the_amounts_before_they_hold_for_it(measured):
    """--same-as compares by the same tolerances; a run that takes twice as much is refused."""
    key = {"device": "emulated, 4.0 GiB", "allocator": "bfc", "tensorflow": "2.20"}
    measured(key=key)
    accept()
    measured(8 * MIB, key={**key, "tensorflow": "2.21"})
    assert accept("--same-as", "2.20") == 2

    measured(key={**key, "tensorflow": "2.21"})
    assert accept("--same-as", "2.20") == 0
    assert main(["gate", "run"]) == 0


POLICY = """
schema_version = 1

[[budget]]
scenarios = ["loading"]
meters = ["device_in_use"]
at_most = "1 GiB"
because = "chosen for this test"
"""


def test_the_baselines_of_a_projects_sweep_are_none_of_its_tests(measured, tmp_path):
    """Where there is a policy too, a baseline without a single point of the run is about something
    else.
    """
    measured(keep=lambda point: point.parameters["image_count"] == 100)
    accept()
    (tmp_path / "scenarios" / "gate.toml").write_text(POLICY)
    measured(keep=lambda point: point.parameters["image_count"] > 100)
    assert main(["gate", "run"]) == 0

    measured()
    assert main(["gate", "run"]) == 4


def test_report_judges_by_the_same(measured, tmp_path):
    """A page that is made anew, as when more was measured, is of the folder that was named."""
    measured()
    (tmp_path / "scenarios" / "baselines").mkdir(parents=True)
    main(["gate", "run", "--baselines", "scenarios/baselines"])
    measured(1)

    assert main(["report", "run"]) == 0
    assert rules() == {"comparability"}


def test_the_end_of_a_session_judges_limits_alone(measured, tmp_path):
    """Twice the batches, within the marker's limit: pytest has nothing to say, the gate does."""
    measured()
    accept()
    measured(8 * MIB)
    _, judgement = judge_session(tmp_path / "run", partial=False)

    assert judgement.verdict.findings == ()
    assert main(["gate", "run"]) == 1
